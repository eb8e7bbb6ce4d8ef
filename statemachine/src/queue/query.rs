//! Reading queues and items.
//!
//! Items are shown as they are stored: a claim whose time is over stays visible until the sweep has
//! come by, and the reader's instant plays no part.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::{ClaimedItem, Item, ItemId, ItemState, Queue, row};
use crate::id::Name;
use crate::limits::PAGE_ROWS_MAX;
use crate::query::{Page, PageLimit, listed};
use crate::refusal::{Broken, InvalidArgument};
use crate::tables::{
    Key, QueueDead, QueueItems, QueueReady, Queues, Table, dead_key, item_key, payload_key,
    queue_key, ready_key,
};
use crate::transaction::{read, read_range};
use crate::view::View;

/// One item with its payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Get {
    /// The queue.
    pub queue: Name,
    /// The item.
    pub item_id: ItemId,
}

/// Queues with their counters, in name order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// Only names that start with this; empty for all.
    pub prefix: String,
    /// Only names after this one.
    pub after: Option<Name>,
    /// Rows at most; 0 for the limit.
    pub limit: u32,
}

/// Items of one queue with their payloads. Ready ones come in the order in which they would be
/// claimed, all others in id order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListItems {
    /// The queue.
    pub queue: Name,
    /// Only items in this state; ready and dead ones cost what they are, others a walk over all.
    pub state: Option<ItemState>,
    /// Only items behind this one in the listing's order.
    pub after: Option<ItemId>,
    /// Rows at most; 0 for the limit.
    pub limit: u32,
}

/// What to read. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// See [`Get`].
    Get(Get),
    /// See [`List`].
    List(List),
    /// See [`ListItems`].
    ListItems(ListItems),
}

/// What was read. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Of [`Get`].
    Get(Option<ClaimedItem>),
    /// Of [`List`].
    List(Page<Queue>),
    /// Of [`ListItems`]: none if there is no such queue. `next` is the last item's id.
    ListItems(Option<Page<ClaimedItem>>),
}

pub(crate) fn validate(query: &Query) -> Result<(), InvalidArgument> {
    match query {
        Query::List(list) => crate::query::check_prefix(&list.prefix),
        Query::Get(_) | Query::ListItems(_) => Ok(()),
    }
}

pub(crate) fn query(view: &dyn View, query: &Query) -> Result<Answer, Broken> {
    match query {
        Query::Get(get) => read_item(view, &get.queue, get.item_id).map(Answer::Get),
        Query::List(list) => list_page(view, list).map(Answer::List),
        Query::ListItems(list) => {
            if read(view, &queue_key(&list.queue))?.is_none() {
                return Ok(Answer::ListItems(None));
            }
            list.page(view).map(Some).map(Answer::ListItems)
        }
    }
}

fn read_item(
    view: &dyn View,
    queue: &Name,
    item_id: ItemId,
) -> Result<Option<ClaimedItem>, Broken> {
    match read(view, &item_key(queue, item_id))? {
        Some(item) => with_payload(view, queue, item).map(Some),
        None => Ok(None),
    }
}

fn with_payload(view: &dyn View, queue: &Name, item: Item) -> Result<ClaimedItem, Broken> {
    let payload = read(view, &payload_key(queue, item.item_id))?.ok_or_else(|| {
        Broken(format!(
            "item {} has no payload",
            row::item_name(queue, item.item_id)
        ))
    })?;
    Ok(ClaimedItem { item, payload })
}

fn list_page(view: &dyn View, list: &List) -> Result<Page<Queue>, Broken> {
    let prefix = Key::<Queues>::first().text(&list.prefix);
    let (from, end) = listed(prefix, list.after.as_ref().map(queue_key));
    let mut page = PageLimit::new(list.limit);
    let mut rows = Vec::new();
    let mut next = None;
    read_range::<Queues>(view, &from, &end, &mut |_, queue| {
        if page.is_full() {
            next = rows.last().map(|last: &Queue| last.name.to_string());
            return ControlFlow::Break(());
        }
        page.add(queue.name.as_str().len() + QUEUE_BYTES);
        rows.push(queue);
        ControlFlow::Continue(())
    })?;
    Ok(Page { rows, next })
}

impl ListItems {
    fn page(&self, view: &dyn View) -> Result<Page<ClaimedItem>, Broken> {
        let (items, more) = match self.state {
            Some(ItemState::Ready) => self.load(view, self.ready_ids(view)?)?,
            Some(ItemState::Dead) => self.load(view, self.dead_ids(view)?)?,
            _ => self.walk(view)?,
        };
        let next = items
            .last()
            .filter(|_| more)
            .map(|last| last.item_id.to_string());
        let mut rows = Vec::with_capacity(items.len());
        for item in items {
            rows.push(with_payload(view, &self.queue, item)?);
        }
        Ok(Page { rows, next })
    }

    /// Ids of ready items behind `after`, one more than a page may hold.
    ///
    /// The place of `after` in the order of claims follows from its priority, which its row tells,
    /// ready or not. If the item is gone, the listing goes on with what was pushed after it: right
    /// where items share one priority, else it may show again newer items of a higher priority and
    /// leave out older ones of a lower.
    fn ready_ids(&self, view: &dyn View) -> Result<Vec<ItemId>, Broken> {
        let mut from = Key::<QueueReady>::first().name(&self.queue);
        let end = Key::<QueueReady>::first().name(&self.queue).end();
        let mut newer_than = None;
        if let Some(after) = self.after {
            match read(view, &item_key(&self.queue, after))? {
                Some(item) => from = ready_key(&self.queue, item.priority, after).next(),
                None => newer_than = Some(after),
            }
        }
        ids(view, &from, &end, newer_than)
    }

    /// Ids of dead items behind `after`, one more than a page may hold.
    fn dead_ids(&self, view: &dyn View) -> Result<Vec<ItemId>, Broken> {
        let from = match self.after {
            Some(after) => dead_key(&self.queue, after).next(),
            None => Key::first().name(&self.queue),
        };
        let end = Key::<QueueDead>::first().name(&self.queue).end();
        ids(view, &from, &end, None)
    }

    /// The items that fit on the page, and whether there are more.
    fn load(&self, view: &dyn View, ids: Vec<ItemId>) -> Result<(Vec<Item>, bool), Broken> {
        let mut page = PageLimit::new(self.limit);
        let mut items = Vec::new();
        for item_id in ids {
            if page.is_full() {
                return Ok((items, true));
            }
            let item = read(view, &item_key(&self.queue, item_id))?.ok_or_else(|| {
                let name = row::item_name(&self.queue, item_id);
                Broken(format!("item {name} is in an index and has no row"))
            })?;
            page.add(shown_bytes(&item));
            items.push(item);
        }
        Ok((items, false))
    }

    /// Items in id order, and whether there are more.
    fn walk(&self, view: &dyn View) -> Result<(Vec<Item>, bool), Broken> {
        let from = match self.after {
            Some(after) => item_key(&self.queue, after).next(),
            None => Key::first().name(&self.queue),
        };
        let end = Key::<QueueItems>::first().name(&self.queue).end();
        let mut page = PageLimit::new(self.limit);
        let (mut items, mut more) = (Vec::new(), false);
        read_range::<QueueItems>(view, &from, &end, &mut |_, item| {
            if self.state.is_some_and(|state| state != item.state) {
                return ControlFlow::Continue(());
            }
            if page.is_full() {
                more = true;
                return ControlFlow::Break(());
            }
            page.add(shown_bytes(&item));
            items.push(item);
            ControlFlow::Continue(())
        })?;
        Ok((items, more))
    }
}

/// Item ids of an index range, one more than a page may hold.
fn ids<T: Table<Row = ItemId>>(
    view: &dyn View,
    from: &Key<T>,
    end: &Key<T>,
    newer_than: Option<ItemId>,
) -> Result<Vec<ItemId>, Broken> {
    let mut ids = Vec::new();
    read_range::<T>(view, from, end, &mut |_, item_id| {
        if newer_than.is_none_or(|after| item_id > after) {
            ids.push(item_id);
        }
        if ids.len() > PAGE_ROWS_MAX as usize {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    Ok(ids)
}

/// Bytes of a queue row without its name: nine numbers and some room.
const QUEUE_BYTES: usize = 96;

/// Bytes of an item without what varies, and some room.
const ITEM_BYTES: usize = 128;

/// What an item adds to a page.
fn shown_bytes(item: &Item) -> usize {
    let owner = item.claim.as_ref().map_or(0, |claim| {
        let liveness = claim.owner.liveness.as_ref().map_or(0, String::len);
        claim.owner.owner_id.as_str().len() + claim.owner.incarnation_id.as_str().len() + liveness
    });
    let dedupe_key = item.dedupe_key.as_ref().map_or(0, |key| key.as_str().len());
    ITEM_BYTES + owner + dedupe_key + item.note.len() + item.payload_bytes as usize
}
