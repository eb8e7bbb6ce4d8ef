//! Revoke: an operator ends a grant.

use serde::{Deserialize, Serialize};

use super::Lease;
use super::history::{EndReason, end};
use crate::command::Validate;
use crate::context::Context;
use crate::fencing::FencingToken;
use crate::id::Name;
use crate::limits::NAME_BYTES_MAX;
use crate::refusal::{Failure, InvalidArgument, Refusal, Subject};
use crate::tables::{MetaRow, lease_key};
use crate::transaction::Transaction;

/// Ends whatever grant of `key` is live, whoever holds it.
///
/// Promises that the grant in the answer is over; its holder learns it at its next renewal or
/// write. Refuses with `NotFound` when nobody holds the key, and with `Conflict` when `only` names
/// another grant than the live one. A retry finds nothing to revoke, or with `only` a `Conflict`;
/// give the command a request id to repeat it safely. Watchers of the key get `LeaseEnded`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoke {
    /// The key.
    pub key: Name,
    /// Revoke this grant only.
    pub only: Option<FencingToken>,
    /// Who revokes and why, for the history.
    pub by: String,
}

impl Validate for Revoke {
    fn validate(&self) -> Result<(), InvalidArgument> {
        InvalidArgument::check_bytes("by", self.by.len(), NAME_BYTES_MAX)
    }
}

impl Revoke {
    pub(super) fn apply(
        &self,
        tx: &mut Transaction<'_>,
        meta: &mut MetaRow,
        ctx: &Context,
    ) -> Result<Lease, Failure> {
        let present = tx.get(&lease_key(&self.key))?;
        let Some(lease) = present.filter(|lease| lease.is_live(ctx.now)) else {
            return Err(Failure::Refused(Refusal::NotFound {
                subject: Subject::Lease,
                name: self.key.to_string(),
            }));
        };
        if let Some(only) = self.only.filter(|only| *only != lease.fencing_token) {
            return Err(Failure::Refused(Refusal::Conflict {
                subject: Subject::Lease,
                name: self.key.to_string(),
                problem: format!(
                    "the live grant has fencing token {}, not {only}",
                    lease.fencing_token
                ),
            }));
        }
        let by = self.by.clone();
        end(tx, meta, ctx, &lease, EndReason::Revoked { by })?;
        Ok(lease)
    }
}
