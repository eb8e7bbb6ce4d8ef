//! A row of every table.

use std::collections::VecDeque;

use quorate_statemachine::Timestamp;
use quorate_statemachine::codec;
use quorate_statemachine::digest::Digest;
use quorate_statemachine::lease::{EndReason, Ended, EndedName, History, HistoryRow, Lease};
use quorate_statemachine::process::{ProcessState, SessionRow};
use quorate_statemachine::queue::{Item, ItemClaim, ItemId, ItemState, Queue};
use quorate_statemachine::tables::{
    self, DedupeRow, DueKind, Key, MetaRow, RequestRow, Table, VersionRow,
};
use quorate_statemachine::version::version_key;

use super::access::access_rows;
use super::locks::{ID, holder_row, holding, lock_row, waiter_row, waiting};
use super::processes::{event_row, grant_row, process_row};
use super::sessions::{session_row_forms, session_rows};
use super::{name, owner, token};

pub fn lease_row() -> Lease {
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

pub fn history_row() -> HistoryRow {
    let ended = (1..6).map(|fencing_token| EndedName {
        fencing_token,
        lease_token_hash: 0x1234_5678,
    });
    HistoryRow {
        epoch: 5,
        last_ended_at: Timestamp(3_000),
        ended: ended.collect(),
    }
}

pub fn history() -> History {
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

pub fn item_claim() -> ItemClaim {
    ItemClaim {
        owner: owner(),
        fencing_token: 301,
        ttl_ms: 10_000,
        claimed_at: Timestamp(3_000),
        expires_at: Timestamp(13_000),
        filed_at: Timestamp(12_000),
    }
}

pub fn item_row() -> Item {
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

pub fn queue_row() -> Queue {
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
        queues: 3,
        processes: 4,
        lock_members: 7,
        sessions: 8,
        oldest_request_at: Timestamp(900),
    }
}

/// A row of every table: table, key, value.
pub fn rows() -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let (jobs, p, k1, item) = (name("jobs"), name("p"), name("k1"), ItemId(70_000));
    let lock = name("lock");
    let remembered = RequestRow {
        index: 302,
        at: Timestamp(1_000),
        reply: vec![1, 2, 3],
    };
    let dedupe = DedupeRow {
        item_id: item,
        present: true,
    };
    let session = SessionRow {
        grants: 3,
        wake_targets: 2,
    };
    let mut all = vec![
        row(tables::meta_key(), &meta_row()),
        row(
            tables::due_key(Timestamp(11_000), DueKind::Lease, b"lock"),
            &(),
        ),
        row(tables::request_key(ID), &remembered),
        row(tables::request_age_key(302, ID), &(Timestamp(1_000), 3)),
        row(
            version_key(),
            &VersionRow {
                version: 2,
                held: true,
            },
        ),
        row(tables::lease_key(&name("lock")), &lease_row()),
        row(tables::history_key(&name("lock")), &history_row()),
        row(
            tables::ended_key(&name("lock"), 1),
            &ended(1, EndReason::Released),
        ),
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
        row(tables::definition_key(&p), &b"definition".to_vec()),
        row(tables::event_type_key(&p, &k1, 7), &()),
        row(tables::wake_key(&p, 7), &()),
        row(tables::grant_key(&lock, &p), &grant_row()),
        row(tables::grant_of_process_key(&grant_row()), &()),
        row(tables::grant_of_session_key(&grant_row()), &()),
        row(tables::wake_target_key(&lock, &p), &()),
        row(tables::session_key(&lock), &session),
        row(tables::lock_key(&lock), &lock_row()),
        row(tables::lock_member_key(&lock, ID), &holder_row()),
        row(tables::lock_order_key(&lock, holding(), ID), &()),
        row(tables::lock_owner_key(&owner(), &lock, ID), &()),
    ];
    all.extend(session_rows());
    all.extend(access_rows());
    all
}

/// Other forms of rows: members that wait, what of a lock may be due, and those of sessions.
pub fn row_forms() -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let (lock, at) = (name("lock"), Timestamp(11_000));
    let member = tables::due_key(at, DueKind::LockMember, &tables::lock_subject(&lock, ID));
    let hand_over = tables::due_key(at, DueKind::LockHandOver, b"lock");
    let forms = [
        (
            "lock_members waiting",
            row(tables::lock_member_key(&lock, ID), &waiter_row()),
        ),
        (
            "lock_order waiting",
            row(tables::lock_order_key(&lock, waiting(), ID), &()),
        ),
        ("due lock member", row(member, &())),
        ("due lock hand-over", row(hand_over, &())),
    ];
    let forms = forms.into_iter().chain(session_row_forms());
    forms
        .map(|(name, (_, key, value))| (name, key, value))
        .collect()
}

pub fn row<T: Table>(key: Key<T>, row: &T::Row) -> (&'static str, Vec<u8>, Vec<u8>) {
    (
        T::NAME,
        key.bytes().to_vec(),
        codec::encode(T::TAG.into(), row),
    )
}
