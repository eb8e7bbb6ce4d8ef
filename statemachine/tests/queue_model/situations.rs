//! Situations that random turns do not reach: more due at once than one entry may end, and limits.

use quorate_statemachine::cluster::Tick;
use quorate_statemachine::limits::{
    CLAIM_ITEMS_MAX, DELAY_MS_MAX, LIVENESS_BYTES_MAX, NOTE_BYTES_MAX, PAYLOAD_BYTES_MAX,
    QUEUE_ITEMS_MAX, SWEEP_MAX, TTL_MS_MAX,
};
use quorate_statemachine::queue::{
    self, Cancel, Claim, ClaimedItem, ItemId, ItemState, ListItems, Outcome, Push, Pushed, Queue,
    Renew, Requeue, Settle, Settled,
};
use quorate_statemachine::tables::{Queues, Table, queue_key};
use quorate_statemachine::view::MemoryView;
use quorate_statemachine::{
    Answer, Command, Entry, Name, Operation, Owner, Query, Refusal, Timestamp, Validate, apply,
    codec, query,
};

use crate::invariants;

struct State {
    view: MemoryView,
    index: u64,
    now: u64,
}

impl State {
    fn new() -> Self {
        Self {
            view: MemoryView::default(),
            index: 0,
            now: 1_000,
        }
    }

    fn run<O: Operation>(&mut self, operation: O) -> Result<O::Reply, Refusal> {
        self.index += 1;
        let entry = Entry {
            index: self.index,
            proposed_at: Timestamp(self.now),
            command: &Command::from(operation).encode(),
            principal: quorate_statemachine::Principal::Cluster,
        };
        let applied = apply(&self.view, entry).expect("no invariant breaks");
        self.view.commit(applied.changes);
        applied
            .reply
            .0
            .map(|response| O::reply(response).expect("the reply to this operation"))
    }

    fn push(&mut self, payload: Vec<u8>) -> Result<Pushed, Refusal> {
        self.run(Push {
            queue: jobs(),
            payload,
            dedupe_key: None,
            delay_ms: 0,
            priority: 0,
            max_attempts: 1,
        })
    }

    fn claim(&mut self, max: u32, ttl_ms: u64) -> Vec<ClaimedItem> {
        let name = |text| Name::parse("owner", text).expect("a valid name");
        let claim = Claim {
            queue: jobs(),
            owner: Owner::new(name("worker"), name("boot-1")),
            ttl_ms,
            max,
        };
        self.run(claim).expect("a claim is never refused")
    }

    fn settle(&mut self, item_id: ItemId, fencing_token: u64) -> Result<Settled, Refusal> {
        self.run(Settle {
            queue: jobs(),
            item_id,
            fencing_token,
            outcome: Outcome::Done,
        })
    }

    fn ready_after(&self, after: ItemId) -> Vec<ItemId> {
        let list = ListItems {
            queue: jobs(),
            state: Some(ItemState::Ready),
            after: Some(after),
            limit: 0,
        };
        let question = Query::Queue(queue::Query::ListItems(list));
        let answer = query(&self.view, Timestamp(self.now), &question);
        let Ok(Answer::Queue(queue::Answer::ListItems(Some(page)))) = answer else {
            panic!("{answer:?}");
        };
        page.rows.iter().map(|row| row.item.item_id).collect()
    }

    fn counters(&self) -> Queue {
        let rows = invariants::check(&self.view);
        rows.queues
            .get(&jobs())
            .expect("the queue is there")
            .clone()
    }
}

fn jobs() -> Name {
    Name::parse("queue", "jobs").expect("a valid name")
}

#[test]
fn a_mass_expiry_is_spread_over_entries_and_loses_nothing() {
    let mut state = State::new();
    for _ in 0..100 {
        state.push(b"work".to_vec()).expect("there is room");
    }
    assert_eq!(state.claim(CLAIM_ITEMS_MAX, 50).len(), 100);
    state.now += 50;
    let mut dead = Vec::new();
    for _ in 0..4 {
        assert_eq!(
            state.claim(1, 50),
            [],
            "what has used up its attempts is never claimed"
        );
        dead.push(state.counters().dead);
    }
    assert_eq!(dead, [32, 64, 96, 100], "each entry ends {SWEEP_MAX}");
}

#[test]
fn a_claim_that_is_over_protects_nothing_even_if_it_was_not_swept() {
    let mut state = State::new();
    for _ in 0..SWEEP_MAX * 6 {
        state.push(Vec::new()).expect("there is room");
    }
    let claimed = state.claim(CLAIM_ITEMS_MAX, 50);
    let [.., first, second] = &claimed[..] else {
        panic!("{claimed:?}");
    };
    let token = first
        .item
        .claim
        .as_ref()
        .expect("it is claimed")
        .fencing_token;
    let (first, second) = (first.item.item_id, second.item.item_id);
    state.now += 50;

    let refused = state.settle(first, token).expect_err("the claim is over");
    assert_eq!(refused.code(), "expired");
    let cancel = Cancel {
        queue: jobs(),
        item_id: first,
    };
    let cancelled = state.run(cancel).expect("nobody works on it");
    assert_eq!((cancelled.state, cancelled.claim), (ItemState::Dead, None));
    let requeue = Requeue {
        queue: jobs(),
        item_id: second,
    };
    let requeued = state.run(requeue).expect("its only attempt is over");
    assert_eq!((requeued.state, requeued.attempts), (ItemState::Ready, 0));
    assert_eq!(requeued.note, "claim by worker expired");
    assert!(
        state.counters().claimed > 0,
        "the sweep has not come by all of them"
    );
}

#[test]
fn a_renewed_claim_outlives_its_first_due_entry_and_a_shortened_one_does_not_last() {
    let mut state = State::new();
    state.push(Vec::new()).expect("there is room");
    let item = state.claim(1, 50).remove(0).item;
    let token = item.claim.expect("it is claimed").fencing_token;
    let renew = |ttl_ms| Renew {
        queue: jobs(),
        item_id: item.item_id,
        fencing_token: token,
        ttl_ms,
    };
    state.now += 40;
    state.run(renew(100)).expect("the claim is live");
    state.now += 99;
    state.run(Tick {}).expect("a tick is never refused");
    assert_eq!(
        state.counters().claimed,
        1,
        "its last millisecond is not over"
    );
    state.run(renew(5)).expect("the claim is live");
    state.now += 5;
    assert_eq!(
        state.run(renew(100)).expect_err("the claim is over").code(),
        "fenced"
    );
    assert_eq!(state.counters().dead, 1);
}

#[test]
fn a_claim_stops_before_its_answer_is_too_large() {
    let mut state = State::new();
    for _ in 0..3 {
        state
            .push(vec![7; PAYLOAD_BYTES_MAX])
            .expect("there is room");
    }
    assert_eq!(state.claim(3, 1_000).len(), 2);
    let last = state.claim(3, 1_000);
    assert_eq!(last.len(), 1);
    assert_eq!(last[0].payload, vec![7; PAYLOAD_BYTES_MAX]);
}

#[test]
fn a_full_queue_refuses_a_push_and_says_how_full_it_is() {
    let mut state = State::new();
    state.push(Vec::new()).expect("there is room");
    let mut queue = state.counters();
    queue.dead = QUEUE_ITEMS_MAX - 1;
    let row = codec::encode(Queues::TAG.into(), &queue);
    let key = queue_key(&jobs()).bytes().to_vec();
    state.view.commit(vec![(key, Some(row.into()))]);
    let refused = state.push(Vec::new()).expect_err("the queue is full");
    let expected = Refusal::Exhausted {
        what: "items in queue jobs".to_owned(),
        limit: QUEUE_ITEMS_MAX,
        actual: QUEUE_ITEMS_MAX,
    };
    assert_eq!(refused, expected);
}

#[test]
fn arguments_out_of_bounds_are_refused_before_the_log() {
    let owner = Name::parse("owner", "worker").expect("a valid name");
    let mut claim = Claim {
        queue: jobs(),
        owner: Owner::new(owner.clone(), owner),
        ttl_ms: TTL_MS_MAX,
        max: CLAIM_ITEMS_MAX,
    };
    assert_eq!(claim.validate(), Ok(()));
    claim.max = 0;
    assert_eq!(field_of(&claim), "max");
    claim.max = 1;
    claim.owner.liveness = Some("x".repeat(LIVENESS_BYTES_MAX + 1));
    assert_eq!(field_of(&claim), "owner.liveness");
    claim.ttl_ms += 1;
    assert_eq!(field_of(&claim), "ttl_ms");
    let settle = |delay_ms, note_bytes| Settle {
        queue: jobs(),
        item_id: ItemId(1),
        fencing_token: 1,
        outcome: Outcome::Retry {
            delay_ms,
            note: "x".repeat(note_bytes),
        },
    };
    assert_eq!(settle(DELAY_MS_MAX, NOTE_BYTES_MAX).validate(), Ok(()));
    assert_eq!(field_of(&settle(DELAY_MS_MAX + 1, 0)), "delay_ms");
    assert_eq!(field_of(&settle(0, NOTE_BYTES_MAX + 1)), "note");
    let push = Push {
        queue: jobs(),
        payload: vec![0; PAYLOAD_BYTES_MAX + 1],
        dedupe_key: None,
        delay_ms: 0,
        priority: 0,
        max_attempts: 0,
    };
    assert_eq!(field_of(&push), "payload");
}

fn field_of(operation: &impl Validate) -> String {
    operation.validate().expect_err("it is out of bounds").field
}

#[test]
fn a_listing_goes_on_sensibly_when_the_item_it_ended_at_is_gone() {
    let mut state = State::new();
    let ids: Vec<_> = (0..4)
        .map(|_| state.push(Vec::new()).expect("there is room").item_id)
        .collect();
    let claimed = state.claim(2, 1_000).remove(1).item;
    assert_eq!(claimed.item_id, ids[1]);
    assert_eq!(
        state.ready_after(ids[1]),
        ids[2..],
        "a claimed item still has its place"
    );
    let token = claimed.claim.expect("it is claimed").fencing_token;
    state.settle(ids[1], token).expect("the claim is live");
    assert_eq!(
        state.ready_after(ids[1]),
        ids[2..],
        "its id still has its place"
    );
}
