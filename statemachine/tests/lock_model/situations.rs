//! Situations that random turns meet seldom, each with what must come of it.

use std::collections::BTreeSet;

use quorate_statemachine::cluster::Tick;
use quorate_statemachine::limits::{LOCK_REENTRIES_MAX, SWEEP_MAX};
use quorate_statemachine::lock::{
    Acquire, Acquired, End, Find, Found, Kept, Link, Mode, Proclaim, Query, Release, Released,
    Renew,
};
use quorate_statemachine::notice::Notice;
use quorate_statemachine::queue::Push;
use quorate_statemachine::view::MemoryView;
use quorate_statemachine::{
    Action, Answer, Command, Entry, Name, Operation, Owner, Query as AnyQuery, Refusal, Reply,
    RequestId, Response, Timestamp, apply, lock, query,
};

/// Locks, and the time at which the next command comes.
struct State {
    view: MemoryView,
    index: u64,
    now: u64,
    notices: Vec<Notice>,
}

impl State {
    fn new() -> Self {
        Self {
            view: MemoryView::default(),
            index: 0,
            now: 1_000,
            notices: Vec::new(),
        }
    }

    fn reply(&mut self, command: &Command) -> Reply {
        self.index += 1;
        let entry = Entry {
            index: self.index,
            proposed_at: Timestamp(self.now),
            command: &command.encode(),
            principal: quorate_statemachine::Principal::Cluster,
        };
        let applied = apply(&self.view, entry).expect("no invariant breaks");
        self.view.commit(applied.changes);
        self.notices = applied.notices;
        applied.reply
    }

    fn run<O: Operation>(&mut self, operation: O) -> Result<O::Reply, Refusal> {
        let response = self.reply(&Command::from(operation.into())).0?;
        Ok(O::reply(response).expect("an answer of this operation"))
    }

    fn ask(&mut self, acquire: Acquire) -> Acquired {
        self.run(acquire).expect("an acquisition within bounds")
    }

    /// Acquires a lock that is free.
    fn hold(&mut self, acquire: Acquire) {
        let acquired = self.ask(acquire);
        assert!(matches!(acquired, Acquired::Granted(_)), "{acquired:?}");
    }

    /// Acquires a lock that is taken.
    fn wait(&mut self, acquire: Acquire) {
        let acquired = self.ask(acquire);
        assert!(matches!(acquired, Acquired::Waiting(_)), "{acquired:?}");
    }

    fn release(&mut self, key: &str, id: u64) -> Released {
        let (key, id) = (name(key), id_of(id));
        self.run(Release { key, id })
            .expect("a release is not refused")
    }

    fn tick(&mut self) {
        self.run(Tick {}).expect("a tick is never refused");
    }

    fn found(&self, key: &str, id: u64) -> Found {
        let (key, id) = (name(key), id_of(id));
        let question = AnyQuery::Lock(Query::Find(Find { key, id }));
        match query(&self.view, Timestamp(self.now), &question) {
            Ok(Answer::Lock(lock::Answer::Find(found))) => found,
            other => panic!("{other:?}"),
        }
    }

    fn holds(&self, key: &str, id: u64) -> bool {
        matches!(self.found(key, id), Found::Member(member) if member.fencing_token().is_some())
    }

    fn waits(&self, key: &str, id: u64) -> bool {
        matches!(self.found(key, id), Found::Member(member) if member.fencing_token().is_none())
    }

    /// Gives the sweep so much to do at `at` that it is behind for the entries that follow.
    fn crowd(&mut self, at: u64) {
        let push = Push {
            queue: name("crowd"),
            payload: Vec::new(),
            dedupe_key: None,
            delay_ms: at - self.now,
            priority: 0,
            max_attempts: 0,
        };
        let steps = vec![push.into(); SWEEP_MAX * 4];
        let reply = self.reply(&Command::from(Action::Composite(steps)));
        assert!(matches!(reply.0, Ok(Response::Composite(_))));
    }

    /// Who was told in the last entry that a circle was broken, and the circles.
    fn circles(&self) -> Vec<(Name, Vec<Link>)> {
        let left = self.notices.iter().filter_map(|notice| match notice {
            Notice::LockLeft {
                owner_id,
                end: End::Deadlock { cycle },
                ..
            } => Some((owner_id.clone(), cycle.clone())),
            _ => None,
        });
        left.collect()
    }
}

fn name(text: &str) -> Name {
    Name::parse("name", text).expect("a short name")
}

fn id_of(number: u64) -> [u8; 16] {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    id
}

/// An acquisition, exclusive and for long.
fn acquire(key: &str, number: u64, owner: &str) -> Acquire {
    Acquire {
        key: name(key),
        id: RequestId {
            id: id_of(number),
            not_before: 0,
        },
        owner: Owner::new(name(owner), name("boot")),
        mode: Mode::Exclusive,
        ttl_ms: 3_600_000,
        wait_ttl_ms: 3_600_000,
        max_wait_ms: None,
        reentrant: false,
        delay_ms: 0,
        metadata: Vec::new(),
    }
}

fn shared(key: &str, number: u64, owner: &str) -> Acquire {
    Acquire {
        mode: Mode::Shared,
        ..acquire(key, number, owner)
    }
}

fn permit(of: u32, key: &str, number: u64, owner: &str) -> Acquire {
    Acquire {
        mode: Mode::Permit { of },
        ..acquire(key, number, owner)
    }
}

/// Who waits for what, in the order of the circle.
fn words(cycle: &[Link]) -> Vec<String> {
    let words = cycle
        .iter()
        .map(|link| format!("{} for {}", link.owner_id, link.waits_for));
    words.collect()
}

#[test]
fn who_waits_for_a_permit_that_a_delay_keeps_back_is_in_no_circle() {
    let mut state = State::new();
    state.hold(permit(2, "s", 1, "w1"));
    let dies = permit(2, "s", 2, "w2");
    state.hold(Acquire {
        ttl_ms: 1_000,
        delay_ms: 10_000,
        ..dies
    });
    state.now = 2_000;
    state.wait(permit(2, "s", 3, "w1"));
    state.now = 12_000;
    state.tick();
    assert!(
        state.holds("s", 3),
        "the delay is over and a permit is free"
    );
}

#[test]
fn who_waits_to_share_a_lock_that_a_delay_keeps_back_is_in_no_circle() {
    let mut state = State::new();
    state.hold(shared("a", 1, "w1"));
    let dies = shared("a", 2, "w2");
    state.hold(Acquire {
        ttl_ms: 1_000,
        delay_ms: 10_000,
        ..dies
    });
    state.now = 2_000;
    state.wait(shared("a", 3, "w1"));
    state.now = 12_000;
    state.tick();
    assert!(
        state.holds("a", 3),
        "the delay is over and the lock is shared"
    );
}

#[test]
fn who_waits_to_share_a_lock_that_is_granted_once_an_entry_is_in_no_circle() {
    let mut state = State::new();
    state.hold(Acquire {
        ttl_ms: 1_000,
        ..acquire("a", 1, "w0")
    });
    state.wait(shared("a", 2, "w1"));
    state.now = 2_000;
    state.wait(shared("a", 3, "w1"));
    assert!(state.holds("a", 2), "the sweep of this entry granted it");
    state.tick();
    assert!(state.holds("a", 3), "the next entry lets the next one in");
}

/// The same, but the wait that nothing stands in the way of is another owner's, on the way.
#[test]
fn a_wait_that_a_delay_keeps_back_closes_no_circle_of_others() {
    let mut state = State::new();
    state.hold(permit(2, "s", 1, "w1"));
    let dies = permit(2, "s", 2, "w0");
    state.hold(Acquire {
        ttl_ms: 1_000,
        delay_ms: 10_000,
        ..dies
    });
    state.hold(acquire("a", 3, "w2"));
    state.now = 2_000;
    state.wait(permit(2, "s", 4, "w2"));
    state.wait(acquire("a", 5, "w1"));
    state.now = 12_000;
    state.tick();
    assert!(
        state.holds("s", 4) && state.waits("a", 5),
        "w2 will release what w1 waits for"
    );
}

#[test]
fn every_circle_that_one_grant_closes_is_broken() {
    let mut state = State::new();
    state.hold(acquire("a", 1, "w0"));
    state.hold(shared("b", 2, "w2"));
    state.hold(shared("b", 3, "w3"));
    state.wait(acquire("a", 4, "w1"));
    state.wait(acquire("b", 5, "w1"));
    state.wait(acquire("a", 6, "w2"));
    state.wait(acquire("a", 7, "w3"));
    state.release("a", 1);
    assert!(state.holds("a", 4) && state.waits("b", 5));
    let broken: BTreeSet<Name> = state
        .circles()
        .into_iter()
        .map(|(owner, _)| owner)
        .collect();
    assert_eq!(
        broken,
        [name("w2"), name("w3")].into(),
        "each waits for w1, and w1 for it"
    );
}

/// The same with exclusive locks alone: both circles go through the wait of `w1` for `b`.
#[test]
fn every_circle_of_exclusive_locks_that_one_grant_closes_is_broken() {
    let mut state = State::new();
    state.hold(acquire("a", 1, "w0"));
    state.hold(acquire("b", 2, "w2"));
    state.hold(acquire("d", 3, "w3"));
    state.wait(acquire("a", 4, "w1"));
    state.wait(acquire("b", 5, "w1"));
    state.wait(acquire("a", 6, "w2"));
    state.wait(acquire("d", 7, "w2"));
    state.wait(acquire("a", 8, "w3"));
    state.release("a", 1);
    let circles = state.circles();
    let broken: Vec<Vec<String>> = circles.iter().map(|(_, cycle)| words(cycle)).collect();
    let expected = [
        vec!["w1 for b", "w2 for a"],
        vec!["w1 for b", "w2 for d", "w3 for a"],
    ];
    assert_eq!(broken, expected);
}

/// A dead end is met first, on which an owner of the circle was already found to lead back.
#[test]
fn a_circle_is_named_with_everybody_in_it() {
    let mut state = State::new();
    state.hold(acquire("k1", 1, "w1"));
    state.hold(acquire("k2", 2, "w2"));
    state.hold(acquire("k3", 3, "w3"));
    state.hold(permit(2, "c", 4, "w2"));
    state.hold(permit(2, "c", 5, "w4"));
    state.wait(permit(2, "c", 6, "w1"));
    state.wait(acquire("k2", 7, "w1"));
    state.wait(acquire("k3", 8, "w2"));
    let Acquired::Over(End::Deadlock { cycle }) = state.ask(acquire("k1", 9, "w3")) else {
        panic!("a circle of exclusive locks is found");
    };
    assert_eq!(words(&cycle), ["w3 for k1", "w1 for k2", "w2 for k3"]);
}

#[test]
fn a_hold_that_was_entered_often_hides_no_other_holder_of_a_permit() {
    let mut state = State::new();
    for number in 0..LOCK_REENTRIES_MAX as u64 {
        state.hold(Acquire {
            reentrant: true,
            ..permit(2, "s", number, "w1")
        });
    }
    state.hold(permit(2, "s", 1_000, "w2"));
    state.wait(permit(2, "s", 1_001, "w1"));
    state.release("s", 1_000);
    assert!(state.holds("s", 1_001));
}

/// Two holders died, and the sweep comes by both in one entry.
#[test]
fn a_lock_rests_for_every_holder_that_has_died() {
    let mut state = State::new();
    state.hold(Acquire {
        ttl_ms: 1_000,
        ..permit(2, "s", 1, "w1")
    });
    state.hold(Acquire {
        ttl_ms: 2_000,
        delay_ms: 60_000,
        ..permit(2, "s", 2, "w2")
    });
    state.wait(permit(2, "s", 3, "w3"));
    state.now = 10_000;
    state.tick();
    assert!(
        state.waits("s", 3),
        "w2 died at 3,000: nobody gets the lock before 63,000"
    );
    state.now = 63_000;
    state.tick();
    assert!(state.holds("s", 3));
}

#[test]
fn a_holder_that_the_sweep_has_not_reached_is_no_use_of_the_lock() {
    let mut state = State::new();
    state.hold(Acquire {
        ttl_ms: 1_000,
        ..acquire("a", 1, "w1")
    });
    state.crowd(1_500);
    state.now = 2_000;
    state.hold(permit(2, "a", 2, "w2"));
}

#[test]
fn an_owner_that_gets_a_lock_while_the_sweep_is_behind_may_enter_it_at_once() {
    let mut state = State::new();
    state.hold(Acquire {
        ttl_ms: 1_000,
        ..acquire("a", 1, "w1")
    });
    let again = |number| Acquire {
        reentrant: true,
        ..acquire("a", number, "w2")
    };
    state.wait(again(2));
    state.crowd(1_500);
    state.now = 2_000;
    state.hold(again(3));
    assert!(state.holds("a", 2) && state.holds("a", 3));
}

#[test]
fn the_live_holder_is_named_while_the_sweep_is_behind() {
    let mut state = State::new();
    state.hold(Acquire {
        ttl_ms: 1_000,
        ..shared("a", 1, "w1")
    });
    state.hold(shared("a", 2, "w2"));
    state.crowd(1_500);
    state.now = 2_000;
    let late = Proclaim {
        key: name("a"),
        fencing_token: 77,
        metadata: Vec::new(),
    };
    let refused = state.run(late).expect_err("nobody has this token");
    assert!(
        matches!(
            refused,
            Refusal::Fenced {
                current: Some(2),
                ..
            }
        ),
        "{refused}"
    );
}

/// What the caller is told of its place is when it ends, not when it would have without a limit.
#[test]
fn a_place_that_is_kept_does_not_outlive_the_longest_wait() {
    let mut state = State::new();
    state.hold(acquire("a", 1, "w1"));
    state.wait(Acquire {
        max_wait_ms: Some(5_000),
        ..acquire("a", 2, "w2")
    });
    state.now = 4_000;
    let renew = Renew {
        key: name("a"),
        id: id_of(2),
        ttl_ms: None,
    };
    assert!(matches!(state.run(renew.clone()), Ok(Kept::Waiting { .. })));
    state.now = 6_000;
    let refused = state.run(renew).expect_err("it has given up");
    assert_eq!(refused.code(), "conflict");
    assert_eq!(state.found("a", 2), Found::Over(End::GaveUp));
}

#[test]
fn a_delay_is_counted_from_the_death_and_not_from_the_sweep() {
    let mut state = State::new();
    state.hold(Acquire {
        ttl_ms: 1_000,
        delay_ms: 10_000,
        ..acquire("a", 1, "w1")
    });
    state.now = 11_999;
    state.wait(acquire("a", 2, "w2"));
    state.now = 12_000;
    state.tick();
    assert!(state.holds("a", 2), "it died at 2,000");
}

#[test]
fn nobody_is_granted_twice_and_nobody_is_left_out_when_many_leave_in_one_entry() {
    let mut state = State::new();
    for number in 0..8 {
        state.hold(Acquire {
            ttl_ms: 1_000,
            ..permit(8, "s", number, &format!("old-{number}"))
        });
    }
    for number in 100..112 {
        state.wait(permit(8, "s", number, &format!("new-{number}")));
    }
    state.now = 2_000;
    for granted in 1..=8 {
        state.tick();
        let holding = (100..112).filter(|number| state.holds("s", *number));
        assert_eq!(
            holding.collect::<Vec<_>>(),
            (100..100 + granted).collect::<Vec<_>>()
        );
    }
    state.tick();
    assert!(state.waits("s", 108), "there are eight permits");
}
