//! The seam between the typed API and whatever carries its bytes.
//!
//! Two implementers: [`crate::Remote`] speaks gRPC to a cluster, the node crate's `Embedded` calls
//! a node in the same process. A transport makes one try: retrying, request ids and types are
//! above it.

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use quorate_rpc::{NodeError, Trace};
use quorate_statemachine::notice::Notice;
use quorate_statemachine::{Answer, Name, Reply, Timestamp};
use tokio::time::Instant;

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executed {
    /// Log index of its entry; 0 when it was refused before it was proposed.
    pub index: u64,
    /// The replicated answer, or a refusal found at the border.
    pub reply: Reply,
}

/// What a query found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The answer is the state at this log index.
    pub index: u64,
    /// Cluster time against which deadlines in the answer are to be read.
    pub now: Timestamp,
    /// What was read.
    pub answer: Answer,
}

/// How fresh an answer must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Consistency {
    /// As of some moment between request and answer: everything acknowledged before the request was
    /// sent is in it.
    #[default]
    Linearizable,
    /// The same while clocks drift less than the leader's lease allows; cheaper.
    Lease,
    /// Whatever the node has.
    Stale {
        /// Refuse with `TooStale` when the node is further behind than this.
        max_lag_ms: Option<u64>,
    },
}

/// How to execute one try of a command.
#[derive(Debug, Clone, Copy)]
pub struct ExecuteOptions {
    /// When the caller stops waiting. What is not committed by then is answered with
    /// `DeadlineExceeded`.
    pub deadline: Instant,
    /// A time to live of 0 is allowed in this command.
    pub allow_zero_ttl: bool,
    /// The trace that it is a part of.
    pub trace: Option<Trace>,
}

/// How to read.
#[derive(Debug, Clone, Copy)]
pub struct ReadOptions {
    /// When the caller stops waiting.
    pub deadline: Instant,
    /// How fresh the answer must be.
    pub consistency: Consistency,
    /// The node waits until it has applied this index: an answer is never older than it.
    pub min_index: u64,
    /// The trace that it is a part of.
    pub trace: Option<Trace>,
}

/// What to watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchWhat {
    /// Grants and ends of leases whose key starts with this; empty for all.
    LeasePrefix(String),
    /// Readiness and settlement in this queue.
    Queue(Name),
    /// Events and state of this process.
    Process(Name),
    /// Events and state of processes whose id starts with this; empty for all.
    ProcessPrefix(String),
    /// Grants, ends and proclamations of locks whose key starts with this; empty for all.
    LockPrefix(String),
    /// What becomes of the acquisitions of locks whose id starts with this: those of one client.
    LockAcquisitions([u8; 8]),
}

impl WatchWhat {
    /// Whether a notice is for this watch.
    #[must_use]
    pub fn matches(&self, notice: &Notice) -> bool {
        match (self, notice) {
            (
                Self::LeasePrefix(prefix),
                Notice::LeaseGranted { key, .. } | Notice::LeaseEnded { key, .. },
            ) => key.as_str().starts_with(prefix.as_str()),
            (
                Self::Queue(name),
                Notice::QueueReady { queue } | Notice::ItemSettled { queue, .. },
            ) => name == queue,
            (
                Self::Process(id),
                Notice::EventAppended { process_id, .. }
                | Notice::ProcessChanged { process_id, .. },
            ) => id == process_id,
            (
                Self::ProcessPrefix(prefix),
                Notice::EventAppended { process_id, .. }
                | Notice::ProcessChanged { process_id, .. },
            ) => process_id.as_str().starts_with(prefix.as_str()),
            (
                Self::LockPrefix(prefix),
                Notice::LockGranted { key, .. }
                | Notice::LockLeft { key, .. }
                | Notice::LockProclaimed { key, .. },
            ) => key.as_str().starts_with(prefix.as_str()),
            (
                Self::LockAcquisitions(prefix),
                Notice::LockGranted { id, .. } | Notice::LockLeft { id, .. },
            ) => id.starts_with(prefix),
            _ => false,
        }
    }
}

/// What a watch says. A stream that ends has lost its node: watch again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent {
    /// Always first: notices of entries above `index` follow. Read the state at or after it, and
    /// nothing falls between.
    Registered {
        /// The log index of the registration.
        index: u64,
    },
    /// What one entry did.
    Notices {
        /// Log index of the entry.
        index: u64,
        /// What it did, in order; only what was watched for.
        notices: Vec<Notice>,
    },
    /// Notices were lost, and the stream ends. Read the state, or watch again from there.
    Lagged {
        /// Watch again from here; 0 when that is gone as well.
        resume_from: u64,
    },
}

/// Carries commands, queries and watches to a cluster: one try each.
///
/// An implementer must give every answer by the deadline, and must be honest in its errors: only
/// what [`NodeError::may_have_happened`] denies is repeated without an identity.
pub trait Transport: Send + Sync + 'static {
    /// Executes an encoded [`quorate_statemachine::Command`].
    ///
    /// Dropping the future gives up on the answer, not on the command.
    fn execute(
        &self,
        command: Bytes,
        options: ExecuteOptions,
    ) -> BoxFuture<'_, Result<Executed, NodeError>>;

    /// Answers an encoded [`quorate_statemachine::Query`]. A query out of bounds is
    /// [`NodeError::Invalid`].
    fn read(
        &self,
        query: Bytes,
        options: ReadOptions,
    ) -> BoxFuture<'_, Result<Answered, NodeError>>;

    /// Watches. The first event is [`WatchEvent::Registered`]. Replays from `from_index` on if the
    /// node still has it; 0 for from now on.
    fn watch(
        &self,
        what: WatchWhat,
        from_index: u64,
    ) -> BoxFuture<'_, Result<BoxStream<'static, WatchEvent>, NodeError>>;

    /// Highest log index that this transport has seen applied: the lower bound for request ids and
    /// for monotonic reads.
    fn seen_index(&self) -> u64;

    /// Waits until [`Self::seen_index`] says something about the cluster, and returns it. A remote
    /// transport needs a connection for that; an embedded one has nothing to wait for.
    fn ready(&self, deadline: Instant) -> BoxFuture<'_, Result<u64, NodeError>> {
        let _ = deadline;
        let seen = self.seen_index();
        std::future::ready(Ok(seen)).boxed()
    }
}
