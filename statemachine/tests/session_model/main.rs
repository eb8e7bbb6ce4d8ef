//! Random turns on the real sessions and on a naive model of them: every reply and every read must
//! agree, the rows must be whole after every entry, and what was answered must bind what is
//! answered later.

#![allow(
    clippy::result_large_err,
    reason = "what stands in the way of a turn is an action, made once and done at once"
)]

mod ledger;
mod model;
mod random;
mod resolve;
mod rows;
mod seen;
mod shown;
mod situations;
mod turns;

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use quorate_statemachine::cluster::{AllocateNodeId, Tick};
use quorate_statemachine::expiry::next_due;
use quorate_statemachine::lease::{self, Claimed, Lease, Released};
use quorate_statemachine::limits::{SWEEP_MAX, SWEEP_REMOVALS_MAX, TICK_SWEEP_MAX};
use quorate_statemachine::session::Delete;
use quorate_statemachine::view::MemoryView;
use quorate_statemachine::{
    Applied, Command, Entry, Refusal, Reply, Response, Subject, Timestamp, apply,
};

use ledger::{Around, Ledger};
use model::{Model, Swept, is_forgotten};
use resolve::{BEFORE, Sent};
use seen::Seen;
use turns::{Act, Passes, Turn};

/// The real state and the model of it, side by side.
#[derive(Default)]
struct Pair {
    view: MemoryView,
    model: Model,
    sent: Sent,
    clock: Timestamp,
    ledger: Ledger,
    seen: Seen,
}

impl Pair {
    fn new() -> Self {
        let clock = Timestamp(10_000_000);
        Self {
            clock,
            ..Self::default()
        }
    }

    /// What the entry would do.
    fn apply(&self, command: &Command) -> Applied {
        let entry = Entry {
            index: self.model.index,
            proposed_at: self.clock,
            command: &command.encode(),
            principal: quorate_statemachine::Principal::Cluster,
        };
        apply(&self.view, entry).expect("no invariant breaks")
    }

    fn take(&mut self, turn: &Turn) {
        self.pass(turn.passes);
        for _ in 0..BEFORE {
            let swept = self.sweep(matches!(turn.act, Act::Tick));
            match turn.resolve(&self.model, &mut self.sent) {
                Ok(command) => return self.run(&command, &swept),
                Err(first) => self.run(&Command::from(first), &swept),
            }
        }
    }

    fn pass(&mut self, passes: Passes) {
        let next = self.model.next_event().unwrap_or(self.clock);
        self.clock = match passes {
            Passes::On(ms) => self.clock.plus(ms),
            Passes::Back(ms) => Timestamp(self.clock.0.saturating_sub(ms)),
            Passes::ToNext { before } => Timestamp(next.0 - u64::from(before)).max(self.clock),
        };
    }

    /// Begins an entry. The rows behind its sweep: those of an entry that does nothing else.
    fn sweep(&mut self, is_tick: bool) -> MemoryView {
        self.model.index += 1;
        let now = self.model.now.max(self.clock);
        let limit = if is_tick { TICK_SWEEP_MAX } else { SWEEP_MAX };
        let (due, removals) = rows::due_by(&self.view, now);
        let behind = due >= limit || removals >= SWEEP_REMOVALS_MAX;
        let nothing = match is_tick {
            true => Command::from(Tick {}),
            false => Command::from(AllocateNodeId {}),
        };
        let mut view = self.view.clone();
        view.commit(self.apply(&nothing).changes);
        let before = self.model.clone();
        let swept = Swept {
            view: &view,
            behind,
        };
        self.model.pass_to(self.clock, &swept);
        self.seen.passed(&before, &self.model);
        view
    }

    fn run(&mut self, command: &Command, swept: &MemoryView) {
        let before = self.model.clone();
        let expected = self.model.execute(command);
        let applied = self.apply(command);
        let now = self.model.now;
        let actual = normal_reply(applied.reply, now);
        assert_eq!(
            actual,
            normal_reply(expected, now),
            "entry {} at {now:?}: {command:?}",
            self.model.index
        );
        self.view.commit(applied.changes);
        self.seen.look(&before, command, &actual);
        self.check(&before, command, &actual, swept);
    }

    fn check(&mut self, before: &Model, command: &Command, reply: &Reply, swept: &MemoryView) {
        rows::check(&self.view);
        let around = Around {
            before: swept,
            after: &self.view,
            now: self.model.now,
        };
        let known = command
            .request
            .is_some_and(|request| before.remembers(&request));
        match &reply.0 {
            Ok(response) if !known => self.ledger.note(&around, &command.action, response),
            _ => around.check_unchanged(),
        }
        self.ledger.check_settled(&self.view);
        let meta = rows::meta(&self.view);
        assert_eq!(
            (meta.now, meta.last_index),
            (self.model.now, self.model.index)
        );
        assert_eq!(meta.requests_floor, self.model.floor);
        shown::check(&self.view, &self.model);
        if let Some(event) = self.model.next_sweep() {
            let due = next_due(&self.view).expect("the due index can be read");
            let in_time = due.is_some_and(|due| due <= event);
            assert!(in_time, "{due:?} is after {event:?}");
        }
    }

    /// Ticks until nothing of a session is due any more: then nothing loose or staged is left, and
    /// nothing at all when the sessions are deleted.
    fn let_all_end(&mut self) {
        self.let_all_be_swept();
        for session in &self.model.sessions {
            assert_eq!(
                session.staged().count(),
                0,
                "staged graphs are left in time"
            );
            assert_eq!(session.counters().loose_blobs, 0);
            assert!(session.work.iter().all(|piece| !piece.delayed));
        }
        let names = self
            .model
            .sessions
            .iter()
            .map(|session| session.name.clone());
        for name in names.collect::<Vec<_>>() {
            let swept = self.sweep(false);
            self.run(&Command::from(Delete { name }), &swept);
        }
        self.let_all_be_swept();
        rows::check_nothing_left(&self.view);
    }

    fn let_all_be_swept(&mut self) {
        let mut ticks = 0;
        while rows::is_something_due(&self.view) {
            let at = next_due(&self.view).expect("the due index can be read");
            let at = at.expect("something is due");
            self.clock = self.clock.max(at);
            let swept = self.sweep(true);
            self.run(&Command::from(Tick {}), &swept);
            ticks += 1;
            assert!(ticks < 1_000, "an end comes");
        }
    }
}

/// Words for people are no part of an answer here, nor is the inner life of a lease.
fn normal_reply(reply: Reply, now: Timestamp) -> Reply {
    Reply(match reply.0 {
        Ok(response) => Ok(normal_response(response)),
        Err(refusal) => Err(normal_refusal(refusal, now)),
    })
}

fn normal_refusal(refusal: Refusal, now: Timestamp) -> Refusal {
    match refusal {
        Refusal::Step { step, refusal } => Refusal::Step {
            step,
            refusal: Box::new(normal_refusal(*refusal, now)),
        },
        Refusal::Conflict { subject, name, .. } => Refusal::Conflict {
            subject,
            name,
            problem: String::new(),
        },
        Refusal::Expired {
            subject: Subject::Lease,
            name,
            token,
            expired_at,
        } if is_forgotten(expired_at, now) => Refusal::Fenced {
            subject: Subject::Lease,
            name,
            presented: token,
            current: None,
        },
        other => other,
    }
}

fn normal_response(response: Response) -> Response {
    match response {
        Response::Composite(steps) => {
            Response::Composite(steps.into_iter().map(normal_response).collect())
        }
        Response::Lease(response) => Response::Lease(match response {
            lease::Response::Claim(Claimed::Granted(lease)) => {
                lease::Response::Claim(Claimed::Granted(normal_lease(lease)))
            }
            lease::Response::Claim(Claimed::Busy(lease)) => {
                lease::Response::Claim(Claimed::Busy(normal_lease(lease)))
            }
            lease::Response::Revoke(lease) => lease::Response::Revoke(normal_lease(lease)),
            lease::Response::Release(Released::NotHeld { current }) => {
                let current = current.map(normal_lease);
                lease::Response::Release(Released::NotHeld { current })
            }
            other => other,
        }),
        other => other,
    }
}

fn normal_lease(lease: Lease) -> Lease {
    Lease {
        epoch: 0,
        filed_at: Timestamp(0),
        renewals: 0,
        ..lease
    }
}

/// Some of the cases that `PROPTEST_CASES` asks for: each entry is looked at from all sides.
fn cases(of: u32) -> ProptestConfig {
    let all = ProptestConfig::default();
    ProptestConfig {
        failure_persistence: None,
        cases: (all.cases / of).max(1),
        ..all
    }
}

proptest! {
    #![proptest_config(cases(2))]

    #[test]
    fn the_sessions_do_what_the_naive_model_does(turns in random::turns()) {
        let mut pair = Pair::new();
        turns.iter().for_each(|turn| pair.take(turn));
        pair.let_all_end();
    }
}

proptest! {
    #![proptest_config(cases(8))]

    /// Whatever the sweep has reached, the rules are the model's.
    #[test]
    fn the_sessions_do_so_while_the_sweep_is_behind(turns in random::crowded_turns()) {
        let mut pair = Pair::new();
        turns.iter().for_each(|turn| pair.take(turn));
        pair.let_all_end();
    }
}

/// The turns above would show nothing if they met nothing.
#[test]
fn the_turns_meet_what_may_happen_to_a_session() {
    let mut runner = TestRunner::deterministic();
    let all = [random::turns().boxed(), random::crowded_turns().boxed()];
    let mut met: BTreeMap<String, usize> = BTreeMap::new();
    for turns in all.iter().cycle().take(60) {
        let tree = turns.new_tree(&mut runner).expect("no turns are rejected");
        let mut pair = Pair::new();
        tree.current().iter().for_each(|turn| pair.take(turn));
        for (words, count) in pair.seen.0 {
            *met.entry(words).or_default() += count;
        }
    }
    println!("{met:#?}");
    for (expected, least) in seen::ALL {
        let count = met.get(*expected).copied().unwrap_or(0);
        assert!(
            count >= *least,
            "{expected:?}: {count} of {least} in {met:#?}"
        );
    }
}
