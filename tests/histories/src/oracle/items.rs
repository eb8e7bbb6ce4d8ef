//! Queue items, once the queue is empty: every pushed item was settled, none twice.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use quorate_statemachine::queue::ItemId;

use crate::history::{History, Outcome};

/// Every item of an acknowledged push was settled, by one claim only; each was given out with the
/// payload it was pushed with, and nothing was given out that nobody pushed.
pub fn settled_once(history: &History) -> Result<()> {
    let payloads = given_out(history)?;
    let settled = settled(history)?;
    let mut pushed_twice = BTreeSet::new();
    let mut may_be_there: BTreeSet<&str> = BTreeSet::new();
    for push in &history.pushes {
        match &push.outcome {
            Outcome::Done(item) => {
                ensure!(
                    pushed_twice.insert(item),
                    "item {item} was two pushes' answer"
                );
                may_be_there.insert(&push.payload);
                let given = payloads.get(item).map(String::as_str);
                ensure!(
                    given.is_none_or(|given| given == push.payload),
                    "item {item} was pushed as {} and given out as {given:?}",
                    push.payload
                );
                ensure!(
                    settled.contains(item),
                    "lost: item {item}, {}",
                    push.payload
                );
            }
            Outcome::Unknown(_) => drop(may_be_there.insert(&push.payload)),
            Outcome::NotDone(_) => {}
        }
    }
    let mut items: BTreeMap<&str, ItemId> = BTreeMap::new();
    for (item, payload) in &payloads {
        ensure!(
            may_be_there.contains(payload.as_str()),
            "nobody pushed {payload}, item {item}"
        );
        let other = items.insert(payload, *item);
        ensure!(
            other.is_none(),
            "{payload} is item {item} and item {other:?}"
        );
    }
    Ok(())
}

fn given_out(history: &History) -> Result<BTreeMap<ItemId, String>> {
    let mut payloads: BTreeMap<ItemId, String> = BTreeMap::new();
    let mut claims = BTreeSet::new();
    for (item, payload, token) in history
        .takes
        .iter()
        .filter_map(|take| take.outcome.done())
        .flatten()
    {
        ensure!(
            claims.insert((item, token)),
            "item {item} was given out twice under token {token}"
        );
        let before = payloads.insert(*item, payload.clone());
        ensure!(
            before.as_ref().is_none_or(|before| before == payload),
            "item {item} was given out as {before:?} and as {payload}"
        );
    }
    Ok(payloads)
}

/// Items that were settled, or may have been: an unknown settlement explains that the item is gone.
fn settled(history: &History) -> Result<BTreeSet<ItemId>> {
    let mut certain = BTreeMap::new();
    let mut settled = BTreeSet::new();
    for settle in &history.settles {
        match settle.outcome {
            Outcome::Done(()) => {
                let before = certain.insert(settle.item, settle.token);
                ensure!(
                    before.is_none(),
                    "item {} was settled under token {} and under {before:?}",
                    settle.item,
                    settle.token
                );
                settled.insert(settle.item);
            }
            Outcome::Unknown(_) => drop(settled.insert(settle.item)),
            Outcome::NotDone(_) => {}
        }
    }
    Ok(settled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Pushed, Settled, Span, Taken};
    use tokio::time::Instant;

    fn history(taken: &[(u64, &str, u64)], settled: &[(u64, u64)]) -> History {
        let span = Span::since(Instant::now());
        let mut history = History::default();
        let outcomes = [
            Outcome::Done(ItemId(1)),
            Outcome::Unknown("?".to_owned()),
            Outcome::NotDone("no".to_owned()),
        ];
        for (payload, outcome) in ["a", "b", "c"].into_iter().zip(outcomes) {
            let payload = payload.to_owned();
            history.pushes.push(Pushed {
                payload,
                outcome,
                span,
            });
        }
        for (item, payload, token) in taken {
            let items = vec![(ItemId(*item), (*payload).to_owned(), *token)];
            let outcome = Outcome::Done(items);
            history.takes.push(Taken { outcome, span });
        }
        for (item, token) in settled {
            history.settles.push(Settled {
                item: ItemId(*item),
                token: *token,
                outcome: Outcome::Done(()),
                span,
            });
        }
        history
    }

    #[test]
    fn lost_doubled_and_strange_items_are_found() {
        let check = |taken, settled| settled_once(&history(taken, settled));
        check(&[(1, "a", 5)], &[(1, 5)]).expect("the unknown one was not done");
        check(&[(1, "a", 5), (2, "b", 6)], &[(1, 5), (2, 6)]).expect("it was done");
        check(&[(1, "a", 5), (1, "a", 6)], &[(1, 6)]).expect("taken again after its time");
        check(&[], &[]).expect_err("lost");
        check(&[(1, "a", 5), (1, "a", 6)], &[(1, 5), (1, 6)]).expect_err("settled twice");
        check(&[(1, "x", 5)], &[(1, 5)]).expect_err("another payload");
        check(&[(1, "a", 5), (2, "b", 6), (3, "b", 7)], &[(1, 5)]).expect_err("pushed twice");
        check(&[(1, "a", 5), (2, "c", 6)], &[(1, 5)]).expect_err("said not to be done");
    }
}
