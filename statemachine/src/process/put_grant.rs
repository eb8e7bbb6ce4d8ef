//! Put grant: let a scope use a process.

use serde::{Deserialize, Serialize};

use super::session::{add_grant, remove_grant};
use super::{Grant, require};
use crate::command::Validate;
use crate::limits::PROCESS_NOTE_BYTES_MAX;
use crate::refusal::{Failure, InvalidArgument};
use crate::tables::grant_key;
use crate::transaction::Transaction;

/// Grants a process to a scope, or replaces the session and the descriptor of its grant.
///
/// Promises that the grant is as given when it answers. Refuses with `NotFound` for an unknown
/// process and with `Exhausted` at the limit of grants of a session. A retry puts the same again.
/// Nobody is woken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutGrant {
    /// The grant.
    pub grant: Grant,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantPut {
    /// Whether the scope had the process before.
    pub existed: bool,
}

impl Validate for PutGrant {
    fn validate(&self) -> Result<(), InvalidArgument> {
        InvalidArgument::check_bytes(
            "descriptor",
            self.grant.descriptor.len(),
            PROCESS_NOTE_BYTES_MAX,
        )
    }
}

impl PutGrant {
    pub(super) fn apply(&self, tx: &mut Transaction<'_>) -> Result<GrantPut, Failure> {
        require(tx, &self.grant.process_id)?;
        let before = tx.get(&grant_key(&self.grant.scope, &self.grant.process_id))?;
        if let Some(before) = &before {
            remove_grant(tx, before)?;
        }
        add_grant(tx, &self.grant)?;
        Ok(GrantPut {
            existed: before.is_some(),
        })
    }
}
