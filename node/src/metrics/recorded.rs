//! What is counted and timed while the node works.
//!
//! Recording costs an atomic addition, or for a histogram and what has labels a lookup and a short
//! lock: once an entry and once an answer. The state machine records nothing: what it did is counted
//! from its notices.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use quorate_statemachine::notice::Notice;
use quorate_statemachine::{access, cluster, codec, lease, lock, process, queue, session};

use super::book::{Book, One, Timings, Two, long_seconds, seconds, short_seconds};
use crate::storage::StateChange;

/// What the log times.
#[derive(Debug, Clone)]
pub struct LogMeters {
    pub(crate) fsync: Histogram,
}

/// What the state times.
#[derive(Debug, Clone)]
pub struct StateMeters {
    pub(crate) apply: Timings,
    pub(crate) snapshot_build: Histogram,
    pub(crate) snapshot_install: Histogram,
}

/// What is known of backups.
#[derive(Debug, Clone, Default)]
pub struct BackupMeters {
    pub(crate) made: Counter,
    pub(crate) failed: Counter,
    newest_seconds: Gauge,
    newest_bytes: Gauge,
}

impl BackupMeters {
    fn new(book: &mut Book) -> Self {
        Self {
            made: book.counter((
                "quorate_backups_made",
                "",
                "Backups by schedule that this node made and read back",
            )),
            failed: book.counter((
                "quorate_backup_failures",
                "",
                "Attempts of this node at a backup by schedule that came to nothing",
            )),
            newest_seconds: book.gauge((
                "quorate_backup_last_good_timestamp_seconds",
                "",
                "On the leader: when the newest good backup was saved, in seconds since 1970; 0 if \
                 that is not known",
            )),
            newest_bytes: book.gauge((
                "quorate_backup_last_good_bytes",
                "",
                "On the leader: length of the newest good backup",
            )),
        }
    }

    /// The newest good one.
    pub(crate) fn good(&self, saved_at_ms: u64, bytes: u64) {
        let whole = |number| i64::try_from(number).unwrap_or(i64::MAX);
        self.newest_seconds.set(whole(saved_at_ms / 1_000));
        self.newest_bytes.set(whole(bytes));
    }

    /// Nothing is known of them here.
    pub(crate) fn forget(&self) {
        self.newest_seconds.set(0);
        self.newest_bytes.set(0);
    }
}

impl Default for LogMeters {
    fn default() -> Self {
        Self { fsync: seconds() }
    }
}

impl Default for StateMeters {
    fn default() -> Self {
        Self {
            apply: Family::new_with_constructor(short_seconds as fn() -> Histogram),
            snapshot_build: long_seconds(),
            snapshot_install: long_seconds(),
        }
    }
}

impl StateMeters {
    /// An encoded command took so long to apply.
    pub(crate) fn applied(&self, command: &[u8], took: Duration) {
        let labels = [("command", name_of(command))];
        self.apply
            .get_or_create(&labels)
            .observe(took.as_secs_f64());
    }
}

/// Operations by their tags.
static NAMES: LazyLock<HashMap<u16, &'static str>> = LazyLock::new(|| {
    let nouns = [
        lease::Command::TAGS,
        lock::Command::TAGS,
        queue::Command::TAGS,
        process::Command::TAGS,
        session::Command::TAGS,
        cluster::Command::TAGS,
        access::Command::TAGS,
    ];
    nouns.into_iter().flatten().copied().collect()
});

/// The name of an encoded command's operation; several in one are a `composite`.
fn name_of(command: &[u8]) -> &'static str {
    let tag = codec::open(command).map_or(0, |(tag, _)| tag);
    NAMES.get(&tag).copied().unwrap_or("composite")
}

/// Counters and histograms of a node.
pub struct Recorded {
    pub log: LogMeters,
    pub state: StateMeters,
    pub backup: BackupMeters,
    pub leader_changes: Counter,
    pub proposals_applied: Counter,
    pub proposals_failed: Counter,
    pub refused_overload: Counter,
    pub watches_lagged: Counter,
    pub digest_mismatches: Counter,
    rpc: Family<Two, Histogram, fn() -> Histogram>,
    granted: Family<One, Counter>,
    ended: Family<Two, Counter>,
    events: Counter,
    items_settled: Counter,
    snapshots_installed: Counter,
}

impl Recorded {
    pub fn new(book: &mut Book) -> Self {
        let (log, state) = (LogMeters::default(), StateMeters::default());
        log_and_state(book, &log, &state);
        Self {
            log,
            state,
            backup: BackupMeters::new(book),
            rpc: requests(book),
            leader_changes: book.counter((
                "quorate_server_leader_changes_seen",
                "",
                "Changes of the leader, as this node saw them; losing one and finding one are two",
            )),
            proposals_applied: book.counter((
                "quorate_raft_proposals_applied",
                "",
                "Entries that this node proposed and that were committed and applied",
            )),
            proposals_failed: book.counter((
                "quorate_raft_proposals_failed",
                "",
                "Entries that this node proposed and that were not, or not known to be, committed",
            )),
            refused_overload: book.counter((
                "quorate_overload_refused",
                "",
                "Commands that were refused because too much was in flight at this node",
            )),
            watches_lagged: book.counter((
                "quorate_watch_lagged",
                "",
                "Watches that were dropped because their client did not keep up",
            )),
            digest_mismatches: book.counter((
                "quorate_digest_mismatch",
                "",
                "Marks in the log at which this node's state was not that of a quorum, or at which \
                 no quorum had the same",
            )),
            granted: grants(book),
            ended: ends(book),
            events: book.counter((
                "quorate_events_appended",
                "",
                "Events appended to processes; one that was appended before is not counted again",
            )),
            items_settled: book.counter((
                "quorate_queue_items_settled",
                "",
                "Items that left their queues: done, dead or cancelled",
            )),
            snapshots_installed: book.counter((
                "quorate_snapshots_installed",
                "",
                "Snapshots that took the place of this node's state",
            )),
        }
    }

    /// Counts what entries told.
    pub fn observe(&self, change: &StateChange) {
        match change {
            StateChange::Applied { notices, .. } => {
                let notices = notices.iter().flat_map(|entry| &entry.notices);
                notices.for_each(|notice| self.notice(notice));
            }
            StateChange::Replaced { .. } => {
                self.snapshots_installed.inc();
            }
        }
    }

    fn notice(&self, notice: &Notice) {
        let granted = |kind| {
            self.granted.get_or_create(&[("kind", kind)]).inc();
        };
        let ended = |kind, reason| {
            let labels = [("kind", kind), ("reason", reason)];
            self.ended.get_or_create(&labels).inc();
        };
        match notice {
            Notice::LeaseGranted { .. } => granted("lease"),
            Notice::LockGranted { .. } => granted("lock"),
            Notice::LeaseEnded { reason, .. } => ended("lease", reason.as_str()),
            Notice::LockLeft { end, .. } => ended("lock", end.as_str()),
            Notice::EventAppended { .. } => {
                self.events.inc();
            }
            Notice::ItemSettled { .. } => {
                self.items_settled.inc();
            }
            _ => {}
        }
    }

    /// A request of a client was answered.
    pub fn answered(&self, method: &'static str, code: &'static str, took: Duration) {
        let labels = [("method", method), ("code", code)];
        self.rpc.get_or_create(&labels).observe(took.as_secs_f64());
    }
}

fn requests(book: &mut Book) -> Family<Two, Histogram, fn() -> Histogram> {
    let rpc = Family::new_with_constructor(seconds as fn() -> Histogram);
    let told = (
        "quorate_rpc_server_duration_seconds",
        "method, code",
        "Time from receiving a request of a client's stream until its answer is ready to be sent, \
         by method (execute, read) and outcome (ok, or the code of the error). Contention and \
         other refusals of the replicated state are ok",
    );
    book.histograms(told, &rpc);
    rpc
}

fn grants(book: &mut Book) -> Family<One, Counter> {
    let told = (
        "quorate_lease_granted",
        "kind",
        "Grants, by kind (lease, lock), counted by every node as it applies them",
    );
    book.counters(told, Family::default())
}

fn ends(book: &mut Book) -> Family<Two, Counter> {
    let told = (
        "quorate_lease_ended",
        "kind, reason",
        "Ends of leases and of acquisitions of locks, by kind (lease, lock) and reason (expired, \
         released, superseded, reclaimed, revoked, cancelled, gave_up, waiter_died, deadlock)",
    );
    book.counters(told, Family::default())
}

fn log_and_state(book: &mut Book, log: &LogMeters, state: &StateMeters) {
    book.histograms(
        (
            "quorate_wal_fsync_duration_seconds",
            "",
            "Time to write one batch of the log and to sync it; every acknowledged command \
             waits for one on a quorum of nodes",
        ),
        &log.fsync,
    );
    book.histograms(
        (
            "quorate_apply_duration_seconds",
            "command",
            "Time to apply one entry to the state, by operation",
        ),
        &state.apply,
    );
    book.histograms(
        (
            "quorate_snapshot_build_duration_seconds",
            "",
            "Time to make a snapshot; entries go on meanwhile",
        ),
        &state.snapshot_build,
    );
    book.histograms(
        (
            "quorate_snapshot_install_duration_seconds",
            "",
            "Time to verify a snapshot that was received and to switch over to it",
        ),
        &state.snapshot_install,
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_statemachine::Command;

    #[test]
    fn a_command_is_named_by_its_tag() {
        let tick = Command::from(cluster::Tick {}).encode();
        assert_eq!(
            name_of(&tick),
            Command::from(cluster::Tick {}).action.name()
        );
        assert_eq!(name_of(b""), "composite");
    }
}
