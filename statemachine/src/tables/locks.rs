//! Rows of locks: the lock, its members, and their order.

use super::{Key, PREFIX_BYTES, Table, split_name};
use crate::fencing::FencingToken;
use crate::id::{Name, Owner};
use crate::lock::{Lock, Member, Place};
use crate::refusal::Broken;

/// Locks that are held or waited for, by key.
pub struct Locks;

impl Table for Locks {
    const TAG: u8 = 0x40;
    const NAME: &'static str = "locks";
    type Row = Lock;
}

/// Key of a lock.
#[must_use]
pub fn lock_key(name: &Name) -> Key<Locks> {
    Key::first().text(name.as_str())
}

/// Those who hold or wait, by lock and acquisition.
pub struct LockMembers;

impl Table for LockMembers {
    const TAG: u8 = 0x41;
    const NAME: &'static str = "lock_members";
    type Row = Member;
}

/// Key of a member.
#[must_use]
pub fn lock_member_key(lock: &Name, id: [u8; 16]) -> Key<LockMembers> {
    Key::first().name(lock).raw(&id)
}

/// The order of a lock's members: holders by token, then waiters by ticket.
pub struct LockOrder;

impl Table for LockOrder {
    const TAG: u8 = 0x42;
    const NAME: &'static str = "lock_order";
    type Row = ();
}

const HOLDING: u8 = 0;
const WAITING: u8 = 1;

/// Key of a member in the order.
#[must_use]
pub fn lock_order_key(lock: &Name, place: Place, id: [u8; 16]) -> Key<LockOrder> {
    let of_lock = Key::first().name(lock);
    let of_place = match place {
        Place::Holding { fencing_token, .. } => of_lock.byte(HOLDING).number(fencing_token),
        Place::Waiting { ticket, .. } => of_lock.byte(WAITING).number(ticket),
    };
    of_place.raw(&id)
}

/// The acquisition that a key of the order names.
#[must_use]
pub fn lock_order_id(key: &[u8]) -> Option<[u8; 16]> {
    key.last_chunk::<16>().copied()
}

fn range(from: impl Fn() -> Key<LockOrder>) -> (Key<LockOrder>, Key<LockOrder>) {
    (from(), from().end())
}

/// The range of a lock's holders, oldest grant first.
#[must_use]
pub fn lock_tokens(lock: &Name) -> (Key<LockOrder>, Key<LockOrder>) {
    range(|| Key::first().name(lock).byte(HOLDING))
}

/// The range of those who hold a lock under one token.
#[must_use]
pub fn lock_tokens_of(lock: &Name, token: FencingToken) -> (Key<LockOrder>, Key<LockOrder>) {
    range(|| Key::first().name(lock).byte(HOLDING).number(token))
}

/// The range of a lock's waiters, first in line first.
#[must_use]
pub fn lock_queue(lock: &Name) -> (Key<LockOrder>, Key<LockOrder>) {
    range(|| Key::first().name(lock).byte(WAITING))
}

/// The range of a lock's waiters with a ticket below `before`.
#[must_use]
pub fn lock_queue_before(lock: &Name, before: u64) -> (Key<LockOrder>, Key<LockOrder>) {
    let queue = || Key::first().name(lock).byte(WAITING);
    (queue(), queue().number(before))
}

/// Where the waiters behind `ticket` begin.
#[must_use]
pub fn lock_queue_after(lock: &Name, ticket: u64) -> Key<LockOrder> {
    Key::first().name(lock).byte(WAITING).number(ticket).end()
}

/// Subject of a member's due entry.
#[must_use]
pub fn lock_subject(lock: &Name, id: [u8; 16]) -> Vec<u8> {
    let mut subject = Vec::with_capacity(lock.as_str().len() + 17);
    subject.extend_from_slice(lock.as_str().as_bytes());
    subject.push(0);
    subject.extend_from_slice(&id);
    subject
}

/// What an owner waits for, and what it holds and may enter again.
pub struct LockOwners;

impl Table for LockOwners {
    const TAG: u8 = 0x43;
    const NAME: &'static str = "lock_owners";
    type Row = ();
}

/// All rows of an owner incarnation.
#[must_use]
pub fn lock_owner_prefix(owner: &Owner) -> Key<LockOwners> {
    Key::first()
        .name(&owner.owner_id)
        .name(&owner.incarnation_id)
}

/// Key of an owner's acquisition.
#[must_use]
pub fn lock_owner_key(owner: &Owner, lock: &Name, id: [u8; 16]) -> Key<LockOwners> {
    lock_owner_prefix(owner).name(lock).raw(&id)
}

/// Lock and acquisition that a key of this table names.
pub fn lock_owner_subject(key: &[u8]) -> Result<(Name, [u8; 16]), Broken> {
    let broken = || {
        Broken(format!(
            "lock owner key {} has no meaning",
            key.escape_ascii()
        ))
    };
    let own = key.get(PREFIX_BYTES..).ok_or_else(broken)?;
    let (_, rest) = split_name(own).ok_or_else(broken)?;
    let (_, rest) = split_name(rest).ok_or_else(broken)?;
    let (lock, id) = split_name(rest).ok_or_else(broken)?;
    let lock = Name::parse_bytes("key", lock).map_err(|error| Broken(error.to_string()))?;
    Ok((lock, id.try_into().map_err(|_| broken())?))
}
