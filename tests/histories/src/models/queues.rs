//! A queue: items are claimed in the order in which they were pushed, by one live claim at a time,
//! and settled once.

use std::collections::BTreeMap;

use anyhow::Result;
use porcupine_rs::Model;
use serde::Serialize;

use super::{Timed, earliest_end, linearizable};
use crate::record::{Micros, Record};

/// Time to live of every claim in these histories.
pub const TTL_MS: u64 = 1_500;

/// An item that was claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Claim {
    /// The item: the later it was pushed, the higher.
    pub item: u64,
    /// The claim's fencing token.
    pub token: u64,
}

/// What was asked and answered. Claims are of one item, so that one without a known outcome has
/// taken one at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum Step {
    /// An item was pushed with a payload, a number never used twice.
    Pushed {
        /// Its id.
        item: u64,
        /// What it carries.
        payload: u32,
    },
    /// An item with this payload may have been pushed.
    MayHavePushed(u32),
    /// An item was claimed.
    Took {
        /// Which.
        claim: Claim,
        /// What it carries.
        payload: u32,
    },
    /// Nothing was ready.
    TookNothing,
    /// The first item may have been claimed, by somebody who does not know it.
    MayHaveTaken,
    /// A claim was settled as done: the item is gone.
    Settled(Claim),
    /// It was given back.
    GivenBack(Claim),
    /// It was told to be over.
    Over(Claim),
    /// It may have been settled as done.
    MayHaveSettled(Claim),
    /// It may have been given back.
    MayHaveGivenBack(Claim),
}

/// Checks the history of one queue, which was emptied at its end.
pub fn check(records: &[Record<Step>]) -> Result<()> {
    linearizable::<Queue, Step>(&resolved(records))
}

/// A push without a known outcome was done before its item was first claimed. If it never was it
/// was not done: the queue was emptied.
///
/// A claim without a known outcome only allows more, and from its call on: it is put there, so that
/// no search tries all other places.
fn resolved(records: &[Record<Step>]) -> Vec<Record<Step>> {
    let mut seen: BTreeMap<u32, (Micros, u64)> = BTreeMap::new();
    for record in records {
        if let (Step::Took { claim, payload }, Some(ret)) = (record.step, record.ret) {
            let first = seen.entry(payload).or_insert((ret, claim.item));
            *first = if ret < first.0 {
                (ret, claim.item)
            } else {
                *first
            };
        }
    }
    let resolve = |record: &Record<Step>| match record.step {
        Step::MayHavePushed(payload) => {
            let (ret, item) = *seen.get(&payload)?;
            Some(Record {
                ret: Some(ret),
                step: Step::Pushed { item, payload },
                ..record.clone()
            })
        }
        Step::MayHaveTaken => Some(Record {
            ret: Some(record.call),
            ..record.clone()
        }),
        _ => Some(record.clone()),
    };
    records.iter().filter_map(resolve).collect()
}

/// The model.
#[derive(Clone)]
pub struct Queue;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    /// It is claimed before those behind it.
    Ready,
    /// Nobody else has it before the claim may be over; then it may be ready or not yet.
    Claimed { token: Option<u64>, until: Micros },
}

/// What the model knows after some operations.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct State {
    items: BTreeMap<u64, (u32, Place)>,
    /// Since when, at the earliest, there are claims without a known outcome that no missing item
    /// has been put down to.
    taken: Vec<Micros>,
    highest: u64,
    floor: Micros,
    ended: bool,
}

impl State {
    /// What is ready before this item was claimed by somebody who does not know it, or the order
    /// was not kept. Which of these claims it was is not known: the first of them ends first.
    fn skip_before(&mut self, item: u64) -> Option<()> {
        for (_, place) in self.items.range_mut(..item).map(|(_, it)| it) {
            if *place == Place::Ready {
                let until = earliest_end(*self.taken.first()?, TTL_MS);
                self.taken.pop();
                *place = Place::Claimed { token: None, until };
            }
        }
        Some(())
    }

    fn took(mut self, claim: Claim, payload: u32, ret: Micros) -> Option<Self> {
        let (carried, place) = *self.items.get(&claim.item)?;
        if carried != payload || claim.token <= self.highest {
            return None;
        }
        if let Place::Claimed { until, .. } = place {
            self.floor = self.floor.max(until);
        }
        if self.floor > ret {
            return None;
        }
        self.skip_before(claim.item)?;
        self.highest = claim.token;
        let claimed = Place::Claimed {
            token: Some(claim.token),
            until: earliest_end(self.floor, TTL_MS),
        };
        self.items.insert(claim.item, (payload, claimed));
        Some(self)
    }

    fn is_of(&self, claim: Claim) -> bool {
        let place = self.items.get(&claim.item).map(|(_, place)| place);
        matches!(place, Some(Place::Claimed { token, .. }) if *token == Some(claim.token))
    }

    fn settled(mut self, claim: Claim) -> Option<Self> {
        if !self.is_of(claim) {
            return None;
        }
        self.items.remove(&claim.item);
        Some(self)
    }

    fn given_back(mut self, claim: Claim) -> Option<Self> {
        if !self.is_of(claim) {
            return None;
        }
        let (_, place) = self.items.get_mut(&claim.item)?;
        *place = Place::Ready;
        Some(self)
    }

    /// The claim is over: the item may be claimed again from now on, or a little later.
    fn over(mut self, claim: Claim, ret: Micros) -> Option<Self> {
        if !self.is_of(claim) {
            return Some(self);
        }
        let (_, place) = self.items.get_mut(&claim.item)?;
        if let Place::Claimed { until, .. } = *place {
            self.floor = self.floor.max(until);
            *place = Place::Claimed { token: None, until };
        }
        (self.floor <= ret).then_some(self)
    }

    fn next(mut self, op: &Timed<Step>) -> Option<Self> {
        let Some(step) = op.step else {
            self.ended = true;
            return Some(self);
        };
        if step == Step::MayHaveTaken {
            self.taken.push(op.call);
            return Some(self);
        }
        self.floor = self.floor.max(op.call);
        match step {
            Step::Pushed { item, payload } => {
                let last = self.items.last_key_value().map(|(last, _)| *last);
                let before = self.items.insert(item, (payload, Place::Ready));
                (before.is_none() && last.is_none_or(|last| last < item)).then_some(self)
            }
            Step::Took { claim, payload } => self.took(claim, payload, op.ret),
            Step::TookNothing => self.skip_before(u64::MAX).map(|()| self),
            Step::Settled(claim) => self.settled(claim),
            Step::GivenBack(claim) => self.given_back(claim),
            Step::Over(claim) => self.over(claim, op.ret),
            Step::MayHaveSettled(claim) => match self.clone().settled(claim) {
                Some(settled) => Some(settled),
                None => self.ended.then_some(self),
            },
            Step::MayHaveGivenBack(claim) => match self.clone().given_back(claim) {
                Some(ready) => Some(ready),
                None => self.ended.then_some(self),
            },
            Step::MayHavePushed(_) | Step::MayHaveTaken => Some(self),
        }
    }
}

impl Model for Queue {
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

    fn claim(item: u64, token: u64) -> Claim {
        Claim { item, token }
    }

    fn pushed(item: u64, payload: u32) -> Step {
        Step::Pushed { item, payload }
    }

    fn took(item: u64, token: u64, payload: u32) -> Step {
        let claim = claim(item, token);
        Step::Took { claim, payload }
    }

    /// Two items are in the queue.
    fn after(more: &[Record<Step>]) -> Vec<Record<Step>> {
        let pushes = [op(0, 10, pushed(1, 7)), op(20, 30, pushed(2, 8))];
        [&pushes[..], more].concat()
    }

    fn fits(records: &[Record<Step>]) {
        check(records).expect("a history that is right");
    }

    fn wrong(records: &[Record<Step>]) {
        check(records).expect_err("a history that is wrong");
    }

    #[test]
    fn items_in_their_order_fit() {
        let first = op(40, 50, took(1, 11, 7));
        fits(&after(&[
            first.clone(),
            op(45, 60, took(2, 12, 8)),
            op(70, 80, Step::TookNothing),
        ]));
        let back = op(60, 70, Step::GivenBack(claim(1, 11)));
        fits(&after(&[first.clone(), back, op(80, 90, took(1, 13, 7))]));
        let late = op(1_500, 1_600, took(1, 13, 7));
        fits(&after(&[first, op(1_500, 1_550, took(2, 12, 8)), late]));
    }

    #[test]
    fn an_item_that_is_claimed_twice_at_once_is_found() {
        wrong(&after(&[
            op(40, 50, took(1, 11, 7)),
            op(60, 70, took(1, 12, 7)),
        ]));
        wrong(&after(&[
            op(40, 50, took(1, 11, 7)),
            op(60, 70, Step::Over(claim(1, 11))),
        ]));
    }

    #[test]
    fn an_item_that_is_passed_by_or_lost_is_found() {
        wrong(&after(&[op(40, 50, took(2, 11, 8))]));
        wrong(&after(&[op(40, 50, Step::TookNothing)]));
        wrong(&after(&[op(40, 50, took(1, 11, 9))]));
        wrong(&after(&[op(40, 50, took(3, 11, 9))]));
    }

    #[test]
    fn an_item_that_is_settled_twice_or_comes_back_is_found() {
        let done = [
            op(40, 50, took(1, 11, 7)),
            op(60, 70, Step::Settled(claim(1, 11))),
        ];
        fits(&after(&done));
        wrong(&after(
            &[&done[..], &[op(80, 90, Step::Settled(claim(1, 11)))]].concat(),
        ));
        wrong(&after(
            &[&done[..], &[op(1_600, 1_700, took(1, 12, 7))]].concat(),
        ));
        let stale = [op(40, 50, took(1, 11, 7)), op(1_600, 1_700, took(1, 12, 7))];
        wrong(&after(
            &[&stale[..], &[op(1_710, 1_720, Step::Settled(claim(1, 11)))]].concat(),
        ));
        fits(&after(
            &[&stale[..], &[op(1_710, 1_720, Step::Over(claim(1, 11)))]].concat(),
        ));
    }

    #[test]
    fn a_token_that_goes_back_is_found() {
        wrong(&after(&[
            op(40, 50, took(1, 11, 7)),
            op(60, 70, took(2, 10, 8)),
        ]));
    }

    #[test]
    fn what_has_no_known_outcome_may_have_been_done_or_not() {
        fits(&after(&[
            lost(35, Step::MayHaveTaken),
            op(40, 50, took(2, 11, 8)),
        ]));
        fits(&after(&[
            lost(35, Step::MayHaveTaken),
            op(40, 50, took(1, 11, 7)),
        ]));
        wrong(&after(&[
            lost(35, Step::MayHaveTaken),
            op(40, 50, Step::TookNothing),
        ]));
        fits(&after(&[
            lost(31, Step::MayHavePushed(9)),
            op(40, 50, took(1, 11, 7)),
        ]));
        let settle = lost(60, Step::MayHaveSettled(claim(1, 11)));
        let held = [op(40, 50, took(1, 11, 7)), settle];
        fits(&after(
            &[&held[..], &[op(1_600, 1_700, took(1, 12, 7))]].concat(),
        ));
        fits(&after(
            &[&held[..], &[op(1_600, 1_700, took(2, 12, 8))]].concat(),
        ));
        let back = lost(60, Step::MayHaveGivenBack(claim(1, 11)));
        let held = [op(40, 50, took(1, 11, 7)), back];
        fits(&after(&[&held[..], &[op(70, 80, took(1, 12, 7))]].concat()));
        fits(&after(&[&held[..], &[op(70, 80, took(2, 12, 8))]].concat()));
    }

    #[test]
    fn a_claim_that_nobody_knows_of_runs_out_by_when_it_was_sent() {
        let seen_late = [
            lost(40, Step::MayHaveTaken),
            op(1_400, 1_410, took(2, 11, 8)),
        ];
        fits(&after(
            &[&seen_late[..], &[op(1_460, 1_470, took(1, 12, 7))]].concat(),
        ));
        wrong(&after(
            &[&seen_late[..], &[op(1_420, 1_430, took(1, 12, 7))]].concat(),
        ));
    }
}
