//! Push an input: say something to a lane.

use serde::{Deserialize, Serialize};

use super::{Input, InputMode, InputState, InputView, find, number_by_id, number_by_source, view};
use crate::command::Validate;
use crate::context::Context;
use crate::id::Name;
use crate::limits::{SESSION_ENDED_INPUTS_MAX, SESSION_INPUTS_MAX};
use crate::refusal::{Broken, Failure, InvalidArgument, Refusal};
use crate::session::content::Content;
use crate::session::{Session, SessionRef, blobs, check_name};
use crate::tables::{SessionInputIds, SessionInputSources, body_key, lane_name_key};
use crate::time::Timestamp;
use crate::transaction::Transaction;

/// Queues an input for a lane, behind all that is queued.
///
/// Promises that an input with the same `id`, or the same `source`, is in the lane once: pushing
/// one that is known answers what is known of it, ended or not, and whether it is the same. Asks
/// for no lease. Refuses with `NotFound` for the session or a blob, and with `Exhausted` at the
/// limits of inputs. Give it a request id: a vacuum may have forgotten what a late retry repeats.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushInput {
    /// Where.
    pub session: SessionRef,
    /// To whom.
    pub lane: Name,
    /// Minted by the caller: unique in its lane.
    pub id: Name,
    /// Guards against a second push under another id.
    pub source: Option<Name>,
    /// Which turn it is for.
    pub mode: InputMode,
    /// Opaque.
    pub body: Content,
}

/// The answer.
#[allow(
    clippy::large_enum_variant,
    reason = "a reply lives once, on its way out"
)]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum InputPushed {
    /// It is queued now.
    Queued {
        /// Its number.
        number: u64,
        /// When it was pushed.
        pushed_at: Timestamp,
    },
    /// Its source, or its id, was there already.
    Known {
        /// What is there.
        input: InputView,
        /// Whether it is for the same turn and holds the same.
        same: bool,
    },
}

impl Validate for PushInput {
    fn validate(&self) -> Result<(), InvalidArgument> {
        self.session.validate()?;
        check_name("lane", &self.lane)?;
        self.body.validate("body")
    }
}

impl PushInput {
    pub(in crate::session) fn apply(
        &self,
        tx: &mut Transaction<'_>,
        ctx: &Context,
    ) -> Result<InputPushed, Failure> {
        let mut session = self.session.require(tx)?;
        if let Some(number) = self.known(tx, &session)? {
            let input = find(tx, &session, &self.lane, number)?;
            let input = view(tx, &session, input)?;
            let same = input.input.mode == self.mode && input.body == self.body;
            return Ok(InputPushed::Known { input, same });
        }
        let inputs = || format!("open inputs of session {}", session.name);
        Refusal::check_room(inputs, session.inputs, SESSION_INPUTS_MAX)?;
        let ended = || format!("ended inputs of session {}, vacuum it", session.name);
        Refusal::check_room(ended, session.ended_inputs, SESSION_ENDED_INPUTS_MAX)?;
        blobs::refer_content(tx, &mut session, &self.body)?;
        session.inputs += 1;
        let input = self.new_input(ctx);
        self.write(tx, &session, &input)?;
        session.store(tx)?;
        Ok(InputPushed::Queued {
            number: input.number,
            pushed_at: input.pushed_at,
        })
    }

    fn known(&self, tx: &mut Transaction<'_>, session: &Session) -> Result<Option<u64>, Broken> {
        if let Some(source) = &self.source
            && let Some(number) = number_by_source(tx, session, &self.lane, source)?
        {
            return Ok(Some(number));
        }
        number_by_id(tx, session, &self.lane, &self.id)
    }

    fn new_input(&self, ctx: &Context) -> Input {
        Input {
            number: ctx.number(),
            id: self.id.clone(),
            lane: self.lane.clone(),
            source: self.source.clone(),
            mode: self.mode.clone(),
            state: InputState::Pending,
            pushed_at: ctx.now,
            claims: 0,
            claim: None,
        }
    }

    fn write(
        &self,
        tx: &mut Transaction<'_>,
        session: &Session,
        input: &Input,
    ) -> Result<(), Broken> {
        tx.put_new(&body_key(session.id, input.number), &self.body)?;
        let key = lane_name_key::<SessionInputIds>(session.id, &self.lane, &self.id);
        tx.put(&key, &input.number)?;
        if let Some(source) = &self.source {
            let key = lane_name_key::<SessionInputSources>(session.id, &self.lane, source);
            tx.put(&key, &input.number)?;
        }
        input.store(tx, session)
    }
}
