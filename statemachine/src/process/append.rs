//! Append: add an event to a process.

use serde::{Deserialize, Serialize};

use super::{Event, Process, ProcessState, check_final, require};
use crate::command::Validate;
use crate::context::Context;
use crate::figure::Figure;
use crate::id::Name;
use crate::limits::{PAYLOAD_BYTES_MAX, PROCESS_EVENTS_MAX};
use crate::notice::Notice;
use crate::refusal::{Broken, Failure, InvalidArgument, Refusal, Subject};
use crate::tables::{event_key, event_type_key, event_unique_key, process_key, wake_key};
use crate::time::Timestamp;
use crate::transaction::Transaction;

/// Appends an event.
///
/// Promises the next sequence number without a gap, that an event with the same `key` is stored
/// once, and that the end and the wake that it asks for come with it. Refuses with `NotFound` for
/// an unknown process, with `Ended` when the process has ended (unless the key was appended before,
/// or the event may come after the end and is none), with `Conflict` when `key` was used with
/// another type or payload, and with `Exhausted` at the limit of events. A retry with `key` gets
/// the first event with `duplicate` set; without `key`, give the command a request id. Watchers get
/// `EventAppended`, and `ProcessChanged` when it ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Append {
    /// The process.
    pub id: Name,
    /// What kind of event.
    pub event_type: Name,
    /// Idempotency key, unique within the process.
    pub key: Option<Name>,
    /// Opaque.
    pub payload: Vec<u8>,
    /// Whether the event asks for a wake: it is pending until it is acknowledged.
    pub wakes: bool,
    /// Whether the event may come after the end of its process.
    pub after_end: bool,
    /// How the event ends its process; none if it does not.
    pub ends: Option<Ending>,
}

/// How an event ends its process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// Succeeded, failed or cancelled.
    pub state: ProcessState,
    /// Opaque.
    pub outcome: Vec<u8>,
}

/// The answer to an append.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appended {
    /// The event's sequence number.
    pub sequence: u64,
    /// When it was appended.
    pub at: Timestamp,
    /// Whether the event was there before.
    pub duplicate: bool,
    /// The record, after the event.
    pub process: Process,
}

impl Validate for Append {
    fn validate(&self) -> Result<(), InvalidArgument> {
        if let Some(ending) = &self.ends {
            check_final(ending.state)?;
            InvalidArgument::check_bytes("outcome", ending.outcome.len(), PAYLOAD_BYTES_MAX)?;
        }
        InvalidArgument::check_bytes("payload", self.payload.len(), PAYLOAD_BYTES_MAX)
    }
}

impl Append {
    /// An event that is an event and nothing else: without a key, waking nobody, ending nothing.
    #[must_use]
    pub fn new(id: Name, event_type: Name, payload: Vec<u8>) -> Self {
        Self {
            id,
            event_type,
            key: None,
            payload,
            wakes: false,
            after_end: false,
            ends: None,
        }
    }

    /// The key is looked up before the state: a retry whose first try was the process's last event
    /// must get its answer, not `Ended`.
    pub(super) fn apply(
        &self,
        tx: &mut Transaction<'_>,
        ctx: &Context,
    ) -> Result<Appended, Failure> {
        let process = require(tx, &self.id)?;
        if let Some(key) = &self.key
            && let Some(sequence) = tx.get(&event_unique_key(&self.id, key))?
        {
            return self.again(tx, process, key, sequence);
        }
        let may_follow = self.after_end && self.ends.is_none();
        if process.state.is_ended() && !may_follow {
            return Err(process.ended());
        }
        let events = || format!("events of process {}", self.id);
        Refusal::check_room(events, process.last_sequence, PROCESS_EVENTS_MAX)?;
        let process = self.write(tx, ctx, process)?;
        Ok(Appended {
            sequence: process.last_sequence,
            at: ctx.now,
            duplicate: false,
            process,
        })
    }

    fn write(
        &self,
        tx: &mut Transaction<'_>,
        ctx: &Context,
        mut process: Process,
    ) -> Result<Process, Broken> {
        process.last_sequence += 1;
        process.updated_at = ctx.now;
        let sequence = process.last_sequence;
        let event = Event {
            sequence,
            event_type: self.event_type.clone(),
            at: ctx.now,
            index: ctx.index,
            key: self.key.clone(),
            payload: self.payload.clone(),
        };
        tx.put_new(&event_key(&self.id, sequence), &event)?;
        tx.put_new(&event_type_key(&self.id, &self.event_type, sequence), &())?;
        if let Some(key) = &self.key {
            tx.put(&event_unique_key(&self.id, key), &sequence)?;
        }
        if self.wakes {
            tx.put_new(&wake_key(&self.id, sequence), &())?;
        }
        tx.notify(Notice::EventAppended {
            process_id: self.id.clone(),
            sequence,
        });
        if let Some(ending) = &self.ends {
            process.end(tx, ending.state, &ending.outcome)?;
        }
        tx.put(&process_key(&self.id), &process)?;
        Ok(process)
    }

    fn again(
        &self,
        tx: &mut Transaction<'_>,
        process: Process,
        key: &Name,
        sequence: u64,
    ) -> Result<Appended, Failure> {
        let Some(first) = tx.get(&event_key(&self.id, sequence))? else {
            let id = &self.id;
            return Err(Broken(format!(
                "process {id} has key {key} and no event {sequence}"
            ))
            .into());
        };
        if first.event_type == self.event_type && first.payload == self.payload {
            tx.count(Figure::EventRepeated);
            return Ok(Appended {
                sequence,
                at: first.at,
                duplicate: true,
                process,
            });
        }
        Err(Failure::Refused(Refusal::Conflict {
            subject: Subject::Process,
            name: self.id.to_string(),
            problem: format!(
                "idempotency key {key:?} was used for event {sequence} with another type or \
                 payload; append under another key"
            ),
        }))
    }
}
