//! Leases as a list of grants: nothing is indexed, swept or forgotten early.

use quorate_statemachine::lease::{self, Claim, Claimed, Released, SameOwner};
use quorate_statemachine::limits::LEASE_HISTORY_MAX;
use quorate_statemachine::{Owner, Refusal, Reply, Response};

/// Why a grant is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    Expired,
    Released,
    Superseded,
    Reclaimed,
    Revoked,
}

/// One grant ever made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub key: String,
    pub owner: Owner,
    pub token: String,
    pub fencing: u64,
    pub expires: u64,
    pub over: Option<(u64, Why)>,
}

/// What a command answers, as far as the model knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Granted { fencing: u64, expires: u64 },
    Busy { fencing: u64 },
    Renewed { fencing: u64, expires: u64 },
    Many(Vec<Outcome>),
    Released,
    NotHeld { current: Option<u64> },
    Revoked { fencing: u64 },
    Expired { at: u64 },
    Fenced { current: Option<u64> },
    Conflict,
    NotFound,
}

/// All grants, and the time.
#[derive(Debug, Clone, Default)]
pub struct Model {
    pub now: u64,
    pub grants: Vec<Grant>,
}

impl Model {
    /// Does a command at `proposed_at` in entry `index`.
    pub fn apply(&mut self, index: u64, proposed_at: u64, command: &lease::Command) -> Outcome {
        self.pass_to(proposed_at);
        match command {
            lease::Command::Claim(claim) => self.claim(index, claim),
            lease::Command::Renew(renew) => self.renew(renew),
            lease::Command::RenewMany(many) => Outcome::Many(
                many.renewals
                    .iter()
                    .map(|renew| self.renew(renew))
                    .collect(),
            ),
            lease::Command::Release(release) => self.release(release),
            lease::Command::Reclaim(reclaim) => self.reclaim(index, reclaim),
            lease::Command::Revoke(revoke) => self.revoke(revoke),
        }
    }

    /// Time goes on, never back, and what is due is over.
    pub fn pass_to(&mut self, proposed_at: u64) {
        self.now = self.now.max(proposed_at);
        for grant in &mut self.grants {
            if grant.over.is_none() && grant.expires <= self.now {
                grant.over = Some((grant.expires, Why::Expired));
            }
        }
    }

    /// The live grant of a key.
    pub fn live(&self, key: &str) -> Option<usize> {
        let now = self.now;
        let live = |grant: &Grant| grant.key == key && grant.over.is_none() && now < grant.expires;
        let mut all = (0..self.grants.len()).filter(|at| live(&self.grants[*at]));
        let first = all.next();
        assert_eq!(all.next(), None, "two live grants of {key}");
        first
    }

    /// The ended grants of a key that its history still has, oldest first.
    pub fn remembered(&self, key: &str) -> Vec<&Grant> {
        let ended = self
            .grants
            .iter()
            .filter(|grant| grant.key == key && is_over(grant, self.now));
        let ended: Vec<&Grant> = ended.collect();
        ended[ended.len().saturating_sub(LEASE_HISTORY_MAX)..].to_vec()
    }

    fn end(&mut self, at: usize, why: Why) {
        assert_eq!(self.grants[at].over, None, "a grant ends once");
        self.grants[at].over = Some((self.now, why));
    }

    fn claim(&mut self, index: u64, claim: &Claim) -> Outcome {
        let Some(at) = self.live(claim.key.as_str()) else {
            return self.grant(index, claim);
        };
        let holder = &mut self.grants[at];
        let busy = Outcome::Busy {
            fencing: holder.fencing,
        };
        if !holder.owner.is(&claim.owner) {
            return busy;
        }
        let same_token = holder.token == claim.lease_token.as_str();
        match claim.same_owner {
            _ if same_token => {}
            SameOwner::Busy => return busy,
            SameOwner::Fresh => return self.replace(index, at, Why::Superseded, claim),
            SameOwner::Extend => holder.expires = self.now + claim.ttl_ms,
        }
        Outcome::Granted {
            fencing: holder.fencing,
            expires: holder.expires,
        }
    }

    /// Ends one grant and makes the next, or neither.
    fn replace(&mut self, index: u64, at: usize, why: Why, claim: &Claim) -> Outcome {
        let before = self.clone();
        self.end(at, why);
        let outcome = self.grant(index, claim);
        if outcome == Outcome::Conflict {
            *self = before;
        }
        outcome
    }

    fn grant(&mut self, index: u64, claim: &Claim) -> Outcome {
        let key = claim.key.as_str();
        let token = claim.lease_token.as_str();
        if self
            .remembered(key)
            .iter()
            .any(|grant| grant.token == token)
        {
            return Outcome::Conflict;
        }
        let expires = self.now + claim.ttl_ms;
        self.grants.push(Grant {
            key: key.to_owned(),
            owner: claim.owner.clone(),
            token: token.to_owned(),
            fencing: index,
            expires,
            over: None,
        });
        Outcome::Granted {
            fencing: index,
            expires,
        }
    }

    fn renew(&mut self, renew: &lease::Renew) -> Outcome {
        let Some(at) = self.live(renew.key.as_str()) else {
            let remembered = self.remembered(renew.key.as_str());
            let known = remembered
                .iter()
                .find(|grant| grant.fencing == renew.fencing_token);
            return match known.and_then(|grant| grant.over) {
                Some((at, Why::Expired)) => Outcome::Expired { at },
                None if known.is_some() => Outcome::Expired {
                    at: known.expect("known").expires,
                },
                _ => Outcome::Fenced { current: None },
            };
        };
        let holder = &mut self.grants[at];
        let own = holder.token == renew.lease_token.as_str();
        if !own || holder.fencing != renew.fencing_token {
            return Outcome::Fenced {
                current: Some(holder.fencing),
            };
        }
        holder.expires = self.now + renew.ttl_ms;
        Outcome::Renewed {
            fencing: holder.fencing,
            expires: holder.expires,
        }
    }

    fn release(&mut self, release: &lease::Release) -> Outcome {
        let (token, fencing) = (release.lease_token.as_str(), release.fencing_token);
        let is = |grant: &Grant| grant.token == token && grant.fencing == fencing;
        let key = release.key.as_str();
        let live = self.live(key);
        if let Some(at) = live.filter(|at| is(&self.grants[*at])) {
            self.end(at, Why::Released);
            return Outcome::Released;
        }
        let before = |grant: &&&Grant| is(grant) && matches!(grant.over, Some((_, Why::Released)));
        match self.remembered(key).iter().find(before) {
            Some(_) => Outcome::Released,
            None => Outcome::NotHeld {
                current: live.map(|at| self.grants[at].fencing),
            },
        }
    }

    fn reclaim(&mut self, index: u64, reclaim: &lease::Reclaim) -> Outcome {
        let (claim, observed) = (&reclaim.claim, &reclaim.observed);
        let is_observed = |grant: &Grant| {
            grant.fencing == observed.fencing_token
                && grant.token == observed.lease_token.as_str()
                && grant.owner.owner_id == observed.owner_id
                && grant.owner.incarnation_id == observed.incarnation_id
        };
        let key = claim.key.as_str();
        let Some(at) = self.live(key) else {
            let remembered = self.remembered(key);
            return match remembered.last() {
                Some(last) if is_observed(last) && ran_out(last) => self.grant(index, claim),
                _ => Outcome::Conflict,
            };
        };
        let holder = &self.grants[at];
        if holder.token == claim.lease_token.as_str() && holder.owner.is(&claim.owner) {
            return Outcome::Granted {
                fencing: holder.fencing,
                expires: holder.expires,
            };
        }
        if is_observed(holder) {
            return self.replace(index, at, Why::Reclaimed, claim);
        }
        Outcome::Conflict
    }

    fn revoke(&mut self, revoke: &lease::Revoke) -> Outcome {
        let Some(at) = self.live(revoke.key.as_str()) else {
            return Outcome::NotFound;
        };
        let fencing = self.grants[at].fencing;
        if revoke.only.is_some_and(|only| only != fencing) {
            return Outcome::Conflict;
        }
        self.end(at, Why::Revoked);
        Outcome::Revoked { fencing }
    }
}

/// Over for a reason, or because its time ran out within this very command.
fn is_over(grant: &Grant, now: u64) -> bool {
    grant.over.is_some() || grant.expires <= now
}

fn ran_out(grant: &Grant) -> bool {
    matches!(grant.over, None | Some((_, Why::Expired)))
}

/// What the state machine answered, in the model's words.
pub fn outcome(reply: &Reply) -> Outcome {
    match &reply.0 {
        Ok(Response::Lease(response)) => done(response),
        Err(refusal) => refused(refusal),
        Ok(other) => panic!("{other:?} is no answer to a lease command"),
    }
}

fn done(response: &lease::Response) -> Outcome {
    let granted = |lease: &lease::Lease| Outcome::Granted {
        fencing: lease.fencing_token,
        expires: lease.expires_at.0,
    };
    match response {
        lease::Response::Claim(Claimed::Granted(lease)) => granted(lease),
        lease::Response::Claim(Claimed::Busy(lease)) => Outcome::Busy {
            fencing: lease.fencing_token,
        },
        lease::Response::Renew(renewed) => renewal(renewed),
        lease::Response::RenewMany(answers) => {
            let answer = |answer: &Result<lease::Renewed, Refusal>| match answer {
                Ok(renewed) => renewal(renewed),
                Err(refusal) => refused(refusal),
            };
            Outcome::Many(answers.iter().map(answer).collect())
        }
        lease::Response::Release(Released::Released) => Outcome::Released,
        lease::Response::Release(Released::NotHeld { current }) => Outcome::NotHeld {
            current: current.as_ref().map(|lease| lease.fencing_token),
        },
        lease::Response::Reclaim(lease) => granted(lease),
        lease::Response::Revoke(lease) => Outcome::Revoked {
            fencing: lease.fencing_token,
        },
    }
}

fn renewal(renewed: &lease::Renewed) -> Outcome {
    Outcome::Renewed {
        fencing: renewed.fencing_token,
        expires: renewed.expires_at.0,
    }
}

fn refused(refusal: &Refusal) -> Outcome {
    match refusal {
        Refusal::Expired { expired_at, .. } => Outcome::Expired { at: expired_at.0 },
        Refusal::Fenced { current, .. } => Outcome::Fenced { current: *current },
        Refusal::Conflict { .. } => Outcome::Conflict,
        Refusal::NotFound { .. } => Outcome::NotFound,
        other => panic!("no lease command is refused with {other}"),
    }
}
