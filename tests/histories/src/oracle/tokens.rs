//! Fencing tokens: unique, and in the order of real time.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use quorate_statemachine::FencingToken;
use tokio::time::Instant;

use crate::history::Span;

/// A grant that was asked for after another one was answered has the greater token; no two are
/// equal. Sorts the instants and goes over them once: O(n log n).
pub fn ordered_in_real_time(grants: impl Iterator<Item = (FencingToken, Span)>) -> Result<()> {
    let grants: Vec<(FencingToken, Span)> = grants.collect();
    unique(grants.iter().map(|(token, _)| *token))?;
    // At one instant a sending comes before an answer: then neither grant was before the other.
    let sent = grants.iter().map(|(token, span)| (span.sent, 0, *token));
    let answered = grants
        .iter()
        .map(|(token, span)| (span.answered, 1, *token));
    let mut instants: Vec<(Instant, u8, FencingToken)> = sent.chain(answered).collect();
    instants.sort_unstable();
    let mut highest_answered = 0;
    let mut floors = std::collections::BTreeMap::new();
    for (_, kind, token) in instants {
        if kind == 0 {
            floors.insert(token, highest_answered);
        } else {
            highest_answered = highest_answered.max(token);
        }
    }
    for (token, floor) in floors {
        ensure!(
            token > floor,
            "token {token} was asked for after token {floor} had been answered"
        );
    }
    Ok(())
}

/// Fails at the first that comes twice.
fn unique<T: Ord + std::fmt::Debug>(values: impl Iterator<Item = T>) -> Result<()> {
    let mut seen = BTreeSet::new();
    for value in values {
        ensure!(!seen.contains(&value), "{value:?} is there twice");
        seen.insert(value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn grants(of: &[(u64, u64, u64)]) -> Vec<(FencingToken, Span)> {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let grant = |(token, sent, answered): &(u64, u64, u64)| {
            let (sent, answered) = (at(*sent), at(*answered));
            (*token, Span { sent, answered })
        };
        of.iter().map(grant).collect()
    }

    fn check(of: &[(u64, u64, u64)]) -> Result<()> {
        ordered_in_real_time(grants(of).into_iter())
    }

    #[test]
    fn overlapping_grants_may_have_any_order() {
        check(&[(5, 0, 10), (4, 1, 9), (7, 10, 12), (6, 11, 14), (9, 14, 15)]).expect("in order");
    }

    #[test]
    fn a_later_grant_with_a_lower_token_is_found() {
        let error = check(&[(5, 0, 10), (4, 11, 12)]).expect_err("4 after 5");
        assert!(error.to_string().contains("token 4"), "{error}");
    }

    #[test]
    fn a_token_given_twice_is_found() {
        check(&[(5, 0, 10), (5, 1, 9)]).expect_err("twice");
    }
}
