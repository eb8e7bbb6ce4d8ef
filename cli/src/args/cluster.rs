//! `quorate cluster …`

use std::time::Duration;

use clap::{Args, Subcommand};

use super::duration;

/// Verbs of a cluster as a whole.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Make one cluster of the nodes at --endpoints: found it if all are blank, add those that are
    Form(Form),
}

const FORM: &str = "\
Safe to repeat, and to be run by a job each time nodes are started: nodes that belong to the
cluster stay as they are. A cluster is founded only when every endpoint answers and none belongs to
one; so a node that lost its disk never founds a second cluster.";

/// Arguments of `cluster form`.
#[derive(Debug, Args)]
#[command(after_help = FORM)]
pub struct Form {
    /// Wait for so long until all endpoints answer
    #[arg(long, value_parser = duration, value_name = "DURATION", default_value = "0s")]
    pub wait: Duration,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}
