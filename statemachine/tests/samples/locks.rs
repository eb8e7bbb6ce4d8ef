//! Everything that locks store or send.

use quorate_statemachine::lock::{
    self, Acquired, End, Found, Kept, Link, Lock, LockView, Member, Mode, Place, Released,
    WaitCancelled,
};
use quorate_statemachine::query::Page;
use quorate_statemachine::{Action, Answer, Query, Refusal, RequestId, Subject, Timestamp};

use super::{name, owner};

pub const ID: [u8; 16] = *b"0123456789abcdef";

/// Every operation, each with every field filled.
pub fn lock_actions() -> Vec<Action> {
    let renew = lock::Renew {
        key: name("lock"),
        id: ID,
        ttl_ms: Some(10_000),
    };
    let place = lock::Renew {
        ttl_ms: None,
        ..renew.clone()
    };
    let revoke = lock::Revoke {
        key: name("lock"),
        only: Some(300),
        by: "operator".to_owned(),
    };
    let proclaim = lock::Proclaim {
        key: name("lock"),
        fencing_token: 300,
        metadata: b"leader".to_vec(),
    };
    let cancel = lock::CancelWait {
        key: name("lock"),
        id: ID,
    };
    vec![
        acquire(Mode::Permit { of: 3 }).into(),
        renew.clone().into(),
        lock::RenewMany {
            renewals: vec![renew, place],
        }
        .into(),
        release().into(),
        cancel.into(),
        revoke.into(),
        proclaim.into(),
    ]
}

/// The modes that the operations above do not show, and a wait without a limit.
pub fn acquires() -> Vec<(&'static str, lock::Acquire)> {
    let patient = lock::Acquire {
        max_wait_ms: None,
        ..acquire(Mode::Exclusive)
    };
    vec![
        ("lock.acquire exclusive", patient),
        ("lock.acquire shared", acquire(Mode::Shared)),
    ]
}

pub fn release() -> lock::Release {
    lock::Release {
        key: name("lock"),
        id: ID,
    }
}

fn acquire(mode: Mode) -> lock::Acquire {
    lock::Acquire {
        key: name("lock"),
        id: request_id(),
        owner: owner(),
        mode,
        ttl_ms: 10_000,
        wait_ttl_ms: 20_000,
        max_wait_ms: Some(30_000),
        reentrant: true,
        delay_ms: 5_000,
        metadata: b"note".to_vec(),
    }
}

fn request_id() -> RequestId {
    RequestId {
        id: ID,
        not_before: 77,
    }
}

pub fn lock_row() -> Lock {
    Lock {
        key: name("lock"),
        permits: Some(3),
        holders: 2,
        exclusive: true,
        waiters: 1,
        last_token: 300,
        blocked_until: Timestamp(9_000),
    }
}

/// A member that holds.
pub fn holder_row() -> Member {
    Member {
        id: request_id(),
        owner: owner(),
        mode: Mode::Permit { of: 3 },
        ttl_ms: 10_000,
        wait_ttl_ms: 20_000,
        delay_ms: 5_000,
        reentrant: true,
        asked_at: Timestamp(1_000),
        expires_at: Timestamp(12_000),
        filed_at: Timestamp(11_000),
        place: holding(),
        metadata: b"note".to_vec(),
    }
}

/// A member that waits.
pub fn waiter_row() -> Member {
    Member {
        mode: Mode::Shared,
        place: waiting(),
        ..holder_row()
    }
}

pub fn holding() -> Place {
    Place::Holding {
        fencing_token: 300,
        granted_at: Timestamp(1_500),
        renewed_at: Timestamp(2_000),
    }
}

pub fn waiting() -> Place {
    Place::Waiting {
        ticket: 301,
        give_up_at: Some(Timestamp(31_000)),
    }
}

/// Every way in which an acquisition ends.
fn ends() -> Vec<End> {
    let link = |owner_id, waits_for| Link {
        owner_id: name(owner_id),
        incarnation_id: name("boot-1"),
        waits_for: name(waits_for),
    };
    let cycle = vec![link("w1", "lock"), link("w2", "other")];
    vec![
        End::Released { fencing_token: 300 },
        End::Expired {
            fencing_token: 300,
            at: Timestamp(12_000),
        },
        End::Revoked {
            fencing_token: 300,
            by: "operator".to_owned(),
        },
        End::Cancelled,
        End::GaveUp,
        End::WaiterDied,
        End::Deadlock { cycle },
    ]
}

/// Every answer of every operation. The first one of an operation has its bare name.
pub fn lock_responses() -> Vec<(String, lock::Response)> {
    let mut all = acquired();
    all.extend(renewed());
    all.extend(released());
    all.extend(cancelled());
    let revoked = lock::Response::Revoke(vec![holder_row()]);
    all.push(("lock.revoke".to_owned(), revoked));
    let proclaimed = lock::Response::Proclaim(holder_row());
    all.push(("lock.proclaim".to_owned(), proclaimed));
    all
}

fn acquired() -> Vec<(String, lock::Response)> {
    let mut all = vec![
        ("lock.acquire".to_owned(), Acquired::Granted(holder_row())),
        (
            "lock.acquire waiting".to_owned(),
            Acquired::Waiting(waiter_row()),
        ),
        (
            "lock.acquire busy".to_owned(),
            Acquired::Busy(vec![holder_row()]),
        ),
    ];
    let over = |end: End| {
        (
            format!("lock.acquire over {}", end.as_str()),
            Acquired::Over(end),
        )
    };
    all.extend(ends().into_iter().map(over));
    all.into_iter()
        .map(|(name, acquired)| (name, lock::Response::Acquire(acquired)))
        .collect()
}

fn renewed() -> Vec<(String, lock::Response)> {
    let holding = Kept::Holding {
        fencing_token: 300,
        expires_at: Timestamp(12_000),
    };
    let waiting = Kept::Waiting {
        expires_at: Timestamp(22_000),
    };
    let answers = vec![Ok(holding), Ok(waiting), Err(lock_refusal())];
    vec![
        ("lock.renew".to_owned(), lock::Response::Renew(holding)),
        (
            "lock.renew waiting".to_owned(),
            lock::Response::Renew(waiting),
        ),
        (
            "lock.renew_many".to_owned(),
            lock::Response::RenewMany(answers),
        ),
    ]
}

fn released() -> Vec<(String, lock::Response)> {
    let mut all = vec![
        (
            "lock.release".to_owned(),
            Released::Released { fencing_token: 300 },
        ),
        ("lock.release cancelled".to_owned(), Released::Cancelled),
    ];
    let not_held = |end: End| {
        let name = format!("lock.release not held {}", end.as_str());
        (name, Released::NotHeld { end })
    };
    all.extend(ends().into_iter().map(not_held));
    all.into_iter()
        .map(|(name, released)| (name, lock::Response::Release(released)))
        .collect()
}

fn cancelled() -> Vec<(String, lock::Response)> {
    let mut all = vec![
        ("lock.cancel_wait".to_owned(), WaitCancelled::Cancelled),
        (
            "lock.cancel_wait holding".to_owned(),
            WaitCancelled::Holding(holder_row()),
        ),
    ];
    let over = |end: End| {
        let name = format!("lock.cancel_wait over {}", end.as_str());
        (name, WaitCancelled::Over(end))
    };
    all.extend(ends().into_iter().map(over));
    all.into_iter()
        .map(|(name, cancelled)| (name, lock::Response::CancelWait(cancelled)))
        .collect()
}

/// A refusal that speaks of a lock.
pub fn lock_refusal() -> Refusal {
    Refusal::Fenced {
        subject: Subject::Lock,
        name: "lock".to_owned(),
        presented: 300,
        current: Some(301),
    }
}

/// Every query.
pub fn lock_queries() -> Vec<(&'static str, Query)> {
    let (key, limit) = (name("lock"), 50);
    let list = lock::List {
        prefix: "pre".to_owned(),
        after: Some(key.clone()),
        limit,
    };
    let waiters = lock::Waiters {
        key: key.clone(),
        after: Some(301),
        limit,
    };
    let find = lock::Find {
        key: key.clone(),
        id: ID,
    };
    let all = [
        ("lock.get", lock::Query::Get(lock::Get { key })),
        ("lock.list", lock::Query::List(list)),
        ("lock.waiters", lock::Query::Waiters(waiters)),
        ("lock.find", lock::Query::Find(find)),
    ];
    all.map(|(name, query)| (name, Query::Lock(query))).to_vec()
}

/// Every answer to them.
pub fn lock_answers() -> Vec<(String, Answer)> {
    let view = || LockView {
        lock: lock_row(),
        holders: vec![holder_row()],
    };
    let (locks, members) = (page(view()), page(waiter_row()));
    let mut all = vec![
        ("lock.get".to_owned(), lock::Answer::Get(Some(view()))),
        ("lock.get idle".to_owned(), lock::Answer::Get(None)),
        ("lock.list".to_owned(), lock::Answer::List(locks)),
        ("lock.waiters".to_owned(), lock::Answer::Waiters(members)),
        (
            "lock.find".to_owned(),
            lock::Answer::Find(Found::Member(waiter_row())),
        ),
        (
            "lock.find unknown".to_owned(),
            lock::Answer::Find(Found::Unknown),
        ),
    ];
    let over = |end: End| {
        let name = format!("lock.find over {}", end.as_str());
        (name, lock::Answer::Find(Found::Over(end)))
    };
    all.extend(ends().into_iter().map(over));
    all.into_iter()
        .map(|(name, answer)| (name, Answer::Lock(answer)))
        .collect()
}

fn page<T>(row: T) -> Page<T> {
    Page {
        rows: vec![row],
        next: Some("301".to_owned()),
    }
}
