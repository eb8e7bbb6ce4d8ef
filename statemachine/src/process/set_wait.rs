//! Set wait: note what a process waits for, or that it waits no longer.

use serde::{Deserialize, Serialize};

use super::{Process, require};
use crate::command::Validate;
use crate::context::Context;
use crate::id::Name;
use crate::limits::PROCESS_NOTE_BYTES_MAX;
use crate::refusal::{Failure, InvalidArgument};
use crate::transaction::Transaction;

/// Replaces what the process waits for.
///
/// Promises that the record says so when it answers. Refuses with `NotFound` for an unknown
/// process, and with `Ended` when one that has ended is to wait. A retry sets the same again, which
/// only moves `updated_at`. Watchers get `ProcessChanged`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetWait {
    /// The process.
    pub id: Name,
    /// Opaque; none when it waits for nothing.
    pub wait: Option<Vec<u8>>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitSet {
    /// The record.
    pub process: Process,
}

impl Validate for SetWait {
    fn validate(&self) -> Result<(), InvalidArgument> {
        let bytes = self.wait.as_ref().map_or(0, Vec::len);
        InvalidArgument::check_bytes("wait", bytes, PROCESS_NOTE_BYTES_MAX)
    }
}

impl SetWait {
    pub(super) fn apply(
        &self,
        tx: &mut Transaction<'_>,
        ctx: &Context,
    ) -> Result<WaitSet, Failure> {
        let mut process = require(tx, &self.id)?;
        if self.wait.is_some() && process.state.is_ended() {
            return Err(process.ended());
        }
        process.wait.clone_from(&self.wait);
        process.store_changed(tx, ctx)?;
        Ok(WaitSet { process })
    }
}
