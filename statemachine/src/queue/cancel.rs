//! Cancel: take an item out that nobody works on.

use serde::{Deserialize, Serialize};

use super::{Item, ItemId, row};
use crate::command::Validate;
use crate::context::Context;
use crate::figure::Figure;
use crate::id::Name;
use crate::refusal::{Failure, Refusal, Subject};
use crate::transaction::Transaction;

/// Removes an item that is ready, delayed or dead, and answers it.
///
/// Refuses with `Conflict` when the item is claimed, with `NotFound` when it is gone. A retry finds
/// it gone; give the command a request id to get the first answer again. Watchers get
/// `ItemSettled`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    /// The queue.
    pub queue: Name,
    /// The item.
    pub item_id: ItemId,
}

impl Validate for Cancel {}

impl Cancel {
    pub(super) fn apply(&self, tx: &mut Transaction<'_>, ctx: &Context) -> Result<Item, Failure> {
        let item = row::require_item(tx, &self.queue, self.item_id)?;
        if let Some(claim) = item.live_claim(ctx.now) {
            return Err(Failure::Refused(Refusal::Conflict {
                subject: Subject::Item,
                name: row::item_name(&self.queue, self.item_id),
                problem: format!(
                    "it is claimed by {} until cluster time {} ms; cancel it after that",
                    claim.owner.owner_id, claim.expires_at.0
                ),
            }));
        }
        let mut queue = row::load(tx, &self.queue)?;
        row::remove(tx, ctx, &mut queue, &item)?;
        if item.claim.is_some() {
            tx.count(Figure::ClaimExpired { again: false });
        }
        row::store(tx, ctx, queue)?;
        Ok(item.seen_at(ctx.now))
    }
}
