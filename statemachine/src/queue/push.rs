//! Push: put an item into a queue.

use serde::{Deserialize, Serialize};

use super::{Item, ItemId, ItemState, Queue, due, row};
use crate::command::Validate;
use crate::context::Context;
use crate::id::Name;
use crate::limits::{DEDUPE_KEYS_MAX, PAYLOAD_BYTES_MAX, QUEUE_ITEMS_MAX, QUEUES_MAX};
use crate::refusal::{Broken, Failure, InvalidArgument, Refusal};
use crate::tables::{DedupeRow, MetaRow, dedupe_key, item_key, payload_key, queue_key};
use crate::transaction::Transaction;

/// Puts an item into `queue`, making the queue if need be.
///
/// Promises that an item with the same `dedupe_key` is in the queue once, and that the key is
/// remembered for [`crate::limits::DEDUPE_RETENTION_MS`] after the item has left it. Refuses with
/// `Exhausted` when the queue has no room for the item or its key, or there are too many queues. A
/// retry with `dedupe_key` gets the first item's id with `duplicate` set; without one, give the
/// command a request id. Those who wait for the queue get `QueueReady` when it had nothing ready
/// before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Push {
    /// The queue.
    pub queue: Name,
    /// What to work on.
    pub payload: Vec<u8>,
    /// Guards against a second push.
    pub dedupe_key: Option<Name>,
    /// Not before so many milliseconds from now.
    pub delay_ms: u64,
    /// Higher is claimed first; 0 is the usual.
    pub priority: u8,
    /// Dead after so many claims; 0 for no bound.
    pub max_attempts: u32,
}

/// The answer to a push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pushed {
    /// The item.
    pub item_id: ItemId,
    /// Whether the dedupe key was known; the item may be gone already.
    pub duplicate: bool,
}

impl Validate for Push {
    fn validate(&self) -> Result<(), InvalidArgument> {
        InvalidArgument::check_bytes("payload", self.payload.len(), PAYLOAD_BYTES_MAX)?;
        row::check_delay(self.delay_ms)
    }
}

impl Push {
    pub(super) fn apply(
        &self,
        tx: &mut Transaction<'_>,
        meta: &mut MetaRow,
        ctx: &Context,
    ) -> Result<Pushed, Failure> {
        if let Some(known) = self.known_item(tx)? {
            return Ok(Pushed {
                item_id: known,
                duplicate: true,
            });
        }
        let mut queue = match tx.get(&queue_key(&self.queue))? {
            Some(queue) => queue,
            None => self.new_queue(tx, meta, ctx)?,
        };
        self.require_room(&queue)?;
        let item = self.new_item(ctx);
        self.write(tx, &mut queue, &item)?;
        row::store(tx, ctx, queue)?;
        Ok(Pushed {
            item_id: item.item_id,
            duplicate: false,
        })
    }

    fn known_item(&self, tx: &mut Transaction<'_>) -> Result<Option<ItemId>, Broken> {
        let Some(key) = &self.dedupe_key else {
            return Ok(None);
        };
        Ok(tx
            .get(&dedupe_key(&self.queue, key))?
            .map(|row| row.item_id))
    }

    /// The row itself is written at the end, with the item counted.
    fn new_queue(
        &self,
        tx: &mut Transaction<'_>,
        meta: &mut MetaRow,
        ctx: &Context,
    ) -> Result<Queue, Failure> {
        Refusal::check_room(|| "queues".to_owned(), meta.queues, QUEUES_MAX)?;
        meta.queues += 1;
        let queue = Queue {
            name: self.queue.clone(),
            created_at: ctx.now,
            changed_at: ctx.now,
            ready: 0,
            delayed: 0,
            claimed: 0,
            dead: 0,
            done: 0,
            dedupe_keys: 0,
        };
        due::file_idle(tx, &queue, ctx.now)?;
        Ok(queue)
    }

    fn require_room(&self, queue: &Queue) -> Result<(), Refusal> {
        let items = || format!("items in queue {}", self.queue);
        Refusal::check_room(items, queue.items(), QUEUE_ITEMS_MAX)?;
        if self.dedupe_key.is_some() {
            let keys = || format!("dedupe keys remembered by queue {}", self.queue);
            Refusal::check_room(keys, queue.dedupe_keys, DEDUPE_KEYS_MAX)?;
        }
        Ok(())
    }

    fn new_item(&self, ctx: &Context) -> Item {
        let mut item = Item {
            item_id: ItemId(ctx.number()),
            state: ItemState::Ready,
            priority: self.priority,
            attempts: 0,
            max_attempts: self.max_attempts,
            dedupe_key: self.dedupe_key.clone(),
            pushed_at: ctx.now,
            available_at: ctx.now,
            payload_bytes: self.payload.len() as u64,
            claim: None,
            note: String::new(),
        };
        item.make_available(ctx.now, self.delay_ms);
        item
    }

    fn write(
        &self,
        tx: &mut Transaction<'_>,
        queue: &mut Queue,
        item: &Item,
    ) -> Result<(), Broken> {
        tx.put_new(&item_key(&self.queue, item.item_id), item)?;
        tx.put_new(&payload_key(&self.queue, item.item_id), &self.payload)?;
        if let Some(key) = &self.dedupe_key {
            let row = DedupeRow {
                item_id: item.item_id,
                present: true,
            };
            tx.put(&dedupe_key(&self.queue, key), &row)?;
            queue.dedupe_keys += 1;
        }
        row::enter(tx, queue, item)
    }
}
