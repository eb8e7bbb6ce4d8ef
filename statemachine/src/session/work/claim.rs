//! Claim work: take what stands at the front of a lane.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::{Work, WorkClass, WorkView, body, check_answer};
use crate::command::Validate;
use crate::context::Context;
use crate::fencing::FencingToken;
use crate::id::{LeaseToken, Name, Owner};
use crate::lease::Observed;
use crate::limits::{CLAIMED_WORK_PASSED_MAX, SESSION_ANSWER_BYTES_MAX, SESSION_BATCH_MAX};
use crate::refusal::{Broken, Failure, InvalidArgument};
use crate::session::{LaneClaim, Session, SessionRef, check_claimant, check_name, execution};
use crate::tables::{SessionWork, lane_range};
use crate::transaction::Transaction;

/// What to take. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkChoice {
    /// The command at the front, if there is one there.
    Command,
    /// The turn work at the front, with what it is grouped with.
    Turn {
        /// Only what may go into a turn that runs already.
        running: bool,
        /// Pieces at most, 1 to [`SESSION_BATCH_MAX`].
        max: u32,
    },
    /// Just these, if [`Self::Turn`] would take them and nothing else.
    Exactly {
        /// Only what may go into a turn that runs already.
        running: bool,
        /// In order.
        numbers: Vec<u64>,
    },
}

/// Takes work from the front of a lane, under its execution lease.
///
/// Promises that nobody else has a live claim on it; what is taken together shares one claim.
/// Answers none when there is nothing, when what stands at the front is not what is asked for, or
/// when other pieces than those of [`WorkChoice::Exactly`] would be taken; then nothing is. What is
/// claimed already is passed by, and is first again when its time is over, in a later entry than
/// the claim. Answers fewer pieces when their bodies reach [`SESSION_ANSWER_BYTES_MAX`], and
/// refuses with `Exhausted` if just these were asked for. Refuses with `Fenced` or `Expired`
/// without the lease. A retry takes others: give it a request id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimWork {
    /// Where.
    pub session: SessionRef,
    /// Whose work.
    pub lane: Name,
    /// The lane's execution lease.
    pub execution: Observed,
    /// Who will do it.
    pub owner: Owner,
    /// The claimant's proof.
    pub lease_token: LeaseToken,
    /// How long others are kept from it; 0 is not at all.
    pub ttl_ms: u64,
    /// What to take.
    pub choice: WorkChoice,
    /// Claims whose owners are known to be dead: they keep nobody out.
    pub dead: Vec<FencingToken>,
}

/// What was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimedWork {
    /// The claim that all of it shares.
    pub claim: LaneClaim,
    /// In order; one at least.
    pub work: Vec<WorkView>,
}

impl Validate for ClaimWork {
    fn validate(&self) -> Result<(), InvalidArgument> {
        self.session.validate()?;
        check_name("lane", &self.lane)?;
        check_claimant(&self.owner, self.ttl_ms, &self.dead)?;
        let count = match &self.choice {
            WorkChoice::Command => 1,
            WorkChoice::Turn { max, .. } => u64::from(*max),
            WorkChoice::Exactly { numbers, .. } => numbers.len() as u64,
        };
        InvalidArgument::check_count("max", count, 1, SESSION_BATCH_MAX as u64)
    }
}

impl ClaimWork {
    pub(in crate::session) fn apply(
        &self,
        tx: &mut Transaction<'_>,
        ctx: &Context,
    ) -> Result<Option<ClaimedWork>, Failure> {
        let session = self.session.require(tx)?;
        execution::require(tx, ctx, &session, &self.lane, &self.execution)?;
        let front = self.front(tx, ctx, &session)?;
        let chosen = self.choice.of(front);
        let taken = self.with_bodies(tx, &session, chosen)?;
        if taken.is_empty() {
            return Ok(None);
        }
        let claim = LaneClaim::new(ctx, &self.owner, &self.lease_token, self.ttl_ms);
        let mut claimed = Vec::with_capacity(taken.len());
        for WorkView { mut work, body } in taken {
            work.claims += 1;
            work.claim = Some(claim.clone());
            work.store(tx, &session)?;
            claimed.push(WorkView { work, body });
        }
        Ok(Some(ClaimedWork {
            claim,
            work: claimed,
        }))
    }

    /// What can be taken, from the front, as far as one claim reaches.
    fn front(
        &self,
        tx: &Transaction<'_>,
        ctx: &Context,
        session: &Session,
    ) -> Result<Vec<Work>, Broken> {
        let (from, to) = lane_range::<SessionWork>(session.id, &self.lane);
        let (mut front, mut passed) = (Vec::new(), 0);
        tx.scan(&from, &to, &mut |_, work| {
            let claim = work.claim.as_ref();
            if claim.is_some_and(|claim| claim.keeps_out(ctx, &self.dead)) {
                passed += 1;
            } else {
                front.push(work);
            }
            if passed > CLAIMED_WORK_PASSED_MAX || !self.choice.goes_on(&front) {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        Ok(front)
    }

    fn with_bodies(
        &self,
        tx: &mut Transaction<'_>,
        session: &Session,
        chosen: Vec<Work>,
    ) -> Result<Vec<WorkView>, Failure> {
        let (mut views, mut bytes) = (Vec::with_capacity(chosen.len()), 0);
        for work in chosen {
            let body = body(tx, session, work.number)?;
            bytes += body.inline_bytes();
            if matches!(self.choice, WorkChoice::Exactly { .. }) {
                check_answer("work", bytes)?;
            }
            if !views.is_empty() && bytes > SESSION_ANSWER_BYTES_MAX {
                break;
            }
            views.push(WorkView { work, body });
        }
        Ok(views)
    }
}

impl WorkChoice {
    /// Whether what stands behind `front` may be taken too.
    fn goes_on(&self, front: &[Work]) -> bool {
        let max = match self {
            Self::Command => 1,
            Self::Turn { max, .. } => *max as usize,
            Self::Exactly { numbers, .. } => numbers.len(),
        };
        match (front.first(), front.last()) {
            (Some(first), Some(last)) => front.len() < max && goes_with(first, last),
            _ => true,
        }
    }

    /// What of the front is taken: all or the first part of it, or nothing.
    fn of(&self, mut front: Vec<Work>) -> Vec<Work> {
        let Some(first) = front.first() else {
            return front;
        };
        let fits = match self {
            Self::Command => first.class == WorkClass::Command,
            Self::Turn { running, .. } | Self::Exactly { running, .. } => {
                first.class == WorkClass::Turn && (first.anytime || !*running)
            }
        };
        if !fits {
            return Vec::new();
        }
        let together = front.iter().take_while(|work| goes_with(first, work));
        let together = together.count().max(1);
        front.truncate(together);
        match self {
            Self::Exactly { numbers, .. }
                if !front.iter().map(|w| w.number).eq(numbers.iter().copied()) =>
            {
                Vec::new()
            }
            _ => front,
        }
    }
}

/// Whether `work` is taken together with the first piece.
fn goes_with(first: &Work, work: &Work) -> bool {
    first.group.is_some()
        && first.group == work.group
        && first.class == WorkClass::Turn
        && work.class == WorkClass::Turn
        && first.anytime == work.anytime
}
