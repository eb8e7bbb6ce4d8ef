//! Put a note: what programs want to know of a session without its state.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{SessionRef, check_payload};
use crate::command::Validate;
use crate::refusal::{Failure, InvalidArgument};
use crate::tables::{SessionNotes, session_one_key};
use crate::transaction::Transaction;

/// Notes something at a session, instead of what was noted before.
///
/// It has nothing to do with commits: no lease, no revision. Refuses with `NotFound`. Give it a
/// request id, lest a late retry undoes what another one noted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutNote {
    /// Which.
    pub session: SessionRef,
    /// Opaque, up to a payload's size.
    pub note: Bytes,
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotePut;

impl Validate for PutNote {
    fn validate(&self) -> Result<(), InvalidArgument> {
        self.session.validate()?;
        check_payload("note", &self.note)
    }
}

impl PutNote {
    pub(super) fn apply(&self, tx: &mut Transaction<'_>) -> Result<NotePut, Failure> {
        let session = self.session.require(tx)?;
        tx.put(&session_one_key::<SessionNotes>(session.id), &self.note)?;
        Ok(NotePut)
    }
}
