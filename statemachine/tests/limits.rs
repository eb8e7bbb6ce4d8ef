//! A full state says what there is too much of, its limit and the count, and changes nothing.

use quorate_statemachine::lease::{Claim, SameOwner};
use quorate_statemachine::limits::{LEASES_MAX, PROCESSES_MAX, QUEUES_MAX};
use quorate_statemachine::process::Register;
use quorate_statemachine::queue::Push;
use quorate_statemachine::tables::{Meta, MetaRow, Table, meta_key};
use quorate_statemachine::view::MemoryView;
use quorate_statemachine::{
    Command, Entry, LeaseToken, Name, Owner, Refusal, Reply, Timestamp, apply, codec,
};

fn name(text: &str) -> Name {
    Name::parse("name", text).expect("a name")
}

/// A state whose counters stand at their limits, less `room`.
fn almost_full(room: u64) -> MemoryView {
    let meta = MetaRow {
        leases: LEASES_MAX - room,
        queues: QUEUES_MAX - room,
        processes: PROCESSES_MAX - room,
        ..MetaRow::default()
    };
    let mut view = MemoryView::default();
    let row = codec::encode(Meta::TAG.into(), &meta);
    view.commit(vec![(meta_key().bytes().to_vec(), Some(row.into()))]);
    view
}

fn commands() -> [(&'static str, u64, Command); 3] {
    let claim = Claim {
        key: name("key"),
        owner: Owner::new(name("owner"), name("boot")),
        lease_token: LeaseToken::parse("token".to_owned()).expect("a token"),
        ttl_ms: 1_000,
        same_owner: SameOwner::Busy,
        metadata: Vec::new(),
    };
    let push = Push {
        queue: name("queue"),
        payload: Vec::new(),
        dedupe_key: None,
        delay_ms: 0,
        priority: 0,
        max_attempts: 0,
    };
    let register = Register {
        id: name("process"),
        definition: Vec::new(),
    };
    [
        ("leases", LEASES_MAX, claim.into()),
        ("queues", QUEUES_MAX, push.into()),
        ("processes", PROCESSES_MAX, register.into()),
    ]
}

fn reply(view: &mut MemoryView, index: u64, command: &Command) -> Reply {
    let entry = Entry {
        index,
        proposed_at: Timestamp(1_000),
        command: &command.encode(),
    };
    let applied = apply(view, entry).expect("a sound state");
    view.commit(applied.changes);
    applied.reply
}

#[test]
fn one_more_than_the_limit_is_refused_with_limit_and_count() {
    for (what, limit, command) in commands() {
        let mut view = almost_full(0);
        let before = view.rows().count();
        let expected = Refusal::Exhausted {
            what: what.to_owned(),
            limit,
            actual: limit,
        };
        assert_eq!(reply(&mut view, 1, &command).0, Err(expected));
        assert_eq!(view.rows().count(), before, "{what}: a row was written");
    }
}

#[test]
fn the_last_place_is_given_and_a_retry_takes_no_other() {
    for (what, _, command) in commands() {
        let mut view = almost_full(1);
        for index in 1..3 {
            let reply = reply(&mut view, index, &command);
            assert!(reply.0.is_ok(), "{what}: {reply:?}");
        }
    }
}
