//! The head of a session: a register that is moved by compare-and-set on its revision.

use std::collections::BTreeMap;

use anyhow::Result;
use porcupine_rs::Model;
use serde::Serialize;

use super::{Timed, linearizable};
use crate::record::{Micros, Record};

/// A revision with what was committed as its state, a number never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
pub struct Head {
    /// From 1; 0 before the first commit.
    pub revision: u64,
    /// The state.
    pub value: u32,
}

/// What was asked and answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum Step {
    /// A commit on the revision before moved the head to this.
    Committed(Head),
    /// A commit on this revision was told that the head is elsewhere.
    Moved(u64),
    /// A commit that would move the head to this, if it was done.
    MayHaveCommitted(Head),
    /// A read.
    Read(Head),
}

/// Checks the history of one session.
pub fn check(records: &[Record<Step>]) -> Result<()> {
    linearizable::<Register, Step>(&resolved(records))
}

/// What had no known outcome and was read was done before it was read.
fn resolved(records: &[Record<Step>]) -> Vec<Record<Step>> {
    let mut seen: BTreeMap<Head, Micros> = BTreeMap::new();
    for record in records {
        if let (Step::Read(head), Some(ret)) = (record.step, record.ret) {
            let first = seen.entry(head).or_insert(ret);
            *first = ret.min(*first);
        }
    }
    let resolve = |record: &Record<Step>| match record.step {
        Step::MayHaveCommitted(head) => match seen.get(&head) {
            Some(ret) => Record {
                ret: Some(*ret),
                step: Step::Committed(head),
                ..record.clone()
            },
            None => record.clone(),
        },
        _ => record.clone(),
    };
    records.iter().map(resolve).collect()
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.revision, self.value).cmp(&(other.revision, other.value))
    }
}

/// The model: the head, and whether the history has ended.
#[derive(Clone)]
pub struct Register;

impl Model for Register {
    type State = (Head, bool);
    type Op = Timed<Step>;
    type Metadata = ();

    fn init() -> (Head, bool) {
        (Head::default(), false)
    }

    fn step(state: &(Head, bool), op: &Timed<Step>) -> (bool, (Head, bool)) {
        let (head, ended) = *state;
        match op.step {
            None => (true, (head, true)),
            Some(Step::Committed(to)) => (to.revision == head.revision + 1, (to, ended)),
            Some(Step::Moved(from)) => (from != head.revision, *state),
            Some(Step::MayHaveCommitted(to)) if to.revision == head.revision + 1 => {
                (true, (to, ended))
            }
            Some(Step::MayHaveCommitted(_)) => (ended, *state),
            Some(Step::Read(seen)) => (seen == head, *state),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::hand::{lost, op};

    fn head(revision: u64, value: u32) -> Head {
        Head { revision, value }
    }

    fn fits(records: &[Record<Step>]) {
        check(records).expect("a history that is right");
    }

    fn wrong(records: &[Record<Step>]) {
        check(records).expect_err("a history that is wrong");
    }

    #[test]
    fn commits_one_after_the_other_fit() {
        let (one, two) = (Step::Committed(head(1, 7)), Step::Committed(head(2, 8)));
        fits(&[
            op(0, 10, one),
            op(5, 20, two),
            op(6, 9, Step::Moved(1)),
            op(30, 40, Step::Moved(1)),
        ]);
        fits(&[
            op(0, 10, one),
            op(5, 20, Step::Read(head(0, 0))),
            op(20, 30, Step::Read(head(1, 7))),
        ]);
    }

    #[test]
    fn two_commits_of_one_revision_a_stale_read_and_a_false_refusal_are_found() {
        let one = op(0, 10, Step::Committed(head(1, 7)));
        wrong(&[one.clone(), op(5, 20, Step::Committed(head(1, 8)))]);
        wrong(&[one.clone(), op(20, 30, Step::Read(head(0, 0)))]);
        wrong(&[one.clone(), op(20, 30, Step::Read(head(1, 8)))]);
        wrong(&[one, op(20, 30, Step::Moved(1))]);
    }

    #[test]
    fn what_has_no_known_outcome_may_have_been_done_or_not() {
        let doubtful = lost(0, Step::MayHaveCommitted(head(1, 7)));
        fits(&[doubtful.clone(), op(10, 20, Step::Moved(0))]);
        fits(&[doubtful.clone(), op(10, 20, Step::Committed(head(1, 8)))]);
        let both = [
            op(10, 20, Step::Read(head(1, 7))),
            op(30, 40, Step::Committed(head(1, 8))),
        ];
        wrong(&[&[doubtful][..], &both].concat());
    }
}
