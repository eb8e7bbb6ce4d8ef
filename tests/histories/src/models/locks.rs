//! An exclusive lock with a queue: who asked first is granted first, each with a higher token.

use std::collections::VecDeque;

use anyhow::Result;
use porcupine_rs::Model;
use serde::Serialize;

use super::{Timed, earliest_end, learned, linearizable};
use crate::record::{Micros, Record};

/// Time to live of every hold in these histories. Places in the queue live longer than a history.
pub const TTL_MS: u64 = 1_500;

/// A hold as others see it: the number of the acquisition, and its fencing token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Hold {
    /// Minted by who asked.
    pub number: u32,
    /// Of the cluster.
    pub token: u64,
}

/// What was asked and answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum Step {
    /// An acquisition holds the lock, at once or since it was asked last.
    Granted(Hold),
    /// An acquisition has a place in the queue, a new one or still.
    Waiting(u32),
    /// One that would not wait was told who holds the lock.
    Busy(Hold),
    /// An acquisition that would wait was asked for, or, without a return, may have been. It goes
    /// with the answer: tries in between may have waited where the last one was granted the lock.
    MayHaveAsked(u32),
    /// The same of one that would not wait.
    MayHaveGot(u32),
    /// A renewal was accepted.
    Renewed(Hold),
    /// The acquisition was said to be over by itself.
    Over(u32),
    /// A release gave the lock back.
    Released(Hold),
    /// A release gave up the place in the queue.
    Cancelled(u32),
    /// A release without a known outcome.
    MayHaveReleased(u32),
    /// A read of who holds it.
    Read(Option<Hold>),
}

/// Checks the history of one key.
pub fn check(records: &[Record<Step>]) -> Result<()> {
    linearizable::<Lock, Step>(records)
}

/// The model.
#[derive(Clone)]
pub struct Lock;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Holder {
    number: u32,
    /// Unknown until it was shown to somebody.
    token: Option<u64>,
    until: Micros,
}

/// What the model knows after some operations.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct State {
    holder: Option<Holder>,
    queue: VecDeque<u32>,
    /// The highest token so far.
    highest: u64,
    /// The last command was not stamped before.
    floor: Micros,
    ended: bool,
}

impl State {
    fn hold(&mut self, number: u32, token: Option<u64>, from: Micros) {
        let until = earliest_end(from, TTL_MS);
        self.holder = Some(Holder {
            number,
            token,
            until,
        });
    }

    /// The hold is over: the first in line has the lock, not before `from`.
    fn hand_over(&mut self, from: Micros) {
        self.holder = None;
        if let Some(next) = self.queue.pop_front() {
            self.hold(next, None, from);
        }
    }

    /// Lets time pass, at most up to `ret`, until the hold is over.
    fn expire(mut self, ret: Micros) -> Option<Self> {
        let until = self.holder.as_ref()?.until;
        self.floor = self.floor.max(until);
        self.hand_over(until);
        (self.floor <= ret).then_some(self)
    }

    /// Lets time pass until this acquisition holds the lock.
    fn until_holds(mut self, number: u32, ret: Micros) -> Option<Self> {
        while self.holder.as_ref()?.number != number {
            self = self.expire(ret)?;
        }
        Some(self)
    }

    /// Lets time pass until this hold is seen.
    fn shows(self, hold: Hold, ret: Micros) -> Option<Self> {
        let mut state = self.until_holds(hold.number, ret)?;
        let highest = state.highest;
        let holder = state.holder.as_mut()?;
        if !learned(holder.token, hold.token, highest) {
            return None;
        }
        holder.token = Some(hold.token);
        state.highest = highest.max(hold.token);
        Some(state)
    }

    /// Lets time pass until nobody holds the lock.
    fn freed(mut self, ret: Micros) -> Option<Self> {
        while self.holder.is_some() {
            self = self.expire(ret)?;
        }
        Some(self)
    }

    fn is_member(&self, number: u32) -> bool {
        let holds = self.holder.as_ref().is_some_and(|it| it.number == number);
        holds || self.queue.contains(&number)
    }

    fn granted(self, hold: Hold, ret: Micros) -> Option<Self> {
        if self.is_member(hold.number) {
            return self.shows(hold, ret);
        }
        let mut free = self.freed(ret)?;
        let from = free.floor;
        free.hold(hold.number, None, from);
        free.shows(hold, ret)
    }

    fn waiting(mut self, number: u32) -> Option<Self> {
        if self.queue.contains(&number) {
            return Some(self);
        }
        if self.is_member(number) || self.holder.is_none() {
            return None;
        }
        self.queue.push_back(number);
        Some(self)
    }

    fn asked(mut self, number: u32) -> Self {
        if self.is_member(number) {
            return self;
        }
        match self.holder {
            None => self.hold(number, None, self.floor),
            Some(_) => self.queue.push_back(number),
        }
        self
    }

    /// Lets time pass until this acquisition is over.
    fn over(mut self, number: u32, ret: Micros) -> Option<Self> {
        while self.is_member(number) {
            self = self.expire(ret)?;
        }
        Some(self)
    }

    fn cancelled(mut self, number: u32) -> Option<Self> {
        let place = self.queue.iter().position(|it| *it == number)?;
        self.queue.remove(place);
        Some(self)
    }

    fn released(mut self, number: u32) -> Option<Self> {
        if self.holder.as_ref().is_some_and(|it| it.number == number) {
            self.hand_over(self.floor);
            return Some(self);
        }
        self.cancelled(number)
    }

    fn renewed(self, hold: Hold, ret: Micros) -> Option<Self> {
        let mut state = self.shows(hold, ret)?;
        let from = state.floor;
        state.hold(hold.number, Some(hold.token), from);
        Some(state)
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
            Step::Granted(hold) => self.granted(hold, ret),
            Step::Waiting(number) => self.waiting(number),
            Step::Busy(hold) | Step::Read(Some(hold)) => self.shows(hold, ret),
            Step::MayHaveAsked(_) | Step::MayHaveGot(_) if self.ended => Some(self),
            Step::MayHaveAsked(number) => Some(self.asked(number)),
            Step::MayHaveGot(number) => Some(self.freed(ret)?.asked(number)),
            Step::Renewed(hold) => self.renewed(hold, ret),
            Step::Over(number) => self.over(number, ret),
            Step::Released(hold) => self.shows(hold, ret)?.released(hold.number),
            Step::Cancelled(number) => self.cancelled(number),
            Step::MayHaveReleased(number) => match self.clone().released(number) {
                Some(released) => Some(released),
                None => self.ended.then_some(self),
            },
            Step::Read(None) if self.queue.is_empty() => self.freed(ret),
            // The hold is over, and the entry that hands the lock over is not there yet.
            Step::Read(None) => self.clone().expire(ret).map(|_| self),
        }
    }
}

impl Model for Lock {
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

    const ONE: Hold = Hold {
        number: 1,
        token: 5,
    };
    const TWO: Hold = Hold {
        number: 2,
        token: 9,
    };
    const THREE: Hold = Hold {
        number: 3,
        token: 11,
    };

    fn fits(records: &[Record<Step>]) {
        check(records).expect("a history that is right");
    }

    fn wrong(records: &[Record<Step>]) {
        check(records).expect_err("a history that is wrong");
    }

    /// The first holds the lock, the second and the third wait.
    fn line() -> Vec<Record<Step>> {
        vec![
            op(0, 10, Step::Granted(ONE)),
            op(20, 30, Step::Waiting(2)),
            op(40, 50, Step::Waiting(3)),
        ]
    }

    fn after(more: &[Record<Step>]) -> Vec<Record<Step>> {
        [&line()[..], more].concat()
    }

    #[test]
    fn the_lock_goes_down_the_line() {
        let release = op(100, 110, Step::Released(ONE));
        fits(&after(&[release.clone(), op(120, 130, Step::Granted(TWO))]));
        fits(&after(&[release.clone(), op(105, 130, Step::Waiting(2))]));
        let cancelled = op(60, 70, Step::Cancelled(2));
        fits(&after(&[
            cancelled,
            release,
            op(120, 130, Step::Granted(THREE)),
        ]));
        fits(&after(&[
            op(1_600, 1_700, Step::Granted(TWO)),
            op(1_710, 1_720, Step::Over(1)),
        ]));
        fits(&after(&[op(3_100, 3_200, Step::Granted(THREE))]));
    }

    #[test]
    fn two_holders_at_once_are_found() {
        wrong(&after(&[op(60, 70, Step::Granted(TWO))]));
        wrong(&after(&[op(1_000, 1_300, Step::Granted(TWO))]));
        wrong(&[op(0, 10, Step::Granted(ONE)), op(20, 30, Step::Read(None))]);
        let renewed = op(1_000, 1_010, Step::Renewed(ONE));
        wrong(&after(&[renewed, op(1_600, 2_300, Step::Granted(TWO))]));
    }

    #[test]
    fn who_is_passed_by_in_the_queue_is_found() {
        let release = op(100, 110, Step::Released(ONE));
        wrong(&after(&[
            release.clone(),
            op(120, 130, Step::Granted(THREE)),
        ]));
        wrong(&after(&[release.clone(), op(120, 130, Step::Waiting(2))]));
        wrong(
            &after(&[release, op(120, 130, Step::Waiting(4))])
                .into_iter()
                .skip(3)
                .collect::<Vec<_>>(),
        );
    }

    #[test]
    fn a_token_that_goes_back_or_changes_is_found() {
        let release = op(100, 110, Step::Released(ONE));
        let low = Hold { token: 4, ..TWO };
        wrong(&after(&[release.clone(), op(120, 130, Step::Granted(low))]));
        let other = Hold { token: 10, ..TWO };
        let first = op(120, 130, Step::Granted(TWO));
        wrong(&after(&[
            release,
            first,
            op(140, 150, Step::Renewed(other)),
        ]));
    }

    #[test]
    fn a_hold_that_ends_early_is_found() {
        wrong(&[op(0, 10, Step::Granted(ONE)), op(20, 30, Step::Over(1))]);
        fits(&[
            op(0, 10, Step::Granted(ONE)),
            op(1_500, 1_510, Step::Over(1)),
        ]);
    }

    #[test]
    fn what_has_no_known_outcome_may_have_been_done_or_not() {
        let asked = [
            op(0, 10, Step::Granted(ONE)),
            lost(20, Step::MayHaveAsked(2)),
        ];
        let release = op(100, 110, Step::Released(ONE));
        let then = |step: Step| [&asked[..], &[release.clone(), op(120, 130, step)]].concat();
        fits(&then(Step::Granted(THREE)));
        fits(&then(Step::Busy(TWO)));
        fits(&then(Step::Waiting(3)));
        let got = [
            lost(0, Step::MayHaveGot(2)),
            op(20, 30, Step::Granted(THREE)),
        ];
        fits(&got);
        wrong(&[&got[..], &[op(40, 50, Step::Busy(TWO))]].concat());
        let both = [op(140, 150, Step::Granted(THREE))];
        wrong(&[&then(Step::Busy(TWO))[..], &both].concat());
        let slow = [
            op(20, 500, Step::MayHaveAsked(2)),
            op(20, 500, Step::Granted(TWO)),
        ];
        let held = [op(0, 10, Step::Granted(ONE)), op(40, 50, Step::Waiting(3))];
        fits(&[&held[..], &slow, &[release]].concat());
        let released = [
            op(0, 10, Step::Granted(ONE)),
            lost(20, Step::MayHaveReleased(1)),
        ];
        fits(&[&released[..], &[op(30, 40, Step::Granted(TWO))]].concat());
        fits(&[&released[..], &[op(30, 40, Step::Busy(ONE))]].concat());
    }
}
