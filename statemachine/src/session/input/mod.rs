//! Inputs of a lane: what somebody has to say to a turn, the one that runs or the next one.
//!
//! An input that is completed or cancelled stays as evidence until the session is vacuumed: pushing
//! it again finds it.

use serde::{Deserialize, Serialize};

use super::content::Content;
use super::work::body;
use super::{ClaimRef, LaneClaim, Session, blobs, count_down};
use crate::context::Context;
use crate::id::Name;
use crate::refusal::{Broken, Failure};
use crate::tables::{
    SessionEndedInputs, SessionInputIds, SessionInputSources, SessionInputs, body_key, lane_key,
    lane_name_key, lane_range,
};
use crate::time::Timestamp;
use crate::transaction::Transaction;

mod abandon;
mod cancel;
mod claim;
mod push;

pub use abandon::{AbandonInputs, InputsAbandoned};
pub use cancel::{CancelInputs, CancelInputsFrom, CancelOutcome, CancelTarget};
pub use claim::{ClaimInputs, ClaimedInputs};
pub use push::{InputPushed, PushInput};

/// Which turn an input is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum InputMode {
    /// A turn that runs, at one of its checkpoints.
    Running {
        /// The turn.
        turn: Name,
        /// Checkpoints of this rank and later ones take it.
        rank: u8,
    },
    /// The next turn to begin.
    Next,
}

/// Where an input is in its life. Variants are only ever appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum InputState {
    /// Not taken, or taken for the next turn and not yet settled.
    Pending,
    /// Taken by the turn that it is for: only that claim can give it back or settle it.
    Accepted,
    /// Taken back by who pushed it.
    Cancelled,
    /// Settled by a commit.
    Completed,
}

impl InputState {
    /// The word for scripts and people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Accepted => "accepted",
            Self::Cancelled => "cancelled",
            Self::Completed => "completed",
        }
    }

    /// Whether there is no way on from here.
    #[must_use]
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Cancelled | Self::Completed)
    }
}

/// An input, without what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// Names it for ever; grows with every push.
    pub number: u64,
    /// Its id, minted by who pushed it: unique in its lane.
    pub id: Name,
    /// Whose it is.
    pub lane: Name,
    /// Guards against a second push.
    pub source: Option<Name>,
    /// Which turn it is for.
    pub mode: InputMode,
    /// Where it is in its life.
    pub state: InputState,
    /// When it was pushed.
    pub pushed_at: Timestamp,
    /// Claims so far.
    pub claims: u64,
    /// The last claim, live or not, unless it was given up or the input has ended.
    pub claim: Option<LaneClaim>,
}

/// An input with what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputView {
    /// The row.
    pub input: Input,
    /// Opaque.
    pub body: Content,
}

impl Input {
    /// Whether a claim keeps others from it at `now`.
    #[must_use]
    pub fn is_claimed(&self, now: Timestamp) -> bool {
        self.claim.as_ref().is_some_and(|claim| claim.is_live(now))
    }

    fn store(&self, tx: &mut Transaction<'_>, session: &Session) -> Result<(), Broken> {
        tx.put(
            &lane_key::<SessionInputs>(session.id, &self.lane, self.number),
            self,
        )
    }

    /// Completes or cancels it: from one table to the other. The session's row is left to the
    /// caller.
    fn end(
        &mut self,
        tx: &mut Transaction<'_>,
        session: &mut Session,
        state: InputState,
    ) -> Result<(), Broken> {
        assert!(
            state.is_ended() && !self.state.is_ended(),
            "callers end what is found among those that have not ended"
        );
        self.state = state;
        self.claim = None;
        tx.delete(&lane_key::<SessionInputs>(
            session.id,
            &self.lane,
            self.number,
        ))?;
        let ended = lane_key::<SessionEndedInputs>(session.id, &self.lane, self.number);
        tx.put(&ended, self)?;
        count_down(session, |session| &mut session.inputs, 1)?;
        session.ended_inputs += 1;
        Ok(())
    }
}

/// An input by its number, ended or not.
fn find(
    tx: &mut Transaction<'_>,
    session: &Session,
    lane: &Name,
    number: u64,
) -> Result<Input, Broken> {
    if let Some(input) = tx.get(&lane_key::<SessionInputs>(session.id, lane, number))? {
        return Ok(input);
    }
    let ended = tx.get(&lane_key::<SessionEndedInputs>(session.id, lane, number))?;
    ended.ok_or_else(|| {
        let name = &session.name;
        Broken(format!(
            "input {number} of session {name} is indexed and has no row"
        ))
    })
}

fn view(tx: &mut Transaction<'_>, session: &Session, input: Input) -> Result<InputView, Broken> {
    let body = body(tx, session, input.number)?;
    Ok(InputView { input, body })
}

fn number_by_id(
    tx: &mut Transaction<'_>,
    session: &Session,
    lane: &Name,
    id: &Name,
) -> Result<Option<u64>, Broken> {
    tx.get(&lane_name_key::<SessionInputIds>(session.id, lane, id))
}

fn number_by_source(
    tx: &mut Transaction<'_>,
    session: &Session,
    lane: &Name,
    source: &Name,
) -> Result<Option<u64>, Broken> {
    tx.get(&lane_name_key::<SessionInputSources>(
        session.id, lane, source,
    ))
}

/// Inputs of a lane that have not ended, in order.
fn open_inputs(
    tx: &Transaction<'_>,
    session: &Session,
    lane: &Name,
    mut keep: impl FnMut(&Input) -> bool,
) -> Result<Vec<Input>, Broken> {
    let (from, to) = lane_range::<SessionInputs>(session.id, lane);
    let mut found = Vec::new();
    tx.scan(&from, &to, &mut |_, input| {
        if keep(&input) {
            found.push(input);
        }
        std::ops::ControlFlow::Continue(())
    })?;
    Ok(found)
}

/// The number of an input that a claim has, live or not.
pub(super) fn claimed_by(
    tx: &mut Transaction<'_>,
    session: &Session,
    lane: &Name,
    id: &Name,
    claim: &ClaimRef,
) -> Result<Option<u64>, Broken> {
    let Some(number) = number_by_id(tx, session, lane, id)? else {
        return Ok(None);
    };
    let input = tx.get(&lane_key::<SessionInputs>(session.id, lane, number))?;
    let has = input.is_some_and(|input| claim.is(input.claim.as_ref()));
    Ok(has.then_some(number))
}

/// The claim that has an input that has not ended, live or not.
pub(super) fn claim_of(
    tx: &mut Transaction<'_>,
    session: &Session,
    lane: &Name,
    id: &Name,
) -> Result<Option<LaneClaim>, Broken> {
    let Some(number) = number_by_id(tx, session, lane, id)? else {
        return Ok(None);
    };
    let input = tx.get(&lane_key::<SessionInputs>(session.id, lane, number))?;
    Ok(input.and_then(|input| input.claim))
}

/// Completes a claimed input because a commit has done it.
pub(super) fn complete(
    tx: &mut Transaction<'_>,
    session: &mut Session,
    lane: &Name,
    number: u64,
) -> Result<(), Failure> {
    let mut input = find(tx, session, lane, number)?;
    Ok(input.end(tx, session, InputState::Completed)?)
}

/// A turn was interrupted: what it has not accepted is left to the next one.
pub(super) fn defer(
    tx: &mut Transaction<'_>,
    session: &Session,
    lane: &Name,
    interrupted: &Name,
) -> Result<(), Broken> {
    let left = open_inputs(tx, session, lane, |input| {
        let mode = &input.mode;
        input.state == InputState::Pending
            && matches!(mode, InputMode::Running { turn, .. } if turn == interrupted)
    })?;
    for mut input in left {
        input.mode = InputMode::Next;
        input.claim = None;
        input.store(tx, session)?;
    }
    Ok(())
}

/// Removes an input that has ended, with all that finds it. The session's row is left to the
/// caller.
pub(super) fn forget(
    tx: &mut Transaction<'_>,
    ctx: &Context,
    session: &mut Session,
    input: &Input,
) -> Result<(), Broken> {
    let (id, lane, number) = (session.id, &input.lane, input.number);
    tx.delete(&lane_key::<SessionEndedInputs>(id, lane, number))?;
    tx.delete(&lane_name_key::<SessionInputIds>(id, lane, &input.id))?;
    if let Some(source) = &input.source {
        tx.delete(&lane_name_key::<SessionInputSources>(id, lane, source))?;
    }
    let body = body(tx, session, number)?;
    blobs::release(tx, ctx.now, session, body.blobs())?;
    tx.delete(&body_key(id, number))?;
    count_down(session, |session| &mut session.ended_inputs, 1)
}
