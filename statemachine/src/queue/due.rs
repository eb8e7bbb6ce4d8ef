//! What the sweep does with due queue rows.
//!
//! A due entry goes when its subject goes, so an entry without its subject is damage. One is early
//! on purpose: a renewed claim leaves its entry where it is, and is filed again from here.

use super::{Item, ItemId, ItemState, Queue, renew, row};
use crate::context::Context;
use crate::figure::Figure;
use crate::id::Name;
use crate::limits::QUEUE_IDLE_RETENTION_MS;
use crate::refusal::Broken;
use crate::tables::{DueKind, MetaRow, dedupe_key, due_key, item_key, queue_key};
use crate::transaction::Transaction;

/// Subject of an item's due entries.
pub(super) fn item_subject(queue: &Name, item_id: ItemId) -> Vec<u8> {
    subject(queue, &item_id.0.to_be_bytes())
}

/// Subject of a dedupe key's due entry.
pub(super) fn dedupe_subject(queue: &Name, key: &Name) -> Vec<u8> {
    subject(queue, key.as_str().as_bytes())
}

fn subject(queue: &Name, rest: &[u8]) -> Vec<u8> {
    let name = queue.as_str().as_bytes();
    let mut subject = Vec::with_capacity(name.len() + 1 + rest.len());
    subject.extend_from_slice(name);
    subject.push(0);
    subject.extend_from_slice(rest);
    subject
}

/// The claim's due entry came by: end it, or file it again if it was renewed.
pub(crate) fn expire_claim_due(
    tx: &mut Transaction<'_>,
    ctx: &Context,
    queue: &Name,
    item_id: ItemId,
) -> Result<(), Broken> {
    let mut item = subject_item(tx, queue, item_id, ItemState::Claimed)?;
    if item.live_claim(ctx.now).is_some() {
        renew::refile(tx, queue, &mut item)?;
        return tx.put(&item_key(queue, item_id), &item);
    }
    let mut row = row::load(tx, queue)?;
    row::shift(tx, &mut row, &mut item, |item| item.expire_claim(ctx.now))?;
    let again = item.state != ItemState::Dead;
    tx.count(Figure::ClaimExpired { again });
    row::store(tx, ctx, row)
}

/// The delay is over: the item is ready.
pub(crate) fn release_delayed_due(
    tx: &mut Transaction<'_>,
    ctx: &Context,
    queue: &Name,
    item_id: ItemId,
) -> Result<(), Broken> {
    let mut item = subject_item(tx, queue, item_id, ItemState::Delayed)?;
    if ctx.now < item.available_at {
        let name = row::item_name(queue, item_id);
        return Err(Broken(format!(
            "the due entry of delayed item {name} is early"
        )));
    }
    let mut row = row::load(tx, queue)?;
    row::shift(tx, &mut row, &mut item, |item| {
        item.state = ItemState::Ready
    })?;
    row::store(tx, ctx, row)
}

/// The dedupe key was remembered for long enough.
pub(crate) fn forget_dedupe_due(
    tx: &mut Transaction<'_>,
    ctx: &Context,
    queue: &Name,
    key: Name,
) -> Result<(), Broken> {
    let row_key = dedupe_key(queue, &key);
    match tx.get(&row_key)? {
        Some(row) if !row.present => {}
        Some(row) => {
            return Err(Broken(format!(
                "dedupe key {key} has a due entry while item {} is in the queue",
                row::item_name(queue, row.item_id)
            )));
        }
        None => {
            return Err(Broken(format!(
                "dedupe key {key} of queue {queue} has a due entry and no row"
            )));
        }
    }
    tx.delete(&row_key)?;
    let mut row = row::load(tx, queue)?;
    row::count_down(&mut row.dedupe_keys, queue)?;
    row::store(tx, ctx, row)
}

/// The queue's due entry came by: forget the queue if it was empty and idle for the whole
/// retention.
pub(crate) fn forget_idle_due(
    tx: &mut Transaction<'_>,
    meta: &mut MetaRow,
    ctx: &Context,
    queue: &Name,
) -> Result<(), Broken> {
    let row_key = queue_key(queue);
    let Some(row) = tx.get(&row_key)? else {
        return Err(Broken(format!("queue {queue} has a due entry and no row")));
    };
    let empty = row.items() == 0 && row.dedupe_keys == 0;
    let from = if empty { row.changed_at } else { ctx.now };
    if ctx.now.since(from) >= QUEUE_IDLE_RETENTION_MS {
        assert!(meta.queues > 0, "a queue is counted when it is made");
        meta.queues -= 1;
        return tx.delete(&row_key);
    }
    file_idle(tx, &row, from)
}

/// Files the queue's due entry: there is exactly one as long as there is a queue row.
pub(super) fn file_idle(
    tx: &mut Transaction<'_>,
    queue: &Queue,
    from: crate::Timestamp,
) -> Result<(), Broken> {
    let at = from.plus(QUEUE_IDLE_RETENTION_MS);
    tx.put(
        &due_key(at, DueKind::QueueIdle, queue.name.as_str().as_bytes()),
        &(),
    )
}

/// The item that a due entry is about.
fn subject_item(
    tx: &mut Transaction<'_>,
    queue: &Name,
    item_id: ItemId,
    state: ItemState,
) -> Result<Item, Broken> {
    let found = tx.get(&item_key(queue, item_id))?;
    let name = || row::item_name(queue, item_id);
    match found {
        Some(item) if item.state == state => Ok(item),
        Some(item) => Err(Broken(format!(
            "item {} has a due entry of a {} item and is {}",
            name(),
            state.as_str(),
            item.state.as_str()
        ))),
        None => Err(Broken(format!(
            "item {} has a due entry and no row",
            name()
        ))),
    }
}
