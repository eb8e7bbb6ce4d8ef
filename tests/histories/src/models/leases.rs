//! A lease: one grant at a time, each with a higher token, until it is given back or its time is
//! over.

use std::collections::BTreeMap;

use anyhow::Result;
use porcupine_rs::Model;
use serde::Serialize;

use super::{Timed, earliest_end, learned, linearizable};
use crate::record::{Micros, Record};

/// Time to live of every claim in these histories.
pub const TTL_MS: u64 = 1_500;

/// A grant as others see it: the number in its lease token, and its fencing token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Grant {
    /// Minted by who claimed it.
    pub number: u32,
    /// Of the cluster.
    pub token: u64,
}

/// What was asked and answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum Step {
    /// A claim got the lease.
    Granted(Grant),
    /// A claim was told who has it.
    Busy(Grant),
    /// A claim without a known outcome.
    MayHaveClaimed(u32),
    /// A renewal was accepted.
    Renewed(Grant),
    /// A renewal was told that the grant is over.
    Over(Grant),
    /// A release gave it back.
    Released(Grant),
    /// A release was told that the grant was over, and who has the lease.
    NotHeld(Grant, Option<Grant>),
    /// A release without a known outcome.
    MayHaveReleased(Grant),
    /// A read.
    Read(Option<Grant>),
}

/// Checks the history of one key.
pub fn check(records: &[Record<Step>]) -> Result<()> {
    linearizable::<Lease, Step>(&resolved(records))
}

/// What had no known outcome and was seen to be done was done before it was seen. What was not seen
/// is left out: as nobody saw that grant, a history with it fits if one without it does.
fn resolved(records: &[Record<Step>]) -> Vec<Record<Step>> {
    let mut seen: BTreeMap<u32, (Micros, Grant)> = BTreeMap::new();
    for record in records {
        let shown = match record.step {
            Step::Busy(grant) | Step::Read(Some(grant)) | Step::NotHeld(_, Some(grant)) => grant,
            _ => continue,
        };
        let ret = record.ret.unwrap_or(Micros::MAX);
        let first = seen.entry(shown.number).or_insert((ret, shown));
        *first = if ret < first.0 { (ret, shown) } else { *first };
    }
    let resolve = |record: &Record<Step>| match record.step {
        Step::MayHaveClaimed(number) => {
            let (ret, grant) = *seen.get(&number)?;
            Some(Record {
                ret: Some(ret),
                step: Step::Granted(grant),
                ..record.clone()
            })
        }
        _ => Some(record.clone()),
    };
    records.iter().filter_map(resolve).collect()
}

/// The model.
#[derive(Clone)]
pub struct Lease;

/// What the model knows after some operations.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct State {
    holder: Option<(Grant, Micros)>,
    /// The highest token so far.
    highest: u64,
    /// The last command was not stamped before.
    floor: Micros,
    ended: bool,
}

impl State {
    /// The same without a holder, if it has none at some instant up to `ret`.
    fn freed(mut self, ret: Micros) -> Option<Self> {
        if let Some((_, until)) = self.holder {
            self.floor = self.floor.max(until);
            self.holder = None;
        }
        (self.floor <= ret).then_some(self)
    }

    /// The same, if this grant holds the lease.
    fn held_by(self, grant: Grant) -> Option<Self> {
        let (holder, _) = self.holder?;
        (holder == grant).then_some(self)
    }

    /// The same once this grant is over, given back or not.
    fn without(self, grant: Grant, ret: Micros) -> Option<Self> {
        match self.holder {
            Some((holder, _)) if holder == grant => self.freed(ret),
            _ => Some(self),
        }
    }

    fn hold(mut self, grant: Grant) -> Self {
        self.holder = Some((grant, earliest_end(self.floor, TTL_MS)));
        self
    }

    fn granted(self, grant: Grant, ret: Micros) -> Option<Self> {
        let mut free = self.freed(ret)?;
        if !learned(None, grant.token, free.highest) {
            return None;
        }
        free.highest = grant.token;
        Some(free.hold(grant))
    }

    fn next(mut self, op: &Timed<Step>) -> Option<Self> {
        let Some(step) = op.step else {
            self.ended = true;
            return Some(self);
        };
        if !matches!(step, Step::Read(_)) {
            self.floor = self.floor.max(op.call);
        }
        let ret = op.ret;
        match step {
            Step::Granted(grant) => self.granted(grant, ret),
            Step::Busy(grant) | Step::Read(Some(grant)) => self.held_by(grant),
            Step::Renewed(grant) => Some(self.held_by(grant)?.hold(grant)),
            Step::Over(grant) => self.without(grant, ret),
            Step::Released(grant) => {
                let mut held = self.held_by(grant)?;
                held.holder = None;
                Some(held)
            }
            Step::NotHeld(grant, Some(now)) => self.without(grant, ret)?.held_by(now),
            Step::NotHeld(_, None) | Step::Read(None) => self.freed(ret),
            Step::MayHaveReleased(grant) => match self.clone().held_by(grant) {
                Some(mut held) => {
                    held.holder = None;
                    Some(held)
                }
                None => self.ended.then_some(self),
            },
            Step::MayHaveClaimed(_) => Some(self),
        }
    }
}

impl Model for Lease {
    type State = State;
    type Op = Timed<Step>;
    type Metadata = ();

    fn init() -> State {
        State::default()
    }

    fn step(state: &State, op: &Timed<Step>) -> (bool, State) {
        let next = state.clone().next(op).filter(|next| next.floor <= op.ret);
        next.map_or_else(|| (false, state.clone()), |next| (true, next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::hand::{lost, op};

    const ONE: Grant = Grant {
        number: 1,
        token: 5,
    };
    const TWO: Grant = Grant {
        number: 2,
        token: 9,
    };
    const LOW: Grant = Grant {
        number: 2,
        token: 4,
    };

    fn fits(records: &[Record<Step>]) {
        check(records).expect("a history that is right");
    }

    fn wrong(records: &[Record<Step>]) {
        check(records).expect_err("a history that is wrong");
    }

    #[test]
    fn one_holder_after_the_other_fits() {
        let (granted, released) = (Step::Granted(ONE), Step::Released(ONE));
        fits(&[
            op(0, 10, granted),
            op(5, 20, Step::Busy(ONE)),
            op(30, 40, released),
        ]);
        fits(&[
            op(0, 10, granted),
            op(20, 30, released),
            op(25, 35, Step::Granted(TWO)),
        ]);
        fits(&[op(0, 10, granted), op(20, 30, Step::Read(Some(ONE)))]);
        fits(&[
            op(0, 10, granted),
            op(1_500, 1_501, Step::Granted(TWO)),
            op(1_600, 1_601, Step::Over(ONE)),
        ]);
    }

    #[test]
    fn two_holders_at_once_are_found() {
        wrong(&[
            op(0, 10, Step::Granted(ONE)),
            op(20, 30, Step::Granted(TWO)),
        ]);
        wrong(&[
            op(0, 10, Step::Granted(ONE)),
            op(1_300, 1_400, Step::Granted(TWO)),
        ]);
    }

    #[test]
    fn a_lease_that_ends_before_its_renewal_ran_out_is_found() {
        let held = [
            op(0, 10, Step::Granted(ONE)),
            op(1_000, 1_010, Step::Renewed(ONE)),
        ];
        let early = op(1_500, 2_300, Step::Granted(TWO));
        wrong(&[&held[..], &[early]].concat());
        fits(&[&held[..], &[op(1_500, 2_500, Step::Granted(TWO))]].concat());
        wrong(&[&held[..], &[op(1_600, 1_700, Step::Over(ONE))]].concat());
        wrong(&[&held[..], &[op(1_600, 1_700, Step::Read(None))]].concat());
    }

    #[test]
    fn a_token_that_goes_back_is_found() {
        let held = [
            op(0, 10, Step::Granted(ONE)),
            op(20, 30, Step::Released(ONE)),
        ];
        wrong(&[&held[..], &[op(40, 50, Step::Granted(LOW))]].concat());
    }

    #[test]
    fn a_stale_read_is_found() {
        let held = [
            op(0, 10, Step::Granted(ONE)),
            op(20, 30, Step::Released(ONE)),
        ];
        wrong(&[&held[..], &[op(40, 50, Step::Read(Some(ONE)))]].concat());
        wrong(&[op(0, 10, Step::Granted(ONE)), op(20, 30, Step::Read(None))]);
        fits(&[&held[..], &[op(25, 50, Step::Read(Some(ONE)))]].concat());
    }

    #[test]
    fn a_renewal_after_the_end_is_found() {
        let over = [
            op(0, 10, Step::Granted(ONE)),
            op(20, 30, Step::Released(ONE)),
        ];
        wrong(&[&over[..], &[op(40, 50, Step::Renewed(ONE))]].concat());
    }

    #[test]
    fn what_has_no_known_outcome_may_have_been_done_or_not() {
        let claim = lost(0, Step::MayHaveClaimed(1));
        fits(&[claim.clone(), op(10, 20, Step::Granted(TWO))]);
        fits(&[claim.clone(), op(10, 20, Step::Busy(ONE))]);
        let both = [op(10, 20, Step::Busy(ONE)), op(30, 40, Step::Granted(TWO))];
        wrong(&[&[claim][..], &both].concat());
        let release = [
            op(0, 10, Step::Granted(ONE)),
            lost(20, Step::MayHaveReleased(ONE)),
        ];
        fits(&[&release[..], &[op(30, 40, Step::Granted(TWO))]].concat());
        fits(&[&release[..], &[op(30, 40, Step::Read(Some(ONE)))]].concat());
        let twice = [
            op(30, 40, Step::Read(None)),
            op(50, 60, Step::Read(Some(ONE))),
        ];
        wrong(&[&release[..], &twice].concat());
    }

    #[test]
    fn a_grant_that_nobody_asked_for_is_found() {
        wrong(&[op(0, 10, Step::Busy(ONE))]);
        wrong(&[op(0, 10, Step::Read(Some(ONE)))]);
    }
}
