//! Renew: start the TTL of a live grant anew.

use serde::{Deserialize, Serialize};

use super::{Lease, fenced, require_live};
use crate::access::needs;
use crate::command::Validate;
use crate::context::Context;
use crate::fencing::FencingToken;
use crate::figure::{Figure, Held};
use crate::id::{LeaseToken, Name};
use crate::limits::RENEWALS_PER_ENTRY_MAX;
use crate::refusal::{Broken, Failure, InvalidArgument, Refusal, answered};
use crate::tables::{DueKind, due_key, lease_key};
use crate::time::Timestamp;
use crate::transaction::Transaction;

/// Starts the TTL anew, from the entry's instant.
///
/// Promises that the grant lives `ttl_ms` from now. Refuses with `Expired` or `Fenced` when the
/// grant is over or the tokens are another grant's. A retry renews again, which only moves the
/// deadline out. Nobody is woken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renew {
    /// The key.
    pub key: Name,
    /// The holder's proof.
    pub lease_token: LeaseToken,
    /// The grant.
    pub fencing_token: FencingToken,
    /// The TTL from now on.
    pub ttl_ms: u64,
}

/// Renewals of one caller that the leader gathered into one entry; each has its own answer, in
/// order, a denial included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewMany {
    /// At most [`RENEWALS_PER_ENTRY_MAX`].
    pub renewals: Vec<Renew>,
}

/// The answer to a renewal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewed {
    /// The grant.
    pub fencing_token: FencingToken,
    /// Its TTL.
    pub ttl_ms: u64,
    /// Its new deadline.
    pub expires_at: Timestamp,
}

impl Validate for Renew {
    fn validate(&self) -> Result<(), InvalidArgument> {
        InvalidArgument::check_ttl(self.ttl_ms)
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
    pub(super) fn apply(
        &self,
        tx: &mut Transaction<'_>,
        ctx: &Context,
    ) -> Result<Renewed, Failure> {
        let mut lease = require_live(tx, ctx, &self.key, self.fencing_token)?;
        if lease.lease_token != self.lease_token {
            return Err(fenced(
                &self.key,
                self.fencing_token,
                Some(lease.fencing_token),
            ));
        }
        extend(tx, ctx, &mut lease, self.ttl_ms)?;
        Ok(Renewed {
            fencing_token: lease.fencing_token,
            ttl_ms: lease.ttl_ms,
            expires_at: lease.expires_at,
        })
    }
}

impl RenewMany {
    pub(super) fn apply(
        &self,
        tx: &mut Transaction<'_>,
        ctx: &Context,
    ) -> Result<Vec<Result<Renewed, Refusal>>, Failure> {
        let renewals = self.renewals.iter();
        let answers = renewals.map(|renewal| {
            let allowed = ctx.rights.check(needs::lease_renewal(renewal));
            answered(
                allowed
                    .map_err(Failure::from)
                    .and_then(|()| renewal.apply(tx, ctx)),
            )
        });
        answers.collect()
    }
}

/// Moves the deadline. Out: the due entry stays where it is, the sweep files it again. In: the
/// entry must move, since it may never be later than the deadline.
pub(super) fn extend(
    tx: &mut Transaction<'_>,
    ctx: &Context,
    lease: &mut Lease,
    ttl_ms: u64,
) -> Result<(), Broken> {
    tx.count(Figure::Renewed {
        held: Held::Lease,
        left_ms: lease.expires_at.since(ctx.now),
    });
    lease.ttl_ms = ttl_ms;
    lease.renewed_at = ctx.now;
    lease.expires_at = ctx.now.plus(ttl_ms);
    lease.renewals += 1;
    if lease.expires_at < lease.filed_at {
        refile(tx, lease)?;
    }
    tx.put(&lease_key(&lease.key), lease)
}

/// Files the due entry at the true deadline.
pub(super) fn refile(tx: &mut Transaction<'_>, lease: &mut Lease) -> Result<(), Broken> {
    let subject = lease.key.as_str().as_bytes().to_vec();
    tx.delete(&due_key(lease.filed_at, DueKind::Lease, &subject))?;
    lease.filed_at = lease.expires_at;
    tx.put(&due_key(lease.filed_at, DueKind::Lease, &subject), &())
}
