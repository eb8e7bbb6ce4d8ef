//! Every option of a node: its default, its reason, and the relations between them.

mod check;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{admission, notices, room};

pub(crate) use check::no_place;

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
    /// The alarm `backup_old` is on while the newest good one is older, or not known.
    pub alarm_after_s: u64,
}

/// What `quorate serve` says of itself on standard error. A program that embeds a node logs as it
/// likes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSection {
    /// Levels, for all and by module: `info,openraft=error`.
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

impl Default for LogSection {
    fn default() -> Self {
        Self {
            filter: "info,openraft=error".to_owned(),
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

impl Default for VerifySection {
    /// A mark is one small entry, and one small call from each member to each other.
    fn default() -> Self {
        Self { every_ms: 60_000 }
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
}

fn given(path: &Path) -> Option<&Path> {
    (!path.as_os_str().is_empty()).then_some(path)
}

impl Config {
    /// How long a leader may be silent until this node takes itself for one without a leader.
    pub(crate) fn silence_max(&self) -> Duration {
        4 * Duration::from_millis(self.raft.election_max_ms)
    }
}
