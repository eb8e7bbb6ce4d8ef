//! One value of everything that is stored or sent, with every field filled.

#![allow(dead_code, reason = "each test that includes these uses some of them")]

use std::collections::VecDeque;

use quorate_statemachine::codec;
use quorate_statemachine::digest::Digest;
use quorate_statemachine::lease::{
    self, Claimed, EndReason, Ended, History, Lease, Released, Renewed,
};
use quorate_statemachine::process::{self, Event, Process, ProcessState};
use quorate_statemachine::query::Page;
use quorate_statemachine::queue::{self, ClaimedItem, Item, ItemClaim, ItemId, ItemState, Queue};
use quorate_statemachine::tables::{self, DedupeRow, DueKind, Key, MetaRow, RequestRow, Table};
use quorate_statemachine::{
    Action, Answer, Command, InvalidArgument, LeaseToken, Name, Owner, Precondition, Query,
    Refusal, Reply, RequestId, Response, Subject, Timestamp, cluster,
};

pub fn name(text: &str) -> Name {
    Name::parse("sample", text).expect("samples are within bounds")
}

pub fn token(text: &str) -> LeaseToken {
    LeaseToken::parse(text).expect("samples are within bounds")
}

pub fn owner() -> Owner {
    Owner {
        liveness: Some("pid 7".to_owned()),
        ..Owner::new(name("w1"), name("boot-1"))
    }
}

/// Every operation, then a composite and an envelope with all its parts.
pub fn commands() -> Vec<(String, Command)> {
    let steps = vec![
        lease_claim().into(),
        process_append().into(),
        queue_settle().into(),
    ];
    let full = Command::from(process_append())
        .with_request(RequestId {
            id: *b"0123456789abcdef",
            not_before: 77,
        })
        .require(Precondition::Lease {
            key: name("lock"),
            token: 300,
        })
        .require(Precondition::Claim {
            queue: name("jobs"),
            item_id: ItemId(70_000),
            token: 301,
        });
    let mut all: Vec<(String, Command)> = actions()
        .into_iter()
        .map(|action| (action.name().to_owned(), action.into()))
        .collect();
    all.push(("composite".to_owned(), Action::Composite(steps).into()));
    all.push(("envelope".to_owned(), full));
    all
}

fn actions() -> Vec<Action> {
    let (queue, id) = (name("jobs"), name("p"));
    let item_id = ItemId(70_000);
    let renew = lease::Renew {
        key: name("lock"),
        lease_token: token("t1"),
        fencing_token: 300,
        ttl_ms: 10_000,
    };
    let release = lease::Release {
        key: name("lock"),
        lease_token: token("t1"),
        fencing_token: 300,
    };
    let observed = lease::Observed {
        owner_id: name("w0"),
        incarnation_id: name("boot-0"),
        lease_token: token("t0"),
        fencing_token: 299,
    };
    let revoke = lease::Revoke {
        key: name("lock"),
        only: Some(300),
        by: "operator".to_owned(),
    };
    vec![
        lease_claim().into(),
        renew.clone().into(),
        lease::RenewMany {
            renewals: vec![renew.clone(), renew],
        }
        .into(),
        release.into(),
        lease::Reclaim {
            observed,
            claim: lease_claim(),
        }
        .into(),
        revoke.into(),
        queue_push().into(),
        queue::Claim {
            queue: queue.clone(),
            owner: owner(),
            ttl_ms: 10_000,
            max: 5,
        }
        .into(),
        queue::Renew {
            queue: queue.clone(),
            item_id,
            fencing_token: 301,
            ttl_ms: 10_000,
        }
        .into(),
        queue_settle().into(),
        queue::Cancel {
            queue: queue.clone(),
            item_id,
        }
        .into(),
        queue::Requeue { queue, item_id }.into(),
        process::Register {
            id: id.clone(),
            definition: b"definition".to_vec(),
        }
        .into(),
        process_append().into(),
        process::Complete {
            id,
            state: ProcessState::Failed,
            outcome: b"why".to_vec(),
        }
        .into(),
        cluster::Tick {}.into(),
        cluster::RecordDigest {}.into(),
        cluster::Found {
            cluster_id: name("c1"),
            node_id: 3,
        }
        .into(),
        cluster::AllocateNodeId {}.into(),
    ]
}

fn lease_claim() -> lease::Claim {
    lease::Claim {
        key: name("lock"),
        owner: owner(),
        lease_token: token("t1"),
        ttl_ms: 10_000,
        same_owner: lease::SameOwner::Fresh,
        metadata: b"note".to_vec(),
    }
}

fn queue_push() -> queue::Push {
    queue::Push {
        queue: name("jobs"),
        payload: b"work".to_vec(),
        dedupe_key: Some(name("k1")),
        delay_ms: 5_000,
        priority: 9,
        max_attempts: 3,
    }
}

fn queue_settle() -> queue::Settle {
    let outcome = queue::Outcome::Retry {
        delay_ms: 1_000,
        note: "later".to_owned(),
    };
    queue::Settle {
        queue: name("jobs"),
        item_id: ItemId(70_000),
        fencing_token: 301,
        outcome,
    }
}

fn process_append() -> process::Append {
    process::Append {
        id: name("p"),
        event_type: name("started"),
        key: Some(name("k1")),
        payload: b"payload".to_vec(),
    }
}

fn lease_row() -> Lease {
    Lease {
        key: name("lock"),
        owner: owner(),
        lease_token: token("t1"),
        fencing_token: 300,
        epoch: 2,
        ttl_ms: 10_000,
        granted_at: Timestamp(1_000),
        renewed_at: Timestamp(2_000),
        expires_at: Timestamp(12_000),
        filed_at: Timestamp(11_000),
        renewals: 1,
        metadata: b"note".to_vec(),
    }
}

fn history_row() -> History {
    let reasons = [
        EndReason::Expired,
        EndReason::Released,
        EndReason::Superseded,
        EndReason::Reclaimed { by: name("w2") },
        EndReason::Revoked {
            by: "operator".to_owned(),
        },
    ];
    let ended: VecDeque<Ended> = (1..)
        .zip(reasons)
        .map(|(n, reason)| ended(n, reason))
        .collect();
    History { epoch: 5, ended }
}

fn ended(number: u64, reason: EndReason) -> Ended {
    Ended {
        owner: owner(),
        lease_token: token("t0"),
        fencing_token: number,
        granted_at: Timestamp(1_000),
        renewed_at: Timestamp(2_000),
        ttl_ms: 10_000,
        ended_at: Timestamp(3_000),
        ended_index: number + 1,
        reason,
    }
}

fn item_claim() -> ItemClaim {
    ItemClaim {
        owner: owner(),
        fencing_token: 301,
        ttl_ms: 10_000,
        claimed_at: Timestamp(3_000),
        expires_at: Timestamp(13_000),
        filed_at: Timestamp(12_000),
    }
}

fn item_row() -> Item {
    Item {
        item_id: ItemId(70_000),
        state: ItemState::Claimed,
        priority: 9,
        attempts: 2,
        max_attempts: 3,
        dedupe_key: Some(name("k1")),
        pushed_at: Timestamp(1_000),
        available_at: Timestamp(2_000),
        payload_bytes: 4,
        claim: Some(item_claim()),
        note: "later".to_owned(),
    }
}

fn queue_row() -> Queue {
    Queue {
        name: name("jobs"),
        created_at: Timestamp(1_000),
        changed_at: Timestamp(3_000),
        ready: 1,
        delayed: 2,
        claimed: 3,
        dead: 4,
        done: 5,
        dedupe_keys: 6,
    }
}

fn process_row() -> Process {
    Process {
        id: name("p"),
        state: ProcessState::Failed,
        definition: b"definition".to_vec(),
        created_at: Timestamp(1_000),
        updated_at: Timestamp(2_000),
        last_sequence: 7,
        outcome: Some(b"why".to_vec()),
    }
}

fn event_row() -> Event {
    Event {
        sequence: 7,
        event_type: name("started"),
        at: Timestamp(2_000),
        index: 302,
        key: Some(name("k1")),
        payload: b"payload".to_vec(),
    }
}

fn meta_row() -> MetaRow {
    MetaRow {
        now: Timestamp(1_000),
        last_index: 302,
        fence_base: 5,
        digest: Digest(0x0123_4567_89ab_cdef_0011_2233_4455_6677),
        cluster_id: "c1".to_owned(),
        last_node_id: 3,
        requests_floor: 4,
        requests: 2,
        request_bytes: 99,
        leases: 6,
    }
}

/// A row of every table: table, key, value.
pub fn rows() -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let request = RequestId {
        id: *b"0123456789abcdef",
        not_before: 77,
    };
    let (jobs, p, k1, item) = (name("jobs"), name("p"), name("k1"), ItemId(70_000));
    let remembered = RequestRow {
        index: 302,
        at: Timestamp(1_000),
        reply: vec![1, 2, 3],
    };
    let dedupe = DedupeRow {
        item_id: item,
        present: true,
    };
    vec![
        row(tables::meta_key(), &meta_row()),
        row(
            tables::due_key(Timestamp(11_000), DueKind::Lease, b"lock"),
            &(),
        ),
        row(tables::request_key(&request), &remembered),
        row(
            tables::request_age_key(302),
            &(request.id, Timestamp(1_000), 3),
        ),
        row(tables::lease_key(&name("lock")), &lease_row()),
        row(tables::history_key(&name("lock")), &history_row()),
        row(tables::queue_key(&jobs), &queue_row()),
        row(tables::item_key(&jobs, item), &item_row()),
        row(tables::payload_key(&jobs, item), &b"work".to_vec()),
        row(tables::ready_key(&jobs, 9, item), &item),
        row(tables::dedupe_key(&jobs, &k1), &dedupe),
        row(tables::dead_key(&jobs, item), &item),
        row(tables::process_key(&p), &process_row()),
        row(tables::event_key(&p, 7), &event_row()),
        row(tables::event_unique_key(&p, &k1), &7),
        row(tables::process_state_key(ProcessState::Failed, "p"), &()),
    ]
}

fn row<T: Table>(key: Key<T>, row: &T::Row) -> (&'static str, Vec<u8>, Vec<u8>) {
    (
        T::NAME,
        key.bytes().to_vec(),
        codec::encode(T::TAG.into(), row),
    )
}

/// An answer of every operation, named after it, then every refusal, named after its code.
pub fn replies() -> Vec<(String, Reply)> {
    let mut all: Vec<(String, Reply)> = responses()
        .into_iter()
        .map(|(name, response)| (name.to_owned(), Reply(Ok(response))))
        .collect();
    let steps = responses()
        .into_iter()
        .map(|(_, response)| response)
        .collect();
    all.push((
        "composite".to_owned(),
        Reply(Ok(Response::Composite(steps))),
    ));
    let refusals = refusals().into_iter();
    all.extend(
        refusals.map(|refusal| (format!("refusal {}", refusal.code()), Reply(Err(refusal)))),
    );
    let step = Refusal::Step {
        step: 2,
        refusal: Box::new(not_found(Subject::Item)),
    };
    all.push(("refusal step".to_owned(), Reply(Err(step))));
    all
}

fn responses() -> Vec<(&'static str, Response)> {
    let item = ClaimedItem {
        item: item_row(),
        payload: b"work".to_vec(),
    };
    let renewed = Renewed {
        fencing_token: 300,
        ttl_ms: 10_000,
        expires_at: Timestamp(12_000),
    };
    let renewals = vec![Ok(renewed.clone()), Err(fenced(Some(301)))];
    let pushed = queue::Pushed {
        item_id: ItemId(70_000),
        duplicate: true,
    };
    let registered = process::Registered {
        process: process_row(),
        existed: true,
    };
    let completed = process::Completed {
        process: process_row(),
        existed: false,
    };
    let appended = process::Appended {
        sequence: 7,
        duplicate: true,
    };
    let not_held = Released::NotHeld {
        current: Some(lease_row()),
    };
    vec![
        (
            "lease.claim",
            Response::Lease(lease::Response::Claim(Claimed::Granted(lease_row()))),
        ),
        (
            "lease.claim busy",
            Response::Lease(lease::Response::Claim(Claimed::Busy(lease_row()))),
        ),
        (
            "lease.renew",
            Response::Lease(lease::Response::Renew(renewed)),
        ),
        (
            "lease.renew_many",
            Response::Lease(lease::Response::RenewMany(renewals)),
        ),
        (
            "lease.release",
            Response::Lease(lease::Response::Release(Released::Released)),
        ),
        (
            "lease.release not held",
            Response::Lease(lease::Response::Release(not_held)),
        ),
        (
            "lease.reclaim",
            Response::Lease(lease::Response::Reclaim(lease_row())),
        ),
        (
            "lease.revoke",
            Response::Lease(lease::Response::Revoke(lease_row())),
        ),
        ("queue.push", Response::Queue(queue::Response::Push(pushed))),
        (
            "queue.claim",
            Response::Queue(queue::Response::Claim(vec![item])),
        ),
        (
            "queue.renew",
            Response::Queue(queue::Response::Renew(item_claim())),
        ),
        (
            "queue.settle",
            Response::Queue(queue::Response::Settle(queue::Settled::Dead)),
        ),
        (
            "queue.cancel",
            Response::Queue(queue::Response::Cancel(item_row())),
        ),
        (
            "queue.requeue",
            Response::Queue(queue::Response::Requeue(item_row())),
        ),
        (
            "process.register",
            Response::Process(process::Response::Register(registered)),
        ),
        (
            "process.append",
            Response::Process(process::Response::Append(appended)),
        ),
        (
            "process.complete",
            Response::Process(process::Response::Complete(completed)),
        ),
        (
            "cluster.tick",
            Response::Cluster(cluster::Response::Tick(())),
        ),
        (
            "cluster.record_digest",
            Response::Cluster(cluster::Response::RecordDigest(())),
        ),
        (
            "cluster.found",
            Response::Cluster(cluster::Response::Found(())),
        ),
        (
            "cluster.allocate_node_id",
            Response::Cluster(cluster::Response::AllocateNodeId(4)),
        ),
    ]
}

fn not_found(subject: Subject) -> Refusal {
    Refusal::NotFound {
        subject,
        name: "p".to_owned(),
    }
}

fn fenced(current: Option<u64>) -> Refusal {
    Refusal::Fenced {
        subject: Subject::Lease,
        name: "lock".to_owned(),
        presented: 300,
        current,
    }
}

fn refusals() -> Vec<Refusal> {
    vec![
        InvalidArgument::new("ttl_ms", "is out of range", "1 to 10 ms", "11 ms").into(),
        not_found(Subject::Process),
        fenced(Some(301)),
        Refusal::Expired {
            subject: Subject::Item,
            name: "jobs/70000".to_owned(),
            token: 300,
            expired_at: Timestamp(12_000),
        },
        Refusal::Conflict {
            subject: Subject::Queue,
            name: "jobs".to_owned(),
            problem: "another one".to_owned(),
        },
        Refusal::Ended {
            process: "p".to_owned(),
            state: "failed".to_owned(),
        },
        Refusal::Exhausted {
            what: "items".to_owned(),
            limit: 10,
            actual: 11,
        },
        Refusal::RequestTooOld {
            floor: 9,
            not_before: 8,
        },
    ]
}

/// Every query.
pub fn queries() -> Vec<(&'static str, Query)> {
    let (prefix, limit) = ("pre".to_owned(), 50);
    let lock = name("lock");
    let items = queue::ListItems {
        queue: name("jobs"),
        state: Some(ItemState::Dead),
        after: Some(ItemId(70_000)),
        limit,
    };
    let list = lease::List {
        prefix: prefix.clone(),
        after: Some(lock.clone()),
        limit,
    };
    let queues = queue::List {
        prefix: prefix.clone(),
        after: Some(name("jobs")),
        limit,
    };
    let processes = process::List {
        prefix,
        state: Some(ProcessState::Failed),
        after: Some(name("p")),
        limit,
    };
    let item = queue::Get {
        queue: name("jobs"),
        item_id: ItemId(70_000),
    };
    let events = process::Events {
        id: name("p"),
        after: 7,
        limit,
    };
    vec![
        (
            "lease.get",
            Query::Lease(lease::Query::Get(lease::Get { key: lock.clone() })),
        ),
        ("lease.list", Query::Lease(lease::Query::List(list))),
        (
            "lease.history",
            Query::Lease(lease::Query::History(lease::HistoryOf { key: lock })),
        ),
        ("queue.get", Query::Queue(queue::Query::Get(item))),
        ("queue.list", Query::Queue(queue::Query::List(queues))),
        (
            "queue.list_items",
            Query::Queue(queue::Query::ListItems(items)),
        ),
        (
            "process.get",
            Query::Process(process::Query::Get(process::Get { id: name("p") })),
        ),
        (
            "process.list",
            Query::Process(process::Query::List(processes)),
        ),
        (
            "process.events",
            Query::Process(process::Query::Events(events)),
        ),
    ]
}

/// An answer to every query.
pub fn answers() -> Vec<(&'static str, Answer)> {
    let item = ClaimedItem {
        item: item_row(),
        payload: b"work".to_vec(),
    };
    let history = lease::Answer::History {
        history: history_row(),
        live: Some(lease_row()),
    };
    vec![
        (
            "lease.get",
            Answer::Lease(lease::Answer::Get(Some(lease_row()))),
        ),
        (
            "lease.list",
            Answer::Lease(lease::Answer::List(page(lease_row()))),
        ),
        ("lease.history", Answer::Lease(history)),
        (
            "queue.get",
            Answer::Queue(queue::Answer::Get(Some(item.clone()))),
        ),
        (
            "queue.list",
            Answer::Queue(queue::Answer::List(page(queue_row()))),
        ),
        (
            "queue.list_items",
            Answer::Queue(queue::Answer::ListItems(Some(page(item)))),
        ),
        (
            "process.get",
            Answer::Process(process::Answer::Get(Some(process_row()))),
        ),
        (
            "process.list",
            Answer::Process(process::Answer::List(page(process_row()))),
        ),
        (
            "process.events",
            Answer::Process(process::Answer::Events(Some(page(event_row())))),
        ),
    ]
}

fn page<T>(row: T) -> Page<T> {
    Page {
        rows: vec![row],
        next: Some("lock".to_owned()),
    }
}
