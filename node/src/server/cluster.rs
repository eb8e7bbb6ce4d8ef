//! The service of operators: status and membership.

use std::sync::Arc;
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use quorate_rpc::v1;
use quorate_rpc::v1::administer_request::Request as Administer;
use quorate_rpc::v1::cluster_server::Cluster;
use tonic::{Request, Response, Status};

use super::{deadline, save};
use crate::core::Core;
use crate::membership::{self, administer_anywhere};
use crate::shared::Shared;

/// Serves operators.
pub struct ClusterService {
    shared: Arc<Shared>,
}

type Answer<T> = Result<Response<T>, Status>;

impl ClusterService {
    /// Serves on behalf of this node.
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    async fn administer(&self, request: Administer) -> Answer<v1::MemberChange> {
        let core = self.shared.core()?;
        Ok(Response::new(administer_anywhere(&core, request).await?))
    }
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    type SaveSnapshotStream = save::Parts;

    async fn status(&self, _request: Request<v1::StatusRequest>) -> Answer<v1::NodeStatus> {
        Ok(Response::new(self.shared.status()))
    }

    async fn members(&self, request: Request<v1::MembersRequest>) -> Answer<v1::MemberList> {
        let core = self.shared.core()?;
        let members = if request.get_ref().local {
            membership::members(core.raft())
        } else {
            let request = Administer::Members(v1::MembersRequest::default());
            administer_anywhere(&core, request).await?.members
        };
        Ok(Response::new(v1::MemberList {
            members,
            cluster_id: core.identity().cluster_id.clone(),
        }))
    }

    async fn found_cluster(
        &self,
        _request: Request<v1::FoundClusterRequest>,
    ) -> Answer<v1::FoundClusterReply> {
        let identity = self.shared.found_cluster().await?;
        Ok(Response::new(v1::FoundClusterReply {
            cluster_id: identity.cluster_id,
            id: identity.node_id,
        }))
    }

    async fn add_member(&self, request: Request<v1::AddMemberRequest>) -> Answer<v1::MemberChange> {
        self.administer(Administer::Add(request.into_inner())).await
    }

    async fn promote_member(
        &self,
        request: Request<v1::MemberRequest>,
    ) -> Answer<v1::MemberChange> {
        self.administer(Administer::Promote(request.into_inner()))
            .await
    }

    async fn update_member(
        &self,
        request: Request<v1::UpdateMemberRequest>,
    ) -> Answer<v1::MemberChange> {
        self.administer(Administer::Update(request.into_inner()))
            .await
    }

    async fn remove_member(&self, request: Request<v1::MemberRequest>) -> Answer<v1::MemberChange> {
        self.administer(Administer::Remove(request.into_inner()))
            .await
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::MemberRequest>,
    ) -> Answer<v1::MemberChange> {
        self.administer(Administer::Transfer(request.into_inner()))
            .await
    }

    async fn digest_at(&self, request: Request<v1::DigestAtRequest>) -> Answer<v1::Digest> {
        let core = self.shared.core()?;
        let request = request.into_inner();
        let digest = core.digest_at(request.index, deadline(request.timeout_ms));
        Ok(Response::new(digest.await?))
    }

    async fn save_snapshot(
        &self,
        request: Request<v1::SaveSnapshotRequest>,
    ) -> Answer<save::Parts> {
        let core = self.shared.core()?;
        if !request.get_ref().stale {
            core.reads.catch_up(deadline(0)).await?;
        }
        Ok(Response::new(save::save(&core).await?))
    }
}

/// How a member is; its health and alarms are not the core's.
pub fn status_of(core: &Core) -> v1::NodeStatus {
    let metrics = core.raft().metrics().borrow_watched().clone();
    let meta = core.state.meta();
    let version = core.state.version();
    let index = |id: Option<crate::raft::LogId>| id.map_or(0, |id| id.index);
    v1::NodeStatus {
        cluster_id: core.identity().cluster_id.clone(),
        id: core.identity().node_id,
        name: core.identity().name.clone(),
        role: role(metrics.state).to_owned(),
        term: metrics.current_term,
        leader_id: metrics.current_leader.unwrap_or(0),
        last_log: metrics.last_log_index.unwrap_or(0),
        committed: index(metrics.local_committed),
        applied: index(metrics.last_applied),
        snapshot: index(metrics.snapshot),
        purged: index(metrics.purged),
        digest: meta.digest.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cluster_version: version.version,
        command_version: core.known_version,
        version_held: version.held,
        client_addr: core.member.client_addr.clone(),
        peer_addr: core.member.peer_addr.clone(),
        http_addr: core.member.http_addr.clone(),
        now_ms: meta.now.0,
        leases: meta.leases,
        uptime_ms: millis(core.started.elapsed()),
        ..v1::NodeStatus::default()
    }
}

fn role(state: ServerState) -> &'static str {
    match state {
        ServerState::Leader => "leader",
        ServerState::Follower => "follower",
        ServerState::Learner => "learner",
        ServerState::Candidate => "candidate",
        ServerState::Shutdown => "stopped",
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
