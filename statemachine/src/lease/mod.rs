//! Leases: a right to a key that ends by itself.
//!
//! At most one grant of a key is live. Each grant has a fencing token, greater than every token
//! before it; whoever writes elsewhere under the lease sends the token along, and the one who
//! checks it refuses lower ones. A holder that is paused past its TTL is not told: it is fenced.
//!
//! A row stays until it is released, revoked, reclaimed, or found due by the sweep or by the next
//! claim. What ended is kept in the key's bounded history.

use serde::{Deserialize, Serialize};

use crate::command::operations;
use crate::context::Context;
use crate::fencing::FencingToken;
use crate::id::{LeaseToken, Name, Owner};
use crate::refusal::{Broken, Failure, Refusal, Subject};
use crate::tables::{MetaRow, lease_key};
use crate::time::Timestamp;
use crate::transaction::Transaction;

mod claim;
mod expire;
mod history;
mod query;
mod reclaim;
mod release;
mod renew;
mod revoke;

pub use claim::{Claim, Claimed, SameOwner};
pub(crate) use expire::{expire_due, forget_due};
pub use history::{EndReason, Ended, EndedName, History, HistoryRow};
pub use query::{Answer, Get, HistoryOf, List, Query};
pub(crate) use query::{query, validate as validate_query};
pub use reclaim::{Observed, Reclaim};
pub use release::{Release, Released};
pub use renew::{Renew, RenewMany, Renewed};
pub use revoke::Revoke;

/// A live grant, as stored and as shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The key.
    pub key: Name,
    /// Who holds it.
    pub owner: Owner,
    /// The holder's proof, minted by it.
    pub lease_token: LeaseToken,
    /// Orders this grant among all grants ever made.
    pub fencing_token: FencingToken,
    /// How many grants this key has had, as far as its history reaches; the first is 1.
    pub epoch: u64,
    /// Time to live from each renewal.
    pub ttl_ms: u64,
    /// When it was granted.
    pub granted_at: Timestamp,
    /// When it was last renewed; when granted, if never.
    pub renewed_at: Timestamp,
    /// When it ends unless renewed.
    pub expires_at: Timestamp,
    /// Where its due entry is filed: never later than `expires_at`.
    pub filed_at: Timestamp,
    /// Renewals so far.
    pub renewals: u64,
    /// The holder's own note, shown to others.
    pub metadata: Vec<u8>,
}

impl Lease {
    /// Whether the grant still holds at `now`. The last millisecond is the one before `expires_at`.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        now < self.expires_at
    }
}

operations! {
    Lease {
        0x0101 "lease.claim" Claim => Claimed;
        0x0102 "lease.renew" Renew => Renewed, upkeep;
        0x0103 "lease.renew_many" RenewMany => Vec<Result<Renewed, Refusal>>, upkeep;
        0x0104 "lease.release" Release => Released, upkeep;
        0x0105 "lease.reclaim" Reclaim => Lease;
        0x0106 "lease.revoke" Revoke => Lease, upkeep;
    }
}

pub(crate) fn apply(
    tx: &mut Transaction<'_>,
    meta: &mut MetaRow,
    ctx: &Context,
    command: &Command,
) -> Result<Response, Failure> {
    match command {
        Command::Claim(claim) => claim.apply(tx, meta, ctx).map(Response::Claim),
        Command::Renew(renew) => renew.apply(tx, ctx).map(Response::Renew),
        Command::RenewMany(many) => many.apply(tx, ctx).map(Response::RenewMany),
        Command::Release(release) => release.apply(tx, meta, ctx).map(Response::Release),
        Command::Reclaim(reclaim) => reclaim.apply(tx, meta, ctx).map(Response::Reclaim),
        Command::Revoke(revoke) => revoke.apply(tx, meta, ctx).map(Response::Revoke),
    }
}

/// The live lease of `key` whose fencing token is `token`; says what became of it otherwise.
pub(crate) fn require_live(
    tx: &mut Transaction<'_>,
    ctx: &Context,
    key: &Name,
    token: FencingToken,
) -> Result<Lease, Failure> {
    let row = tx.get(&lease_key(key))?;
    match row {
        Some(lease) if lease.fencing_token == token => {
            if lease.is_live(ctx.now) {
                return Ok(lease);
            }
            Err(Failure::Refused(Refusal::Expired {
                subject: Subject::Lease,
                name: key.to_string(),
                token,
                expired_at: lease.expires_at,
            }))
        }
        Some(lease) if lease.is_live(ctx.now) => Err(fenced(key, token, Some(lease.fencing_token))),
        _ => Err(history::why_gone(tx, key, token)?),
    }
}

/// The live lease of `key` if it is the one that its holder names in full: owner and both tokens.
pub(crate) fn require_held(
    tx: &mut Transaction<'_>,
    ctx: &Context,
    key: &Name,
    held: &Observed,
) -> Result<Lease, Failure> {
    let lease = require_live(tx, ctx, key, held.fencing_token)?;
    if held.is(&lease) {
        return Ok(lease);
    }
    Err(fenced(key, held.fencing_token, Some(lease.fencing_token)))
}

/// Ends a live grant because its holder gives it back.
pub(crate) fn give_back(
    tx: &mut Transaction<'_>,
    meta: &mut MetaRow,
    ctx: &Context,
    lease: &Lease,
) -> Result<(), Broken> {
    history::end(tx, meta, ctx, lease, EndReason::Released)
}

fn fenced(key: &Name, presented: FencingToken, current: Option<FencingToken>) -> Failure {
    Failure::Refused(Refusal::Fenced {
        subject: Subject::Lease,
        name: key.to_string(),
        presented,
        current,
    })
}
