//! Queued work.

use quorate_statemachine::session::{
    AbandonWork, CancelWork, ClaimWork, ClaimedWork, LaneClaim, PushWork, RenewWork, Work,
    WorkAbandoned, WorkChoice, WorkClass, WorkPushed, WorkRenewed, WorkView, execution_lease,
};
use quorate_statemachine::{Name, Refusal, Subject};

use super::{Kind, Made, Model, Outcome, Piece, conflict, is_claim};

impl Model {
    fn piece(&mut self, at: usize, lane: &Name, number: u64) -> Option<&mut Piece> {
        let pieces = self.sessions[at].work.iter_mut();
        let mut pieces = pieces.filter(|piece| piece.view.work.lane == *lane);
        pieces.find(|piece| piece.view.work.number == number)
    }

    pub(super) fn push_work(&mut self, number: u64, push: &PushWork) -> Outcome<WorkPushed> {
        let (at, now) = (self.require(&push.session)?, self.now);
        let known = self.sessions[at].work.iter().find(|piece| {
            let work = &piece.view.work;
            push.source.is_some() && work.source == push.source && work.lane == push.lane
        });
        if let Some(known) = known {
            return Ok(WorkPushed::Known(known.view.clone()));
        }
        self.sessions[at].refer_content(&push.body)?;
        let work = Work {
            number,
            lane: push.lane.clone(),
            source: push.source.clone(),
            class: push.class,
            anytime: push.anytime,
            group: push.group.clone(),
            pushed_at: now,
            available_at: push.available_at,
            claims: 0,
            claim: None,
        };
        let body = push.body.clone();
        self.sessions[at].work.push(Piece {
            view: WorkView { work, body },
            delayed: push.available_at > now,
        });
        let pushed_at = now;
        Ok(WorkPushed::Queued { number, pushed_at })
    }

    pub(super) fn claim_work(&mut self, claim: &ClaimWork) -> Outcome<Option<ClaimedWork>> {
        let (at, now) = (self.require(&claim.session)?, self.now);
        let key = execution_lease(&claim.session, &claim.lane).expect("short names");
        self.check_held(&key, &claim.execution)?;
        let numbers = self.chosen(at, claim);
        if numbers.is_empty() {
            return Ok(None);
        }
        let made = LaneClaim {
            owner: claim.owner.clone(),
            lease_token: claim.lease_token.clone(),
            fencing_token: self.index,
            claimed_at: now,
            expires_at: now.plus(claim.ttl_ms),
        };
        let mut taken = Vec::new();
        for number in &numbers {
            let piece = self.piece(at, &claim.lane, *number).expect("it is chosen");
            piece.view.work.claims += 1;
            piece.view.work.claim = Some(made.clone());
            taken.push(piece.view.clone());
        }
        self.claims.push(Made {
            session: claim.session.id,
            lane: claim.lane.clone(),
            kind: Kind::Work,
            claim: made.clone(),
            numbers,
            ids: Vec::new(),
        });
        Ok(Some(ClaimedWork {
            claim: made,
            work: taken,
        }))
    }

    /// The numbers of what a claim would take if it had the lease.
    pub fn would_take(&self, claim: &ClaimWork) -> Vec<u64> {
        let at = self.require(&claim.session);
        at.map_or_else(|_| Vec::new(), |at| self.chosen(at, claim))
    }

    fn chosen(&self, at: usize, claim: &ClaimWork) -> Vec<u64> {
        let kept = |of: &LaneClaim| {
            let live = of.expires_at > self.now && !claim.dead.contains(&of.fencing_token);
            live || of.fencing_token == self.index
        };
        let pieces = self.sessions[at].work.iter().filter(|piece| !piece.delayed);
        let lane = pieces.map(|piece| &piece.view.work);
        let lane = lane.filter(|work| work.lane == claim.lane);
        let free: Vec<&Work> = lane
            .filter(|w| !w.claim.as_ref().is_some_and(kept))
            .collect();
        let Some(first) = free.first() else {
            return Vec::new();
        };
        let turn = |running: bool, max: usize| {
            if first.class != WorkClass::Turn || (running && !first.anytime) {
                return Vec::new();
            }
            let alike = |work: &&&Work| {
                work.class == WorkClass::Turn
                    && work.anytime == first.anytime
                    && work.group.is_some()
                    && work.group == first.group
            };
            let together = free.iter().take_while(alike).count().clamp(1, max);
            free[..together].iter().map(|work| work.number).collect()
        };
        match &claim.choice {
            WorkChoice::Command if first.class == WorkClass::Command => vec![first.number],
            WorkChoice::Command => Vec::new(),
            WorkChoice::Turn { running, max } => turn(*running, *max as usize),
            WorkChoice::Exactly { running, numbers } => {
                let taken = turn(*running, numbers.len());
                if taken == *numbers { taken } else { Vec::new() }
            }
        }
    }

    pub(super) fn renew_work(&mut self, renew: &RenewWork) -> Outcome<WorkRenewed> {
        let (at, now) = (self.require(&renew.session)?, self.now);
        let expires_at = now.plus(renew.ttl_ms);
        for number in &renew.numbers {
            let piece = self.piece(at, &renew.lane, *number);
            let claim = piece.and_then(|piece| piece.view.work.claim.as_mut());
            match claim {
                Some(claim) if is_claim(Some(claim), &renew.claim) => claim.expires_at = expires_at,
                other => {
                    let live = other.filter(|claim| claim.expires_at > now);
                    return Err(Refusal::Fenced {
                        subject: Subject::Work,
                        name: renew.lane.to_string(),
                        presented: renew.claim.fencing_token,
                        current: live.map(|claim| claim.fencing_token),
                    });
                }
            }
        }
        Ok(WorkRenewed { expires_at })
    }

    pub(super) fn abandon_work(&mut self, abandon: &AbandonWork) -> Outcome<WorkAbandoned> {
        let at = self.require(&abandon.session)?;
        let mut given_up = 0;
        for number in &abandon.numbers {
            let Some(piece) = self.piece(at, &abandon.lane, *number) else {
                continue;
            };
            let work = &mut piece.view.work;
            if !is_claim(work.claim.as_ref(), &abandon.claim) {
                continue;
            }
            work.claim = None;
            given_up += 1;
        }
        if given_up > 0 && abandon.claim.fencing_token == self.index {
            return Err(conflict(Subject::Work, abandon.lane.to_string()));
        }
        Ok(WorkAbandoned { work: given_up })
    }

    pub(super) fn cancel_work(&mut self, cancel: &CancelWork) -> Outcome<Option<WorkView>> {
        let (at, now) = (self.require(&cancel.session)?, self.now);
        let Some(piece) = self.piece(at, &cancel.lane, cancel.number) else {
            return Ok(None);
        };
        let view = piece.view.clone();
        if view.work.claim.as_ref().is_some_and(|c| c.expires_at > now) {
            return Ok(None);
        }
        let is = |piece: &Piece| piece.view.work.number == cancel.number;
        self.sessions[at].work.retain(|piece| !is(piece));
        Ok(Some(view))
    }
}
