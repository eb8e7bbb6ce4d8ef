//! What this client has heard of the cluster, from whichever node.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use quorate_rpc::{NodeError, v1};

/// The facts, shared by all connections.
#[derive(Debug, Default)]
pub(super) struct Standing {
    seen: AtomicU64,
    facts: Mutex<Facts>,
}

#[derive(Debug, Default)]
struct Facts {
    cluster_id: String,
    /// Of the newest word on who leads: an older one does not replace it.
    term: u64,
    leader: Option<String>,
    /// Where members are, as the last node that was heard says.
    members: Vec<String>,
}

impl Standing {
    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts
            .lock()
            .expect("nothing panics while it holds the lock")
    }

    /// Takes in what a node says of itself. Refuses a node that is in no cluster yet, and one of
    /// another cluster than the others.
    pub(super) fn hear(&self, address: &str, hello: &v1::Hello) -> Result<(), NodeError> {
        if hello.cluster_id.is_empty() {
            return Err(NodeError::Unavailable {
                message: format!("the node at {address} is in no cluster yet"),
                retry_after_ms: 0,
                leader: None,
            });
        }
        let mut facts = self.facts();
        if facts.cluster_id.is_empty() {
            facts.cluster_id.clone_from(&hello.cluster_id);
        }
        if facts.cluster_id != hello.cluster_id {
            return Err(NodeError::WrongCluster {
                expected: format!("cluster {}", facts.cluster_id),
                actual: format!("cluster {} at {address}", hello.cluster_id),
            });
        }
        if hello.term >= facts.term && !hello.leader_client_addr.is_empty() {
            facts.term = hello.term;
            facts.leader = Some(hello.leader_client_addr.clone());
        }
        if hello.term >= facts.term {
            facts.members.clone_from(&hello.member_client_addrs);
        }
        self.saw(hello.applied_index);
        Ok(())
    }

    /// An answer came from the state at `index`.
    pub(super) fn saw(&self, index: u64) {
        self.seen.fetch_max(index, Ordering::AcqRel);
    }

    pub(super) fn seen(&self) -> u64 {
        self.seen.load(Ordering::Acquire)
    }

    /// Whether any node has been heard, so that [`Self::seen`] means something.
    pub(super) fn is_known(&self) -> bool {
        !self.facts().cluster_id.is_empty()
    }

    pub(super) fn leader(&self) -> Option<String> {
        self.facts().leader.clone()
    }

    /// The members that nodes have told of.
    pub(super) fn members(&self) -> Vec<String> {
        self.facts().members.clone()
    }

    /// Whether another node than `address` leads in a term after `term`.
    pub(super) fn has_moved_on(&self, address: &str, term: u64) -> bool {
        let facts = self.facts();
        facts.term > term
            && facts
                .leader
                .as_deref()
                .is_some_and(|leader| leader != address)
    }

    /// A node that is not the leader said who is.
    pub(super) fn hint(&self, address: &str) {
        if !address.is_empty() {
            self.facts().leader = Some(address.to_owned());
        }
    }

    /// `address` does not lead, or cannot be reached.
    pub(super) fn doubt(&self, address: &str) {
        let mut facts = self.facts();
        if facts.leader.as_deref() == Some(address) {
            facts.leader = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(cluster_id: &str, term: u64, leader: &str) -> v1::Hello {
        v1::Hello {
            cluster_id: cluster_id.to_owned(),
            term,
            applied_index: term * 10,
            leader_client_addr: leader.to_owned(),
            ..Default::default()
        }
    }

    #[test]
    fn the_word_of_an_older_term_does_not_move_the_leader_back() {
        let standing = Standing::default();
        standing
            .hear("a:1", &hello("c", 3, "b:1"))
            .expect("same cluster");
        standing
            .hear("c:1", &hello("c", 2, "a:1"))
            .expect("same cluster");
        assert_eq!(standing.leader().as_deref(), Some("b:1"));
        assert_eq!(standing.seen(), 30);
    }

    #[test]
    fn a_node_is_passed_by_when_another_leads_in_a_later_term() {
        let standing = Standing::default();
        let heard = |hello| standing.hear("b:1", &hello).expect("same cluster");
        heard(hello("c", 3, "a:1"));
        assert!(!standing.has_moved_on("a:1", 3), "it leads");
        heard(hello("c", 4, ""));
        assert!(!standing.has_moved_on("a:1", 3), "nobody else does yet");
        heard(hello("c", 4, "b:1"));
        assert!(standing.has_moved_on("a:1", 3));
        assert!(!standing.has_moved_on("b:1", 4));
    }

    #[test]
    fn a_node_of_another_cluster_is_refused_and_a_blank_one_is_not_ready() {
        let standing = Standing::default();
        let blank = standing.hear("a:1", &hello("", 0, "")).expect_err("blank");
        assert!(blank.is_passing(), "{blank}");
        assert!(!standing.is_known());
        standing
            .hear("a:1", &hello("c", 1, "a:1"))
            .expect("the first one counts");
        let other = standing
            .hear("b:1", &hello("d", 9, "b:1"))
            .expect_err("another cluster");
        assert!(matches!(other, NodeError::WrongCluster { .. }), "{other}");
        assert_eq!(standing.leader().as_deref(), Some("a:1"));
    }
}
