//! Requeue: give a dead item another life.

use serde::{Deserialize, Serialize};

use super::{Item, ItemId, ItemState, row};
use crate::command::Validate;
use crate::context::Context;
use crate::figure::Figure;
use crate::id::Name;
use crate::refusal::{Failure, Refusal, Subject};
use crate::transaction::Transaction;

/// Makes a dead item ready again with its attempts at 0, and answers it.
///
/// Refuses with `Conflict` when the item is not dead, with `NotFound` when it is gone. A retry
/// finds it ready, which is a `Conflict`; give the command a request id to get the first answer
/// again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requeue {
    /// The queue.
    pub queue: Name,
    /// The item.
    pub item_id: ItemId,
}

impl Validate for Requeue {}

impl Requeue {
    pub(super) fn apply(&self, tx: &mut Transaction<'_>, ctx: &Context) -> Result<Item, Failure> {
        let mut item = row::require_item(tx, &self.queue, self.item_id)?;
        let state = item.clone().seen_at(ctx.now).state;
        if state != ItemState::Dead {
            return Err(Failure::Refused(Refusal::Conflict {
                subject: Subject::Item,
                name: row::item_name(&self.queue, self.item_id),
                problem: format!("it is {}; only a dead item can be requeued", state.as_str()),
            }));
        }
        row::require_earlier_claim(ctx, &self.queue, &item)?;
        let mut queue = row::load(tx, &self.queue)?;
        if item.claim.is_some() {
            tx.count(Figure::ClaimExpired { again: true });
        }
        row::shift(tx, &mut queue, &mut item, |item| item.revive(ctx.now))?;
        row::store(tx, ctx, queue)?;
        Ok(item)
    }
}
