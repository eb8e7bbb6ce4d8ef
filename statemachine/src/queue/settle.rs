//! Settle: say how the work on an item ended.

use serde::{Deserialize, Serialize};

use super::{Item, ItemId, ItemState, row};
use crate::command::Validate;
use crate::context::Context;
use crate::fencing::FencingToken;
use crate::figure::Figure;
use crate::id::Name;
use crate::limits::NOTE_BYTES_MAX;
use crate::refusal::{Failure, InvalidArgument};
use crate::transaction::Transaction;

/// Ends a claim with an outcome.
///
/// Promises that only the live claim's token settles an item. Refuses with `Expired` or `Fenced`
/// when the claim is over, with `NotFound` when the item is gone, and with `Conflict` when a
/// composite would give back what one of its own steps claimed. A retry finds the claim over: give
/// the command a request id, then it gets the first answer again. Watchers get `ItemSettled` (done
/// and dead) or `QueueReady`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settle {
    /// The queue.
    pub queue: Name,
    /// The item.
    pub item_id: ItemId,
    /// The claim.
    pub fencing_token: FencingToken,
    /// How it ended.
    pub outcome: Outcome,
}

/// How the work on an item ended. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Done: the item leaves the queue.
    Done,
    /// Try again, after a delay; dead instead when its attempts are used up.
    Retry {
        /// Milliseconds from now.
        delay_ms: u64,
        /// Why, for people.
        note: String,
    },
    /// Give it up.
    Dead {
        /// Why, for people.
        note: String,
    },
}

/// Where the item is now. Variants are only ever appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Settled {
    /// Gone, done.
    Done,
    /// Waiting to be claimed again.
    Retried,
    /// Among the dead.
    Dead,
}

impl Validate for Settle {
    fn validate(&self) -> Result<(), InvalidArgument> {
        match &self.outcome {
            Outcome::Done => Ok(()),
            Outcome::Retry { delay_ms, note } => {
                row::check_delay(*delay_ms)?;
                InvalidArgument::check_bytes("note", note.len(), NOTE_BYTES_MAX)
            }
            Outcome::Dead { note } => {
                InvalidArgument::check_bytes("note", note.len(), NOTE_BYTES_MAX)
            }
        }
    }
}

impl Settle {
    pub(super) fn apply(
        &self,
        tx: &mut Transaction<'_>,
        ctx: &Context,
    ) -> Result<Settled, Failure> {
        let mut item = row::require_claim(tx, ctx, &self.queue, self.item_id, self.fencing_token)?;
        let mut queue = row::load(tx, &self.queue)?;
        let settled = match &self.outcome {
            Outcome::Done => {
                queue.done += 1;
                row::remove(tx, ctx, &mut queue, &item)?;
                Settled::Done
            }
            kept => {
                row::require_earlier_claim(ctx, &self.queue, &item)?;
                row::shift(tx, &mut queue, &mut item, |item| kept.change(ctx, item))?;
                if item.state == ItemState::Dead {
                    Settled::Dead
                } else {
                    Settled::Retried
                }
            }
        };
        row::store(tx, ctx, queue)?;
        tx.count(Figure::ClaimSettled(settled));
        Ok(settled)
    }
}

impl Outcome {
    /// What becomes of an item that stays in its queue.
    fn change(&self, ctx: &Context, item: &mut Item) {
        match self {
            Self::Done => {}
            Self::Retry { delay_ms, note } => {
                item.note.clone_from(note);
                item.give_back(ctx.now, *delay_ms);
            }
            Self::Dead { note } => {
                item.note.clone_from(note);
                item.bury();
            }
        }
    }
}
