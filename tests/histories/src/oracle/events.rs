//! Events: sequences without gaps, every acknowledged event once, and no write of a fenced holder.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use quorate_statemachine::process::Event;

use crate::history::{Appended, Outcome};

/// The sequence goes from 1 to its end without a gap; each acknowledged event of `process` is there
/// once, where its writer was told; each other one at most once, and none that nobody sent.
pub fn stored_once(appends: &[Appended], process: &str, events: &[Event]) -> Result<()> {
    let mut found: BTreeMap<String, u64> = BTreeMap::new();
    for (event, expected) in events.iter().zip(1..) {
        let sequence = event.sequence;
        ensure!(
            sequence == expected,
            "{process}: event {sequence} where {expected} belongs"
        );
        let payload = String::from_utf8_lossy(&event.payload).into_owned();
        let twice = found.insert(payload.clone(), sequence);
        ensure!(
            twice.is_none(),
            "{process}: {payload} is event {sequence} and event {twice:?}"
        );
    }
    for append in appends.iter().filter(|append| append.process == process) {
        let at = found.remove(&append.payload);
        let payload = &append.payload;
        match &append.outcome {
            Outcome::Done(told) => {
                let at = at.with_context(|| format!("{process}: lost: {payload}, event {told}"))?;
                ensure!(
                    at == *told,
                    "{process}: {payload} is event {at}, its writer got {told}"
                );
            }
            Outcome::Unknown(_) => {}
            Outcome::NotDone(why) => {
                ensure!(
                    at.is_none(),
                    "{process}: {payload} is event {at:?}, but: {why}"
                );
            }
        }
    }
    let stranger = found.first_key_value();
    ensure!(stranger.is_none(), "{process}: nobody sent {stranger:?}");
    Ok(())
}

/// Events written under a lease, `…:token`: no token is lower than one before it.
pub fn fenced(events: &[Event]) -> Result<()> {
    let mut highest = 0;
    for event in events {
        let payload = String::from_utf8_lossy(&event.payload);
        let token = payload
            .rsplit_once(':')
            .and_then(|(_, token)| token.parse::<u64>().ok());
        let token = token.with_context(|| format!("{payload} has no token"))?;
        ensure!(
            token >= highest,
            "event {} was written under token {token} after one under {highest}",
            event.sequence
        );
        highest = token;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Span;
    use quorate_statemachine::{Name, Timestamp};
    use tokio::time::Instant;

    fn event(sequence: u64, payload: &str) -> Event {
        Event {
            sequence,
            event_type: Name::parse("event_type", "t").expect("valid"),
            at: Timestamp(0),
            index: sequence,
            key: None,
            payload: payload.as_bytes().to_vec(),
        }
    }

    fn append(payload: &str, outcome: Outcome<u64>) -> Appended {
        Appended {
            process: "p".to_owned(),
            payload: payload.to_owned(),
            outcome,
            span: Span::since(Instant::now()),
        }
    }

    #[test]
    fn lost_doubled_moved_and_strange_events_are_found() {
        let sent = [
            append("a", Outcome::Done(1)),
            append("b", Outcome::Unknown("?".to_owned())),
            append("c", Outcome::NotDone("no leader".to_owned())),
        ];
        let check = |events: &[Event]| stored_once(&sent, "p", events);
        check(&[event(1, "a")]).expect("the unknown one was not done");
        check(&[event(1, "a"), event(2, "b")]).expect("the unknown one was done");
        check(&[event(1, "b")]).expect_err("lost");
        check(&[event(1, "b"), event(2, "a")]).expect_err("moved");
        check(&[event(1, "a"), event(3, "b")]).expect_err("a gap");
        check(&[event(1, "a"), event(2, "b"), event(3, "b")]).expect_err("twice");
        check(&[event(1, "a"), event(2, "c")]).expect_err("said not to be done");
        check(&[event(1, "a"), event(2, "x")]).expect_err("nobody sent it");
    }

    #[test]
    fn a_write_under_an_old_token_is_found() {
        fenced(&[event(1, "x:3"), event(2, "y:3"), event(3, "z:9")]).expect("in order");
        fenced(&[event(1, "x:9"), event(2, "y:3")]).expect_err("3 after 9");
    }
}
