//! Move grants: hand processes over from one scope to another.

use serde::{Deserialize, Serialize};

use super::Grant;
use super::session::{add_grant, remove_grant};
use crate::command::Validate;
use crate::id::Name;
use crate::limits::GRANTS_MOVED_MAX;
use crate::refusal::{Failure, InvalidArgument, Refusal, Subject};
use crate::tables::grant_key;
use crate::transaction::Transaction;

/// Moves grants with their descriptors, all or none.
///
/// Promises that `to` has all of the processes and `from` none of them when it answers; what `to`
/// had of them before is replaced. Refuses with `NotFound` for a process that `from` has not, and
/// with `Exhausted` at the limit of grants of a session; nothing is moved then. It is not safe to
/// repeat without a request id: the second time `from` has them not. Nobody is woken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveGrants {
    /// Whose grants.
    pub from: Name,
    /// Whose they become.
    pub to: Name,
    /// Whose scope `to` is.
    pub to_session: Name,
    /// Which of them: at most [`GRANTS_MOVED_MAX`], each once.
    pub process_ids: Vec<Name>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantsMoved {
    /// How many.
    pub moved: u64,
}

impl Validate for MoveGrants {
    fn validate(&self) -> Result<(), InvalidArgument> {
        let (count, max) = (self.process_ids.len() as u64, GRANTS_MOVED_MAX as u64);
        InvalidArgument::check_count("process_ids", count, 0, max)
    }
}

impl MoveGrants {
    pub(super) fn apply(&self, tx: &mut Transaction<'_>) -> Result<GrantsMoved, Failure> {
        for process_id in &self.process_ids {
            let Some(grant) = tx.get(&grant_key(&self.from, process_id))? else {
                return Err(self.not_granted(process_id));
            };
            remove_grant(tx, &grant)?;
            if let Some(replaced) = tx.get(&grant_key(&self.to, process_id))? {
                remove_grant(tx, &replaced)?;
            }
            let moved = Grant {
                scope: self.to.clone(),
                session: self.to_session.clone(),
                ..grant
            };
            add_grant(tx, &moved)?;
        }
        Ok(GrantsMoved {
            moved: self.process_ids.len() as u64,
        })
    }

    fn not_granted(&self, process_id: &Name) -> Failure {
        Failure::Refused(Refusal::NotFound {
            subject: Subject::Grant,
            name: format!("{}/{process_id}", self.from),
        })
    }
}
