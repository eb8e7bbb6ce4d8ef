//! `quorate member …`

use clap::{Args, Subcommand};

/// Verbs of members.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// All members, as the cluster knows them
    List,
    /// Take a blank node in: a learner first, and a voter by itself once it has caught up
    Add(Add),
    /// Put a blank node in the place of a voter, in one change once it has caught up
    Replace(Replace),
    /// Tell the cluster where a member is now; voters stay as they are
    Update(Update),
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
    /// The node that comes in
    #[command(flatten)]
    pub node: NewNode,
    /// It stays a learner, which follows the log and has no vote
    #[arg(long)]
    pub learner: bool,
}

/// Arguments of `member replace`.
#[derive(Debug, Args)]
pub struct Replace {
    /// The voter that leaves
    pub old: u64,
    /// The node that comes in
    #[command(flatten)]
    pub node: NewNode,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// Arguments of `member update`.
#[derive(Debug, Args)]
pub struct Update {
    /// The member
    pub id: u64,
    /// Where the other members reach it
    #[arg(long, value_name = "HOST:PORT", required_unless_present_any = ["client", "http"])]
    pub peer: Option<String>,
    /// Where clients reach it
    #[arg(long, value_name = "HOST:PORT")]
    pub client: Option<String>,
    /// Where its health and metrics are read
    #[arg(long, value_name = "HOST:PORT")]
    pub http: Option<String>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// A blank node that comes in.
#[derive(Debug, Args)]
pub struct NewNode {
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
    /// Do not wait until it is a voter
    #[arg(long)]
    pub no_wait: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}
