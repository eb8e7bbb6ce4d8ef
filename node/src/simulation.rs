//! What a simulation sees of a node from outside.

use openraft::async_runtime::WatchReceiver;
use quorate_statemachine::digest::Digest;

use crate::node::Node;

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
