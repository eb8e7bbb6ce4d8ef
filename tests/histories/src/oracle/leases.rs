//! Leases: what was granted is there, and nobody held a key while somebody else did.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use quorate_client::KeyStory;
use quorate_statemachine::FencingToken;
use quorate_statemachine::lease::Lease;

use crate::history::{Claimed, Outcome};

/// A claim's caller certainly held the key from the answer on until it began to give it back. No
/// two such times of one key overlap, and the later one has the greater token.
pub fn never_held_twice(claims: &[Claimed]) -> Result<()> {
    let mut by_key: BTreeMap<&str, Vec<(&Claimed, FencingToken)>> = BTreeMap::new();
    for claim in claims {
        if let Outcome::Done(Some(token)) = claim.outcome {
            by_key.entry(&claim.key).or_default().push((claim, token));
        }
    }
    for (key, mut held) in by_key {
        held.sort_unstable_by_key(|(claim, _)| claim.span.answered);
        for pair in held.windows(2) {
            let [(first, lower), (second, higher)] = pair else {
                continue;
            };
            ensure!(
                first.held_until <= second.span.answered,
                "{key} was held under tokens {lower} and {higher} at the same time"
            );
            ensure!(
                lower < higher,
                "{key} was held under token {higher} before {lower}"
            );
        }
    }
    Ok(())
}

/// Every grant of a key under `prefix` is there with its tokens, and nothing else is: not what was
/// certainly not done, and nothing that nobody asked for.
pub fn kept(claims: &[Claimed], prefix: &str, found: &BTreeMap<String, Lease>) -> Result<()> {
    let mut asked: BTreeMap<&str, &Claimed> = BTreeMap::new();
    for claim in claims.iter().filter(|claim| claim.key.starts_with(prefix)) {
        asked.insert(&claim.key, claim);
        if let Outcome::Done(granted) = &claim.outcome {
            let key = &claim.key;
            let token = granted.with_context(|| format!("{key} was busy, nobody else wants it"))?;
            let lease = found
                .get(key)
                .with_context(|| format!("lost: the lease of {key}"))?;
            ensure!(
                lease.fencing_token == token && lease.lease_token == claim.lease_token,
                "{key} was granted token {token}, the cluster has {lease:?}"
            );
        }
    }
    for (key, lease) in found {
        let claim = asked.get(key.as_str());
        let claim = claim.with_context(|| format!("nobody asked for {lease:?}"))?;
        ensure!(
            !matches!(claim.outcome, Outcome::NotDone(_)),
            "{key} is there, but its claim was said not to be done"
        );
    }
    Ok(())
}

/// The key's history, which is bounded, has every grant from its first one on.
pub fn told(claims: &[Claimed], key: &str, story: &KeyStory) -> Result<()> {
    let ended = story
        .history
        .ended
        .iter()
        .map(|ended| (ended.fencing_token, &ended.lease_token));
    let live = story
        .live
        .iter()
        .map(|lease| (lease.fencing_token, &lease.lease_token));
    let known: BTreeMap<FencingToken, _> = ended.chain(live).collect();
    let Some(first) = known.keys().next() else {
        let granted = claims
            .iter()
            .find(|claim| claim.key == key && matches!(claim.outcome, Outcome::Done(Some(_))));
        ensure!(granted.is_none(), "{key} has no history, but {granted:?}");
        return Ok(());
    };
    for claim in claims.iter().filter(|claim| claim.key == key) {
        let Outcome::Done(Some(token)) = claim.outcome else {
            continue;
        };
        if token >= *first {
            let lease_token = known.get(&token);
            let lease_token = lease_token.with_context(|| {
                format!("lost: the grant of {key} under token {token}, its history has {known:?}")
            })?;
            ensure!(
                **lease_token == claim.lease_token,
                "token {token} of {key} is another's"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Span;
    use quorate_statemachine::LeaseToken;
    use std::time::Duration;
    use tokio::time::Instant;

    fn claim(key: &str, token: u64, answered: Instant, held_ms: u64) -> Claimed {
        Claimed {
            key: key.to_owned(),
            lease_token: LeaseToken::parse(format!("t{token}")).expect("valid"),
            outcome: Outcome::Done(Some(token)),
            span: Span {
                sent: answered,
                answered,
            },
            held_until: answered + Duration::from_millis(held_ms),
        }
    }

    #[test]
    fn holding_at_the_same_time_is_found() {
        let start = Instant::now();
        let later = start + Duration::from_millis(10);
        let one_after_the_other = [claim("k", 1, start, 10), claim("k", 2, later, 10)];
        never_held_twice(&one_after_the_other).expect("no overlap");
        let other_keys = [claim("k", 1, start, 20), claim("l", 2, later, 10)];
        never_held_twice(&other_keys).expect("two keys");
        let overlap = [claim("k", 1, start, 11), claim("k", 2, later, 10)];
        never_held_twice(&overlap).expect_err("one millisecond too long");
        let backwards = [claim("k", 2, start, 1), claim("k", 1, later, 1)];
        never_held_twice(&backwards).expect_err("the token went back");
    }

    #[test]
    fn a_lost_grant_is_found() {
        let granted = claim("held/1", 7, Instant::now(), 10);
        let error = kept(&[granted], "held/", &BTreeMap::new()).expect_err("it is gone");
        assert!(error.to_string().contains("lost"), "{error}");
    }
}
