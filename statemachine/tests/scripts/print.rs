//! Values as one line of text each, every field shown.

use quorate_statemachine::lease::{
    self, Claimed, Ended, History, HistoryRow, Lease, Released, Renewed,
};
use quorate_statemachine::notice::Notice;
use quorate_statemachine::query::Page;
use quorate_statemachine::queue::{self, ClaimedItem, Item, ItemId, Queue, Settled};
use quorate_statemachine::{Answer, Owner, Refusal, Reply, Response, cluster};

use crate::{access, locks, processes, session_print};

/// The reply of an entry.
pub fn reply(reply: &Reply) -> String {
    match &reply.0 {
        Ok(response) => response_lines(response),
        Err(refusal) => refused(refusal),
    }
}

pub fn refused(refusal: &Refusal) -> String {
    format!("refused {}: {refusal}", refusal.code())
}

fn response_lines(response: &Response) -> String {
    match response {
        Response::Lease(response) => lease_response(response),
        Response::Queue(response) => queue_response(response),
        Response::Process(response) => processes::response(response),
        Response::Cluster(response) => cluster_response(response),
        Response::Lock(response) => locks::response(response),
        Response::Session(response) => session_print::response(response),
        Response::Access(response) => access::response(response),
        Response::Composite(responses) => {
            let lines = responses.iter().map(response_lines);
            format!("all {} steps done{}", responses.len(), numbered(lines))
        }
    }
}

fn cluster_response(response: &cluster::Response) -> String {
    match response {
        cluster::Response::Tick(()) => "ticked".to_owned(),
        cluster::Response::RecordDigest(()) => "recorded".to_owned(),
        cluster::Response::Found(()) => "founded".to_owned(),
        cluster::Response::AllocateNodeId(id) => format!("node id {id}"),
        cluster::Response::SetVersion(version) => format!("version {version}"),
        cluster::Response::HoldVersion(()) | cluster::Response::NoteAction(()) => "done".to_owned(),
    }
}

fn lease_response(response: &lease::Response) -> String {
    match response {
        lease::Response::Claim(Claimed::Granted(lease)) => format!("granted {}", lease_row(lease)),
        lease::Response::Claim(Claimed::Busy(lease)) => format!("busy {}", lease_row(lease)),
        lease::Response::Renew(renewal) => renewed(renewal),
        lease::Response::RenewMany(answers) => {
            let lines = answers.iter().map(|answer| match answer {
                Ok(renewal) => renewed(renewal),
                Err(refusal) => refused(refusal),
            });
            format!("{} answers{}", answers.len(), numbered(lines))
        }
        lease::Response::Release(Released::Released) => "released".to_owned(),
        lease::Response::Release(Released::NotHeld { current }) => {
            format!("not held, now {}", live(current.as_ref()))
        }
        lease::Response::Reclaim(lease) => format!("reclaimed {}", lease_row(lease)),
        lease::Response::Revoke(lease) => format!("revoked {}", lease_row(lease)),
    }
}

fn renewed(renewal: &Renewed) -> String {
    let Renewed {
        fencing_token,
        ttl_ms,
        expires_at,
    } = renewal;
    format!(
        "renewed fencing={fencing_token} ttl={ttl_ms} expires={}",
        expires_at.0
    )
}

fn queue_response(response: &queue::Response) -> String {
    match response {
        queue::Response::Push(pushed) => {
            let (id, known) = (
                item_id(pushed.item_id),
                if pushed.duplicate { " again" } else { "" },
            );
            format!("pushed{known} {id}")
        }
        queue::Response::Claim(items) => {
            format!(
                "claimed {} items{}",
                items.len(),
                numbered(items.iter().map(claimed_item))
            )
        }
        queue::Response::Renew(claim) => format!("renewed {}", item_claim(claim)),
        queue::Response::Settle(Settled::Done) => "settled done".to_owned(),
        queue::Response::Settle(Settled::Retried) => "settled retried".to_owned(),
        queue::Response::Settle(Settled::Dead) => "settled dead".to_owned(),
        queue::Response::Cancel(item) => format!("cancelled {}", item_row(item)),
        queue::Response::Requeue(item) => format!("requeued {}", item_row(item)),
    }
}

/// The answer to a query.
pub fn answer(answer: &Answer) -> String {
    match answer {
        Answer::Lease(lease::Answer::Get(lease)) => live(lease.as_ref()),
        Answer::Lease(lease::Answer::List(rows)) => page(rows, lease_row),
        Answer::Lease(lease::Answer::History { history, live: now }) => {
            format!("{}\nnow {}", self::history(history), live(now.as_ref()))
        }
        Answer::Lock(answer) => locks::answer(answer),
        Answer::Queue(queue::Answer::Get(item)) => item
            .as_ref()
            .map_or_else(|| "none".to_owned(), claimed_item),
        Answer::Queue(queue::Answer::List(rows)) => page(rows, queue_row),
        Answer::Queue(queue::Answer::ListItems(rows)) => rows.as_ref().map_or_else(
            || "no such queue".to_owned(),
            |rows| page(rows, claimed_item),
        ),
        Answer::Process(answer) => processes::answer(answer),
        Answer::Session(answer) => session_print::answer(answer),
        Answer::Access(answer) => access::answer(answer),
    }
}

pub fn page<T>(page: &Page<T>, line: impl Fn(&T) -> String) -> String {
    let next = page
        .next
        .as_ref()
        .map(|next| format!(", next page after {next}"));
    let lines = page.rows.iter().map(line);
    format!(
        "{} rows{}{}",
        page.rows.len(),
        next.unwrap_or_default(),
        numbered(lines)
    )
}

pub fn numbered(lines: impl Iterator<Item = String>) -> String {
    lines
        .enumerate()
        .map(|(at, line)| format!("\n  {at}: {}", line.replace('\n', "\n  ")))
        .collect()
}

/// A notice.
pub fn notice(notice: &Notice) -> String {
    match notice {
        Notice::LeaseGranted {
            key,
            owner_id,
            fencing_token,
        } => {
            format!("lease granted {key} owner={owner_id} fencing={fencing_token}")
        }
        Notice::LeaseEnded {
            key,
            owner_id,
            fencing_token,
            reason,
        } => {
            format!(
                "lease ended {key} owner={owner_id} fencing={fencing_token} {}",
                why(reason)
            )
        }
        Notice::QueueReady { queue } => format!("queue ready {queue}"),
        Notice::ItemSettled { queue, item_id: id } => {
            format!("item settled {queue} {}", item_id(*id))
        }
        Notice::EventAppended {
            process_id,
            sequence,
        } => {
            format!("event appended {process_id} sequence={sequence}")
        }
        Notice::ProcessChanged { process_id, ended } => {
            format!("process changed {process_id} ended={ended}")
        }
        Notice::DigestRecorded { digest } => format!("digest {digest}"),
        Notice::LockGranted {
            key,
            id,
            owner_id,
            fencing_token,
        } => format!(
            "lock granted {key} {} owner={owner_id} fencing={fencing_token}",
            locks::id(id)
        ),
        Notice::LockLeft {
            key,
            id,
            owner_id,
            end,
        } => format!(
            "lock left {key} {} owner={owner_id} {}",
            locks::id(id),
            locks::end(end)
        ),
        Notice::LockProclaimed { key, fencing_token } => {
            format!("lock proclaimed {key} fencing={fencing_token}")
        }
    }
}

fn why(reason: &lease::EndReason) -> String {
    match reason {
        lease::EndReason::Reclaimed { by } => format!("reclaimed by {by}"),
        lease::EndReason::Revoked { by } => format!("revoked by {by:?}"),
        other => other.as_str().to_owned(),
    }
}

fn live(lease: Option<&Lease>) -> String {
    lease.map_or_else(|| "free".to_owned(), lease_row)
}

/// A lease.
pub fn lease_row(lease: &Lease) -> String {
    format!(
        "{} {} token={} fencing={} epoch={} ttl={} granted={} renewed={} expires={} filed={} \
         renewals={}{}",
        lease.key,
        owner(&lease.owner),
        lease.lease_token.as_str(),
        lease.fencing_token,
        lease.epoch,
        lease.ttl_ms,
        lease.granted_at.0,
        lease.renewed_at.0,
        lease.expires_at.0,
        lease.filed_at.0,
        lease.renewals,
        bytes("metadata", &lease.metadata),
    )
}

/// The names of a key's ended grants.
pub fn history_row(row: &HistoryRow) -> String {
    let ended: Vec<String> = row
        .ended
        .iter()
        .map(|name| format!("{}:{:08x}", name.fencing_token, name.lease_token_hash))
        .collect();
    format!(
        "epoch={} last={} ended={}",
        row.epoch,
        row.last_ended_at.0,
        ended.join(",")
    )
}

/// The ended grants of a key.
pub fn history(history: &History) -> String {
    let lines = history.ended.iter().map(ended);
    format!(
        "epoch={} ended={}{}",
        history.epoch,
        history.ended.len(),
        numbered(lines)
    )
}

/// An ended grant.
pub fn ended(ended: &Ended) -> String {
    format!(
        "{} token={} fencing={} ttl={} granted={} renewed={} ended={} index={} {}",
        owner(&ended.owner),
        ended.lease_token.as_str(),
        ended.fencing_token,
        ended.ttl_ms,
        ended.granted_at.0,
        ended.renewed_at.0,
        ended.ended_at.0,
        ended.ended_index,
        why(&ended.reason),
    )
}

pub fn owner(owner: &Owner) -> String {
    let boot = match owner.incarnation_id == owner.owner_id {
        true => String::new(),
        false => format!("/{}", owner.incarnation_id),
    };
    let liveness = owner
        .liveness
        .as_ref()
        .map(|facts| format!(" liveness={facts:?}"));
    format!(
        "owner={}{boot}{}",
        owner.owner_id,
        liveness.unwrap_or_default()
    )
}

/// `3.1`: step 1 of entry 3.
pub fn item_id(id: ItemId) -> String {
    format!("{}.{}", id.0 >> 10, id.0 & 1023)
}

fn claimed_item(claimed: &ClaimedItem) -> String {
    format!(
        "{}{}",
        item_row(&claimed.item),
        bytes("payload", &claimed.payload)
    )
}

/// An item.
pub fn item_row(item: &Item) -> String {
    let dedupe = item.dedupe_key.as_ref().map(|key| format!(" dedupe={key}"));
    let claim = item
        .claim
        .as_ref()
        .map(|claim| format!(" claim[{}]", item_claim(claim)));
    format!(
        "{} {} priority={} attempts={}/{}{} pushed={} available={} bytes={}{}{}",
        item_id(item.item_id),
        item.state.as_str(),
        item.priority,
        item.attempts,
        item.max_attempts,
        dedupe.unwrap_or_default(),
        item.pushed_at.0,
        item.available_at.0,
        item.payload_bytes,
        claim.unwrap_or_default(),
        bytes("note", item.note.as_bytes()),
    )
}

fn item_claim(claim: &queue::ItemClaim) -> String {
    format!(
        "{} fencing={} ttl={} claimed={} expires={} filed={}",
        owner(&claim.owner),
        claim.fencing_token,
        claim.ttl_ms,
        claim.claimed_at.0,
        claim.expires_at.0,
        claim.filed_at.0,
    )
}

/// A queue.
pub fn queue_row(queue: &Queue) -> String {
    format!(
        "{} created={} changed={} ready={} delayed={} claimed={} dead={} done={} dedupe_keys={}",
        queue.name,
        queue.created_at.0,
        queue.changed_at.0,
        queue.ready,
        queue.delayed,
        queue.claimed,
        queue.dead,
        queue.done,
        queue.dedupe_keys,
    )
}

pub fn bytes(field: &str, bytes: &[u8]) -> String {
    if bytes.is_empty() {
        String::new()
    } else {
        format!(" {field}={}", text(bytes))
    }
}

/// Quoted text, or a count when it is long.
pub fn text(bytes: &[u8]) -> String {
    if bytes.len() > 64 {
        return format!("({} bytes)", bytes.len());
    }
    format!("\"{}\"", bytes.escape_ascii())
}
