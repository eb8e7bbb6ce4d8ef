//! `quorate recover`

use std::path::PathBuf;

use clap::Args;

use super::snapshot::FirstMember;

const RECOVER: &str = "\
For a cluster of which so many voters are gone for good that those that are left are no quorum.
First try to bring them back with their disks: then nothing is lost. Stop the members that are left,
bring their directories to one machine, and give all of them: the most advanced one is taken.

It makes a new cluster of one voter, with an id of its own, in a new directory; those that were
given are not changed. It has all that the most advanced member has, also writes of which that
member does not know whether they were acknowledged. What only the lost members had is lost; what
that may be is said before.

Make sure that the lost members never run again: they would go on as the old cluster.";

/// Arguments of `recover`.
#[derive(Debug, Args)]
#[command(after_help = RECOVER)]
pub struct Recover {
    /// Directories of stopped members that are left; all of them
    #[arg(required = true, value_name = "DIR")]
    pub from: Vec<PathBuf>,
    /// What to make
    #[command(flatten)]
    pub first: FirstMember,
    /// Say what would be done and what may be lost, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}
