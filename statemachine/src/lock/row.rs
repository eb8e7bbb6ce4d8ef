//! The rows of a lock: kept in step with each other here and nowhere else.

use std::ops::ControlFlow;

use super::{Lock, Member, Mode, Place};
use crate::context::Context;
use crate::fencing::FencingToken;
use crate::id::{Name, Owner};
use crate::limits::{LOCK_HOLDERS_SHOWN, LOCK_MEMBERS_MAX};
use crate::refusal::{Broken, Failure, Refusal, Subject};
use crate::tables::{
    DueKind, Key, LockOrder, MetaRow, due_key, lock_key, lock_member_key, lock_order_id,
    lock_order_key, lock_owner_key, lock_owner_prefix, lock_queue, lock_queue_before, lock_subject,
    lock_tokens, lock_tokens_of,
};
use crate::time::Timestamp;
use crate::transaction::Transaction;

/// Writes the lock, or removes it when nobody needs it any more.
pub(super) fn store(tx: &mut Transaction<'_>, lock: &Lock, now: Timestamp) -> Result<(), Broken> {
    let key = lock_key(&lock.key);
    if lock.is_idle(now) {
        return tx.delete(&key);
    }
    tx.put(&key, lock)
}

/// The member, which a row of another table names.
pub(super) fn member_of(
    tx: &mut Transaction<'_>,
    key: &Name,
    id: [u8; 16],
) -> Result<Member, Broken> {
    tx.get(&lock_member_key(key, id))?
        .ok_or_else(|| Broken(format!("lock {key} names a member that has no row")))
}

/// Adds a member with all its rows.
pub(super) fn insert_member(
    tx: &mut Transaction<'_>,
    meta: &mut MetaRow,
    lock: &mut Lock,
    member: &mut Member,
) -> Result<(), Failure> {
    Refusal::check_room(
        || "holders and waiters of all locks".to_owned(),
        meta.lock_members,
        LOCK_MEMBERS_MAX,
    )?;
    meta.lock_members += 1;
    place_member(tx, lock, member)?;
    Ok(())
}

/// Puts the rows of a member that is new in its place.
fn place_member(
    tx: &mut Transaction<'_>,
    lock: &mut Lock,
    member: &mut Member,
) -> Result<(), Broken> {
    let key = lock.key.clone();
    member.filed_at = member.deadline();
    match member.place {
        Place::Waiting { .. } => lock.waiters += 1,
        Place::Holding { fencing_token, .. } => {
            if !is_held(tx, &key, fencing_token)? {
                lock.holders += 1;
                lock.exclusive = member.mode == Mode::Exclusive;
            }
        }
    }
    tx.put(&lock_order_key(&key, member.place, member.id.id), &())?;
    if is_by_owner(member) {
        tx.put(&lock_owner_key(&member.owner, &key, member.id.id), &())?;
    }
    put_due(tx, &key, member)?;
    tx.put(&lock_member_key(&key, member.id.id), member)
}

/// Removes the rows of a member from its place.
fn displace_member(
    tx: &mut Transaction<'_>,
    lock: &mut Lock,
    member: &Member,
) -> Result<(), Broken> {
    let key = &lock.key;
    tx.delete(&lock_order_key(key, member.place, member.id.id))?;
    if is_by_owner(member) {
        tx.delete(&lock_owner_key(&member.owner, key, member.id.id))?;
    }
    delete_due(tx, key, member)?;
    match member.place {
        Place::Waiting { .. } => {
            assert!(lock.waiters > 0, "a waiter that leaves was counted");
            lock.waiters -= 1;
        }
        Place::Holding { fencing_token, .. } => {
            if !is_held(tx, key, fencing_token)? {
                assert!(lock.holders > 0, "a holder that leaves was counted");
                lock.holders -= 1;
                lock.exclusive = lock.exclusive && lock.holders > 0;
            }
        }
    }
    Ok(())
}

/// Removes a member with all its rows.
pub(super) fn remove_member(
    tx: &mut Transaction<'_>,
    meta: &mut MetaRow,
    lock: &mut Lock,
    member: &Member,
) -> Result<(), Broken> {
    displace_member(tx, lock, member)?;
    assert!(meta.lock_members > 0, "a member that leaves was counted");
    meta.lock_members -= 1;
    tx.delete(&lock_member_key(&lock.key, member.id.id))
}

/// Makes a waiter a holder.
pub(super) fn promote(
    tx: &mut Transaction<'_>,
    ctx: &Context,
    lock: &mut Lock,
    mut member: Member,
) -> Result<Member, Broken> {
    displace_member(tx, lock, &member)?;
    hold(ctx, lock, &mut member);
    place_member(tx, lock, &mut member)?;
    Ok(member)
}

/// Gives the member the entry's token.
pub(super) fn hold(ctx: &Context, lock: &mut Lock, member: &mut Member) {
    assert!(
        lock.admits(member.mode, ctx.now) && lock.may_grant(ctx),
        "a lock is granted only when it has room, and once an entry"
    );
    lock.last_token = ctx.fencing_token();
    hold_with(ctx, member, ctx.fencing_token());
}

/// Makes the member a holder under `fencing_token`.
pub(super) fn hold_with(ctx: &Context, member: &mut Member, fencing_token: FencingToken) {
    member.expires_at = ctx.now.plus(member.ttl_ms);
    member.place = Place::Holding {
        fencing_token,
        granted_at: ctx.now,
        renewed_at: ctx.now,
    };
}

/// Those that can be found by owner: who waits, for the search for deadlocks, and who may enter
/// again.
fn is_by_owner(member: &Member) -> bool {
    member.reentrant || matches!(member.place, Place::Waiting { .. })
}

fn put_due(tx: &mut Transaction<'_>, key: &Name, member: &Member) -> Result<(), Broken> {
    let subject = lock_subject(key, member.id.id);
    tx.put(
        &due_key(member.filed_at, DueKind::LockMember, &subject),
        &(),
    )
}

fn delete_due(tx: &mut Transaction<'_>, key: &Name, member: &Member) -> Result<(), Broken> {
    let subject = lock_subject(key, member.id.id);
    tx.delete(&due_key(member.filed_at, DueKind::LockMember, &subject))
}

/// Writes a member whose deadline moved. Out: the due entry stays where it is, the sweep files it
/// again. In: the entry must move.
pub(super) fn store_moved(
    tx: &mut Transaction<'_>,
    key: &Name,
    member: &mut Member,
) -> Result<(), Broken> {
    if member.deadline() < member.filed_at {
        delete_due(tx, key, member)?;
        member.filed_at = member.deadline();
        put_due(tx, key, member)?;
    }
    tx.put(&lock_member_key(key, member.id.id), member)
}

/// Files the due entry of a member, which has just been taken away, at the true deadline.
pub(super) fn refile(
    tx: &mut Transaction<'_>,
    key: &Name,
    member: &mut Member,
) -> Result<(), Broken> {
    member.filed_at = member.deadline();
    put_due(tx, key, member)?;
    tx.put(&lock_member_key(key, member.id.id), member)
}

/// Ids in `from..to` of the lock's order, at most `limit`.
fn ids(
    tx: &Transaction<'_>,
    (from, to): (Key<LockOrder>, Key<LockOrder>),
    limit: usize,
) -> Result<Vec<[u8; 16]>, Broken> {
    let mut found = Vec::new();
    let mut broken = None;
    tx.scan(&from, &to, &mut |key, ()| {
        match lock_order_id(key) {
            Some(id) => found.push(id),
            None => broken = Some(Broken(format!("{} ends with no id", key.escape_ascii()))),
        }
        if found.len() >= limit || broken.is_some() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    broken.map_or(Ok(found), Err)
}

/// The holders, oldest grant first, at most `limit`.
pub(super) fn holders(
    tx: &mut Transaction<'_>,
    key: &Name,
    limit: usize,
) -> Result<Vec<Member>, Broken> {
    let ids = ids(tx, lock_tokens(key), limit)?;
    ids.into_iter().map(|id| member_of(tx, key, id)).collect()
}

/// The holders under one token: one, and those who entered again.
pub(super) fn holders_with(
    tx: &mut Transaction<'_>,
    key: &Name,
    token: FencingToken,
) -> Result<Vec<Member>, Broken> {
    let ids = ids(tx, lock_tokens_of(key, token), usize::MAX)?;
    ids.into_iter().map(|id| member_of(tx, key, id)).collect()
}

fn is_held(tx: &Transaction<'_>, key: &Name, token: FencingToken) -> Result<bool, Broken> {
    Ok(!ids(tx, lock_tokens_of(key, token), 1)?.is_empty())
}

/// Those who wait with a ticket below `before`, first in line first, at most `limit`.
pub(super) fn waiters_before(
    tx: &mut Transaction<'_>,
    key: &Name,
    before: u64,
    limit: usize,
) -> Result<Vec<Member>, Broken> {
    let ids = ids(tx, lock_queue_before(key, before), limit)?;
    ids.into_iter().map(|id| member_of(tx, key, id)).collect()
}

/// Who is first in line.
pub(super) fn first_waiter(tx: &mut Transaction<'_>, key: &Name) -> Result<Option<Member>, Broken> {
    let first = ids(tx, lock_queue(key), 1)?.first().copied();
    first.map(|id| member_of(tx, key, id)).transpose()
}

/// A live holder of `key` under `token`; says what became of it otherwise.
pub(crate) fn require_hold(
    tx: &mut Transaction<'_>,
    ctx: &Context,
    key: &Name,
    token: FencingToken,
) -> Result<Member, Failure> {
    let members = holders_with(tx, key, token)?;
    let last = members.iter().map(|member| member.expires_at).max();
    if let Some(member) = members.into_iter().find(|member| member.is_live(ctx.now)) {
        return Ok(member);
    }
    match last {
        Some(expired_at) => Err(Failure::Refused(Refusal::Expired {
            subject: Subject::Lock,
            name: key.to_string(),
            token,
            expired_at,
        })),
        None => Err(fenced(tx, ctx, key, token)?),
    }
}

/// The refusal of a token under which nobody holds the lock.
pub(super) fn fenced(
    tx: &mut Transaction<'_>,
    ctx: &Context,
    key: &Name,
    presented: FencingToken,
) -> Result<Failure, Broken> {
    let holders = holders(tx, key, LOCK_HOLDERS_SHOWN)?;
    let current = holders
        .iter()
        .find(|member| member.is_live(ctx.now))
        .and_then(Member::fencing_token);
    Ok(Failure::Refused(Refusal::Fenced {
        subject: Subject::Lock,
        name: key.to_string(),
        presented,
        current,
    }))
}

/// The acquisitions of one lock by one owner incarnation.
pub(super) fn acquisitions_of(
    tx: &Transaction<'_>,
    owner: &Owner,
    lock: &Name,
) -> Result<Vec<[u8; 16]>, Broken> {
    let (from, to) = (
        lock_owner_prefix(owner).name(lock),
        lock_owner_prefix(owner).name(lock).end(),
    );
    let mut ids = Vec::new();
    tx.scan(&from, &to, &mut |key, ()| {
        ids.extend(key.last_chunk::<16>());
        ControlFlow::Continue(())
    })?;
    Ok(ids)
}
