//! A full state says what there is too much of, its limit and the count, and changes nothing.

mod session_bounds;

use quorate_statemachine::lease::{Claim, SameOwner};
use quorate_statemachine::limits::{
    DEADLOCK_CYCLE_MAX, GRANTS_MOVED_MAX, LEASES_MAX, LIVENESS_BYTES_MAX, LOCK_DELAY_MS_MAX,
    LOCK_HOLDERS_MAX, LOCK_HOLDERS_SHOWN, LOCK_MEMBERS_MAX, LOCK_METADATA_BYTES_MAX,
    LOCK_REENTRIES_MAX, LOCK_WAITERS_MAX, MEMBERS_REVOKED_MAX, NAME_BYTES_MAX, PROCESSES_MAX,
    QUEUES_MAX, RENEWALS_PER_ENTRY_MAX, SESSION_GRANTS_MAX, SESSION_WAKE_TARGETS_MAX, SESSIONS_MAX,
    TTL_MS_MAX, WAIT_MS_MAX,
};
use quorate_statemachine::lock::{self, Acquire, Acquired, End, Mode};
use quorate_statemachine::process::{
    Grant, MoveGrants, PutGrant, Register, SessionRow, WakeTarget,
};
use quorate_statemachine::queue::Push;
use quorate_statemachine::tables::{Meta, MetaRow, ProcessSessions, Table, meta_key, session_key};
use quorate_statemachine::view::MemoryView;
use quorate_statemachine::{
    Answer, Command, Entry, LeaseToken, Name, Operation, Owner, Query, Refusal, Reply, RequestId,
    Timestamp, Validate, apply, codec, query, session,
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
        lock_members: LOCK_MEMBERS_MAX - room,
        sessions: SESSIONS_MAX - room,
        ..MetaRow::default()
    };
    let mut view = MemoryView::default();
    let row = codec::encode(Meta::TAG.into(), &meta);
    view.commit(vec![(meta_key().bytes().to_vec(), Some(row.into()))]);
    view
}

fn commands() -> [(&'static str, u64, Command); 5] {
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
    let register = Register::new(name("process"), Vec::new());
    let open = session::Open {
        name: name("session"),
        note: None,
    };
    [
        ("leases", LEASES_MAX, claim.into()),
        ("queues", QUEUES_MAX, push.into()),
        ("processes", PROCESSES_MAX, register.into()),
        (
            "holders and waiters of all locks",
            LOCK_MEMBERS_MAX,
            acquire(1).into(),
        ),
        ("sessions", SESSIONS_MAX, open.into()),
    ]
}

fn reply(view: &mut MemoryView, index: u64, command: &Command) -> Reply {
    let entry = Entry {
        index,
        proposed_at: Timestamp(1_000),
        command: &command.encode(),
        principal: quorate_statemachine::Principal::Cluster,
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

/// An acquisition of the lock `a`, by an owner of its own.
fn acquire(number: u64) -> Acquire {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    Acquire {
        key: name("a"),
        id: RequestId { id, not_before: 0 },
        owner: Owner::new(name(&format!("owner-{number}")), name("boot")),
        mode: Mode::Exclusive,
        ttl_ms: 60_000,
        wait_ttl_ms: 60_000,
        max_wait_ms: None,
        reentrant: false,
        delay_ms: 0,
        metadata: Vec::new(),
    }
}

/// The state with locks, and the index of its last entry.
#[derive(Default)]
struct State {
    view: MemoryView,
    index: u64,
}

impl State {
    fn run<O: Operation>(&mut self, operation: O) -> Result<O::Reply, Refusal> {
        self.index += 1;
        let reply = reply(&mut self.view, self.index, &Command::from(operation.into()));
        let response = reply.0?;
        Ok(O::reply(response).expect("an answer of this operation"))
    }

    fn lock(&self) -> lock::LockView {
        let question = Query::Lock(lock::Query::Get(lock::Get { key: name("a") }));
        match query(&self.view, Timestamp(1_000), &question) {
            Ok(Answer::Lock(lock::Answer::Get(Some(view)))) => view,
            other => panic!("{other:?} is no lock"),
        }
    }

    /// The rows but the meta row, which counts entries.
    fn rows(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let rows = self
            .view
            .rows()
            .filter(|(key, _)| *key != meta_key().bytes());
        rows.map(|(key, value)| (key.to_vec(), value.to_vec()))
            .collect()
    }
}

fn is_granted(acquired: &Acquired) -> bool {
    matches!(acquired, Acquired::Granted(_))
}

fn waits(acquired: &Acquired) -> bool {
    matches!(acquired, Acquired::Waiting(_))
}

fn exhausted(what: &str, limit: u64) -> Refusal {
    Refusal::Exhausted {
        what: what.to_owned(),
        limit,
        actual: limit,
    }
}

#[test]
fn a_lock_has_room_for_so_many_waiters_and_refuses_one_more() {
    let mut state = State::default();
    assert!(is_granted(&state.run(acquire(0)).expect("it is free")));
    for number in 1..=LOCK_WAITERS_MAX {
        assert!(waits(&state.run(acquire(number)).expect("there is room")));
    }
    let rows = state.rows();
    let refused = state
        .run(acquire(LOCK_WAITERS_MAX + 1))
        .expect_err("the queue is full");
    assert_eq!(refused, exhausted("waiters of lock a", LOCK_WAITERS_MAX));
    assert_eq!(
        refused.to_string(),
        "waiters of lock a: limit 10000, actual 10000"
    );
    assert_eq!(state.rows(), rows, "a refusal changes nothing");

    let again = state.run(acquire(7)).expect("it has its place");
    assert!(waits(&again));
    let mut hasty = acquire(LOCK_WAITERS_MAX + 2);
    hasty.max_wait_ms = Some(0);
    let busy = state.run(hasty).expect("who would not wait needs no place");
    assert!(matches!(busy, Acquired::Busy(holders) if holders.len() == 1));
    let key = name("a");
    state
        .run(lock::Release {
            key,
            id: acquire(0).id.id,
        })
        .expect("never refused");
    let last = state
        .run(acquire(LOCK_WAITERS_MAX + 1))
        .expect("a place is free");
    assert!(waits(&last));
    assert_eq!(state.lock().lock.waiters, 10_000);
}

#[test]
fn a_lock_has_so_many_holders_and_the_next_waits() {
    let modes = [
        Mode::Shared,
        Mode::Permit {
            of: LOCK_HOLDERS_MAX,
        },
    ];
    for mode in modes {
        let mut state = State::default();
        for number in 0..u64::from(LOCK_HOLDERS_MAX) {
            let acquire = Acquire {
                mode,
                ..acquire(number)
            };
            assert!(is_granted(&state.run(acquire).expect("there is room")));
        }
        let next = Acquire {
            mode,
            ..acquire(u64::MAX)
        };
        assert!(
            waits(&state.run(next).expect("there is room to wait")),
            "{mode:?}"
        );
        let shown = state.lock();
        assert_eq!(
            (shown.lock.holders, shown.lock.waiters),
            (LOCK_HOLDERS_MAX, 1)
        );
        assert_eq!(shown.holders.len(), LOCK_HOLDERS_SHOWN);
    }
}

#[test]
fn a_hold_is_entered_so_often_and_refuses_one_more() {
    let mut state = State::default();
    let again = |number| Acquire {
        owner: acquire(0).owner,
        reentrant: true,
        ..acquire(number)
    };
    for number in 0..LOCK_REENTRIES_MAX as u64 {
        assert!(is_granted(
            &state.run(again(number)).expect("there is room")
        ));
    }
    let rows = state.rows();
    let limit = LOCK_REENTRIES_MAX as u64;
    let refused = state
        .run(again(limit))
        .expect_err("it was entered too often");
    assert_eq!(
        refused,
        exhausted("acquisitions of lock a by one holder", limit)
    );
    assert_eq!(state.rows(), rows, "a refusal changes nothing");
    assert_eq!(state.lock().lock.holders, 1);
}

#[test]
fn a_full_state_refuses_waiters_and_who_enters_again_too() {
    let mut state = State {
        view: almost_full(1),
        index: 0,
    };
    let reentrant = |number| Acquire {
        owner: acquire(0).owner,
        reentrant: true,
        ..acquire(number)
    };
    assert!(is_granted(
        &state.run(reentrant(0)).expect("the last place")
    ));
    let full = exhausted("holders and waiters of all locks", LOCK_MEMBERS_MAX);
    assert_eq!(state.run(acquire(1)).expect_err("no place to wait"), full);
    assert_eq!(
        state.run(reentrant(2)).expect_err("no place to enter"),
        full
    );
    let key = name("a");
    state
        .run(lock::Release {
            key,
            id: acquire(0).id.id,
        })
        .expect("never refused");
    assert!(is_granted(
        &state.run(acquire(1)).expect("there is a place again")
    ));
}

#[test]
fn one_revocation_ends_so_many_holds_the_oldest_first() {
    let mut state = State::default();
    let count = MEMBERS_REVOKED_MAX as u64 + 44;
    for number in 0..count {
        let mode = Mode::Shared;
        state
            .run(Acquire {
                mode,
                ..acquire(number)
            })
            .expect("there is room");
    }
    let revoke = lock::Revoke {
        key: name("a"),
        only: None,
        by: "operator".to_owned(),
    };
    let revoked = state.run(revoke.clone()).expect("there are holds");
    let ids: Vec<_> = revoked.iter().map(|member| member.id.id).collect();
    let first: Vec<_> = (0..MEMBERS_REVOKED_MAX as u64)
        .map(|n| acquire(n).id.id)
        .collect();
    assert_eq!(ids, first);
    assert_eq!(state.lock().lock.holders, 44);
    assert_eq!(state.run(revoke).expect("there are holds").len(), 44);
}

/// Each of `count` owners holds a lock and waits for the next one's; the last closes the circle.
fn close_circle(count: u64) -> Acquired {
    let mut state = State::default();
    let ask = |by: u64, of: u64, number: u64| Acquire {
        key: name(&format!("lock-{}", of % count)),
        owner: acquire(by).owner,
        ..acquire(number)
    };
    for owner in 0..count {
        state.run(ask(owner, owner, owner)).expect("it is free");
    }
    for owner in 0..count - 1 {
        let waiting = state.run(ask(owner, owner + 1, count + owner));
        assert!(waits(&waiting.expect("there is room")));
    }
    state
        .run(ask(count - 1, count, 2 * count))
        .expect("there is room")
}

#[test]
fn a_circle_of_so_many_waits_is_found_and_a_larger_one_is_left_to_the_waits_limits() {
    let Acquired::Over(End::Deadlock { cycle }) = close_circle(DEADLOCK_CYCLE_MAX as u64) else {
        panic!("a circle of the largest size is found");
    };
    assert_eq!(cycle.len(), DEADLOCK_CYCLE_MAX);
    assert!(waits(&close_circle(DEADLOCK_CYCLE_MAX as u64 + 1)));
}

/// The refusal of an operation, and none for the same within its bounds.
fn problem(operation: &impl Validate) -> String {
    operation
        .validate()
        .expect_err("it is out of bounds")
        .to_string()
}

/// What makes an acquisition wrong.
type Change = fn(&mut Acquire);

#[test]
fn arguments_of_an_acquisition_out_of_bounds_are_refused_with_limit_and_value() {
    let change = |change: fn(&mut Acquire)| {
        let mut acquire = acquire(1);
        change(&mut acquire);
        acquire
    };
    let at_the_limit = change(|a| {
        (a.ttl_ms, a.wait_ttl_ms) = (TTL_MS_MAX, TTL_MS_MAX);
        (a.max_wait_ms, a.delay_ms) = (Some(WAIT_MS_MAX), LOCK_DELAY_MS_MAX);
        a.mode = Mode::Permit {
            of: LOCK_HOLDERS_MAX,
        };
        a.metadata = vec![0; LOCK_METADATA_BYTES_MAX];
        a.owner.liveness = Some("x".repeat(LIVENESS_BYTES_MAX));
    });
    assert_eq!(at_the_limit.validate(), Ok(()));
    let cases: [(Change, &str); 10] = [
        (
            |a| a.ttl_ms = 0,
            "ttl_ms is out of range: limit 1 to 86400000, actual 0",
        ),
        (
            |a| a.ttl_ms = TTL_MS_MAX + 1,
            "ttl_ms is out of range: limit 1 to 86400000, actual 86400001",
        ),
        (
            |a| a.wait_ttl_ms = 0,
            "wait_ttl_ms is out of range: limit 1 to 86400000, actual 0",
        ),
        (
            |a| a.wait_ttl_ms += TTL_MS_MAX,
            "wait_ttl_ms is out of range: limit 1 to 86400000, actual 86460000",
        ),
        (
            |a| a.max_wait_ms = Some(WAIT_MS_MAX + 1),
            "max_wait_ms is out of range: limit 0 to 2592000000, actual 2592000001",
        ),
        (
            |a| a.delay_ms = LOCK_DELAY_MS_MAX + 1,
            "delay_ms is out of range: limit 0 to 300000, actual 300001",
        ),
        (
            |a| a.mode = Mode::Permit { of: 0 },
            "permits is out of range: limit 1 to 10000, actual 0",
        ),
        (
            |a| a.mode = Mode::Permit { of: 10_001 },
            "permits is out of range: limit 1 to 10000, actual 10001",
        ),
        (
            |a| a.metadata = vec![0; 4_097],
            "metadata is too large: limit 4096 bytes, actual 4097 bytes",
        ),
        (
            |a| a.owner.liveness = Some("x".repeat(4_097)),
            "owner.liveness is too large: limit 4096 bytes, actual 4097 bytes",
        ),
    ];
    for (make, words) in cases {
        assert_eq!(problem(&change(make)), words);
    }
}

#[test]
fn arguments_of_other_lock_commands_out_of_bounds_are_refused_with_limit_and_value() {
    let (key, id) = (name("a"), [1; 16]);
    let renew = |ttl_ms| lock::Renew {
        key: key.clone(),
        id,
        ttl_ms,
    };
    assert_eq!(renew(Some(TTL_MS_MAX)).validate(), Ok(()));
    assert!(problem(&renew(Some(0))).contains("limit 1 to 86400000, actual 0"));
    assert!(problem(&renew(Some(TTL_MS_MAX + 1))).contains("actual 86400001"));
    let many = |renewals| lock::RenewMany { renewals };
    assert!(problem(&many(Vec::new())).contains("limit 1 to 1024, actual 0"));
    assert_eq!(
        many(vec![renew(None); RENEWALS_PER_ENTRY_MAX]).validate(),
        Ok(())
    );
    let over = many(vec![renew(None); RENEWALS_PER_ENTRY_MAX + 1]);
    assert!(problem(&over).contains("limit 1 to 1024, actual 1025"));
    assert!(problem(&many(vec![renew(None), renew(Some(0))])).contains("ttl_ms"));
    let revoke = |bytes| lock::Revoke {
        key: key.clone(),
        only: None,
        by: "x".repeat(bytes),
    };
    assert_eq!(revoke(NAME_BYTES_MAX).validate(), Ok(()));
    assert!(problem(&revoke(NAME_BYTES_MAX + 1)).contains("limit 512 bytes, actual 513 bytes"));
    let proclaim = |bytes| lock::Proclaim {
        key: key.clone(),
        fencing_token: 1,
        metadata: vec![0; bytes],
    };
    assert_eq!(proclaim(LOCK_METADATA_BYTES_MAX).validate(), Ok(()));
    assert!(problem(&proclaim(4_097)).contains("limit 4096 bytes, actual 4097 bytes"));
    let list = Query::Lock(lock::Query::List(lock::List {
        prefix: "x".repeat(NAME_BYTES_MAX + 1),
        after: None,
        limit: 0,
    }));
    let refused = Query::decode(&list.encode()).expect_err("the prefix is too long");
    assert!(
        refused
            .to_string()
            .contains("limit 512 bytes, actual 513 bytes")
    );
}

/// A state in which the session `s` is tied to as much as it may be, less `room`.
fn tied(room: u64) -> MemoryView {
    let mut view = MemoryView::default();
    let id = name("known");
    assert!(
        reply(&mut view, 1, &Register::new(id, Vec::new()).into())
            .0
            .is_ok()
    );
    let row = SessionRow {
        grants: SESSION_GRANTS_MAX - room,
        wake_targets: SESSION_WAKE_TARGETS_MAX - room,
    };
    let row = codec::encode(ProcessSessions::TAG.into(), &row);
    let key = session_key(&name("s"));
    view.commit(vec![(key.bytes().to_vec(), Some(row.into()))]);
    view
}

#[test]
fn what_detaching_a_session_must_undo_in_one_entry_is_bounded() {
    let grant = Grant {
        scope: name("scope"),
        session: name("s"),
        process_id: name("known"),
        descriptor: Vec::new(),
    };
    let register = Register {
        wake_target: Some(WakeTarget {
            session: name("s"),
            target: Vec::new(),
        }),
        ..Register::new(name("new"), Vec::new())
    };
    let cases: [(&str, u64, Command); 2] = [
        (
            "grants of session s",
            SESSION_GRANTS_MAX,
            PutGrant { grant }.into(),
        ),
        (
            "processes that wake session s",
            SESSION_WAKE_TARGETS_MAX,
            register.into(),
        ),
    ];
    for (what, limit, command) in cases {
        let expected = Refusal::Exhausted {
            what: what.to_owned(),
            limit,
            actual: limit,
        };
        let mut full = tied(0);
        let before = full.rows().count();
        assert_eq!(reply(&mut full, 2, &command).0, Err(expected));
        assert_eq!(full.rows().count(), before, "{what}: a row was written");
        let mut last = tied(1);
        for index in 2..4 {
            let again = reply(&mut last, index, &command);
            assert!(again.0.is_ok(), "{what}: {again:?}");
        }
    }
    let many = MoveGrants {
        from: name("a"),
        to: name("b"),
        to_session: name("s"),
        process_ids: vec![name("p"); GRANTS_MOVED_MAX + 1],
    };
    let error = many.validate().expect_err("too many").to_string();
    assert!(error.contains("limit 0 to 1024, actual 1025"), "{error}");
}
