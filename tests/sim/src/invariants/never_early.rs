//! A lease never ends early: nobody else gets the key before its TTL is over or it is given back.
//!
//! Cluster time may run 5 % faster than the clock of the simulation (`quorate_node::clock`), and
//! the TTL counts from when the claim was applied, which is not before it was sent.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::history::{Claimed, History, Outcome};

/// Roundings of milliseconds on the way.
pub const ROUNDING: Duration = Duration::from_millis(3);

/// Of two grants of one key that follow each other.
pub fn check(history: &History) -> Vec<String> {
    let mut by_key: BTreeMap<&str, Vec<(u64, &Claimed)>> = BTreeMap::new();
    for claim in &history.claims {
        if let Outcome::Granted(token) = claim.outcome {
            by_key.entry(&claim.key).or_default().push((token, claim));
        }
    }
    let mut wrong = Vec::new();
    for grants in by_key.values_mut() {
        grants.sort_by_key(|(token, _)| *token);
        for pair in grants.windows(2) {
            let ((_, first), (_, second)) = (pair[0], pair[1]);
            let given_back = first.released.is_some_and(|at| at <= second.answered);
            let ends = first.entitled_until();
            if !given_back && second.answered + ROUNDING < ends {
                wrong.push(format!("{first:?} ended early: {second:?}"));
            }
        }
    }
    wrong
}
