//! `quorate session …`

use clap::Subcommand;

/// Verbs of sessions.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Sessions in the order of their names: lane, revision, counters, last commit
    List {
        /// Only names that start with this
        #[arg(default_value = "", hide_default_value = true)]
        prefix: String,
        /// Rows at most; 0 for all
        #[arg(long, default_value_t = 0)]
        limit: u64,
    },
    /// One session: counters, head, note, usage, and who holds the execution lease of its lane
    Get {
        /// The session
        name: String,
        /// The nodes of its graph too, without tombstones; with `-o name` their ids alone
        #[arg(long)]
        graph: bool,
    },
    /// Inputs that are neither completed nor cancelled, in order of lane and push
    Inputs {
        /// The session
        name: String,
        /// Only of this lane
        #[arg(long)]
        lane: Option<String>,
        /// Completed and cancelled ones too, until the session is vacuumed
        #[arg(long)]
        all: bool,
        /// Rows at most; 0 for all
        #[arg(long, default_value_t = 0)]
        limit: u64,
    },
    /// Queued work, delayed and claimed work included, in order of lane and push
    Work {
        /// The session
        name: String,
        /// Only of this lane
        #[arg(long)]
        lane: Option<String>,
        /// Rows at most; 0 for all
        #[arg(long, default_value_t = 0)]
        limit: u64,
    },
}
