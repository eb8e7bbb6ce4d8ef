//! Register: make a process record.

use serde::{Deserialize, Serialize};

use super::session::add_wake_target;
use super::{Process, ProcessState, WakeTarget};
use crate::command::Validate;
use crate::context::Context;
use crate::id::Name;
use crate::limits::{PAYLOAD_BYTES_MAX, PROCESS_NOTE_BYTES_MAX, PROCESSES_MAX};
use crate::notice::Notice;
use crate::refusal::{Failure, InvalidArgument, Refusal, Subject};
use crate::tables::{MetaRow, definition_key, process_key, process_state_key};
use crate::transaction::Transaction;

/// Makes the record `id`, running, with no events.
///
/// Promises that there is a record with this definition when it answers. Refuses with `Conflict`
/// when the id has another definition, with `Exhausted` when there are too many, of all or of those
/// that wake one session. A retry, like any second registration with the same definition, gets the
/// record as it is now, whatever the wake target it names. Watchers get `ProcessChanged`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// The process.
    pub id: Name,
    /// What it is registered with; opaque, compared byte for byte.
    pub definition: Vec<u8>,
    /// Whom its events wake, from the first registration on.
    pub wake_target: Option<WakeTarget>,
}

/// The answer to a registration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// The record.
    pub process: Process,
    /// Whether it was there before.
    pub existed: bool,
}

impl Validate for Register {
    fn validate(&self) -> Result<(), InvalidArgument> {
        let target = self
            .wake_target
            .as_ref()
            .map_or(0, |wake| wake.target.len());
        InvalidArgument::check_bytes("wake_target", target, PROCESS_NOTE_BYTES_MAX)?;
        InvalidArgument::check_bytes("definition", self.definition.len(), PAYLOAD_BYTES_MAX)
    }
}

impl Register {
    /// A process whose events wake nobody.
    #[must_use]
    pub fn new(id: Name, definition: Vec<u8>) -> Self {
        Self {
            id,
            definition,
            wake_target: None,
        }
    }

    pub(super) fn apply(
        &self,
        tx: &mut Transaction<'_>,
        meta: &mut MetaRow,
        ctx: &Context,
    ) -> Result<Registered, Failure> {
        if let Some(process) = tx.get(&process_key(&self.id))? {
            return self.again(tx, process);
        }
        Refusal::check_room(|| "processes".to_owned(), meta.processes, PROCESSES_MAX)?;
        meta.processes += 1;
        let process = Process {
            id: self.id.clone(),
            state: ProcessState::Running,
            created_at: ctx.now,
            updated_at: ctx.now,
            last_sequence: 0,
            outcome: None,
            external_ref: None,
            wait: None,
            wake_target: self.wake_target.clone(),
        };
        if let Some(target) = &self.wake_target {
            add_wake_target(tx, &self.id, target)?;
        }
        tx.put(&definition_key(&self.id), &self.definition)?;
        tx.put(&process_key(&self.id), &process)?;
        tx.put(&process_state_key(process.state, self.id.as_str()), &())?;
        tx.notify(Notice::ProcessChanged {
            process_id: self.id.clone(),
            ended: false,
        });
        Ok(Registered {
            process,
            existed: false,
        })
    }

    fn again(&self, tx: &mut Transaction<'_>, process: Process) -> Result<Registered, Failure> {
        if tx.get(&definition_key(&self.id))?.as_ref() == Some(&self.definition) {
            return Ok(Registered {
                process,
                existed: true,
            });
        }
        Err(Failure::Refused(Refusal::Conflict {
            subject: Subject::Process,
            name: self.id.to_string(),
            problem: "it is registered with another definition; register under another id"
                .to_owned(),
        }))
    }
}
