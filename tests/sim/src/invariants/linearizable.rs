//! What is seen of a lease is its state at a moment between question and answer.
//!
//! Tokens order the states of a key, so that necessary conditions are enough to look at: nobody
//! sees what is not there yet, nor what was already followed by something, nor nothing while a
//! grant is certainly live.

use std::collections::BTreeMap;

use crate::history::{Claimed, History, Outcome, Read};

/// Every read and every claim that was answered `Busy`.
pub fn check(history: &History) -> Vec<String> {
    let mut by_key: BTreeMap<&str, Vec<(u64, &Claimed)>> = BTreeMap::new();
    for claim in &history.claims {
        if let Outcome::Granted(token) = claim.outcome {
            by_key.entry(&claim.key).or_default().push((token, claim));
        }
    }
    let mut wrong = Vec::new();
    for read in &history.reads {
        let grants = by_key.get(&*read.key).map_or(&[][..], Vec::as_slice);
        if let Some(why) = against_grants(read, grants) {
            wrong.push(format!("{read:?}, but {why}"));
        }
        let later = history.reads.iter().filter(|other| other.key == read.key);
        let back = |other: &&Read| {
            other.sent > read.answered && other.seen.is_some_and(|token| Some(token) < read.seen)
        };
        if let Some(back) = later.clone().find(back) {
            wrong.push(format!("{read:?}, and later {back:?}"));
        }
    }
    wrong
}

fn against_grants(read: &Read, grants: &[(u64, &Claimed)]) -> Option<String> {
    for (token, grant) in grants {
        match read.seen {
            Some(seen) if seen == *token && grant.asked > read.answered => {
                return Some(format!("this was not asked for yet: {grant:?}"));
            }
            Some(seen) if seen < *token && grant.answered < read.sent => {
                return Some(format!("this was there before: {grant:?}"));
            }
            None if grant.answered < read.sent
                && grant.entitled_until() > read.answered
                && grant.released.is_none_or(|at| at > read.answered) =>
            {
                return Some(format!("this was live: {grant:?}"));
            }
            _ => {}
        }
    }
    None
}
