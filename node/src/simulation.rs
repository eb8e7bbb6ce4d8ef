//! What a simulation sees of a node from outside.

use std::cell::Cell;

use openraft::async_runtime::WatchReceiver;
use quorate_statemachine::digest::Digest;

use crate::node::Node;

pub use crate::storage::RECEIVING_PREFIX;

/// A node at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Its term.
    pub term: u64,
    /// Whether it leads, as far as it knows.
    pub leads: bool,
    /// The last applied entry.
    pub applied: u64,
    /// The digest of the state there.
    pub digest: Digest,
}

impl Node {
    /// The node as it is; none while it is no member, or no longer runs.
    #[must_use]
    pub fn seen(&self) -> Option<Seen> {
        let core = self.shared().running()?;
        let (term, leads) = {
            let metrics = core.raft().metrics();
            let metrics = metrics.borrow_watched();
            (metrics.current_term, metrics.state.is_leader())
        };
        let (applied, digest) = core.state.reached();
        Some(Seen {
            term,
            leads,
            applied,
            digest,
        })
    }
}

/// A bug of nodes that is planted, so that it is known that a simulation finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// Cluster time is the leader's wall clock.
    LocalClock,
    /// What an entry does depends on the order of a hash map.
    HashOrder,
    /// Cluster time is the leader's wall clock, also where that is behind what was applied.
    Unclamped,
    /// A read looks at the state at the time of the leader's clock.
    ReadsByClock,
    /// A restored log goes on where the snapshot ends.
    TokenReuse,
}

thread_local! {
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// All nodes of this thread have the bug from here on.
pub fn plant(bug: Bug) {
    PLANTED.set(Some(bug));
}

/// Whether the nodes of this thread have it.
pub(crate) fn has(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Cluster time in microseconds of a leader that goes by its wall clock, if that is the bug.
pub(crate) fn local_clock(wall_micros: u64, applied_micros: u64) -> Option<u64> {
    match PLANTED.get()? {
        Bug::LocalClock => Some(wall_micros.max(applied_micros)),
        Bug::Unclamped => Some(wall_micros),
        Bug::HashOrder | Bug::ReadsByClock | Bug::TokenReuse => None,
    }
}

/// Where the log of a restored cluster begins: at `index`, or behind the snapshot if that is the
/// bug.
pub(crate) fn first_index(index: u64, last: u64) -> u64 {
    match has(Bug::TokenReuse) {
        true => last,
        false => index,
    }
}
