//! All that a command may know of the world: when it is, and where it stands in the log.

use crate::access::Rights;
use crate::fencing::FencingToken;
use crate::limits::COMPOSITE_STEPS_MAX;
use crate::time::Timestamp;

/// The facts of one entry, the same on every node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context<'a> {
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
    /// What whoever asked for the command may do.
    pub rights: &'a Rights<'a>,
}

impl Context<'_> {
    /// The token of a grant made by this entry: greater than every token granted before.
    ///
    /// All grants of one composite share it; tokens are compared per key, lock or item, where one
    /// entry grants at most once.
    #[must_use]
    pub fn fencing_token(&self) -> FencingToken {
        self.fence_base + self.index
    }

    /// A number that no other step of any entry has: greater than all before it.
    #[must_use]
    pub fn number(&self) -> u64 {
        (self.index << STEP_BITS) | u64::from(self.step)
    }
}

/// Bits of a number that tell the steps of one entry apart.
const STEP_BITS: u32 = 10;

const _: () = assert!(COMPOSITE_STEPS_MAX <= 1 << STEP_BITS);
