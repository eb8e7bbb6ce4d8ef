//! Put blobs: what is too large for the command that needs it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::content::BlobHash;
use super::{SessionRef, blobs, check_payload};
use crate::command::Validate;
use crate::context::Context;
use crate::limits::BLOBS_PER_COMMAND_MAX;
use crate::refusal::{Failure, InvalidArgument, Refusal, Subject};
use crate::tables::{SessionBlobBytes, blob_key};
use crate::transaction::Transaction;

/// Stores blobs of a session, or finds them there.
///
/// Promises that they are there for [`crate::limits::BLOB_RETENTION_MS`] from now on, or until the
/// session is collected; a command that refers to them keeps them for longer. Refuses with
/// `NotFound`, with `Conflict` when a name has other bytes, and with `Exhausted` at the limit of
/// blobs. A retry finds what the first try stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutBlobs {
    /// Whose.
    pub session: SessionRef,
    /// Names and bytes, each of them up to a payload's size.
    pub blobs: Vec<(BlobHash, Bytes)>,
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobsPut {
    /// How many were not there before.
    pub stored: u64,
}

impl Validate for PutBlobs {
    fn validate(&self) -> Result<(), InvalidArgument> {
        self.session.validate()?;
        let (count, max) = (self.blobs.len() as u64, BLOBS_PER_COMMAND_MAX as u64);
        InvalidArgument::check_count("blobs", count, 1, max)?;
        let mut blobs = self.blobs.iter();
        blobs.try_for_each(|(_, bytes)| check_payload("blob", bytes))
    }
}

impl PutBlobs {
    pub(super) fn apply(
        &self,
        tx: &mut Transaction<'_>,
        ctx: &Context,
    ) -> Result<BlobsPut, Failure> {
        let mut session = self.session.require(tx)?;
        let mut stored = 0;
        for (hash, bytes) in &self.blobs {
            match tx.get(&blob_key::<SessionBlobBytes>(session.id, *hash))? {
                Some(known) if known == *bytes => {
                    blobs::keep(tx, ctx.now, &session, *hash)?;
                }
                Some(known) => return Err(self.other_bytes(*hash, known.len(), bytes.len())),
                None => {
                    blobs::add(tx, ctx, &mut session, *hash, bytes)?;
                    stored += 1;
                }
            }
        }
        session.store(tx)?;
        Ok(BlobsPut { stored })
    }

    fn other_bytes(&self, hash: BlobHash, known: usize, given: usize) -> Failure {
        Failure::Refused(Refusal::Conflict {
            subject: Subject::Blob,
            name: hash.to_string(),
            problem: format!(
                "session {} has other bytes under this name ({known} bytes there, {given} given); \
                 name blobs by a hash of their bytes",
                self.session.name
            ),
        })
    }
}
