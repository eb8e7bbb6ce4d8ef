//! Delete: end a session with all that it has.

use serde::{Deserialize, Serialize};

use super::{check_name, garbage};
use crate::command::Validate;
use crate::context::Context;
use crate::id::Name;
use crate::refusal::{Broken, Failure, InvalidArgument};
use crate::tables::{MetaRow, session_row_key};
use crate::transaction::Transaction;

/// Deletes the session `name`: state, graph, blobs, work, inputs, attachments.
///
/// Promises that nobody sees any of it when it answers, and that a session opened under the same
/// name begins empty; the rows go bit by bit, with the sweep. Execution leases of its lanes end by
/// themselves. Never refuses; a retry, or a name that there is not, answers that there was none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delete {
    /// Its name.
    pub name: Name,
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    /// Whether there was one.
    pub existed: bool,
}

impl Validate for Delete {
    fn validate(&self) -> Result<(), InvalidArgument> {
        check_name("session", &self.name)
    }
}

impl Delete {
    pub(super) fn apply(
        &self,
        tx: &mut Transaction<'_>,
        meta: &mut MetaRow,
        ctx: &Context,
    ) -> Result<Deleted, Failure> {
        let key = session_row_key(&self.name);
        let Some(session) = tx.get(&key)? else {
            return Ok(Deleted { existed: false });
        };
        tx.delete(&key)?;
        meta.sessions = meta
            .sessions
            .checked_sub(1)
            .ok_or_else(|| Broken("there are more sessions than were counted".to_owned()))?;
        garbage::leave_session(tx, ctx, &session)?;
        Ok(Deleted { existed: true })
    }
}
