//! What an entry did, in numbers, for metrics.
//!
//! Figures are the same on every node, since every node applies every entry. They are not stored,
//! and unlike notices nobody is sent them.

use crate::queue::Settled;

/// What can be held for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// A lease.
    Lease,
    /// A lock.
    Lock,
    /// A queue item.
    Claim,
}

/// One thing that an entry did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    /// The time to live of something held began anew.
    Renewed {
        /// What is held.
        held: Held,
        /// What was left of the time to live.
        left_ms: u64,
    },
    /// A lock was granted.
    LockWaited {
        /// Time since it was asked for.
        waited_ms: u64,
    },
    /// A queue item was claimed.
    Claimed,
    /// A claim of a queue item was settled.
    ClaimSettled(Settled),
    /// The time of a claim ran out.
    ClaimExpired {
        /// Whether the item can be claimed again.
        again: bool,
    },
    /// An event was to be appended that had been appended before.
    EventRepeated,
}
