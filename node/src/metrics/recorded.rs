//! What is counted and timed while the node works.
//!
//! Recording costs an atomic addition, or for a histogram a short lock: once an entry and once an
//! answer. What has labels is looked up among its like once, and then known by its handle. The
//! state machine records nothing: what it did is counted from its notices and figures.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use quorate_statemachine::figure::Figure;
use quorate_statemachine::notice::Notice;
use quorate_statemachine::{access, cluster, codec, lease, lock, process, queue, session};

use super::book::{
    Book, PeerTimings, Timings, Two, long_seconds, seconds, short_seconds, wait_seconds, whole,
};
use super::held::Holdings;
use crate::raft::Proposal;
use crate::spans;
use crate::storage::StateChange;

/// What the log times.
#[derive(Debug, Clone)]
pub struct LogMeters {
    pub(crate) fsync: Histogram,
}

/// What the state times.
#[derive(Debug, Clone)]
pub struct StateMeters {
    apply: Timings,
    by_tag: Arc<BTreeMap<u16, Operation>>,
    others: Arc<Operation>,
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
        self.newest_seconds.set(whole(saved_at_ms / 1_000));
        self.newest_bytes.set(whole(bytes));
    }

    /// Nothing is known of them here.
    pub(crate) fn forget(&self) {
        self.newest_seconds.set(0);
        self.newest_bytes.set(0);
    }
}

/// The name of an operation, and its times since the first entry that did it.
#[derive(Debug)]
struct Operation {
    name: &'static str,
    times: OnceLock<Histogram>,
}

impl Operation {
    fn new(name: &'static str) -> Self {
        let times = OnceLock::new();
        Self { name, times }
    }
}

impl Default for LogMeters {
    fn default() -> Self {
        Self { fsync: seconds() }
    }
}

impl Default for StateMeters {
    fn default() -> Self {
        let nouns = [
            lease::Command::TAGS,
            lock::Command::TAGS,
            queue::Command::TAGS,
            process::Command::TAGS,
            session::Command::TAGS,
            cluster::Command::TAGS,
            access::Command::TAGS,
        ];
        let named = nouns.into_iter().flatten();
        let by_tag = named.map(|(tag, name)| (*tag, Operation::new(name)));
        Self {
            apply: Family::new_with_constructor(short_seconds as fn() -> Histogram),
            by_tag: Arc::new(by_tag.collect()),
            others: Arc::new(Operation::new("composite")),
            snapshot_build: long_seconds(),
            snapshot_install: long_seconds(),
        }
    }
}

impl StateMeters {
    /// An entry took so long to apply.
    pub(crate) fn applied(&self, index: u64, proposal: &Proposal, took: Duration) {
        let operation = self.operation(proposal.command());
        let times = operation.times.get_or_init(|| {
            let labels = [("command", operation.name)];
            self.apply.get_or_create_owned(&labels)
        });
        times.observe(took.as_secs_f64());
        if let (_, Some(trace)) = proposal.origin() {
            spans::applied(trace, operation.name, index, took);
        }
    }

    /// That of an encoded command; several in one are a `composite`.
    fn operation(&self, command: &[u8]) -> &Operation {
        let tag = codec::open(command).map_or(0, |(tag, _)| tag);
        self.by_tag.get(&tag).unwrap_or(&self.others)
    }
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
    requests: Requests,
    held: Holdings,
    lock_waits: Histogram,
    events: Events,
    items_settled: Counter,
    claims_reclaimed: Counter,
    snapshots_installed: Counter,
    pub round_trips: PeerTimings,
}

impl Recorded {
    pub fn new(book: &mut Book) -> Self {
        let (log, state) = (LogMeters::default(), StateMeters::default());
        log_and_state(book, &log, &state);
        Self {
            log,
            state,
            backup: BackupMeters::new(book),
            requests: Requests::new(book),
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
                "Commands that were refused because too much was in flight at this node, or of one \
                 principal",
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
            held: Holdings::new(book),
            lock_waits: lock_waits(book),
            events: Events::new(book),
            items_settled: book.counter((
                "quorate_queue_items_settled",
                "",
                "Items that left their queues: done, dead or cancelled",
            )),
            claims_reclaimed: book.counter((
                "quorate_claim_reclaimed",
                "",
                "Claims of queue items whose time ran out, so that the item can be claimed again",
            )),
            snapshots_installed: book.counter((
                "quorate_snapshots_installed",
                "",
                "Snapshots that took the place of this node's state",
            )),
            round_trips: round_trips(book),
        }
    }

    /// Counts what entries told.
    pub fn observe(&self, change: &StateChange) {
        match change {
            StateChange::Applied {
                notices, figures, ..
            } => {
                let notices = notices.iter().flat_map(|entry| &entry.notices);
                notices.for_each(|notice| self.notice(notice));
                figures.iter().for_each(|figure| self.figure(*figure));
            }
            StateChange::Replaced { .. } => {
                self.snapshots_installed.inc();
            }
        }
    }

    fn notice(&self, notice: &Notice) {
        match notice {
            Notice::LeaseGranted { .. } => self.held.lease.granted(),
            Notice::LockGranted { .. } => self.held.lock.granted(),
            Notice::LeaseEnded { reason, .. } => self.held.lease.ended(reason.as_str()),
            Notice::LockLeft { end, .. } => self.held.lock.ended(end.as_str()),
            Notice::EventAppended { .. } => {
                self.events.new.inc();
            }
            Notice::ItemSettled { .. } => {
                self.items_settled.inc();
            }
            _ => {}
        }
    }

    fn figure(&self, figure: Figure) {
        let seconds = |ms: u64| Duration::from_millis(ms).as_secs_f64();
        match figure {
            Figure::Renewed { held, left_ms } => self.held.of(held).renewed(seconds(left_ms)),
            Figure::LockWaited { waited_ms } => self.lock_waits.observe(seconds(waited_ms)),
            Figure::Claimed => self.held.claim.granted(),
            Figure::ClaimSettled(settled) => self.held.claim.ended(match settled {
                queue::Settled::Done => "done",
                queue::Settled::Retried => "retried",
                queue::Settled::Dead => "dead",
            }),
            Figure::ClaimExpired { again } => {
                self.held.claim.ended("expired");
                self.claims_reclaimed.inc_by(again.into());
            }
            Figure::EventRepeated => {
                self.events.repeated.inc();
            }
        }
    }

    /// A request of a client was answered.
    pub fn answered(&self, method: &'static str, code: &'static str, took: Duration) {
        self.requests.answered(method, code, took);
    }
}

/// Times of clients' requests.
struct Requests {
    all: Family<Two, Histogram, fn() -> Histogram>,
    /// Those that went well, by method.
    ok: [(&'static str, Histogram); 2],
}

impl Requests {
    fn new(book: &mut Book) -> Self {
        let all = Family::new_with_constructor(seconds as fn() -> Histogram);
        let told = (
            "quorate_rpc_server_duration_seconds",
            "method, code",
            "Time from receiving a request of a client's stream until its answer is ready to be \
             sent, by method (execute, read) and outcome (ok, or the code of the error). \
             Contention and other refusals of the replicated state are ok",
        );
        book.histograms(told, &all);
        let ok = ["execute", "read"].map(|method| {
            let labels = [("method", method), ("code", "ok")];
            (method, all.get_or_create_owned(&labels))
        });
        Self { all, ok }
    }

    fn answered(&self, method: &'static str, code: &'static str, took: Duration) {
        let took = took.as_secs_f64();
        let known = self.ok.iter().find(|(ok, _)| *ok == method);
        match known.filter(|_| code == "ok") {
            Some((_, times)) => times.observe(took),
            None => {
                let labels = [("method", method), ("code", code)];
                self.all.get_or_create(&labels).observe(took);
            }
        }
    }
}

/// Appended events.
struct Events {
    new: Counter,
    repeated: Counter,
}

impl Events {
    fn new(book: &mut Book) -> Self {
        let told = (
            "quorate_events_appended",
            "deduped",
            "Appends of events to processes: false for an event that is new, true for one that had \
             been appended before under its key and was not again",
        );
        let all = book.counters(told, Family::default());
        let of = |deduped| all.get_or_create_owned(&[("deduped", deduped)]);
        Self {
            new: of("false"),
            repeated: of("true"),
        }
    }
}

fn round_trips(book: &mut Book) -> PeerTimings {
    let all = Family::new_with_constructor(seconds as fn() -> Histogram);
    let told = (
        "quorate_raft_heartbeat_rtt_seconds",
        "peer",
        "On the leader: time from a heartbeat to the member with this id until its answer",
    );
    book.histograms(told, &all);
    all
}

fn lock_waits(book: &mut Book) -> Histogram {
    let waits = wait_seconds();
    let told = (
        "quorate_lock_wait_seconds",
        "",
        "Time in the queue of each lock that was granted; 0 for one that was free",
    );
    book.histograms(told, &waits);
    waits
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
    use crate::origin::Caller;
    use quorate_statemachine::{Command, Timestamp};

    #[test]
    fn a_command_is_timed_under_the_name_of_its_tag() {
        let mut book = Book::default();
        let state = Recorded::new(&mut book).state;
        let tick = Command::from(cluster::Tick {});
        for command in [tick.encode(), tick.encode(), Vec::new()] {
            let origin = Caller::Cluster.into();
            let proposal = Proposal::new(Timestamp(1), &origin, &command);
            state.applied(1, &proposal, Duration::from_micros(3));
        }
        let text = book.text().expect("a String takes all");
        let name = tick.action.name();
        for line in [
            format!("quorate_apply_duration_seconds_count{{command=\"{name}\"}} 2\n"),
            "quorate_apply_duration_seconds_count{command=\"composite\"} 1\n".to_owned(),
        ] {
            assert!(text.contains(&line), "no {line} in {text}");
        }
    }

    #[test]
    fn an_answer_is_timed_by_method_and_code() {
        let mut book = Book::default();
        let recorded = Recorded::new(&mut book);
        for code in ["ok", "ok", "overloaded"] {
            recorded.answered("read", code, Duration::from_micros(3));
        }
        let text = book.text().expect("a String takes all");
        for (method, code, count) in [
            ("read", "ok", 2),
            ("read", "overloaded", 1),
            ("execute", "ok", 0),
        ] {
            let labels = format!("method=\"{method}\",code=\"{code}\"");
            let line = format!("quorate_rpc_server_duration_seconds_count{{{labels}}} {count}\n");
            assert!(text.contains(&line), "no {line} in {text}");
        }
    }
}
