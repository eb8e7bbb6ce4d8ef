//! `quorate serve`

use std::path::PathBuf;

use clap::Args;

/// Arguments of `serve`. A flag wins over the environment (`QUORATE_SECTION__KEY`), which wins over
/// the file, which wins over the defaults.
#[derive(Debug, Args)]
pub struct Serve {
    /// Configuration (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Check the configuration and start nothing
    #[arg(long)]
    pub check: bool,
    /// Print the configuration with the origin of each value, and start nothing
    #[arg(long)]
    pub print_config: bool,
    /// Where the node's state is
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// The node's name, unique in the cluster
    #[arg(long)]
    pub name: Option<String>,
    /// Address for clients
    #[arg(long, value_name = "HOST:PORT")]
    pub listen_client: Option<String>,
    /// Address for the other nodes
    #[arg(long, value_name = "HOST:PORT")]
    pub listen_peer: Option<String>,
    /// Address for probes (HTTP)
    #[arg(long, value_name = "HOST:PORT")]
    pub listen_http: Option<String>,
    /// Found a new cluster of this one node if the directory is empty
    #[arg(long)]
    pub bootstrap: bool,
    /// Listen beyond loopback without TLS: whoever reaches the ports can do everything
    #[arg(long)]
    pub insecure: bool,
    /// Stop, as on SIGTERM, when stdin ends: with the process that holds its other end
    #[arg(long)]
    pub exit_with_parent: bool,
}
