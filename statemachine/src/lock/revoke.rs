//! Revoke: an operator ends holds.

use serde::{Deserialize, Serialize};

use super::end::end;
use super::hand_over::hand_over;
use super::row::{holders, holders_with};
use super::{End, Member};
use crate::command::Validate;
use crate::context::Context;
use crate::fencing::FencingToken;
use crate::id::Name;
use crate::limits::{MEMBERS_REVOKED_MAX, NAME_BYTES_MAX};
use crate::refusal::{Failure, InvalidArgument, Refusal, Subject};
use crate::tables::{MetaRow, lock_key};
use crate::transaction::Transaction;

/// Ends whatever holds of `key` are live, or the one with the token `only`.
///
/// Promises that the holds in the answer are over; their holders learn it at their next renewal or
/// write. At most [`MEMBERS_REVOKED_MAX`] are ended by one command, oldest first. Whoever waits is
/// granted the lock in the same entry. Refuses with `NotFound` when there is no such hold. A retry
/// finds nothing to revoke; give the command a request id to repeat it safely. Watchers of the key
/// get `LockLeft`, and `LockGranted` for the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoke {
    /// The key.
    pub key: Name,
    /// Revoke the hold with this token only.
    pub only: Option<FencingToken>,
    /// Who revokes and why.
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
    ) -> Result<Vec<Member>, Failure> {
        let mut members = match self.only {
            Some(token) => holders_with(tx, &self.key, token)?,
            None => holders(tx, &self.key, MEMBERS_REVOKED_MAX)?,
        };
        members.retain(|member| member.is_live(ctx.now));
        let lock = tx.get(&lock_key(&self.key))?;
        let (Some(mut lock), false) = (lock, members.is_empty()) else {
            return Err(Failure::Refused(Refusal::NotFound {
                subject: Subject::Lock,
                name: self.key.to_string(),
            }));
        };
        for member in &members {
            let Some(fencing_token) = member.fencing_token() else {
                continue;
            };
            let by = self.by.clone();
            let why = End::Revoked { fencing_token, by };
            end(tx, meta, ctx, &mut lock, member, why)?;
        }
        hand_over(tx, meta, ctx, &mut lock)?;
        Ok(members)
    }
}
