//! Claim inputs: take what was said to a turn.

use serde::{Deserialize, Serialize};

use super::{Input, InputMode, InputState, InputView, open_inputs, view};
use crate::command::Validate;
use crate::context::Context;
use crate::fencing::FencingToken;
use crate::id::{LeaseToken, Name, Owner};
use crate::lease::Observed;
use crate::limits::{SESSION_ANSWER_BYTES_MAX, SESSION_BATCH_MAX};
use crate::refusal::{Failure, InvalidArgument};
use crate::session::{LaneClaim, SessionRef, check_claimant, check_name, execution};
use crate::transaction::Transaction;

/// Takes inputs of a lane in their order, under its execution lease.
///
/// With [`InputMode::Running`] those for that turn whose rank the checkpoint has reached: they are
/// accepted, and nobody else takes them any more, not even when the claim's time is over. With
/// [`InputMode::Next`] those for the next turn, which go back when the time is over, in a later
/// entry than the claim.
///
/// Promises that nobody else has a live claim on them; what is taken together shares one claim.
/// Answers none when there is nothing to take, and fewer when their bodies reach
/// [`SESSION_ANSWER_BYTES_MAX`]. Refuses with `Fenced` or `Expired` without the lease. A retry
/// takes others: give it a request id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimInputs {
    /// Where.
    pub session: SessionRef,
    /// Whose inputs.
    pub lane: Name,
    /// The lane's execution lease.
    pub execution: Observed,
    /// Who takes them.
    pub owner: Owner,
    /// The claimant's proof.
    pub lease_token: LeaseToken,
    /// How long others are kept from them; 0 is not at all.
    pub ttl_ms: u64,
    /// For which turn; the rank is that of the checkpoint that it has reached.
    pub mode: InputMode,
    /// Inputs at most, 1 to [`SESSION_BATCH_MAX`].
    pub max: u32,
    /// Claims whose owners are known to be dead: they keep nobody out.
    pub dead: Vec<FencingToken>,
}

/// What was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimedInputs {
    /// The claim that all of them share.
    pub claim: LaneClaim,
    /// In order; one at least.
    pub inputs: Vec<InputView>,
}

impl Validate for ClaimInputs {
    fn validate(&self) -> Result<(), InvalidArgument> {
        self.session.validate()?;
        check_name("lane", &self.lane)?;
        check_claimant(&self.owner, self.ttl_ms, &self.dead)?;
        let max = SESSION_BATCH_MAX as u64;
        InvalidArgument::check_count("max", self.max.into(), 1, max)
    }
}

impl ClaimInputs {
    pub(in crate::session) fn apply(
        &self,
        tx: &mut Transaction<'_>,
        ctx: &Context,
    ) -> Result<Option<ClaimedInputs>, Failure> {
        let session = self.session.require(tx)?;
        execution::require(tx, ctx, &session, &self.lane, &self.execution)?;
        let mut room = self.max;
        let free = open_inputs(tx, &session, &self.lane, |input| {
            let takes = room > 0 && self.takes(ctx, input);
            room -= u32::from(takes);
            takes
        })?;
        let claim = LaneClaim::new(ctx, &self.owner, &self.lease_token, self.ttl_ms);
        let (mut inputs, mut bytes) = (Vec::with_capacity(free.len()), 0);
        for mut input in free {
            input.claims += 1;
            input.claim = Some(claim.clone());
            if matches!(input.mode, InputMode::Running { .. }) {
                input.state = InputState::Accepted;
            }
            let view = view(tx, &session, input)?;
            bytes += view.body.inline_bytes();
            if !inputs.is_empty() && bytes > SESSION_ANSWER_BYTES_MAX {
                break;
            }
            view.input.store(tx, &session)?;
            inputs.push(view);
        }
        Ok((!inputs.is_empty()).then_some(ClaimedInputs { claim, inputs }))
    }

    fn takes(&self, ctx: &Context, input: &Input) -> bool {
        let meant = match (&self.mode, &input.mode) {
            (InputMode::Next, InputMode::Next) => true,
            (
                InputMode::Running { turn, rank },
                InputMode::Running {
                    turn: wanted,
                    rank: from,
                },
            ) => turn == wanted && from <= rank,
            _ => false,
        };
        let claim = input.claim.as_ref();
        let free = !claim.is_some_and(|claim| claim.keeps_out(ctx, &self.dead));
        meant && free && input.state == InputState::Pending
    }
}
