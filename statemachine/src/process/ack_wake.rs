//! Acknowledge a wake: an event that asked for one is pending no longer.

use serde::{Deserialize, Serialize};

use super::require;
use crate::command::Validate;
use crate::id::Name;
use crate::refusal::{Failure, InvalidArgument};
use crate::tables::wake_key;
use crate::transaction::Transaction;

/// Takes an event from those whose wake is pending.
///
/// Promises that it is not pending when it answers. Refuses with `NotFound` for an unknown process.
/// An event that asked for no wake, or does not exist, is not pending either: nothing happens. A
/// retry gets `was_pending` unset. Nobody is woken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AckWake {
    /// The process.
    pub id: Name,
    /// The event.
    pub sequence: u64,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WakeAcked {
    /// Whether it was pending.
    pub was_pending: bool,
}

impl Validate for AckWake {
    fn validate(&self) -> Result<(), InvalidArgument> {
        Ok(())
    }
}

impl AckWake {
    pub(super) fn apply(&self, tx: &mut Transaction<'_>) -> Result<WakeAcked, Failure> {
        require(tx, &self.id)?;
        let key = wake_key(&self.id, self.sequence);
        let was_pending = tx.exists(&key)?;
        tx.delete(&key)?;
        Ok(WakeAcked { was_pending })
    }
}
