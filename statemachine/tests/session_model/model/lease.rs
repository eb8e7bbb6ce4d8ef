//! The leases of lanes, as a list of all grants ever made.

use quorate_statemachine::lease::{
    self, Claim, Claimed, Lease, Observed, Release, Released, Renew, Renewed, Revoke, SameOwner,
};
use quorate_statemachine::limits::{LEASE_HISTORY_MAX, LEASE_HISTORY_RETENTION_MS};
use quorate_statemachine::{Name, Refusal, Subject, Timestamp};

use super::{Model, Outcome, conflict};

/// Why a grant is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Expired,
    Released,
    Superseded,
    Revoked,
}

/// A grant that was made. What numbers it for its key, and where its due entry is filed, is the
/// state machine's own affair: 0 here.
#[derive(Debug, Clone)]
pub struct Grant {
    pub lease: Lease,
    over: Option<(Timestamp, Why)>,
}

impl Grant {
    pub fn observed(&self) -> Observed {
        Observed {
            owner_id: self.lease.owner.owner_id.clone(),
            incarnation_id: self.lease.owner.incarnation_id.clone(),
            lease_token: self.lease.lease_token.clone(),
            fencing_token: self.lease.fencing_token,
        }
    }
}

/// Whether the history of a key may have been forgotten since a grant of it ended. What is told of
/// the grant then is the affair of leases.
pub fn is_forgotten(ended_at: Timestamp, now: Timestamp) -> bool {
    now.since(ended_at) >= LEASE_HISTORY_RETENTION_MS
}

fn fenced(key: &Name, presented: u64, current: Option<u64>) -> Refusal {
    Refusal::Fenced {
        subject: Subject::Lease,
        name: key.to_string(),
        presented,
        current,
    }
}

impl Model {
    /// Grants whose time is over are over.
    pub(super) fn expire_grants(&mut self) {
        for grant in &mut self.grants {
            if grant.over.is_none() && grant.lease.expires_at <= self.now {
                grant.over = Some((grant.lease.expires_at, Why::Expired));
            }
        }
    }

    /// The live grant of a key.
    pub fn live_grant(&self, key: &Name) -> Option<&Grant> {
        let live = |grant: &&Grant| grant.lease.key == *key && grant.over.is_none();
        let mut all = self.grants.iter().filter(live);
        let first = all.next();
        assert!(all.next().is_none(), "two live grants of {key}");
        first.filter(|grant| grant.lease.expires_at > self.now)
    }

    /// Ends that are in the future.
    pub(super) fn grant_ends(&self) -> impl Iterator<Item = Timestamp> {
        let live = self.grants.iter().filter(|grant| grant.over.is_none());
        live.map(|grant| grant.lease.expires_at)
    }

    /// Refuses unless `held` names the live grant of a key in full.
    pub(super) fn check_held(&self, key: &Name, held: &Observed) -> Outcome<()> {
        let presented = held.fencing_token;
        if let Some(live) = self.live_grant(key) {
            let current = Some(live.lease.fencing_token);
            let same = live.observed() == *held;
            return if same {
                Ok(())
            } else {
                Err(fenced(key, presented, current))
            };
        }
        let ended = self.grants.iter().filter(|grant| grant.lease.key == *key);
        let mut ended = ended.rev().filter(|grant| grant.over.is_some());
        let known = ended.by_ref().take(LEASE_HISTORY_MAX);
        let known = known
            .into_iter()
            .find(|grant| grant.lease.fencing_token == presented);
        match known.and_then(|grant| grant.over) {
            Some((expired_at, Why::Expired)) => Err(Refusal::Expired {
                subject: Subject::Lease,
                name: key.to_string(),
                token: presented,
                expired_at,
            }),
            _ => Err(fenced(key, presented, None)),
        }
    }

    /// Gives a grant back, if it is live.
    pub(super) fn give_back(&mut self, key: &Name, held: &Observed) {
        if self.check_held(key, held).is_ok() {
            self.end_grant(held.fencing_token, key, Why::Released);
        }
    }

    fn end_grant(&mut self, fencing_token: u64, key: &Name, why: Why) {
        let is = |grant: &&mut Grant| {
            grant.lease.fencing_token == fencing_token && grant.lease.key == *key
        };
        let grant = self.grants.iter_mut().find(is).expect("it was granted");
        assert!(grant.over.is_none(), "a grant ends once");
        grant.over = Some((self.now, why));
    }

    pub(super) fn lease(&mut self, command: &lease::Command) -> Outcome<lease::Response> {
        match command {
            lease::Command::Claim(claim) => self.claim_lease(claim).map(lease::Response::Claim),
            lease::Command::Renew(renew) => self.renew_lease(renew).map(lease::Response::Renew),
            lease::Command::Release(release) => {
                Ok(lease::Response::Release(self.release_lease(release)))
            }
            lease::Command::Revoke(revoke) => {
                self.revoke_lease(revoke).map(lease::Response::Revoke)
            }
            other => unreachable!("{other:?} is no turn"),
        }
    }

    fn claim_lease(&mut self, claim: &Claim) -> Outcome<Claimed> {
        if let Some(holder) = self.live_grant(&claim.key) {
            let lease = holder.lease.clone();
            if !lease.owner.is(&claim.owner) {
                return Ok(Claimed::Busy(lease));
            }
            if lease.lease_token == claim.lease_token {
                return Ok(Claimed::Granted(lease));
            }
            match claim.same_owner {
                SameOwner::Busy => return Ok(Claimed::Busy(lease)),
                SameOwner::Fresh => {
                    self.end_grant(lease.fencing_token, &claim.key, Why::Superseded);
                }
                SameOwner::Extend => unreachable!("no turn extends"),
            }
        }
        let used = |grant: &Grant| {
            let by_token = grant.lease.lease_token == claim.lease_token;
            let in_this_entry = grant.lease.fencing_token == self.index;
            grant.lease.key == claim.key && (by_token || in_this_entry)
        };
        if self.grants.iter().any(used) {
            return Err(conflict(Subject::Lease, claim.key.to_string()));
        }
        let lease = Lease {
            key: claim.key.clone(),
            owner: claim.owner.clone(),
            lease_token: claim.lease_token.clone(),
            fencing_token: self.index,
            epoch: 0,
            ttl_ms: claim.ttl_ms,
            granted_at: self.now,
            renewed_at: self.now,
            expires_at: self.now.plus(claim.ttl_ms),
            filed_at: Timestamp(0),
            renewals: 0,
            metadata: claim.metadata.clone(),
        };
        self.grants.push(Grant {
            lease: lease.clone(),
            over: None,
        });
        // One that lives for no time is over at once.
        self.expire_grants();
        Ok(Claimed::Granted(lease))
    }

    fn renew_lease(&mut self, renew: &Renew) -> Outcome<Renewed> {
        let now = self.now;
        let held = self.named_grant(&renew.key, renew.fencing_token);
        let mut held = held.map_or_else(|| nobody(renew.fencing_token), |grant| grant.observed());
        held.lease_token = renew.lease_token.clone();
        self.check_held(&renew.key, &held)?;
        let is = |grant: &&mut Grant| grant.lease.key == renew.key && grant.over.is_none();
        let grant = self.grants.iter_mut().find(is).expect("it is live");
        let lease = &mut grant.lease;
        lease.ttl_ms = renew.ttl_ms;
        lease.renewed_at = now;
        lease.expires_at = now.plus(renew.ttl_ms);
        let renewed = Renewed {
            fencing_token: lease.fencing_token,
            ttl_ms: lease.ttl_ms,
            expires_at: lease.expires_at,
        };
        self.expire_grants();
        Ok(renewed)
    }

    fn named_grant(&self, key: &Name, fencing_token: u64) -> Option<&Grant> {
        let is =
            |grant: &&Grant| grant.lease.key == *key && grant.lease.fencing_token == fencing_token;
        self.grants.iter().find(is)
    }

    fn release_lease(&mut self, release: &Release) -> Released {
        let named = self.named_grant(&release.key, release.fencing_token);
        let named = named.filter(|grant| grant.lease.lease_token == release.lease_token);
        match named.map(|grant| grant.over) {
            Some(None) => {
                self.end_grant(release.fencing_token, &release.key, Why::Released);
                Released::Released
            }
            Some(Some((_, Why::Released))) => Released::Released,
            _ => {
                let current = self.live_grant(&release.key);
                let current = current.map(|grant| grant.lease.clone());
                Released::NotHeld { current }
            }
        }
    }

    fn revoke_lease(&mut self, revoke: &Revoke) -> Outcome<Lease> {
        let Some(live) = self.live_grant(&revoke.key) else {
            return Err(Refusal::NotFound {
                subject: Subject::Lease,
                name: revoke.key.to_string(),
            });
        };
        let lease = live.lease.clone();
        self.end_grant(lease.fencing_token, &revoke.key, Why::Revoked);
        Ok(lease)
    }
}

/// An observation of a grant that never was.
fn nobody(fencing_token: u64) -> Observed {
    let name = || Name::parse("owner", "nobody").expect("a valid name");
    Observed {
        owner_id: name(),
        incarnation_id: name(),
        lease_token: quorate_statemachine::LeaseToken::parse("none").expect("a valid token"),
        fencing_token,
    }
}
