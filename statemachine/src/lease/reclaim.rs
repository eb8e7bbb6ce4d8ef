//! Reclaim: take a key from a holder known to be dead, without waiting for its TTL.

use serde::{Deserialize, Serialize};

use super::Lease;
use super::claim::Claim;
use super::history::{EndReason, Ended, end};
use crate::command::Validate;
use crate::context::Context;
use crate::fencing::FencingToken;
use crate::id::{LeaseToken, Name};
use crate::refusal::{Failure, InvalidArgument, Refusal, Subject};
use crate::tables::{MetaRow, ended_key, history_key, lease_key};
use crate::transaction::Transaction;

/// Takes the key from the holder that the caller observed, by compare-and-set.
///
/// Promises that only the observed grant is ended: a newer holder is never cleared. One that ran
/// out meanwhile counts as observed while nobody has had the key since. The new grant has a greater
/// fencing token. Refuses with `Conflict` when the key's grant is another one or none, and when the
/// new `lease_token` was used before. A retry gets its own grant again. Watchers get `LeaseEnded`
/// and `LeaseGranted`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reclaim {
    /// What the caller saw.
    pub observed: Observed,
    /// The new grant; its `same_owner` has no meaning here.
    pub claim: Claim,
}

/// The grant that a caller observed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// Its owner.
    pub owner_id: Name,
    /// The owner's boot.
    pub incarnation_id: Name,
    /// Its proof.
    pub lease_token: LeaseToken,
    /// Its fencing token.
    pub fencing_token: FencingToken,
}

impl Observed {
    /// Whether `lease` is that grant.
    pub(super) fn is(&self, lease: &Lease) -> bool {
        self.fencing_token == lease.fencing_token
            && self.lease_token == lease.lease_token
            && self.owner_id == lease.owner.owner_id
            && self.incarnation_id == lease.owner.incarnation_id
    }

    fn ran_out(&self, ended: &Ended) -> bool {
        ended.reason == EndReason::Expired
            && self.fencing_token == ended.fencing_token
            && self.lease_token == ended.lease_token
            && self.owner_id == ended.owner.owner_id
            && self.incarnation_id == ended.owner.incarnation_id
    }
}

impl Validate for Reclaim {
    fn validate(&self) -> Result<(), InvalidArgument> {
        self.claim.validate()
    }
}

impl Reclaim {
    pub(super) fn apply(
        &self,
        tx: &mut Transaction<'_>,
        meta: &mut MetaRow,
        ctx: &Context,
    ) -> Result<Lease, Failure> {
        let key = &self.claim.key;
        let present = tx.get(&lease_key(key))?;
        match present {
            Some(lease) if !lease.is_live(ctx.now) => {
                end(tx, meta, ctx, &lease, EndReason::Expired)?;
                self.take_expired(tx, meta, ctx)
            }
            None => self.take_expired(tx, meta, ctx),
            Some(lease) if self.is_own(&lease) => Ok(lease),
            Some(lease) if self.observed.is(&lease) => {
                let by = self.claim.owner.owner_id.clone();
                end(tx, meta, ctx, &lease, EndReason::Reclaimed { by })?;
                self.claim.grant_if_new(tx, meta, ctx)
            }
            Some(lease) => Err(lost(
                key,
                &format!(
                    "the observed grant has fencing token {}, the live one {} of owner {}",
                    self.observed.fencing_token, lease.fencing_token, lease.owner.owner_id
                ),
            )),
        }
    }

    /// The observed grant ran out between the look and the command: swept or not, the answer is the
    /// same, so the history decides whether somebody has had the key since.
    fn take_expired(
        &self,
        tx: &mut Transaction<'_>,
        meta: &mut MetaRow,
        ctx: &Context,
    ) -> Result<Lease, Failure> {
        let key = &self.claim.key;
        let history = tx.get(&history_key(key))?.unwrap_or_default();
        let last = match history.ended.back() {
            Some(last) => tx.get(&ended_key(key, last.fencing_token))?,
            None => None,
        };
        if last.is_some_and(|ended| self.observed.ran_out(&ended)) {
            return self.claim.grant_if_new(tx, meta, ctx);
        }
        Err(lost(
            key,
            "the observed grant is over and the key is free: claim it",
        ))
    }

    fn is_own(&self, lease: &Lease) -> bool {
        lease.lease_token == self.claim.lease_token && lease.owner.is(&self.claim.owner)
    }
}

fn lost(key: &Name, problem: &str) -> Failure {
    Failure::Refused(Refusal::Conflict {
        subject: Subject::Lease,
        name: key.to_string(),
        problem: problem.to_owned(),
    })
}
