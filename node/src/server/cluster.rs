//! The service of operators: status and membership.

use std::sync::Arc;
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use quorate_rpc::v1::administer_request::Request as Administer;
use quorate_rpc::v1::cluster_server::Cluster;
use quorate_rpc::{NodeError, v1};
use quorate_statemachine::access::{Noun, Verb, needs};
use quorate_statemachine::tables::MetaRow;
use quorate_statemachine::{Action, cluster};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::{deadline, save};
use crate::access::{self, Guest};
use crate::audit;
use crate::core::Core;
use crate::disk;
use crate::membership::{self, administer_anywhere};
use crate::origin::Caller;
use crate::shared::Shared;

/// How long the word for the log may take.
const NOTE_TIMEOUT: Duration = Duration::from_secs(5);

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

    /// Changes the membership for a caller who may. What cannot be done is refused before it is
    /// noted in the log; a dry run leaves no trace.
    async fn administer<T>(
        &self,
        request: Request<T>,
        to_do: impl FnOnce(T) -> Administer,
    ) -> Answer<v1::MemberChange> {
        let core = self.shared.core()?;
        let caller = Guest::admit(&core, &request).await?.caller()?;
        may(&core, &caller, Noun::Cluster, Verb::Admin).await?;
        let to_do = to_do(request.into_inner());
        let (action, dry_run) = action_of(&to_do);
        if !dry_run {
            administer_anywhere(&core, as_dry_run(&to_do)).await?;
            note(&core, caller, action).await?;
        }
        Ok(Response::new(administer_anywhere(&core, to_do).await?))
    }

    /// Whether the caller may do this to the cluster. A node that belongs to none has nothing to
    /// hide, and whoever reaches it may make it the founder of one.
    async fn may<T>(&self, request: &Request<T>, verb: Verb) -> Result<(), NodeError> {
        // Also of a node that has failed: its state still says who may look.
        let Some(core) = self.shared.running() else {
            return Ok(());
        };
        let caller = Guest::admit(&core, request).await?.caller()?;
        may(&core, &caller, Noun::Cluster, verb).await
    }
}

async fn may(core: &Core, caller: &Caller, noun: Noun, verb: Verb) -> Result<(), NodeError> {
    access::check_current(core, caller, needs::whole(noun, verb)).await
}

/// Puts into the log what the caller does by other means than a command. That is where its rights
/// are decided.
async fn note(core: &Core, caller: Caller, action: String) -> Result<(), NodeError> {
    let noted = cluster::NoteAction { action };
    if core.state.version().version < Action::from(noted.clone()).since() {
        return Ok(());
    }
    let deadline = Instant::now() + NOTE_TIMEOUT;
    let noted = core.execute_as(noted, caller.into(), deadline).await;
    noted.map_err(|error| match error {
        // It may be in the log, but what it tells of was not begun.
        error if error.may_have_happened() => NodeError::Unavailable {
            message: format!("the change was not noted in the log, and not begun: {error}"),
            retry_after_ms: 100,
            leader: None,
        },
        error => error,
    })
}

/// What is asked for in words, and whether it is a dry run.
fn action_of(to_do: &Administer) -> (String, bool) {
    match to_do {
        Administer::Add(add) => (format!("member add {}", add.name), add.dry_run),
        Administer::Promote(member) => (format!("member promote {}", member.id), member.dry_run),
        Administer::Update(update) => (format!("member update {}", update.id), update.dry_run),
        Administer::Remove(member) => (format!("member remove {}", member.id), member.dry_run),
        Administer::Transfer(member) => match member.id {
            0 => ("member transfer-leader".to_owned(), member.dry_run),
            id => (format!("member transfer-leader {id}"), member.dry_run),
        },
        Administer::Announce(_) | Administer::Members(_) => (String::new(), true),
    }
}

fn as_dry_run(to_do: &Administer) -> Administer {
    let mut to_do = to_do.clone();
    match &mut to_do {
        Administer::Add(add) => add.dry_run = true,
        Administer::Update(update) => update.dry_run = true,
        Administer::Promote(member) | Administer::Remove(member) | Administer::Transfer(member) => {
            member.dry_run = true
        }
        Administer::Announce(_) | Administer::Members(_) => {}
    }
    to_do
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    type SaveSnapshotStream = save::Parts;

    async fn status(&self, request: Request<v1::StatusRequest>) -> Answer<v1::NodeStatus> {
        self.may(&request, Verb::Read).await?;
        Ok(Response::new(self.shared.status()))
    }

    async fn members(&self, request: Request<v1::MembersRequest>) -> Answer<v1::MemberList> {
        self.may(&request, Verb::Read).await?;
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
        request: Request<v1::FoundClusterRequest>,
    ) -> Answer<v1::FoundClusterReply> {
        self.may(&request, Verb::Admin).await?;
        let identity = self.shared.found_cluster().await?;
        Ok(Response::new(v1::FoundClusterReply {
            cluster_id: identity.cluster_id,
            id: identity.node_id,
        }))
    }

    async fn add_member(&self, request: Request<v1::AddMemberRequest>) -> Answer<v1::MemberChange> {
        self.administer(request, Administer::Add).await
    }

    async fn promote_member(
        &self,
        request: Request<v1::MemberRequest>,
    ) -> Answer<v1::MemberChange> {
        self.administer(request, Administer::Promote).await
    }

    async fn update_member(
        &self,
        request: Request<v1::UpdateMemberRequest>,
    ) -> Answer<v1::MemberChange> {
        self.administer(request, Administer::Update).await
    }

    async fn remove_member(&self, request: Request<v1::MemberRequest>) -> Answer<v1::MemberChange> {
        self.administer(request, Administer::Remove).await
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::MemberRequest>,
    ) -> Answer<v1::MemberChange> {
        self.administer(request, Administer::Transfer).await
    }

    async fn digest_at(&self, request: Request<v1::DigestAtRequest>) -> Answer<v1::Digest> {
        self.may(&request, Verb::Read).await?;
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
        let caller = Guest::admit(&core, &request).await?.caller()?;
        may(&core, &caller, Noun::Cluster, Verb::Admin).await?;
        tracing::info!(principal = %caller.principal(), "a snapshot is saved");
        // Without a quorum there is no log to note it in.
        if !request.get_ref().stale {
            note(&core, caller, "snapshot save".to_owned()).await?;
            core.reads.catch_up(deadline(0)).await?;
        }
        Ok(Response::new(save::save(&core).await?))
    }

    async fn audit(&self, request: Request<v1::AuditRequest>) -> Answer<v1::AuditPage> {
        let core = self.shared.core()?;
        let caller = Guest::admit(&core, &request).await?.caller()?;
        may(&core, &caller, Noun::Access, Verb::Admin).await?;
        let page = audit::page(core, request.into_inner()).await?;
        Ok(Response::new(page))
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
        load: Some(load_of(core, &meta)),
        ..v1::NodeStatus::default()
    }
}

fn load_of(core: &Core, meta: &MetaRow) -> v1::Load {
    let disk = disk::of(&core.snapshots).unwrap_or_default();
    v1::Load {
        lock_members: meta.lock_members,
        queues: meta.queues,
        processes: meta.processes,
        sessions: meta.sessions,
        watches: core.hub.watchers() as u64,
        commands_in_flight: core.proposer().in_flight() as u64,
        disk_free_bytes: disk.free_bytes,
        disk_size_bytes: disk.size_bytes,
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
