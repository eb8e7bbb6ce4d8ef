//! Cancel inputs that nobody has taken.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::{Input, InputState, InputView, find, number_by_id, number_by_source, view};
use crate::command::Validate;
use crate::context::Context;
use crate::id::Name;
use crate::limits::SESSION_BATCH_MAX;
use crate::refusal::{Broken, Failure, InvalidArgument, Refusal};
use crate::session::work::check_answer;
use crate::session::{Session, SessionRef, check_name};
use crate::tables::{Key, SessionEndedInputs, SessionInputs, Table, lane_key, lane_range};
use crate::transaction::Transaction;

/// How an input is named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CancelTarget {
    /// By its id.
    Id(Name),
    /// By its source.
    Source(Name),
}

/// Cancels inputs, one after the other, all in one command.
///
/// An input is cancelled unless it has ended, was accepted, or has a live claim; the answer says
/// for each what became of it, and one that is named twice is cancelled already the second time.
/// Asks for no lease. Refuses with `NotFound` for the session alone, and with `Exhausted` when the
/// answer would hold more than [`crate::limits::SESSION_ANSWER_BYTES_MAX`]; then none is cancelled.
/// A retry finds them cancelled already: give it a request id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelInputs {
    /// Where.
    pub session: SessionRef,
    /// Whose inputs.
    pub lane: Name,
    /// Which, in order.
    pub targets: Vec<CancelTarget>,
}

/// Cancels an input and all that were pushed to its lane after it, in one command.
///
/// Answers none if there is no such input, and otherwise what became of each, those that had ended
/// included. As [`CancelInputs`] in all else; it is refused with `Exhausted` when they are more
/// than [`SESSION_BATCH_MAX`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelInputsFrom {
    /// Where.
    pub session: SessionRef,
    /// Whose inputs.
    pub lane: Name,
    /// The first.
    pub from: CancelTarget,
}

/// What became of an input that was to be cancelled. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CancelOutcome {
    /// It is cancelled now.
    Cancelled(InputView),
    /// A turn has accepted it, or a live claim has it.
    Claimed(InputView),
    /// It had ended: completed or cancelled, as its state says.
    Ended(InputView),
    /// There is no such input.
    NotFound,
}

impl Validate for CancelInputs {
    fn validate(&self) -> Result<(), InvalidArgument> {
        self.session.validate()?;
        check_name("lane", &self.lane)?;
        let (count, max) = (self.targets.len() as u64, SESSION_BATCH_MAX as u64);
        InvalidArgument::check_count("targets", count, 1, max)
    }
}

impl Validate for CancelInputsFrom {
    fn validate(&self) -> Result<(), InvalidArgument> {
        self.session.validate()?;
        check_name("lane", &self.lane)
    }
}

impl CancelInputs {
    pub(in crate::session) fn apply(
        &self,
        tx: &mut Transaction<'_>,
        ctx: &Context,
    ) -> Result<Vec<CancelOutcome>, Failure> {
        let mut session = self.session.require(tx)?;
        let (mut outcomes, mut bytes) = (Vec::with_capacity(self.targets.len()), 0);
        for target in &self.targets {
            let outcome = match number_of(tx, &session, &self.lane, target)? {
                Some(number) => {
                    let input = find(tx, &session, &self.lane, number)?;
                    cancel(tx, ctx, &mut session, input, &mut bytes)?
                }
                None => CancelOutcome::NotFound,
            };
            outcomes.push(outcome);
        }
        session.store(tx)?;
        Ok(outcomes)
    }
}

impl CancelInputsFrom {
    pub(in crate::session) fn apply(
        &self,
        tx: &mut Transaction<'_>,
        ctx: &Context,
    ) -> Result<Option<Vec<CancelOutcome>>, Failure> {
        let mut session = self.session.require(tx)?;
        let Some(first) = number_of(tx, &session, &self.lane, &self.from)? else {
            return Ok(None);
        };
        let mut inputs = self.since::<SessionInputs>(tx, &session, first)?;
        inputs.extend(self.since::<SessionEndedInputs>(tx, &session, first)?);
        if inputs.len() > SESSION_BATCH_MAX {
            return Err(Failure::Refused(Refusal::Exhausted {
                what: format!("inputs of session {} to cancel at once", session.name),
                limit: SESSION_BATCH_MAX as u64,
                actual: inputs.len() as u64,
            }));
        }
        inputs.sort_by_key(|input| input.number);
        let (mut outcomes, mut bytes) = (Vec::with_capacity(inputs.len()), 0);
        for input in inputs {
            outcomes.push(cancel(tx, ctx, &mut session, input, &mut bytes)?);
        }
        session.store(tx)?;
        Ok(Some(outcomes))
    }

    /// Inputs of one table from a number on: one more than may be, to know that they are too many.
    fn since<T: Table<Row = Input>>(
        &self,
        tx: &Transaction<'_>,
        session: &Session,
        first: u64,
    ) -> Result<Vec<Input>, Broken> {
        let from: Key<T> = lane_key(session.id, &self.lane, first);
        let (_, to) = lane_range::<T>(session.id, &self.lane);
        let mut inputs = Vec::new();
        tx.scan(&from, &to, &mut |_, input| {
            inputs.push(input);
            if inputs.len() > SESSION_BATCH_MAX {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        Ok(inputs)
    }
}

fn number_of(
    tx: &mut Transaction<'_>,
    session: &Session,
    lane: &Name,
    target: &CancelTarget,
) -> Result<Option<u64>, Broken> {
    match target {
        CancelTarget::Id(id) => number_by_id(tx, session, lane, id),
        CancelTarget::Source(source) => number_by_source(tx, session, lane, source),
    }
}

/// `bytes` counts what the answer holds so far.
fn cancel(
    tx: &mut Transaction<'_>,
    ctx: &Context,
    session: &mut Session,
    mut input: Input,
    bytes: &mut usize,
) -> Result<CancelOutcome, Failure> {
    let outcome = match input.state {
        InputState::Cancelled | InputState::Completed => CancelOutcome::Ended,
        InputState::Accepted => CancelOutcome::Claimed,
        InputState::Pending if input.is_claimed(ctx.now) => CancelOutcome::Claimed,
        InputState::Pending => {
            input.end(tx, session, InputState::Cancelled)?;
            CancelOutcome::Cancelled
        }
    };
    let view = view(tx, session, input)?;
    *bytes += view.body.inline_bytes();
    check_answer("inputs", *bytes)?;
    Ok(outcome(view))
}
