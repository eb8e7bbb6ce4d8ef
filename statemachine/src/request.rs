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
//! idempotency key) are safe to repeat without this table.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use crate::codec;
use crate::command::Reply;
use crate::context::Context;
use crate::limits::{REQUEST_BYTES_MAX, REQUEST_EVICTIONS_MAX, REQUEST_RETENTION_MS, REQUESTS_MAX};
use crate::refusal::{Broken, Refusal};
use crate::tables::{
    MetaRow, RequestRow, Requests, RequestsByAge, Table, request_age_key, request_key,
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
    if let Some(row) = tx.get(&request_key(id))? {
        let reply = codec::decode(Reply::TAG, &row.reply)
            .map_err(|error| Broken(format!("a remembered answer cannot be read: {error}")))?;
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

/// Remembers an answer.
pub(crate) fn remember(
    tx: &mut Transaction<'_>,
    meta: &mut MetaRow,
    ctx: &Context,
    id: &RequestId,
    reply: &Reply,
) -> Result<(), Broken> {
    let row = RequestRow {
        index: ctx.index,
        at: ctx.now,
        reply: codec::encode(Reply::TAG, reply),
    };
    let bytes = row.reply.len() as u64;
    tx.put(&request_key(id), &row)?;
    tx.put(&request_age_key(ctx.index), &(id.id, ctx.now, bytes))?;
    meta.requests += 1;
    meta.request_bytes += bytes;
    Ok(())
}

/// Drops answers that are too old or too many, oldest first, a bounded number.
pub(crate) fn evict(
    tx: &mut Transaction<'_>,
    meta: &mut MetaRow,
    now: Timestamp,
) -> Result<(), Broken> {
    if meta.requests == 0 {
        return Ok(());
    }
    let mut oldest = Vec::new();
    let first = crate::tables::Key::<RequestsByAge>::first();
    let end = crate::tables::Key::<RequestsByAge>::first().end();
    let (mut count, mut bytes) = (meta.requests, meta.request_bytes);
    tx.scan(&first, &end, &mut |key, (id, at, size)| {
        let over = count > REQUESTS_MAX || bytes > REQUEST_BYTES_MAX;
        if !over && now.since(at) < REQUEST_RETENTION_MS {
            return ControlFlow::Break(());
        }
        count -= 1;
        bytes -= size;
        oldest.push((index_of(key), id, size));
        if oldest.len() == REQUEST_EVICTIONS_MAX {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    for (index, id, size) in oldest {
        tx.delete(&request_age_key(index))?;
        tx.delete(&crate::tables::Key::<Requests>::first().raw(&id))?;
        meta.requests -= 1;
        meta.request_bytes -= size;
        assert!(index >= meta.requests_floor, "answers are dropped in order");
        meta.requests_floor = index;
    }
    Ok(())
}

fn index_of(key: &[u8]) -> u64 {
    let own = key
        .get(crate::tables::PREFIX_BYTES..)
        .and_then(|own| own.first_chunk::<8>());
    u64::from_be_bytes(*own.expect("a key of this table is a prefix and eight bytes"))
}

const _: () = assert!(Requests::TAG < RequestsByAge::TAG);
