//! An answer of every operation, and every refusal.

use quorate_statemachine::lease::{self, Claimed, Released, Renewed};
use quorate_statemachine::queue::{self, ClaimedItem, ItemId};
use quorate_statemachine::{
    InvalidArgument, Refusal, Reply, Response, Subject, Timestamp, cluster,
};

use super::access::{access_responses, denied};
use super::locks::{lock_refusal, lock_responses};
use super::processes::process_responses;
use super::rows::{item_claim, item_row, lease_row};
use super::session_answers::{session_refusals, session_responses};

/// An answer of every operation, named after it, then every refusal, named after its code.
pub fn replies() -> Vec<(String, Reply)> {
    let mut all: Vec<(String, Reply)> = responses()
        .into_iter()
        .map(|(name, response)| (name.to_owned(), Reply(Ok(response))))
        .collect();
    // What the cluster itself is asked for since is no step of a composite.
    let later = [
        "cluster.set_version",
        "cluster.hold_version",
        "cluster.note_action",
    ];
    let steps = responses()
        .into_iter()
        .filter(|(name, _)| !later.contains(name))
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
    all.extend(lock_replies());
    all.extend(session_replies());
    let access = access_responses().into_iter();
    all.extend(
        access.map(|(name, response)| (name.to_owned(), Reply(Ok(Response::Access(response))))),
    );
    all.push(("refusal denied".to_owned(), Reply(Err(denied()))));
    all
}

/// Those of sessions.
fn session_replies() -> Vec<(String, Reply)> {
    let responses = || {
        let all = session_responses().into_iter();
        all.map(|(name, response)| (name, Response::Session(response)))
    };
    let mut all: Vec<(String, Reply)> = responses()
        .map(|(name, response)| (name.to_owned(), Reply(Ok(response))))
        .collect();
    let steps = Response::Composite(responses().map(|(_, response)| response).collect());
    all.push(("composite_session".to_owned(), Reply(Ok(steps))));
    let refusals = session_refusals().into_iter();
    all.extend(refusals.map(|(name, refusal)| (name.to_owned(), Reply(Err(refusal)))));
    all
}

/// Those of locks; the composite above was pinned before there were any.
fn lock_replies() -> Vec<(String, Reply)> {
    let responses = lock_responses().into_iter();
    let mut all: Vec<(String, Reply)> = responses
        .map(|(name, response)| (name, Reply(Ok(Response::Lock(response)))))
        .collect();
    let steps = lock_responses().into_iter();
    let steps = steps
        .map(|(_, response)| Response::Lock(response))
        .collect();
    all.push((
        "composite_lock".to_owned(),
        Reply(Ok(Response::Composite(steps))),
    ));
    all.push(("refusal of a lock".to_owned(), Reply(Err(lock_refusal()))));
    all
}

fn responses() -> Vec<(&'static str, Response)> {
    let leases = lease_responses()
        .into_iter()
        .map(|(name, r)| (name, Response::Lease(r)));
    let queues = queue_responses()
        .into_iter()
        .map(|(name, r)| (name, Response::Queue(r)));
    let processes = process_responses()
        .into_iter()
        .map(|(name, r)| (name, Response::Process(r)));
    let cluster = cluster_responses()
        .into_iter()
        .map(|(name, r)| (name, Response::Cluster(r)));
    leases
        .chain(queues)
        .chain(processes)
        .chain(cluster)
        .collect()
}

fn lease_responses() -> Vec<(&'static str, lease::Response)> {
    use lease::Response::{Claim, Reclaim, Release, Renew, RenewMany, Revoke};
    let renewed = Renewed {
        fencing_token: 300,
        ttl_ms: 10_000,
        expires_at: Timestamp(12_000),
    };
    let renewals = vec![Ok(renewed.clone()), Err(fenced(Some(301)))];
    let not_held = Released::NotHeld {
        current: Some(lease_row()),
    };
    vec![
        ("lease.claim", Claim(Claimed::Granted(lease_row()))),
        ("lease.claim busy", Claim(Claimed::Busy(lease_row()))),
        ("lease.renew", Renew(renewed)),
        ("lease.renew_many", RenewMany(renewals)),
        ("lease.release", Release(Released::Released)),
        ("lease.release not held", Release(not_held)),
        ("lease.reclaim", Reclaim(lease_row())),
        ("lease.revoke", Revoke(lease_row())),
    ]
}

fn queue_responses() -> Vec<(&'static str, queue::Response)> {
    use queue::Response::{Cancel, Claim, Push, Renew, Requeue, Settle};
    let item = ClaimedItem {
        item: item_row(),
        payload: b"work".to_vec(),
    };
    let pushed = queue::Pushed {
        item_id: ItemId(70_000),
        duplicate: true,
    };
    vec![
        ("queue.push", Push(pushed)),
        ("queue.claim", Claim(vec![item])),
        ("queue.renew", Renew(item_claim())),
        ("queue.settle", Settle(queue::Settled::Dead)),
        ("queue.cancel", Cancel(item_row())),
        ("queue.requeue", Requeue(item_row())),
    ]
}

fn cluster_responses() -> Vec<(&'static str, cluster::Response)> {
    use cluster::Response::{
        AllocateNodeId, Found, HoldVersion, NoteAction, RecordDigest, SetVersion, Tick,
    };
    vec![
        ("cluster.tick", Tick(())),
        ("cluster.record_digest", RecordDigest(())),
        ("cluster.found", Found(())),
        ("cluster.allocate_node_id", AllocateNodeId(4)),
        ("cluster.set_version", SetVersion(2)),
        ("cluster.hold_version", HoldVersion(())),
        ("cluster.note_action", NoteAction(())),
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
