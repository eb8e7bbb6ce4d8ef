//! Renew a claim of work.

use serde::{Deserialize, Serialize};

use crate::command::Validate;
use crate::context::Context;
use crate::id::Name;
use crate::limits::SESSION_BATCH_MAX;
use crate::refusal::{Failure, InvalidArgument, Subject};
use crate::session::{ClaimRef, LaneClaim, SessionRef, check_name};
use crate::tables::{SessionWork, lane_key};
use crate::time::Timestamp;
use crate::transaction::Transaction;

/// Keeps others from claimed work for another `ttl_ms`.
///
/// Promises that all of it is the claim's still, or refuses with `Fenced`; a claim whose time was
/// over, and that nobody else has made his own, goes on. Asks for no lease. Refuses with
/// `NotFound`. A retry renews again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewWork {
    /// Where.
    pub session: SessionRef,
    /// Whose work.
    pub lane: Name,
    /// The claim.
    pub claim: ClaimRef,
    /// All that it took.
    pub numbers: Vec<u64>,
    /// From now on.
    pub ttl_ms: u64,
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkRenewed {
    /// When another one may claim it.
    pub expires_at: Timestamp,
}

impl Validate for RenewWork {
    fn validate(&self) -> Result<(), InvalidArgument> {
        self.session.validate()?;
        check_name("lane", &self.lane)?;
        InvalidArgument::check_ttl(self.ttl_ms)?;
        let (count, max) = (self.numbers.len() as u64, SESSION_BATCH_MAX as u64);
        InvalidArgument::check_count("numbers", count, 1, max)
    }
}

impl RenewWork {
    pub(in crate::session) fn apply(
        &self,
        tx: &mut Transaction<'_>,
        ctx: &Context,
    ) -> Result<WorkRenewed, Failure> {
        let session = self.session.require(tx)?;
        let expires_at = ctx.now.plus(self.ttl_ms);
        for number in &self.numbers {
            let work = tx.get(&lane_key::<SessionWork>(session.id, &self.lane, *number))?;
            let (claim, work) = match work {
                Some(mut work) => (work.claim.take(), Some(work)),
                None => (None, None),
            };
            match (claim, work) {
                (Some(claim), Some(mut work)) if self.claim.is(Some(&claim)) => {
                    work.claim = Some(LaneClaim {
                        expires_at,
                        ..claim
                    });
                    work.store(tx, &session)?;
                }
                (has, _) => {
                    return Err(self.claim.lost(Subject::Work, &self.lane, ctx.now, has));
                }
            }
        }
        Ok(WorkRenewed { expires_at })
    }
}
