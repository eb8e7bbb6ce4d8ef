//! A gate in front of a resource outside the cluster: it lets no stale holder through.
//!
//! A lease alone cannot stop a holder that was paused past its TTL: it wakes up and writes. Give
//! every write the grant's fencing token, and let the resource refuse tokens lower than the highest
//! it has seen. The check and the write must be one atomic step of the resource. Where the resource
//! is a database that is a condition on the row, no gate is needed:
//!
//! ```sql
//! UPDATE account SET balance = $1, fence = $2 WHERE id = $3 AND fence <= $2;  -- 0 rows: stale
//! ```

use quorate_statemachine::FencingToken;
use thiserror::Error;

/// Accepts only tokens that are not lower than the highest it has seen.
///
/// It takes `&mut self`: whoever owns the resource owns the gate, and holds both while it writes.
/// To survive a restart of the resource, store [`Self::highest`] with it and begin again from
/// there.
///
/// ```
/// use quorate_client::fence::FenceGate;
///
/// let mut gate = FenceGate::starting_at(7);
/// assert!(gate.check(9).is_ok());          // a newer holder
/// assert!(gate.check(9).is_ok());          // the same holder again
/// let stale = gate.check(8).unwrap_err();  // the holder before it, woken up late
/// assert_eq!((stale.presented, stale.highest), (8, 9));
/// ```
#[derive(Debug, Clone, Default)]
pub struct FenceGate {
    highest: FencingToken,
}

/// A token was presented that is lower than one seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "fencing token {presented} is stale, the highest seen is {highest}; stop, another holder has \
     the lease"
)]
pub struct Stale {
    /// The token of the caller.
    pub presented: FencingToken,
    /// The highest token seen.
    pub highest: FencingToken,
}

impl FenceGate {
    /// A gate of a new resource.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A gate of a resource that has stored the highest token it saw.
    #[must_use]
    pub fn starting_at(highest: FencingToken) -> Self {
        Self { highest }
    }

    /// Lets `token` pass and remembers it, or refuses it.
    pub fn check(&mut self, token: FencingToken) -> Result<(), Stale> {
        if token < self.highest {
            return Err(Stale {
                presented: token,
                highest: self.highest,
            });
        }
        self.highest = token;
        Ok(())
    }

    /// The highest token seen.
    #[must_use]
    pub fn highest(&self) -> FencingToken {
        self.highest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_gate_takes_any_token_and_remembers_it() {
        let mut gate = FenceGate::new();
        assert_eq!(gate.check(0), Ok(()));
        assert_eq!(gate.check(12), Ok(()));
        assert_eq!(gate.highest(), 12);
    }

    #[test]
    fn a_stale_token_is_refused_and_changes_nothing() {
        let mut gate = FenceGate::starting_at(12);
        let stale = Stale {
            presented: 11,
            highest: 12,
        };
        assert_eq!(gate.check(11), Err(stale));
        assert_eq!(gate.highest(), 12);
        assert_eq!(gate.check(12), Ok(()));
    }
}
