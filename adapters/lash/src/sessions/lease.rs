//! The execution lease of a session: a lease of the cluster under the session's name.

use lash_core::{
    LeaseOwnerIdentity, LeaseOwnerLiveness, SessionExecutionLease,
    SessionExecutionLeaseClaimOutcome, SessionExecutionLeaseCompletion, SessionExecutionLeaseFence,
    StoreError,
};
use quorate_client::ClientError;
use quorate_statemachine::lease::{
    Claim, Claimed, Lease, Observed, Reclaim, Release, Renew, SameOwner,
};
use quorate_statemachine::session::{SessionRef, execution_lease};
use quorate_statemachine::{Name, Owner, Refusal};

use super::QuorateSession;
use super::error::{Result, backend, invalid, lease_lost, name};
use crate::builder::FencingTokens;
use crate::lease::{GrantToken, held_ms, leased, new_proof, told_end};

impl QuorateSession {
    pub(super) async fn try_claim(
        &self,
        session_id: &str,
        owner: &LeaseOwnerIdentity,
        ttl_ms: u64,
    ) -> Result<SessionExecutionLeaseClaimOutcome> {
        let claim = self.claim_of(session_id, owner, ttl_ms, SameOwner::Extend);
        self.claimed(session_id, claim.await?, ttl_ms).await
    }

    /// Takes the lease from an observed holder whose process is known to have ended. Whether it has
    /// is looked up on this host, by what the holder itself has left in the lease.
    pub(super) async fn reclaim(
        &self,
        session_id: &str,
        owner: &LeaseOwnerIdentity,
        observed: &SessionExecutionLeaseFence,
        ttl_ms: u64,
    ) -> Result<SessionExecutionLeaseClaimOutcome> {
        let claim = self.claim_of(session_id, owner, ttl_ms, SameOwner::Busy);
        let claim = claim.await?;
        let found = self.claimed(session_id, claim.clone(), ttl_ms).await?;
        let SessionExecutionLeaseClaimOutcome::Busy { holder } = &found else {
            return Ok(found);
        };
        let same = observed.session_id == session_id
            && holder.owner.same_incarnation(&observed.owner)
            && holder.lease_token == observed.lease_token
            && holder.fencing_token == observed.fencing_token;
        let Some(observed) = self.held(&holder.fence()).filter(|_| same) else {
            return Ok(found);
        };
        if !holder.owner.is_definitely_dead_for_claimant(owner) {
            return Ok(found);
        }
        let reclaim = Reclaim {
            observed,
            claim: claim.clone(),
        };
        match leased(self.client(), reclaim, Vec::new(), ttl_ms).await {
            Ok(lease) => self.acquired(session_id, &lease),
            // Another one was faster: he has it, or has given it back already.
            Err(ClientError::Refused(Refusal::Conflict { .. })) => {
                self.claimed(session_id, claim, ttl_ms).await
            }
            Err(error) => Err(backend("reclaiming the execution lease", &error)),
        }
    }

    pub(super) async fn renew(
        &self,
        fence: &SessionExecutionLeaseFence,
        ttl_ms: u64,
    ) -> Result<SessionExecutionLease> {
        let session_id = &fence.session_id;
        let grant = self.grant_of(fence).ok_or_else(|| lease_lost(session_id))?;
        let session = self.found().await?.ok_or_else(|| lease_lost(session_id))?;
        let renew = Renew {
            key: lease_key(session, session_id)?,
            lease_token: grant.proof,
            fencing_token: grant.fence,
            ttl_ms: held_ms(ttl_ms).map_err(invalid)?,
        };
        let key = renew.key.clone();
        let renewed = match leased(self.client(), renew, Vec::new(), ttl_ms).await {
            Ok(renewed) => renewed,
            Err(ClientError::Refused(_)) => return Err(lease_lost(session_id)),
            Err(error) => return Err(backend(format!("renewing lease `{key}`"), &error)),
        };
        let expires_at_epoch_ms = match renewed.ttl_ms {
            0 => renewed.expires_at.0,
            _ => crate::lease::told_ms(renewed.expires_at.0),
        };
        Ok(SessionExecutionLease {
            session_id: session_id.clone(),
            owner: fence.owner.clone(),
            lease_token: fence.lease_token.clone(),
            fencing_token: fence.fencing_token,
            claimed_at_epoch_ms: self.claimed_at(&key, fence).await?,
            expires_at_epoch_ms,
        })
    }

    /// When a lease was granted: a renewal does not say, and a fence does not either.
    async fn claimed_at(&self, key: &Name, fence: &SessionExecutionLeaseFence) -> Result<u64> {
        let token = &fence.lease_token;
        let known = self.known(|known| known.granted.get(token).copied());
        if let Some(granted_at) = known {
            return Ok(granted_at);
        }
        let lease = self.client().lease_get(key).await;
        let lease = lease.map_err(|error| backend(format!("reading lease `{key}`"), &error))?;
        let lease = lease.ok_or_else(|| lease_lost(&fence.session_id))?;
        Ok(self.told(&fence.session_id, &lease)?.claimed_at_epoch_ms)
    }

    pub(super) async fn release(&self, completion: &SessionExecutionLeaseCompletion) -> Result<()> {
        // A token of another's making fits no lease, and giving back what one has not is no error.
        let Some(grant) = self.grant_of(&fence_of(completion)) else {
            return Ok(());
        };
        let Some(session) = self.found().await? else {
            return Ok(());
        };
        let release = Release {
            key: lease_key(session, &completion.session_id)?,
            lease_token: grant.proof,
            fencing_token: grant.fence,
        };
        let released = self.client().execute(release).await;
        released
            .map(drop)
            .map_err(|error| backend("releasing the execution lease", &error))
    }

    async fn claim_of(
        &self,
        session_id: &str,
        owner: &LeaseOwnerIdentity,
        ttl_ms: u64,
        same_owner: SameOwner,
    ) -> Result<Claim> {
        let session = self.opened().await?;
        Ok(Claim {
            key: lease_key(session, session_id)?,
            owner: owner_of(owner)?,
            lease_token: new_proof(),
            ttl_ms: held_ms(ttl_ms).map_err(invalid)?,
            same_owner,
            metadata: Vec::new(),
        })
    }

    async fn claimed(
        &self,
        session_id: &str,
        claim: Claim,
        ttl_ms: u64,
    ) -> Result<SessionExecutionLeaseClaimOutcome> {
        match leased(self.client(), claim, Vec::new(), ttl_ms).await {
            Ok(Claimed::Granted(lease)) => self.acquired(session_id, &lease),
            Ok(Claimed::Busy(lease)) => {
                let holder = self.told(session_id, &lease)?;
                Ok(SessionExecutionLeaseClaimOutcome::Busy { holder })
            }
            Err(error) => Err(backend("claiming the execution lease", &error)),
        }
    }

    fn acquired(
        &self,
        session_id: &str,
        lease: &Lease,
    ) -> Result<SessionExecutionLeaseClaimOutcome> {
        let lease = self.told(session_id, lease)?;
        Ok(SessionExecutionLeaseClaimOutcome::Acquired(lease))
    }

    /// The lease as lash sees it.
    fn told(&self, session_id: &str, lease: &Lease) -> Result<SessionExecutionLease> {
        let token = GrantToken {
            proof: lease.lease_token.clone(),
            fence: lease.fencing_token,
        };
        let granted_at = lease.granted_at.0;
        self.known(|known| known.granted.put(token.to_string(), granted_at));
        Ok(SessionExecutionLease {
            session_id: session_id.to_owned(),
            owner: identity_of(&lease.owner)?,
            lease_token: token.to_string(),
            fencing_token: match self.inner.shared.tokens {
                FencingTokens::LogIndex => lease.fencing_token,
                FencingTokens::Epoch => lease.epoch,
            },
            claimed_at_epoch_ms: granted_at,
            expires_at_epoch_ms: told_end(lease),
        })
    }

    /// The grant that a fence names in full; none if it names none that can be.
    pub(super) fn held(&self, fence: &SessionExecutionLeaseFence) -> Option<Observed> {
        let grant = self.grant_of(fence)?;
        let owner = owner_of(&fence.owner).ok()?;
        Some(Observed {
            owner_id: owner.owner_id,
            incarnation_id: owner.incarnation_id,
            lease_token: grant.proof,
            fencing_token: grant.fence,
        })
    }

    /// The grant that a fence names; none if it names none of this store's.
    fn grant_of(&self, fence: &SessionExecutionLeaseFence) -> Option<GrantToken> {
        let grant: GrantToken = fence.lease_token.parse().ok()?;
        let shown = match self.inner.shared.tokens {
            FencingTokens::LogIndex => grant.fence == fence.fencing_token,
            FencingTokens::Epoch => true,
        };
        shown.then_some(grant)
    }
}

fn lease_key(session: &SessionRef, session_id: &str) -> Result<Name> {
    let lane = name("session id", session_id)?;
    execution_lease(session, &lane).map_err(invalid)
}

pub(super) fn fence_of(completion: &SessionExecutionLeaseCompletion) -> SessionExecutionLeaseFence {
    SessionExecutionLeaseFence {
        session_id: completion.session_id.clone(),
        owner: completion.owner.clone(),
        lease_token: completion.lease_token.clone(),
        fencing_token: completion.fencing_token,
    }
}

/// An owner with what tells whether its process lives.
pub(super) fn owner_of(owner: &LeaseOwnerIdentity) -> Result<Owner> {
    let identity = Owner::new(
        name("owner_id", &owner.owner_id)?,
        name("incarnation_id", &owner.incarnation_id)?,
    );
    let liveness = match &owner.liveness {
        LeaseOwnerLiveness::Opaque => None,
        local => Some(
            serde_json::to_string(local)
                .map_err(|error| StoreError::Backend(format!("owner liveness: {error}")))?,
        ),
    };
    Ok(Owner {
        liveness,
        ..identity
    })
}

pub(super) fn identity_of(owner: &Owner) -> Result<LeaseOwnerIdentity> {
    let liveness = owner.liveness.as_deref();
    let liveness =
        liveness.map(|json| super::bodies::from_bytes("owner liveness", json.as_bytes()));
    Ok(LeaseOwnerIdentity {
        owner_id: owner.owner_id.to_string(),
        incarnation_id: owner.incarnation_id.to_string(),
        liveness: liveness.transpose()?.unwrap_or_default(),
    })
}

/// Whether lash's rules say that `owner` has died, as far as `claimant` can know.
pub(super) fn is_dead(owner: &Owner, claimant: &LeaseOwnerIdentity) -> bool {
    identity_of(owner).is_ok_and(|owner| owner.is_definitely_dead_for_claimant(claimant))
}
