//! Fencing tokens and preconditions.
//!
//! `token = fence_base + log index of the entry that granted` (Kleppmann, "How to do distributed
//! locking", 2016, names the rule; Chubby's sequencers are the same idea). Tokens grow, are not
//! dense, and are never used twice: the log index never goes back, and the log of a restored
//! cluster begins above the old one's.

use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::id::Name;
use crate::queue::ItemId;
use crate::refusal::Failure;
use crate::transaction::Transaction;
use crate::{lease, lock, process, queue};

/// A number that says which of two grants is the later one.
pub type FencingToken = u64;

/// What must hold for a command to be done at all. All of them are checked first, in order, at the
/// command's own instant; one that does not hold refuses the whole command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Precondition {
    /// The lease `key` is live and its fencing token is `token`.
    Lease {
        /// The lease key.
        key: Name,
        /// The token that the caller was granted.
        token: FencingToken,
    },
    /// The item's claim is live and its fencing token is `token`.
    Claim {
        /// The queue.
        queue: Name,
        /// The item.
        item_id: ItemId,
        /// The token that the caller was granted.
        token: FencingToken,
    },
    /// Somebody holds the lock `key` under `token`.
    Lock {
        /// The lock key.
        key: Name,
        /// The token that the caller was granted.
        token: FencingToken,
    },
    /// There is a process record `id`.
    Process {
        /// The process.
        id: Name,
    },
}

impl Precondition {
    /// `Fenced`, `Expired` or `NotFound` unless the precondition holds now.
    pub(crate) fn check(&self, tx: &mut Transaction<'_>, ctx: &Context) -> Result<(), Failure> {
        match self {
            Self::Lease { key, token } => lease::require_live(tx, ctx, key, *token).map(drop),
            Self::Claim {
                queue,
                item_id,
                token,
            } => queue::require_claim(tx, ctx, queue, *item_id, *token).map(drop),
            Self::Lock { key, token } => lock::require_hold(tx, ctx, key, *token).map(drop),
            Self::Process { id } => process::require(tx, id).map(drop),
        }
    }
}
