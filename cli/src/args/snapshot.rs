//! `quorate snapshot …`

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Verbs of snapshots as files.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Save the state of the running cluster to a file
    Save(Save),
    /// Check a file from end to end and say what is in it; needs no cluster
    Inspect(Inspect),
    /// Make the first member of a new cluster from a file; needs no cluster
    Restore(Restore),
}

const SAVE: &str = "\
Any member writes the file, and the cluster goes on meanwhile. It holds all that was acknowledged
before the call. With --consistency stale it holds what the first endpoint has: that works without a
quorum too. The file appears under its name only once it was read back and is whole.";

/// Arguments of `snapshot save`.
#[derive(Debug, Args)]
#[command(after_help = SAVE)]
pub struct Save {
    /// Where to write; must not exist
    pub file: PathBuf,
}

const STORES: &str = "\
A file in a store is s3://BUCKET/NAME. Which store, and with which credentials, is said by the
environment, as for the programs of Amazon: AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY and the like.";

/// Arguments of `snapshot inspect`.
#[derive(Debug, Args)]
#[command(after_help = STORES)]
pub struct Inspect {
    /// The file, or s3://BUCKET/NAME
    pub file: PathBuf,
}

const RESTORE: &str = "\
Makes a new cluster of one voter, with an id of its own; the old cluster's nodes cannot join it.
Start it with `quorate serve --data-dir DIR`, and add others with `quorate member add`. Stop the old
cluster first, if any of it still runs.

Every token of the new cluster is greater than every token of the old one, also of what the old one
did after the snapshot. This rests on this machine's clock: one that is behind the snapshot is
refused.

A file in a store is named as for `quorate snapshot inspect`.";

/// Arguments of `snapshot restore`.
#[derive(Debug, Args)]
#[command(after_help = RESTORE)]
pub struct Restore {
    /// The file, or s3://BUCKET/NAME
    pub file: PathBuf,
    /// What to make of it
    #[command(flatten)]
    pub first: FirstMember,
}

/// The first member of a new cluster.
#[derive(Debug, Args)]
pub struct FirstMember {
    /// The directory to make; must be empty or not exist
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// The new node's id; without it, the next one that the old cluster never gave out
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u64).range(1..))]
    pub node_id: Option<u64>,
    /// The new node's name; without it, node-ID
    #[arg(long)]
    pub name: Option<String>,
    /// Begin above this token as well: for a clock that cannot be set right
    #[arg(long, value_name = "TOKEN")]
    pub tokens_above: Option<u64>,
}
