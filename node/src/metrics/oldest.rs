//! How old the oldest item is that can be claimed, at a bounded cost.
//!
//! Ready items are indexed by queue and priority, oldest first, and an id is lower the older the
//! item. So one look at the front of each queue's each priority finds the oldest of all. A look
//! rests for [`REST_TIMES`] the time that it took: it is one percent of a thread at most, however
//! many queues there are and however often somebody asks.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use quorate_statemachine::queue::ItemId;
use quorate_statemachine::tables::{Key, PREFIX_BYTES, QueueItems, QueueReady, Table};
use quorate_statemachine::view::View;
use quorate_statemachine::{Timestamp, codec};

use crate::storage::StateReader;

/// A look rests for so many times the time that it took.
const REST_TIMES: u32 = 100;

/// Fronts that are looked at while entries wait: about a tenth of a millisecond.
const FRONTS_AT_A_TIME: usize = 256;

/// Fronts of one look: that of each of as many queues as there may be. What is behind is left out.
const FRONTS_MAX: usize = 100_000;

/// Bytes of priority and id at the end of a key.
const ORDER_BYTES: usize = 9;

/// What the last look found.
#[derive(Default)]
pub struct OldestItem {
    pushed_at: Option<Timestamp>,
    rests_until: Option<Instant>,
}

/// A key of the index of ready items and the id under it.
type Front = (Vec<u8>, ItemId);

impl OldestItem {
    /// When the oldest item was pushed that could be claimed at the last look; none if there was
    /// none.
    pub fn pushed_at(&mut self, state: &StateReader) -> Option<Timestamp> {
        let now = Instant::now();
        if self.rests_until.is_none_or(|until| until <= now) {
            self.pushed_at = look(state);
            let took = now.elapsed();
            self.rests_until =
                Some(now + took.saturating_mul(REST_TIMES) + Duration::from_millis(1));
        }
        self.pushed_at
    }
}

fn look(state: &StateReader) -> Option<Timestamp> {
    let mut from = Key::<QueueReady>::first().bytes().to_vec();
    let mut oldest: Option<Front> = None;
    for _ in 0..FRONTS_MAX / FRONTS_AT_A_TIME {
        let more = state.read(|view, _, _| fronts(view, &mut from, &mut oldest));
        if !more {
            break;
        }
    }
    let (key, id) = oldest?;
    state.read(|view, _, _| pushed_at(view, &key, id))
}

/// Goes on at `from` over some fronts; false at the end of the table.
fn fronts(view: &dyn View, from: &mut Vec<u8>, oldest: &mut Option<Front>) -> bool {
    let end = Key::<QueueReady>::first().end();
    for _ in 0..FRONTS_AT_A_TIME {
        let mut found = None;
        let scanned = view.scan(from, end.bytes(), &mut |key, row| {
            found = Some((key.to_vec(), codec::decode(QueueReady::TAG.into(), row)));
            ControlFlow::Break(())
        });
        // Damage is for the state machine to tell.
        let (Ok(()), Some((key, Ok(id)))) = (scanned, found) else {
            return false;
        };
        // The least key above all of the same queue and priority.
        from.clone_from(&key);
        from.truncate(key.len().saturating_sub(size_of::<u64>()));
        from.extend_from_slice(&u64::MAX.to_be_bytes());
        from.push(0);
        if oldest.as_ref().is_none_or(|(_, least)| id < *least) {
            *oldest = Some((key, id));
        }
    }
    true
}

/// None if the item has gone meanwhile.
fn pushed_at(view: &dyn View, ready_key: &[u8], id: ItemId) -> Option<Timestamp> {
    let queue = ready_key.get(PREFIX_BYTES..ready_key.len().checked_sub(ORDER_BYTES)?)?;
    let key = Key::<QueueItems>::first().raw(queue).number(id.0);
    let row = view.get(key.bytes()).ok()??;
    let item = codec::decode::<<QueueItems as Table>::Row>(QueueItems::TAG.into(), &row);
    item.ok().map(|item| item.pushed_at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_statemachine::queue::{Claim, Push};
    use quorate_statemachine::view::MemoryView;
    use quorate_statemachine::{Action, Command, Entry, Name, Owner, Principal, apply};

    fn name(text: &str) -> Name {
        Name::parse("queue", text).expect("a name")
    }

    fn push(queue: &str, priority: u8) -> Action {
        let push = Push {
            queue: name(queue),
            payload: Vec::new(),
            dedupe_key: None,
            delay_ms: 0,
            priority,
            max_attempts: 0,
        };
        push.into()
    }

    /// Applies each action a second after the one before.
    fn state(actions: Vec<Action>) -> MemoryView {
        let mut view = MemoryView::default();
        for (index, action) in (1..).zip(actions) {
            let entry = Entry {
                index,
                proposed_at: Timestamp(index * 1_000),
                command: &Command::from(action).encode(),
                principal: Principal::Cluster,
            };
            let applied = apply(&view, entry).expect("a sound state");
            view.commit(applied.changes);
        }
        view
    }

    fn oldest(view: &MemoryView) -> Option<Timestamp> {
        let mut from = Key::<QueueReady>::first().bytes().to_vec();
        let mut oldest = None;
        assert!(!fronts(view, &mut from, &mut oldest), "there are few");
        let (key, id) = oldest?;
        pushed_at(view, &key, id)
    }

    #[test]
    fn the_oldest_is_found_behind_newer_ones_of_other_queues_and_priorities() {
        assert_eq!(oldest(&MemoryView::default()), None);
        let claim = Claim {
            queue: name("b"),
            owner: Owner::new(name("w"), name("boot")),
            ttl_ms: 60_000,
            max: 1,
        };
        let view = state(vec![
            push("b", 3),
            push("b", 0),
            push("b", 3),
            push("a", 0),
            claim.into(),
        ]);
        assert_eq!(oldest(&view), Some(Timestamp(2_000)));
    }
}
