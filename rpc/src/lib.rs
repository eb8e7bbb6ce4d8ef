//! The wire of Quorate.
//!
//! | service | for whom |
//! |---|---|
//! | [`v1::coordination_server::Coordination`] | clients: execute, read, watch |
//! | [`v1::leases_server::Leases`], [`v1::locks_server::Locks`] | clients in any language |
//! | [`v1::queues_server::Queues`], [`v1::processes_server::Processes`] | the same |
//! | [`v1::watch_server::Watch`] | the same: events |
//! | [`v1::cluster_server::Cluster`] | operators: status and membership |
//! | [`v1::peer_server::Peer`] | the nodes of one cluster, nobody else |
//!
//! [`NodeError`] is what a node says when it cannot just now; [`status`] maps it and refusals to
//! the wire and to `tonic::Status`, in both directions.

#[allow(missing_docs, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("quorate.v1");
}

/// Descriptors of all services but those between nodes, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/published.bin"));

/// Descriptors of all services, those between nodes among them: for tests that call each of them.
pub const ALL_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/all.bin"));

pub mod certificate;
pub mod details;
pub mod frame;
pub mod identity;
pub mod net;
pub mod status;
pub mod tls;
pub mod token;
mod trace;

pub use status::{LeaderHint, NodeError};
pub use trace::Trace;
