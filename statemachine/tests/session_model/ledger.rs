//! What was answered, written down: who may do what follows from earlier answers alone, without
//! the model.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_statemachine::lease::{self, Claimed, Lease, Observed};
use quorate_statemachine::session::{
    self, CancelOutcome, ClaimRef, Command, Commit, Committed, Input, LaneClaim, Response,
    SessionId, SessionRef, execution_lease,
};
use quorate_statemachine::tables::{
    Requests, RequestsByAge, SessionDelayedWork, SessionInputs, SessionWork, Table, lane_key,
    lease_key, meta_key, tag_of,
};
use quorate_statemachine::transaction::read;
use quorate_statemachine::view::MemoryView;
use quorate_statemachine::{self as machine, Action, Name, Timestamp};

/// The names of a piece of work or of an input for ever.
type Number = (SessionId, u64);

/// Who has a number, and the last token that it was claimed with.
#[derive(Default)]
struct Holder {
    claim: Option<ClaimRef>,
    last_token: u64,
}

#[derive(Default)]
pub struct Ledger {
    revisions: BTreeMap<SessionId, u64>,
    turns: BTreeMap<(SessionId, Name, Name), (Name, u64, Bytes)>,
    holders: BTreeMap<Number, Holder>,
    inputs: BTreeMap<(SessionId, Name, Name), u64>,
    settled: BTreeSet<(SessionId, Name, u64)>,
    /// Grants that earlier steps of the same entry made.
    granted: Vec<Lease>,
}

/// The rows around a command.
pub struct Around<'a> {
    /// Behind the sweep, before the command.
    pub before: &'a MemoryView,
    pub after: &'a MemoryView,
    pub now: Timestamp,
}

impl Around<'_> {
    /// All rows but those that every entry may write.
    fn rows(view: &MemoryView) -> impl Iterator<Item = (&[u8], &[u8])> {
        view.rows().filter(|(key, _)| {
            let tag = tag_of(key);
            let answers = tag == Some(Requests::TAG) || tag == Some(RequestsByAge::TAG);
            *key != meta_key().bytes() && !answers
        })
    }

    /// What is refused, or was answered before, has changed nothing.
    pub fn check_unchanged(&self) {
        assert!(
            Self::rows(self.before).eq(Self::rows(self.after)),
            "nothing was to change"
        );
    }
}

impl Ledger {
    /// Writes down what a command that was done has answered.
    pub fn note(&mut self, around: &Around<'_>, action: &Action, response: &machine::Response) {
        self.granted.clear();
        self.note_action(around, action, response);
    }

    fn note_action(&mut self, around: &Around<'_>, action: &Action, response: &machine::Response) {
        match (action, response) {
            (Action::Composite(steps), machine::Response::Composite(responses)) => {
                for (action, response) in steps.iter().zip(responses) {
                    self.note_action(around, action, response);
                }
            }
            (Action::Session(command), machine::Response::Session(response)) => {
                self.note_step(around, command, response);
            }
            (_, machine::Response::Lease(lease::Response::Claim(Claimed::Granted(lease)))) => {
                self.granted.push(lease.clone());
            }
            _ => {}
        }
    }

    /// The live grant of the lane is this one.
    fn check_execution(
        &self,
        around: &Around<'_>,
        (session, lane): (&SessionRef, &Name),
        held: &Observed,
    ) {
        let key = execution_lease(session, lane).expect("short names");
        let before = read(around.before, &lease_key(&key)).expect("a lease can be read");
        let grants = self.granted.iter().filter(|lease| lease.key == key);
        let lease = grants.cloned().chain(before).next();
        let lease = lease.expect("what is done under a lease finds it");
        assert!(lease.is_live(around.now), "{lease:?}");
        let granted = Observed {
            owner_id: lease.owner.owner_id,
            incarnation_id: lease.owner.incarnation_id,
            lease_token: lease.lease_token,
            fencing_token: lease.fencing_token,
        };
        assert_eq!(granted, *held);
    }

    fn note_step(&mut self, around: &Around<'_>, command: &Command, response: &Response) {
        match (command, response) {
            (Command::Commit(commit), Response::Commit(done)) => {
                self.committed(around, commit, done);
            }
            (Command::ClaimWork(claim), Response::ClaimWork(Some(taken))) => {
                let of = (&claim.session, &claim.lane);
                self.check_execution(around, of, &claim.execution);
                for view in &taken.work {
                    self.claimed(claim.session.id, view.work.number, &taken.claim);
                }
            }
            (Command::ClaimInputs(claim), Response::ClaimInputs(Some(taken))) => {
                let of = (&claim.session, &claim.lane);
                self.check_execution(around, of, &claim.execution);
                for view in &taken.inputs {
                    let Input {
                        id, lane, number, ..
                    } = &view.input;
                    let key = (claim.session.id, lane.clone(), id.clone());
                    self.inputs.insert(key, *number);
                    self.claimed(claim.session.id, *number, &taken.claim);
                }
            }
            (Command::AbandonWork(abandon), Response::AbandonWork(done)) => {
                let numbers = abandon.numbers.clone();
                let given_up = self.given_up(abandon.session.id, &numbers, &abandon.claim);
                assert_eq!(done.work, given_up);
            }
            (Command::AbandonInputs(abandon), Response::AbandonInputs(done)) => {
                let id = abandon.session.id;
                let number = |of: &Name| {
                    let key = (id, abandon.lane.clone(), of.clone());
                    self.inputs.get(&key).copied()
                };
                let numbers: Vec<u64> = abandon.ids.iter().filter_map(number).collect();
                let given_up = self.given_up(id, &numbers, &abandon.claim);
                assert_eq!(done.inputs, given_up);
            }
            (Command::CancelWork(cancel), Response::CancelWork(Some(view))) => {
                self.holders.remove(&(cancel.session.id, view.work.number));
            }
            (Command::CancelInputs(cancel), Response::CancelInputs(all)) => {
                self.cancelled(cancel.session.id, all);
            }
            (Command::CancelInputsFrom(cancel), Response::CancelInputsFrom(Some(all))) => {
                self.cancelled(cancel.session.id, all);
            }
            _ => {}
        }
    }

    /// A claim of a number has a greater token than all before it.
    fn claimed(&mut self, session: SessionId, number: u64, claim: &LaneClaim) {
        let holder = self.holders.entry((session, number)).or_default();
        let (last, token) = (holder.last_token, claim.fencing_token);
        assert!(
            last < token,
            "{number} was claimed with {last}, now with {token}"
        );
        holder.last_token = token;
        holder.claim = Some(crate::model::reference_of(claim));
    }

    /// Takes back what a claim has of these numbers. How many that were.
    fn given_up(&mut self, session: SessionId, numbers: &[u64], claim: &ClaimRef) -> u64 {
        let mut given_up = 0;
        for number in numbers {
            let holder = self.holders.entry((session, *number)).or_default();
            if holder.claim.as_ref() == Some(claim) {
                holder.claim = None;
                given_up += 1;
            }
        }
        given_up
    }

    fn cancelled(&mut self, session: SessionId, outcomes: &[CancelOutcome]) {
        for outcome in outcomes {
            if let CancelOutcome::Cancelled(view) = outcome {
                self.holders.remove(&(session, view.input.number));
            }
        }
    }

    fn committed(&mut self, around: &Around<'_>, commit: &Commit, done: &Committed) {
        let id = commit.session.id;
        let turn = commit.turn.as_ref();
        let key = turn.map(|turn| (id, commit.lane.clone(), turn.turn.clone()));
        let known = key.as_ref().and_then(|key| self.turns.get(key));
        let Some((_, graph)) = &done.graph else {
            let (hash, revision, result) = known.expect("only a known turn is answered again");
            assert_eq!((*revision, result), (done.revision, &done.result));
            assert_eq!(Some(hash), turn.map(|turn| &turn.hash));
            return;
        };
        assert!(known.is_none(), "{turn:?} is committed twice");
        assert!(graph.staged_at.is_none());
        let held = commit.execution.as_ref();
        let held = held.expect("nothing is committed without a lease");
        self.check_execution(around, (&commit.session, &commit.lane), held);
        let revision = self.revisions.entry(id).or_default();
        assert_eq!(done.revision, *revision + 1, "revisions have no gaps");
        *revision += 1;
        assert_eq!(done.result, commit.result);
        if let (Some(key), Some(turn)) = (key, turn) {
            let stamp = (turn.hash.clone(), done.revision, done.result.clone());
            self.turns.insert(key, stamp);
        }
        self.settled_by(commit);
    }

    /// Only the claim that has something settles it.
    fn settled_by(&mut self, commit: &Commit) {
        let id = commit.session.id;
        let mut all = Vec::new();
        for settlement in &commit.work {
            let numbers = settlement.settled.iter().copied();
            all.extend(numbers.map(|number| (&settlement.lane, number, &settlement.claim)));
        }
        for settlement in &commit.inputs {
            for input in &settlement.settled {
                let key = (id, settlement.lane.clone(), input.clone());
                let number = self.inputs[&key];
                all.push((&settlement.lane, number, &settlement.claim));
            }
        }
        for (lane, number, claim) in all {
            let holder = self.holders.remove(&(id, number));
            let holder = holder.and_then(|holder| holder.claim);
            assert_eq!(holder.as_ref(), Some(claim), "who settles {number}");
            self.settled.insert((id, lane.clone(), number));
        }
    }

    /// Nothing that was settled is there to be taken.
    pub fn check_settled(&self, view: &MemoryView) {
        fn is_there<T: Table>(view: &MemoryView, of: &(SessionId, Name, u64)) -> bool {
            let key = lane_key::<T>(of.0, &of.1, of.2);
            read(view, &key).expect("every row can be read").is_some()
        }
        for of in &self.settled {
            let there = is_there::<SessionWork>(view, of)
                || is_there::<SessionDelayedWork>(view, of)
                || is_there::<SessionInputs>(view, of);
            assert!(!there, "{of:?} was settled and is there");
        }
    }
}

/// Whether an answer is that to a commit that was done before.
pub fn is_repeated(response: &session::Response) -> bool {
    matches!(response, Response::Commit(Committed { graph: None, .. }))
}
