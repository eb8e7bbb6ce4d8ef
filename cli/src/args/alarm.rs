//! `quorate alarm`.

use clap::Subcommand;

/// What to do with alarms.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// All alarms that are on; they end by themselves when their cause is gone
    List,
}
