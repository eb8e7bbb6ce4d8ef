//! Locks: a key that one, several or many may hold, with a fair queue of those who wait.
//!
//! A lock is a lease with a FIFO queue of waiters in the replicated state. Whoever asks is a
//! [`Member`] of the lock until it is over: first it waits, then it holds, or one of the two. Every
//! grant has a fencing token of its own, as leases do. When a hold ends, by release, expiry or
//! revocation, the same entry grants to the waiter that is first in line and live then. A waiter
//! has a time to live of its own, kept up by whoever waits for the answer, so that the place of a
//! caller that died is passed over.
//!
//! ```text
//!            acquire, free                          release
//!  (none) ------------------------> holding -----------------------> (over)
//!     |                                ^  |      expiry, revocation     ^
//!     | acquire, taken                 |  +-----------------------------+
//!     +----------------> waiting ------+                                |
//!                           |   first in line                           |
//!                           +---- cancelled, gave up, died, deadlock ---+
//! ```
//!
//! # Identity
//!
//! The caller mints a [`RequestId`] for each acquisition. It names the place in the queue and the
//! hold, it is the holder's proof, and it makes every command here safe to repeat. What became of
//! it is kept among the answered requests ([`crate::request`]) when it is over: an acquisition that
//! arrives late is told so and neither waits nor holds again; so is one that was cancelled before
//! it arrived.
//!
//! # Modes
//!
//! A lock is used either by [`Mode::Exclusive`] and [`Mode::Shared`], or by [`Mode::Permit`] with
//! one number of permits, for as long as anybody holds it or waits. The queue is strict: nobody
//! passes somebody who waits, so that a writer is not starved by readers. One entry grants a lock
//! at most once, so that no two holders have the same token; when several may enter, the entries
//! that follow let in one each.
//!
//! # Owners
//!
//! An owner incarnation is one flow of control: while it waits, it releases nothing. That is what
//! re-entry ([`Acquire::reentrant`]) and the search for deadlocks rest on. A process whose tasks
//! are independent gives each its own incarnation.
//!
//! A lock that nobody holds or waits for leaves no row behind.

use serde::{Deserialize, Serialize};

use crate::command::operations;
use crate::context::Context;
use crate::fencing::FencingToken;
use crate::id::{Name, Owner};
use crate::limits::LOCK_HOLDERS_MAX;
use crate::refusal::{Failure, Refusal};
use crate::request::RequestId;
use crate::tables::MetaRow;
use crate::time::Timestamp;
use crate::transaction::Transaction;

mod acquire;
mod cancel_wait;
mod deadlock;
mod due;
mod end;
mod hand_over;
mod proclaim;
mod query;
mod release;
mod renew;
mod revoke;
mod row;

pub use acquire::{Acquire, Acquired};
pub use cancel_wait::{CancelWait, WaitCancelled};
pub use deadlock::Link;
pub(crate) use due::{hand_over_due, member_due};
pub use end::End;
pub use proclaim::Proclaim;
pub use query::{Answer, Find, Found, Get, List, LockView, Query, Waiters};
pub(crate) use query::{query, validate as validate_query};
pub use release::{Release, Released};
pub use renew::{Kept, Renew, RenewMany};
pub use revoke::Revoke;
pub(crate) use row::require_hold;

/// How a holder shares the lock with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// With nobody.
    Exclusive,
    /// With others that hold it shared.
    Shared,
    /// With as many others as there are permits: a counting semaphore.
    Permit {
        /// How many may hold the lock at a time.
        of: u32,
    },
}

impl Mode {
    /// The permits of the lock that this mode is for; none for exclusive and shared.
    #[must_use]
    pub fn permits(self) -> Option<u32> {
        match self {
            Self::Exclusive | Self::Shared => None,
            Self::Permit { of } => Some(of),
        }
    }

    /// The word for scripts and people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exclusive => "exclusive",
            Self::Shared => "shared",
            Self::Permit { .. } => "permit",
        }
    }
}

/// A lock that somebody holds or waits for, or that waits for a delay to pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// The key.
    pub key: Name,
    /// How many may hold it, if it is used as a semaphore.
    pub permits: Option<u32>,
    /// Grants that are held; re-entries share one.
    pub holders: u32,
    /// Whether the one grant is exclusive.
    pub exclusive: bool,
    /// Members that wait.
    pub waiters: u32,
    /// Token of the latest grant since the row was made.
    pub last_token: FencingToken,
    /// Nobody is granted the lock before: its holder died and had asked for a delay.
    pub blocked_until: Timestamp,
}

impl Lock {
    fn new(key: Name, mode: Mode) -> Self {
        Self {
            key,
            permits: mode.permits(),
            holders: 0,
            exclusive: false,
            waiters: 0,
            last_token: 0,
            blocked_until: Timestamp(0),
        }
    }

    /// Whether there is room for a holder in this mode, the queue aside.
    fn admits(&self, mode: Mode, now: Timestamp) -> bool {
        if now < self.blocked_until {
            return false;
        }
        match mode {
            Mode::Exclusive => self.holders == 0,
            Mode::Shared => !self.exclusive && self.holders < LOCK_HOLDERS_MAX,
            Mode::Permit { of } => self.holders < of,
        }
    }

    /// Whether the entry may grant: one entry grants a lock once, or two grants had one token.
    fn may_grant(&self, ctx: &Context) -> bool {
        self.last_token != ctx.fencing_token()
    }

    fn is_idle(&self, now: Timestamp) -> bool {
        self.holders == 0 && self.waiters == 0 && self.blocked_until <= now
    }
}

/// Somebody who waits for a lock or holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The caller's name for this acquisition, and its proof.
    pub id: RequestId,
    /// Who asks.
    pub owner: Owner,
    /// How it wants to hold.
    pub mode: Mode,
    /// Time to live of the hold, from the grant and from each renewal.
    pub ttl_ms: u64,
    /// Time to live of the place in the queue, from each sign of life.
    pub wait_ttl_ms: u64,
    /// How long nobody gets the lock after this holder died.
    pub delay_ms: u64,
    /// Whether its owner may acquire the lock again while it holds it.
    pub reentrant: bool,
    /// When it asked.
    pub asked_at: Timestamp,
    /// When the hold, or the place in the queue, ends unless it is renewed.
    pub expires_at: Timestamp,
    /// Where its due entry is filed: never later than its deadline.
    pub filed_at: Timestamp,
    /// Where it stands.
    pub place: Place,
    /// The owner's own note, shown to others.
    pub metadata: Vec<u8>,
}

/// Where a member stands. Variants are only ever appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// In the queue.
    Waiting {
        /// Orders the queue: lower is earlier.
        ticket: u64,
        /// When it waits no longer; none if it waits as long as it takes.
        give_up_at: Option<Timestamp>,
    },
    /// Holds the lock.
    Holding {
        /// The token of the grant. Re-entries have that of the first.
        fencing_token: FencingToken,
        /// When it was granted.
        granted_at: Timestamp,
        /// When it was last renewed; when granted, if never.
        renewed_at: Timestamp,
    },
}

impl Member {
    /// When its time is over: the hold's, or that of the wait.
    #[must_use]
    pub fn deadline(&self) -> Timestamp {
        match self.place {
            Place::Waiting {
                give_up_at: Some(at),
                ..
            } => at.min(self.expires_at),
            _ => self.expires_at,
        }
    }

    /// Whether it still waits or holds at `now`. The last millisecond is the one before its
    /// deadline.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        now < self.deadline()
    }

    /// The token of its grant, if it holds.
    #[must_use]
    pub fn fencing_token(&self) -> Option<FencingToken> {
        match self.place {
            Place::Holding { fencing_token, .. } => Some(fencing_token),
            Place::Waiting { .. } => None,
        }
    }

    /// Why it is over at a time after its deadline.
    fn overdue(&self) -> End {
        match self.place {
            Place::Holding { fencing_token, .. } => End::Expired {
                fencing_token,
                at: self.expires_at,
            },
            Place::Waiting {
                give_up_at: Some(at),
                ..
            } if at <= self.expires_at => End::GaveUp,
            Place::Waiting { .. } => End::WaiterDied,
        }
    }
}

operations! {
    Lock {
        0x0501 "lock.acquire" Acquire => Acquired;
        0x0502 "lock.renew" Renew => Kept, upkeep;
        0x0503 "lock.renew_many" RenewMany => Vec<Result<Kept, Refusal>>, upkeep;
        0x0504 "lock.release" Release => Released, upkeep;
        0x0505 "lock.cancel_wait" CancelWait => WaitCancelled, upkeep;
        0x0506 "lock.revoke" Revoke => Vec<Member>, upkeep;
        0x0507 "lock.proclaim" Proclaim => Member;
    }
}

pub(crate) fn apply(
    tx: &mut Transaction<'_>,
    meta: &mut MetaRow,
    ctx: &Context,
    command: &Command,
) -> Result<Response, Failure> {
    match command {
        Command::Acquire(acquire) => acquire.apply(tx, meta, ctx).map(Response::Acquire),
        Command::Renew(renew) => renew.apply(tx, ctx).map(Response::Renew),
        Command::RenewMany(many) => many.apply(tx, ctx).map(Response::RenewMany),
        Command::Release(release) => release.apply(tx, meta, ctx).map(Response::Release),
        Command::CancelWait(cancel) => cancel.apply(tx, meta, ctx).map(Response::CancelWait),
        Command::Revoke(revoke) => revoke.apply(tx, meta, ctx).map(Response::Revoke),
        Command::Proclaim(proclaim) => proclaim.apply(tx, ctx).map(Response::Proclaim),
    }
}
