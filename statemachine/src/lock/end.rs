//! How a member's time with a lock ends, and what is remembered of it.

use serde::{Deserialize, Serialize};

use super::deadlock::Link;
use super::row::remove_member;
use super::{Acquired, Lock, Member, Response};
use crate::command::{self, Reply};
use crate::context::Context;
use crate::fencing::FencingToken;
use crate::notice::Notice;
use crate::refusal::{Broken, Failure, Refusal, Subject};
use crate::request::{self, RequestId};
use crate::tables::{DueKind, MetaRow, due_key};
use crate::time::Timestamp;
use crate::transaction::Transaction;

/// Why a member waits or holds no longer. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// Its holder gave it back.
    Released {
        /// The token of the hold.
        fencing_token: FencingToken,
    },
    /// The hold's time to live ran out.
    Expired {
        /// The token of the hold.
        fencing_token: FencingToken,
        /// When.
        at: Timestamp,
    },
    /// An operator ended the hold.
    Revoked {
        /// The token of the hold.
        fencing_token: FencingToken,
        /// Who, or why, in the operator's words.
        by: String,
    },
    /// The wait was cancelled, perhaps before it began.
    Cancelled,
    /// It waited as long as it was told to.
    GaveUp,
    /// Nobody kept its place in the queue.
    WaiterDied,
    /// Its wait closed a circle in which nobody could ever go on.
    Deadlock {
        /// Who waits for what; each key is held by the next owner, the last one's by the first.
        cycle: Vec<Link>,
    },
}

impl End {
    /// The word for scripts and people.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Released { .. } => "released",
            Self::Expired { .. } => "expired",
            Self::Revoked { .. } => "revoked",
            Self::Cancelled => "cancelled",
            Self::GaveUp => "gave_up",
            Self::WaiterDied => "waiter_died",
            Self::Deadlock { .. } => "deadlock",
        }
    }
}

/// Takes `member` out of `lock`, remembers why, and tells those who wait for it to happen. The
/// caller hands the lock over and stores it.
pub(super) fn end(
    tx: &mut Transaction<'_>,
    meta: &mut MetaRow,
    ctx: &Context,
    lock: &mut Lock,
    member: &Member,
    end: End,
) -> Result<(), Broken> {
    remove_member(tx, meta, lock, member)?;
    if let End::Expired { at, .. } = end
        && member.delay_ms > 0
    {
        let until = at.plus(member.delay_ms);
        lock.blocked_until = lock.blocked_until.max(until);
        file_hand_over(tx, lock, lock.blocked_until)?;
    }
    remember(tx, meta, ctx, member.id.id, &end)?;
    tx.notify(Notice::LockLeft {
        key: lock.key.clone(),
        id: member.id.id,
        owner_id: member.owner.owner_id.clone(),
        end,
    });
    Ok(())
}

/// Has the sweep look at the lock's queue at `at`.
pub(super) fn file_hand_over(
    tx: &mut Transaction<'_>,
    lock: &Lock,
    at: Timestamp,
) -> Result<(), Broken> {
    let subject = lock.key.as_str().as_bytes();
    tx.put(&due_key(at, DueKind::LockHandOver, subject), &())
}

/// Makes every later acquisition under `id` be told `end`.
pub(super) fn remember(
    tx: &mut Transaction<'_>,
    meta: &mut MetaRow,
    ctx: &Context,
    id: [u8; 16],
    end: &End,
) -> Result<(), Broken> {
    let over = Response::Acquire(Acquired::Over(end.clone()));
    let reply = Reply(Ok(command::Response::Lock(over)));
    request::remember(tx, meta, ctx, id, &reply)
}

/// What became of the acquisition `id`, if it is over and not forgotten.
pub(super) fn remembered(
    tx: &mut Transaction<'_>,
    id: [u8; 16],
    name: &str,
) -> Result<Option<End>, Failure> {
    match request::answer_of(tx, id)? {
        None => Ok(None),
        Some(Reply(Ok(command::Response::Lock(Response::Acquire(Acquired::Over(end)))))) => {
            Ok(Some(end))
        }
        Some(_) => Err(Failure::Refused(Refusal::Conflict {
            subject: Subject::Lock,
            name: name.to_owned(),
            problem: "the acquisition's id was used for another request; mint a new one".to_owned(),
        })),
    }
}

/// Refuses an acquisition so old that its end may have been forgotten.
pub(super) fn refuse_too_old(meta: &MetaRow, id: &RequestId) -> Result<(), Refusal> {
    if id.not_before >= meta.requests_floor {
        return Ok(());
    }
    Err(Refusal::RequestTooOld {
        floor: meta.requests_floor,
        not_before: id.not_before,
    })
}
