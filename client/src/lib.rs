//! The typed client of Quorate: leases, locks, queues and process records, over gRPC or in process.
//!
//! ```no_run
//! use std::time::Duration;
//! use quorate_client::{ClaimOutcome, Client, ClientError};
//!
//! # async fn example() -> Result<(), ClientError> {
//! let client = Client::connect(["10.0.0.1:7400", "10.0.0.2:7400", "10.0.0.3:7400"])?;
//!
//! let lease = client.lease("reports/nightly").owner("worker-7").ttl(Duration::from_secs(15));
//! match lease.try_claim().await? {
//!     ClaimOutcome::Busy(holder) => println!("{} has it", holder.owner.owner_id),
//!     ClaimOutcome::Granted(guard) => {
//!         let lost = guard.lost();
//!         tokio::select! {
//!             () = lost.cancelled() => eprintln!("lost, stop"),
//!             () = make_report(guard.token()) => drop(guard.release().await?),
//!         }
//!     }
//! }
//! # Ok(())
//! # }
//! # async fn make_report(fencing_token: u64) {}
//! ```
//!
//! A lock is a lease with a queue: [`Client::lock`] waits its turn and leaves nothing behind when
//! it is dropped; [`Client::election`] is a lock whose holder leads.
//!
//! # What a lease or a lock is worth
//!
//! A holder can be paused for longer than its TTL and not notice. So a lease alone excludes nobody:
//! send [`LeaseGuard::token`] along with every write, as a [`LeaseGuard::precondition`] to the
//! cluster or to a [`fence`] elsewhere, and let the stale one be refused.
//!
//! # What is retried
//!
//! Until the client's timeout ([`Client::with_timeout`], 10 s), with growing, jittered pauses:
//!
//! - **Reads**, whatever went wrong in passing.
//! - **Commands that were certainly not done**: no leader, no connection, too much load.
//! - **Commands that may have been done**, as the same bytes under the same identity, so that the
//!   second execution answers what the first did and changes nothing. A lease's claim, renewal,
//!   release and reclaim, a lock's acquisition, renewal, release and cancelled wait, a process's
//!   registration and completion, a claim's renewal, an append with a key and a push with a dedupe
//!   key have an identity of their own. Everything else gets a request id before it is first sent:
//!   all other operations, every composite, and every command with preconditions, since its first
//!   execution may have ended what they ask for.
//!
//! Not retried: refusals (the state said no) and what no time can mend (wrong cluster, arguments
//! out of bounds). After the timeout the error says honestly whether the command may have been
//! done ([`ClientError::may_have_happened`]). Membership changes ([`admin`]) are not retried once
//! they may have been done.
//!
//! # What is under it
//!
//! [`Transport`] carries one try of bytes; [`Remote`] does it over gRPC, an embedded node in
//! process. Nothing here depends on the node. With the feature `testing` there is an in-memory
//! cluster of one.

mod access;
pub mod admin;
mod client;
mod election;
pub mod engine;
mod error;
pub mod fence;
mod guard;
mod keeper;
mod lease;
mod lock;
mod owner;
mod process;
mod process_waits;
mod queue;
mod remote;
mod retry;
mod session;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod transport;
mod waits;
mod watch;

pub use client::{Client, DEFAULT_TIMEOUT};
pub use election::{Election, Leader, Leadership};
pub use error::ClientError;
pub use guard::{Granted, Guard, LeaseGuard, LeaseState, LockGuard, LostReason};
pub use lease::{ClaimOutcome, DEFAULT_TTL, KeyStory, LeaseBuilder};
pub use lock::{AcquireError, Hold, LockBuilder, acquisition_text, parse_acquisition};
pub use owner::incarnation;
pub use process::ProcessClient;
pub use process_waits::ProcessWaits;
pub use queue::{DEFAULT_VISIBILITY, PushBuilder, QueueClient};
pub use quorate_rpc::tls::{ClientFiles, ClientTls, TlsError};
pub use quorate_rpc::token::{Bearer, NoRandomness};
pub use quorate_rpc::{NodeError, Trace};
pub use quorate_statemachine as statemachine;
pub use remote::{Credential, ReadFrom, Remote, RemoteOptions};
pub use transport::{
    Answered, Consistency, ExecuteOptions, Executed, ReadOptions, Transport, WatchEvent, WatchWhat,
};
