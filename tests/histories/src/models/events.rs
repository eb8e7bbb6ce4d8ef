//! A process's events: numbered without gaps, each once, read in order.

use std::collections::BTreeMap;

use anyhow::Result;
use porcupine_rs::Model;
use serde::Serialize;

use super::{Timed, linearizable};
use crate::record::{Micros, Record};

/// What was asked and answered. An event is known by its payload, a number never used twice.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub enum Step {
    /// An event was appended.
    Appended {
        /// The event.
        event: u32,
        /// Its place, from 1.
        sequence: u64,
    },
    /// It may have been.
    MayHaveAppended(u32),
    /// All events behind a place.
    Read {
        /// The place.
        after: u64,
        /// The events.
        events: Vec<u32>,
    },
}

/// Checks the history of one process. Its last operation is a read of everything.
pub fn check(records: &[Record<Step>]) -> Result<()> {
    linearizable::<Events, Step>(&resolved(records))
}

/// What had no known outcome and was read was done before it was read. What nobody read is left
/// out: it would have moved the events behind it.
fn resolved(records: &[Record<Step>]) -> Vec<Record<Step>> {
    let mut seen: BTreeMap<u32, (Micros, u64)> = BTreeMap::new();
    for record in records {
        let Step::Read { after, events } = &record.step else {
            continue;
        };
        let ret = record.ret.unwrap_or(Micros::MAX);
        for (event, sequence) in events.iter().zip(after + 1..) {
            let first = seen.entry(*event).or_insert((ret, sequence));
            *first = if ret < first.0 {
                (ret, sequence)
            } else {
                *first
            };
        }
    }
    let resolve = |record: &Record<Step>| match record.step {
        Step::MayHaveAppended(event) => {
            let (ret, sequence) = *seen.get(&event)?;
            Some(Record {
                ret: Some(ret),
                step: Step::Appended { event, sequence },
                ..record.clone()
            })
        }
        _ => Some(record.clone()),
    };
    records.iter().filter_map(resolve).collect()
}

/// The model: all events so far.
#[derive(Clone)]
pub struct Events;

impl Model for Events {
    type State = Vec<u32>;
    type Op = Timed<Step>;
    type Metadata = ();

    fn init() -> Vec<u32> {
        Vec::new()
    }

    fn step(state: &Vec<u32>, op: &Timed<Step>) -> (bool, Vec<u32>) {
        let mut next = state.clone();
        let fits = match &op.step {
            None | Some(Step::MayHaveAppended(_)) => true,
            Some(Step::Appended { event, sequence }) => {
                next.push(*event);
                *sequence == next.len() as u64
            }
            Some(Step::Read { after, events }) => {
                let after = usize::try_from(*after).unwrap_or(usize::MAX);
                state.get(after..).is_some_and(|rest| rest == events)
            }
        };
        (fits, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::hand::{lost, op};

    fn appended(event: u32, sequence: u64) -> Step {
        Step::Appended { event, sequence }
    }

    fn read(after: u64, events: &[u32]) -> Step {
        let events = events.to_vec();
        Step::Read { after, events }
    }

    fn fits(records: &[Record<Step>]) {
        check(records).expect("a history that is right");
    }

    fn wrong(records: &[Record<Step>]) {
        check(records).expect_err("a history that is wrong");
    }

    #[test]
    fn appends_in_any_order_that_time_allows_fit() {
        fits(&[
            op(0, 10, appended(7, 2)),
            op(5, 8, appended(8, 1)),
            op(20, 30, read(0, &[8, 7])),
        ]);
        fits(&[
            op(0, 10, appended(7, 1)),
            op(5, 20, read(0, &[])),
            op(20, 30, read(1, &[])),
        ]);
    }

    #[test]
    fn gaps_doubles_losses_and_an_order_against_time_are_found() {
        wrong(&[op(0, 10, appended(7, 1)), op(20, 30, appended(8, 3))]);
        wrong(&[op(0, 10, appended(7, 1)), op(5, 10, appended(8, 1))]);
        wrong(&[op(0, 10, appended(7, 1)), op(20, 30, read(0, &[]))]);
        wrong(&[op(0, 10, appended(7, 1)), op(20, 30, read(0, &[7, 7]))]);
        wrong(&[op(0, 10, appended(7, 2)), op(20, 30, appended(8, 1))]);
        wrong(&[op(0, 10, read(0, &[9]))]);
    }

    #[test]
    fn a_read_that_goes_back_is_found() {
        let one = op(0, 50, appended(7, 1));
        wrong(&[one.clone(), op(1, 2, read(0, &[7])), op(3, 4, read(0, &[]))]);
        fits(&[one, op(1, 2, read(0, &[])), op(3, 4, read(0, &[7]))]);
    }

    #[test]
    fn what_has_no_known_outcome_may_be_there_or_not_but_once() {
        let doubtful = lost(0, Step::MayHaveAppended(7));
        fits(&[doubtful.clone(), op(10, 20, read(0, &[]))]);
        fits(&[
            doubtful.clone(),
            op(10, 20, read(0, &[])),
            op(30, 40, read(0, &[7])),
        ]);
        wrong(&[
            doubtful,
            op(10, 20, read(0, &[7])),
            op(30, 40, read(0, &[7, 7])),
        ]);
    }
}
