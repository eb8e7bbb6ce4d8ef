//! `quorate offline`.

use std::path::PathBuf;

use clap::Subcommand;

/// What to look for in a stopped node's directory.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// What the directory holds: node, log, state by table, snapshots
    Inspect {
        /// The data directory of a stopped node
        dir: PathBuf,
    },
    /// Read all of log, state and snapshots, and check that they are whole
    Verify {
        /// The data directory of a stopped node
        dir: PathBuf,
    },
    /// Apply the log again from the newest snapshot, and compare with the state
    Replay {
        /// The data directory of a stopped node
        dir: PathBuf,
    },
}
