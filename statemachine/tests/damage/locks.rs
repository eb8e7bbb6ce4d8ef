//! Rows of locks that are damaged, missing, or under keys without a meaning.

use quorate_statemachine::tables::{
    DueKind, Key, LockMembers, LockOrder, LockOwners, Locks, Table, due_key, lock_queue,
    lock_subject, lock_tokens, tag_of,
};
use quorate_statemachine::view::MemoryView;
use quorate_statemachine::{Command, RequestId, Timestamp, cluster, codec, lock};

use super::{at, damaged};
use crate::samples::{name, owner};

/// A lock that is held, with a waiter; both may enter again, so that every lock table has rows.
fn held_lock() -> MemoryView {
    let mut view = MemoryView::default();
    for index in 1..3 {
        let applied = at(&view, index, 1_000, &acquire(index as u8, "a").into());
        view.commit(applied.expect("a sound state"));
    }
    view
}

/// An acquisition by an owner of its own.
fn acquire(number: u8, key: &str) -> lock::Acquire {
    let mut owner = owner();
    owner.owner_id = name(&format!("w{number}"));
    lock::Acquire {
        key: name(key),
        id: RequestId {
            id: [number; 16],
            not_before: 0,
        },
        owner,
        mode: lock::Mode::Exclusive,
        ttl_ms: 10_000,
        wait_ttl_ms: 10_000,
        max_wait_ms: None,
        reentrant: true,
        delay_ms: 0,
        metadata: Vec::new(),
    }
}

/// Commands that between them read every row of the lock `a`, at their instants.
fn readers() -> Vec<(u64, Command)> {
    let (key, id) = (name("a"), [1; 16]);
    let again = lock::Acquire {
        id: RequestId {
            id: [4; 16],
            not_before: 0,
        },
        ..acquire(2, "a")
    };
    let release = lock::Release {
        key: key.clone(),
        id,
    };
    let renew = lock::Renew {
        key: key.clone(),
        id: [2; 16],
        ttl_ms: None,
    };
    let revoke = lock::Revoke {
        key,
        only: None,
        by: String::new(),
    };
    vec![
        (2_000, acquire(1, "a").into()),
        (2_000, acquire(3, "a").into()),
        (2_000, again.into()),
        (2_000, release.into()),
        (2_000, renew.into()),
        (2_000, revoke.into()),
        (20_000, cluster::Tick {}.into()),
    ]
}

/// What the readers say of a state in which one row was replaced.
fn told(view: &MemoryView, key: &[u8], value: Option<&[u8]>) -> Vec<String> {
    let view = damaged(view, key, value);
    let outcomes = readers()
        .into_iter()
        .filter_map(|(now, command)| at(&view, 3, now, &command).err());
    outcomes.map(|broken| broken.to_string()).collect()
}

#[test]
fn a_lock_row_that_cannot_be_read_stops_the_node_and_is_named() {
    let view = held_lock();
    let mut seen = 0;
    for (key, value) in view.rows() {
        let table = match tag_of(key) {
            Some(Locks::TAG) => Locks::NAME,
            Some(LockMembers::TAG) => LockMembers::NAME,
            Some(LockOrder::TAG) => LockOrder::NAME,
            Some(LockOwners::TAG) => LockOwners::NAME,
            _ => continue,
        };
        for end in 0..value.len() {
            let told = told(&view, key, Some(&value[..end]));
            assert!(!told.is_empty(), "a row of {table} is read by something");
            let named = told
                .iter()
                .all(|words| words.contains(&format!("of table {table} ")));
            assert!(named, "{table}: {told:?}");
        }
        seen += 1;
    }
    assert_eq!(seen, 7, "one lock, two members, two places and two owners");
}

#[test]
fn a_lock_row_that_is_missing_stops_the_node() {
    let view = held_lock();
    let ours = |key: &[u8]| matches!(tag_of(key), Some(Locks::TAG | LockMembers::TAG));
    for (key, _) in view.rows().filter(|(key, _)| ours(key)) {
        let told = told(&view, key, None);
        assert!(!told.is_empty(), "{} is missed", key.escape_ascii());
        assert!(
            told.iter().all(|words| words.contains("lock a")),
            "{told:?}"
        );
    }
}

#[test]
fn a_lock_key_without_a_meaning_stops_the_node() {
    let (view, lock) = (held_lock(), name("a"));
    let due = |kind, subject: &[u8]| due_key(Timestamp(5), kind, subject).bytes().to_vec();
    let order = |prefix: &Key<LockOrder>, rest: &[u8]| [prefix.bytes(), rest].concat();
    let (holders, waiters) = (lock_tokens(&lock).0, lock_queue(&lock).0);
    let of_owner =
        |rest: &[u8]| [Key::<LockOwners>::first().bytes(), b"w1\0boot-1\0", rest].concat();
    let keys = [
        order(&holders, b""),
        order(&holders, &[0; 7]),
        order(&holders, &[0; 24]),
        order(&waiters, b"short"),
        order(&waiters, &[0; 24]),
        of_owner(b""),
        of_owner(b"a\0short"),
        of_owner(b"\0sixteen bytes id"),
        of_owner(b"z\0sixteen bytes id"),
        due(DueKind::LockMember, b"a"),
        due(DueKind::LockMember, b"a\0short"),
        due(DueKind::LockMember, b"\0sixteen bytes id"),
        due(DueKind::LockMember, &lock_subject(&lock, [9; 16])),
        due(DueKind::LockHandOver, b""),
        due(DueKind::LockHandOver, b"\xff"),
        due_key(Timestamp(5), DueKind::LockHandOver, b"").bytes()[..11].to_vec(),
    ];
    for key in keys {
        let tag = tag_of(&key).expect("a key has a tag");
        let told = told(&view, &key, Some(&codec::encode(tag.into(), &())));
        assert!(!told.is_empty(), "{} is no key", key.escape_ascii());
        assert!(
            told.iter()
                .all(|words| words.starts_with("broken invariant: "))
        );
    }
}
