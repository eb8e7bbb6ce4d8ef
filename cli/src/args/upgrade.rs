//! `quorate upgrade`.

use clap::Subcommand;

/// What to do about the cluster's version.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// The cluster's version, and which members hold it back
    Status,
    /// Keep the cluster's version as it is, so that the older build can come back
    Hold,
    /// Let the version rise again once every member knows the higher one
    Resume,
}
