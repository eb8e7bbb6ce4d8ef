//! How much there is: of the replicated state, and of what is open at this node.
//!
//! Everything is read from counters that are kept anyway; only the oldest item is looked for
//! (`oldest`).

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use quorate_statemachine::limits;
use quorate_statemachine::tables::MetaRow;

use super::book::{Book, One, Seconds, count, whole};
use super::oldest::OldestItem;
use crate::config::LimitsSection;
use crate::core::Core;
use crate::storage::Totals;

/// Gauges of contents.
pub struct Contents {
    held: Family<One, Gauge>,
    lock_members: Gauge,
    lock_waiters: Gauge,
    queues: Gauge,
    processes: Gauge,
    sessions: Gauge,
    requests: Gauge,
    request_bytes: Gauge,
    watchers: Gauge,
    items: Items,
    used: Family<One, Seconds>,
}

/// Of the items of all queues.
struct Items {
    ready: Gauge,
    claimed: Gauge,
    delayed: Gauge,
    dead: Gauge,
    oldest_age: Seconds,
    oldest: OldestItem,
}

impl Contents {
    pub fn new(book: &mut Book) -> Self {
        let held = (
            "quorate_leases",
            "kind",
            "What is held, live or not swept yet, by kind: leases (lease), holds of locks (lock), \
             claims of queue items (claim)",
        );
        let used = (
            "quorate_quota_used_ratio",
            "quota",
            "How much of a bound is used, 1 for all of it: leases, lock_members, queues, \
             processes, sessions of the cluster; watches, commands_in_flight of this node",
        );
        let held = book.gauges(held, Family::default());
        let used = book.gauges(used, Family::default());
        let items = Items::new(book);
        let mut gauge = |name, help| book.gauge((name, "", help));
        Self {
            held,
            lock_members: gauge(
                "quorate_lock_members",
                "Holders and waiters of all locks, live or not swept yet",
            ),
            lock_waiters: gauge(
                "quorate_lock_waiters",
                "Waiters of all locks, live or not swept yet",
            ),
            queues: gauge("quorate_queues", "Queues"),
            processes: gauge("quorate_processes", "Process records"),
            sessions: gauge("quorate_sessions", "Sessions"),
            requests: gauge(
                "quorate_requests_remembered",
                "Answers that are remembered for retries",
            ),
            request_bytes: gauge(
                "quorate_requests_remembered_bytes",
                "Bytes of the remembered answers",
            ),
            watchers: gauge("quorate_watchers", "Watches that are open at this node"),
            items,
            used,
        }
    }

    pub fn refresh(&mut self, core: &Core, bounds: &LimitsSection) {
        let (meta, totals) = (core.state.meta(), core.state.totals());
        let held = |kind, count| {
            let labels = [("kind", kind)];
            self.held.get_or_create(&labels).set(whole(count));
        };
        held("lease", meta.leases);
        held("lock", totals.lock_holds);
        held("claim", totals.claimed);
        self.lock_members.set(whole(meta.lock_members));
        self.lock_waiters.set(whole(totals.lock_waiters));
        self.queues.set(whole(meta.queues));
        self.processes.set(whole(meta.processes));
        self.sessions.set(whole(meta.sessions));
        self.requests.set(whole(meta.requests));
        self.request_bytes.set(whole(meta.request_bytes));
        let watchers = core.hub.watchers();
        self.watchers.set(count(watchers));
        self.items.refresh(core, &meta, &totals);
        let in_flight = core.proposer.in_flight();
        for (quota, used, bound) in [
            ("leases", meta.leases, limits::LEASES_MAX),
            ("lock_members", meta.lock_members, limits::LOCK_MEMBERS_MAX),
            ("queues", meta.queues, limits::QUEUES_MAX),
            ("processes", meta.processes, limits::PROCESSES_MAX),
            ("sessions", meta.sessions, limits::SESSIONS_MAX),
            ("watches", watchers as u64, bounds.watches as u64),
            (
                "commands_in_flight",
                in_flight as u64,
                bounds.commands_in_flight as u64,
            ),
        ] {
            let ratio = used as f64 / bound.max(1) as f64;
            self.used.get_or_create(&[("quota", quota)]).set(ratio);
        }
    }
}

impl Items {
    fn new(book: &mut Book) -> Self {
        let oldest_age = (
            "quorate_queue_oldest_age_seconds",
            "",
            "Time since the oldest item was pushed that can be claimed, of all queues; 0 without \
             one. A follower takes the time of the last entry. It is looked for now and then, so \
             that it costs little",
        );
        let oldest_age = book.gauges(oldest_age, Gauge::default());
        let mut gauge = |name, help| book.gauge((name, "", help));
        Self {
            ready: gauge(
                "quorate_queue_ready",
                "Items of all queues that can be claimed",
            ),
            claimed: gauge(
                "quorate_queue_claimed",
                "Items of all queues that somebody works on, or whose claim is over and not swept",
            ),
            delayed: gauge(
                "quorate_queue_delayed",
                "Items of all queues that wait for their time",
            ),
            dead: gauge(
                "quorate_queue_dead",
                "Items of all queues that were given up",
            ),
            oldest_age,
            oldest: OldestItem::default(),
        }
    }

    fn refresh(&mut self, core: &Core, meta: &MetaRow, totals: &Totals) {
        self.ready.set(whole(totals.ready));
        self.claimed.set(whole(totals.claimed));
        self.delayed.set(whole(totals.delayed));
        self.dead.set(whole(totals.dead));
        let now = match core.leads() {
            true => core.cluster_now(),
            false => meta.now,
        };
        let pushed_at = self.oldest.pushed_at(&core.state);
        let age_ms = pushed_at.map_or(0, |at| now.since(at));
        self.oldest_age.set(age_ms as f64 / 1e3);
    }
}
