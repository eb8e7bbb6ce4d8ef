//! Fencing tokens are unique, and in the order of real time.

use std::collections::BTreeSet;

use crate::history::{History, Outcome};

/// A grant that was asked for after another one was answered has the greater token.
pub fn check(history: &History) -> Vec<String> {
    let mut grants = Vec::new();
    for claim in &history.claims {
        if let Outcome::Granted(token) = claim.outcome {
            grants.push((claim, token));
        }
    }
    let mut wrong = Vec::new();
    let mut tokens = BTreeSet::new();
    for (claim, token) in &grants {
        if !tokens.insert((&claim.key, token)) {
            wrong.push(format!(
                "token {token} was granted twice, the second time for {claim:?}"
            ));
        }
    }
    let mut by_sending = grants.clone();
    by_sending.sort_by_key(|(claim, _)| claim.asked);
    grants.sort_by_key(|(claim, _)| claim.answered);
    let (mut answered, mut highest) = (grants.iter().peekable(), 0);
    for (claim, token) in by_sending {
        while let Some((_, earlier)) = answered.next_if(|(other, _)| other.answered < claim.asked) {
            highest = highest.max(*earlier);
        }
        if token <= highest {
            wrong.push(format!(
                "token {token} was asked for after {highest} was answered: {claim:?}"
            ));
        }
    }
    wrong
}
