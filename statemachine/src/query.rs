//! Queries and their answers: the read-only twin of [`crate::Command`].
//!
//! A query is answered from one view, at one point of the log. `now` is when it looks: what is over
//! by then is not shown, swept or not. A later time than that of the view's last entry is for what
//! no entry on its way can renew.

use serde::{Deserialize, Serialize};

use crate::codec::{self, BadBytes};
use crate::limits::{COMMAND_BYTES_MAX, NAME_BYTES_MAX, PAGE_BYTES_MAX, PAGE_ROWS_MAX};
use crate::refusal::{Broken, InvalidArgument};
use crate::tables::{Key, Table};
use crate::time::Timestamp;
use crate::view::View;
use crate::{access, lease, lock, process, queue, session};

/// What to read: one arm per noun. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// Leases.
    Lease(lease::Query),
    /// Queues.
    Queue(queue::Query),
    /// Processes.
    Process(process::Query),
    /// Locks.
    Lock(lock::Query),
    /// Sessions.
    Session(session::Query),
    /// Who may do what.
    Access(access::Query),
}

/// What was read: one arm per noun. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Of leases.
    Lease(lease::Answer),
    /// Of queues.
    Queue(queue::Answer),
    /// Of processes.
    Process(process::Answer),
    /// Of locks.
    Lock(lock::Answer),
    /// Of sessions.
    Session(session::Answer),
    /// Of access control.
    Access(access::Answer),
}

/// One page of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The rows, in the listing's order.
    pub rows: Vec<T>,
    /// Pass it as `after` for the next page; none when this is the last.
    pub next: Option<String>,
}

const TAG_QUERY: u16 = 0x7f02;
const TAG_ANSWER: u16 = 0x7f03;

impl Query {
    /// Bytes for the wire.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(TAG_QUERY, self)
    }

    /// Reads and checks a query.
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidArgument> {
        InvalidArgument::check_bytes("query", bytes.len(), COMMAND_BYTES_MAX)?;
        let query: Self = codec::decode(TAG_QUERY, bytes).map_err(|error| {
            InvalidArgument::new(
                "query",
                "cannot be read",
                "an encoded query",
                error.to_string(),
            )
        })?;
        query.validate()?;
        Ok(query)
    }

    fn validate(&self) -> Result<(), InvalidArgument> {
        match self {
            Self::Lease(query) => lease::validate_query(query),
            Self::Queue(query) => queue::validate_query(query),
            Self::Process(query) => process::validate_query(query),
            Self::Lock(query) => lock::validate_query(query),
            Self::Session(query) => session::validate_query(query),
            Self::Access(query) => access::validate_query(query),
        }
    }

    /// The query's noun, for traces and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Lease(_) => "lease.query",
            Self::Queue(_) => "queue.query",
            Self::Process(_) => "process.query",
            Self::Lock(_) => "lock.query",
            Self::Session(_) => "session.query",
            Self::Access(_) => "access.query",
        }
    }
}

impl Answer {
    /// Bytes for the wire.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(TAG_ANSWER, self)
    }

    /// From the wire.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadBytes> {
        codec::decode(TAG_ANSWER, bytes)
    }
}

/// Answers a query.
pub fn query(view: &dyn View, now: Timestamp, query: &Query) -> Result<Answer, Broken> {
    match query {
        Query::Lease(query) => lease::query(view, now, query).map(Answer::Lease),
        Query::Queue(query) => queue::query(view, query).map(Answer::Queue),
        Query::Process(query) => process::query(view, query).map(Answer::Process),
        Query::Lock(query) => lock::query(view, now, query).map(Answer::Lock),
        Query::Session(query) => session::query(view, now, query).map(Answer::Session),
        Query::Access(query) => access::query(view, now, query).map(Answer::Access),
    }
}

/// The keys of a listing, from and to: those that start with `prefix`, behind `after`.
pub(crate) fn listed<T: Table>(prefix: Key<T>, after: Option<Key<T>>) -> (Key<T>, Key<T>) {
    let end = prefix.clone().end();
    let after = after.map(Key::next);
    let from = after.filter(|after| after.bytes() > prefix.bytes());
    (from.unwrap_or(prefix), end)
}

/// A prefix of names: may be empty, and as long as a name.
pub(crate) fn check_prefix(prefix: &str) -> Result<(), InvalidArgument> {
    InvalidArgument::check_bytes("prefix", prefix.len(), NAME_BYTES_MAX)
}

/// Ends a page by rows or by bytes.
pub(crate) struct PageLimit {
    rows: u32,
    bytes: usize,
}

impl PageLimit {
    /// `limit` rows, or the most there may be if it is 0 or more than that.
    pub(crate) fn new(limit: u32) -> Self {
        let rows = if limit == 0 {
            PAGE_ROWS_MAX
        } else {
            limit.min(PAGE_ROWS_MAX)
        };
        Self {
            rows,
            bytes: PAGE_BYTES_MAX,
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.rows == 0 || self.bytes == 0
    }

    pub(crate) fn add(&mut self, bytes: usize) {
        self.rows -= 1;
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}
