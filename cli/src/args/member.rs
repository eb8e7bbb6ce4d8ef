//! `quorate member …`

use clap::{Args, Subcommand};

/// Verbs of members.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// All members, as the cluster knows them
    List,
    /// Take a blank node in as a learner, which follows the log and has no vote
    Add(Add),
    /// Make a learner a voter, once it has caught up
    Promote {
        /// The member
        id: u64,
        /// Say what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Take a member out
    Remove {
        /// The member
        id: u64,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Say what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Hand leadership over
    TransferLeader {
        /// The member that shall lead [default: the most advanced voter]
        id: Option<u64>,
        /// Say what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
}

/// Arguments of `member add`.
#[derive(Debug, Args)]
pub struct Add {
    /// The node's name
    pub name: String,
    /// Where the other members reach it
    #[arg(long, value_name = "HOST:PORT")]
    pub peer: String,
    /// Where clients reach it
    #[arg(long, value_name = "HOST:PORT")]
    pub client: String,
    /// Where its health and metrics are read
    #[arg(
        long,
        value_name = "HOST:PORT",
        default_value = "",
        hide_default_value = true
    )]
    pub http: String,
    /// Wait until it has caught up, and make it a voter
    #[arg(long)]
    pub promote: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}
