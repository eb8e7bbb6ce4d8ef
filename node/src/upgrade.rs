//! Two builds in one cluster: nothing gets into the log that a member cannot read.
//!
//! The leader asks every member which commands its build knows and raises the cluster's version
//! ([`quorate_statemachine::version`]) once all of them know a higher one. A member that does not
//! answer holds it back: it may be an older build that comes back.

use std::time::Duration;

use futures::future::join_all;
use quorate_rpc::NodeError;
use quorate_statemachine::{Action, InvalidArgument, cluster, version};
use tokio::time::{Instant, MissedTickBehavior};

use crate::config::NodeSection;
use crate::core::Core;
use crate::membership;
use crate::node::StartError;
use crate::origin::Caller;
use crate::storage::StateReader;

/// Between looks whether the version may rise.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long a rise may take until it is tried again.
const RAISE_TIMEOUT: Duration = Duration::from_secs(10);

impl NodeSection {
    /// The highest version of commands that this node knows.
    #[must_use]
    pub fn known_version(&self) -> u32 {
        match self.command_version {
            0 => version::NEWEST,
            told => told,
        }
    }

    /// A build can stand for an older one, not for a newer one.
    pub(crate) fn check_command_version(&self) -> Result<(), InvalidArgument> {
        let known = u64::from(version::NEWEST);
        InvalidArgument::check_count(
            "node.command_version",
            self.command_version.into(),
            0,
            known,
        )
    }
}

/// Refuses a command that a member may not know, or that only the cluster itself may give.
pub fn may_propose(state: &StateReader, action: &Action, caller: &Caller) -> Result<(), NodeError> {
    if matches!(action, Action::Cluster(cluster::Command::Found(_))) && *caller != Caller::Cluster {
        return Err(NodeError::Unsafe {
            message: "the first member names the cluster, when it makes it".to_owned(),
        });
    }
    if let Action::Cluster(cluster::Command::SetVersion(raise)) = action {
        return match caller {
            // Past what this build knows the entry would stop every member of it.
            Caller::Cluster if raise.version <= version::NEWEST => Ok(()),
            _ => Err(NodeError::Unsafe {
                message: "the cluster raises its version itself, once every member knows the \
                          higher one; see `quorate upgrade status`"
                    .to_owned(),
            }),
        };
    }
    let since = action.since();
    if since == version::FIRST {
        return Ok(());
    }
    let cluster = state.version().version;
    if since <= cluster {
        return Ok(());
    }
    Err(NodeError::Unsafe {
        message: format!(
            "{} needs cluster version {since}, the cluster is at {cluster}: not all members run a \
             build that knows it, see `quorate upgrade status`",
            action.name()
        ),
    })
}

/// A node that comes back as an older build than the cluster's version needs cannot go on.
pub fn check_own(node: &NodeSection, cluster: u32) -> Result<(), StartError> {
    check_cluster(node, cluster).map_err(|error| StartError::Raft(error.to_string()))
}

/// On the blank node: whether it can be a member of a cluster of this version.
pub fn check_cluster(node: &NodeSection, cluster: u32) -> Result<(), NodeError> {
    if cluster <= node.known_version() {
        return Ok(());
    }
    Err(too_old("this node", node.known_version(), cluster))
}

/// On the leader: whether the node at `addr` can be a member. One that says 0 cannot check itself.
pub fn check_joiner(core: &Core, addr: &str, known: u32) -> Result<(), NodeError> {
    let (known, cluster) = (known.max(version::FIRST), core.state.version().version);
    if cluster <= known {
        return Ok(());
    }
    Err(too_old(&format!("the node at {addr}"), known, cluster))
}

fn too_old(who: &str, known: u32, cluster: u32) -> NodeError {
    NodeError::Unsafe {
        message: format!(
            "{who} knows commands up to version {known}, the cluster is at version {cluster}: run \
             the build that the members run"
        ),
    }
}

/// Raises the cluster's version when it may rise, as long as this node leads.
pub async fn run(core: &Core) {
    let mut interval = tokio::time::interval(LOOK_EVERY);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut behind = Vec::new();
    loop {
        interval.tick().await;
        let now = core.state.version();
        if !core.leads() || now.held || now.version >= core.known_version {
            continue;
        }
        let (lowest, older) = ask_all(core, now.version).await;
        if older != behind {
            tracing::info!(version = now.version, ?older, "the cluster's version waits");
            behind = older;
        }
        if lowest <= now.version {
            continue;
        }
        let raise = cluster::SetVersion { version: lowest };
        match core.execute(raise, Instant::now() + RAISE_TIMEOUT).await {
            Ok(version) => tracing::info!(version, "the cluster's version has risen"),
            Err(error) => tracing::warn!(%error, "the cluster's version was not raised"),
        }
    }
}

/// The highest version that every member knows, and those that know no higher one than `now`.
async fn ask_all(core: &Core, now: u32) -> (u32, Vec<String>) {
    let own = core.identity().node_id;
    let members = membership::members(core.raft());
    let asked = members.iter().map(|member| async move {
        if member.id == own {
            return core.known_version;
        }
        let asking = core.peers.describe_build(member.id, &member.peer_addr);
        match tokio::time::timeout(LOOK_EVERY, asking).await {
            Ok(Ok(build)) => build.command_version,
            Ok(Err(_)) | Err(_) => version::FIRST,
        }
    });
    let known = join_all(asked).await;
    let older = members.iter().zip(&known);
    let older = older.filter(|(_, known)| **known <= now);
    let older = older.map(|(member, _)| member.name.clone()).collect();
    (known.into_iter().min().unwrap_or(version::FIRST), older)
}
