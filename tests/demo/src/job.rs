//! What a run is about: names in the cluster, and what orchestrator and workers say to each other.

use std::time::Duration;

use quorate_client::statemachine::queue::ItemId;
use quorate_client::statemachine::{FencingToken, InvalidArgument, Name};
use serde::{Deserialize, Serialize};

/// Visibility TTL of a claim: short, so that a lost worker's item comes back soon.
pub const TTL: Duration = Duration::from_secs(3);

/// Event of a file that was hashed.
pub const HASHED: &str = "hashed";

/// Event of a file that has gone since it was listed.
pub const UNREADABLE: &str = "unreadable";

/// The queue and the process record of one run.
#[derive(Debug, Clone)]
pub struct Job {
    /// Holds an item for each file.
    pub queue: Name,
    /// Holds an event for each hashed file.
    pub process: Name,
}

impl Job {
    /// Names of their own for each run: dedupe keys outlive a run.
    pub fn new(run: &str) -> Result<Self, InvalidArgument> {
        Ok(Self {
            queue: Name::parse("queue", format!("demo/files/{run}"))?,
            process: Name::parse("process", format!("demo/hash/{run}"))?,
        })
    }
}

/// What an item holds.
#[derive(Debug, Serialize, Deserialize)]
pub struct Task {
    /// The file.
    pub path: String,
}

/// What an event holds.
#[derive(Debug, Serialize, Deserialize)]
pub struct Finding {
    /// The item; a string, since many readers of JSON lose 64-bit numbers.
    pub item: String,
    /// The file.
    pub path: String,
    /// Its digest in hex, or why there is none.
    pub sha256: Result<String, String>,
    /// Who found it.
    pub worker: String,
    /// Under which claim.
    pub token: String,
}

/// A line on a worker's stdout.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// The item was settled with its event.
    Done {
        /// The item.
        item: ItemId,
    },
    /// It is about to write and waits for an order to go on.
    Holding {
        /// The item.
        item: ItemId,
        /// The claim.
        token: FencingToken,
    },
    /// The write was refused: the claim is over.
    Stale {
        /// The item.
        item: ItemId,
        /// The claim.
        token: FencingToken,
    },
    /// There was no answer in time. The item is settled, or comes back when its claim is over.
    Unknown {
        /// The item, if it was not the claim that had no answer.
        item: Option<ItemId>,
    },
}

/// A line on a worker's stdin. The end of stdin ends the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Wait before the next write.
    Hold,
    /// Write.
    Go,
}
