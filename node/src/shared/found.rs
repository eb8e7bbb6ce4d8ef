//! How a node becomes a member: as the founder of a cluster, or because a member takes it in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quorate_rpc::{NodeError, v1};

use super::Shared;
use crate::core::Core;
use crate::node::StartError;
use crate::propose::stopped;
use crate::storage::{Identity, StorageError};
use crate::upgrade;

/// The founder's id; ids handed out later are higher.
const FOUNDER: u64 = 1;

/// The name of a founder that was given none.
const FOUNDER_NAME: &str = "node-1";

/// How long a founder waits for its own first commit.
const FOUND_TIMEOUT: Duration = Duration::from_secs(30);

impl Shared {
    /// Gives an empty directory the identity of a new cluster's founder.
    pub async fn found(&self) -> Result<Identity, StartError> {
        let identity = Identity {
            cluster_id: uuid::Uuid::now_v7().to_string(),
            node_id: FOUNDER,
            name: match self.member.name.as_str() {
                "" => FOUNDER_NAME.to_owned(),
                name => name.to_owned(),
            },
        };
        let mut data = self.data.lock().await;
        if let Some(data) = data.as_mut() {
            data.set_identity(identity.clone())?;
        }
        Ok(identity)
    }

    /// Founds a new cluster of this node because an operator asks for it. One that has a cluster
    /// refuses: it must never be a founder twice.
    pub async fn found_cluster(self: &Arc<Self>) -> Result<Identity, NodeError> {
        let shared = Arc::clone(self);
        to_the_end(async move { shared.become_founder().await }).await
    }

    async fn become_founder(self: &Arc<Self>) -> Result<Identity, NodeError> {
        let failed = |error: StartError| NodeError::Stopped {
            message: error.to_string(),
        };
        let known = match self.data.lock().await.as_ref() {
            Some(data) => data.identity().cloned(),
            None => return Err(stopped()),
        };
        if let Some(identity) = known {
            return Err(NodeError::Unsafe {
                message: format!("this node belongs to a cluster already: it is {identity}"),
            });
        }
        let identity = self.found().await.map_err(failed)?;
        self.run_by(identity.clone()).await?;
        let core = self.core()?;
        self.initialize(&core).await.map_err(failed)?;
        Ok(identity)
    }

    /// A member gives this node its id. Answers the id that it has, now or from an earlier time in
    /// the same cluster.
    pub async fn invited(self: &Arc<Self>, invite: v1::InviteRequest) -> Result<u64, NodeError> {
        let shared = Arc::clone(self);
        to_the_end(async move { shared.become_member(invite).await }).await
    }

    async fn become_member(self: &Arc<Self>, invite: v1::InviteRequest) -> Result<u64, NodeError> {
        let mut guard = self.data.lock().await;
        let data = guard.as_mut().ok_or_else(stopped)?;
        if let Some(identity) = data.identity() {
            if identity.cluster_id == invite.cluster_id {
                return Ok(identity.node_id);
            }
            return Err(NodeError::WrongCluster {
                expected: format!("cluster {}", invite.cluster_id),
                actual: format!("{identity}; start the node on an empty directory to add it"),
            });
        }
        upgrade::check_cluster(&self.config.node, invite.cluster_version)?;
        if !self.member.name.is_empty() && self.member.name != invite.name {
            return Err(NodeError::Unsafe {
                message: format!(
                    "the node is configured as {:?} (node.name) and cannot be added as {:?}; add \
                     it under its own name, or change the name and start it again",
                    self.member.name, invite.name
                ),
            });
        }
        let identity = Identity {
            cluster_id: invite.cluster_id,
            node_id: invite.node_id,
            name: invite.name,
        };
        let failed = |error: StorageError| NodeError::Stopped {
            message: error.to_string(),
        };
        data.set_identity(identity.clone()).map_err(failed)?;
        drop(guard);
        let node_id = identity.node_id;
        self.run_by(identity).await?;
        Ok(node_id)
    }

    /// Runs by an identity that is on disk. A node that cannot stops with the facts: to the others
    /// it is a member, and its next start tries again.
    async fn run_by(self: &Arc<Self>, identity: Identity) -> Result<(), NodeError> {
        let is = identity.to_string();
        let Err(error) = self.start_core(identity).await else {
            return Ok(());
        };
        let message = format!("it became {is} and cannot run: {error}");
        self.fail(message.clone());
        Err(NodeError::Stopped { message })
    }

    /// Makes the founder the one voter of its cluster, unless it is already. A command that comes
    /// before this is done can be refused as unknown to the cluster's version, so clients are best
    /// served after it.
    pub async fn initialize(&self, core: &Core) -> Result<(), StartError> {
        let failed = |error: String| StartError::Raft(error);
        let initialized = core.raft.is_initialized().await;
        if initialized.map_err(|error| failed(error.to_string()))?
            || core.identity.node_id != FOUNDER
        {
            return Ok(());
        }
        let members = BTreeMap::from([(FOUNDER, core.member.clone())]);
        let made = core.raft.initialize(members).await;
        made.map_err(|error| failed(error.to_string()))?;
        let leads = core
            .raft
            .wait(Some(FOUND_TIMEOUT))
            .current_leader(FOUNDER, "found")
            .await;
        leads.map_err(|error| failed(error.to_string()))?;
        let deadline = tokio::time::Instant::now() + FOUND_TIMEOUT;
        loop {
            match core.found(deadline).await {
                Ok(()) => return Ok(()),
                // A new leader takes nothing until its first heartbeat round is done.
                Err(error @ NodeError::Unavailable { .. }) => {
                    if tokio::time::Instant::now() >= deadline {
                        return Err(failed(error.to_string()));
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(error) => return Err(failed(error.to_string())),
            }
        }
    }
}

/// The one voter of a cluster has nobody to wait for: it stands for election at once, so that a
/// node that has started takes work.
pub async fn lead_alone(core: &Core) -> Result<(), StartError> {
    let own = core.identity.node_id;
    if core.raft.voter_ids().ne([own]) || core.leads() {
        return Ok(());
    }
    let stood = core.raft.trigger().elect(false).await;
    stood.map_err(|error| StartError::Raft(error.to_string()))?;
    let leads = core
        .raft
        .wait(Some(FOUND_TIMEOUT))
        .current_leader(own, "alone")
        .await;
    leads
        .map(drop)
        .map_err(|error| StartError::Raft(error.to_string()))
}

/// Does `work` to its end, whether or not its caller still waits: a node that has its identity, but
/// has not started by it, would look like a member to the others and like none to itself.
async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, NodeError>> + Send + 'static,
) -> Result<T, NodeError> {
    tokio::spawn(work).await.unwrap_or_else(|_| Err(stopped()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Health, Node};
    use futures::FutureExt;
    use quorate_statemachine::version;

    async fn blank(dir: &tempfile::TempDir) -> Node {
        let node = Node::builder().data_dir(dir.path()).join().start().await;
        node.expect("a blank node starts")
    }

    fn invite() -> v1::InviteRequest {
        v1::InviteRequest {
            cluster_id: uuid::Uuid::now_v7().to_string(),
            node_id: 7,
            name: "n7".to_owned(),
            cluster_version: version::FIRST,
        }
    }

    /// Waits until the node runs as a member, and stops it.
    async fn becomes_a_member(node: Node) {
        let runs = async {
            while node.shared().running().is_none() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let runs = tokio::time::timeout(FOUND_TIMEOUT, runs).await;
        runs.expect("it runs by the identity that it was given");
        node.shutdown().await;
    }

    #[tokio::test]
    async fn an_invitation_is_followed_though_its_caller_has_given_up() {
        let dir = tempfile::tempdir().expect("a directory for tests");
        let node = blank(&dir).await;
        let given_up = node.shared().invited(invite()).now_or_never();
        assert!(given_up.is_none(), "it was done at once: {given_up:?}");
        becomes_a_member(node).await;
    }

    #[tokio::test]
    async fn a_cluster_is_founded_though_its_caller_has_given_up() {
        let dir = tempfile::tempdir().expect("a directory for tests");
        let node = blank(&dir).await;
        let given_up = node.shared().found_cluster().now_or_never();
        assert!(given_up.is_none(), "it was done at once: {given_up:?}");
        becomes_a_member(node).await;
    }

    #[tokio::test]
    async fn a_repeated_invitation_is_answered_with_the_id_of_the_first() {
        let dir = tempfile::tempdir().expect("a directory for tests");
        let node = blank(&dir).await;
        let first = invite();
        let again = v1::InviteRequest {
            node_id: 8,
            ..first.clone()
        };
        assert_eq!(node.shared().invited(first).await.expect("blank"), 7);
        assert_eq!(node.shared().invited(again).await.expect("known"), 7);
        let other = node.shared().invited(invite()).await;
        let other = other.expect_err("of another cluster");
        assert!(matches!(other, NodeError::WrongCluster { .. }), "{other}");
        node.shutdown().await;
    }

    #[tokio::test]
    async fn a_node_that_cannot_run_as_the_member_it_became_stops() {
        let dir = tempfile::tempdir().expect("a directory for tests");
        let node = blank(&dir).await;
        std::fs::write(dir.path().join("log"), "no directory").expect("room");
        let refused = node.shared().invited(invite()).await;
        let refused = refused.expect_err("it cannot open its log").to_string();
        assert!(refused.contains("cannot run"), "{refused}");
        let health = node.health().borrow().clone();
        assert!(matches!(health, Health::Failed(_)), "{health:?}");
        node.shutdown().await;
    }
}
