//! Cancel work that nobody does.

use serde::{Deserialize, Serialize};

use super::{WorkView, body, find, remove, unfile};
use crate::command::Validate;
use crate::context::Context;
use crate::id::Name;
use crate::refusal::{Failure, InvalidArgument};
use crate::session::{SessionRef, check_name};
use crate::transaction::Transaction;

/// Takes work out of a lane, unless a live claim has it.
///
/// Answers what was taken out, or none when it is claimed, done, or was never there: then it must
/// not be put back anywhere. Refuses with `NotFound` for the session alone. A retry answers none:
/// give it a request id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelWork {
    /// Where.
    pub session: SessionRef,
    /// Whose work.
    pub lane: Name,
    /// Which.
    pub number: u64,
}

impl Validate for CancelWork {
    fn validate(&self) -> Result<(), InvalidArgument> {
        self.session.validate()?;
        check_name("lane", &self.lane)
    }
}

impl CancelWork {
    pub(in crate::session) fn apply(
        &self,
        tx: &mut Transaction<'_>,
        ctx: &Context,
    ) -> Result<Option<WorkView>, Failure> {
        let mut session = self.session.require(tx)?;
        let found = find(tx, &session, &self.lane, self.number)?;
        let Some((work, delayed)) = found.filter(|(work, _)| !work.is_claimed(ctx.now)) else {
            return Ok(None);
        };
        let body = body(tx, &session, work.number)?;
        if delayed {
            unfile(tx, &session, &work)?;
        }
        remove(tx, ctx, &mut session, &work)?;
        session.store(tx)?;
        Ok(Some(WorkView { work, body }))
    }
}
