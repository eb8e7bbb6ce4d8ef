//! A node of Quorate: Raft, storage, clocks and sockets around the replicated state machine.
//!
//! # Embed a node
//!
//! Alone, on a directory, without sockets. The client is the one that remote programs use; the same
//! directory can become a member of a cluster later, by starting it with addresses.
//!
//! ```
//! use std::time::Duration;
//! use quorate_client::ClaimOutcome;
//! use quorate_node::Node;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let node = Node::builder().data_dir(dir.path()).start().await?;
//! let client = node.client();
//! let lease = client.lease("reports/nightly").owner("worker-7").ttl(Duration::from_secs(15));
//! match lease.try_claim().await? {
//!     ClaimOutcome::Busy(holder) => panic!("{} has it", holder.owner.owner_id),
//!     ClaimOutcome::Granted(guard) => {
//!         assert!(guard.token() > 0);
//!         guard.release().await?;
//!     }
//! }
//! node.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod access;
pub mod admission;
pub mod alarm;
mod audit;
pub mod backup;
mod blocking;
pub mod clock;
pub mod config;
mod core;
pub mod disaster;
mod disk;
mod embed;
mod membership;
pub mod metrics;
mod network;
mod node;
mod notices;
pub mod origin;
mod plan;
mod propose;
mod quarantine;
pub mod raft;
mod read;
mod respond;
mod room;
mod server;
mod shared;
#[cfg(feature = "simulation")]
pub mod simulation;
pub mod snapshot_file;
mod spans;
mod steward;
pub mod storage;
mod ticker;
mod tls;
mod upgrade;

pub use config::{Config, Console};
pub use embed::Embedded;
pub use node::{Builder, Health, Node, StartError};
pub use tls::check as check_certificates;
