//! Nothing acknowledged is lost: every lease that was granted for good is there at the end.

use std::collections::BTreeMap;

use quorate_statemachine::FencingToken;

use crate::history::{History, Outcome};

/// Keys that one client claims once and never gives back, by this beginning.
pub const KEPT: &str = "kept/";

/// `found` is what the cluster says in the end of the keys that begin with [`KEPT`].
pub fn check(history: &History, found: &BTreeMap<String, FencingToken>) -> Vec<String> {
    let kept = history
        .claims
        .iter()
        .filter(|claim| claim.key.starts_with(KEPT));
    let mut wrong = Vec::new();
    for claim in kept {
        let there = found.get(&claim.key);
        match (&claim.outcome, there) {
            (Outcome::Granted(token), Some(found)) if token == found => {}
            (Outcome::Granted(_), _) => wrong.push(format!("lost: {claim:?}, found {there:?}")),
            (Outcome::NotDone, Some(found)) => {
                wrong.push(format!(
                    "{claim:?} was not done, but is there under {found}"
                ));
            }
            _ => {}
        }
    }
    wrong
}
