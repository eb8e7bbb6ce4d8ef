//! The typed client of Quorate.

mod client;
mod error;
pub mod fence;
mod guard;
mod lease;
mod owner;
mod retry;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod transport;
mod watch;

pub use client::{Client, DEFAULT_TIMEOUT};
pub use error::ClientError;
pub use guard::{LeaseGuard, LeaseState, LostReason};
pub use lease::{ClaimOutcome, DEFAULT_TTL, KeyStory, LeaseBuilder};
pub use owner::incarnation;
pub use transport::{
    Answered, Consistency, ExecuteOptions, Executed, ReadOptions, Transport, WatchEvent, WatchWhat,
};
