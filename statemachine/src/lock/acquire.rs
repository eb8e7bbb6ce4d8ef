//! Acquire: get the lock, or a place in its queue.

use serde::{Deserialize, Serialize};

use super::end::{end, file_hand_over, refuse_too_old, remember, remembered};
use super::hand_over::{end_overdue_holders, hand_over, lock_row};
use super::row::{
    acquisitions_of, hold, hold_with, holders, holders_with, insert_member, store, store_moved,
};
use super::{End, Lock, Member, Mode, Place, deadlock};
use crate::command::Validate;
use crate::context::Context;
use crate::fencing::FencingToken;
use crate::figure::Figure;
use crate::id::{Name, Owner};
use crate::limits::{
    LIVENESS_BYTES_MAX, LOCK_DELAY_MS_MAX, LOCK_HOLDERS_MAX, LOCK_HOLDERS_SHOWN,
    LOCK_METADATA_BYTES_MAX, LOCK_WAITERS_MAX, TTL_MS_MAX, WAIT_MS_MAX,
};
use crate::notice::Notice;
use crate::refusal::{Failure, InvalidArgument, Refusal, Subject};
use crate::request::RequestId;
use crate::tables::{MetaRow, lock_key, lock_member_key};
use crate::transaction::Transaction;

/// Gets `key` for `ttl_ms`, or a place in its queue.
///
/// Promises that those who wait are granted in the order in which they asked, that holders exclude
/// each other as their modes say, and a fencing token above all before it. Refuses arguments out of
/// bounds, a mode that does not fit how the lock is used just now (`Conflict`), a full queue or too
/// many members of all locks (`Exhausted`), and an `id` so old that its end may be forgotten
/// (`RequestTooOld`). Sent again with the same `id` it says where the acquisition stands; for one
/// that waits, that is a sign of life. Watchers of the key, and of the acquisition, get
/// `LockGranted`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acquire {
    /// What to hold.
    pub key: Name,
    /// Minted by the caller for this acquisition, and never used for another.
    pub id: RequestId,
    /// Who asks: one flow of control.
    pub owner: Owner,
    /// How to share the lock.
    pub mode: Mode,
    /// How long a hold lives without renewal.
    pub ttl_ms: u64,
    /// How long a place in the queue lives without a sign of life.
    pub wait_ttl_ms: u64,
    /// How long to wait at most: 0 not at all, none as long as it takes.
    pub max_wait_ms: Option<u64>,
    /// The owner may acquire the lock again while it holds it: it gets its own token again, at
    /// once, and the hold ends with the last of its acquisitions.
    pub reentrant: bool,
    /// After this holder died, the lock is granted to nobody for so long. 0 after a clean release.
    pub delay_ms: u64,
    /// A note shown to others.
    pub metadata: Vec<u8>,
}

/// The answer to an acquisition. Variants are only ever appended.
#[allow(
    clippy::large_enum_variant,
    reason = "a reply lives once, on its way out"
)]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Acquired {
    /// The caller holds the lock.
    Granted(Member),
    /// The caller has a place in the queue.
    Waiting(Member),
    /// Others hold the lock or wait for it, and the caller would not wait: some of the holders.
    Busy(Vec<Member>),
    /// This acquisition is over.
    Over(End),
}

impl Validate for Acquire {
    fn validate(&self) -> Result<(), InvalidArgument> {
        InvalidArgument::check_count("ttl_ms", self.ttl_ms, 1, TTL_MS_MAX)?;
        InvalidArgument::check_count("wait_ttl_ms", self.wait_ttl_ms, 1, TTL_MS_MAX)?;
        InvalidArgument::check_count("max_wait_ms", self.max_wait_ms.unwrap_or(0), 0, WAIT_MS_MAX)?;
        InvalidArgument::check_count("delay_ms", self.delay_ms, 0, LOCK_DELAY_MS_MAX)?;
        if let Mode::Permit { of } = self.mode {
            let max = LOCK_HOLDERS_MAX.into();
            InvalidArgument::check_count("permits", of.into(), 1, max)?;
        }
        if let Some(liveness) = &self.owner.liveness {
            InvalidArgument::check_bytes("owner.liveness", liveness.len(), LIVENESS_BYTES_MAX)?;
        }
        let metadata = self.metadata.len();
        InvalidArgument::check_bytes("metadata", metadata, LOCK_METADATA_BYTES_MAX)
    }
}

impl Acquire {
    pub(super) fn apply(
        &self,
        tx: &mut Transaction<'_>,
        meta: &mut MetaRow,
        ctx: &Context,
    ) -> Result<Acquired, Failure> {
        if let Some(member) = tx.get(&lock_member_key(&self.key, self.id.id))? {
            return self.again(tx, meta, ctx, member);
        }
        if let Some(end) = remembered(tx, self.id.id, self.key.as_str())? {
            return Ok(Acquired::Over(end));
        }
        refuse_too_old(meta, &self.id)?;
        let mut lock = tx.get(&lock_key(&self.key))?;
        if let (true, Some(present)) = (ctx.overdue, &mut lock) {
            end_overdue_holders(tx, meta, ctx, present)?;
            lock = tx.get(&lock_key(&self.key))?;
        }
        let mut lock = match lock {
            Some(lock) => self.checked(lock)?,
            None => Lock::new(self.key.clone(), self.mode),
        };
        if let Some(token) = self.own_hold(tx, ctx)? {
            return self.reenter(tx, meta, ctx, &mut lock, token);
        }
        if lock.waiters == 0 && lock.admits(self.mode, ctx.now) && lock.may_grant(ctx) {
            return self.grant(tx, meta, ctx, &mut lock);
        }
        if self.max_wait_ms == Some(0) {
            return Ok(Acquired::Busy(holders(tx, &self.key, LOCK_HOLDERS_SHOWN)?));
        }
        self.enqueue(tx, meta, ctx, &mut lock)
    }

    /// Where an acquisition stands that was asked for before. For a waiter it is a sign of life.
    fn again(
        &self,
        tx: &mut Transaction<'_>,
        meta: &mut MetaRow,
        ctx: &Context,
        mut member: Member,
    ) -> Result<Acquired, Failure> {
        if !member.is_live(ctx.now) {
            let mut lock = lock_row(tx, &self.key)?;
            let why = member.overdue();
            end(tx, meta, ctx, &mut lock, &member, why.clone())?;
            hand_over(tx, meta, ctx, &mut lock)?;
            return Ok(Acquired::Over(why));
        }
        match member.place {
            Place::Holding { .. } => Ok(Acquired::Granted(member)),
            Place::Waiting { .. } => {
                member.expires_at = ctx.now.plus(member.wait_ttl_ms);
                store_moved(tx, &self.key, &mut member)?;
                Ok(Acquired::Waiting(member))
            }
        }
    }

    /// The lock, if it is used in this mode's way.
    fn checked(&self, lock: Lock) -> Result<Lock, Refusal> {
        if lock.permits == self.mode.permits() {
            return Ok(lock);
        }
        let words = |permits: Option<u32>| match permits {
            Some(of) => format!("a semaphore of {of} permits"),
            None => "an exclusive or shared lock".to_owned(),
        };
        Err(Refusal::Conflict {
            subject: Subject::Lock,
            name: self.key.to_string(),
            problem: format!(
                "it is in use as {}, and was asked for as {}; wait until it is idle, or use \
                 another key",
                words(lock.permits),
                words(self.mode.permits())
            ),
        })
    }

    /// The token under which this owner holds the lock, if it may enter again.
    fn own_hold(
        &self,
        tx: &mut Transaction<'_>,
        ctx: &Context,
    ) -> Result<Option<FencingToken>, Failure> {
        if !self.reentrant {
            return Ok(None);
        }
        for id in acquisitions_of(tx, &self.owner, &self.key)? {
            let member = super::row::member_of(tx, &self.key, id)?;
            let enough = member.mode == self.mode || member.mode == Mode::Exclusive;
            if enough && member.is_live(ctx.now) && member.fencing_token().is_some() {
                return Ok(member.fencing_token());
            }
        }
        Ok(None)
    }

    /// Adds one more acquisition to a hold of this owner.
    fn reenter(
        &self,
        tx: &mut Transaction<'_>,
        meta: &mut MetaRow,
        ctx: &Context,
        lock: &mut Lock,
        token: FencingToken,
    ) -> Result<Acquired, Failure> {
        let entered = holders_with(tx, &self.key, token)?;
        Refusal::check_room(
            || format!("acquisitions of lock {} by one holder", self.key),
            entered.len() as u64,
            crate::limits::LOCK_REENTRIES_MAX as u64,
        )?;
        // However it asked, it holds as its hold does: an exclusive one stays exclusive.
        let mode = entered.first().map_or(self.mode, |first| first.mode);
        let mut member = self.new_member(ctx);
        member.mode = mode;
        hold_with(ctx, &mut member, token);
        insert_member(tx, meta, lock, &mut member)?;
        store(tx, lock, ctx.now)?;
        Ok(Acquired::Granted(member))
    }

    fn grant(
        &self,
        tx: &mut Transaction<'_>,
        meta: &mut MetaRow,
        ctx: &Context,
        lock: &mut Lock,
    ) -> Result<Acquired, Failure> {
        let mut member = self.new_member(ctx);
        hold(ctx, lock, &mut member);
        insert_member(tx, meta, lock, &mut member)?;
        store(tx, lock, ctx.now)?;
        tx.count(Figure::LockWaited { waited_ms: 0 });
        tx.notify(Notice::LockGranted {
            key: self.key.clone(),
            id: self.id.id,
            owner_id: self.owner.owner_id.clone(),
            fencing_token: ctx.fencing_token(),
        });
        Ok(Acquired::Granted(member))
    }

    fn enqueue(
        &self,
        tx: &mut Transaction<'_>,
        meta: &mut MetaRow,
        ctx: &Context,
        lock: &mut Lock,
    ) -> Result<Acquired, Failure> {
        let what = || format!("waiters of lock {}", self.key);
        Refusal::check_room(what, lock.waiters.into(), LOCK_WAITERS_MAX)?;
        if let Some(cycle) = deadlock::find(tx, ctx, &self.owner, &self.key, self.mode)? {
            let over = End::Deadlock { cycle };
            remember(tx, meta, ctx, self.id.id, &over)?;
            return Ok(Acquired::Over(over));
        }
        let mut member = self.new_member(ctx);
        insert_member(tx, meta, lock, &mut member)?;
        if lock.waiters == 1 && lock.admits(self.mode, ctx.now) {
            file_hand_over(tx, lock, ctx.now)?;
        }
        store(tx, lock, ctx.now)?;
        Ok(Acquired::Waiting(member))
    }

    /// A member that waits.
    fn new_member(&self, ctx: &Context) -> Member {
        let give_up_at = self.max_wait_ms.map(|wait| ctx.now.plus(wait));
        let expires_at = ctx.now.plus(self.wait_ttl_ms);
        Member {
            id: self.id,
            owner: self.owner.clone(),
            mode: self.mode,
            ttl_ms: self.ttl_ms,
            wait_ttl_ms: self.wait_ttl_ms,
            delay_ms: self.delay_ms,
            reentrant: self.reentrant,
            asked_at: ctx.now,
            expires_at,
            filed_at: expires_at,
            place: Place::Waiting {
                ticket: ctx.fencing_token(),
                give_up_at,
            },
            metadata: self.metadata.clone(),
        }
    }
}
