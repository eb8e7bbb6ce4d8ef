//! Work queues: items that are pushed, claimed, worked on and settled.
//!
//! An item has at most one live claim, and only that claim's fencing token can settle it. A claim
//! has a visibility TTL: when it runs out, the item can be claimed again and the late worker is
//! fenced. Items are claimed by priority (higher first), then by age (lower [`ItemId`] first).
//!
//! ```text
//!            push, delay 0             claim               settle done
//!  (none) ------------------> ready ----------> claimed ----------------> (gone)
//!     |                       ^  ^ ^              | | |
//!     | push, delay > 0       |  | +--------------+ | +--- settle dead, or ---> dead
//!     +--------> delayed -----+  |  claim expired   |      attempts used up      |
//!                   ^            +------------------|---- requeue ---------------+
//!                   +--- settle retry in > 0 -------+
//! ```
//!
//! Payloads are stored apart from the items, so that a claim does not rewrite them.
//!
//! What is due but not yet swept: a claim whose time is over protects nothing (its token is
//! refused, its item can be cancelled), but the item can be claimed again only when the sweep has
//! come by, since a claim reads nothing but the ready index. The same holds for an item whose delay
//! is over.

use serde::{Deserialize, Serialize};

use crate::command::operations;
use crate::context::Context;
use crate::fencing::FencingToken;
use crate::id::{Name, Owner};
use crate::refusal::Failure;
use crate::tables::MetaRow;
use crate::time::Timestamp;
use crate::transaction::Transaction;

/// Names an item for ever: `log index << 10 | step` of the push. Grows with every push, so that the
/// oldest item has the lowest id, and is never used again, not even after its queue was forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ItemId(pub u64);

impl std::fmt::Display for ItemId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Where an item is in its life. Variants are only ever appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ItemState {
    /// Can be claimed.
    Ready,
    /// Will be ready at `available_at`.
    Delayed,
    /// Somebody works on it.
    Claimed,
    /// Given up; kept until requeued or cancelled.
    Dead,
}

impl ItemState {
    /// The word for scripts and people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Delayed => "delayed",
            Self::Claimed => "claimed",
            Self::Dead => "dead",
        }
    }
}

/// A live or due claim of an item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemClaim {
    /// Who works on it.
    pub owner: Owner,
    /// The token that settles it.
    pub fencing_token: FencingToken,
    /// Visibility TTL from each renewal.
    pub ttl_ms: u64,
    /// When it was claimed.
    pub claimed_at: Timestamp,
    /// When the item becomes visible again.
    pub expires_at: Timestamp,
    /// Where the due entry is filed: never later than `expires_at`.
    pub filed_at: Timestamp,
}

impl ItemClaim {
    /// Whether the claim still holds at `now`. The last millisecond is the one before `expires_at`.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        now < self.expires_at
    }
}

/// An item without its payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The item.
    pub item_id: ItemId,
    /// Where it is in its life.
    pub state: ItemState,
    /// Higher is claimed first.
    pub priority: u8,
    /// Claims so far.
    pub attempts: u32,
    /// Dead after so many claims that were not settled as done; 0 for no bound.
    pub max_attempts: u32,
    /// Guards against a second push.
    pub dedupe_key: Option<Name>,
    /// When it was pushed.
    pub pushed_at: Timestamp,
    /// When it became or becomes ready.
    pub available_at: Timestamp,
    /// Bytes of its payload.
    pub payload_bytes: u64,
    /// Who works on it; only when `state` is `Claimed`.
    pub claim: Option<ItemClaim>,
    /// What the last worker said about a retry or death, or why the cluster gave it up.
    pub note: String,
}

impl Item {
    /// Whether it may not be claimed again.
    #[must_use]
    pub fn is_used_up(&self) -> bool {
        self.max_attempts != 0 && self.attempts >= self.max_attempts
    }

    /// The live claim at `now`, if there is one.
    #[must_use]
    pub fn live_claim(&self, now: Timestamp) -> Option<&ItemClaim> {
        self.claim.as_ref().filter(|claim| claim.is_live(now))
    }

    /// The item as the rules see it at `now`: a claim whose time is over is over, swept or not.
    fn seen_at(mut self, now: Timestamp) -> Self {
        if self.state == ItemState::Claimed && self.live_claim(now).is_none() {
            self.expire_claim(now);
        }
        self
    }

    /// Ends the claim because its time ran out.
    fn expire_claim(&mut self, now: Timestamp) {
        if let Some(claim) = self.claim.take() {
            self.note = format!("claim by {} expired", claim.owner.owner_id);
        }
        self.give_back(now, 0);
    }

    /// Ends the claim so that the item can be claimed again after `delay_ms`: or never, if it has
    /// used up its attempts.
    fn give_back(&mut self, now: Timestamp, delay_ms: u64) {
        if self.is_used_up() {
            return self.bury();
        }
        self.claim = None;
        self.make_available(now, delay_ms);
    }

    /// Ready at once, or delayed.
    fn make_available(&mut self, now: Timestamp, delay_ms: u64) {
        self.state = if delay_ms == 0 {
            ItemState::Ready
        } else {
            ItemState::Delayed
        };
        self.available_at = now.plus(delay_ms);
    }

    /// Starts its life anew. A claim that is over but not swept is noted and dropped.
    fn revive(&mut self, now: Timestamp) {
        if self.claim.is_some() {
            self.expire_claim(now);
        }
        self.attempts = 0;
        self.make_available(now, 0);
    }

    /// Gives the item up.
    fn bury(&mut self) {
        self.claim = None;
        self.state = ItemState::Dead;
    }
}

/// A queue's counters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// The queue.
    pub name: Name,
    /// When it was first pushed to.
    pub created_at: Timestamp,
    /// When a counter last changed.
    pub changed_at: Timestamp,
    /// Items that can be claimed.
    pub ready: u64,
    /// Items that wait for their time.
    pub delayed: u64,
    /// Items that somebody works on.
    pub claimed: u64,
    /// Items given up.
    pub dead: u64,
    /// Items settled as done since `created_at`.
    pub done: u64,
    /// Dedupe keys remembered, of items that live or are gone.
    pub dedupe_keys: u64,
}

impl Queue {
    /// Items in any state.
    #[must_use]
    pub fn items(&self) -> u64 {
        self.ready + self.delayed + self.claimed + self.dead
    }
}

/// An item as a worker gets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimedItem {
    /// The item with its claim.
    pub item: Item,
    /// What to work on.
    pub payload: Vec<u8>,
}

mod cancel;
mod claim;
mod due;
mod push;
mod query;
mod renew;
mod requeue;
mod row;
mod settle;

pub use cancel::Cancel;
pub use claim::Claim;
pub(crate) use due::{expire_claim_due, forget_dedupe_due, forget_idle_due, release_delayed_due};
pub use push::{Push, Pushed};
pub use query::{Answer, Get, List, ListItems, Query};
pub(crate) use query::{query, validate as validate_query};
pub use renew::Renew;
pub use requeue::Requeue;
pub(crate) use row::require_claim;
pub use settle::{Outcome, Settle, Settled};

operations! {
    Queue {
        0x0201 "queue.push" Push => Pushed;
        0x0202 "queue.claim" Claim => Vec<ClaimedItem>;
        0x0203 "queue.renew" Renew => ItemClaim, upkeep;
        0x0204 "queue.settle" Settle => Settled, upkeep;
        0x0205 "queue.cancel" Cancel => Item, upkeep;
        0x0206 "queue.requeue" Requeue => Item;
    }
}

pub(crate) fn apply(
    tx: &mut Transaction<'_>,
    meta: &mut MetaRow,
    ctx: &Context,
    command: &Command,
) -> Result<Response, Failure> {
    match command {
        Command::Push(push) => push.apply(tx, meta, ctx).map(Response::Push),
        Command::Claim(claim) => claim.apply(tx, ctx).map(Response::Claim),
        Command::Renew(renew) => renew.apply(tx, ctx).map(Response::Renew),
        Command::Settle(settle) => settle.apply(tx, ctx).map(Response::Settle),
        Command::Cancel(cancel) => cancel.apply(tx, ctx).map(Response::Cancel),
        Command::Requeue(requeue) => requeue.apply(tx, ctx).map(Response::Requeue),
    }
}
