//! What holds of the rows after every entry, whatever the entries were.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use quorate_statemachine::digest::Digest;
use quorate_statemachine::queue::{Item, ItemId, ItemState, Queue};
use quorate_statemachine::tables::{
    DedupeRow, Due, DueKind, Key, PREFIX_BYTES, QueueDead, QueueDedupe, QueueItems, QueuePayloads,
    QueueReady, Queues, Table, dead_key, dedupe_key, due_key, item_key, meta_key, parse_due_key,
    payload_key, queue_key, ready_key, split_name, tag_of,
};
use quorate_statemachine::transaction::{read, read_range};
use quorate_statemachine::view::MemoryView;
use quorate_statemachine::{Name, Timestamp};

/// The rows of the queue tables, read back.
pub struct Rows {
    pub queues: BTreeMap<Name, Queue>,
    pub items: BTreeMap<(Name, ItemId), Item>,
    pub dedupe: BTreeMap<(Name, Name), DedupeRow>,
}

impl Rows {
    pub fn read(view: &MemoryView) -> Self {
        let mut rows = Self {
            queues: BTreeMap::new(),
            items: BTreeMap::new(),
            dedupe: BTreeMap::new(),
        };
        each::<Queues>(view, |_, queue| {
            rows.queues.insert(queue.name.clone(), queue);
        });
        each::<QueueItems>(view, |own, item| {
            let (queue, _) = split_name(own).expect("a queue's name and an item");
            rows.items.insert((name(queue), item.item_id), item);
        });
        each::<QueueDedupe>(view, |own, row| {
            let (queue, key) = split_name(own).expect("a queue's name and a key");
            rows.dedupe.insert((name(queue), name(key)), row);
        });
        rows
    }
}

fn name(bytes: &[u8]) -> Name {
    Name::parse_bytes("name", bytes).expect("a valid name")
}

/// Every row of a table, with its own part of the key.
fn each<T: Table>(view: &MemoryView, mut visit: impl FnMut(&[u8], T::Row)) {
    let (from, to) = (Key::<T>::first(), Key::<T>::first().end());
    read_range::<T>(view, &from, &to, &mut |key, row| {
        visit(&key[PREFIX_BYTES..], row);
        ControlFlow::Continue(())
    })
    .expect("every row can be read");
}

/// Checks all of it.
pub fn check(view: &MemoryView) -> Rows {
    let rows = Rows::read(view);
    rows.items
        .iter()
        .for_each(|((queue, id), item)| check_item(queue, *id, item));
    rows.queues
        .values()
        .for_each(|queue| check_counters(&rows, queue));
    for ((queue, _), row) in &rows.dedupe {
        let present = rows.items.contains_key(&(queue.clone(), row.item_id));
        assert_eq!(
            row.present, present,
            "a dedupe row knows whether its item is in the queue"
        );
    }
    check_no_orphans(view, &rows);
    check_digest(view);
    rows
}

fn check_item(queue: &Name, item_id: ItemId, item: &Item) {
    assert_eq!(item.item_id, item_id);
    let claimed = item.state == ItemState::Claimed;
    assert_eq!(
        item.claim.is_some(),
        claimed,
        "{queue}/{item_id} is {:?}",
        item.state
    );
    if let Some(claim) = &item.claim {
        assert!(
            claim.filed_at <= claim.expires_at,
            "a due entry is never late"
        );
    }
    let claimable = matches!(item.state, ItemState::Ready | ItemState::Delayed);
    let used_up = item.max_attempts != 0 && item.attempts >= item.max_attempts;
    assert!(
        !(claimable && used_up),
        "{queue}/{item_id} has used up its attempts"
    );
}

fn check_counters(rows: &Rows, queue: &Queue) {
    let count = |state| {
        let own = rows.items.iter().filter(|((of, _), _)| *of == queue.name);
        own.filter(|(_, item)| item.state == state).count() as u64
    };
    let counted = (queue.ready, queue.delayed, queue.claimed, queue.dead);
    let found = (
        count(ItemState::Ready),
        count(ItemState::Delayed),
        count(ItemState::Claimed),
        count(ItemState::Dead),
    );
    assert_eq!(counted, found, "counters of {}", queue.name);
    let keys = rows
        .dedupe
        .keys()
        .filter(|(of, _)| *of == queue.name)
        .count() as u64;
    assert_eq!(queue.dedupe_keys, keys, "dedupe keys of {}", queue.name);
}

/// Each queue, item and dedupe row asks for certain rows: exactly those are there. So each ready
/// item has one ready row, each claimed or delayed one has one due entry at its instant, each dead
/// one its index row, each payload its item, and each queue one entry that looks after it.
fn check_no_orphans(view: &MemoryView, rows: &Rows) {
    let mut asked = BTreeSet::new();
    for ((queue, item_id), item) in &rows.items {
        assert!(
            rows.queues.contains_key(queue),
            "item {queue}/{item_id} has no queue"
        );
        asked.insert(item_key(queue, *item_id).bytes().to_vec());
        asked.insert(payload_key(queue, *item_id).bytes().to_vec());
        asked.insert(state_key(queue, item));
    }
    for ((queue, key), row) in &rows.dedupe {
        assert!(
            rows.queues.contains_key(queue),
            "dedupe key {queue}/{key} has no queue"
        );
        asked.insert(dedupe_key(queue, key).bytes().to_vec());
        assert!(row.present || due_count(view, DueKind::QueueDedupe, queue, key.as_str()) == 1);
    }
    asked.extend(
        rows.queues
            .keys()
            .map(|queue| queue_key(queue).bytes().to_vec()),
    );
    let mut idle = BTreeSet::new();
    each::<Due>(view, |own, ()| {
        let key = Key::<Due>::first().raw(own).bytes().to_vec();
        let (_, kind, subject) = parse_due_key(&key).expect("a due entry has a meaning");
        match kind {
            DueKind::QueueIdle => assert!(idle.insert(name(subject)), "one idle entry a queue"),
            DueKind::QueueDedupe => {
                let (queue, dedupe) = split_name(subject).expect("a queue and a key");
                let row = rows.dedupe.get(&(name(queue), name(dedupe)));
                assert!(
                    row.is_some_and(|row| !row.present),
                    "a due entry of no dedupe row"
                );
                asked.insert(key.clone());
            }
            _ => {}
        }
    });
    assert_eq!(idle, rows.queues.keys().cloned().collect());
    assert_eq!(stored_keys(view), asked);
}

/// Keys of all queue rows and of all their due entries but the idle ones.
fn stored_keys(view: &MemoryView) -> BTreeSet<Vec<u8>> {
    let tags = [
        Queues::TAG,
        QueueItems::TAG,
        QueuePayloads::TAG,
        QueueReady::TAG,
        QueueDedupe::TAG,
        QueueDead::TAG,
    ];
    let keys = view.rows().map(|(key, _)| key.to_vec());
    keys.filter(|key| match tag_of(key) {
        Some(Due::TAG) => parse_due_key(key).is_none_or(|(_, kind, _)| {
            use DueKind::{QueueClaim, QueueDedupe, QueueDelay};
            matches!(kind, QueueClaim | QueueDelay | QueueDedupe)
        }),
        Some(tag) => tags.contains(&tag),
        None => false,
    })
    .collect()
}

/// The row that an item's state asks for.
fn state_key(queue: &Name, item: &Item) -> Vec<u8> {
    let due = |at: Timestamp, kind| {
        let id = item.item_id.0.to_be_bytes();
        let subject = [queue.as_str().as_bytes(), &[0], &id].concat();
        due_key(at, kind, &subject).bytes().to_vec()
    };
    match (item.state, &item.claim) {
        (ItemState::Claimed, Some(claim)) => due(claim.filed_at, DueKind::QueueClaim),
        (ItemState::Delayed, _) => due(item.available_at, DueKind::QueueDelay),
        (ItemState::Dead, _) => dead_key(queue, item.item_id).bytes().to_vec(),
        _ => ready_key(queue, item.priority, item.item_id)
            .bytes()
            .to_vec(),
    }
}

fn due_count(view: &MemoryView, kind: DueKind, queue: &Name, rest: &str) -> usize {
    let subject = format!("{queue}\0{rest}");
    let mut count = 0;
    each::<Due>(view, |own, ()| {
        let key = Key::<Due>::first().raw(own);
        let (_, found, of) = parse_due_key(key.bytes()).expect("a due entry has a meaning");
        count += usize::from(found == kind && of == subject.as_bytes());
    });
    count
}

/// The running digest is the digest of what is there.
fn check_digest(view: &MemoryView) {
    let mut digest = Digest::default();
    let others = view.rows().filter(|(key, _)| *key != meta_key().bytes());
    others.for_each(|(key, value)| digest.replace(key, None, Some(value)));
    let meta = read(view, &meta_key()).expect("the meta row can be read");
    assert_eq!(meta.unwrap_or_default().digest, digest);
}
