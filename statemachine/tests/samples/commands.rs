//! Every operation, a composite and a full envelope.

use quorate_statemachine::queue::{self, ItemId};
use quorate_statemachine::{Action, Command, Precondition, RequestId, cluster, lease};

use super::access::access_actions;
use super::locks::{acquires, lock_actions, release};
use super::processes::{process_actions, process_append};
use super::session_commands::{session_actions, session_forms};
use super::{name, owner, token};

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
    all.extend(lock_commands());
    all.extend(session_commands());
    all
}

/// What sessions add to the two above, and forms of their operations.
fn session_commands() -> Vec<(String, Command)> {
    let forms = session_forms().into_iter();
    let mut all: Vec<(String, Command)> = forms
        .map(|(name, action)| (name.to_owned(), action.into()))
        .collect();
    let composite = Action::Composite(session_actions());
    all.push(("composite_session".to_owned(), composite.into()));
    all
}

/// What locks add to the two above, and forms of the acquisition.
fn lock_commands() -> Vec<(String, Command)> {
    let forms = acquires().into_iter();
    let mut all: Vec<(String, Command)> = forms
        .map(|(name, acquire)| (name.to_owned(), acquire.into()))
        .collect();
    let steps = vec![process_append().into(), release().into()];
    all.push(("composite_lock".to_owned(), Action::Composite(steps).into()));
    let fenced = Command::from(process_append()).require(Precondition::Lock {
        key: name("lock"),
        token: 300,
    });
    all.push(("envelope_lock".to_owned(), fenced));
    let known = Command::from(process_append()).require(Precondition::Process { id: name("p") });
    all.push(("envelope_process".to_owned(), known));
    all
}

fn actions() -> Vec<Action> {
    [
        lease_actions(),
        queue_actions(),
        process_actions(),
        cluster_actions(),
        lock_actions(),
        session_actions(),
        access_actions(),
    ]
    .concat()
}

fn lease_actions() -> Vec<Action> {
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
    ]
}

fn queue_actions() -> Vec<Action> {
    let (queue, item_id) = (name("jobs"), ItemId(70_000));
    let claim = queue::Claim {
        queue: queue.clone(),
        owner: owner(),
        ttl_ms: 10_000,
        max: 5,
    };
    let renew = queue::Renew {
        queue: queue.clone(),
        item_id,
        fencing_token: 301,
        ttl_ms: 10_000,
    };
    vec![
        queue_push().into(),
        claim.into(),
        renew.into(),
        queue_settle().into(),
        queue::Cancel {
            queue: queue.clone(),
            item_id,
        }
        .into(),
        queue::Requeue { queue, item_id }.into(),
    ]
}

fn cluster_actions() -> Vec<Action> {
    vec![
        cluster::Tick {}.into(),
        cluster::RecordDigest {}.into(),
        cluster::Found {
            cluster_id: name("c1"),
            node_id: 3,
        }
        .into(),
        cluster::AllocateNodeId {}.into(),
        cluster::SetVersion { version: 2 }.into(),
        cluster::HoldVersion { held: true }.into(),
        cluster::NoteAction {
            action: "member remove 3".to_owned(),
        }
        .into(),
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
