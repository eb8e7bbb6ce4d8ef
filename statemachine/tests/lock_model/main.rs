//! Random turns on the real locks and on a naive model of them: every reply, notice, count and
//! listing must agree, and the rows must be whole after every entry.

mod circles;
mod commands;
mod model;
mod rows;
mod seen;
mod shown;
mod situations;
mod turns;

use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use quorate_statemachine::cluster::{AllocateNodeId, Tick};
use quorate_statemachine::expiry::next_due;
use quorate_statemachine::limits::{SWEEP_MAX, TICK_SWEEP_MAX};
use quorate_statemachine::lock::{self, Acquired, WaitCancelled};
use quorate_statemachine::notice::Notice;
use quorate_statemachine::view::MemoryView;
use quorate_statemachine::{
    Action, Applied, Command, Entry, Refusal, Reply, Response, Timestamp, apply, cluster,
};

use model::Model;
use seen::Seen;
use shown::normal;
use turns::{Minted, Passes, Turn};

/// The real state and the model of it, side by side.
#[derive(Default)]
struct Pair {
    view: MemoryView,
    model: Model,
    minted: Minted,
    clock: Timestamp,
    seen: Seen,
}

impl Pair {
    fn new() -> Self {
        let clock = Timestamp(1_000_000);
        Self {
            clock,
            ..Self::default()
        }
    }

    /// What the next entry would do.
    fn apply(&self, command: &Command) -> Applied {
        let entry = Entry {
            index: self.model.index + 1,
            proposed_at: self.clock,
            command: &command.encode(),
            principal: quorate_statemachine::Principal::Cluster,
        };
        apply(&self.view, entry).expect("no invariant breaks")
    }

    fn take(&mut self, turn: &Turn) {
        self.pass(turn.passes);
        let command = turn.resolve(&self.model, &mut self.minted);
        self.run(&command);
    }

    fn pass(&mut self, passes: Passes) {
        let next = self.model.next_event().unwrap_or(self.clock);
        self.clock = match passes {
            Passes::On(ms) => self.clock.plus(ms),
            Passes::Back(ms) => Timestamp(self.clock.0.saturating_sub(ms)),
            Passes::ToNext { before } => Timestamp(next.0 - u64::from(before)).max(self.clock),
        };
    }

    fn run(&mut self, command: &Command) {
        let behind = self.is_behind(command);
        let applied = self.apply(command);
        self.seen.look(command, &applied);
        let (mut swept, mut told) = self.notices(command, &applied);
        self.model.begin(self.model.index + 1, self.clock);
        self.model.hear(&mut swept);
        assert!(swept.is_empty(), "the sweep did {swept:?}");
        self.model.check_prompt(behind);
        self.model.forget();

        let actual = normal_reply(applied.reply);
        let expected = self.model.execute(command, &mut told, &actual);
        assert_eq!(actual, expected, "command {command:?}");
        self.model.hear(&mut told);
        assert!(told.is_empty(), "{command:?} did {told:?}");
        self.model.check_prompt(behind);
        self.view.commit(applied.changes);
        self.check(behind);
    }

    /// Whether the sweep may leave something that is due.
    fn is_behind(&self, command: &Command) -> bool {
        let now = self.model.now.max(self.clock);
        let tick = command.action == Action::from(Tick {});
        let limit = if tick { TICK_SWEEP_MAX } else { SWEEP_MAX };
        rows::due_by(&self.view, now) >= limit
    }

    /// The sweep's notices, and the command's. The sweep does the same whatever the command is.
    fn notices(
        &self,
        command: &Command,
        applied: &Applied,
    ) -> (VecDeque<Notice>, VecDeque<Notice>) {
        let mut notices: VecDeque<Notice> = applied.notices.iter().cloned().collect();
        if let Action::Cluster(cluster::Command::Tick(_)) = command.action {
            return (notices, VecDeque::new());
        }
        let nothing = self.apply(&Command::from(AllocateNodeId {}));
        let told = notices.split_off(nothing.notices.len());
        assert_eq!(notices, nothing.notices, "what is due comes first");
        (notices, told)
    }

    fn check(&self, behind: bool) {
        let rows = rows::check(&self.view);
        let meta = rows::meta(&self.view);
        let model = &self.model;
        assert_eq!((meta.now, meta.last_index), (model.now, model.index));
        let remembered = (model.answered(), model.floor);
        assert_eq!((meta.requests, meta.requests_floor), remembered);
        model.check_exclusion();
        circles::check_none(model);
        if !behind {
            assert_eq!(rows.members.len(), model.parties.len());
            self.check_next_due();
        }
        self.check_shown(model, !behind);
        for later in [1, 700] {
            let mut model = model.clone();
            model.pass_to(model.now.plus(later));
            self.check_shown(&model, false);
        }
    }

    fn check_shown(&self, model: &Model, swept: bool) {
        let ids: Vec<_> = self.minted.ids().collect();
        let recent = ids.len().saturating_sub(16);
        shown::check(&self.view, model, swept, &turns::keys(), &ids[recent..]);
    }

    /// A leader that sleeps until something is due is not late.
    fn check_next_due(&self) {
        let due = next_due(&self.view).expect("the due index can be read");
        if let Some(event) = self.model.next_event() {
            assert!(
                due.is_some_and(|due| due <= event),
                "{due:?} is after {event:?}"
            );
        }
    }

    /// Ticks until nothing of a lock is due any more: then nothing is left.
    fn let_all_end(&mut self) {
        let mut ticks = 0;
        while rows::is_something_due(&self.view) {
            let at = next_due(&self.view).expect("the due index can be read");
            let at = at.expect("something is due");
            self.clock = self.clock.max(at);
            self.run(&Command::from(Tick {}));
            ticks += 1;
            assert!(ticks < 1_000, "an end comes");
        }
        assert!(self.model.parties.is_empty());
        rows::check_nothing_left(&self.view);
    }
}

/// Words for people are no part of an answer here, nor is where a due entry is filed.
fn normal_reply(reply: Reply) -> Reply {
    Reply(match reply.0 {
        Ok(Response::Lock(response)) => Ok(Response::Lock(normal_response(response))),
        Ok(other) => Ok(other),
        Err(refusal) => Err(normal_refusal(refusal)),
    })
}

fn normal_refusal(refusal: Refusal) -> Refusal {
    match refusal {
        Refusal::Step { step, refusal } => Refusal::Step {
            step,
            refusal: Box::new(normal_refusal(*refusal)),
        },
        Refusal::Conflict { subject, name, .. } => Refusal::Conflict {
            subject,
            name,
            problem: String::new(),
        },
        other => other,
    }
}

fn normal_response(response: lock::Response) -> lock::Response {
    use lock::Response::{Acquire, CancelWait, Proclaim, RenewMany, Revoke};
    let all = |members: Vec<lock::Member>| members.into_iter().map(normal).collect();
    match response {
        Acquire(acquired) => Acquire(match acquired {
            Acquired::Granted(member) => Acquired::Granted(normal(member)),
            Acquired::Waiting(member) => Acquired::Waiting(normal(member)),
            Acquired::Busy(holders) => Acquired::Busy(all(holders)),
            over @ Acquired::Over(_) => over,
        }),
        CancelWait(WaitCancelled::Holding(member)) => {
            CancelWait(WaitCancelled::Holding(normal(member)))
        }
        Revoke(members) => Revoke(all(members)),
        Proclaim(member) => Proclaim(normal(member)),
        RenewMany(answers) => {
            let answers = answers
                .into_iter()
                .map(|answer| answer.map_err(normal_refusal));
            RenewMany(answers.collect())
        }
        other => other,
    }
}

/// Some of the cases that `PROPTEST_CASES` asks for: a crowd takes its time.
fn cases(of: u32) -> ProptestConfig {
    let all = ProptestConfig::default();
    ProptestConfig {
        failure_persistence: None,
        cases: (all.cases / of).max(1),
        ..all
    }
}

proptest! {
    #![proptest_config(cases(1))]

    #[test]
    fn the_locks_do_what_the_naive_model_does(turns in turns::turns()) {
        let mut pair = Pair::new();
        turns.iter().for_each(|turn| pair.take(turn));
        pair.let_all_end();
    }
}

proptest! {
    #![proptest_config(cases(1))]

    /// Circles of waits are found, and nothing is taken for one that is none.
    #[test]
    fn the_locks_do_so_while_owners_wait_for_each_other(turns in turns::tangled_turns()) {
        let mut pair = Pair::new();
        turns.iter().for_each(|turn| pair.take(turn));
        pair.let_all_end();
    }
}

proptest! {
    #![proptest_config(cases(2))]

    /// Whatever the sweep has reached, the rules are the model's.
    #[test]
    fn the_locks_do_so_while_the_sweep_is_behind(turns in turns::crowded_turns()) {
        let mut pair = Pair::new();
        turns.iter().for_each(|turn| pair.take(turn));
        pair.let_all_end();
    }
}

/// The turns above would show nothing if they met nothing.
#[test]
fn the_turns_meet_what_may_happen_to_a_lock() {
    let mut runner = TestRunner::deterministic();
    let all = [
        turns::turns().boxed(),
        turns::crowded_turns().boxed(),
        turns::tangled_turns().boxed(),
    ];
    let mut met = BTreeSet::new();
    for turns in all.iter().cycle().take(150) {
        let tree = turns.new_tree(&mut runner).expect("no turns are rejected");
        let mut pair = Pair::new();
        tree.current().iter().for_each(|turn| pair.take(turn));
        met.append(&mut pair.seen.0);
    }
    for expected in seen::ALL {
        assert!(
            met.contains(*expected),
            "{expected:?} is not among {met:#?}"
        );
    }
}
