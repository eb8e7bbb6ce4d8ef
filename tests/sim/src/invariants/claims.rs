//! An item has at most one live claim, and is settled once.

use std::collections::BTreeMap;

use crate::history::{History, ItemClaimed};
use crate::invariants::never_early::ROUNDING;

/// Of all claims of each item, in the order of their tokens.
pub fn check(history: &History) -> Vec<String> {
    let mut by_item: BTreeMap<_, Vec<&ItemClaimed>> = BTreeMap::new();
    for claim in &history.items {
        by_item.entry(claim.item.0).or_default().push(claim);
    }
    let mut wrong = Vec::new();
    for claims in by_item.values_mut() {
        claims.sort_by_key(|claim| claim.token);
        for pair in claims.windows(2) {
            let (first, second) = (pair[0], pair[1]);
            if first.token == second.token {
                wrong.push(format!("claimed twice under one token: {pair:?}"));
            }
            if second.answered + ROUNDING < first.entitled_until {
                wrong.push(format!("two live claims: {pair:?}"));
            }
            if first.settled.is_some_and(|at| at < second.sent) {
                wrong.push(format!("claimed after it was settled: {pair:?}"));
            }
        }
        if claims
            .iter()
            .filter(|claim| claim.settled.is_some())
            .count()
            > 1
        {
            wrong.push(format!("settled more than once: {claims:?}"));
        }
    }
    wrong
}
