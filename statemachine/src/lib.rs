//! The replicated state machine of Quorate.
//!
//! # The model
//!
//! The state is a set of ordered rows ([`view::View`]). A log entry holds one encoded [`Command`],
//! its log index, and the cluster time at which the leader proposed it. [`apply`] turns a view and
//! an entry into a [`Reply`], notices for those who wait, [`figure`]s for metrics, and the rows to
//! change; the node writes those rows together with the entry's index. Nothing else changes state,
//! and [`apply`] has no other input: no clock, no randomness, no hash-map order, no floats, no
//! threads, no IO. Every node that applies the same log has the same rows, byte for byte, and a
//! running [`digest::Digest`] of them to prove it.
//!
//! Reading goes through [`query::query`], with the same view.
//!
//! # The nouns
//!
//! - [`lease`]: a right that ends by itself, with a fencing token.
//! - [`lock`]: the same for one, several or many holders, with a fair queue of those who wait.
//! - [`queue`]: items that are claimed, worked on and settled.
//! - [`process`]: a record with a log of events without gaps.
//! - [`session`]: state that moves by commits, with the work and the inputs that wait for it.
//! - [`cluster`]: time, digests, node ids.
//! - [`access`]: who may do what; the one noun that looks at an entry's principal.
//!
//! Any command may carry preconditions ([`fencing::Precondition`]) and a request id
//! ([`request::RequestId`]); several actions may be put into one composite that is done as a whole
//! or not at all.
//!
//! # Caveats
//!
//! - Expiry is bounded work per entry ([`expiry`]): notices of a mass expiry come spread over many
//!   entries. No rule waits for the sweep: what is over by its deadline is over.
//! - What is due but not yet swept still shows its row in dumps; queries hide it.
//! - Answers of requests are forgotten after a while; [`request`] says what a late retry gets.

#![deny(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::float_arithmetic
)]

pub mod access;
mod apply;
pub mod cluster;
pub mod codec;
mod command;
mod context;
pub mod digest;
pub mod expiry;
pub mod fencing;
pub mod figure;
mod id;
pub mod lease;
pub mod limits;
pub mod lock;
mod nesting;
pub mod notice;
pub mod process;
pub mod query;
pub mod queue;
pub mod refusal;
pub mod request;
pub mod session;
pub mod tables;
pub mod time;
pub mod transaction;
pub mod version;
pub mod view;

pub use apply::{Applied, Entry, apply};
pub use command::{Action, Command, Operation, Reply, Response, Validate};
pub use fencing::{FencingToken, Precondition};
pub use id::{LeaseToken, Name, Owner, Principal};
pub use query::{Answer, Query, query};
pub use refusal::{Broken, Failure, InvalidArgument, Refusal, Subject};
pub use request::RequestId;
pub use time::Timestamp;
