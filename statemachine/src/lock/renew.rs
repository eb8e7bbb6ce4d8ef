//! Renew: keep a hold, or a place in the queue.

use serde::{Deserialize, Serialize};

use super::end::remembered;
use super::row::{fenced, store_moved};
use super::{End, Place};
use crate::access::needs;
use crate::command::Validate;
use crate::context::Context;
use crate::fencing::FencingToken;
use crate::figure::{Figure, Held};
use crate::id::Name;
use crate::limits::{RENEWALS_PER_ENTRY_MAX, TTL_MS_MAX};
use crate::refusal::{Failure, InvalidArgument, Refusal, Subject, answered};
use crate::tables::lock_member_key;
use crate::time::Timestamp;
use crate::transaction::Transaction;

/// Starts the time to live of a hold, or of a place in the queue, anew from the entry's instant.
///
/// Promises that what is kept lives for its time to live from now. Refuses with `Expired` or
/// `Fenced` when the hold is over, with `Conflict` when the wait is, and with `NotFound` when no
/// acquisition is known under this id. A retry renews again, which only moves the deadline out.
/// Nobody is woken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renew {
    /// The key.
    pub key: Name,
    /// The acquisition.
    pub id: [u8; 16],
    /// The hold's time to live from now on; none for the one it has. A place in the queue keeps
    /// its own.
    pub ttl_ms: Option<u64>,
}

/// Renewals of one caller that the leader gathered into one entry; each has its own answer, in
/// order, a denial included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewMany {
    /// At most [`RENEWALS_PER_ENTRY_MAX`].
    pub renewals: Vec<Renew>,
}

/// The answer to a renewal: what was kept. Variants are only ever appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kept {
    /// The place in the queue.
    Waiting {
        /// Its new deadline: that of this sign of life, or of the longest wait if it is earlier.
        expires_at: Timestamp,
    },
    /// The hold.
    Holding {
        /// Its token.
        fencing_token: FencingToken,
        /// Its new deadline.
        expires_at: Timestamp,
    },
}

impl Validate for Renew {
    fn validate(&self) -> Result<(), InvalidArgument> {
        InvalidArgument::check_count("ttl_ms", self.ttl_ms.unwrap_or(1), 1, TTL_MS_MAX)
    }
}

impl Validate for RenewMany {
    fn validate(&self) -> Result<(), InvalidArgument> {
        let (count, max) = (self.renewals.len() as u64, RENEWALS_PER_ENTRY_MAX as u64);
        InvalidArgument::check_count("renewals", count, 1, max)?;
        self.renewals.iter().try_for_each(Validate::validate)
    }
}

impl Renew {
    pub(super) fn apply(&self, tx: &mut Transaction<'_>, ctx: &Context) -> Result<Kept, Failure> {
        let Some(mut member) = tx.get(&lock_member_key(&self.key, self.id))? else {
            let end = remembered(tx, self.id, self.key.as_str())?;
            return Err(self.over(tx, ctx, end)?);
        };
        if !member.is_live(ctx.now) {
            let end = member.overdue();
            return Err(self.over(tx, ctx, Some(end))?);
        }
        let kept = match &mut member.place {
            Place::Waiting { .. } => {
                member.expires_at = ctx.now.plus(member.wait_ttl_ms);
                Kept::Waiting {
                    expires_at: member.deadline(),
                }
            }
            Place::Holding {
                fencing_token,
                renewed_at,
                ..
            } => {
                tx.count(Figure::Renewed {
                    held: Held::Lock,
                    left_ms: member.expires_at.since(ctx.now),
                });
                *renewed_at = ctx.now;
                member.ttl_ms = self.ttl_ms.unwrap_or(member.ttl_ms);
                member.expires_at = ctx.now.plus(member.ttl_ms);
                Kept::Holding {
                    fencing_token: *fencing_token,
                    expires_at: member.expires_at,
                }
            }
        };
        store_moved(tx, &self.key, &mut member)?;
        Ok(kept)
    }

    /// Why there is nothing to keep.
    fn over(
        &self,
        tx: &mut Transaction<'_>,
        ctx: &Context,
        end: Option<End>,
    ) -> Result<Failure, Failure> {
        let (subject, name) = (Subject::Lock, self.key.to_string());
        Ok(match end {
            Some(End::Expired { fencing_token, at }) => Failure::Refused(Refusal::Expired {
                subject,
                name,
                token: fencing_token,
                expired_at: at,
            }),
            Some(End::Released { fencing_token } | End::Revoked { fencing_token, .. }) => {
                fenced(tx, ctx, &self.key, fencing_token)?
            }
            Some(wait) => Failure::Refused(Refusal::Conflict {
                subject,
                name,
                problem: format!(
                    "the wait is over ({}); acquire with a new id",
                    wait.as_str()
                ),
            }),
            None => Failure::Refused(Refusal::NotFound { subject, name }),
        })
    }
}

impl RenewMany {
    pub(super) fn apply(
        &self,
        tx: &mut Transaction<'_>,
        ctx: &Context,
    ) -> Result<Vec<Result<Kept, Refusal>>, Failure> {
        let renewals = self.renewals.iter();
        let answers = renewals.map(|renewal| {
            let allowed = ctx.rights.check(needs::lock_renewal(renewal));
            answered(
                allowed
                    .map_err(Failure::from)
                    .and_then(|()| renewal.apply(tx, ctx)),
            )
        });
        answers.collect()
    }
}
