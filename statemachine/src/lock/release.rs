//! Release: give up a hold, a place in the queue, or the right to ever have one.

use serde::{Deserialize, Serialize};

use super::end::{end, remember, remembered};
use super::hand_over::{hand_over, lock_row};
use super::{End, Place};
use crate::command::Validate;
use crate::context::Context;
use crate::fencing::FencingToken;
use crate::id::Name;
use crate::refusal::Failure;
use crate::tables::{MetaRow, lock_member_key};
use crate::transaction::Transaction;

/// Ends an acquisition wherever it stands.
///
/// Promises that, when it answers, the acquisition neither holds nor waits, and never will: one
/// that arrives after its release is told that it is over. The lock goes to the next in line in the
/// same entry. Refuses only an id that was used for something else (`Conflict`). A retry gets the
/// same answer while the end is remembered. Watchers of the key, and of the acquisition, get
/// `LockLeft`, and `LockGranted` for the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The key.
    pub key: Name,
    /// The acquisition.
    pub id: [u8; 16],
}

/// The answer to a release. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Released {
    /// The hold is over because its holder released it, now or by an earlier try.
    Released {
        /// The token of the hold.
        fencing_token: FencingToken,
    },
    /// It waited, or had not arrived yet: it is cancelled.
    Cancelled,
    /// It was over before, for another reason.
    NotHeld {
        /// Why.
        end: End,
    },
}

impl Validate for Release {}

impl Release {
    pub(super) fn apply(
        &self,
        tx: &mut Transaction<'_>,
        meta: &mut MetaRow,
        ctx: &Context,
    ) -> Result<Released, Failure> {
        let Some(member) = tx.get(&lock_member_key(&self.key, self.id))? else {
            return self.without_member(tx, meta, ctx);
        };
        let mut lock = lock_row(tx, &self.key)?;
        let why = match member.place {
            _ if !member.is_live(ctx.now) => member.overdue(),
            Place::Holding { fencing_token, .. } => End::Released { fencing_token },
            Place::Waiting { .. } => End::Cancelled,
        };
        end(tx, meta, ctx, &mut lock, &member, why.clone())?;
        hand_over(tx, meta, ctx, &mut lock)?;
        Ok(answer(why))
    }

    fn without_member(
        &self,
        tx: &mut Transaction<'_>,
        meta: &mut MetaRow,
        ctx: &Context,
    ) -> Result<Released, Failure> {
        if let Some(end) = remembered(tx, self.id, self.key.as_str())? {
            return Ok(answer(end));
        }
        remember(tx, meta, ctx, self.id, &End::Cancelled)?;
        Ok(Released::Cancelled)
    }
}

fn answer(end: End) -> Released {
    match end {
        End::Released { fencing_token } => Released::Released { fencing_token },
        End::Cancelled => Released::Cancelled,
        end => Released::NotHeld { end },
    }
}
