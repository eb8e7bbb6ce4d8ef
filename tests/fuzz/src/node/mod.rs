//! Targets of the node.

pub mod entries;
pub mod h2;
pub mod http;
mod raw;
pub mod rpc;
pub mod seeds;
mod served;
pub mod snapshot;
