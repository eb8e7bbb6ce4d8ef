//! The wire of Quorate.
//!
//! | service | for whom |
//! |---|---|
//! | [`v1::coordination_server::Coordination`] | clients: execute, read, watch |
//! | [`v1::cluster_server::Cluster`] | operators: status and membership |
//! | [`v1::peer_server::Peer`] | the nodes of one cluster, nobody else |
//!
//! [`NodeError`] is what a node says when it cannot just now; [`status`] maps it and refusals to
//! the wire and to `tonic::Status`, in both directions.

#[allow(missing_docs, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("quorate.v1");
}

pub mod certificate;
pub mod frame;
pub mod identity;
pub mod status;

pub use status::{LeaderHint, NodeError};
