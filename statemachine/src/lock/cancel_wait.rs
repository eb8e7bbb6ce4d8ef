//! Cancel a wait, without touching a hold.

use serde::{Deserialize, Serialize};

use super::end::{end, remember, remembered};
use super::hand_over::{hand_over, lock_row};
use super::{End, Member};
use crate::command::Validate;
use crate::context::Context;
use crate::id::Name;
use crate::refusal::Failure;
use crate::tables::{MetaRow, lock_member_key};
use crate::transaction::Transaction;

/// Takes an acquisition out of the queue.
///
/// Promises that it does not wait when this answers, and never will: one that arrives after its
/// cancellation is told that it is over. Never ends a hold: where the two cross, the answer says
/// that the lock was granted first ([`WaitCancelled::Holding`]). Refuses only an id that was used
/// for something else (`Conflict`). A retry gets the same answer while the end is remembered.
/// Watchers of the acquisition get `LockLeft`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelWait {
    /// The key.
    pub key: Name,
    /// The acquisition.
    pub id: [u8; 16],
}

/// The answer to a cancellation. Variants are only ever appended.
#[allow(
    clippy::large_enum_variant,
    reason = "a reply lives once, on its way out"
)]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum WaitCancelled {
    /// It waits no longer, or will not begin to.
    Cancelled,
    /// It holds the lock, and goes on to.
    Holding(Member),
    /// It was over before, for another reason.
    Over(End),
}

impl Validate for CancelWait {}

impl CancelWait {
    pub(super) fn apply(
        &self,
        tx: &mut Transaction<'_>,
        meta: &mut MetaRow,
        ctx: &Context,
    ) -> Result<WaitCancelled, Failure> {
        let Some(member) = tx.get(&lock_member_key(&self.key, self.id))? else {
            if let Some(end) = remembered(tx, self.id, self.key.as_str())? {
                return Ok(answer(end));
            }
            remember(tx, meta, ctx, self.id, &End::Cancelled)?;
            return Ok(WaitCancelled::Cancelled);
        };
        let live = member.is_live(ctx.now);
        if live && member.fencing_token().is_some() {
            return Ok(WaitCancelled::Holding(member));
        }
        let why = if live {
            End::Cancelled
        } else {
            member.overdue()
        };
        let mut lock = lock_row(tx, &self.key)?;
        end(tx, meta, ctx, &mut lock, &member, why.clone())?;
        hand_over(tx, meta, ctx, &mut lock)?;
        Ok(answer(why))
    }
}

fn answer(end: End) -> WaitCancelled {
    match end {
        End::Cancelled => WaitCancelled::Cancelled,
        end => WaitCancelled::Over(end),
    }
}
