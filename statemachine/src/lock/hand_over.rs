//! Handing over: who is first in line and live gets the lock in the entry that made room.

use super::deadlock;
use super::end::{end, file_hand_over};
use super::row::{first_waiter, holders, member_of, promote, store};
use super::{End, Lock};
use crate::context::Context;
use crate::figure::Figure;
use crate::id::Name;
use crate::limits::{LOCK_HOLDERS_MAX, MEMBERS_ENDED_MAX};
use crate::notice::Notice;
use crate::refusal::Broken;
use crate::tables::{MetaRow, lock_key};
use crate::transaction::Transaction;

/// Grants to the first waiter if there is room, passing over those whose time is over, and stores
/// the lock. What it leaves for want of room in this entry is filed as due at once.
pub(super) fn hand_over(
    tx: &mut Transaction<'_>,
    meta: &mut MetaRow,
    ctx: &Context,
    lock: &mut Lock,
) -> Result<(), Broken> {
    for _ in 0..MEMBERS_ENDED_MAX {
        let Some(first) = first_waiter(tx, &lock.key)? else {
            return store(tx, lock, ctx.now);
        };
        if !first.is_live(ctx.now) {
            let why = first.overdue();
            end(tx, meta, ctx, lock, &first, why)?;
            continue;
        }
        if !lock.admits(first.mode, ctx.now) {
            return store(tx, lock, ctx.now);
        }
        if !lock.may_grant(ctx) {
            break;
        }
        let holder = promote(tx, ctx, lock, first)?;
        tx.count(Figure::LockWaited {
            waited_ms: ctx.now.since(holder.asked_at),
        });
        tx.notify(Notice::LockGranted {
            key: lock.key.clone(),
            id: holder.id.id,
            owner_id: holder.owner.owner_id.clone(),
            fencing_token: ctx.fencing_token(),
        });
        store(tx, lock, ctx.now)?;
        if deadlock::break_after_grant(tx, meta, ctx, &holder)? {
            *lock = lock_row(tx, &lock.key)?;
        }
    }
    file_hand_over(tx, lock, ctx.now)?;
    store(tx, lock, ctx.now)
}

/// Ends the holders whose time is over, and hands over. Needed only where the sweep is behind.
pub(super) fn end_overdue_holders(
    tx: &mut Transaction<'_>,
    meta: &mut MetaRow,
    ctx: &Context,
    lock: &mut Lock,
) -> Result<(), Broken> {
    for member in holders(tx, &lock.key, LOCK_HOLDERS_MAX as usize)? {
        if !member.is_live(ctx.now) {
            let why = member.overdue();
            end(tx, meta, ctx, lock, &member, why)?;
        }
    }
    hand_over(tx, meta, ctx, lock)
}

/// Ends the wait of `id` for `key`; the queue behind it is looked at next.
pub(super) fn end_wait(
    tx: &mut Transaction<'_>,
    meta: &mut MetaRow,
    ctx: &Context,
    key: &Name,
    id: [u8; 16],
    why: End,
) -> Result<(), Broken> {
    let mut lock = lock_row(tx, key)?;
    let member = member_of(tx, key, id)?;
    end(tx, meta, ctx, &mut lock, &member, why)?;
    file_hand_over(tx, &lock, ctx.now)?;
    store(tx, &lock, ctx.now)
}

/// The row of a lock that has a member.
pub(super) fn lock_row(tx: &mut Transaction<'_>, key: &Name) -> Result<Lock, Broken> {
    tx.get(&lock_key(key))?
        .ok_or_else(|| Broken(format!("lock {key} has a member and no row")))
}
