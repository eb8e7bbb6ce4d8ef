//! `quorate dev`

use std::path::PathBuf;

use clap::Args;

/// Arguments of `dev`.
#[derive(Debug, Args)]
pub struct Dev {
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    pub nodes: u16,
    /// Client port of the first node; its other ports follow, the next node is 10 higher
    #[arg(long, default_value_t = 7400, value_parser = clap::value_parser!(u16).range(1..=65_000))]
    pub base_port: u16,
    /// Where the nodes keep their data between runs
    #[arg(long, value_name = "DIR", default_value = "quorate-dev")]
    pub data_dir: PathBuf,
    /// Keep the data in a temporary directory and remove it at the end
    #[arg(long, conflicts_with = "data_dir")]
    pub ephemeral: bool,
    /// Stop, as on SIGTERM, when stdin ends: with the process that holds its other end
    #[arg(long)]
    pub exit_with_parent: bool,
}
