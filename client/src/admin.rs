//! For operators: how nodes are, and who is a member.
//!
//! Calls go to one endpoint after the other until one can be reached; a node that is not the leader
//! passes on what only the leader can do. A change that was certainly not done, as one that meets
//! an election or a new node that does not listen yet, is tried again until its time is over. A
//! call that may have been done is not sent again: look at [`Admin::members`] and decide.

use std::time::Duration;

use quorate_rpc::tls::ClientTls;
use quorate_rpc::v1::cluster_client::ClusterClient;
use quorate_rpc::{NodeError, frame, v1};
use quorate_statemachine::InvalidArgument;
use tokio::time::{Instant, timeout};
use tonic::{Response, Status, Streaming};

use crate::client::DEFAULT_TIMEOUT;
use crate::error::ClientError;
use crate::remote::authorize::{Authorized, Credential};
use crate::remote::connection::Dial;
use crate::remote::{checked_endpoints, plain};
use crate::retry::Failures;

pub use quorate_rpc::v1::audit_row::Who as AuditWho;
pub use quorate_rpc::v1::{
    AddMemberRequest, Alarm, AuditPage, AuditRequest, AuditRow, AuditSubject, Digest,
    FoundClusterReply, Load, Member, MemberChange, MemberList, NodeStatus, SnapshotPart,
    UpdateMemberRequest,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the next part of a snapshot may take on a busy disk.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(60);

/// A snapshot file on its way.
#[derive(Debug)]
pub struct SnapshotParts {
    parts: Streaming<SnapshotPart>,
    patience: Duration,
}

impl SnapshotParts {
    /// The next part; none behind the last. Whether the file is whole, only the file tells.
    pub async fn next(&mut self) -> Result<Option<SnapshotPart>, ClientError> {
        match timeout(self.patience, self.parts.message()).await {
            Ok(Ok(part)) => Ok(part),
            Ok(Err(status)) => Err(NodeError::from(status).into()),
            Err(_) => {
                let message = format!("no part of the snapshot came in {:?}", self.patience);
                Err(NodeError::DeadlineExceeded { message }.into())
            }
        }
    }
}

/// Administration of one cluster.
#[derive(Debug, Clone)]
pub struct Admin {
    endpoints: Vec<String>,
    timeout: Duration,
    tls: Option<ClientTls>,
    credential: Option<Credential>,
}

type Cluster = ClusterClient<Authorized>;

impl Admin {
    /// Of the cluster that has nodes at `endpoints`. Connects for each call.
    pub fn connect<E: Into<String>>(
        endpoints: impl IntoIterator<Item = E>,
    ) -> Result<Self, ClientError> {
        Self::connect_with(endpoints, None)
    }

    /// The same with TLS if there are certificates.
    pub fn connect_with<E: Into<String>>(
        endpoints: impl IntoIterator<Item = E>,
        tls: Option<ClientTls>,
    ) -> Result<Self, ClientError> {
        Ok(Self {
            endpoints: checked_endpoints(endpoints, tls.is_some())?,
            timeout: DEFAULT_TIMEOUT,
            tls,
            credential: None,
        })
    }

    /// The same with another time for each call. Taking a member in may take long: it waits until
    /// the new node has caught up, if asked to promote it.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The same, showing a token to every node that is called.
    #[must_use]
    pub fn with_token(mut self, token: impl Into<Credential>) -> Self {
        self.credential = Some(token.into());
        self
    }

    /// How long each call may take.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The endpoints, in the order in which they are asked.
    #[must_use]
    pub fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// How the first node is that can be reached.
    pub async fn status(&self) -> Result<NodeStatus, ClientError> {
        self.call(async |mut node: Cluster| node.status(v1::StatusRequest {}).await)
            .await
    }

    /// How the node at `address` is.
    pub async fn status_of(&self, address: &str) -> Result<NodeStatus, ClientError> {
        let one = self.at(address);
        one.status().await
    }

    /// All members. `local` asks for what the node knows, without the leader.
    pub async fn members(&self, local: bool) -> Result<MemberList, ClientError> {
        let request = v1::MembersRequest { local };
        self.call(async |mut node: Cluster| node.members(request).await)
            .await
    }

    /// Makes the blank node at `address` the founder of a new cluster. Look first whether the nodes
    /// that shall belong to it are blank as well.
    pub async fn found_cluster(&self, address: &str) -> Result<FoundClusterReply, ClientError> {
        let request = v1::FoundClusterRequest {};
        let one = self.at(address);
        one.call(async |mut node: Cluster| node.found_cluster(request).await)
            .await
    }

    /// Takes a blank node in as a learner, which becomes a voter when it has caught up if asked to.
    pub async fn add_member(&self, request: AddMemberRequest) -> Result<MemberChange, ClientError> {
        self.change(async |mut node: Cluster| node.add_member(request.clone()).await)
            .await
    }

    /// Makes a learner a voter.
    pub async fn promote_member(
        &self,
        id: u64,
        dry_run: bool,
    ) -> Result<MemberChange, ClientError> {
        let request = v1::MemberRequest { id, dry_run };
        self.change(async |mut node: Cluster| node.promote_member(request).await)
            .await
    }

    /// Tells the cluster where a member is now.
    pub async fn update_member(
        &self,
        request: UpdateMemberRequest,
    ) -> Result<MemberChange, ClientError> {
        self.change(async |mut node: Cluster| node.update_member(request.clone()).await)
            .await
    }

    /// Takes a member out.
    pub async fn remove_member(&self, id: u64, dry_run: bool) -> Result<MemberChange, ClientError> {
        let request = v1::MemberRequest { id, dry_run };
        self.change(async |mut node: Cluster| node.remove_member(request).await)
            .await
    }

    /// Hands leadership to the member `to`, or to the most advanced voter.
    pub async fn transfer_leader(
        &self,
        to: Option<u64>,
        dry_run: bool,
    ) -> Result<MemberChange, ClientError> {
        let id = to.unwrap_or(0);
        let request = v1::MemberRequest { id, dry_run };
        self.change(async |mut node: Cluster| node.transfer_leader(request).await)
            .await
    }

    /// The digest that the node at `address` kept at `index`; waits for up to `wait` until it has
    /// applied it.
    pub async fn digest_at(
        &self,
        address: &str,
        index: u64,
        wait: Duration,
    ) -> Result<Digest, ClientError> {
        let timeout_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        let request = v1::DigestAtRequest { index, timeout_ms };
        let one = self.at(address);
        one.call(async |mut node: Cluster| node.digest_at(request).await)
            .await
    }

    /// Saves a snapshot of the state: the bytes of a file, part by part. It holds all that was
    /// acknowledged before; with `stale` what the asked node has, also without a quorum.
    pub async fn save_snapshot(&self, stale: bool) -> Result<SnapshotParts, ClientError> {
        let request = v1::SaveSnapshotRequest { stale };
        let parts = self
            .call(async |mut node: Cluster| node.save_snapshot(request).await)
            .await?;
        Ok(SnapshotParts {
            parts,
            patience: self.timeout.max(SNAPSHOT_PATIENCE),
        })
    }

    /// Who did what and when, by the log of the node that is asked: one page.
    pub async fn audit(&self, request: AuditRequest) -> Result<AuditPage, ClientError> {
        self.call(async |mut node: Cluster| node.audit(request.clone()).await)
            .await
    }

    /// The same for the node at `address` alone.
    #[must_use]
    pub fn at(&self, address: &str) -> Self {
        Self {
            endpoints: vec![address.to_owned()],
            timeout: self.timeout,
            tls: self.tls.clone(),
            credential: self.credential.clone(),
        }
    }

    /// As [`Self::call`], and again while it is certain that nothing was done.
    async fn change<R>(
        &self,
        ask: impl AsyncFn(Cluster) -> Result<Response<R>, Status>,
    ) -> Result<R, ClientError> {
        let deadline = Instant::now() + self.timeout;
        let mut failures = Failures::new(deadline);
        loop {
            let left = || deadline.saturating_duration_since(Instant::now());
            match self.ask_each(left, &ask).await {
                Err(ClientError::Node(error)) if !error.may_have_happened() => {
                    failures.wait_after(error).await?;
                }
                result => return result,
            }
        }
    }

    /// Asks one endpoint after the other while it is certain that nothing was done.
    async fn call<R>(
        &self,
        ask: impl AsyncFn(Cluster) -> Result<Response<R>, Status>,
    ) -> Result<R, ClientError> {
        self.ask_each(|| self.timeout, &ask).await
    }

    /// The same, with so much time for each endpoint.
    async fn ask_each<R>(
        &self,
        time: impl Fn() -> Duration,
        ask: &impl AsyncFn(Cluster) -> Result<Response<R>, Status>,
    ) -> Result<R, ClientError> {
        let mut last: NodeError =
            InvalidArgument::new("endpoints", "must not be empty", "1 or more", "0").into();
        for address in &self.endpoints {
            let time = time();
            let error = match timeout(time, self.ask_one(address, ask)).await {
                Ok(Ok(reply)) => return Ok(reply),
                Ok(Err(error)) => error,
                Err(_) => NodeError::DeadlineExceeded {
                    message: format!("no answer from {address} in {time:?}"),
                },
            };
            let elsewhere = error.is_passing() && !error.may_have_happened();
            last = error;
            if !elsewhere {
                break;
            }
        }
        Err(last.into())
    }

    async fn ask_one<R>(
        &self,
        address: &str,
        ask: &impl AsyncFn(Cluster) -> Result<Response<R>, Status>,
    ) -> Result<R, NodeError> {
        // What was typed by a person may have a scheme; what nodes say has none.
        let address = plain(address, self.tls.is_some())?;
        let (tls, credential) = (self.tls.as_ref(), self.credential.as_ref());
        let dial = Dial::new(CONNECT_TIMEOUT, tls, credential);
        let channel = dial.connect(&address).await?;
        let node = ClusterClient::new(channel)
            .max_decoding_message_size(frame::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(frame::MESSAGE_BYTES_MAX);
        Ok(ask(node).await?.into_inner())
    }
}
