//! What random turns have met: they would show nothing if they met nothing.

use std::collections::BTreeMap;

use quorate_statemachine::session::{
    self, CancelOutcome, Command as C, Commit, Content, GraphDelta, InputMode, InputPushed,
    InputState, Response as R, WorkChoice, WorkPushed,
};
use quorate_statemachine::{Action, Command, Refusal, Reply, Response};

use crate::ledger::is_repeated;
use crate::model::{Model, ModelSession, is_claim};

/// Words for what was met, and how often.
#[derive(Debug, Default)]
pub struct Seen(pub BTreeMap<String, usize>);

/// What there is to meet, and how often the cases of one run meet it at least.
pub const ALL: &[(&str, usize)] = &[
    ("a graph went in several steps", 1),
    ("a loose blob went by itself", 13),
    ("a request was repeated", 31),
    ("a staged graph was left", 9),
    ("a state in blobs", 36),
    ("a turn was repeated", 16),
    ("abandoned inputs", 14),
    ("abandoned work", 11),
    ("accepted inputs", 33),
    ("appended", 62),
    ("cancelled an input", 6),
    ("cancelled from nowhere", 5),
    ("cancelled work", 2),
    ("claimed a command", 12),
    ("claimed a group", 6),
    ("claimed inputs", 22),
    ("claimed inputs again", 4),
    ("claimed just that work", 10),
    ("claimed no inputs", 4),
    ("claimed no work", 5),
    ("claimed work", 43),
    ("claimed work again", 12),
    ("collected blobs", 5),
    ("committed first", 38),
    ("committed more", 58),
    ("composite done", 132),
    ("composite: conflict, input", 5),
    ("composite: conflict, turn", 1),
    ("composite: conflict, work of lane", 1),
    ("composite: fenced, lease", 9),
    ("composite: fenced, work of lane", 3),
    ("composite: moved, graph", 2),
    ("composite: moved, session", 1),
    ("composite: not_found, blob", 1),
    ("composite: not_found, session", 7),
    ("composite: outcome_unknown, request", 4),
    ("deferred an input", 7),
    ("delayed work came", 27),
    ("deleted", 8),
    ("did not cancel a claimed input", 4),
    ("did not cancel an ended input", 3),
    ("did not find an input", 15),
    ("extended", 10),
    ("forgot an attachment", 1),
    ("found blobs", 60),
    ("hid nodes", 14),
    ("kept an accepted input", 5),
    ("lease.claim", 160),
    ("lease.release", 2),
    ("lease.renew", 9),
    ("lease.revoke", 2),
    ("left work", 4),
    ("noted", 54),
    ("noted before", 8),
    ("opened again", 8),
    ("opened anew", 5),
    ("pushed an input", 92),
    ("pushed another input", 2),
    ("pushed delayed work", 14),
    ("pushed known work", 8),
    ("pushed the same input", 4),
    ("pushed work", 78),
    ("released with a commit", 12),
    ("renewed work", 11),
    ("replaced", 8),
    ("replaced by a staged graph", 14),
    ("session.claim_inputs: expired, lease", 1),
    ("session.claim_inputs: fenced, lease", 5),
    ("session.claim_work: expired, lease", 1),
    ("session.claim_work: fenced, lease", 8),
    ("session.commit: conflict, session", 2),
    ("session.commit: conflict, turn", 8),
    ("session.commit: expired, lease", 1),
    ("session.commit: fenced, input", 3),
    ("session.commit: fenced, lease", 18),
    ("session.commit: fenced, work of lane", 6),
    ("session.commit: moved, graph", 4),
    ("session.commit: moved, session", 8),
    ("session.commit: not_found, blob", 1),
    ("session.commit: not_found, graph", 1),
    ("session.commit: not_found, session", 7),
    ("session.commit: outcome_unknown, request", 3),
    ("session.push_work: conflict, session", 1),
    ("session.put_blobs: conflict, blob", 4),
    ("session.renew_work: fenced, work of lane", 3),
    ("session.stage_nodes: not_found, graph", 4),
    ("settled inputs", 18),
    ("settled inputs after their time", 5),
    ("settled work", 23),
    ("settled work after its time", 3),
    ("staged", 47),
    ("staged more", 6),
    ("stamped attachments", 1),
    ("stamped attachments with a commit", 15),
    ("stored blobs", 154),
    ("took what the dead had", 2),
    ("vacuumed inputs", 6),
    ("vacuumed nodes", 3),
];

fn session_of<'a>(model: &'a Model, of: &session::SessionRef) -> &'a ModelSession {
    model
        .session(&of.name)
        .expect("what was done, was done there")
}

impl Seen {
    fn add(&mut self, words: impl Into<String>) {
        *self.0.entry(words.into()).or_default() += 1;
    }

    fn add_if(&mut self, met: bool, words: &str) {
        if met {
            self.add(words);
        }
    }

    /// What the sweep has done between two entries.
    pub fn passed(&mut self, before: &Model, after: &Model) {
        for old in &before.sessions {
            let Some(new) = after.sessions.iter().find(|new| new.id == old.id) else {
                continue;
            };
            self.add_if(
                new.blobs.len() < old.blobs.len(),
                "a loose blob went by itself",
            );
            let staged = |session: &ModelSession| session.staged().count();
            self.add_if(staged(new) < staged(old), "a staged graph was left");
            let waits = |session: &ModelSession| session.work.iter().filter(|p| p.delayed).count();
            self.add_if(waits(new) < waits(old), "delayed work came");
            let bits = new.leaving.iter().zip(&old.leaving);
            let bits = bits.filter(|(new, old)| new.id == old.id && new.nodes != old.nodes);
            self.add_if(bits.count() > 0, "a graph went in several steps");
        }
    }

    /// Looks at an entry: the model before its command, and the answer.
    pub fn look(&mut self, model: &Model, command: &Command, reply: &Reply) {
        if let Some(request) = &command.request
            && model.remembers(request)
        {
            return self.add("a request was repeated");
        }
        match (&command.action, &reply.0) {
            (Action::Composite(_), Ok(Response::Composite(_))) => self.add("composite done"),
            (Action::Composite(_), Err(refusal)) => self.refusal("composite", refusal),
            (action, Err(refusal)) => self.refusal(action.name(), refusal),
            (Action::Session(command), Ok(Response::Session(response))) => {
                self.done(model, command, response);
            }
            (action, Ok(_)) => self.add(action.name()),
        }
    }

    fn refusal(&mut self, name: &str, refusal: &Refusal) {
        let subject = match refusal.root() {
            Refusal::NotFound { subject, .. }
            | Refusal::Fenced { subject, .. }
            | Refusal::Expired { subject, .. }
            | Refusal::Conflict { subject, .. }
            | Refusal::Moved { subject, .. } => subject.as_str(),
            _ => "request",
        };
        let moved = matches!(refusal.root(), Refusal::Moved { .. });
        let code = if moved { "moved" } else { refusal.code() };
        self.add(format!("{name}: {code}, {subject}"));
    }

    fn done(&mut self, model: &Model, command: &C, response: &R) {
        match (command, response) {
            (C::Open(open), R::Open(opened)) => {
                let again = model.deleted.iter().any(|old| old.name == open.name);
                self.add_if(opened.created && again, "opened anew");
                self.add_if(!opened.created, "opened again");
            }
            (C::Delete(_), R::Delete(done)) => {
                self.add(if done.existed {
                    "deleted"
                } else {
                    "deleted nothing"
                });
            }
            (C::PutBlobs(put), R::PutBlobs(done)) => {
                let more = put.blobs.len() as u64 > done.stored;
                self.add_if(done.stored > 0, "stored blobs");
                self.add_if(more, "found blobs");
            }
            (C::StageNodes(stage), R::StageNodes(_)) => {
                self.add(if stage.graph.is_some() {
                    "staged more"
                } else {
                    "staged"
                });
            }
            (C::Commit(commit), R::Commit(_)) => {
                let session = session_of(model, &commit.session);
                self.committed(model, session, commit, is_repeated(response));
            }
            (C::Vacuum(_), R::Vacuum(done)) => {
                self.add_if(done.nodes > 0, "vacuumed nodes");
                self.add_if(done.inputs > 0, "vacuumed inputs");
            }
            (C::Tombstone(_), R::Tombstone(done)) => self.add_if(done.nodes > 0, "hid nodes"),
            (C::Collect(_), R::Collect(done)) => self.add_if(done.removed > 0, "collected blobs"),
            (C::NoteAttachment(_), R::NoteAttachment(done)) => {
                self.add(if done.noted { "noted" } else { "noted before" });
            }
            (C::CommitAttachments(_), R::CommitAttachments(done)) => {
                self.add_if(done.stamped > 0, "stamped attachments");
            }
            (C::ForgetAttachment(_), R::ForgetAttachment(done)) => {
                self.add_if(done.existed, "forgot an attachment");
            }
            (command, response) => self.done_in_lane(model, command, response),
        }
    }

    fn committed(&mut self, model: &Model, own: &ModelSession, commit: &Commit, repeated: bool) {
        if repeated {
            return self.add("a turn was repeated");
        }
        let released = commit
            .release
            .as_ref()
            .is_some_and(|held| model.grants.iter().any(|grant| grant.observed() == *held));
        self.add(if own.head.is_some() {
            "committed more"
        } else {
            "committed first"
        });
        self.add_if(released, "released with a commit");
        let stamps = own.attachments.iter().any(|one| {
            let named = commit.attachments.contains(&one.id) && one.lane == commit.lane;
            named && one.committed_at.is_none()
        });
        self.add_if(stamps, "stamped attachments with a commit");
        match &commit.graph {
            GraphDelta::Append(_) => self.add("appended"),
            GraphDelta::Extend { .. } => self.add("extended"),
            GraphDelta::Replace { staged: None, .. } => self.add("replaced"),
            GraphDelta::Replace { .. } => self.add("replaced by a staged graph"),
        }
        self.add_if(
            matches!(commit.state, Content::Blobs { .. }),
            "a state in blobs",
        );
        let late = |of: Option<&session::LaneClaim>, claim: &session::ClaimRef| {
            is_claim(of, claim) && of.is_some_and(|of| of.expires_at <= model.now)
        };
        for settled in commit
            .work
            .iter()
            .filter(|settled| !settled.settled.is_empty())
        {
            self.add("settled work");
            let mut work = own.work.iter().map(|piece| piece.view.work.claim.as_ref());
            let late = work.any(|of| late(of, &settled.claim));
            self.add_if(late, "settled work after its time");
        }
        for settled in commit
            .inputs
            .iter()
            .filter(|settled| !settled.settled.is_empty())
        {
            self.add("settled inputs");
            let mut inputs = own.inputs.iter().map(|view| view.input.claim.as_ref());
            let late = inputs.any(|of| late(of, &settled.claim));
            self.add_if(late, "settled inputs after their time");
        }
        let inputs = own.inputs.iter().map(|view| &view.input);
        let for_it = |mode: &InputMode| match (mode, &commit.interrupted) {
            (InputMode::Running { turn, .. }, Some(interrupted)) => turn == interrupted,
            _ => false,
        };
        let for_it = inputs.filter(|input| input.lane == commit.lane && for_it(&input.mode));
        for input in for_it {
            self.add_if(input.state == InputState::Pending, "deferred an input");
            self.add_if(
                input.state == InputState::Accepted,
                "kept an accepted input",
            );
        }
    }

    fn done_in_lane(&mut self, model: &Model, command: &C, response: &R) {
        match (command, response) {
            (C::PushWork(push), R::PushWork(WorkPushed::Queued { .. })) => {
                let delayed = push.available_at > model.now;
                self.add(if delayed {
                    "pushed delayed work"
                } else {
                    "pushed work"
                });
            }
            (_, R::PushWork(WorkPushed::Known(_))) => self.add("pushed known work"),
            (C::ClaimWork(claim), R::ClaimWork(Some(taken))) => {
                let numbers: Vec<u64> = taken.work.iter().map(|view| view.work.number).collect();
                let own = session_of(model, &claim.session).work.iter();
                let work = own.map(|piece| &piece.view.work);
                let work = work.filter(|work| numbers.contains(&work.number));
                let claims = work.map(|work| work.claim.as_ref());
                self.taken_from_dead(model, claims);
                self.add(match &claim.choice {
                    WorkChoice::Command => "claimed a command",
                    WorkChoice::Turn { .. } => "claimed work",
                    WorkChoice::Exactly { .. } => "claimed just that work",
                });
                self.add_if(taken.work.len() > 1, "claimed a group");
                let again = taken.work.iter().any(|view| view.work.claims > 1);
                self.add_if(again, "claimed work again");
            }
            (_, R::ClaimWork(None)) => self.add("claimed no work"),
            (_, R::RenewWork(_)) => self.add("renewed work"),
            (_, R::AbandonWork(done)) => self.add_if(done.work > 0, "abandoned work"),
            (_, R::CancelWork(done)) => {
                self.add(if done.is_some() {
                    "cancelled work"
                } else {
                    "left work"
                });
            }
            (_, R::PushInput(InputPushed::Queued { .. })) => self.add("pushed an input"),
            (_, R::PushInput(InputPushed::Known { same, .. })) => {
                self.add(if *same {
                    "pushed the same input"
                } else {
                    "pushed another input"
                });
            }
            (C::ClaimInputs(claim), R::ClaimInputs(Some(taken))) => {
                let numbers: Vec<u64> = taken.inputs.iter().map(|v| v.input.number).collect();
                let own = session_of(model, &claim.session).inputs.iter();
                let inputs = own.map(|view| &view.input);
                let inputs = inputs.filter(|input| numbers.contains(&input.number));
                self.taken_from_dead(model, inputs.map(|input| input.claim.as_ref()));
                let inputs = || taken.inputs.iter().map(|view| &view.input);
                let accepted = inputs().any(|input| input.state == InputState::Accepted);
                self.add(if accepted {
                    "accepted inputs"
                } else {
                    "claimed inputs"
                });
                self.add_if(
                    inputs().any(|input| input.claims > 1),
                    "claimed inputs again",
                );
            }
            (_, R::ClaimInputs(None)) => self.add("claimed no inputs"),
            (_, R::AbandonInputs(done)) => self.add_if(done.inputs > 0, "abandoned inputs"),
            (_, R::CancelInputs(all) | R::CancelInputsFrom(Some(all))) => self.cancelled(all),
            (_, R::CancelInputsFrom(None)) => self.add("cancelled from nowhere"),
            _ => {}
        }
    }

    /// Claims that were live when somebody else took what they had.
    fn taken_from_dead<'a>(
        &mut self,
        model: &Model,
        mut claims: impl Iterator<Item = Option<&'a session::LaneClaim>>,
    ) {
        let live = claims.any(|claim| claim.is_some_and(|claim| claim.expires_at > model.now));
        self.add_if(live, "took what the dead had");
    }

    fn cancelled(&mut self, outcomes: &[CancelOutcome]) {
        for outcome in outcomes {
            self.add(match outcome {
                CancelOutcome::Cancelled(_) => "cancelled an input",
                CancelOutcome::Claimed(_) => "did not cancel a claimed input",
                CancelOutcome::Ended(_) => "did not cancel an ended input",
                CancelOutcome::NotFound => "did not find an input",
            });
        }
    }
}
