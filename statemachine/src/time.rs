//! Time as the state machine sees it: a number in the entry.
//!
//! The leader stamps each proposal with cluster time; [`clamp`] makes it never go back. Nothing in
//! this crate reads a clock.

use serde::{Deserialize, Serialize};

/// An instant of cluster time, in milliseconds. Near the Unix epoch's count, because leaders slew
/// towards their wall clocks, but only differences and order carry a promise.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The instant `ms` milliseconds later, or the end of time.
    #[must_use]
    pub fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this instant; 0 when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// `now = max(last_now, proposed_at)`: a leader whose clock is behind its predecessor's cannot make
/// cluster time go back.
#[must_use]
pub fn clamp(last: Timestamp, proposed_at: Timestamp) -> Timestamp {
    last.max(proposed_at)
}
