//! A node that belongs to a cluster: Raft, its stores, and the ways in.

use std::sync::Arc;
use std::time::Instant;

use openraft::async_runtime::WatchReceiver;
use quorate_client::{Executed, WatchEvent, WatchWhat};
use quorate_rpc::{NodeError, v1};
use quorate_statemachine::{Name, Timestamp, cluster, version};
use tokio::sync::{Semaphore, mpsc};

use crate::clock::ClusterClock;
use crate::membership::leader_of;
use crate::metrics::Metrics;
use crate::network::Peers;
use crate::notices::Hub;
use crate::origin::{Caller, Origin};
use crate::propose::{Proposer, Submission, no_leader};
use crate::quarantine::Quarantine;
use crate::raft::{Member, Raft};
use crate::read::{ReadContext, Reader};
use crate::respond;
use crate::storage::{Identity, LogReader, OpenStores, StateReader};

/// The parts of a running member.
pub struct Core {
    pub(crate) identity: Identity,
    pub(crate) member: Member,
    /// The highest version of commands that this node knows.
    pub(crate) known_version: u32,
    pub(crate) raft: Raft,
    pub(crate) state: StateReader,
    pub(crate) log: LogReader,
    pub(crate) quarantine: Arc<Quarantine>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) clock: Arc<ClusterClock>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) proposer: Proposer,
    pub(crate) reader: Reader,
    pub(crate) reads: ReadContext,
    /// Places for snapshots that are saved: each keeps a checkpoint on the disk and a thread.
    pub(crate) saves: Arc<Semaphore>,
    pub(crate) stores: Arc<OpenStores>,
    pub(crate) snapshots: std::path::PathBuf,
    pub(crate) started: Instant,
    /// Held from the plan of a change of membership until it is committed.
    pub(crate) changing: tokio::sync::Mutex<()>,
    /// For what must end when the node is dropped, wherever that happens.
    pub(crate) runtime: tokio::runtime::Handle,
}

impl Core {
    /// Who this node is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The Raft of this node.
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// The way of local commands.
    pub fn proposer(&self) -> &Proposer {
        &self.proposer
    }

    /// The way of reads.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Whether this node leads, as far as it knows.
    pub fn leads(&self) -> bool {
        self.raft.metrics().borrow_watched().state.is_leader()
    }

    /// Cluster time, if this node leads.
    pub fn cluster_now(&self) -> Timestamp {
        self.clock.of_leader(&self.raft, self.state.now())
    }

    /// Executes a command here if this node leads, else passes it on to the leader.
    pub fn submit(&self, submission: Submission) {
        if self.leads() {
            return self.proposer.submit(submission);
        }
        match leader_of(&self.raft) {
            Some((id, _)) if id == self.identity.node_id => self.proposer.submit(submission),
            Some((id, leader)) => self.forward(id, leader, submission),
            None => submission.responder.send(Err(no_leader())),
        }
    }

    fn forward(&self, id: u64, leader: Member, submission: Submission) {
        let Submission {
            command,
            origin,
            deadline,
            allow_zero_ttl,
            responder,
        } = submission;
        let permit = match self.proposer.admit(&origin.caller, &command) {
            Ok(permit) => permit,
            Err(error) => return responder.send(Err(error)),
        };
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        let request = v1::ForwardRequest {
            command,
            timeout_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1),
            allow_zero_ttl,
            origin: Some(origin.to_wire()),
        };
        let peers = Arc::clone(&self.peers);
        tokio::spawn(async move {
            let reply = peers.forward(id, &leader, request).await;
            responder.send(reply.and_then(forwarded));
            drop(permit);
        });
    }

    /// Executes one typed operation of the node's own and waits for the answer.
    pub async fn execute<O: quorate_statemachine::Operation>(
        &self,
        operation: O,
        deadline: tokio::time::Instant,
    ) -> Result<O::Reply, NodeError> {
        let command = quorate_statemachine::Command::from(operation).encode();
        let executed = self
            .proposer
            .execute(command.into(), Caller::Cluster.into(), deadline, false)
            .await?;
        let response = executed.reply.0.map_err(|refusal| NodeError::Unsafe {
            message: refusal.to_string(),
        })?;
        O::reply(response).ok_or_else(|| NodeError::OutcomeUnknown {
            message: "the answer is of another kind than the command".to_owned(),
        })
    }

    /// Executes one typed operation of a caller, here or on the leader, and waits for the answer.
    pub async fn execute_as<O: quorate_statemachine::Operation>(
        &self,
        operation: O,
        origin: Origin,
        deadline: tokio::time::Instant,
    ) -> Result<O::Reply, NodeError> {
        let command = quorate_statemachine::Command::from(operation).encode();
        let submit = |responder| {
            self.submit(Submission {
                command: command.into(),
                origin,
                deadline,
                allow_zero_ttl: false,
                responder,
            });
        };
        let executed = respond::answer_of(deadline, respond::command_lost, submit).await?;
        let response = executed.reply.0.map_err(NodeError::Refused)?;
        O::reply(response).ok_or_else(|| NodeError::OutcomeUnknown {
            message: "the answer is of another kind than the command".to_owned(),
        })
    }

    /// Names the cluster, the first command of a new one, and lets it use all that this node knows.
    pub async fn found(&self, deadline: tokio::time::Instant) -> Result<(), NodeError> {
        let cluster_id = Name::parse("cluster_id", self.identity.cluster_id.clone())?;
        let node_id = self.identity.node_id;
        let found = cluster::Found {
            cluster_id,
            node_id,
        };
        self.execute(found, deadline).await?;
        // Alone there is nobody to ask.
        let version = self.known_version;
        if version > version::FIRST {
            let raise = cluster::SetVersion { version };
            self.execute(raise, deadline).await?;
        }
        Ok(())
    }

    /// Watches what entries do.
    pub fn watch(
        &self,
        what: WatchWhat,
        from_index: u64,
    ) -> Result<mpsc::Receiver<WatchEvent>, NodeError> {
        let watch = self.hub.watch(what, from_index)?;
        // One that is opened behind the end of all others must not stay.
        self.quarantine.check()?;
        Ok(watch)
    }

    /// The digest that was recorded at `index`, once this node has applied it; empty if it has
    /// passed it by a snapshot or before it was started.
    pub async fn digest_at(
        &self,
        index: u64,
        deadline: tokio::time::Instant,
    ) -> Result<v1::Digest, NodeError> {
        let mut applied = self.hub.applied();
        let reached = applied.wait_for(|applied| *applied >= index);
        if tokio::time::timeout_at(deadline, reached).await.is_err() {
            let message = format!("this node has not applied entry {index} yet");
            return Err(NodeError::DeadlineExceeded { message });
        }
        let digests = self.state.digests().into_iter();
        let digest = digests.rev().find(|(recorded, _)| *recorded == index);
        Ok(v1::Digest {
            index,
            digest: digest.map_or_else(String::new, |(_, digest)| digest.to_string()),
        })
    }

    /// Answers another node's question for its reads' index.
    pub async fn read_index(&self, request: &v1::ReadIndexRequest) -> v1::ReadIndexReply {
        self.reads.read_index(request).await
    }

    /// Log index of the membership that this node knows.
    pub fn membership_index(&self) -> u64 {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let log_id = metrics.membership_config.log_id().as_ref();
        log_id.map_or(0, |log_id| log_id.index)
    }

    /// What a stream's first message says.
    pub fn hello(&self) -> v1::Hello {
        let leader = leader_of(&self.raft);
        let (leader_id, leader_client_addr) =
            leader.map_or((0, String::new()), |(id, member)| (id, member.client_addr));
        let (term, member_client_addrs) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let members = metrics.membership_config.membership().nodes();
            let addrs = members.map(|(_, member)| member.client_addr.clone());
            let known = addrs.filter(|addr| !addr.is_empty()).collect();
            (metrics.current_term, known)
        };
        v1::Hello {
            cluster_id: self.identity.cluster_id.clone(),
            node_id: self.identity.node_id,
            term,
            applied_index: *self.hub.applied().borrow(),
            leader_id,
            leader_client_addr,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            member_client_addrs,
        }
    }
}

fn forwarded(reply: v1::ExecuteReply) -> Result<Executed, NodeError> {
    use v1::execute_reply::Result;
    match reply.result {
        Some(Result::Reply(bytes)) => {
            let decoded = quorate_statemachine::Reply::decode(&bytes);
            let reply_body = decoded.map_err(|error| NodeError::OutcomeUnknown {
                message: format!("the leader's answer cannot be read: {error}"),
            })?;
            Ok(Executed {
                index: reply.index,
                reply: reply_body,
            })
        }
        Some(Result::Error(error)) => Err(error.into()),
        None => Err(NodeError::OutcomeUnknown {
            message: "the leader's answer is empty".to_owned(),
        }),
    }
}
