//! Abandon a claim of inputs.

use serde::{Deserialize, Serialize};

use super::{InputState, claimed_by, find};
use crate::command::Validate;
use crate::context::Context;
use crate::id::Name;
use crate::limits::SESSION_BATCH_MAX;
use crate::refusal::{Failure, InvalidArgument, Subject};
use crate::session::{ClaimRef, SessionRef, check_name};
use crate::transaction::Transaction;

/// Gives claimed inputs up: they are pending again at once, also those that were accepted.
///
/// What the claim has no longer is left as it is. Asks for no lease. Refuses with `NotFound` for
/// the session, and with `Conflict` in the composite that made the claim. A retry finds nothing
/// more to give up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbandonInputs {
    /// Where.
    pub session: SessionRef,
    /// Whose inputs.
    pub lane: Name,
    /// The claim.
    pub claim: ClaimRef,
    /// All that it took.
    pub ids: Vec<Name>,
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputsAbandoned {
    /// How many inputs were the claim's.
    pub inputs: u64,
}

impl Validate for AbandonInputs {
    fn validate(&self) -> Result<(), InvalidArgument> {
        self.session.validate()?;
        check_name("lane", &self.lane)?;
        let (count, max) = (self.ids.len() as u64, SESSION_BATCH_MAX as u64);
        InvalidArgument::check_count("ids", count, 1, max)
    }
}

impl AbandonInputs {
    pub(in crate::session) fn apply(
        &self,
        tx: &mut Transaction<'_>,
        ctx: &Context,
    ) -> Result<InputsAbandoned, Failure> {
        let session = self.session.require(tx)?;
        let mut given_up = 0;
        for id in &self.ids {
            let number = claimed_by(tx, &session, &self.lane, id, &self.claim)?;
            let Some(number) = number else {
                continue;
            };
            self.claim
                .require_earlier(ctx, Subject::Input, &self.lane)?;
            let mut input = find(tx, &session, &self.lane, number)?;
            input.state = InputState::Pending;
            input.claim = None;
            input.store(tx, &session)?;
            given_up += 1;
        }
        Ok(InputsAbandoned { inputs: given_up })
    }
}
