//! Rows of process records, their events, and who may use them.

use super::{Key, PREFIX_BYTES, Table, split_name};
use crate::id::Name;
use crate::process::{Event, Grant, Process, ProcessState, SessionRow};
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

/// What processes were registered with: apart, since it never changes and may be large.
pub struct ProcessDefinitions;

impl Table for ProcessDefinitions {
    const TAG: u8 = 0x34;
    const NAME: &'static str = "process_definitions";
    type Row = Vec<u8>;
}

/// Key of a definition.
#[must_use]
pub fn definition_key(id: &Name) -> Key<ProcessDefinitions> {
    Key::first().text(id.as_str())
}

/// Events by process and type, so that one type is counted and followed among any number of
/// others.
pub struct EventsByType;

impl Table for EventsByType {
    const TAG: u8 = 0x35;
    const NAME: &'static str = "events_by_type";
    type Row = ();
}

/// Key of an event by its type.
#[must_use]
pub fn event_type_key(id: &Name, event_type: &Name, sequence: u64) -> Key<EventsByType> {
    Key::first().name(id).name(event_type).number(sequence)
}

/// Upper end (exclusive) of a process's events of one type.
#[must_use]
pub fn event_type_end(id: &Name, event_type: &Name) -> Key<EventsByType> {
    Key::first().name(id).name(event_type).end()
}

/// Events whose wake is pending.
pub struct PendingWakes;

impl Table for PendingWakes {
    const TAG: u8 = 0x36;
    const NAME: &'static str = "pending_wakes";
    type Row = ();
}

/// Key of a pending wake.
#[must_use]
pub fn wake_key(id: &Name, sequence: u64) -> Key<PendingWakes> {
    Key::first().name(id).number(sequence)
}

/// Upper end (exclusive) of a process's pending wakes.
#[must_use]
pub fn wakes_end(id: &Name) -> Key<PendingWakes> {
    Key::first().name(id).end()
}

/// The sequence at the end of a key.
#[must_use]
pub fn sequence_of(key: &[u8]) -> Option<u64> {
    key.last_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// Processes that scopes may use, by scope.
pub struct Grants;

impl Table for Grants {
    const TAG: u8 = 0x37;
    const NAME: &'static str = "grants";
    type Row = Grant;
}

/// Key of a grant.
#[must_use]
pub fn grant_key(scope: &Name, process: &Name) -> Key<Grants> {
    Key::first().name(scope).text(process.as_str())
}

/// A scope's grants: from, and to (exclusive).
#[must_use]
pub fn grants_of_scope(scope: &Name) -> (Key<Grants>, Key<Grants>) {
    let first = Key::first().name(scope);
    (first.clone(), first.end())
}

/// Grants by process, then session, then scope.
pub struct GrantsByProcess;

impl Table for GrantsByProcess {
    const TAG: u8 = 0x38;
    const NAME: &'static str = "grants_by_process";
    type Row = ();
}

/// Key of a grant by its process.
#[must_use]
pub fn grant_of_process_key(grant: &Grant) -> Key<GrantsByProcess> {
    let process = Key::first().name(&grant.process_id);
    process.name(&grant.session).text(grant.scope.as_str())
}

/// A process's grants: from, and to (exclusive).
#[must_use]
pub fn grants_of_process(process: &Name) -> (Key<GrantsByProcess>, Key<GrantsByProcess>) {
    let first = Key::first().name(process);
    (first.clone(), first.end())
}

/// Grants by session.
pub struct GrantsBySession;

impl Table for GrantsBySession {
    const TAG: u8 = 0x39;
    const NAME: &'static str = "grants_by_session";
    type Row = ();
}

/// Key of a grant by its session.
#[must_use]
pub fn grant_of_session_key(grant: &Grant) -> Key<GrantsBySession> {
    let session = Key::first().name(&grant.session);
    session.name(&grant.scope).text(grant.process_id.as_str())
}

/// A session's grants: from, and to (exclusive).
#[must_use]
pub fn grants_of_session(session: &Name) -> (Key<GrantsBySession>, Key<GrantsBySession>) {
    let first = Key::first().name(session);
    (first.clone(), first.end())
}

/// Processes by the session that their events wake.
pub struct WakeTargets;

impl Table for WakeTargets {
    const TAG: u8 = 0x3a;
    const NAME: &'static str = "wake_targets";
    type Row = ();
}

/// Key of a process by the session it wakes.
#[must_use]
pub fn wake_target_key(session: &Name, process: &Name) -> Key<WakeTargets> {
    Key::first().name(session).text(process.as_str())
}

/// The processes that wake a session: from, and to (exclusive).
#[must_use]
pub fn wake_targets_of(session: &Name) -> (Key<WakeTargets>, Key<WakeTargets>) {
    let first = Key::first().name(session);
    (first.clone(), first.end())
}

/// The process of a key of the index by the session it wakes.
pub fn wake_target_of(key: &[u8]) -> Result<Name, Broken> {
    let (_, process) =
        split_name(key.get(PREFIX_BYTES..).unwrap_or_default()).ok_or_else(|| no_meaning(key))?;
    name_of(key, process)
}

/// How much sessions are tied to.
pub struct ProcessSessions;

impl Table for ProcessSessions {
    const TAG: u8 = 0x3b;
    const NAME: &'static str = "process_sessions";
    type Row = SessionRow;
}

/// Key of a session.
#[must_use]
pub fn session_key(session: &Name) -> Key<ProcessSessions> {
    Key::first().text(session.as_str())
}

/// The two names behind the first one in a key of [`GrantsByProcess`] (session, scope) or of
/// [`GrantsBySession`] (scope, process).
pub fn grant_names(key: &[u8]) -> Result<(Name, Name), Broken> {
    let own = key.get(PREFIX_BYTES..).unwrap_or_default();
    let (_, rest) = split_name(own).ok_or_else(|| no_meaning(key))?;
    let (first, second) = split_name(rest).ok_or_else(|| no_meaning(key))?;
    Ok((name_of(key, first)?, name_of(key, second)?))
}

fn name_of(key: &[u8], bytes: &[u8]) -> Result<Name, Broken> {
    Name::parse_bytes("name", bytes).map_err(|_| no_meaning(key))
}

fn no_meaning(key: &[u8]) -> Broken {
    Broken(format!(
        "key {} of an index has no meaning",
        key.escape_ascii()
    ))
}
