//! Hands the notices of applied entries to those who watch.
//!
//! A watch registers first and says at which index; whoever reads the state at or after that index
//! and then follows the notices misses nothing. Buffers are bounded: a watcher that does not keep
//! up is told from where to go on ([`WatchEvent::Lagged`]) and dropped.
//!
//! A notice is offered to those who watch its own topic and to those who watch prefixes, so that
//! the watches of other clients cost nothing when one is granted a lock.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use prometheus_client::metrics::counter::Counter;
use quorate_client::{WatchEvent, WatchWhat};
use quorate_rpc::NodeError;
use quorate_statemachine::Name;
use quorate_statemachine::notice::Notice;
use tokio::sync::{mpsc, watch};

use crate::admission::overloaded;
use crate::storage::StateChange;

/// Deliveries a watcher may be behind.
pub const WATCH_BUFFER: usize = 4_096;

/// Watches that are open at one node, by default.
pub const WATCHES_MAX: usize = 16_384;

/// Entries with notices that are kept for watches that resume.
pub const REPLAY_ENTRIES: usize = 16_384;

/// Notices that are kept with them: an entry has many when many leases end at once.
pub const REPLAY_NOTICES: usize = 4 * REPLAY_ENTRIES;

/// Watchers below which nobody looks for those that have gone.
const PRUNE_FROM: usize = 64;

struct Watcher {
    what: WatchWhat,
    tx: mpsc::Sender<WatchEvent>,
}

/// What a notice is about, and a watch for one thing.
#[derive(PartialEq, Eq, Hash)]
enum Topic {
    Queue(Name),
    Process(Name),
    /// Of the client whose acquisitions start with this.
    Acquisitions([u8; 8]),
}

#[derive(Default)]
struct Inner {
    next_id: u64,
    watchers: HashMap<u64, Watcher>,
    /// Who watches one thing.
    by_topic: HashMap<Topic, Vec<u64>>,
    /// Who watches all that starts with something.
    by_prefix: Vec<u64>,
    /// Watchers at which those that have gone are looked for.
    prune_at: usize,
    replay: VecDeque<(u64, Arc<Vec<Notice>>)>,
    /// Notices in `replay`.
    replayable: usize,
    /// Notices of entries at or below this index may be gone from `replay`.
    forgotten: u64,
    applied: u64,
}

/// The watchers of one node.
pub struct Hub {
    watches_max: usize,
    inner: Mutex<Inner>,
    applied: watch::Sender<u64>,
    lagged: Counter,
}

impl Hub {
    /// A hub of a node that has applied entries up to `applied`, for so many watches at most.
    pub fn new(applied: u64, watches_max: usize) -> Self {
        let inner = Inner {
            applied,
            forgotten: applied,
            ..Inner::default()
        };
        Self {
            watches_max,
            inner: Mutex::new(inner),
            applied: watch::Sender::new(applied),
            lagged: Counter::default(),
        }
    }

    /// Counts the watches that are dropped because they lag.
    pub fn counting(self, lagged: Counter) -> Self {
        Self { lagged, ..self }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner
            .lock()
            .expect("no code panics while it holds the hub")
    }

    /// Follows the applied index.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// Takes in what happened to the state.
    pub fn observe(&self, change: StateChange) {
        match change {
            StateChange::Applied { index, notices, .. } => {
                let entries = notices
                    .into_iter()
                    .map(|entry| (entry.index, entry.notices));
                self.publish(index, entries.collect());
            }
            StateChange::Replaced { index } => self.jump(index),
        }
    }

    /// Publishes what a chunk of entries did; `applied` is the chunk's last index.
    fn publish(&self, applied: u64, entries: Vec<(u64, Vec<Notice>)>) {
        let mut inner = self.lock();
        for (index, notices) in entries {
            if notices.is_empty() {
                continue;
            }
            self.lagged.inc_by(inner.deliver(index, &notices));
            inner.remember(index, notices);
        }
        inner.applied = inner.applied.max(applied);
        drop(inner);
        self.applied.send_if_modified(|seen| {
            let newer = applied > *seen;
            *seen = applied.max(*seen);
            newer
        });
    }

    /// The state was replaced by a snapshot: notices in between were never made here.
    fn jump(&self, applied: u64) {
        let mut inner = self.lock();
        for (_, watcher) in inner.watchers.drain() {
            let _ = watcher.tx.try_send(WatchEvent::Lagged { resume_from: 0 });
        }
        inner.by_topic.clear();
        inner.by_prefix.clear();
        inner.replay.clear();
        inner.replayable = 0;
        inner.forgotten = applied.max(inner.applied);
        drop(inner);
        self.publish(applied, Vec::new());
    }

    /// Registers a watch, replaying from `from_index` on if that is not 0 and still there. The
    /// first event is `Registered`; the last is `Lagged`, unless the node stops before. Refused
    /// while as many are open as may be.
    pub fn watch(
        &self,
        what: WatchWhat,
        from_index: u64,
    ) -> Result<mpsc::Receiver<WatchEvent>, NodeError> {
        let (tx, rx) = mpsc::channel(WATCH_BUFFER);
        let mut inner = self.lock();
        if inner.watchers.len() >= self.watches_max {
            inner.prune();
        }
        if inner.watchers.len() >= self.watches_max {
            let (limit, actual) = (self.watches_max, inner.watchers.len() + 1);
            return Err(overloaded("watches", limit.to_string(), actual.to_string()));
        }
        let index = if from_index == 0 {
            inner.applied
        } else {
            from_index - 1
        };
        let _ = tx.try_send(WatchEvent::Registered { index });
        if from_index != 0 && !inner.replay_to(&what, index, &tx) {
            let _ = tx.try_send(WatchEvent::Lagged { resume_from: 0 });
            return Ok(rx);
        }
        inner.add(Watcher { what, tx });
        Ok(rx)
    }

    /// Watches that are open now.
    pub fn watchers(&self) -> usize {
        let inner = self.lock();
        let open = |watcher: &&Watcher| !watcher.tx.is_closed();
        inner.watchers.values().filter(open).count()
    }
}

impl Inner {
    fn add(&mut self, watcher: Watcher) {
        if self.watchers.len() >= self.prune_at.max(PRUNE_FROM) {
            self.prune();
        }
        self.next_id += 1;
        match topic_of_watch(&watcher.what) {
            Some(topic) => self.by_topic.entry(topic).or_default().push(self.next_id),
            None => self.by_prefix.push(self.next_id),
        }
        self.watchers.insert(self.next_id, watcher);
    }

    /// Forgets those that have gone; not again before there are twice as many.
    fn prune(&mut self) {
        self.watchers.retain(|_, watcher| !watcher.tx.is_closed());
        let watchers = &self.watchers;
        self.by_prefix.retain(|id| watchers.contains_key(id));
        self.by_topic.retain(|_, ids| {
            ids.retain(|id| watchers.contains_key(id));
            !ids.is_empty()
        });
        self.prune_at = 2 * self.watchers.len();
    }

    /// Answers how many were dropped because they lag.
    fn deliver(&mut self, index: u64, notices: &[Notice]) -> u64 {
        let mut dropped = 0;
        for (id, notices) in self.wanted(notices) {
            let Some(watcher) = self.watchers.get(&id) else {
                continue;
            };
            // One place stays free for the word that it lags.
            let lags = watcher.tx.capacity() <= 1;
            let event = if lags {
                WatchEvent::Lagged { resume_from: index }
            } else {
                WatchEvent::Notices { index, notices }
            };
            if watcher.tx.try_send(event).is_err() || lags {
                self.watchers.remove(&id);
                dropped += u64::from(lags);
            }
        }
        dropped
    }

    /// Who wants which of the notices.
    fn wanted(&self, notices: &[Notice]) -> BTreeMap<u64, Vec<Notice>> {
        let mut wanted = BTreeMap::<u64, Vec<Notice>>::new();
        if self.watchers.is_empty() {
            return wanted;
        }
        for notice in notices {
            let own = topic_of(notice).and_then(|topic| self.by_topic.get(&topic));
            for id in own.into_iter().flatten().chain(&self.by_prefix) {
                let watcher = self.watchers.get(id);
                if watcher.is_some_and(|watcher| watcher.what.matches(notice)) {
                    wanted.entry(*id).or_default().push(notice.clone());
                }
            }
        }
        wanted
    }

    fn remember(&mut self, index: u64, notices: Vec<Notice>) {
        self.replayable += notices.len();
        self.replay.push_back((index, Arc::new(notices)));
        while self.replay.len() > REPLAY_ENTRIES || self.replayable > REPLAY_NOTICES {
            let Some((oldest, gone)) = self.replay.pop_front() else {
                break;
            };
            self.replayable -= gone.len();
            self.forgotten = oldest;
        }
    }

    /// Delivers what is kept of entries above `after`; false when something in between is gone.
    fn replay_to(&self, what: &WatchWhat, after: u64, tx: &mpsc::Sender<WatchEvent>) -> bool {
        if after < self.forgotten {
            return false;
        }
        for (index, notices) in &self.replay {
            if *index <= after {
                continue;
            }
            let notices = of_what(what, notices);
            let index = *index;
            if !notices.is_empty() && tx.try_send(WatchEvent::Notices { index, notices }).is_err() {
                return false;
            }
        }
        true
    }
}

fn of_what(what: &WatchWhat, notices: &[Notice]) -> Vec<Notice> {
    let wanted = notices.iter().filter(|notice| what.matches(notice));
    wanted.cloned().collect()
}

fn topic_of_watch(what: &WatchWhat) -> Option<Topic> {
    match what {
        WatchWhat::LeasePrefix(_) | WatchWhat::ProcessPrefix(_) | WatchWhat::LockPrefix(_) => None,
        WatchWhat::Queue(queue) => Some(Topic::Queue(queue.clone())),
        WatchWhat::Process(id) => Some(Topic::Process(id.clone())),
        WatchWhat::LockAcquisitions(prefix) => Some(Topic::Acquisitions(*prefix)),
    }
}

fn topic_of(notice: &Notice) -> Option<Topic> {
    match notice {
        Notice::QueueReady { queue } | Notice::ItemSettled { queue, .. } => {
            Some(Topic::Queue(queue.clone()))
        }
        Notice::EventAppended { process_id, .. } | Notice::ProcessChanged { process_id, .. } => {
            Some(Topic::Process(process_id.clone()))
        }
        Notice::LockGranted { id, .. } | Notice::LockLeft { id, .. } => {
            id.first_chunk().copied().map(Topic::Acquisitions)
        }
        Notice::LeaseGranted { .. }
        | Notice::LeaseEnded { .. }
        | Notice::LockProclaimed { .. }
        | Notice::DigestRecorded { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_statemachine::Name;

    fn ready(queue: &str) -> Vec<Notice> {
        vec![Notice::QueueReady {
            queue: Name::parse("queue", queue).expect("valid"),
        }]
    }

    fn queue(name: &str) -> WatchWhat {
        WatchWhat::Queue(Name::parse("queue", name).expect("valid"))
    }

    fn watching(hub: &Hub, what: WatchWhat, from: u64) -> mpsc::Receiver<WatchEvent> {
        hub.watch(what, from).expect("fewer watches than the limit")
    }

    fn received(rx: &mut mpsc::Receiver<WatchEvent>) -> Vec<WatchEvent> {
        std::iter::from_fn(|| rx.try_recv().ok()).collect()
    }

    fn notices(index: u64) -> WatchEvent {
        WatchEvent::Notices {
            index,
            notices: ready("q"),
        }
    }

    #[test]
    fn a_watch_gets_its_own_topic_from_its_registration_on() {
        let hub = Hub::new(4, WATCHES_MAX);
        hub.publish(5, vec![(5, ready("q"))]);
        let mut watch = watching(&hub, queue("q"), 0);
        hub.publish(7, vec![(6, ready("other")), (7, ready("q"))]);
        let expected = [WatchEvent::Registered { index: 5 }, notices(7)];
        assert_eq!(received(&mut watch), expected);
    }

    #[test]
    fn a_watch_resumes_from_an_index_that_is_kept() {
        let hub = Hub::new(0, WATCHES_MAX);
        hub.publish(3, vec![(1, ready("q")), (2, ready("q")), (3, ready("q"))]);
        let mut watch = watching(&hub, queue("q"), 2);
        let expected = [WatchEvent::Registered { index: 1 }, notices(2), notices(3)];
        assert_eq!(received(&mut watch), expected);
    }

    #[test]
    fn a_watch_from_before_the_kept_entries_is_told_so() {
        let hub = Hub::new(10, WATCHES_MAX);
        let mut watch = watching(&hub, queue("q"), 3);
        let lagged = WatchEvent::Lagged { resume_from: 0 };
        assert_eq!(
            received(&mut watch),
            [WatchEvent::Registered { index: 2 }, lagged]
        );
    }

    #[test]
    fn what_is_kept_is_bounded_by_notices_too() {
        let hub = Hub::new(0, WATCHES_MAX);
        let many = vec![ready("q").remove(0); REPLAY_NOTICES / 2];
        hub.publish(3, (1..=3).map(|index| (index, many.clone())).collect());
        let mut watch = watching(&hub, queue("q"), 2);
        let of = |index| WatchEvent::Notices {
            index,
            notices: many.clone(),
        };
        let registered = |index| WatchEvent::Registered { index };
        assert_eq!(received(&mut watch), [registered(1), of(2), of(3)]);
        let mut watch = watching(&hub, queue("q"), 1);
        let lagged = WatchEvent::Lagged { resume_from: 0 };
        assert_eq!(received(&mut watch), [registered(0), lagged]);
    }

    #[test]
    fn a_slow_watcher_is_told_where_to_go_on_and_dropped() {
        let hub = Hub::new(0, WATCHES_MAX);
        let mut watch = watching(&hub, queue("q"), 0);
        for index in 1..=(WATCH_BUFFER as u64 + 5) {
            hub.publish(index, vec![(index, ready("q"))]);
        }
        assert_eq!(hub.watchers(), 0);
        let all = received(&mut watch);
        assert_eq!(all.len(), WATCH_BUFFER);
        let resume_from = WATCH_BUFFER as u64 - 1;
        assert_eq!(all.last(), Some(&WatchEvent::Lagged { resume_from }));
    }

    #[test]
    fn a_watch_for_one_thing_is_not_offered_what_is_about_others() {
        let hub = Hub::new(0, WATCHES_MAX);
        let key = Name::parse("key", "a").expect("valid");
        let mut first = watching(&hub, WatchWhat::LockAcquisitions([1; 8]), 0);
        let mut second = watching(&hub, WatchWhat::LockAcquisitions([2; 8]), 0);
        let mut all = watching(&hub, WatchWhat::LockPrefix("a".to_owned()), 0);
        let granted = vec![Notice::LockGranted {
            key: key.clone(),
            id: [2; 16],
            owner_id: key.clone(),
            fencing_token: 7,
        }];
        hub.publish(7, vec![(7, granted.clone())]);
        let registered = WatchEvent::Registered { index: 0 };
        let delivery = WatchEvent::Notices {
            index: 7,
            notices: granted,
        };
        let expected = [registered, delivery];
        assert_eq!(received(&mut first), expected[..1]);
        assert_eq!(received(&mut second), expected);
        assert_eq!(received(&mut all), expected);
    }

    #[test]
    fn a_watch_too_many_is_refused_until_another_has_gone() {
        let hub = Hub::new(0, 2);
        let (first, _second) = (watching(&hub, queue("a"), 0), watching(&hub, queue("b"), 0));
        let error = hub.watch(queue("c"), 0).expect_err("two are open");
        let text = error.to_string();
        assert!(text.contains("watches at this node"), "{text}");
        assert!(text.contains("limit 2, actual 3"), "{text}");
        drop(first);
        assert!(hub.watch(queue("c"), 0).is_ok());
    }

    #[test]
    fn watches_that_have_gone_are_forgotten_with_their_topics() {
        let hub = Hub::new(0, WATCHES_MAX);
        for n in 0..PRUNE_FROM * 4 {
            drop(hub.watch(queue(&format!("q{n}")), 0));
        }
        assert!(hub.watchers() <= PRUNE_FROM, "{}", hub.watchers());
        assert!(hub.lock().by_topic.len() <= PRUNE_FROM);
    }

    #[test]
    fn a_snapshot_ends_all_watches() {
        let hub = Hub::new(0, WATCHES_MAX);
        let mut watch = watching(&hub, WatchWhat::LeasePrefix(String::new()), 0);
        hub.jump(100);
        let lagged = WatchEvent::Lagged { resume_from: 0 };
        assert_eq!(
            received(&mut watch),
            [WatchEvent::Registered { index: 0 }, lagged]
        );
        assert_eq!(*hub.applied().borrow(), 100);
    }
}
