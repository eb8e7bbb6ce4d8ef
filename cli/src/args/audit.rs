//! `quorate audit`

use std::time::Duration;

use clap::Args;

use super::duration;

/// Who did what and when.
#[derive(Debug, Args)]
pub struct Audit {
    /// Only what this user asked for
    #[arg(long, value_name = "NAME", conflicts_with = "anonymous")]
    pub user: Option<String>,
    /// Only what callers without a name asked for
    #[arg(long)]
    pub anonymous: bool,
    /// Only what is about a key that starts with this
    #[arg(long, value_name = "PREFIX")]
    pub prefix: Option<String>,
    /// Only commands whose name starts with this, as lease. or lease.claim
    #[arg(long, value_name = "NAME")]
    pub command: Option<String>,
    /// Not what is older than this
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    pub since: Option<Duration>,
    /// Not what is younger than this
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    pub before: Option<Duration>,
    /// Only entries above this log index: where to go on
    #[arg(long, value_name = "INDEX", default_value_t = 0)]
    pub after: u64,
    /// Rows at most
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1_000,
        value_parser = clap::value_parser!(u32).range(1..=100_000)
    )]
    pub limit: u32,
    /// Also ticks, by which the cluster lets time pass
    #[arg(long)]
    pub ticks: bool,
}
