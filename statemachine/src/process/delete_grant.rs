//! Delete grant: a scope may use a process no longer.

use serde::{Deserialize, Serialize};

use super::session::remove_grant;
use crate::command::Validate;
use crate::id::Name;
use crate::refusal::{Failure, InvalidArgument};
use crate::tables::grant_key;
use crate::transaction::Transaction;

/// Takes a process from a scope.
///
/// Promises that there is no such grant when it answers; one that was not there, or whose process
/// is unknown, is no error. A retry gets `existed` unset. Nobody is woken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteGrant {
    /// Who may use it.
    pub scope: Name,
    /// The process.
    pub process_id: Name,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantDeleted {
    /// Whether there was a grant.
    pub existed: bool,
}

impl Validate for DeleteGrant {
    fn validate(&self) -> Result<(), InvalidArgument> {
        Ok(())
    }
}

impl DeleteGrant {
    pub(super) fn apply(&self, tx: &mut Transaction<'_>) -> Result<GrantDeleted, Failure> {
        let grant = tx.get(&grant_key(&self.scope, &self.process_id))?;
        if let Some(grant) = &grant {
            remove_grant(tx, grant)?;
        }
        Ok(GrantDeleted {
            existed: grant.is_some(),
        })
    }
}
