//! The typed client of Quorate.

mod client;
mod error;
mod retry;
mod transport;

pub use client::{Client, DEFAULT_TIMEOUT};
pub use error::ClientError;
pub use transport::{
    Answered, Consistency, ExecuteOptions, Executed, ReadOptions, Transport, WatchEvent, WatchWhat,
};
