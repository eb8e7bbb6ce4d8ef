//! Pack locks for a cluster: what grex-core's `PackLock` is to the processes of one machine, this
//! is to the machines of a cluster.
//!
//! ```no_run
//! use std::path::Path;
//!
//! use quorate_client::Client;
//! use quorate_packlock::PackLocks;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect(["10.0.0.1:7400", "10.0.0.2:7400", "10.0.0.3:7400"])?;
//! // `/srv/checkout/tools/vim` here is `/home/ci/checkout/tools/vim` on a host with that root.
//! let locks = PackLocks::new(client, "dotfiles")?.root("/srv/checkout")?;
//!
//! let hold = locks.open(Path::new("/srv/checkout/tools/vim"))?.acquire_async().await?;
//! tokio::select! {
//!     () = hold.lost().cancelled_owned() => eprintln!("the lock was lost, stop"),
//!     () = install(hold.token()) => drop(hold.release().await?),
//! }
//! # Ok(())
//! # }
//! # async fn install(fencing_token: u64) {}
//! ```
//!
//! # Meanings
//!
//! Methods, ownership and errors are those of the original; `docs/adapters/packlock.md` has the
//! table. What the original cannot do: a cancelled or dropped wait leaves nothing behind, since
//! waiting parks no thread, and a hold knows when it was lost.
//!
//! # Call chains
//!
//! Who holds a pack and asks for it once more would wait for itself. That is answered with
//! [`PackLockError::Busy`]:
//!
//! - within [`call_chain`], at once. What the future holds counts for all that it calls, and for
//!   nothing else;
//! - without it, by the task, or the thread if there is no task. Both branches of a `join!` are one
//!   task too, and there the one should wait for the other. The two cannot be told apart from
//!   outside, so the call waits for [`PackLocks::reentry_wait`], and is Busy after that;
//! - for [`PackLock::acquire`], which blocks its thread, at once.
//!
//! Other tasks, also those on the same thread, wait for each other.
//!
//! # The thread behind it
//!
//! One thread per process, started by the first acquisition, asks, renews and releases. So a hold
//! lives on when the runtime ends in which it was acquired, is released even if it is dropped as
//! the last thing that a runtime does, and a thread without a runtime can acquire. It does not end;
//! what is still held when the process ends is free after its TTL.

mod background;
mod caller;
mod error;
mod hold;
mod lock;
mod locks;
mod name;
mod registry;

pub use caller::call_chain;
pub use error::{PackLockError, PackLockErrorOrCancelled};
pub use hold::{Held, PackLockGuard, PackLockHold};
pub use lock::{PACK_LOCK_FILE_NAME, PACK_LOCK_REL_PATH, PackLock};
pub use locks::{DEFAULT_REENTRY_WAIT, NAMESPACE_BYTES_MAX, PackLocks};
