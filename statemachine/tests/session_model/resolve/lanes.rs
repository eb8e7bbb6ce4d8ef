//! Work and inputs.

use bytes::Bytes;
use quorate_statemachine::session::{
    AbandonInputs, AbandonWork, CancelInputs, CancelInputsFrom, CancelTarget, CancelWork,
    ClaimInputs, ClaimRef, ClaimWork, Content, Input, InputMode, InputState, PushInput, PushWork,
    RenewWork, WorkChoice, WorkClass,
};
use quorate_statemachine::{Action, LeaseToken, Name, Owner};

use super::{Scene, Way, name, owner, token};
use crate::model::{Kind, Made, is_claim, reference_of};
use crate::turns::{Choice, Claim, Execution, Mode, Part, Pick, Settles, Target, What, Wrong};

/// A claim as it is named, with what is named of it.
pub(super) struct Named {
    pub lane: Name,
    pub claim: ClaimRef,
    pub numbers: Vec<u64>,
    pub ids: Vec<Name>,
}

pub(super) fn mode(mode: Mode) -> InputMode {
    match mode {
        Mode::Next => InputMode::Next,
        Mode::Running { turn, rank } => InputMode::Running {
            turn: name("run", turn),
            rank,
        },
    }
}

impl Scene<'_> {
    fn target(&self, target: &Target) -> CancelTarget {
        let nth = match target {
            Target::Id(id) => return CancelTarget::Id(name("input", id)),
            Target::Source(source) => return CancelTarget::Source(name("source", source)),
            Target::Known(nth) => nth,
        };
        let inputs = self.session.iter().flat_map(|session| &session.inputs);
        let known: Vec<&Input> = inputs
            .map(|view| &view.input)
            .filter(|input| input.lane == self.lane)
            .collect();
        let one = known.get(nth % known.len().max(1));
        CancelTarget::Id(one.map_or_else(|| name("input", 0), |input| input.id.clone()))
    }

    /// What a claim has still.
    fn held(&self, made: &Made) -> (Vec<u64>, Vec<Name>) {
        let claim = reference_of(&made.claim);
        let work = self.session.iter().flat_map(|session| &session.work);
        let work = work.map(|piece| &piece.view.work);
        let work = work.filter(|work| is_claim(work.claim.as_ref(), &claim));
        let inputs = self.session.iter().flat_map(|session| &session.inputs);
        let inputs = inputs.map(|view| &view.input);
        let inputs = inputs.filter(|input| is_claim(input.claim.as_ref(), &claim));
        match made.kind {
            Kind::Work => (work.map(|work| work.number).collect(), Vec::new()),
            Kind::Inputs => (Vec::new(), inputs.map(|input| input.id.clone()).collect()),
        }
    }

    fn picked(&self, kind: Kind, pick: Pick) -> Option<&Made> {
        let claims = self.model.claims.iter();
        let own = claims.filter(|made| made.session == self.of.id && made.kind == kind);
        let own: Vec<&Made> = own.collect();
        let has = |made: &&Made| {
            let (numbers, ids) = self.held(made);
            !numbers.is_empty() || !ids.is_empty()
        };
        let holding: Vec<&Made> = own.iter().copied().filter(has).collect();
        let from = if pick.held { holding } else { own };
        from.get(pick.nth % from.len().max(1)).copied()
    }

    /// A claim, or one that never was.
    fn named(&self, kind: Kind, pick: Pick) -> Named {
        let Some(made) = self.picked(kind, pick) else {
            return Named {
                lane: self.lane.clone(),
                claim: ClaimRef {
                    lease_token: token("none"),
                    fencing_token: 1,
                },
                numbers: vec![7],
                ids: vec![name("input", 0)],
            };
        };
        Named {
            lane: made.lane.clone(),
            claim: wrong(reference_of(&made.claim), pick.wrong),
            numbers: made.numbers.clone(),
            ids: made.ids.clone(),
        }
    }

    /// What a commit settles. Nothing is named twice, unless on purpose.
    pub(super) fn settled(&self, kind: Kind, all: &[Settles]) -> Vec<Named> {
        let mut taken: Vec<u64> = Vec::new();
        let mut settled = Vec::new();
        for Settles { of, part } in all {
            let Some(made) = self.picked(kind, *of) else {
                continue;
            };
            if taken.contains(&made.claim.fencing_token) && !matches!(part, Part::Twice) {
                continue;
            }
            taken.push(made.claim.fencing_token);
            let (mut numbers, mut ids) = self.held(made);
            match part {
                Part::Held => {}
                Part::First => {
                    numbers.truncate(1);
                    ids.truncate(1);
                }
                Part::All => (numbers, ids) = (made.numbers.clone(), made.ids.clone()),
                Part::Twice => {
                    numbers.extend(numbers.clone());
                    ids.extend(ids.clone());
                }
            }
            settled.push(Named {
                lane: made.lane.clone(),
                claim: wrong(reference_of(&made.claim), of.wrong),
                numbers,
                ids,
            });
        }
        settled
    }

    /// Claims whose owners are said to be dead.
    fn dead(&self, claim: &Claim) -> Vec<u64> {
        let all = self.model.claims.iter().filter(|_| claim.dead);
        all.map(|made| made.claim.fencing_token).collect()
    }

    fn claimant(&self, claim: &Claim) -> (Owner, LeaseToken) {
        (owner(claim.owner), token(self.tag.clone()))
    }

    fn claim_work(&self, claim: &Claim, choice: Choice) -> Way<Action> {
        let Some(execution) = self.execution(&self.lane, claim.execution)? else {
            return Err(self.claim_lease(&self.lane, claim.owner, claim.ttl_ms, true));
        };
        let (owner, lease_token) = self.claimant(claim);
        let mut of = ClaimWork {
            session: self.of.clone(),
            lane: self.lane.clone(),
            execution,
            owner,
            lease_token,
            ttl_ms: claim.ttl_ms,
            choice: WorkChoice::Command,
            dead: self.dead(claim),
        };
        let (running, max) = match choice {
            Choice::Command => (false, 1),
            Choice::Turn { running, max } | Choice::Exactly { running, max, .. } => (running, max),
        };
        if !matches!(choice, Choice::Command) {
            of.choice = WorkChoice::Turn { running, max };
        }
        let mut numbers = self.model.would_take(&of);
        if numbers.is_empty() && self.willing {
            of.choice = self
                .other_choice(&of)
                .ok_or_else(|| self.push_work(choice))?;
        } else if let Choice::Exactly { wrong, .. } = choice {
            if wrong || numbers.is_empty() {
                numbers.push(7);
            }
            of.choice = WorkChoice::Exactly { running, numbers };
        }
        Ok(of.into())
    }

    /// What would take something where another choice takes nothing.
    fn other_choice(&self, of: &ClaimWork) -> Option<WorkChoice> {
        let turn = WorkChoice::Turn {
            running: false,
            max: 3,
        };
        let takes = |choice: &WorkChoice| {
            let choice = choice.clone();
            let of = ClaimWork {
                choice,
                ..of.clone()
            };
            !self.model.would_take(&of).is_empty()
        };
        [WorkChoice::Command, turn].into_iter().find(takes)
    }

    /// Something for a claim to take.
    fn push_work(&self, choice: Choice) -> Action {
        PushWork {
            session: self.of.clone(),
            lane: self.lane.clone(),
            source: None,
            class: match choice {
                Choice::Command => WorkClass::Command,
                _ => WorkClass::Turn,
            },
            anytime: true,
            group: Some(vec![0; 2]),
            available_at: self.model.now,
            body: Content::Inline(Bytes::new()),
        }
        .into()
    }

    fn claim_inputs(&self, claim: &Claim, of: Mode, max: u32) -> Way<Action> {
        let Some(execution) = self.execution(&self.lane, claim.execution)? else {
            return Err(self.claim_lease(&self.lane, claim.owner, claim.ttl_ms, true));
        };
        let inputs = self.session.iter().flat_map(|session| &session.inputs);
        let mut free = inputs.map(|view| &view.input).filter(|input| {
            let live = input
                .claim
                .as_ref()
                .is_some_and(|c| c.expires_at > self.model.now);
            input.lane == self.lane && input.state == InputState::Pending && !live
        });
        let asked = mode(of);
        let meant = free.clone().any(|input| match (&input.mode, &asked) {
            (
                InputMode::Running { turn, rank },
                InputMode::Running {
                    turn: of,
                    rank: reached,
                },
            ) => turn == of && rank <= reached,
            (one, other) => one == other,
        });
        let fits = match free.next() {
            _ if meant || !self.willing => asked,
            Some(input) => input.mode.clone(),
            None => return Err(self.push_input(asked)),
        };
        let (owner, lease_token) = self.claimant(claim);
        let claim = ClaimInputs {
            session: self.of.clone(),
            lane: self.lane.clone(),
            execution,
            owner,
            lease_token,
            ttl_ms: claim.ttl_ms,
            mode: fits,
            max,
            dead: self.dead(claim),
        };
        Ok(claim.into())
    }

    /// Something for a claim to take.
    fn push_input(&self, mode: InputMode) -> Action {
        PushInput {
            session: self.of.clone(),
            lane: self.lane.clone(),
            id: name("input", &self.tag),
            source: None,
            mode,
            body: Content::Inline(Bytes::new()),
        }
        .into()
    }

    /// Makes a claim first if there is none that has something.
    fn check_held(&self, kind: Kind) -> Way<()> {
        let any = Pick {
            held: true,
            nth: 0,
            wrong: Wrong::Nothing,
        };
        if !self.willing || self.picked(kind, any).is_some() {
            return Ok(());
        }
        let claim = Claim {
            execution: Execution::Live,
            owner: 0,
            ttl_ms: 60_000,
            dead: false,
        };
        let choice = Choice::Turn {
            running: false,
            max: 3,
        };
        Err(match kind {
            Kind::Work => self.claim_work(&claim, choice)?,
            Kind::Inputs => self.claim_inputs(&claim, Mode::Running { turn: 0, rank: 2 }, 3)?,
        })
    }

    pub(super) fn work(&self, what: &What) -> Way<Action> {
        let session = self.of.clone();
        let lane = self.lane.clone();
        Ok(match what {
            What::PushWork {
                source,
                command,
                anytime,
                group,
                delay_ms,
                body,
            } => PushWork {
                session,
                lane,
                source: source.map(|source| name("source", source)),
                class: match command {
                    true => WorkClass::Command,
                    false => WorkClass::Turn,
                },
                anytime: *anytime,
                group: group.map(|group| vec![group; 2]),
                available_at: self.model.now.plus(*delay_ms),
                body: self.content(body)?,
            }
            .into(),
            What::ClaimWork(claim, choice) => return self.claim_work(claim, *choice),
            What::RenewWork(pick, ttl_ms) => {
                self.check_held(Kind::Work)?;
                let named = self.named(Kind::Work, *pick);
                RenewWork {
                    session,
                    lane: named.lane,
                    claim: named.claim,
                    numbers: named.numbers,
                    ttl_ms: *ttl_ms,
                }
                .into()
            }
            What::AbandonWork(pick) => {
                self.check_held(Kind::Work)?;
                let named = self.named(Kind::Work, *pick);
                AbandonWork {
                    session,
                    lane: named.lane,
                    claim: named.claim,
                    numbers: named.numbers,
                }
                .into()
            }
            What::CancelWork(nth) => {
                let all: Vec<_> = self.session.iter().flat_map(|s| &s.work).collect();
                let work = all
                    .get(nth % all.len().max(1))
                    .map(|piece| &piece.view.work);
                CancelWork {
                    session,
                    lane: work.map_or(lane, |work| work.lane.clone()),
                    number: work.map_or(7, |work| work.number),
                }
                .into()
            }
            other => unreachable!("{other:?} is no work"),
        })
    }

    pub(super) fn inputs(&self, what: &What) -> Way<Action> {
        let session = self.of.clone();
        let lane = self.lane.clone();
        Ok(match what {
            What::PushInput {
                id,
                source,
                mode: of,
                body,
            } => PushInput {
                session,
                lane,
                id: name("input", id),
                source: source.map(|source| name("source", source)),
                mode: mode(*of),
                body: self.content(body)?,
            }
            .into(),
            What::ClaimInputs(claim, of, max) => return self.claim_inputs(claim, *of, *max),
            What::AbandonInputs(pick) => {
                self.check_held(Kind::Inputs)?;
                let named = self.named(Kind::Inputs, *pick);
                AbandonInputs {
                    session,
                    lane: named.lane,
                    claim: named.claim,
                    ids: named.ids,
                }
                .into()
            }
            What::CancelInputs(targets) => CancelInputs {
                session,
                lane,
                targets: targets.iter().map(|of| self.target(of)).collect(),
            }
            .into(),
            What::CancelInputsFrom(from) => CancelInputsFrom {
                session,
                lane,
                from: self.target(from),
            }
            .into(),
            other => unreachable!("{other:?} is no input"),
        })
    }
}

fn wrong(mut claim: ClaimRef, wrong: Wrong) -> ClaimRef {
    match wrong {
        Wrong::Nothing => {}
        Wrong::FencingToken => claim.fencing_token += 1,
        Wrong::LeaseToken => claim.lease_token = token("other"),
    }
    claim
}
