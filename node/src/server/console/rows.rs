//! What the page gets of each thing, as JSON. Numbers of 64 bits that a browser would round are
//! text. The proofs of holders (lease tokens, ids of acquisitions) are never shown.

use quorate_rpc::v1;
use quorate_statemachine::lease::{EndReason, Ended, Lease};
use quorate_statemachine::lock::{LockView, Member, Place};
use quorate_statemachine::process::{Event, ProcessView};
use quorate_statemachine::query::Page;
use quorate_statemachine::queue::{ClaimedItem, Queue};
use serde_json::{Value, json};

/// Bytes of a payload that are shown.
const SHOWN_BYTES_MAX: usize = 2_048;

/// A page of a listing.
pub fn page<T>(page: &Page<T>, row: impl Fn(&T) -> Value) -> Value {
    let rows: Vec<_> = page.rows.iter().map(row).collect();
    json!({"rows": rows, "more": page.next.is_some()})
}

/// This node.
pub fn node(status: &v1::NodeStatus) -> Value {
    json!({
        "id": status.id.to_string(),
        "name": status.name,
        "cluster_id": status.cluster_id,
        "role": status.role,
        "term": status.term,
        "last_log": status.last_log,
        "applied": status.applied,
        "snapshot": status.snapshot,
        "digest": status.digest,
        "version": status.version,
        "leases": status.leases,
        "uptime_ms": status.uptime_ms,
        "healthy": status.healthy,
    })
}

/// A member as this node knows it: the leader alone knows how far the others are.
pub fn member(member: &v1::Member, status: &v1::NodeStatus) -> Value {
    let here = member.id == status.id;
    let role = match (member.leader, member.voter) {
        (true, _) => "leader",
        (false, true) => "follower",
        (false, false) => "learner",
    };
    let reached = match here {
        true => Some(status.applied),
        false => (member.matched > 0).then_some(member.matched),
    };
    json!({
        "id": member.id.to_string(),
        "name": member.name,
        "client": member.client_addr,
        "http": member.http_addr,
        "role": role,
        "here": here,
        "reached": reached,
        "lag": reached.map(|reached| status.last_log.saturating_sub(reached)),
    })
}

/// What is wrong with this node.
pub fn alarm(alarm: &v1::Alarm) -> Value {
    json!({"kind": alarm.kind, "text": alarm.text})
}

/// A live lease.
pub fn lease(lease: &Lease) -> Value {
    json!({
        "key": lease.key.as_str(),
        "owner": lease.owner.owner_id.as_str(),
        "incarnation": lease.owner.incarnation_id.as_str(),
        "token": lease.fencing_token.to_string(),
        "ttl_ms": lease.ttl_ms,
        "granted_at": lease.granted_at.0,
        "renewed_at": lease.renewed_at.0,
        "expires_at": lease.expires_at.0,
        "renewals": lease.renewals,
    })
}

/// A grant that is over.
pub fn ended(ended: &Ended) -> Value {
    let by = match &ended.reason {
        EndReason::Reclaimed { by } => Some(by.as_str()),
        EndReason::Revoked { by } => Some(by.as_str()),
        EndReason::Expired | EndReason::Released | EndReason::Superseded => None,
    };
    json!({
        "owner": ended.owner.owner_id.as_str(),
        "incarnation": ended.owner.incarnation_id.as_str(),
        "token": ended.fencing_token.to_string(),
        "ttl_ms": ended.ttl_ms,
        "granted_at": ended.granted_at.0,
        "renewed_at": ended.renewed_at.0,
        "ended_at": ended.ended_at.0,
        "reason": ended.reason.as_str(),
        "by": by,
    })
}

/// A lock with its holders.
pub fn lock(view: &LockView) -> Value {
    json!({
        "key": view.lock.key.as_str(),
        "held": view.lock.holders,
        "waiters": view.lock.waiters,
        "holders": view.holders.iter().map(lock_member).collect::<Vec<_>>(),
    })
}

/// Who holds a lock or waits for it.
pub fn lock_member(member: &Member) -> Value {
    let (token, granted_at) = match member.place {
        Place::Waiting { .. } => (None, None),
        Place::Holding {
            fencing_token,
            granted_at,
            ..
        } => (Some(fencing_token.to_string()), Some(granted_at.0)),
    };
    json!({
        "owner": member.owner.owner_id.as_str(),
        "mode": member.mode.as_str(),
        "token": token,
        "granted_at": granted_at,
        "asked_at": member.asked_at.0,
        "expires_at": member.expires_at.0,
    })
}

/// A process.
pub fn process(view: &ProcessView) -> Value {
    let process = &view.process;
    json!({
        "id": process.id.as_str(),
        "state": process.state.as_str(),
        "created_at": process.created_at.0,
        "updated_at": process.updated_at.0,
        "events": process.last_sequence,
        "outcome": process.outcome.as_deref().and_then(shown),
        "waits": process.wait.as_deref().and_then(shown),
    })
}

/// An event of a process.
pub fn event(event: &Event) -> Value {
    json!({
        "sequence": event.sequence,
        "type": event.event_type.as_str(),
        "at": event.at.0,
        "key": event.key.as_ref().map(quorate_statemachine::Name::as_str),
        "payload": shown(&event.payload),
    })
}

/// A queue; `ready_since` is of the item that is next in line.
pub fn queue(queue: &Queue, ready_since: Option<u64>) -> Value {
    json!({
        "name": queue.name.as_str(),
        "ready": queue.ready,
        "delayed": queue.delayed,
        "claimed": queue.claimed,
        "dead": queue.dead,
        "done": queue.done,
        "ready_since": ready_since,
    })
}

/// An item of a queue.
pub fn item(claimed: &ClaimedItem) -> Value {
    let item = &claimed.item;
    json!({
        "item": item.item_id.to_string(),
        "state": item.state.as_str(),
        "priority": item.priority,
        "attempts": item.attempts,
        "pushed_at": item.pushed_at.0,
        "note": item.note,
        "payload": shown(&claimed.payload),
    })
}

/// The beginning of a payload as text, and how long it is; none if it is empty.
fn shown(bytes: &[u8]) -> Option<String> {
    if bytes.is_empty() {
        return None;
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Some(format!("{} bytes that are no text", bytes.len()));
    };
    if text.len() <= SHOWN_BYTES_MAX {
        return Some(text.to_owned());
    }
    let beginning = &text[..text.floor_char_boundary(SHOWN_BYTES_MAX)];
    Some(format!("{beginning}… ({} bytes in all)", text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_shown_as_text_and_never_at_any_length() {
        assert_eq!(shown(b""), None);
        assert_eq!(shown(b"{\"a\":1}").as_deref(), Some("{\"a\":1}"));
        assert_eq!(
            shown(&[0xff, 0]).as_deref(),
            Some("2 bytes that are no text")
        );
        let long = shown("ä".repeat(SHOWN_BYTES_MAX).as_bytes()).expect("it is not empty");
        assert!(long.ends_with("ä… (4096 bytes in all)"), "{long}");
    }
}
