//! Rows of work queues.

use serde::{Deserialize, Serialize};

use super::{Key, Table};
use crate::id::Name;
use crate::queue::{Item, ItemId, Queue};

/// Queues with their counters.
pub struct Queues;

impl Table for Queues {
    const TAG: u8 = 0x20;
    const NAME: &'static str = "queues";
    type Row = Queue;
}

/// Key of a queue.
#[must_use]
pub fn queue_key(queue: &Name) -> Key<Queues> {
    Key::first().text(queue.as_str())
}

/// Items without their payloads.
pub struct QueueItems;

impl Table for QueueItems {
    const TAG: u8 = 0x21;
    const NAME: &'static str = "queue_items";
    type Row = Item;
}

/// Key of an item.
#[must_use]
pub fn item_key(queue: &Name, item_id: ItemId) -> Key<QueueItems> {
    Key::first().name(queue).number(item_id.0)
}

/// What to work on; written once.
pub struct QueuePayloads;

impl Table for QueuePayloads {
    const TAG: u8 = 0x22;
    const NAME: &'static str = "queue_payloads";
    type Row = Vec<u8>;
}

/// Key of an item's payload.
#[must_use]
pub fn payload_key(queue: &Name, item_id: ItemId) -> Key<QueuePayloads> {
    Key::first().name(queue).number(item_id.0)
}

/// Ready items in the order in which they are claimed.
pub struct QueueReady;

impl Table for QueueReady {
    const TAG: u8 = 0x23;
    const NAME: &'static str = "queue_ready";
    /// The item.
    type Row = ItemId;
}

/// Key of a ready item: higher priority first, then the older.
#[must_use]
pub fn ready_key(queue: &Name, priority: u8, item_id: ItemId) -> Key<QueueReady> {
    Key::first().name(queue).byte(!priority).number(item_id.0)
}

/// Dedupe keys that are remembered.
pub struct QueueDedupe;

/// A remembered dedupe key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DedupeRow {
    /// The item that was pushed under it.
    pub item_id: ItemId,
    /// Whether the item is still in the queue; if not, a due entry will drop this row.
    pub present: bool,
}

impl Table for QueueDedupe {
    const TAG: u8 = 0x24;
    const NAME: &'static str = "queue_dedupe";
    type Row = DedupeRow;
}

/// Key of a dedupe key.
#[must_use]
pub fn dedupe_key(queue: &Name, key: &Name) -> Key<QueueDedupe> {
    Key::first().name(queue).text(key.as_str())
}

/// Dead items in id order.
pub struct QueueDead;

impl Table for QueueDead {
    const TAG: u8 = 0x25;
    const NAME: &'static str = "queue_dead";
    /// The item.
    type Row = ItemId;
}

/// Key of a dead item.
#[must_use]
pub fn dead_key(queue: &Name, item_id: ItemId) -> Key<QueueDead> {
    Key::first().name(queue).number(item_id.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    fn name(text: &str) -> Name {
        Name::parse("queue", text).expect("a valid name")
    }

    #[test]
    fn ready_keys_sort_by_priority_down_and_then_by_age() {
        let key = |priority, id| ready_key(&name("q"), priority, ItemId(id)).bytes().to_vec();
        let order = [
            key(255, 900),
            key(7, 1),
            key(7, 2),
            key(7, 256),
            key(0, 0),
            key(0, 1),
        ];
        assert!(order.is_sorted(), "{order:?}");
    }

    #[test]
    fn rows_of_one_queue_stay_apart_from_those_of_a_queue_with_a_longer_name() {
        let end = Key::<QueueItems>::first().name(&name("q")).end();
        let last = item_key(&name("q"), ItemId(u64::MAX));
        let other = item_key(&name("q!"), ItemId(0));
        assert!(last.bytes() < end.bytes() && end.bytes() <= other.bytes());
    }

    #[test]
    fn a_dedupe_row_is_read_as_it_was_written() {
        let row = DedupeRow {
            item_id: ItemId(1 << 40),
            present: true,
        };
        let bytes = codec::encode(QueueDedupe::TAG.into(), &row);
        assert_eq!(
            codec::decode::<DedupeRow>(QueueDedupe::TAG.into(), &bytes),
            Ok(row)
        );
    }
}
