//! Claims of work and of inputs: how lash names them, which number it is shown, who has died.

use lash_core::{LeaseOwnerIdentity, LeaseOwnerLiveness};
use quorate_statemachine::session::{ClaimRef, LaneClaim};
use quorate_statemachine::{FencingToken, LeaseToken};

use super::QuorateSession;
use super::lease::is_dead;
use crate::builder::FencingTokens;

/// A kind of claims: what the ids of its claims begin with.
pub(super) struct Kind(&'static str);

pub(super) const WORK: Kind = Kind("qwc:");
pub(super) const INPUTS: Kind = Kind("tic:");

impl Kind {
    /// What lash calls a claim.
    pub(super) fn id(&self, token: FencingToken) -> String {
        format!("{}{token}", self.0)
    }

    /// The claim that lash names; none if it is none of this store's.
    pub(super) fn named(&self, claim_id: &str, lease_token: &str) -> Option<ClaimRef> {
        Some(ClaimRef {
            fencing_token: claim_id.strip_prefix(self.0)?.parse().ok()?,
            lease_token: LeaseToken::parse(lease_token).ok()?,
        })
    }
}

/// Whether a claimant can know of others that they died: only one that names a process of its host
/// can, so that others are spared the look.
pub(super) fn can_tell_who_died(claimant: &LeaseOwnerIdentity) -> bool {
    claimant.liveness != LeaseOwnerLiveness::Opaque
}

/// The claims among these whose owners have died, as far as the claimant can know.
pub(super) fn of_the_dead(
    claims: impl Iterator<Item = LaneClaim>,
    claimant: &LeaseOwnerIdentity,
) -> Vec<FencingToken> {
    let dead = claims.filter(|claim| is_dead(&claim.owner, claimant));
    let mut dead: Vec<_> = dead.map(|claim| claim.fencing_token).collect();
    dead.dedup();
    dead
}

impl QuorateSession {
    /// The number that lash is shown as a claim's fencing token.
    pub(super) fn shown(&self, token: FencingToken, epoch: u64) -> u64 {
        match self.inner.shared.tokens {
            FencingTokens::LogIndex => token,
            FencingTokens::Epoch => epoch,
        }
    }
}
