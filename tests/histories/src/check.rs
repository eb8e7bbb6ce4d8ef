//! What must hold of everything that was recorded.

use std::collections::BTreeMap;
use std::sync::Mutex;

use anyhow::{Error, Result};
use quorate_statemachine::queue::ItemId;
use quorate_statemachine::{FencingToken, LeaseToken};
use tokio::time::Instant;

use crate::history::{Claimed, History, Outcome, Pushed, Settled, Span, Taken};
use crate::models::{events, leases, locks, queues, sessions};
use crate::oracle::{items, leases as held, tokens};
use crate::record::{Micros, Record, Recorder};

/// With what keys of locks begin, here as with the clients.
const LOCKS: &str = "lock/";

/// Keys that are checked at a time. Each takes a processor and some memory.
const AT_A_TIME: usize = 2;

/// What was found of one noun.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Operations that were checked.
    pub operations: usize,
    /// Of these, without a known outcome.
    pub unknown: usize,
    /// Keys.
    pub keys: usize,
    /// What is wrong, with the key.
    pub wrong: Vec<String>,
}

/// The verdicts of all checks by what was checked.
pub type Verdicts = BTreeMap<&'static str, Verdict>;

/// Checks everything.
#[must_use]
pub fn all(recorder: &Recorder) -> Verdicts {
    let leases = recorder.leases.all();
    let locks = recorder.locks.all();
    let queues = recorder.queues.all();
    let mut verdicts = Verdicts::from([
        ("leases", each_key(&leases, leases::check)),
        ("locks", each_key(&locks, locks::check)),
        ("queues", each_key(&queues, queues::check)),
        ("events", each_key(&recorder.events.all(), events::check)),
        (
            "sessions",
            each_key(&recorder.sessions.all(), sessions::check),
        ),
    ]);
    let mut history = History {
        claims: lease_claims(recorder, &leases),
        ..History::default()
    };
    history.claims.extend(lock_claims(recorder, &locks));
    add_items(recorder, &queues, &mut history);
    verdicts.insert("fencing tokens", fencing(&history));
    verdicts.insert("settled once", {
        one(history.pushes.len(), items::settled_once(&history))
    });
    verdicts
}

/// Checks the history of each key by itself, the largest first.
fn each_key<S: Clone + Send + Sync>(
    records: &[Record<S>],
    check: impl Fn(&[Record<S>]) -> Result<()> + Sync,
) -> Verdict {
    let mut keys: BTreeMap<&str, Vec<Record<S>>> = BTreeMap::new();
    for record in records {
        keys.entry(&record.key).or_default().push(record.clone());
    }
    let mut verdict = Verdict {
        operations: records.len(),
        unknown: records.iter().filter(|record| record.ret.is_none()).count(),
        keys: keys.len(),
        wrong: Vec::new(),
    };
    let open = Mutex::new(keys.into_iter());
    let found = Mutex::new(Vec::new());
    let next = || open.lock().expect("nothing panics while it is held").next();
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some((key, records)) = next() {
                    if let Err(error) = check(&records) {
                        let mut found = found.lock().expect("nothing panics while it is held");
                        found.push(format!("{key}: {error:#}"));
                    }
                }
            });
        }
    });
    verdict.wrong = found.into_inner().expect("nothing panics while it is held");
    verdict.wrong.sort();
    verdict
}

fn one(operations: usize, result: Result<()>) -> Verdict {
    Verdict {
        operations,
        wrong: result
            .err()
            .iter()
            .map(|error: &Error| format!("{error:#}"))
            .collect(),
        ..Verdict::default()
    }
}

/// Tokens are in the order of real time over all keys, no two grants share one but where a lock was
/// handed on by another grant's entry, and no two holders of a key are sure to hold it at the same
/// time.
fn fencing(history: &History) -> Verdict {
    let mut grants: BTreeMap<FencingToken, Vec<(String, Span)>> = BTreeMap::new();
    let mut wrong = Vec::new();
    let mut count = 0;
    for (token, span, what) in named_grants(history) {
        count += 1;
        let of_token = grants.entry(token).or_default();
        for (other, _) in of_token.iter() {
            if *other == what || !(is_lock(other) || is_lock(&what)) {
                wrong.push(format!(
                    "token {token} was given for {other} and for {what}"
                ));
            }
        }
        of_token.push((what, span));
    }
    let spans = grants
        .into_iter()
        .map(|(token, of_token)| (token, of_token[0].1));
    let ordered = tokens::ordered_in_real_time(spans);
    let apart = held::never_held_twice(&history.claims);
    let found = [ordered, apart].into_iter().filter_map(Result::err);
    wrong.extend(found.map(|error| format!("{error:#}")));
    Verdict {
        operations: count,
        wrong,
        ..Verdict::default()
    }
}

fn is_lock(key: &str) -> bool {
    key.starts_with(LOCKS)
}

/// Every grant, and what was granted.
fn named_grants(history: &History) -> impl Iterator<Item = (FencingToken, Span, String)> + '_ {
    let claims = history.claims.iter().filter_map(|claim| {
        let token = claim.outcome.done().copied().flatten()?;
        Some((token, claim.span, claim.key.clone()))
    });
    let items = history.takes.iter().filter_map(|take| {
        let (item, _, token) = take.outcome.done()?.first()?;
        Some((*token, take.span, format!("item {item}")))
    });
    claims.chain(items)
}

/// A grant on its way through a history.
struct Held {
    key: String,
    token: FencingToken,
    sent: Micros,
    answered: Micros,
    /// As long as its holder can be sure.
    until: Micros,
}

/// How long a holder can be sure: what the client's guard goes by.
fn sure(from: Micros, ttl_ms: u64) -> Micros {
    from + Micros::try_from(ttl_ms).unwrap_or(0) * 950
}

fn claimed(recorder: &Recorder, held: Held) -> Claimed {
    let span = Span {
        sent: recorder.instant(held.sent),
        answered: recorder.instant(held.answered),
    };
    Claimed {
        key: held.key,
        lease_token: LeaseToken::parse(format!("t{}", held.token)).expect("a short text"),
        outcome: Outcome::Done(Some(held.token)),
        span,
        held_until: recorder.instant(held.until.max(held.answered)),
    }
}

fn lease_claims(recorder: &Recorder, records: &[Record<leases::Step>]) -> Vec<Claimed> {
    use leases::Step;
    let mut grants: BTreeMap<u32, Held> = BTreeMap::new();
    for record in records {
        let (call, ret) = (record.call, record.ret.unwrap_or(record.call));
        match record.step {
            Step::Granted(grant) => {
                let held = Held {
                    key: record.key.clone(),
                    token: grant.token,
                    sent: call,
                    answered: ret,
                    until: sure(call, leases::TTL_MS),
                };
                grants.insert(grant.number, held);
            }
            Step::Renewed(grant) => {
                if let Some(held) = grants.get_mut(&grant.number) {
                    held.until = sure(call, leases::TTL_MS);
                }
            }
            Step::Released(grant) | Step::NotHeld(grant, _) | Step::MayHaveReleased(grant) => {
                if let Some(held) = grants.get_mut(&grant.number) {
                    held.until = held.until.min(call);
                }
            }
            _ => {}
        }
    }
    let grants = grants.into_values();
    grants.map(|held| claimed(recorder, held)).collect()
}

fn lock_claims(recorder: &Recorder, records: &[Record<locks::Step>]) -> Vec<Claimed> {
    use locks::Step;
    let mut holds: BTreeMap<u32, Held> = BTreeMap::new();
    // First asked, and last heard to wait: it did not hold the lock before that.
    let mut waits: BTreeMap<u32, (Micros, Micros)> = BTreeMap::new();
    for record in records {
        let (call, ret) = (record.call, record.ret.unwrap_or(record.call));
        match record.step {
            Step::Waiting(number) => {
                let first = waits.get(&number).map_or(call, |(first, _)| *first);
                waits.insert(number, (first, call));
            }
            Step::Granted(hold) => {
                let (first, last) = waits.get(&hold.number).copied().unwrap_or((call, call));
                let held = Held {
                    key: record.key.clone(),
                    token: hold.token,
                    sent: first,
                    answered: ret,
                    until: sure(last, locks::TTL_MS),
                };
                holds.insert(hold.number, held);
            }
            Step::Renewed(hold) => {
                if let Some(held) = holds.get_mut(&hold.number) {
                    held.until = sure(call, locks::TTL_MS);
                }
            }
            Step::Released(locks::Hold { number, .. })
            | Step::Over(number)
            | Step::MayHaveReleased(number) => {
                if let Some(held) = holds.get_mut(&number) {
                    held.until = held.until.min(call);
                }
            }
            _ => {}
        }
    }
    let holds = holds.into_values();
    holds.map(|held| claimed(recorder, held)).collect()
}

fn add_items(recorder: &Recorder, records: &[Record<queues::Step>], history: &mut History) {
    use queues::Step;
    for record in records {
        let at = |time: Micros| -> Instant { recorder.instant(time) };
        let span = Span {
            sent: at(record.call),
            answered: at(record.ret.unwrap_or(record.call)),
        };
        let unknown = || "no answer".to_owned();
        let pushed = |payload: u32, outcome| Pushed {
            payload: payload.to_string(),
            outcome,
            span,
        };
        let settled = |claim: queues::Claim, outcome| Settled {
            item: ItemId(claim.item),
            token: claim.token,
            outcome,
            span,
        };
        match record.step {
            Step::Pushed { item, payload } => {
                let outcome = Outcome::Done(ItemId(item));
                history.pushes.push(pushed(payload, outcome));
            }
            Step::MayHavePushed(payload) => {
                history
                    .pushes
                    .push(pushed(payload, Outcome::Unknown(unknown())));
            }
            Step::Took { claim, payload } => {
                let item = (ItemId(claim.item), payload.to_string(), claim.token);
                let outcome = Outcome::Done(vec![item]);
                history.takes.push(Taken { outcome, span });
            }
            Step::Settled(claim) => history.settles.push(settled(claim, Outcome::Done(()))),
            Step::MayHaveSettled(claim) => {
                history
                    .settles
                    .push(settled(claim, Outcome::Unknown(unknown())));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::hand::op;

    fn granted(call: Micros, key: &str, number: u32, token: u64) -> Record<leases::Step> {
        let step = leases::Step::Granted(leases::Grant { number, token });
        Record {
            key: key.to_owned(),
            ..op(call, call + 5, step)
        }
    }

    fn wrong(recorder: &Recorder, what: &str) -> Vec<String> {
        let mut verdicts = all(recorder);
        verdicts.remove(what).expect("it is checked").wrong
    }

    #[test]
    fn a_token_of_two_keys_and_one_that_goes_back_are_found() {
        let fine = Recorder::in_memory();
        fine.leases.add(granted(0, "a", 1, 5));
        fine.leases.add(granted(10, "b", 2, 6));
        assert_eq!(wrong(&fine, "fencing tokens"), Vec::<String>::new());
        let twice = Recorder::in_memory();
        twice.leases.add(granted(0, "a", 1, 5));
        twice.leases.add(granted(1, "b", 2, 5));
        let told = wrong(&twice, "fencing tokens").join(" ");
        assert!(told.contains("for a and for b"), "{told}");
        let back = Recorder::in_memory();
        back.leases.add(granted(0, "a", 1, 6));
        back.leases.add(granted(10, "b", 2, 5));
        assert_eq!(wrong(&back, "fencing tokens").len(), 1);
    }

    #[test]
    fn a_lock_may_be_handed_on_by_the_entry_of_another_grant() {
        let lock = |number| Record {
            key: format!("{LOCKS}k"),
            ..op(1, 4, locks::Step::Granted(locks::Hold { number, token: 5 }))
        };
        let handed_on = Recorder::in_memory();
        handed_on.leases.add(granted(0, "a", 1, 5));
        handed_on.locks.add(lock(2));
        assert_eq!(wrong(&handed_on, "fencing tokens"), Vec::<String>::new());
        handed_on.locks.add(lock(3));
        assert!(!wrong(&handed_on, "fencing tokens").is_empty());
    }

    #[test]
    fn two_who_are_sure_to_hold_a_key_are_found() {
        let both = Recorder::in_memory();
        both.leases.add(granted(0, "a", 1, 5));
        both.leases.add(granted(100, "a", 2, 6));
        assert_eq!(wrong(&both, "fencing tokens").len(), 1);
        assert_eq!(wrong(&both, "leases").len(), 1);
        let after = Recorder::in_memory();
        after.leases.add(granted(0, "a", 1, 5));
        after.leases.add(granted(1_500, "a", 2, 6));
        assert_eq!(wrong(&after, "fencing tokens"), Vec::<String>::new());
        assert_eq!(wrong(&after, "leases"), Vec::<String>::new());
    }

    #[test]
    fn a_settlement_of_what_was_never_pushed_is_found() {
        let lost = Recorder::in_memory();
        let step = queues::Step::Pushed {
            item: 1,
            payload: 7,
        };
        lost.queues.add(op(0, 5, step));
        let told = wrong(&lost, "settled once").join(" ");
        assert!(told.contains("lost"), "{told}");
    }
}
