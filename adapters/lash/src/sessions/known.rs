//! What a handle knows of its session without asking. All of it may be wrong by now: the cluster
//! looks again at what is built on it, and refuses.

use std::num::NonZeroUsize;

use lru::LruCache;
use quorate_statemachine::session::{BlobHash, GraphId};

/// Blobs that are remembered as stored.
const BLOBS_KEPT: NonZeroUsize = NonZeroUsize::new(4_096).expect("it is not zero");

/// Nodes whose hashes are kept, 32 bytes each.
const NODES_KEPT: usize = 1 << 20;

/// Execution leases whose grant is remembered.
const LEASES_KEPT: NonZeroUsize = NonZeroUsize::new(64).expect("it is not zero");

/// See the module.
pub(super) struct Known {
    /// Blobs that the session had.
    pub(super) blobs: LruCache<BlobHash, ()>,
    /// When the leases of these tokens were granted.
    pub(super) granted: LruCache<String, u64>,
    /// The graph as it was last read or written in full.
    pub(super) graph: Option<KnownGraph>,
}

/// A graph without tombstones, node by node.
pub(super) struct KnownGraph {
    /// Which.
    pub(super) id: GraphId,
    /// [`quorate_statemachine::session::Graph::rewritten`].
    pub(super) rewritten: u64,
    /// The hash of each node, in order.
    pub(super) nodes: Vec<BlobHash>,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            blobs: LruCache::new(BLOBS_KEPT),
            granted: LruCache::new(LEASES_KEPT),
            graph: None,
        }
    }
}

impl Known {
    pub(super) fn keep_graph(&mut self, graph: KnownGraph) {
        self.graph = (graph.nodes.len() <= NODES_KEPT).then_some(graph);
    }
}
