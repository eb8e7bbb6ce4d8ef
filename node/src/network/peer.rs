//! The calling side: connections to the other nodes, and the calls that are not Raft's.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use quorate_rpc::frame::{CONNECTION_WINDOW_BYTES, MESSAGE_BYTES_MAX, STREAM_WINDOW_BYTES};
use quorate_rpc::identity::Parties;
use quorate_rpc::tls::Connector;
use quorate_rpc::v1::peer_client::PeerClient;
use quorate_rpc::{NodeError, v1};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::wire;
use crate::blocking::blocking;
use crate::clock::{Source, System};
use crate::membership::ADMINISTER_TIMEOUT;
use crate::metrics::PeerTimings;
use crate::quarantine::Quarantine;
use crate::raft::{Member, Vote};
use crate::storage::{SnapshotData, StateReader};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a call on a client's behalf may take between nodes.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How long it counts what a member said of its clock.
const SKEW_COUNTS: Duration = Duration::from_secs(10);

/// Connections to the other nodes, by address, made when they are first needed.
pub struct Peers {
    cluster_id: String,
    pub(super) node_id: u64,
    connector: Connector,
    pub(super) quarantine: Arc<Quarantine>,
    state: StateReader,
    channels: Mutex<HashMap<(String, Use), Channel>>,
    /// Where each member is now. A replication stream outlives a change of its target's address:
    /// Raft opens it once and keeps it.
    addrs: Mutex<HashMap<u64, String>>,
    /// Seconds that clocks of members were ahead of this node's when they last told.
    skews: Mutex<HashMap<u64, (Instant, f64)>>,
    pub(super) round_trips: PeerTimings,
}

/// What a connection is for: a snapshot must not stand in the way of appends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Use {
    Raft,
    Snapshot,
}

impl Peers {
    /// No connections yet.
    #[must_use]
    pub fn new(
        cluster_id: String,
        node_id: u64,
        connector: Connector,
        quarantine: Arc<Quarantine>,
        state: StateReader,
        round_trips: PeerTimings,
    ) -> Arc<Self> {
        Arc::new(Self {
            cluster_id,
            node_id,
            connector,
            quarantine,
            state,
            channels: Mutex::default(),
            addrs: Mutex::default(),
            skews: Mutex::default(),
            round_trips,
        })
    }

    /// The member `id` is reached at `addr` from now on.
    pub fn moved(&self, id: u64, addr: &str) {
        let mut addrs = self
            .addrs
            .lock()
            .expect("no code panics while it holds this");
        addrs.insert(id, addr.to_owned());
    }

    pub(super) fn addr_of(&self, id: u64) -> String {
        let addrs = self
            .addrs
            .lock()
            .expect("no code panics while it holds this");
        addrs.get(&id).cloned().unwrap_or_default()
    }

    /// Who this node is, in a call to node `to`.
    pub(super) fn parties(&self, to: u64) -> Parties {
        Parties {
            cluster_id: self.cluster_id.clone(),
            from: self.node_id,
            to,
        }
    }

    pub(super) fn client(
        &self,
        addr: &str,
        purpose: Use,
    ) -> Result<PeerClient<Channel>, NodeError> {
        let mut channels = self
            .channels
            .lock()
            .expect("no code panics while it holds this");
        let key = (addr.to_owned(), purpose);
        let channel = match channels.get(&key) {
            Some(channel) => channel.clone(),
            None => {
                let channel = endpoint(addr)?.connect_with_connector_lazy(self.connector.clone());
                channels.insert(key, channel.clone());
                channel
            }
        };
        Ok(PeerClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    pub(super) fn request<T>(&self, to: u64, message: T) -> Request<T> {
        let mut request = Request::new(message);
        self.parties(to).write(request.metadata_mut());
        request
    }

    /// Asks the leader for the index that a read must see.
    pub async fn read_index(
        &self,
        id: u64,
        leader: &Member,
        request: v1::ReadIndexRequest,
    ) -> Result<v1::ReadIndexReply, NodeError> {
        let mut client = self.client(&leader.peer_addr, Use::Raft)?;
        let call = client.read_index(self.request(id, request));
        unary(&leader.peer_addr, false, call).await
    }

    /// Passes a command on to the leader.
    pub async fn forward(
        &self,
        id: u64,
        leader: &Member,
        request: v1::ForwardRequest,
    ) -> Result<v1::ExecuteReply, NodeError> {
        let mut client = self.client(&leader.peer_addr, Use::Raft)?;
        let call = client.forward(self.request(id, request));
        unary(&leader.peer_addr, true, call).await
    }

    /// Passes an administrative request on to the leader.
    pub async fn administer(
        &self,
        id: u64,
        leader: &Member,
        request: v1::AdministerRequest,
    ) -> Result<v1::AdministerReply, NodeError> {
        let mut client = self.client(&leader.peer_addr, Use::Raft)?;
        let call = client.administer(self.request(id, request));
        unary_within(ADMINISTER_TIMEOUT, &leader.peer_addr, true, call).await
    }

    /// Which build a member runs. Its answer also tells the time of its wall clock.
    pub async fn describe_build(&self, id: u64, addr: &str) -> Result<v1::Build, NodeError> {
        let mut client = self.client(addr, Use::Raft)?;
        let call = client.describe_build(self.request(id, v1::DescribeBuildRequest {}));
        let (asked, own) = (Instant::now(), System.wall_micros());
        let build = unary(addr, false, call).await?;
        // Builds before this one do not tell.
        if build.wall_micros > 0 {
            let halfway = own as f64 + asked.elapsed().as_micros() as f64 / 2.0;
            let skew = (build.wall_micros as f64 - halfway) / 1e6;
            self.lock_skews().insert(id, (asked, skew));
        }
        Ok(build)
    }

    /// Seconds that clocks of members are ahead of this node's, as they told lately.
    pub fn skews(&self) -> Vec<(u64, f64)> {
        let mut skews = self.lock_skews();
        skews.retain(|_, (told, _)| told.elapsed() < SKEW_COUNTS);
        skews.iter().map(|(id, (_, skew))| (*id, *skew)).collect()
    }

    fn lock_skews(&self) -> MutexGuard<'_, HashMap<u64, (Instant, f64)>> {
        self.skews
            .lock()
            .expect("no code panics while it holds this")
    }

    /// The digest that a member recorded at `index`; waits up to `wait` until it has come there.
    pub async fn digest_at(
        &self,
        id: u64,
        addr: &str,
        index: u64,
        wait: Duration,
    ) -> Result<v1::Digest, NodeError> {
        let mut client = self.client(addr, Use::Raft)?;
        let timeout_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        let request = v1::DigestAtRequest { index, timeout_ms };
        let call = client.digest_at(self.request(id, request));
        unary(addr, false, call).await
    }

    /// Asks the leader for a snapshot to build the state from; waits up to `limit` until that is
    /// done.
    pub async fn resync(
        &self,
        id: u64,
        addr: &str,
        request: v1::ResyncRequest,
        limit: Duration,
    ) -> Result<(), NodeError> {
        let mut client = self.client(addr, Use::Snapshot)?;
        let call = client.resync(self.request(id, request));
        let reply = unary_within(limit, addr, false, call).await?;
        reply.error.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Sends a member the snapshot that it has asked for; waits until it has used it.
    pub async fn send_resync(
        &self,
        to: u64,
        addr: &str,
        vote: Vote,
        data: SnapshotData,
    ) -> Result<(), NodeError> {
        let mut client = self.client(addr, Use::Snapshot)?;
        let request = |messages| self.request(to, messages);
        let sent = super::snapshot::send(&mut client, request, vote, data.clone(), true).await;
        sent.inspect_err(|error| self.snapshot_refused(error, data))
            .map(drop)
    }

    /// Whoever refuses a snapshot as a bad one may have found this node's disk to be damaged.
    pub(super) fn snapshot_refused(&self, error: &NodeError, data: SnapshotData) {
        if matches!(error, NodeError::Invalid(_)) {
            let state = self.state.clone();
            // It tells the node itself what it finds.
            drop(tokio::spawn(blocking(move || state.check_refused(&data))));
        }
    }

    /// Gives a blank node its id; answers the id that it has, and what it knows.
    pub async fn invite(
        &self,
        addr: &str,
        invite: v1::InviteRequest,
    ) -> Result<v1::InviteReply, NodeError> {
        let mut client = self.client(addr, Use::Raft)?;
        let call = client.invite(Request::new(invite));
        let mut reply = unary(addr, true, call).await?;
        match reply.error.take() {
            Some(error) => Err(error.into()),
            None => Ok(reply),
        }
    }
}

fn endpoint(addr: &str) -> Result<Endpoint, NodeError> {
    let endpoint = Endpoint::from_shared(format!("http://{addr}"))
        .map_err(|error| wire::bad("peer_addr", &error.to_string(), addr))?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(4))
        .keep_alive_while_idle(true))
}

/// One call and its answer. A transport error of a call that changes nothing did not happen.
async fn unary<T>(
    addr: &str,
    changes: bool,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, NodeError> {
    unary_within(CALL_TIMEOUT, addr, changes, call).await
}

/// The same, with a time of its own.
async fn unary_within<T>(
    limit: Duration,
    addr: &str,
    changes: bool,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, NodeError> {
    let result = tokio::time::timeout(limit, call).await;
    match result {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => match never_sent(&status) {
            Some(cause) => Err(NodeError::Unavailable {
                message: format!("the node at {addr} cannot be reached: {cause}"),
                retry_after_ms: 50,
                leader: None,
            }),
            None => Err(failed(addr, changes, status)),
        },
        Err(_) => Err(NodeError::DeadlineExceeded {
            message: format!("node at {addr} has not answered in {} s", limit.as_secs()),
        }),
    }
}

fn failed(addr: &str, changes: bool, status: Status) -> NodeError {
    match NodeError::from(status) {
        NodeError::OutcomeUnknown { message } if !changes => NodeError::Unavailable {
            message: format!("node at {addr}: {message}"),
            retry_after_ms: 50,
            leader: None,
        },
        error => error,
    }
}

/// Why there was no connection to send it on; none if there was one.
fn never_sent(status: &Status) -> Option<String> {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        cause = error.source();
        if error.is::<tonic::ConnectError>() {
            return Some(cause.map_or_else(|| error.to_string(), |cause| cause.to_string()));
        }
    }
    None
}
