//! Inputs.

use quorate_statemachine::session::{
    AbandonInputs, CancelInputs, CancelInputsFrom, CancelOutcome, CancelTarget, ClaimInputs,
    ClaimedInputs, Input, InputMode, InputPushed, InputState, InputView, InputsAbandoned,
    LaneClaim, PushInput, execution_lease,
};
use quorate_statemachine::{Name, Subject, Timestamp};

use super::{Kind, Made, Model, ModelSession, Outcome, conflict, is_claim};

/// Cancels an input, unless something speaks against it.
fn cancel(view: &mut InputView, now: Timestamp) -> CancelOutcome {
    let input = &mut view.input;
    let live = input.claim.as_ref().is_some_and(|c| c.expires_at > now);
    match input.state {
        InputState::Completed | InputState::Cancelled => CancelOutcome::Ended(view.clone()),
        InputState::Accepted => CancelOutcome::Claimed(view.clone()),
        InputState::Pending if live => CancelOutcome::Claimed(view.clone()),
        InputState::Pending => {
            input.state = InputState::Cancelled;
            input.claim = None;
            CancelOutcome::Cancelled(view.clone())
        }
    }
}

impl ModelSession {
    fn find_input(&self, lane: &Name, target: &CancelTarget) -> Option<usize> {
        let named = |input: &Input| match target {
            CancelTarget::Id(id) => input.id == *id,
            CancelTarget::Source(source) => input.source.as_ref() == Some(source),
        };
        let is = |view: &InputView| view.input.lane == *lane && named(&view.input);
        self.inputs.iter().position(is)
    }
}

impl Model {
    pub(super) fn push_input(&mut self, number: u64, push: &PushInput) -> Outcome<InputPushed> {
        let (at, now) = (self.require(&push.session)?, self.now);
        let session = &mut self.sessions[at];
        let source = push.source.clone().map(CancelTarget::Source);
        let by_source = source.and_then(|source| session.find_input(&push.lane, &source));
        let by_id = session.find_input(&push.lane, &CancelTarget::Id(push.id.clone()));
        if let Some(known) = by_source.or(by_id) {
            let input = session.inputs[known].clone();
            let same = input.input.mode == push.mode && input.body == push.body;
            return Ok(InputPushed::Known { input, same });
        }
        session.refer_content(&push.body)?;
        session.inputs.push(InputView {
            input: Input {
                number,
                id: push.id.clone(),
                lane: push.lane.clone(),
                source: push.source.clone(),
                mode: push.mode.clone(),
                state: InputState::Pending,
                pushed_at: now,
                claims: 0,
                claim: None,
            },
            body: push.body.clone(),
        });
        let pushed_at = now;
        Ok(InputPushed::Queued { number, pushed_at })
    }

    pub(super) fn claim_inputs(&mut self, claim: &ClaimInputs) -> Outcome<Option<ClaimedInputs>> {
        let (at, now, token) = (self.require(&claim.session)?, self.now, self.index);
        let key = execution_lease(&claim.session, &claim.lane).expect("short names");
        self.check_held(&key, &claim.execution)?;
        let made = LaneClaim {
            owner: claim.owner.clone(),
            lease_token: claim.lease_token.clone(),
            fencing_token: token,
            claimed_at: now,
            expires_at: now.plus(claim.ttl_ms),
        };
        let kept = |of: &LaneClaim| {
            let live = of.expires_at > now && !claim.dead.contains(&of.fencing_token);
            live || of.fencing_token == token
        };
        let wanted = |input: &Input| match (&input.mode, &claim.mode) {
            (InputMode::Next, InputMode::Next) => true,
            (
                InputMode::Running { turn, rank },
                InputMode::Running {
                    turn: of,
                    rank: reached,
                },
            ) => turn == of && rank <= reached,
            _ => false,
        };
        let mut taken: Vec<InputView> = Vec::new();
        for view in &mut self.sessions[at].inputs {
            let input = &mut view.input;
            let free = input.lane == claim.lane
                && input.state == InputState::Pending
                && !input.claim.as_ref().is_some_and(kept)
                && wanted(input);
            if !free || taken.len() == claim.max as usize {
                continue;
            }
            input.claims += 1;
            input.claim = Some(made.clone());
            if input.mode != InputMode::Next {
                input.state = InputState::Accepted;
            }
            taken.push(view.clone());
        }
        if taken.is_empty() {
            return Ok(None);
        }
        self.claims.push(Made {
            session: claim.session.id,
            lane: claim.lane.clone(),
            kind: Kind::Inputs,
            claim: made.clone(),
            numbers: taken.iter().map(|view| view.input.number).collect(),
            ids: taken.iter().map(|view| view.input.id.clone()).collect(),
        });
        Ok(Some(ClaimedInputs {
            claim: made,
            inputs: taken,
        }))
    }

    pub(super) fn abandon_inputs(&mut self, abandon: &AbandonInputs) -> Outcome<InputsAbandoned> {
        let at = self.require(&abandon.session)?;
        let session = &mut self.sessions[at];
        let mut given_up = 0;
        for id in &abandon.ids {
            let found = session.find_input(&abandon.lane, &CancelTarget::Id(id.clone()));
            let Some(found) = found else {
                continue;
            };
            let input = &mut session.inputs[found].input;
            if !is_claim(input.claim.as_ref(), &abandon.claim) {
                continue;
            }
            input.state = InputState::Pending;
            input.claim = None;
            given_up += 1;
        }
        if given_up > 0 && abandon.claim.fencing_token == self.index {
            return Err(conflict(Subject::Input, abandon.lane.to_string()));
        }
        Ok(InputsAbandoned { inputs: given_up })
    }

    pub(super) fn cancel_inputs(&mut self, of: &CancelInputs) -> Outcome<Vec<CancelOutcome>> {
        let (at, now) = (self.require(&of.session)?, self.now);
        let session = &mut self.sessions[at];
        let mut outcomes = Vec::new();
        for target in &of.targets {
            outcomes.push(match session.find_input(&of.lane, target) {
                Some(found) => cancel(&mut session.inputs[found], now),
                None => CancelOutcome::NotFound,
            });
        }
        Ok(outcomes)
    }

    pub(super) fn cancel_inputs_from(
        &mut self,
        of: &CancelInputsFrom,
    ) -> Outcome<Option<Vec<CancelOutcome>>> {
        let (at, now) = (self.require(&of.session)?, self.now);
        let session = &mut self.sessions[at];
        let Some(first) = session.find_input(&of.lane, &of.from) else {
            return Ok(None);
        };
        let lane = session.inputs[first..].iter_mut();
        let lane = lane.filter(|view| view.input.lane == of.lane);
        Ok(Some(lane.map(|view| cancel(view, now)).collect()))
    }
}
