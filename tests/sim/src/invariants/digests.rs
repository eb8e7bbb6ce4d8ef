//! Same log, same state: nodes that have applied the same entry have the same digest.

use crate::history::History;
use quorate_node::simulation::Seen;

/// Takes in what a node was seen to be.
pub fn seen(history: &mut History, node: usize, seen: &Seen) {
    let digest = seen.digest.to_string();
    let first = history.digests.entry((history.cluster, seen.applied));
    let (other, known) = first.or_insert_with(|| (node, digest.clone())).clone();
    if known != digest {
        let applied = seen.applied;
        history.violated(format!(
            "at entry {applied} n{node} has digest {digest}, and n{other} has {known}"
        ));
    }
}
