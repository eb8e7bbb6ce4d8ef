//! Raft's network, on the connections to the peers.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt};
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RPCTypes};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{RaftNetworkFactory, RaftNetworkV2};
use prometheus_client::metrics::histogram::Histogram;
use quorate_rpc::v1;
use quorate_rpc::v1::peer_client::PeerClient;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::peer::{Peers, Use};
use super::wire;
use crate::metrics::peer;
use crate::raft::{Member, Snapshot, TypeConfig, Vote};
use crate::storage::SnapshotData;

/// A follower that leaves an append unanswered for so long is taken for dead: its stream is closed
/// and opened again.
const APPEND_TIMEOUT: Duration = Duration::from_secs(5);

/// Between tries to reach a member that is not reached.
const UNREACHABLE_PAUSE: Duration = Duration::from_millis(100);

/// Makes the network to one peer.
impl RaftNetworkFactory<TypeConfig> for Arc<Peers> {
    type Network = PeerNetwork;

    async fn new_client(&mut self, target: u64, node: &Member) -> PeerNetwork {
        self.moved(target, &node.peer_addr);
        PeerNetwork {
            peers: Arc::clone(self),
            target,
            round_trips: self.round_trips.get_or_create_owned(&peer(target)),
        }
    }
}

/// Raft's way to one peer.
pub struct PeerNetwork {
    peers: Arc<Peers>,
    target: u64,
    round_trips: Histogram,
}

impl PeerNetwork {
    fn client(&self, purpose: Use) -> Result<PeerClient<Channel>, Unreachable<TypeConfig>> {
        self.peers
            .client(&self.peers.addr_of(self.target), purpose)
            .map_err(|error| Unreachable::new(&error))
    }

    fn request<T>(&self, message: T) -> Request<T> {
        self.peers.request(self.target, message)
    }

    /// A peer that refuses connections is backed off from; other errors are tried again at once.
    fn failed(&self, status: Status) -> RPCError<TypeConfig> {
        if status.code() == tonic::Code::Unavailable {
            return Unreachable::new(&status).into();
        }
        NetworkError::new(&status).into()
    }

    fn timed_out(&self, action: RPCTypes, timeout: Duration) -> Timeout<TypeConfig> {
        Timeout {
            action,
            id: self.peers.node_id,
            target: self.target,
            timeout,
        }
    }

    async fn call_vote(
        &self,
        request: VoteRequest<TypeConfig>,
        pre_vote: bool,
        ttl: Duration,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = self.client(Use::Raft)?;
        let call = client.vote(self.request(wire::vote_request_out(request, pre_vote)));
        let reply = tokio::time::timeout(ttl, call)
            .await
            .map_err(|_| self.timed_out(RPCTypes::Vote, ttl))?
            .map_err(|status| self.failed(status))?;
        wire::vote_reply_in(reply.into_inner()).map_err(|error| NetworkError::new(&error).into())
    }

    /// Opens an append stream, not again and again without a pause: openraft waits only behind a
    /// request that was taken, and a connection that is refused takes none.
    async fn open_append<S>(&self, input: S) -> Result<AppendStream, RPCError<TypeConfig>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        let opened = self.try_append(input).await;
        if matches!(opened, Err(RPCError::Unreachable(_))) {
            tokio::time::sleep(UNREACHABLE_PAUSE).await;
        }
        opened
    }

    /// Opens an append stream; its answers come in the order of the requests.
    async fn try_append<S>(&self, input: S) -> Result<AppendStream, RPCError<TypeConfig>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        let sent = Arc::new(AtomicU64::new(0));
        let heartbeat = Arc::new(OnceLock::new());
        let (counted, beaten) = (Arc::clone(&sent), Arc::clone(&heartbeat));
        let requests = input.map(move |request| {
            // A heartbeat has a stream of its own and carries nothing.
            if counted.fetch_add(1, Ordering::Release) == 0 && request.entries.is_empty() {
                let _ = beaten.set(Instant::now());
            }
            wire::append_out(request)
        });
        let mut client = self.client(Use::Raft)?;
        let call = client.append(self.request(requests));
        let replies = tokio::time::timeout(APPEND_TIMEOUT, call)
            .await
            .map_err(|_| self.timed_out(RPCTypes::AppendEntries, APPEND_TIMEOUT))?
            .map_err(|status| self.failed(status))?
            .into_inner();
        let answered = Answers {
            replies,
            sent,
            received: 0,
            heartbeat,
            round_trips: self.round_trips.clone(),
            timeout: self.timed_out(RPCTypes::AppendEntries, APPEND_TIMEOUT),
        };
        Ok(futures::stream::unfold(Some(answered), Answers::next).boxed())
    }
}

/// The answers of an append stream, with a watch for a peer that has gone silent.
struct Answers {
    replies: tonic::Streaming<v1::AppendReply>,
    sent: Arc<AtomicU64>,
    received: u64,
    /// When the first request went out, if it carried no entries.
    heartbeat: Arc<OnceLock<Instant>>,
    round_trips: Histogram,
    timeout: Timeout<TypeConfig>,
}

type AppendItem = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>;

type AppendStream = BoxStream<'static, AppendItem>;

impl Answers {
    /// The next answer; after an error or a refusal the stream is over.
    async fn next(state: Option<Self>) -> Option<(AppendItem, Option<Self>)> {
        let mut this = state?;
        let item = loop {
            let before = this.sent.load(Ordering::Acquire);
            match tokio::time::timeout(this.timeout.timeout, this.replies.message()).await {
                Ok(Ok(Some(reply))) => {
                    break wire::append_reply_in(reply)
                        .map_err(|error| RPCError::from(NetworkError::new(&error)));
                }
                Ok(Ok(None)) => return None,
                Ok(Err(status)) => break Err(NetworkError::new(&status).into()),
                // Nothing outstanding for the whole time: the stream is idle, not stuck.
                Err(_) if this.received >= before => {}
                Err(_) => break Err(this.timeout.clone().into()),
            }
        };
        if let (0, Ok(_), Some(began)) = (this.received, &item, this.heartbeat.get()) {
            this.round_trips.observe(began.elapsed().as_secs_f64());
        }
        this.received += 1;
        let next = matches!(item, Ok(Ok(_))).then_some(this);
        Some((item, next))
    }
}

impl RaftNetworkV2<TypeConfig> for PeerNetwork {
    type SnapshotData = SnapshotData;

    /// Of one length: the default doubles to a second, for which one who is back then waits.
    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(UNREACHABLE_PAUSE)))
    }

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let once = futures::stream::iter([rpc]);
        let mut answers = self.open_append(once).await?;
        match answers.next().await {
            Some(answer) => answer.map(AppendEntriesResponse::from),
            None => Err(NetworkError::from_string("the peer closed the stream").into()),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, AppendItem>, RPCError<TypeConfig>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        async move {
            self.open_append(input)
                .await
                .map(|answers| answers as BoxStream<'s, _>)
        }
        .boxed()
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call_vote(rpc, false, option.hard_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call_vote(rpc, true, option.hard_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        // A wrong state goes no further: who leads next sends its own.
        let sound = self.peers.quarantine.check();
        sound.map_err(|error| Unreachable::new(&error))?;
        let mut client = self.client(Use::Snapshot)?;
        let request = |messages| self.request(messages);
        let data = snapshot.snapshot.clone();
        let send = super::snapshot::send(&mut client, request, vote, data, false);
        tokio::select! {
            closed = cancel => Err(closed.into()),
            sent = send => {
                let vote = sent.map_err(|error| {
                    self.peers.snapshot_refused(&error, snapshot.snapshot);
                    NetworkError::new(&error)
                })?;
                Ok(SnapshotResponse::new(vote))
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = v1::TransferLeaderRequest {
            from: Some(wire::vote_out(rpc.from_leader())),
            to: *rpc.to_node_id(),
            last_log_id: wire::log_id_out(rpc.last_log_id().copied()),
        };
        let ttl = option.hard_ttl();
        let mut client = self.client(Use::Raft)?;
        let call = client.transfer_leader(self.request(request));
        let reply = tokio::time::timeout(ttl, call)
            .await
            .map_err(|_| self.timed_out(RPCTypes::TransferLeader, ttl))?
            .map_err(|status| self.failed(status))?;
        if reply.into_inner().accepted {
            return Ok(Ok(()));
        }
        Err(NetworkError::from_string("the peer did not accept the leadership").into())
    }
}
