//! A node of Quorate: Raft, storage, clocks and sockets around the replicated state machine.

pub mod admission;
pub mod clock;
pub mod config;
mod core;
mod embed;
mod membership;
mod network;
mod node;
mod notices;
mod propose;
pub mod raft;
mod read;
mod respond;
mod server;
mod shared;
pub mod storage;
mod ticker;

pub use config::Config;
pub use embed::Embedded;
pub use node::{Builder, Health, Node, StartError};
