//! A term has one leader.

use crate::history::History;
use quorate_node::simulation::Seen;

/// Takes in what a node was seen to be.
pub fn seen(history: &mut History, node: usize, seen: &Seen) {
    if !seen.leads {
        return;
    }
    let term = (history.cluster, seen.term);
    let known = *history.leaders.entry(term).or_insert(node);
    if known != node {
        let term = seen.term;
        history.violated(format!("n{known} and n{node} both lead term {term}"));
    }
}
