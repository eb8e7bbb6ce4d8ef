//! What is measured, as JSON lines: one [`Record`] a line, so that a run that was cut short still
//! has what it measured, and a table can be written from any number of runs.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// One measurement, or what holds for those after it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record {
    /// Where and how the records that follow were made.
    Conditions(Conditions),
    /// One operation in a closed loop.
    Point(Point),
    /// Memory with so many live leases.
    Memory(Memory),
    /// Many clients on one lock.
    Handovers(Handovers),
    /// Memory before and after many lock names were used.
    Names(Names),
    /// A restart of all nodes.
    Restart(Restart),
    /// A call of lash's process registry in a closed loop.
    Processes(Processes),
    /// Turns of lash's sessions in a closed loop.
    Sessions(Sessions),
}

/// Where and how a run was made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Conditions {
    pub date: String,
    pub commit: String,
    pub etcd: String,
    pub cpu_model: String,
    pub cores: usize,
    pub kernel: String,
    pub memory_mib: u64,
    /// Load average over a minute before anything was started.
    pub load: f64,
    /// Appends of 2,300 bytes, each with its own fdatasync, by one thread before the run.
    pub syncs_per_second: f64,
    pub sync_p50_us: u64,
    pub sync_p99_us: u64,
    pub seconds: u32,
    pub rounds: u32,
}

/// One operation, so many clients, one round.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Point {
    pub system: System,
    pub test: Test,
    pub clients: u32,
    pub round: u32,
    /// Live leases beside those of the test.
    pub leases: u64,
    pub ops_per_second: f64,
    pub p50_us: u64,
    pub p99_us: u64,
    pub errors: u64,
    pub first_error: Option<String>,
    pub cpu: Cpu,
}

/// Who used the processors, in cores.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Cpu {
    /// The three measured nodes.
    pub nodes: f64,
    /// Who loads them.
    pub clients: f64,
    /// Everything else on the machine, the idle nodes of the other system included.
    pub others: f64,
}

/// How often one lock changed hands, and how evenly.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Handovers {
    pub system: System,
    pub clients: u32,
    pub round: u32,
    pub per_second: f64,
    /// Jain's index of the clients' shares: 1 when all got the same.
    pub jain: f64,
    /// What the client with the least got.
    pub least: f64,
    /// What the client with the most got.
    pub most: f64,
    pub cpu: Cpu,
}

/// One call of a process registry, so many tasks, one round.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Processes {
    pub registry: Registry,
    /// Of PostgreSQL.
    pub version: String,
    pub call: Call,
    pub tasks: u32,
    pub round: u32,
    pub per_second: f64,
    pub p50_us: u64,
    pub p99_us: u64,
}

/// Whose process registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Registry {
    Quorate,
    Postgres,
}

/// Which call of a process registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    Claim,
    Renew,
    Append,
}

impl Call {
    /// In the order of the table.
    pub const ALL: [Self; 3] = [Self::Claim, Self::Renew, Self::Append];

    /// As the table calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Claim => "claim",
            Self::Renew => "renew",
            Self::Append => "append",
        }
    }
}

/// Turns of so many sessions at a time, one round.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sessions {
    pub store: Store,
    /// Version and durability of PostgreSQL.
    pub postgres: String,
    pub turn: Turn,
    pub sessions: u32,
    pub round: u32,
    pub per_second: f64,
    pub p50_us: u64,
    pub p99_us: u64,
    /// Of a session at the end, on average.
    pub nodes: f64,
}

/// Whose session store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Store {
    Quorate,
    Postgres,
    Sqlite,
}

impl Store {
    /// In the order in which they take turns.
    pub const ALL: [Self; 3] = [Self::Quorate, Self::Postgres, Self::Sqlite];

    /// Sessions' ids begin with it.
    pub fn id(self) -> &'static str {
        match self {
            Self::Quorate => "quorate",
            Self::Postgres => "postgres",
            Self::Sqlite => "sqlite",
        }
    }
}

/// What a turn of a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Turn {
    /// A commit alone.
    Commit,
    /// Work is enqueued and claimed, and the commit completes the claim.
    Queued,
}

impl Turn {
    /// In the order of the table.
    pub const ALL: [Self; 2] = [Self::Commit, Self::Queued];

    /// Sessions' ids have it.
    pub fn id(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Queued => "queued",
        }
    }

    /// As the table calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Commit => "commit of a small turn",
            Self::Queued => "enqueue + claim + commit",
        }
    }
}

/// Resident memory of each node before and after names were used once each.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Names {
    pub names: u64,
    pub per_second: f64,
    pub before_kib: Vec<u64>,
    pub after_kib: Vec<u64>,
}

/// Resident memory of each node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Memory {
    pub system: System,
    pub leases: u64,
    pub nodes_kib: Vec<u64>,
    /// How fast the leases since the last record were made.
    pub leases_per_second: f64,
}

/// From the start of all processes until every node answered a linearizable read and a write was
/// acknowledged.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Restart {
    pub system: System,
    pub rows: u64,
    pub killed: bool,
    pub seconds: f64,
}

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum System {
    Quorate,
    Etcd,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Test {
    Lock,
    Renew,
    /// As [`Self::Renew`], but etcd's clients ask all members, as they do unless told otherwise. A
    /// client of ours finds the leader by itself.
    RenewSpread,
    Append,
    Queue,
    Read,
}

impl Test {
    /// In the order of the table.
    pub const ALL: [Self; 6] = [
        Self::Lock,
        Self::Renew,
        Self::RenewSpread,
        Self::Append,
        Self::Queue,
        Self::Read,
    ];

    /// As `quorate bench` calls it.
    pub fn verb(self) -> &'static str {
        match self {
            Self::RenewSpread => "renew",
            other => other.as_str(),
        }
    }

    /// As the table calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lock => "lock",
            Self::Renew => "renew",
            Self::RenewSpread => "renew, etcd spread",
            Self::Append => "append",
            Self::Queue => "queue",
            Self::Read => "read",
        }
    }

    /// Log entries, or shares of one, that an operation of ours takes.
    pub fn commands(self) -> u32 {
        match self {
            Self::Lock => 2,
            Self::Renew | Self::RenewSpread | Self::Append => 1,
            Self::Queue => 3,
            Self::Read => 0,
        }
    }
}

/// Appends `record` to the file, and says it.
pub fn write(out: &Path, record: &Record) -> Result<()> {
    let line = serde_json::to_string(record)?;
    println!("{line}");
    let mut file = OpenOptions::new().create(true).append(true).open(out)?;
    writeln!(file, "{line}").with_context(|| format!("writing {}", out.display()))
}

/// All records of a file.
pub fn read(path: &Path) -> Result<Vec<Record>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let parse = |line: &str| serde_json::from_str(line).with_context(|| format!("record {line}"));
    text.lines().map(parse).collect()
}
