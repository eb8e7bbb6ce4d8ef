//! All that a command may know of the world: when it is, and where it stands in the log.

use crate::fencing::FencingToken;
use crate::time::Timestamp;

/// The facts of one entry, the same on every node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// Clamped cluster time.
    pub now: Timestamp,
    /// Log index of the entry.
    pub index: u64,
    /// Which step of a composite this is; 0 outside of one.
    pub step: u32,
    /// Added to the index to make a fencing token.
    pub fence_base: u64,
    /// The sweep before the command may have left something that is due.
    pub overdue: bool,
}

impl Context {
    /// The token of a grant made by this entry: greater than every token granted before.
    ///
    /// All grants of one composite share it; tokens are compared per key, lock or item, where one
    /// entry grants at most once.
    #[must_use]
    pub fn fencing_token(&self) -> FencingToken {
        self.fence_base + self.index
    }
}
