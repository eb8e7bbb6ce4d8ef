//! The rows of a queue, written together: counters, item, index rows and due entries.
//!
//! An item's state decides which rows it has besides its own: [`enter`] writes them and counts,
//! [`leave`] takes them back. Every operation is a walk from one state to another between the two,
//! so that no rule can forget a row. Whoever loaded the queue row writes it once, with [`store`].

use super::due::{dedupe_subject, item_subject};
use super::{Item, ItemId, ItemState, Queue};
use crate::context::Context;
use crate::fencing::FencingToken;
use crate::id::Name;
use crate::limits::{DEDUPE_RETENTION_MS, DELAY_MS_MAX};
use crate::notice::Notice;
use crate::refusal::{Broken, Failure, InvalidArgument, Refusal, Subject};
use crate::tables::{
    DedupeRow, Due, DueKind, Key, dead_key, dedupe_key, due_key, item_key, payload_key, queue_key,
    ready_key,
};
use crate::transaction::Transaction;

/// Refuses a delay over the limit.
pub(super) fn check_delay(delay_ms: u64) -> Result<(), InvalidArgument> {
    if delay_ms <= DELAY_MS_MAX {
        return Ok(());
    }
    let limit = format!("0 to {DELAY_MS_MAX} ms");
    Err(InvalidArgument::new(
        "delay_ms",
        "is out of range",
        limit,
        format!("{delay_ms} ms"),
    ))
}

/// An item's name in refusals: `queue/item`.
pub(super) fn item_name(queue: &Name, item_id: ItemId) -> String {
    format!("{queue}/{item_id}")
}

/// The item, or `NotFound`.
pub(super) fn require_item(
    tx: &mut Transaction<'_>,
    queue: &Name,
    item_id: ItemId,
) -> Result<Item, Failure> {
    tx.get(&item_key(queue, item_id))?.ok_or_else(|| {
        Failure::Refused(Refusal::NotFound {
            subject: Subject::Item,
            name: item_name(queue, item_id),
        })
    })
}

/// The item whose live claim has `token`; says what became of the claim otherwise.
pub(crate) fn require_claim(
    tx: &mut Transaction<'_>,
    ctx: &Context,
    queue: &Name,
    item_id: ItemId,
    token: FencingToken,
) -> Result<Item, Failure> {
    let item = require_item(tx, queue, item_id)?;
    let name = || item_name(queue, item_id);
    match &item.claim {
        Some(claim) if claim.fencing_token == token => {
            if claim.is_live(ctx.now) {
                return Ok(item);
            }
            Err(Failure::Refused(Refusal::Expired {
                subject: Subject::Item,
                name: name(),
                token,
                expired_at: claim.expires_at,
            }))
        }
        _ => Err(Failure::Refused(Refusal::Fenced {
            subject: Subject::Item,
            name: name(),
            presented: token,
            current: item.live_claim(ctx.now).map(|claim| claim.fencing_token),
        })),
    }
}

/// All grants of an entry share its fencing token, so that one entry may grant an item once: what a
/// composite has claimed, it cannot give back for another claim. It can settle it as done.
pub(super) fn require_earlier_claim(
    ctx: &Context,
    queue: &Name,
    item: &Item,
) -> Result<(), Refusal> {
    let claim = item.claim.as_ref();
    if claim.is_none_or(|claim| claim.fencing_token != ctx.fencing_token()) {
        return Ok(());
    }
    Err(Refusal::Conflict {
        subject: Subject::Item,
        name: item_name(queue, item.item_id),
        problem: "a step before this one claimed it; a composite cannot give back what it claims"
            .to_owned(),
    })
}

/// The queue row of an item or dedupe key that exists; the queue is never forgotten before them.
pub(super) fn load(tx: &mut Transaction<'_>, queue: &Name) -> Result<Queue, Broken> {
    tx.get(&queue_key(queue))?
        .ok_or_else(|| Broken(format!("queue {queue} has items or dedupe keys and no row")))
}

/// Writes the counters.
pub(super) fn store(
    tx: &mut Transaction<'_>,
    ctx: &Context,
    mut queue: Queue,
) -> Result<(), Broken> {
    queue.changed_at = ctx.now;
    tx.put(&queue_key(&queue.name), &queue)
}

/// Takes an item from one state to another and writes it; `change` says to which.
pub(super) fn shift(
    tx: &mut Transaction<'_>,
    queue: &mut Queue,
    item: &mut Item,
    change: impl FnOnce(&mut Item),
) -> Result<(), Broken> {
    leave(tx, queue, item)?;
    change(item);
    enter(tx, queue, item)?;
    tx.put(&item_key(&queue.name, item.item_id), item)
}

/// Counts an item in its state, writes the rows that the state asks for, tells who waits for it.
pub(super) fn enter(
    tx: &mut Transaction<'_>,
    queue: &mut Queue,
    item: &Item,
) -> Result<(), Broken> {
    let name = queue.name.clone();
    match item.state {
        ItemState::Ready => {
            if queue.ready == 0 {
                tx.notify(Notice::QueueReady {
                    queue: name.clone(),
                });
            }
            queue.ready += 1;
            tx.put(
                &ready_key(&name, item.priority, item.item_id),
                &item.item_id,
            )
        }
        ItemState::Delayed => {
            queue.delayed += 1;
            tx.put(&deadline_key(&name, item)?, &())
        }
        ItemState::Claimed => {
            queue.claimed += 1;
            tx.put(&deadline_key(&name, item)?, &())
        }
        ItemState::Dead => {
            queue.dead += 1;
            tx.put(&dead_key(&name, item.item_id), &item.item_id)?;
            tx.notify(Notice::ItemSettled {
                queue: name,
                item_id: item.item_id,
            });
            Ok(())
        }
    }
}

/// The inverse of [`enter`]; the item's own row stays.
fn leave(tx: &mut Transaction<'_>, queue: &mut Queue, item: &Item) -> Result<(), Broken> {
    let name = queue.name.clone();
    let counter = match item.state {
        ItemState::Ready => &mut queue.ready,
        ItemState::Delayed => &mut queue.delayed,
        ItemState::Claimed => &mut queue.claimed,
        ItemState::Dead => &mut queue.dead,
    };
    count_down(counter, &name)?;
    match item.state {
        ItemState::Ready => tx.delete(&ready_key(&name, item.priority, item.item_id)),
        ItemState::Delayed | ItemState::Claimed => tx.delete(&deadline_key(&name, item)?),
        ItemState::Dead => tx.delete(&dead_key(&name, item.item_id)),
    }
}

/// Where the due entry of a delayed or claimed item is filed.
fn deadline_key(queue: &Name, item: &Item) -> Result<Key<Due>, Broken> {
    let subject = item_subject(queue, item.item_id);
    match (item.state, &item.claim) {
        (ItemState::Delayed, None) => Ok(due_key(item.available_at, DueKind::QueueDelay, &subject)),
        (ItemState::Claimed, Some(claim)) => {
            Ok(due_key(claim.filed_at, DueKind::QueueClaim, &subject))
        }
        _ => Err(Broken(format!(
            "item {} is {} and its claim does not fit that",
            item_name(queue, item.item_id),
            item.state.as_str()
        ))),
    }
}

/// Takes an item out of its queue; its dedupe key is remembered for a while.
pub(super) fn remove(
    tx: &mut Transaction<'_>,
    ctx: &Context,
    queue: &mut Queue,
    item: &Item,
) -> Result<(), Broken> {
    leave(tx, queue, item)?;
    tx.delete(&item_key(&queue.name, item.item_id))?;
    tx.delete(&payload_key(&queue.name, item.item_id))?;
    if let Some(key) = &item.dedupe_key {
        let row = DedupeRow {
            item_id: item.item_id,
            present: false,
        };
        tx.put(&dedupe_key(&queue.name, key), &row)?;
        let subject = dedupe_subject(&queue.name, key);
        let at = ctx.now.plus(DEDUPE_RETENTION_MS);
        tx.put(&due_key(at, DueKind::QueueDedupe, &subject), &())?;
    }
    tx.notify(Notice::ItemSettled {
        queue: queue.name.clone(),
        item_id: item.item_id,
    });
    Ok(())
}

/// Lowers a counter; a counter at 0 while there is a row to count is damage.
pub(super) fn count_down(counter: &mut u64, queue: &Name) -> Result<(), Broken> {
    *counter = counter
        .checked_sub(1)
        .ok_or_else(|| Broken(format!("queue {queue} has more rows than it counted")))?;
    Ok(())
}
