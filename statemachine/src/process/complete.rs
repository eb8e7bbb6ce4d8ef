//! Complete: end a process.

use serde::{Deserialize, Serialize};

use super::{Process, ProcessState, check_final, require};
use crate::command::Validate;
use crate::context::Context;
use crate::id::Name;
use crate::limits::PAYLOAD_BYTES_MAX;
use crate::refusal::{Failure, InvalidArgument};
use crate::tables::process_key;
use crate::transaction::Transaction;

/// Ends the process with an outcome.
///
/// Promises that the record has this state and outcome when it answers. Refuses with `NotFound` for
/// an unknown process, with `Invalid` when `state` is no final state, and with `Ended` when it has
/// ended otherwise. A retry with the same state and outcome gets the record with `existed` set.
/// Watchers get `ProcessChanged`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Complete {
    /// The process.
    pub id: Name,
    /// Succeeded, failed or cancelled.
    pub state: ProcessState,
    /// Opaque.
    pub outcome: Vec<u8>,
}

/// The answer to a completion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completed {
    /// The record.
    pub process: Process,
    /// Whether it had ended so before.
    pub existed: bool,
}

impl Validate for Complete {
    fn validate(&self) -> Result<(), InvalidArgument> {
        check_final(self.state)?;
        InvalidArgument::check_bytes("outcome", self.outcome.len(), PAYLOAD_BYTES_MAX)
    }
}

impl Complete {
    pub(super) fn apply(
        &self,
        tx: &mut Transaction<'_>,
        ctx: &Context,
    ) -> Result<Completed, Failure> {
        let mut process = require(tx, &self.id)?;
        if process.state.is_ended() {
            return self.again(process);
        }
        process.end(tx, self.state, &self.outcome)?;
        process.updated_at = ctx.now;
        tx.put(&process_key(&self.id), &process)?;
        Ok(Completed {
            process,
            existed: false,
        })
    }

    fn again(&self, process: Process) -> Result<Completed, Failure> {
        let same = process.outcome.as_ref() == Some(&self.outcome);
        if process.state != self.state || !same {
            return Err(process.ended());
        }
        Ok(Completed {
            process,
            existed: true,
        })
    }
}
