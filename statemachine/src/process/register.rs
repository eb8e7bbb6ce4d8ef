//! Register: make a process record.

use serde::{Deserialize, Serialize};

use super::{Process, ProcessState};
use crate::command::Validate;
use crate::context::Context;
use crate::id::Name;
use crate::limits::{PAYLOAD_BYTES_MAX, PROCESSES_MAX};
use crate::notice::Notice;
use crate::refusal::{Failure, InvalidArgument, Refusal, Subject};
use crate::tables::{MetaRow, process_key, process_state_key};
use crate::transaction::Transaction;

/// Makes the record `id`, running, with no events.
///
/// Promises that there is a record with this definition when it answers. Refuses with `Conflict`
/// when the id has another definition, with `Exhausted` when there are too many. A retry, like any
/// second registration with the same definition, gets the record as it is now. Watchers get
/// `ProcessChanged`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// The process.
    pub id: Name,
    /// What it is registered with; opaque, compared byte for byte.
    pub definition: Vec<u8>,
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
        InvalidArgument::check_bytes("definition", self.definition.len(), PAYLOAD_BYTES_MAX)
    }
}

impl Register {
    pub(super) fn apply(
        &self,
        tx: &mut Transaction<'_>,
        meta: &mut MetaRow,
        ctx: &Context,
    ) -> Result<Registered, Failure> {
        if let Some(process) = tx.get(&process_key(&self.id))? {
            return self.again(process);
        }
        Refusal::check_room(|| "processes".to_owned(), meta.processes, PROCESSES_MAX)?;
        meta.processes += 1;
        let process = Process {
            id: self.id.clone(),
            state: ProcessState::Running,
            definition: self.definition.clone(),
            created_at: ctx.now,
            updated_at: ctx.now,
            last_sequence: 0,
            outcome: None,
        };
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

    fn again(&self, process: Process) -> Result<Registered, Failure> {
        if process.definition == self.definition {
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
