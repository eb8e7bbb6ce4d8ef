//! Claim: take items to work on.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::{ClaimedItem, Item, ItemClaim, ItemId, ItemState, Queue, row};
use crate::command::Validate;
use crate::context::Context;
use crate::figure::Figure;
use crate::id::{Name, Owner};
use crate::limits::{CLAIM_BYTES_MAX, CLAIM_ITEMS_MAX, LIVENESS_BYTES_MAX};
use crate::refusal::{Broken, Failure, InvalidArgument};
use crate::tables::{Key, QueueReady, item_key, payload_key, queue_key};
use crate::transaction::Transaction;

/// Takes up to `max` ready items for `ttl_ms`.
///
/// Promises that nobody else has a live claim on them; all items of one claim share its fencing
/// token. Answers fewer items, or none, when there are no more ready, or when their payloads reach
/// [`crate::limits::CLAIM_BYTES_MAX`]; a queue that does not exist has none. An item that has used
/// up its attempts is never claimed. A retry claims other items: give the command a request id,
/// then it gets the same ones again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The queue.
    pub queue: Name,
    /// Who will work on them.
    pub owner: Owner,
    /// How long until they become visible again, unless renewed.
    pub ttl_ms: u64,
    /// Items at most, 1 to [`crate::limits::CLAIM_ITEMS_MAX`].
    pub max: u32,
}

impl Validate for Claim {
    fn validate(&self) -> Result<(), InvalidArgument> {
        InvalidArgument::check_ttl(self.ttl_ms)?;
        InvalidArgument::check_count("max", self.max.into(), 1, CLAIM_ITEMS_MAX.into())?;
        if let Some(liveness) = &self.owner.liveness {
            InvalidArgument::check_bytes("owner.liveness", liveness.len(), LIVENESS_BYTES_MAX)?;
        }
        Ok(())
    }
}

impl Claim {
    pub(super) fn apply(
        &self,
        tx: &mut Transaction<'_>,
        ctx: &Context,
    ) -> Result<Vec<ClaimedItem>, Failure> {
        let queue = tx.get(&queue_key(&self.queue))?;
        let Some(mut queue) = queue.filter(|queue| queue.ready > 0) else {
            return Ok(Vec::new());
        };
        let mut claimed = Vec::new();
        let mut bytes = 0;
        for item_id in self.first_ready(tx)? {
            let item = self.ready_item(tx, item_id)?;
            bytes += item.payload_bytes;
            if !claimed.is_empty() && bytes > CLAIM_BYTES_MAX as u64 {
                break;
            }
            claimed.push(self.take(tx, ctx, &mut queue, item)?);
        }
        row::store(tx, ctx, queue)?;
        Ok(claimed)
    }

    fn first_ready(&self, tx: &Transaction<'_>) -> Result<Vec<ItemId>, Broken> {
        let first = Key::<QueueReady>::first().name(&self.queue);
        let end = Key::<QueueReady>::first().name(&self.queue).end();
        let mut ready = Vec::new();
        tx.scan(&first, &end, &mut |_, item_id| {
            ready.push(item_id);
            if ready.len() == self.max as usize {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        if ready.is_empty() {
            return Err(Broken(format!(
                "queue {} counts ready items and has none",
                self.queue
            )));
        }
        Ok(ready)
    }

    fn ready_item(&self, tx: &mut Transaction<'_>, item_id: ItemId) -> Result<Item, Broken> {
        tx.get(&item_key(&self.queue, item_id))?
            .filter(|item| item.state == ItemState::Ready && !item.is_used_up())
            .ok_or_else(|| {
                let name = row::item_name(&self.queue, item_id);
                Broken(format!(
                    "item {name} is in the ready index and cannot be claimed"
                ))
            })
    }

    fn take(
        &self,
        tx: &mut Transaction<'_>,
        ctx: &Context,
        queue: &mut Queue,
        mut item: Item,
    ) -> Result<ClaimedItem, Broken> {
        let payload = tx
            .get(&payload_key(&self.queue, item.item_id))?
            .ok_or_else(|| {
                let name = row::item_name(&self.queue, item.item_id);
                Broken(format!("item {name} has no payload"))
            })?;
        row::shift(tx, queue, &mut item, |item| {
            item.state = ItemState::Claimed;
            item.attempts = item.attempts.saturating_add(1);
            item.claim = Some(self.new_claim(ctx));
        })?;
        tx.count(Figure::Claimed);
        Ok(ClaimedItem { item, payload })
    }

    fn new_claim(&self, ctx: &Context) -> ItemClaim {
        let expires_at = ctx.now.plus(self.ttl_ms);
        ItemClaim {
            owner: self.owner.clone(),
            fencing_token: ctx.fencing_token(),
            ttl_ms: self.ttl_ms,
            claimed_at: ctx.now,
            expires_at,
            filed_at: expires_at,
        }
    }
}
