//! The answering side: what other nodes ask of this one.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use openraft::raft::TransferLeaderRequest;
use quorate_rpc::identity::Parties;
use quorate_rpc::v1::peer_server::Peer;
use quorate_rpc::{NodeError, v1};
use tonic::{Request, Response, Status, Streaming};

use super::wire;
use crate::alarm::AlarmKind;
use crate::clock::{Source, System};
use crate::core::Core;
use crate::membership;
use crate::quarantine;
use crate::server::{deadline, execute_once, fatal};
use crate::shared::Shared;

/// Serves the other nodes of the cluster.
pub struct PeerService {
    shared: Arc<Shared>,
}

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl PeerService {
    /// Serves on behalf of this node.
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The node's core, after a check that the call is meant for it.
    fn addressed<T>(&self, request: &Request<T>) -> Result<Arc<Core>, Status> {
        let core = self.shared.core()?;
        let identity = core.identity();
        Parties::check(request.metadata(), &identity.cluster_id, identity.node_id)?;
        Ok(core)
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    type AppendStream = Replies<v1::AppendReply>;
    type InstallSnapshotStream = Replies<v1::SnapshotReply>;

    async fn append(
        &self,
        request: Request<Streaming<v1::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let core = self.addressed(&request)?;
        // A message that cannot be read ends the stream; the leader opens it again.
        let input = request.into_inner().scan((), |(), message| {
            let request = message.map_err(NodeError::from).and_then(wire::append_in);
            let request =
                request.inspect_err(|error| tracing::info!(%error, "append stream ended"));
            std::future::ready(request.ok())
        });
        let replies = core.raft().stream_append(input).map(|result| match result {
            Ok(result) => Ok(wire::append_reply_out(result)),
            Err(error) => Err(fatal(&error).into()),
        });
        Ok(Response::new(Box::pin(replies)))
    }

    async fn vote(
        &self,
        request: Request<v1::VoteRequest>,
    ) -> Result<Response<v1::VoteReply>, Status> {
        let core = self.addressed(&request)?;
        let message = request.into_inner();
        let pre_vote = message.pre_vote;
        let request = wire::vote_request_in(message)?;
        let reply = if pre_vote {
            core.raft().pre_vote(request).await
        } else {
            core.raft().vote(request).await
        };
        let reply = reply.map_err(|error| fatal(&error))?;
        Ok(Response::new(wire::vote_reply_out(reply)))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<v1::SnapshotMessage>>,
    ) -> Result<Response<Self::InstallSnapshotStream>, Status> {
        let core = self.addressed(&request)?;
        let replies = super::snapshot::receive(core, request.into_inner());
        Ok(Response::new(Box::pin(replies)))
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderReply>, Status> {
        let core = self.addressed(&request)?;
        let message = request.into_inner();
        // It tells all voters who is to lead. Others vote for that one, in quarantine or not.
        if message.to == core.identity().node_id {
            core.quarantine.check()?;
        }
        let (from, last) = (
            wire::vote_in(message.from)?,
            wire::log_id_in(message.last_log_id),
        );
        let transfer = TransferLeaderRequest::new(from, message.to, last);
        let accepted = core.raft().handle_transfer_leader(transfer).await;
        let accepted = accepted.map_err(|error| fatal(&error))?.is_ok();
        Ok(Response::new(v1::TransferLeaderReply { accepted }))
    }

    async fn forward(
        &self,
        request: Request<v1::ForwardRequest>,
    ) -> Result<Response<v1::ExecuteReply>, Status> {
        let core = self.addressed(&request)?;
        Ok(Response::new(
            execute_once(&core, request.into_inner()).await,
        ))
    }

    async fn read_index(
        &self,
        request: Request<v1::ReadIndexRequest>,
    ) -> Result<Response<v1::ReadIndexReply>, Status> {
        let core = self.addressed(&request)?;
        Ok(Response::new(core.read_index(request.get_ref()).await))
    }

    async fn invite(
        &self,
        request: Request<v1::InviteRequest>,
    ) -> Result<Response<v1::InviteReply>, Status> {
        let reply = match self.shared.invited(request.into_inner()).await {
            Ok(node_id) => v1::InviteReply {
                node_id,
                command_version: self.shared.config().node.known_version(),
                error: None,
            },
            Err(error) => v1::InviteReply {
                error: Some(error.into()),
                ..v1::InviteReply::default()
            },
        };
        Ok(Response::new(reply))
    }

    async fn describe_build(
        &self,
        request: Request<v1::DescribeBuildRequest>,
    ) -> Result<Response<v1::Build>, Status> {
        let core = self.addressed(&request)?;
        Ok(Response::new(v1::Build {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            command_version: self.shared.config().node.known_version(),
            disk_nearly_full: self.shared.alarms().is_on(AlarmKind::DiskNearlyFull),
            quarantined: core.quarantine.is_on(),
            wall_micros: System.wall_micros(),
        }))
    }

    async fn digest_at(
        &self,
        request: Request<v1::DigestAtRequest>,
    ) -> Result<Response<v1::Digest>, Status> {
        let core = self.addressed(&request)?;
        let request = request.into_inner();
        let digest = core.digest_at(request.index, deadline(request.timeout_ms));
        Ok(Response::new(digest.await?))
    }

    async fn resync(
        &self,
        request: Request<v1::ResyncRequest>,
    ) -> Result<Response<v1::ResyncReply>, Status> {
        let core = self.addressed(&request)?;
        let identity = core.identity();
        let parties = Parties::check(request.metadata(), &identity.cluster_id, identity.node_id)?;
        let min_index = request.get_ref().min_index;
        let sent = quarantine::send_snapshot(&core, parties.from, min_index).await;
        let error = sent.err().map(v1::NodeError::from);
        Ok(Response::new(v1::ResyncReply { error }))
    }

    async fn administer(
        &self,
        request: Request<v1::AdministerRequest>,
    ) -> Result<Response<v1::AdministerReply>, Status> {
        let core = self.addressed(&request)?;
        let reply = match membership::administer(&core, request.into_inner()).await {
            Ok(change) => v1::AdministerReply {
                change: Some(change),
                error: None,
            },
            Err(error) => v1::AdministerReply {
                change: None,
                error: Some(error.into()),
            },
        };
        Ok(Response::new(reply))
    }
}
