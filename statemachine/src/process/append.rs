//! Append: add an event to a process.

use serde::{Deserialize, Serialize};

use super::{Event, Process, not_found};
use crate::command::Validate;
use crate::context::Context;
use crate::id::Name;
use crate::limits::{PAYLOAD_BYTES_MAX, PROCESS_EVENTS_MAX};
use crate::notice::Notice;
use crate::refusal::{Broken, Failure, InvalidArgument, Refusal, Subject};
use crate::tables::{event_key, event_unique_key, process_key};
use crate::transaction::Transaction;

/// Appends an event.
///
/// Promises the next sequence number without a gap, and that an event with the same `key` is
/// stored once. Refuses with `NotFound` for an unknown process, with `Ended` when the process has
/// ended (unless the key was appended before), and with `Conflict` when `key` was used with another
/// type or payload, and with `Exhausted` at the limit of events. A retry with `key` gets the first
/// answer with `duplicate` set; without `key`, give the command a request id. Watchers get
/// `EventAppended`.
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
}

/// The answer to an append.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appended {
    /// The event's sequence number.
    pub sequence: u64,
    /// Whether the event was there before.
    pub duplicate: bool,
}

impl Validate for Append {
    fn validate(&self) -> Result<(), InvalidArgument> {
        InvalidArgument::check_bytes("payload", self.payload.len(), PAYLOAD_BYTES_MAX)
    }
}

impl Append {
    /// The key is looked up before the state: a retry whose first try was the process's last event
    /// must get its answer, not `Ended`.
    pub(super) fn apply(
        &self,
        tx: &mut Transaction<'_>,
        ctx: &Context,
    ) -> Result<Appended, Failure> {
        let Some(process) = tx.get(&process_key(&self.id))? else {
            return Err(not_found(&self.id));
        };
        if let Some(key) = &self.key
            && let Some(sequence) = tx.get(&event_unique_key(&self.id, key))?
        {
            return self.again(tx, key, sequence);
        }
        if process.state.is_ended() {
            return Err(process.ended());
        }
        let events = || format!("events of process {}", self.id);
        Refusal::check_room(events, process.last_sequence, PROCESS_EVENTS_MAX)?;
        let sequence = self.write(tx, ctx, process)?;
        Ok(Appended {
            sequence,
            duplicate: false,
        })
    }

    fn write(
        &self,
        tx: &mut Transaction<'_>,
        ctx: &Context,
        mut process: Process,
    ) -> Result<u64, Broken> {
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
        if let Some(key) = &self.key {
            tx.put(&event_unique_key(&self.id, key), &sequence)?;
        }
        tx.put(&process_key(&self.id), &process)?;
        tx.notify(Notice::EventAppended {
            process_id: self.id.clone(),
            sequence,
        });
        Ok(sequence)
    }

    fn again(
        &self,
        tx: &mut Transaction<'_>,
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
            return Ok(Appended {
                sequence,
                duplicate: true,
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
