//! What entries tell metrics: each thing once, with the right number, and nothing that is undone.

use quorate_statemachine::figure::{Figure, Held};
use quorate_statemachine::lease::SameOwner;
use quorate_statemachine::lock::Mode;
use quorate_statemachine::process::{Append, Register};
use quorate_statemachine::queue::{self, ItemId, Outcome, Settled};
use quorate_statemachine::view::MemoryView;
use quorate_statemachine::{
    Action, Command, Entry, LeaseToken, Name, Owner, Principal, RequestId, Timestamp, apply, lease,
    lock,
};

#[derive(Default)]
struct State {
    view: MemoryView,
    index: u64,
}

impl State {
    /// Applies a command at a time; its figures.
    fn at(&mut self, ms: u64, action: impl Into<Action>) -> Vec<Figure> {
        self.index += 1;
        let entry = Entry {
            index: self.index,
            proposed_at: Timestamp(ms),
            command: &Command::from(action.into()).encode(),
            principal: Principal::Cluster,
        };
        let applied = apply(&self.view, entry).expect("a sound state");
        self.view.commit(applied.changes);
        applied.figures
    }
}

fn name(text: &str) -> Name {
    Name::parse("name", text).expect("a name")
}

fn owner(text: &str) -> Owner {
    Owner::new(name(text), name("boot"))
}

fn token() -> LeaseToken {
    LeaseToken::parse("t").expect("a token")
}

fn renewed(held: Held, left_ms: u64) -> [Figure; 1] {
    [Figure::Renewed { held, left_ms }]
}

fn acquire(by: u8) -> lock::Acquire {
    let id = RequestId {
        id: [by; 16],
        not_before: 0,
    };
    lock::Acquire {
        key: name("lock"),
        id,
        owner: owner(&by.to_string()),
        mode: Mode::Exclusive,
        ttl_ms: 1_000,
        wait_ttl_ms: 1_000,
        max_wait_ms: None,
        reentrant: false,
        delay_ms: 0,
        metadata: Vec::new(),
    }
}

#[test]
fn a_renewal_tells_what_was_left_unless_it_is_undone() {
    let mut state = State::default();
    let claim = lease::Claim {
        key: name("key"),
        owner: owner("w"),
        lease_token: token(),
        ttl_ms: 1_000,
        same_owner: SameOwner::Busy,
        metadata: Vec::new(),
    };
    assert_eq!(state.at(5_000, claim), []);
    let renew = |fencing_token| lease::Renew {
        key: name("key"),
        lease_token: token(),
        fencing_token,
        ttl_ms: 1_000,
    };
    assert_eq!(state.at(5_700, renew(1)), renewed(Held::Lease, 300));
    assert_eq!(state.at(5_800, renew(9)), [], "it is fenced");
    let both = Action::Composite(vec![renew(1).into(), renew(9).into()]);
    assert_eq!(state.at(5_900, both), [], "the second step undoes it");
    assert_eq!(state.at(6_000, renew(1)), renewed(Held::Lease, 700));
}

#[test]
fn a_grant_of_a_lock_tells_how_long_it_was_waited_for() {
    let mut state = State::default();
    let waited = |waited_ms| [Figure::LockWaited { waited_ms }];
    assert_eq!(state.at(1_000, acquire(1)), waited(0));
    assert_eq!(state.at(1_100, acquire(2)), []);
    let renew = lock::Renew {
        key: name("lock"),
        id: [1; 16],
        ttl_ms: None,
    };
    assert_eq!(state.at(1_400, renew), renewed(Held::Lock, 600));
    let release = lock::Release {
        key: name("lock"),
        id: [1; 16],
    };
    assert_eq!(state.at(1_750, release), waited(650));
}

#[test]
fn a_claim_tells_its_renewals_and_its_end() {
    let mut state = State::default();
    let push = queue::Push {
        queue: name("q"),
        payload: Vec::new(),
        dedupe_key: None,
        delay_ms: 0,
        priority: 0,
        max_attempts: 2,
    };
    let claim = || queue::Claim {
        queue: name("q"),
        owner: owner("w"),
        ttl_ms: 1_000,
        max: 8,
    };
    let (queue, item_id) = (name("q"), ItemId(1 << 10));
    assert_eq!(state.at(1_000, push.clone()), []);
    assert_eq!(state.at(1_000, claim()), [Figure::Claimed]);
    let renew = queue::Renew {
        queue: queue.clone(),
        item_id,
        fencing_token: 2,
        ttl_ms: 1_000,
    };
    assert_eq!(state.at(1_900, renew), renewed(Held::Claim, 100));
    // The claim's own entry sweeps the one before it.
    let again = Figure::ClaimExpired { again: true };
    assert_eq!(state.at(2_900, claim()), [again, Figure::Claimed]);
    let dead = Figure::ClaimExpired { again: false };
    assert_eq!(state.at(3_900, push), [dead]);
    assert_eq!(state.at(3_900, claim()), [Figure::Claimed]);
    let settle = queue::Settle {
        queue,
        item_id: ItemId(5 << 10),
        fencing_token: 6,
        outcome: Outcome::Done,
    };
    assert_eq!(
        state.at(3_950, settle),
        [Figure::ClaimSettled(Settled::Done)]
    );
}

#[test]
fn an_event_that_comes_again_is_told() {
    let mut state = State::default();
    assert_eq!(state.at(1, Register::new(name("p"), Vec::new())), []);
    let mut append = Append::new(name("p"), name("type"), Vec::new());
    append.key = Some(name("once"));
    assert_eq!(state.at(2, append.clone()), []);
    assert_eq!(state.at(3, append), [Figure::EventRepeated]);
}
