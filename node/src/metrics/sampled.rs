//! What is looked at when somebody asks: the node's place in Raft, how much there is, the disk.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use openraft::Instant as _;
use openraft::async_runtime::WatchReceiver;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::book::{Book, One, Peer, Seconds, count, peer, whole};
use super::contents::Contents;
use crate::core::Core;
use crate::disk;
use crate::raft;
use crate::shared::Shared;

/// Gauges of a node.
pub struct Sampled {
    healthy: Gauge,
    alarms: Family<One, Gauge>,
    raft: RaftGauges,
    peers: PeerGauges,
    contents: Contents,
    disk: Disk,
}

struct RaftGauges {
    has_leader: Gauge,
    is_leader: Gauge,
    term: Gauge,
    last: Gauge,
    committed: Gauge,
    applied: Gauge,
    lag: Gauge,
    snapshot: Gauge,
    purged: Gauge,
    pending: Gauge,
    voters: Gauge,
    learners: Gauge,
    skew: Seconds,
}

/// Of the other members, on the leader.
struct PeerGauges {
    lag: Family<Peer, Gauge>,
    silence: Family<Peer, Seconds>,
    skew: Family<Peer, Seconds>,
}

struct Disk {
    store: Family<One, Gauge>,
    resident_rows: Gauge,
    resident_bytes: Gauge,
    snapshot: Gauge,
    free: Gauge,
    size: Gauge,
}

impl Sampled {
    pub fn new(book: &mut Book) -> Self {
        let build = Family::<One, Gauge>::default();
        build
            .get_or_create(&[("version", env!("CARGO_PKG_VERSION"))])
            .set(1);
        let told = (
            "quorate_build_info",
            "version",
            "Always 1; which build this is",
        );
        book.gauges(told, build);
        Self {
            healthy: book.gauge((
                "quorate_server_healthy",
                "",
                "1 while the node runs and no alarm forbids to give it work",
            )),
            alarms: book.gauges(
                (
                    "quorate_alarm_active",
                    "kind",
                    "1 for each alarm that is on; `quorate alarm list` shows the facts",
                ),
                Family::default(),
            ),
            raft: RaftGauges::new(book),
            peers: PeerGauges::new(book),
            contents: Contents::new(book),
            disk: Disk::new(book),
        }
    }

    /// Looks at everything. `led` is whether a leader was heard lately.
    pub fn refresh(&mut self, shared: &Shared, led: bool) {
        let status = shared.status();
        self.healthy.set(status.healthy.into());
        self.alarms.clear();
        for alarm in shared.alarms().active() {
            let labels = [("kind", alarm.kind.name())];
            self.alarms.get_or_create(&labels).set(1);
        }
        self.disk.refresh_free(&shared.config().node.data_dir);
        self.raft.has_leader.set(led.into());
        if let Some(core) = shared.running() {
            self.raft.refresh(&core);
            self.peers.refresh(&core);
            self.contents.refresh(&core, &shared.config().limits);
            self.disk
                .refresh(&core, &shared.config().node.data_dir.join("log"));
        }
    }
}

impl RaftGauges {
    fn new(book: &mut Book) -> Self {
        let mut gauge = |name, help| book.gauge((name, "", help));
        Self {
            has_leader: gauge(
                "quorate_server_has_leader",
                "1 if this node heard a leader that has a quorum, or is one, within four election \
                 timeouts",
            ),
            is_leader: gauge("quorate_server_is_leader", "1 if this node leads"),
            term: gauge("quorate_raft_term", "The term of Raft"),
            last: gauge(
                "quorate_raft_last_log_index",
                "Index of the last entry in the log",
            ),
            committed: gauge(
                "quorate_raft_committed_index",
                "Index of the last entry that this node knows to be committed",
            ),
            applied: gauge(
                "quorate_raft_applied_index",
                "Index of the last entry applied here",
            ),
            lag: gauge(
                "quorate_raft_apply_lag_entries",
                "Entries in the log of this node that it has not applied yet",
            ),
            snapshot: gauge(
                "quorate_raft_snapshot_index",
                "Last entry of the newest snapshot",
            ),
            purged: gauge(
                "quorate_raft_purged_index",
                "Last entry that is gone from the log",
            ),
            pending: gauge(
                "quorate_raft_proposals_pending",
                "Commands of clients in flight at this node",
            ),
            voters: gauge("quorate_raft_voters", "Members that vote"),
            learners: gauge("quorate_raft_learners", "Members without a vote"),
            skew: book.gauges(
                (
                    "quorate_clock_skew_seconds",
                    "",
                    "On the leader: its wall clock less cluster time. Cluster time follows it by \
                     5 % at most, so this is what a clock that was set has left to be followed",
                ),
                Gauge::default(),
            ),
        }
    }

    fn refresh(&self, core: &Core) {
        let metrics = core.raft.metrics().borrow_watched().clone();
        let index = |id: Option<raft::LogId>| whole(id.map_or(0, |id| id.index));
        let (last, applied) = (
            whole(metrics.last_log_index.unwrap_or(0)),
            index(metrics.last_applied),
        );
        let leads = metrics.state.is_leader();
        self.is_leader.set(leads.into());
        self.term.set(whole(metrics.current_term));
        self.last.set(last);
        self.committed.set(index(metrics.local_committed));
        self.applied.set(applied);
        self.lag.set((last - applied).max(0));
        self.snapshot.set(index(metrics.snapshot));
        self.purged.set(index(metrics.purged));
        self.pending.set(count(core.proposer.in_flight()));
        let membership = metrics.membership_config.membership();
        self.voters.set(count(membership.voter_ids().count()));
        self.learners.set(count(membership.learner_ids().count()));
        self.skew
            .set(if leads { ahead_of_cluster(core) } else { 0.0 });
    }
}

impl PeerGauges {
    fn new(book: &mut Book) -> Self {
        Self {
            lag: book.gauges(
                (
                    "quorate_raft_replication_lag_entries",
                    "peer",
                    "On the leader: entries that the member with this id has not confirmed yet",
                ),
                Family::default(),
            ),
            silence: book.gauges(
                (
                    "quorate_raft_peer_silence_seconds",
                    "peer",
                    "On the leader: time since the member with this id answered",
                ),
                Family::default(),
            ),
            skew: book.gauges(
                (
                    "quorate_peer_clock_skew_seconds",
                    "peer",
                    "On the leader: wall clock of the voter with this id less its own, as far as a \
                     question and its answer tell: wrong by half of their round trip at most",
                ),
                Family::default(),
            ),
        }
    }

    fn refresh(&self, core: &Core) {
        let metrics = core.raft.metrics().borrow_watched().clone();
        self.lag.clear();
        self.silence.clear();
        self.skew.clear();
        if !metrics.state.is_leader() {
            return;
        }
        let last = metrics.last_log_index.unwrap_or(0);
        let others = |id: &u64| *id != core.identity.node_id;
        for (id, matched) in metrics.replication.iter().flatten() {
            if others(id) {
                let matched = matched.map_or(0, |id| id.index);
                let lag = whole(last.saturating_sub(matched));
                self.lag.get_or_create(&peer(*id)).set(lag);
            }
        }
        for (id, heard) in metrics.heartbeat.iter().flatten() {
            if let Some(heard) = heard.filter(|_| others(id)) {
                let silence = heard.elapsed().as_secs_f64();
                self.silence.get_or_create(&peer(*id)).set(silence);
            }
        }
        for (id, skew) in core.peers.skews() {
            self.skew.get_or_create(&peer(id)).set(skew);
        }
    }
}

/// Seconds of this node's wall clock ahead of cluster time. Of a leader alone: asking for the
/// leader's time is what makes its clock the cluster's.
fn ahead_of_cluster(core: &Core) -> f64 {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH);
    wall.unwrap_or_default().as_secs_f64() - core.cluster_now().0 as f64 / 1e3
}

impl Disk {
    fn new(book: &mut Book) -> Self {
        let store = (
            "quorate_store_size_bytes",
            "store",
            "Bytes of the stores on disk (log, state)",
        );
        let store = book.gauges(store, Family::default());
        let mut gauge = |name, help| book.gauge((name, "", help));
        Self {
            store,
            resident_rows: gauge(
                "quorate_store_resident_rows",
                "Rows of the state that are held in memory",
            ),
            resident_bytes: gauge("quorate_store_resident_bytes", "Bytes of these rows"),
            snapshot: gauge(
                "quorate_snapshot_size_bytes",
                "Bytes of the newest snapshot",
            ),
            free: gauge(
                "quorate_disk_free_bytes",
                "Bytes that this process can still write to the disk of the data directory",
            ),
            size: gauge("quorate_disk_size_bytes", "Bytes of that disk"),
        }
    }

    fn refresh_free(&self, dir: &Path) {
        if let Ok(disk) = disk::of(dir) {
            self.free.set(whole(disk.free_bytes));
            self.size.set(whole(disk.size_bytes));
        }
    }

    fn refresh(&self, core: &Core, log: &Path) {
        let sizes = core.state.sizes();
        let store = |store, bytes| {
            let labels = [("store", store)];
            self.store.get_or_create(&labels).set(whole(bytes));
        };
        store("state", sizes.disk_bytes);
        store("log", bytes_of_files(log));
        self.resident_rows.set(whole(sizes.resident_rows));
        self.resident_bytes.set(whole(sizes.resident_bytes));
        let snapshot = core.state.snapshot();
        let bytes = snapshot.map_or(0, |data| data.manifest().total_bytes());
        self.snapshot.set(whole(bytes));
    }
}

/// A file that goes meanwhile counts nothing.
fn bytes_of_files(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let sizes = files.filter_map(|file| file.metadata().ok());
    sizes.map(|metadata| metadata.len()).sum()
}
