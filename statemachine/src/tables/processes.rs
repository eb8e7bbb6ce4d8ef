//! Rows of process records and their events.

use super::{Key, PREFIX_BYTES, Table};
use crate::id::Name;
use crate::process::{Event, Process, ProcessState};
use crate::refusal::Broken;

/// Process records.
pub struct Processes;

impl Table for Processes {
    const TAG: u8 = 0x30;
    const NAME: &'static str = "processes";
    type Row = Process;
}

/// Key of a record.
#[must_use]
pub fn process_key(id: &Name) -> Key<Processes> {
    Key::first().text(id.as_str())
}

/// Events of all processes, each process's in sequence.
pub struct ProcessEvents;

impl Table for ProcessEvents {
    const TAG: u8 = 0x31;
    const NAME: &'static str = "process_events";
    type Row = Event;
}

/// Key of an event.
#[must_use]
pub fn event_key(id: &Name, sequence: u64) -> Key<ProcessEvents> {
    Key::first().name(id).number(sequence)
}

/// Upper end (exclusive) of a process's events.
#[must_use]
pub fn event_range_end(id: &Name) -> Key<ProcessEvents> {
    Key::first().name(id).end()
}

/// Idempotency keys of events.
pub struct ProcessEventKeys;

impl Table for ProcessEventKeys {
    const TAG: u8 = 0x32;
    const NAME: &'static str = "process_event_keys";
    /// The event's sequence.
    type Row = u64;
}

/// Key of an idempotency key.
#[must_use]
pub fn event_unique_key(id: &Name, key: &Name) -> Key<ProcessEventKeys> {
    Key::first().name(id).text(key.as_str())
}

/// Records by state, so that those that run are found among any number that ended.
pub struct ProcessesByState;

impl Table for ProcessesByState {
    const TAG: u8 = 0x33;
    const NAME: &'static str = "processes_by_state";
    type Row = ();
}

/// Key of a record by state.
#[must_use]
pub fn process_state_key(state: ProcessState, id: &str) -> Key<ProcessesByState> {
    Key::first().byte(state as u8).text(id)
}

/// The id inside a key of the index by state.
pub fn process_id_of_state_key(key: &[u8]) -> Result<Name, Broken> {
    let id = key.get(PREFIX_BYTES + 1..).unwrap_or_default();
    Name::parse_bytes("process", id).map_err(|error| Broken(error.to_string()))
}
