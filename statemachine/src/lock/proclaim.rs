//! Proclaim: a holder says something new about itself.

use serde::{Deserialize, Serialize};

use super::Member;
use super::row::require_hold;
use crate::command::Validate;
use crate::context::Context;
use crate::fencing::FencingToken;
use crate::id::Name;
use crate::limits::LOCK_METADATA_BYTES_MAX;
use crate::notice::Notice;
use crate::refusal::{Failure, InvalidArgument};
use crate::tables::lock_member_key;
use crate::transaction::Transaction;

/// Puts another note on a hold, for those who observe the lock: the value of an elected leader.
///
/// Promises that the note stands when it answers, and that only the live holder under
/// `fencing_token` can have put it there. Refuses with `Expired` or `Fenced` when the hold is over.
/// A retry puts it there again; give the command a request id to repeat it safely. Watchers of the
/// key get `LockProclaimed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proclaim {
    /// The key.
    pub key: Name,
    /// The hold.
    pub fencing_token: FencingToken,
    /// The note.
    pub metadata: Vec<u8>,
}

impl Validate for Proclaim {
    fn validate(&self) -> Result<(), InvalidArgument> {
        let bytes = self.metadata.len();
        InvalidArgument::check_bytes("metadata", bytes, LOCK_METADATA_BYTES_MAX)
    }
}

impl Proclaim {
    pub(super) fn apply(&self, tx: &mut Transaction<'_>, ctx: &Context) -> Result<Member, Failure> {
        let mut member = require_hold(tx, ctx, &self.key, self.fencing_token)?;
        member.metadata.clone_from(&self.metadata);
        tx.put(&lock_member_key(&self.key, member.id.id), &member)?;
        tx.notify(Notice::LockProclaimed {
            key: self.key.clone(),
            fencing_token: self.fencing_token,
        });
        Ok(member)
    }
}
