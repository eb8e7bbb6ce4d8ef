//! Raft over gRPC: what goes between the nodes of one cluster.
//!
//! [`peer`] is the calling side, [`raft`] what Raft sees of it; [`server`] the answering side;
//! [`wire`] the conversion of Raft's messages, entries in the very bytes of the log.

mod peer;
mod raft;
mod server;
mod snapshot;
mod wire;

pub use peer::Peers;
pub use server::PeerService;
