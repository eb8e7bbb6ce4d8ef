//! `quorate cert …`

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Verbs of certificates.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Make an authority: ca.pem, which everybody may have, and ca.key, which signs
    Ca(Ca),
    /// Make the certificate of a node: NAME.pem and NAME.key
    Node(Node),
    /// Make the certificate of a client: NAME.pem and NAME.key
    Client(Client),
    /// Print whose the certificates in a file are, and until when they hold
    Show {
        /// PEM
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// Where files go.
#[derive(Debug, Args)]
pub struct Output {
    /// Where to put the files
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub out: PathBuf,
    /// For how many days it holds
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub days: Option<u32>,
    /// Replace files that are there
    #[arg(long)]
    pub force: bool,
}

/// Arguments of `cert ca`.
#[derive(Debug, Args)]
pub struct Ca {
    /// The trust domain: nodes are spiffe://DOMAIN/node/NAME
    #[arg(long, default_value = "quorate")]
    pub domain: String,
    /// Where files go.
    #[command(flatten)]
    pub output: Output,
}

/// Which authority signs.
#[derive(Debug, Args)]
pub struct Signer {
    /// Where ca.pem and ca.key are
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub ca: PathBuf,
}

/// Arguments of `cert node`.
#[derive(Debug, Args)]
pub struct Node {
    /// The node's name, as node.name in its configuration
    pub name: String,
    /// A DNS name or an address under which clients and nodes reach it; may be given again
    #[arg(
        long = "host",
        value_name = "HOST",
        required = true,
        value_delimiter = ','
    )]
    pub hosts: Vec<String>,
    /// Which authority signs.
    #[command(flatten)]
    pub signer: Signer,
    /// Where files go.
    #[command(flatten)]
    pub output: Output,
}

/// Arguments of `cert client`.
#[derive(Debug, Args)]
pub struct Client {
    /// The client's name: the common name of its certificate
    pub name: String,
    /// Which authority signs.
    #[command(flatten)]
    pub signer: Signer,
    /// Where files go.
    #[command(flatten)]
    pub output: Output,
}
