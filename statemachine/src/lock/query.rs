//! Reading locks.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::{Acquired, End, Lock, Member, Response};
use crate::command;
use crate::id::Name;
use crate::limits::LOCK_HOLDERS_SHOWN;
use crate::query::{Page, PageLimit, listed};
use crate::refusal::{Broken, InvalidArgument};
use crate::request;
use crate::tables::{
    Key, LockOrder, Locks, lock_key, lock_member_key, lock_order_id, lock_queue, lock_queue_after,
    lock_tokens,
};
use crate::time::Timestamp;
use crate::transaction::{Transaction, read, read_range};
use crate::view::View;

/// A lock and who holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Get {
    /// The key.
    pub key: Name,
}

/// Locks that are held or waited for, in key order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// Only keys that start with this; empty for all.
    pub prefix: String,
    /// Only keys after this one: where the page before ended.
    pub after: Option<Name>,
    /// Rows at most; 0 for the limit.
    pub limit: u32,
}

/// Those who wait for a lock, first in line first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiters {
    /// The key.
    pub key: Name,
    /// Only tickets above this one: where the page before ended.
    pub after: Option<u64>,
    /// Rows at most; 0 for the limit.
    pub limit: u32,
}

/// Where one acquisition stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Find {
    /// The key.
    pub key: Name,
    /// The acquisition.
    pub id: [u8; 16],
}

/// What to read. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// See [`Get`].
    Get(Get),
    /// See [`List`].
    List(List),
    /// See [`Waiters`].
    Waiters(Waiters),
    /// See [`Find`].
    Find(Find),
}

/// A lock as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockView {
    /// The lock.
    pub lock: Lock,
    /// Live holders, oldest grant first, at most [`LOCK_HOLDERS_SHOWN`].
    pub holders: Vec<Member>,
}

/// Where an acquisition stands. Variants are only ever appended.
#[allow(
    clippy::large_enum_variant,
    reason = "an answer lives once, on its way out"
)]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Found {
    /// It waits or holds.
    Member(Member),
    /// It is over.
    Over(End),
    /// It has not arrived, or was forgotten.
    Unknown,
}

/// What was read. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Of [`Get`]: none if nobody holds the lock or waits.
    Get(Option<LockView>),
    /// Of [`List`].
    List(Page<LockView>),
    /// Of [`Waiters`].
    Waiters(Page<Member>),
    /// Of [`Find`].
    Find(Found),
}

pub(crate) fn validate(query: &Query) -> Result<(), InvalidArgument> {
    match query {
        Query::List(list) => crate::query::check_prefix(&list.prefix),
        Query::Get(_) | Query::Waiters(_) | Query::Find(_) => Ok(()),
    }
}

pub(crate) fn query(view: &dyn View, now: Timestamp, query: &Query) -> Result<Answer, Broken> {
    match query {
        Query::Get(get) => read(view, &lock_key(&get.key))?
            .map(|lock| shown(view, now, lock))
            .transpose()
            .map(Answer::Get),
        Query::List(list) => list_page(view, now, list).map(Answer::List),
        Query::Waiters(waiters) => waiters_page(view, now, waiters).map(Answer::Waiters),
        Query::Find(find) => found(view, now, find).map(Answer::Find),
    }
}

fn shown(view: &dyn View, now: Timestamp, lock: Lock) -> Result<LockView, Broken> {
    let range = lock_tokens(&lock.key);
    let holders = members(view, now, &lock.key, range, LOCK_HOLDERS_SHOWN)?;
    Ok(LockView { lock, holders })
}

/// Live members of a part of the lock's order, at most `limit`.
fn members(
    view: &dyn View,
    now: Timestamp,
    key: &Name,
    (from, to): (Key<LockOrder>, Key<LockOrder>),
    limit: usize,
) -> Result<Vec<Member>, Broken> {
    let (mut members, mut broken) = (Vec::new(), None);
    read_range::<LockOrder>(view, &from, &to, &mut |row, ()| {
        if members.len() == limit {
            return ControlFlow::Break(());
        }
        let id = lock_order_id(row).unwrap_or_default();
        match read(view, &lock_member_key(key, id)) {
            Ok(member) => members.extend(member.filter(|member| member.is_live(now))),
            Err(error) => broken = Some(error),
        }
        ControlFlow::Continue(())
    })?;
    broken.map_or(Ok(members), Err)
}

fn list_page(view: &dyn View, now: Timestamp, list: &List) -> Result<Page<LockView>, Broken> {
    let prefix = Key::<Locks>::first().text(&list.prefix);
    let (from, end) = listed(prefix, list.after.as_ref().map(lock_key));
    let mut page = PageLimit::new(list.limit);
    let (mut rows, mut next, mut broken) = (Vec::new(), None, None);
    read_range::<Locks>(view, &from, &end, &mut |_, lock| {
        if page.is_full() {
            next = rows.last().map(|last: &LockView| last.lock.key.to_string());
            return ControlFlow::Break(());
        }
        match shown(view, now, lock) {
            Ok(row) => {
                page.add(200 + row.holders.iter().map(bytes_of).sum::<usize>());
                rows.push(row);
            }
            Err(error) => broken = Some(error),
        }
        ControlFlow::Continue(())
    })?;
    broken.map_or(Ok(Page { rows, next }), Err)
}

fn bytes_of(member: &Member) -> usize {
    let liveness = member.owner.liveness.as_ref().map_or(0, String::len);
    200 + member.metadata.len() + liveness
}

fn waiters_page(view: &dyn View, now: Timestamp, asked: &Waiters) -> Result<Page<Member>, Broken> {
    let (mut from, to) = lock_queue(&asked.key);
    if let Some(after) = asked.after {
        from = lock_queue_after(&asked.key, after);
    }
    let mut page = PageLimit::new(asked.limit);
    let (mut rows, mut next, mut broken) = (Vec::new(), None, None);
    read_range::<LockOrder>(view, &from, &to, &mut |row, ()| {
        if page.is_full() {
            next = rows.last().and_then(ticket_of);
            return ControlFlow::Break(());
        }
        let id = lock_order_id(row).unwrap_or_default();
        match read(view, &lock_member_key(&asked.key, id)) {
            Ok(Some(member)) if member.is_live(now) => {
                page.add(bytes_of(&member));
                rows.push(member);
            }
            Ok(_) => {}
            Err(error) => broken = Some(error),
        }
        ControlFlow::Continue(())
    })?;
    broken.map_or(Ok(Page { rows, next }), Err)
}

fn ticket_of(member: &Member) -> Option<String> {
    match member.place {
        super::Place::Waiting { ticket, .. } => Some(ticket.to_string()),
        super::Place::Holding { .. } => None,
    }
}

fn found(view: &dyn View, now: Timestamp, find: &Find) -> Result<Found, Broken> {
    if let Some(member) = read(view, &lock_member_key(&find.key, find.id))? {
        return Ok(if member.is_live(now) {
            Found::Member(member)
        } else {
            Found::Over(member.overdue())
        });
    }
    let answer = request::answer_of(&mut Transaction::new(view), find.id)?;
    Ok(match answer.map(|reply| reply.0) {
        Some(Ok(command::Response::Lock(Response::Acquire(Acquired::Over(end))))) => {
            Found::Over(end)
        }
        _ => Found::Unknown,
    })
}
