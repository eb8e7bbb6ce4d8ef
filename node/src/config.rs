//! Every option of a node: its default, its reason, and the relations between them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_statemachine::InvalidArgument;
use serde::{Deserialize, Serialize};

use crate::admission::Bounds;
use crate::{admission, backup, notices, room};

/// A node's configuration, as in the TOML file of `quorate serve`. Unknown keys are errors.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Who the node is.
    pub node: NodeSection,
    /// Where it listens, and where others reach it.
    pub listen: ListenSection,
    /// What the HTTP port shows beside the answers to probes.
    pub http: HttpSection,
    /// Timing of Raft.
    pub raft: RaftSection,
    /// Bounds of what is in flight.
    pub limits: LimitsSection,
    /// How the states of members are compared.
    pub verify: VerifySection,
    /// Certificates.
    pub tls: TlsSection,
    /// What a node must be told before it does it.
    pub security: SecuritySection,
    /// Backups by schedule.
    pub backup: BackupSection,
    /// What the process says of itself.
    pub log: LogSection,
    /// Where traces go.
    pub trace: TraceSection,
}

/// Who the node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeSection {
    /// Its name, for people; unique in the cluster. A directory of another name is refused. Empty:
    /// the name of the directory, or the one under which the node is added; a founder is `node-1`.
    pub name: String,
    /// Where its state is. Holds one node's data, and is locked while the node runs.
    pub data_dir: PathBuf,
    /// Behave as a build that knows commands up to this version, to rehearse an upgrade; 0 is what
    /// this build knows.
    pub command_version: u32,
    /// Found a new cluster of this one node if the directory is empty. Without it, a node with an
    /// empty directory waits until a member adds it.
    pub bootstrap: bool,
}

/// Where the node listens, and where others reach it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListenSection {
    /// Address for clients, `host:port`; empty for none (an embedded node).
    pub client: String,
    /// Address for the other nodes; empty for none (a node that stays alone).
    pub peer: String,
    /// Address for probes (HTTP: `/livez`, `/readyz`, `/version`); empty for none.
    pub http: String,
    /// Where clients reach it, if that is not where it listens.
    pub advertise_client: String,
    /// Where other nodes reach it, if that is not where it listens.
    pub advertise_peer: String,
    /// Where probes reach it, if that is not where it listens.
    pub advertise_http: String,
}

/// What the HTTP port shows beside the answers to probes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpSection {
    /// The web console. It shows names, holders and payloads to whoever reaches the port.
    pub console: Console,
}

/// Whether there is a web console.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Console {
    /// Where only this machine reaches it: `listen.http` is on loopback.
    #[default]
    Auto,
    /// Wherever the port is.
    On,
    /// Nowhere.
    Off,
}

/// Timing of Raft. All in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RaftSection {
    /// How often a leader is heard when nobody writes.
    pub heartbeat_ms: u64,
    /// Shortest wait of a follower before it stands for election.
    pub election_min_ms: u64,
    /// Longest; also how long a leader that is cut off believes in itself.
    pub election_max_ms: u64,
    /// Entries between snapshots. A restart replays at most about so many.
    pub snapshot_entries: u64,
    /// Entries kept in the log behind a snapshot, for followers that were away.
    pub keep_entries: u64,
}

/// Bounds of what is in flight at this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSection {
    /// Commands in flight.
    pub commands_in_flight: usize,
    /// Bytes of commands in flight.
    pub bytes_in_flight: usize,
    /// Commands in flight of one principal; 0 for no bound of its own.
    pub commands_in_flight_per_principal: usize,
    /// Bytes of commands in flight of one principal; 0 for no bound of its own.
    pub bytes_in_flight_per_principal: usize,
    /// Watches that are open.
    pub watches: usize,
    /// Free bytes of the disk below which writes that grow the state are refused; 0 for never.
    pub disk_reserve_bytes: u64,
    /// Connections of clients at a time.
    pub connections: usize,
    /// Connections of clients at a time from one address; 0 for no bound of its own.
    pub connections_per_address: usize,
    /// Requests, streams among them, that are open at a time on one connection.
    pub streams_per_connection: u32,
    /// How long a connection may take to open (TLS) and to say its first word.
    pub handshake_ms: u64,
    /// How long a connection stays on which nothing is asked.
    pub idle_ms: u64,
}

/// How the states of members are compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VerifySection {
    /// How often a leader sets a mark in the log at which all members compare their states, in
    /// milliseconds; 0 for never, which leaves it to `quorate verify`.
    pub every_ms: u64,
}

/// Certificates. Without them connections are not encrypted, and a node listens on loopback only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsSection {
    /// This node's certificate (PEM), with those between it and the authority; empty for no TLS.
    pub cert: PathBuf,
    /// Its private key (PEM).
    pub key: PathBuf,
    /// Authorities whose certificates clients may show (PEM).
    pub ca: PathBuf,
    /// Whether a client must show a certificate.
    pub client_certificate: ClientCertificate,
    /// The certificate shown to other nodes, if it is another one.
    pub peer_cert: PathBuf,
    /// Its private key.
    pub peer_key: PathBuf,
    /// Authorities of the nodes' certificates, if they are others.
    pub peer_ca: PathBuf,
    /// Hosts whose certificates are nodes', beside members' and certificates with a node's URI.
    pub peer_hosts: Vec<String>,
    /// Take connections without TLS beside those with it: while a cluster is moved to TLS.
    pub accept_plaintext: bool,
    /// How often the files are looked at.
    pub reload_ms: u64,
    /// An alarm is on from so many days before a certificate ends.
    pub expiring_days: u64,
}

/// Whether a client must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientCertificate {
    /// Who shows none is not let in.
    #[default]
    Required,
    /// Who shows none is let in without a name.
    Optional,
}

/// What a node must be told before it does it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SecuritySection {
    /// Listen beyond loopback without TLS.
    pub insecure: bool,
    /// Switch access control off when the node starts, for administrators who have lost their way
    /// in. Take it out again: it does so at every start.
    pub switch_access_off: bool,
}

/// Backups by schedule. The leader makes them: all nodes need the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BackupSection {
    /// Where they go: a directory that is there and that all nodes share, or `s3://BUCKET/PREFIX`;
    /// empty for no backups. Credentials come from the environment or the machine, never from here.
    pub to: String,
    /// Of a store that speaks S3 and is not Amazon's: `https://HOST:PORT`.
    pub endpoint: String,
    /// A backup is made once the newest good one is so old.
    pub every_s: u64,
    /// So many of the newest are kept; 0 for no bound by number.
    pub keep: usize,
    /// Those that are older are removed, but never the newest good one; 0 for no bound by age.
    pub keep_days: u64,
    /// The alarm `backup_old` is on while the newest good one is older.
    pub alarm_after_s: u64,
}

/// What `quorate serve` says of itself on standard error. A program that embeds a node logs as it
/// likes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSection {
    /// Levels, for all and by module: `info,openraft=warn`.
    pub filter: String,
    /// For people or for programs.
    pub format: LogFormat,
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Where `quorate serve` sends the spans of traced requests. A program that embeds a node sets the
/// tracer provider of OpenTelemetry as it likes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TraceSection {
    /// A collector that takes OTLP over gRPC, `http://host:port`; empty for none.
    pub otlp: String,
}

impl TraceSection {
    fn check(&self) -> Result<(), InvalidArgument> {
        // A name and a password would be sent in the clear, and shown by --print-config.
        let named = self.otlp.contains('@');
        let authority = self.otlp.strip_prefix("http://");
        check(
            self.otlp.is_empty() || authority.is_some_and(|it| !it.is_empty() && !named),
            "trace.otlp",
            "http://host:port of a collector, best on this machine, or empty",
            if named {
                "one with a user's name"
            } else {
                &self.otlp
            },
        )
    }
}

impl Default for LogSection {
    fn default() -> Self {
        Self {
            filter: "info,openraft=warn".to_owned(),
            format: LogFormat::Human,
        }
    }
}

impl Default for NodeSection {
    fn default() -> Self {
        Self {
            name: String::new(),
            data_dir: PathBuf::from("quorate-data"),
            command_version: 0,
            bootstrap: false,
        }
    }
}

impl Default for ListenSection {
    fn default() -> Self {
        Self {
            client: "127.0.0.1:7400".to_owned(),
            peer: "127.0.0.1:7401".to_owned(),
            http: "127.0.0.1:7402".to_owned(),
            advertise_client: String::new(),
            advertise_peer: String::new(),
            advertise_http: String::new(),
        }
    }
}

impl Default for RaftSection {
    /// A follower waits for the leader's lease (the longest election wait) and then for its own
    /// wait: with 250 to 500 ms a new leader is there 0.75 to 1 s after the old one died.
    /// Heartbeats every 100 ms leave room for two lost ones.
    fn default() -> Self {
        Self {
            heartbeat_ms: 100,
            election_min_ms: 250,
            election_max_ms: 500,
            snapshot_entries: 200_000,
            keep_entries: 300_000,
        }
    }
}

impl Default for LimitsSection {
    fn default() -> Self {
        Self {
            commands_in_flight: admission::COMMANDS_MAX,
            bytes_in_flight: admission::BYTES_MAX,
            commands_in_flight_per_principal: admission::COMMANDS_MAX / 2,
            bytes_in_flight_per_principal: admission::BYTES_MAX / 2,
            watches: notices::WATCHES_MAX,
            disk_reserve_bytes: room::RESERVE_BYTES,
            connections: 4_096,
            connections_per_address: 0,
            streams_per_connection: 256,
            handshake_ms: 5_000,
            idle_ms: 300_000,
        }
    }
}

impl LimitsSection {
    pub(crate) fn of_node(&self) -> Bounds {
        Bounds {
            commands: self.commands_in_flight,
            bytes: self.bytes_in_flight,
        }
    }

    pub(crate) fn of_principal(&self) -> Bounds {
        let bound = |own, all| if own == 0 { all } else { own };
        Bounds {
            commands: bound(
                self.commands_in_flight_per_principal,
                self.commands_in_flight,
            ),
            bytes: bound(self.bytes_in_flight_per_principal, self.bytes_in_flight),
        }
    }

    /// What is in flight.
    fn validate_in_flight(&self) -> Result<(), InvalidArgument> {
        check(
            self.commands_in_flight >= 1,
            "limits.commands_in_flight",
            "at least 1",
            self.commands_in_flight,
        )?;
        // All but an eighth, the part of upkeep, takes one command.
        let bytes_min = quorate_statemachine::limits::COMMAND_BYTES_MAX;
        let takes_one = |bytes: usize| bytes - bytes / 8 >= bytes_min;
        let wanted = format!("at least {bytes_min}, one command, and a seventh more");
        let (all, own) = (self.bytes_in_flight, self.bytes_in_flight_per_principal);
        check(takes_one(all), "limits.bytes_in_flight", &wanted, all)?;
        check(
            own == 0 || takes_one(own),
            "limits.bytes_in_flight_per_principal",
            &format!("0, or {wanted}"),
            own,
        )
    }

    /// What the ports take.
    fn validate(&self) -> Result<(), InvalidArgument> {
        self.validate_in_flight()?;
        let (connections, streams) = (self.connections, self.streams_per_connection);
        check(
            connections >= 1,
            "limits.connections",
            "at least 1",
            connections,
        )?;
        // A client has two streams, and one for each watch.
        let option = "limits.streams_per_connection";
        check(streams >= 8, option, "at least 8", streams)?;
        let handshake = self.handshake_ms;
        check(
            handshake >= 100,
            "limits.handshake_ms",
            "at least 100",
            handshake,
        )?;
        check(
            self.idle_ms >= 100,
            "limits.idle_ms",
            "at least 100",
            self.idle_ms,
        )
    }
}

impl Default for VerifySection {
    /// A mark is one small entry, and one small call from each member to each other.
    fn default() -> Self {
        Self { every_ms: 60_000 }
    }
}

impl VerifySection {
    fn validate(&self) -> Result<(), InvalidArgument> {
        let every = self.every_ms;
        let possible = every == 0 || every >= 100;
        check(possible, "verify.every_ms", "at least 100, or 0", every)
    }
}

impl Default for TlsSection {
    fn default() -> Self {
        let none = PathBuf::new;
        Self {
            cert: none(),
            key: none(),
            ca: none(),
            client_certificate: ClientCertificate::default(),
            peer_cert: none(),
            peer_key: none(),
            peer_ca: none(),
            peer_hosts: Vec::new(),
            accept_plaintext: false,
            reload_ms: 2_000,
            expiring_days: 14,
        }
    }
}

impl TlsSection {
    /// Whether connections are encrypted.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.cert.as_os_str().is_empty()
    }

    /// Certificate, key and authorities between nodes.
    #[must_use]
    pub fn peer_files(&self) -> (&Path, &Path, &Path) {
        (
            given(&self.peer_cert).unwrap_or(&self.cert),
            given(&self.peer_key).unwrap_or(&self.key),
            given(&self.peer_ca).unwrap_or(&self.ca),
        )
    }

    /// All files, some more than once.
    #[must_use]
    pub fn files(&self) -> [&Path; 6] {
        let (cert, key, ca) = self.peer_files();
        [&self.cert, &self.key, &self.ca, cert, key, ca]
    }

    fn validate(&self) -> Result<(), InvalidArgument> {
        let need = |option: &str, path: &Path, for_what: &str| {
            let wanted = format!("a file, since {for_what} is set");
            let there = given(path).is_some();
            check(there, option, &wanted, "empty")
        };
        for (option, path) in [
            ("tls.key", &self.key),
            ("tls.ca", &self.ca),
            ("tls.peer_cert", &self.peer_cert),
            ("tls.peer_ca", &self.peer_ca),
        ] {
            if given(path).is_some() {
                need("tls.cert", &self.cert, option)?;
            }
        }
        if self.is_on() {
            need("tls.key", &self.key, "tls.cert")?;
            need("tls.ca", &self.ca, "tls.cert")?;
        }
        if given(&self.peer_cert).is_some() {
            need("tls.peer_key", &self.peer_key, "tls.peer_cert")?;
        }
        if given(&self.peer_key).is_some() {
            need("tls.peer_cert", &self.peer_cert, "tls.peer_key")?;
        }
        let reload = self.reload_ms;
        check(reload >= 50, "tls.reload_ms", "at least 50", reload)
    }
}

impl Default for BackupSection {
    /// Two days of hourly ones. Two that came to nothing in a row are worth a look.
    fn default() -> Self {
        Self {
            to: String::new(),
            endpoint: String::new(),
            every_s: 3_600,
            keep: 48,
            keep_days: 0,
            alarm_after_s: 3 * 3_600,
        }
    }
}

impl BackupSection {
    /// Whether backups are made.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.to.is_empty()
    }

    fn validate(&self) -> Result<(), InvalidArgument> {
        if self.is_on() {
            backup::Place::parse("backup.to", &self.to)?;
        }
        backup::check_endpoint("backup.endpoint", &self.endpoint)?;
        let (every_s, alarm_after_s) = (self.every_s, self.alarm_after_s);
        check(every_s >= 1, "backup.every_s", "at least 1", every_s)?;
        check(
            alarm_after_s > every_s,
            "backup.alarm_after_s",
            "more than backup.every_s",
            alarm_after_s,
        )
    }
}

fn given(path: &Path) -> Option<&Path> {
    (!path.as_os_str().is_empty()).then_some(path)
}

impl Config {
    /// Checks the relations between options.
    pub fn validate(&self) -> Result<(), InvalidArgument> {
        if !self.node.name.is_empty() {
            quorate_statemachine::Name::parse("node.name", self.node.name.clone())?;
        }
        self.node.check_command_version()?;
        self.backup.validate()?;
        self.trace.check()?;
        let raft = &self.raft;
        check(
            raft.heartbeat_ms >= 10,
            "raft.heartbeat_ms",
            "at least 10",
            raft.heartbeat_ms,
        )?;
        check(
            raft.election_min_ms >= 2 * raft.heartbeat_ms,
            "raft.election_min_ms",
            "at least twice raft.heartbeat_ms",
            raft.election_min_ms,
        )?;
        check(
            raft.election_max_ms > raft.election_min_ms,
            "raft.election_max_ms",
            "more than raft.election_min_ms",
            raft.election_max_ms,
        )?;
        check(
            raft.snapshot_entries >= 1,
            "raft.snapshot_entries",
            "at least 1",
            raft.snapshot_entries,
        )?;
        check(
            self.limits.watches >= 1,
            "limits.watches",
            "at least 1",
            self.limits.watches,
        )?;
        self.limits.validate()?;
        self.verify.validate()?;
        self.tls.validate()
    }

    /// How long a leader may be silent until this node takes itself for one without a leader.
    pub(crate) fn silence_max(&self) -> Duration {
        4 * Duration::from_millis(self.raft.election_max_ms)
    }

    /// openraft's configuration.
    pub(crate) fn raft_config(&self, cluster_id: &str) -> openraft::Config {
        let raft = &self.raft;
        openraft::Config {
            cluster_name: cluster_id.to_owned(),
            heartbeat_interval: raft.heartbeat_ms,
            election_timeout_min: raft.election_min_ms,
            election_timeout_max: raft.election_max_ms,
            // A node that was cut off and comes back must not disturb a working leader.
            enable_pre_vote: Some(true),
            // A leader that was killed may have sent entries that its own disk does not have:
            // openraft replicates while the local log is still being synced. If it went on in the
            // same term, it would give their log ids to other entries, and the logs would differ
            // for ever without anybody noticing. So it stands for election like everybody else.
            enable_leader_restore: Some(false),
            // A leader that a one-way partition has cut off falls silent so that others can vote
            // (the Jepsen partial-network case); twice the lower bound that openraft sets.
            quorum_loss_probe_interval: Some(4 * raft.election_max_ms),
            snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(raft.snapshot_entries),
            max_in_snapshot_log_to_keep: raft.keep_entries,
            // A snapshot is sent only when the log behind it is gone.
            replication_lag_threshold: raft.snapshot_entries + raft.keep_entries,
            purge_batch_size: (raft.keep_entries / 4).max(1),
            max_payload_entries: 1_024,
            // Snapshots are streamed in chunks by our own network; this bounds the whole transfer.
            install_snapshot_timeout: ms(Duration::from_secs(600)),
            ..openraft::Config::default()
        }
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn check(
    holds: bool,
    field: &str,
    limit: &str,
    actual: impl std::fmt::Display,
) -> Result<(), InvalidArgument> {
    if holds {
        return Ok(());
    }
    Err(InvalidArgument::new(
        field,
        "is out of range",
        limit,
        actual.to_string(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_openraft_takes_them() {
        let config = Config::default();
        assert_eq!(config.validate(), Ok(()));
        assert!(config.raft_config("c").validate().is_ok());
    }

    #[test]
    fn a_collector_is_reached_by_http_or_not_at_all() {
        let with = |otlp: &str| {
            let mut config = Config::default();
            config.trace.otlp = otlp.to_owned();
            config.validate()
        };
        assert_eq!(with("http://127.0.0.1:4317"), Ok(()));
        for bad in ["127.0.0.1:4317", "https://collector:4317", "http://"] {
            let error = with(bad).expect_err("no http:// and an address");
            assert_eq!((&*error.field, &*error.actual), ("trace.otlp", bad));
        }
        let error = with("http://me:secret@h:4317").expect_err("a password");
        assert_eq!(error.actual, "one with a user's name");
    }

    #[test]
    fn an_election_faster_than_the_heartbeat_is_refused_with_both_values() {
        let mut config = Config::default();
        config.raft.election_min_ms = 150;
        let error = config.validate().expect_err("less than two heartbeats");
        assert_eq!(error.field, "raft.election_min_ms");
        assert_eq!(error.actual, "150");
    }
}
