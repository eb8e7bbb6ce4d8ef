//! Claim: take a key that nobody holds.

use serde::{Deserialize, Serialize};

use super::Lease;
use super::history::{EndReason, end};
use crate::command::Validate;
use crate::context::Context;
use crate::id::{LeaseToken, Name, Owner};
use crate::limits::{LEASES_MAX, LIVENESS_BYTES_MAX, PAYLOAD_BYTES_MAX};
use crate::notice::Notice;
use crate::refusal::{Broken, Failure, InvalidArgument, Refusal, Subject};
use crate::tables::{DueKind, MetaRow, due_key, history_key, lease_key};
use crate::transaction::Transaction;

/// Takes `key` for `ttl_ms`.
///
/// Promises that no other grant of the key is live, and a fencing token above all before it.
/// Refuses arguments out of bounds, a `lease_token` whose grant is over already, and with
/// `Exhausted` when there are too many leases. A retry with
/// the same owner and `lease_token` gets the same grant while it lives. Contention is an answer:
/// [`Claimed::Busy`]. Watchers of the key get `LeaseGranted`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// What to hold.
    pub key: Name,
    /// Who asks.
    pub owner: Owner,
    /// Minted by the caller for this grant.
    pub lease_token: LeaseToken,
    /// How long it lives without renewal; 0 is over at once.
    pub ttl_ms: u64,
    /// What the present holder itself gets when it claims with another token.
    pub same_owner: SameOwner,
    /// A note shown to others.
    pub metadata: Vec<u8>,
}

/// What an owner gets that claims a key it holds, under a new lease token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SameOwner {
    /// Nothing: the key is busy, even for its holder. Two tasks of one process exclude each other.
    Busy,
    /// A fresh grant with a new fencing token; the old one is superseded.
    Fresh,
    /// Its present grant, with the TTL started anew. The lease token stays the first one.
    Extend,
}

/// The answer to a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Claimed {
    /// The caller holds the key.
    Granted(Lease),
    /// Somebody else does.
    Busy(Lease),
}

impl Validate for Claim {
    fn validate(&self) -> Result<(), InvalidArgument> {
        InvalidArgument::check_ttl(self.ttl_ms)?;
        if let Some(liveness) = &self.owner.liveness {
            InvalidArgument::check_bytes("owner.liveness", liveness.len(), LIVENESS_BYTES_MAX)?;
        }
        InvalidArgument::check_bytes("metadata", self.metadata.len(), PAYLOAD_BYTES_MAX)
    }
}

impl Claim {
    pub(super) fn apply(
        &self,
        tx: &mut Transaction<'_>,
        meta: &mut MetaRow,
        ctx: &Context,
    ) -> Result<Claimed, Failure> {
        let Some(holder) = tx.get(&lease_key(&self.key))? else {
            return self.grant_if_new(tx, meta, ctx).map(Claimed::Granted);
        };
        if !holder.is_live(ctx.now) {
            end(tx, meta, ctx, &holder, EndReason::Expired)?;
            return self.grant_if_new(tx, meta, ctx).map(Claimed::Granted);
        }
        if !holder.owner.is(&self.owner) {
            return Ok(Claimed::Busy(holder));
        }
        if holder.lease_token == self.lease_token {
            return Ok(Claimed::Granted(holder));
        }
        match self.same_owner {
            SameOwner::Busy => Ok(Claimed::Busy(holder)),
            SameOwner::Fresh => {
                end(tx, meta, ctx, &holder, EndReason::Superseded)?;
                self.grant_if_new(tx, meta, ctx).map(Claimed::Granted)
            }
            SameOwner::Extend => {
                let mut lease = holder;
                super::renew::extend(tx, ctx, &mut lease, self.ttl_ms)?;
                Ok(Claimed::Granted(lease))
            }
        }
    }

    /// Grants the key, which is free now, unless its history speaks against it.
    ///
    /// A claim that arrives again after its grant has ended must not be granted anew: its sender
    /// has moved on, and nobody would renew or release it. And one entry may grant a key only once:
    /// all its grants share a fencing token, so a second one could not be told from the first.
    pub(super) fn grant_if_new(
        &self,
        tx: &mut Transaction<'_>,
        meta: &mut MetaRow,
        ctx: &Context,
    ) -> Result<Lease, Failure> {
        let history = tx.get(&history_key(&self.key))?.unwrap_or_default();
        let used = history.held_with(tx, &self.key, &self.lease_token)?;
        if let Some(ended) = used {
            return Err(self.conflict(format!(
                "this lease token was granted fencing token {} before and that grant is over \
                 ({}); claim with a new lease token",
                ended.fencing_token,
                ended.reason.as_str()
            )));
        }
        let last = history.ended.back();
        if last.is_some_and(|ended| ended.fencing_token == ctx.fencing_token()) {
            return Err(self.conflict(
                "a step before this one was granted the key; a composite may be granted a key once"
                    .to_owned(),
            ));
        }
        Refusal::check_room(|| "leases".to_owned(), meta.leases, LEASES_MAX)?;
        let lease = self.new_lease(ctx, history.epoch + 1);
        grant(tx, meta, &lease)?;
        Ok(lease)
    }

    fn conflict(&self, problem: String) -> Failure {
        Failure::Refused(Refusal::Conflict {
            subject: Subject::Lease,
            name: self.key.to_string(),
            problem,
        })
    }

    fn new_lease(&self, ctx: &Context, epoch: u64) -> Lease {
        let expires_at = ctx.now.plus(self.ttl_ms);
        Lease {
            key: self.key.clone(),
            owner: self.owner.clone(),
            lease_token: self.lease_token.clone(),
            fencing_token: ctx.fencing_token(),
            epoch,
            ttl_ms: self.ttl_ms,
            granted_at: ctx.now,
            renewed_at: ctx.now,
            expires_at,
            filed_at: expires_at,
            renewals: 0,
            metadata: self.metadata.clone(),
        }
    }
}

/// Writes a new grant, its due entry and its notice.
fn grant(tx: &mut Transaction<'_>, meta: &mut MetaRow, lease: &Lease) -> Result<(), Broken> {
    let key = lease_key(&lease.key);
    assert!(!tx.exists(&key)?, "a key has at most one grant");
    tx.put(&key, lease)?;
    tx.put(
        &due_key(
            lease.filed_at,
            DueKind::Lease,
            lease.key.as_str().as_bytes(),
        ),
        &(),
    )?;
    meta.leases += 1;
    tx.notify(Notice::LeaseGranted {
        key: lease.key.clone(),
        owner_id: lease.owner.owner_id.clone(),
        fencing_token: lease.fencing_token,
    });
    Ok(())
}
