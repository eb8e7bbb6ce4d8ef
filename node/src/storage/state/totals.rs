//! Sums over rows that have counters of their own, kept with each change of such a row, so that
//! nobody has to look at all of them.

use quorate_statemachine::codec;
use quorate_statemachine::tables::{Locks, Queues, Table};

/// How much all queues and all locks have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Items that can be claimed.
    pub ready: u64,
    /// Items that wait for their time.
    pub delayed: u64,
    /// Items that somebody works on.
    pub claimed: u64,
    /// Items given up.
    pub dead: u64,
    /// Holds of locks; re-entries share one.
    pub lock_holds: u64,
    /// Those who wait for a lock.
    pub lock_waiters: u64,
}

impl Totals {
    /// A row of the table `tag` takes the place of another.
    pub(super) fn replace(&mut self, tag: u8, old: Option<&[u8]>, new: Option<&[u8]>) {
        if tag != Queues::TAG && tag != Locks::TAG {
            return;
        }
        let of = |row: Option<&[u8]>| row.map_or_else(Self::default, |row| Self::of_row(tag, row));
        let (old, new) = (of(old), of(new));
        let moved = |total: &mut u64, old: u64, new: u64| *total = *total + new - old;
        moved(&mut self.ready, old.ready, new.ready);
        moved(&mut self.delayed, old.delayed, new.delayed);
        moved(&mut self.claimed, old.claimed, new.claimed);
        moved(&mut self.dead, old.dead, new.dead);
        moved(&mut self.lock_holds, old.lock_holds, new.lock_holds);
        moved(&mut self.lock_waiters, old.lock_waiters, new.lock_waiters);
    }

    /// What cannot be read counts nothing: the state machine says so when it needs the row.
    fn of_row(tag: u8, row: &[u8]) -> Self {
        let tag = tag.into();
        if tag == u16::from(Locks::TAG) {
            let lock = codec::decode::<<Locks as Table>::Row>(tag, row);
            return lock.map_or_else(
                |_| Self::default(),
                |lock| Self {
                    lock_holds: lock.holders.into(),
                    lock_waiters: lock.waiters.into(),
                    ..Self::default()
                },
            );
        }
        let queue = codec::decode::<<Queues as Table>::Row>(tag, row);
        queue.map_or_else(
            |_| Self::default(),
            |queue| Self {
                ready: queue.ready,
                delayed: queue.delayed,
                claimed: queue.claimed,
                dead: queue.dead,
                ..Self::default()
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_statemachine::queue::Queue;
    use quorate_statemachine::{Name, Timestamp};

    fn queue(ready: u64, claimed: u64) -> Vec<u8> {
        let queue = Queue {
            name: Name::parse("queue", "q").expect("a name"),
            created_at: Timestamp(0),
            changed_at: Timestamp(0),
            ready,
            delayed: 0,
            claimed,
            dead: 0,
            done: 0,
            dedupe_keys: 0,
        };
        codec::encode(Queues::TAG.into(), &queue)
    }

    #[test]
    fn totals_follow_the_rows() {
        let mut totals = Totals::default();
        totals.replace(Queues::TAG, None, Some(&queue(3, 1)));
        totals.replace(Queues::TAG, None, Some(&queue(5, 0)));
        totals.replace(Queues::TAG, Some(&queue(3, 1)), Some(&queue(2, 2)));
        let expected = Totals {
            ready: 7,
            claimed: 2,
            ..Totals::default()
        };
        assert_eq!(totals, expected);
        totals.replace(Queues::TAG, Some(&queue(2, 2)), None);
        totals.replace(Queues::TAG, Some(&queue(5, 0)), None);
        assert_eq!(totals, Totals::default());
        totals.replace(0x10, None, Some(b"a row of another table"));
        assert_eq!(totals, Totals::default());
    }
}
