//! Request ids and the answered-requests table: a retried command answers what it answered first.
//!
//! A command that carries a [`RequestId`] is executed at most once. Its reply is remembered for
//! [`REQUEST_RETENTION_MS`] of cluster time, within [`REQUESTS_MAX`] and [`REQUEST_BYTES_MAX`]. So
//! that forgetting can never turn a late retry into a second execution, the id also carries a log
//! index that its minter had seen when it minted the id: the first try was executed above it. If
//! answers from above that index may have been dropped already and the id is not found, the command
//! is refused with [`Refusal::RequestTooOld`] instead of being executed again. (The Raft thesis,
//! section 6.3, solves the same with sessions that expire; here nothing has to be opened first.)
//!
//! Commands with an identity of their own (a lease's token, a queue's dedupe key, an event's
//! idempotency key) are safe to repeat without this table. An acquisition of a lock keeps its end
//! here ([`crate::lock`]): by the same rule it is told of it, or refused, and never done again.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use crate::codec;
use crate::command::Reply;
use crate::context::Context;
use crate::limits::{
    REQUEST_BYTES_MAX, REQUEST_EVICTIONS_MAX, REQUEST_RETENTION_MS, REQUEST_SLACK_MS, REQUESTS_MAX,
};
use crate::refusal::{Broken, Refusal};
use crate::tables::{
    Key, MetaRow, PREFIX_BYTES, RequestRow, Requests, RequestsByAge, Table, request_age_key,
    request_key,
};
use crate::time::Timestamp;
use crate::transaction::Transaction;

/// The caller's name for one execution of one command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RequestId {
    /// Minted by the caller, never used for another command. Usually a UUID.
    pub id: [u8; 16],
    /// A log index that the caller had seen applied when it minted the id.
    pub not_before: u64,
}

/// What is known of a request before it is executed.
#[allow(
    clippy::large_enum_variant,
    reason = "it lives for the length of one look-up"
)]
pub(crate) enum Known {
    /// Nothing: execute it.
    New,
    /// It was executed; this is what it answered.
    Answered(Reply),
}

/// Looks an id up.
pub(crate) fn look_up(
    tx: &mut Transaction<'_>,
    meta: &MetaRow,
    id: &RequestId,
) -> Result<Known, Broken> {
    if let Some(reply) = answer_of(tx, id.id)? {
        return Ok(Known::Answered(reply));
    }
    if id.not_before < meta.requests_floor {
        return Ok(Known::Answered(Reply(Err(Refusal::RequestTooOld {
            floor: meta.requests_floor,
            not_before: id.not_before,
        }))));
    }
    Ok(Known::New)
}

/// What was answered under an id, if it is remembered.
pub(crate) fn answer_of(tx: &mut Transaction<'_>, id: [u8; 16]) -> Result<Option<Reply>, Broken> {
    let Some(row) = tx.get(&request_key(id))? else {
        return Ok(None);
    };
    let reply = codec::decode(Reply::TAG, &row.reply)
        .map_err(|error| Broken(format!("a remembered answer cannot be read: {error}")))?;
    Ok(Some(reply))
}

/// Remembers an answer, unless the id has one.
pub(crate) fn remember(
    tx: &mut Transaction<'_>,
    meta: &mut MetaRow,
    ctx: &Context,
    id: [u8; 16],
    reply: &Reply,
) -> Result<(), Broken> {
    let key = request_key(id);
    if tx.exists(&key)? {
        return Ok(());
    }
    let row = RequestRow {
        index: ctx.index,
        at: ctx.now,
        reply: codec::encode(Reply::TAG, reply),
    };
    let bytes = row.reply.len() as u64;
    tx.put(&key, &row)?;
    tx.put_new(&request_age_key(ctx.index, id), &(ctx.now, bytes))?;
    if meta.requests == 0 {
        meta.oldest_request_at = ctx.now;
    }
    meta.requests += 1;
    meta.request_bytes += bytes;
    Ok(())
}

/// Drops answers that are too old or too many, oldest first, a bounded number at a time: they are
/// read from the disk, so that it is worth to wait until there are several.
pub(crate) fn evict(
    tx: &mut Transaction<'_>,
    meta: &mut MetaRow,
    now: Timestamp,
) -> Result<(), Broken> {
    let over = meta.requests > REQUESTS_MAX || meta.request_bytes > REQUEST_BYTES_MAX;
    let late = now.since(meta.oldest_request_at) >= REQUEST_RETENTION_MS + REQUEST_SLACK_MS;
    if meta.requests == 0 || !(over || late) {
        return Ok(());
    }
    for (key, at, size) in oldest(tx, meta)? {
        let (index, id) = parts_of(&key);
        meta.oldest_request_at = at;
        let keep = !over && now.since(at) < REQUEST_RETENTION_MS;
        if keep {
            break;
        }
        tx.delete(&request_age_key(index, id))?;
        tx.delete(&request_key(id))?;
        meta.requests -= 1;
        meta.request_bytes -= size;
        assert!(index >= meta.requests_floor, "answers are dropped in order");
        meta.requests_floor = index;
    }
    Ok(())
}

/// The oldest answers: key, when they were given, and their bytes. Nothing is left below the floor,
/// where a scan would only meet what was removed.
fn oldest(tx: &Transaction<'_>, meta: &MetaRow) -> Result<Vec<(Vec<u8>, Timestamp, u64)>, Broken> {
    let mut found = Vec::with_capacity(REQUEST_EVICTIONS_MAX);
    let from = Key::<RequestsByAge>::first().number(meta.requests_floor);
    let end = Key::<RequestsByAge>::first().end();
    tx.scan(&from, &end, &mut |key, (at, size)| {
        found.push((key.to_vec(), at, size));
        if found.len() == REQUEST_EVICTIONS_MAX {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

fn parts_of(key: &[u8]) -> (u64, [u8; 16]) {
    let own = key.get(PREFIX_BYTES..).unwrap_or_default();
    let parts = own.split_first_chunk::<8>();
    let parts = parts.and_then(|(index, id)| Some((*index, <[u8; 16]>::try_from(id).ok()?)));
    let (index, id) = parts.expect("a key of this table is a prefix, eight bytes and sixteen");
    (u64::from_be_bytes(index), id)
}

const _: () = assert!(Requests::TAG < RequestsByAge::TAG);
