//! Abandon a claim of work.

use serde::{Deserialize, Serialize};

use crate::command::Validate;
use crate::context::Context;
use crate::id::Name;
use crate::limits::SESSION_BATCH_MAX;
use crate::refusal::{Failure, InvalidArgument, Subject};
use crate::session::{ClaimRef, SessionRef, check_name};
use crate::tables::{SessionWork, lane_key};
use crate::transaction::Transaction;

/// Gives claimed work up: it can be claimed again at once.
///
/// What the claim has no longer is left as it is. Asks for no lease. Refuses with `NotFound` for
/// the session, and with `Conflict` in the composite that made the claim. A retry finds nothing
/// more to give up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbandonWork {
    /// Where.
    pub session: SessionRef,
    /// Whose work.
    pub lane: Name,
    /// The claim.
    pub claim: ClaimRef,
    /// All that it took.
    pub numbers: Vec<u64>,
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkAbandoned {
    /// How many pieces were the claim's.
    pub work: u64,
}

impl Validate for AbandonWork {
    fn validate(&self) -> Result<(), InvalidArgument> {
        self.session.validate()?;
        check_name("lane", &self.lane)?;
        let (count, max) = (self.numbers.len() as u64, SESSION_BATCH_MAX as u64);
        InvalidArgument::check_count("numbers", count, 1, max)
    }
}

impl AbandonWork {
    pub(in crate::session) fn apply(
        &self,
        tx: &mut Transaction<'_>,
        ctx: &Context,
    ) -> Result<WorkAbandoned, Failure> {
        let session = self.session.require(tx)?;
        let mut given_up = 0;
        for number in &self.numbers {
            let work = tx.get(&lane_key::<SessionWork>(session.id, &self.lane, *number))?;
            let Some(mut work) = work.filter(|work| self.claim.is(work.claim.as_ref())) else {
                continue;
            };
            self.claim.require_earlier(ctx, Subject::Work, &self.lane)?;
            work.claim = None;
            work.store(tx, &session)?;
            given_up += 1;
        }
        Ok(WorkAbandoned { work: given_up })
    }
}
