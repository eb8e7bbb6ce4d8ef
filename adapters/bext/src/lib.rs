//! Distributed locks for [bext](bext_plugin_api) hosts: [`QuorateLocks`] is a
//! [`LockingPlugin`](bext_plugin_api::LockingPlugin) on a Quorate cluster.
//!
//! ```no_run
//! use bext_plugin_api::LockingPlugin;
//! use quorate_bext::{LockId, QuorateLocks};
//!
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let locks = QuorateLocks::connect(["10.0.0.1:7400", "10.0.0.2:7400", "10.0.0.3:7400"])
//!     .owner("web-3")
//!     .build()?;
//!
//! match locks.try_lock("cron/nightly-report", 30_000)? {
//!     None => println!("another host makes the report"),
//!     Some(handle) => {
//!         // Send the token along with every write, so that a late one can be refused.
//!         let token = LockId::of(&handle)?.fencing_token;
//!         println!("this host makes it, under fencing token {token}");
//!         locks.renew(&handle)?;
//!         locks.release(handle)?;
//!     }
//! }
//! locks.cleanup()?;
//! # Ok(())
//! # }
//! ```
//!
//! With a node embedded in the host, `QuorateLocks::over(node.client())` does the same without a
//! socket.
//!
//! # What a call does
//!
//! Every call blocks its thread until the cluster has answered, at most for
//! [`Builder::timeout`] and half a second. The work is done on a thread of the plugin's own, so
//! that a call may come from any thread, inside a tokio runtime or outside, from many at once. On
//! a worker of a multi-threaded runtime the call gives the worker's other tasks away first
//! ([`tokio::task::block_in_place`]). A current-thread runtime stands still meanwhile: an embedded
//! node must not run on the one thread that waits for it, see [`QuorateLocks::over`].
//!
//! Nothing is renewed behind the host's back: who holds a lock for longer than its TTL renews it,
//! well before the TTL is over.
//!
//! # Answers
//!
//! - `Ok(None)` from `try_lock`: somebody else has it. Nothing else is contention.
//! - `Err`: an argument out of bounds (field, limit and actual value), a lock that is lost
//!   (`renew` only), or a cluster that did not answer, with what was tried and what to look at. A
//!   `try_lock` whose outcome is unknown leaves nothing behind: if the lock was granted all the
//!   same, it is released in the background.
//! - A release of what is not held, is held by somebody else by now, or never was, is `Ok`.
//!
//! # Other implementations
//!
//! [`conformance`] is a suite for any `LockingPlugin`, with no types of Quorate in it.

mod builder;
pub mod conformance;
mod engine;
mod holds;
mod lock_id;
mod locks;

pub use builder::Builder;
pub use lock_id::{BadLockId, LockId};
pub use locks::QuorateLocks;
