//! Collect: remove blobs that nothing refers to, before their time.

use serde::{Deserialize, Serialize};

use super::{SessionRef, blobs, garbage};
use crate::command::Validate;
use crate::limits::{REMOVAL_BYTES_MAX, REMOVALS_MAX};
use crate::refusal::{Failure, InvalidArgument};
use crate::tables::{SessionLooseBlobs, blob_of, session_range};
use crate::transaction::Transaction;

/// Removes blobs that nothing refers to.
///
/// One command removes [`REMOVALS_MAX`] blobs, or [`REMOVAL_BYTES_MAX`], and says whether there are
/// more. What was put and not yet committed goes too: the commit is refused with `NotFound` and
/// its caller puts it again. Refuses with `NotFound`. A retry removes others, so give it a request
/// id if the report matters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collect {
    /// Whose.
    pub session: SessionRef,
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collected {
    /// Blobs that were removed by this command.
    pub removed: u64,
    /// Blobs that something refers to.
    pub retained: u64,
    /// Whether there are more that nothing refers to.
    pub more: bool,
}

impl Validate for Collect {
    fn validate(&self) -> Result<(), InvalidArgument> {
        self.session.validate()
    }
}

impl Collect {
    pub(super) fn apply(&self, tx: &mut Transaction<'_>) -> Result<Collected, Failure> {
        let mut session = self.session.require(tx)?;
        let loose = session_range::<SessionLooseBlobs>(session.id);
        let keys = garbage::first_keys(tx, &loose, &[], REMOVALS_MAX)?;
        let (mut removed, mut bytes) = (0, 0);
        for key in &keys {
            bytes += blobs::remove(tx, &mut session, blob_of(key)?)?;
            removed += 1;
            if bytes >= REMOVAL_BYTES_MAX as u64 {
                break;
            }
        }
        session.store(tx)?;
        Ok(Collected {
            removed,
            retained: session.blobs - session.loose_blobs,
            more: session.loose_blobs > 0,
        })
    }
}
