//! A node in this process: start, health, stop.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use openraft::async_runtime::WatchReceiver;
use quorate_client::Client;
use quorate_rpc::v1::cluster_server::ClusterServer;
use quorate_rpc::v1::coordination_server::CoordinationServer;
use quorate_rpc::v1::peer_server::PeerServer;
use quorate_rpc::{NodeError, frame, v1};
use quorate_statemachine::InvalidArgument;
use thiserror::Error;
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::Admission;
use crate::clock::ClusterClock;
use crate::config::Config;
use crate::core::Core;
use crate::embed::Embedded;
use crate::membership::{administer_anywhere, leader_of};
use crate::network::{PeerService, Peers};
use crate::notices::Hub;
use crate::propose::Proposer;
use crate::raft::{Member, Raft};
use crate::read::{ReadContext, Reader};
use crate::server::{self, Bound, ClusterService, CoordinationService, ListenError};
use crate::storage::{
    DataDir, Identity, StateChange, Storage, StorageError, StorageOptions,
};
use crate::ticker;

/// The founder's id; ids handed out later are higher.
const FOUNDER: u64 = 1;

/// How long a founder waits for its own first commit.
const FOUND_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a stopping node waits for the answers that are under way.
const DRAIN: Duration = Duration::from_secs(3);

/// How a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It belongs to no cluster yet; a member must add it.
    Blank,
    /// It is a member and runs.
    Running,
    /// It is stopping because it was asked to.
    Stopping,
    /// It has stopped, because it was asked to.
    Stopped,
    /// It has stopped because something is broken; these are the facts.
    Failed(String),
}

/// Why a node could not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// An option is out of bounds.
    #[error("configuration: {0}")]
    Config(#[from] InvalidArgument),
    /// A socket could not be bound.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The data directory could not be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Raft did not start.
    #[error("raft: {0}")]
    Raft(String),
}

/// What the services of a node share.
pub(crate) struct Shared {
    config: Config,
    member: Member,
    /// None once the node has stopped.
    data: Mutex<Option<DataDir>>,
    snapshots: PathBuf,
    /// Set while the node is a member that runs.
    core: RwLock<Option<Arc<Core>>>,
    health: watch::Sender<Health>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// A running node. Dropping it stops its tasks without a farewell; see [`Node::shutdown`].
pub struct Node {
    shared: Arc<Shared>,
}

/// Builds a node to embed: alone, on a directory, without sockets, unless told otherwise.
pub struct Builder {
    config: Config,
}

impl Builder {
    /// Where the node's state is. Created if need be, and locked while the node runs.
    #[must_use]
    pub fn data_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.config.node.data_dir = path.into();
        self
    }

    /// The node's name, for people; unique in the cluster.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.config.node.name = name.into();
        self
    }

    /// Listens for the other nodes of a cluster on `host:port`.
    #[must_use]
    pub fn listen_peer(mut self, addr: impl Into<String>) -> Self {
        self.config.listen.peer = addr.into();
        self
    }

    /// Listens for clients on `host:port`.
    #[must_use]
    pub fn listen_client(mut self, addr: impl Into<String>) -> Self {
        self.config.listen.client = addr.into();
        self
    }

    /// With an empty directory, waits to be added to a cluster instead of founding one.
    #[must_use]
    pub fn join(mut self) -> Self {
        self.config.node.bootstrap = false;
        self
    }

    /// Changes any other option.
    #[must_use]
    pub fn configure(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// Starts the node. When it answers, a founder has committed its first entry.
    pub async fn start(self) -> Result<Node, StartError> {
        Node::start(self.config).await
    }
}

impl Node {
    /// Builds a node to embed.
    #[must_use]
    pub fn builder() -> Builder {
        let mut config = Config::default();
        config.listen.client.clear();
        config.listen.peer.clear();
        config.node.bootstrap = true;
        Builder { config }
    }

    /// Starts a node from its configuration.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        config.validate()?;
        let data = DataDir::open(config.node.data_dir.clone())?;
        let identity = data.identity().cloned();
        let (client, peer) = bind(&config).await?;
        let member = advertised(&config, client.as_ref(), peer.as_ref());
        let shared = Arc::new(Shared {
            config,
            member,
            snapshots: data.snapshots(),
            data: Mutex::new(Some(data)),
            core: RwLock::default(),
            health: watch::Sender::new(Health::Blank),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let node = Self { shared };
        let shared = &node.shared;
        // A member that was away answers its peers as soon as it can; its core comes first.
        let identity = match identity {
            None if shared.config.node.bootstrap => Some(shared.found().await?),
            other => other,
        };
        if let Some(identity) = identity {
            shared.start_core(identity).await?;
        }
        serve(shared, client, peer);
        if let Some(core) = shared.running() {
            shared.initialize(&core).await?;
        }
        Ok(node)
    }

    /// The typed client of this process.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.transport())
    }

    /// The transport under the client.
    #[must_use]
    pub fn transport(&self) -> Embedded {
        Embedded::new(Arc::clone(&self.shared))
    }

    /// Follows how the node is.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Health> {
        self.shared.health.subscribe()
    }

    /// What `quorate status` shows of this node.
    #[must_use]
    pub fn status(&self) -> v1::NodeStatus {
        self.shared.status()
    }

    /// Where clients and other nodes reach it.
    #[must_use]
    pub fn member(&self) -> &Member {
        &self.shared.member
    }

    /// Takes a blank node in and makes it a voter once it has caught up.
    pub async fn add_member(
        &self,
        add: v1::AddMemberRequest,
    ) -> Result<v1::MemberChange, NodeError> {
        let core = self.shared.core()?;
        administer_anywhere(&core, v1::administer_request::Request::Add(add)).await
    }

    /// Stops: takes no new work, lets what is under way finish, hands leadership over, flushes, and
    /// closes. Takes a few seconds at most.
    pub async fn shutdown(self) {
        let shared = &self.shared;
        let _ = shared.health.send_if_modified(|health| {
            let running = !matches!(health, Health::Failed(_));
            if running {
                *health = Health::Stopping;
            }
            running
        });
        if let Some(core) = shared.running() {
            hand_over(&core).await;
            drain(&core).await;
        }
        shared.stop.cancel();
        shared.close().await;
        let _ = shared.health.send_if_modified(|health| {
            let clean = *health == Health::Stopping;
            if clean {
                *health = Health::Stopped;
            }
            clean
        });
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

async fn bind(config: &Config) -> Result<(Option<Bound>, Option<Bound>), ListenError> {
    let client = match config.listen.client.as_str() {
        "" => None,
        addr => Some(server::bind("clients", addr).await?),
    };
    let peer = match config.listen.peer.as_str() {
        "" => None,
        addr => Some(server::bind("peers", addr).await?),
    };
    Ok((client, peer))
}

/// Where others reach this node: what the configuration says, or where it listens.
fn advertised(config: &Config, client: Option<&Bound>, peer: Option<&Bound>) -> Member {
    let listen = &config.listen;
    let addr = |told: &str, bound: Option<&Bound>| match (told, bound) {
        ("", Some(bound)) => bound.addr().to_string(),
        (told, _) => told.to_owned(),
    };
    Member {
        name: config.node.name.clone(),
        peer_addr: addr(&listen.advertise_peer, peer),
        client_addr: addr(&listen.advertise_client, client),
        http_addr: String::new(),
    }
}

fn serve(shared: &Arc<Shared>, client: Option<Bound>, peer: Option<Bound>) {
    let limit = frame::MESSAGE_BYTES_MAX;
    if let Some(bound) = client {
        let coordination = CoordinationServer::new(CoordinationService::new(Arc::clone(shared)))
            .max_decoding_message_size(limit)
            .max_encoding_message_size(limit);
        let cluster = ClusterServer::new(ClusterService::new(Arc::clone(shared)));
        let router = server::server().add_service(coordination).add_service(cluster);
        run_server(shared, "clients", router, bound);
    }
    if let Some(bound) = peer {
        let peers = PeerServer::new(PeerService::new(Arc::clone(shared)))
            .max_decoding_message_size(limit)
            .max_encoding_message_size(limit);
        run_server(shared, "peers", server::server().add_service(peers), bound);
    }
}

fn run_server(
    shared: &Arc<Shared>,
    what: &'static str,
    router: tonic::transport::server::Router,
    bound: Bound,
) {
    let stop = shared.stop.clone();
    shared.tasks.spawn(async move {
        // Streams of clients do not end by themselves, so the server is dropped, not drained.
        tokio::select! {
            () = stop.cancelled() => {}
            served = router.serve_with_incoming(bound.incoming()) => {
                if let Err(error) = served {
                    tracing::error!(%error, what, "a server ended");
                }
            }
        }
    });
}

impl Shared {
    /// The core, if the node is a member that runs.
    fn running(&self) -> Option<Arc<Core>> {
        self.core.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends Raft, closes the stores and gives the directory back, also when clients of this node
    /// live on.
    async fn close(&self) {
        let core = self.core.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(core) = core {
            if let Err(error) = core.raft.shutdown().await {
                tracing::warn!(%error, "raft did not stop cleanly");
            }
            let state = core.state.clone();
            let flushed = tokio::task::spawn_blocking(move || state.flush()).await;
            if let Ok(Err(error)) = flushed {
                tracing::warn!(%error, "the state was not flushed; the next start replays the log");
            }
            let stores = Arc::clone(&core.stores);
            drop(core);
            self.tasks.close();
            let _ = tokio::time::timeout(DRAIN, self.tasks.wait()).await;
            let deadline = tokio::time::Instant::now() + DRAIN;
            while stores.is_open() && tokio::time::Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            if stores.is_open() {
                tracing::warn!("a task still has the stores open; the directory may stay locked");
            }
        }
        self.data.lock().await.take();
    }

    /// The core, once the node is a member and as long as it has not stopped.
    pub(crate) fn core(&self) -> Result<Arc<Core>, NodeError> {
        if let Health::Failed(facts) = &*self.health.borrow() {
            return Err(NodeError::Stopped {
                message: facts.clone(),
            });
        }
        if self.stop.is_cancelled() {
            return Err(crate::propose::stopped());
        }
        self.running().ok_or_else(|| NodeError::Unavailable {
            message: "this node belongs to no cluster yet; add it with `quorate member add`"
                .to_owned(),
            retry_after_ms: 500,
            leader: None,
        })
    }

    pub(crate) fn status(&self) -> v1::NodeStatus {
        let problem = match &*self.health.borrow() {
            Health::Failed(facts) => facts.clone(),
            _ => String::new(),
        };
        match self.running() {
            Some(core) => server::status_of(&core, problem),
            None => v1::NodeStatus {
                name: self.member.name.clone(),
                role: "blank".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                healthy: problem.is_empty(),
                problem,
                client_addr: self.member.client_addr.clone(),
                peer_addr: self.member.peer_addr.clone(),
                ..v1::NodeStatus::default()
            },
        }
    }

    /// Gives an empty directory the identity of a new cluster's founder.
    async fn found(&self) -> Result<Identity, StartError> {
        let identity = Identity {
            cluster_id: uuid::Uuid::now_v7().to_string(),
            node_id: FOUNDER,
            name: self.member.name.clone(),
        };
        let mut data = self.data.lock().await;
        if let Some(data) = data.as_mut() {
            data.set_identity(identity.clone())?;
        }
        Ok(identity)
    }

    /// A member gives this node its id. Answers the id that it has, now or from an earlier time in
    /// the same cluster.
    pub(crate) async fn invited(
        self: &Arc<Self>,
        invite: v1::InviteRequest,
    ) -> Result<u64, NodeError> {
        let mut guard = self.data.lock().await;
        let data = guard.as_mut().ok_or_else(crate::propose::stopped)?;
        if let Some(identity) = data.identity() {
            if identity.cluster_id == invite.cluster_id {
                return Ok(identity.node_id);
            }
            return Err(NodeError::WrongCluster {
                expected: format!("cluster {}", invite.cluster_id),
                actual: format!("{identity}; start the node on an empty directory to add it"),
            });
        }
        let identity = Identity {
            cluster_id: invite.cluster_id,
            node_id: invite.node_id,
            name: invite.name,
        };
        let failed = |error: StartError| NodeError::Stopped {
            message: error.to_string(),
        };
        data.set_identity(identity.clone()).map_err(|error| failed(error.into()))?;
        drop(guard);
        let node_id = identity.node_id;
        self.start_core(identity).await.map_err(failed)?;
        Ok(node_id)
    }

    async fn start_core(self: &Arc<Self>, identity: Identity) -> Result<(), StartError> {
        let hub = Arc::new(Hub::new(0));
        let storage = self.open_storage(&hub).await?;
        let state = storage.state.reader();
        hub.observe(StateChange::Replaced {
            index: state.applied().map_or(0, |id| id.index),
        });
        let stores = Arc::new(storage.handles());
        let log_failure = storage.log.failure();

        let peers = Peers::new(identity.cluster_id.clone(), identity.node_id);
        let config = self.config.raft_config(&identity.cluster_id).validate();
        let config = Arc::new(config.map_err(|error| StartError::Raft(error.to_string()))?);
        let network = Arc::clone(&peers);
        let raft = Raft::new(identity.node_id, config, network, storage.log, storage.state).await;
        let raft = raft.map_err(|error| StartError::Raft(error.to_string()))?;

        let limits = &self.config.limits;
        let clock = Arc::new(ClusterClock::default());
        let admission = Admission::new(limits.commands_in_flight, limits.bytes_in_flight);
        let read_admission = Admission::new(limits.commands_in_flight, limits.bytes_in_flight);
        let reads = ReadContext {
            raft: raft.clone(),
            peers: Arc::clone(&peers),
            clock: Arc::clone(&clock),
            state: state.clone(),
            applied: hub.applied(),
        };
        let proposer = Proposer::start(raft.clone(), Arc::clone(&clock), state.clone(), admission);
        let core = Arc::new(Core {
            identity,
            member: self.member.clone(),
            raft,
            state,
            hub,
            peers,
            clock,
            proposer,
            reader: Reader::start(reads.clone(), read_admission),
            reads,
            stores,
            snapshots: self.snapshots.clone(),
            started: Instant::now(),
        });
        self.run_tasks(&core, log_failure);
        self.health.send_replace(Health::Running);
        *self.core.write().unwrap_or_else(PoisonError::into_inner) = Some(core);
        Ok(())
    }

    /// Opens the stores on a thread that may block: a million rows take a second.
    async fn open_storage(self: &Arc<Self>, hub: &Arc<Hub>) -> Result<Storage, StartError> {
        let (shared, hub) = (Arc::clone(self), Arc::clone(hub));
        let opened = tokio::task::spawn_blocking(move || {
            let data = shared.data.blocking_lock();
            let Some(data) = data.as_ref() else {
                return Err(StartError::Raft("the node is stopping".to_owned()));
            };
            let hook = Arc::new(move |change| hub.observe(change));
            Ok(Storage::open(data, &StorageOptions::default(), hook)?)
        });
        opened.await.map_err(|error| StartError::Raft(error.to_string()))?
    }

    fn run_tasks(self: &Arc<Self>, core: &Arc<Core>, log: watch::Receiver<Option<String>>) {
        self.tasks.spawn(ticker::run(Arc::clone(core), self.stop.clone()));
        let (shared, failed) = (Arc::clone(self), Arc::clone(core));
        self.tasks.spawn(async move { shared.watch_failure(&failed, log).await });
        let (core, stop) = (Arc::clone(core), self.stop.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = announce(&core) => {}
            }
        });
    }

    /// Tells the host when the node has stopped because something is broken. It never ends the
    /// host's process.
    async fn watch_failure(&self, core: &Core, mut log: watch::Receiver<Option<String>>) {
        let mut metrics = core.raft.metrics();
        let facts = loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                failed = log.wait_for(Option::is_some) => {
                    if let Ok(facts) = failed {
                        break facts.clone().unwrap_or_default();
                    }
                    return;
                }
                changed = metrics.changed() => {
                    if changed.is_err() {
                        break "raft has ended".to_owned();
                    }
                    if let Err(fatal) = &metrics.borrow_watched().running_state {
                        break fatal.to_string();
                    }
                }
            }
        };
        if self.stop.is_cancelled() {
            return;
        }
        tracing::error!(facts, "this node has stopped");
        self.health.send_replace(Health::Failed(facts));
    }

    /// Makes the founder the one voter of its cluster, unless it is already.
    async fn initialize(&self, core: &Core) -> Result<(), StartError> {
        let failed = |error: String| StartError::Raft(error);
        if core.identity.node_id != FOUNDER {
            return Ok(());
        }
        let initialized = core.raft.is_initialized().await;
        if initialized.map_err(|error| failed(error.to_string()))? {
            return Ok(());
        }
        let members = BTreeMap::from([(FOUNDER, core.member.clone())]);
        let made = core.raft.initialize(members).await;
        made.map_err(|error| failed(error.to_string()))?;
        let leads = core.raft.wait(Some(FOUND_TIMEOUT)).current_leader(FOUNDER, "found").await;
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

/// Tells the cluster this node's addresses when they are others than the membership says.
async fn announce(core: &Core) {
    let mut metrics = core.raft.metrics();
    loop {
        let known = {
            let metrics = metrics.borrow_watched();
            let membership = metrics.membership_config.membership();
            membership.get_node(&core.identity.node_id).cloned()
        };
        if known.as_ref() == Some(&core.member) {
            return;
        }
        if known.is_some() && leader_of(&core.raft).is_some() {
            let own = v1::Member {
                id: core.identity.node_id,
                name: core.member.name.clone(),
                peer_addr: core.member.peer_addr.clone(),
                client_addr: core.member.client_addr.clone(),
                http_addr: core.member.http_addr.clone(),
                ..v1::Member::default()
            };
            let request = v1::administer_request::Request::Announce(own);
            match administer_anywhere(core, request).await {
                Ok(_) => tracing::info!(member = %core.member, "told the cluster where this node is"),
                Err(error) => tracing::debug!(%error, "could not tell where this node is"),
            }
        }
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

/// A leader that stops hands over first, so that nobody waits for an election.
async fn hand_over(core: &Core) {
    if !core.leads() {
        return;
    }
    let alone = core.raft.voter_ids().count() <= 1;
    if alone {
        return;
    }
    let request = v1::administer_request::Request::Transfer(v1::MemberRequest::default());
    let transfer = administer_anywhere(core, request);
    match tokio::time::timeout(DRAIN, transfer).await {
        Ok(Ok(change)) => tracing::info!(to = change.id, "handed leadership over"),
        Ok(Err(error)) => tracing::warn!(%error, "leadership was not handed over"),
        Err(_) => tracing::warn!("leadership was not handed over in time"),
    }
}

/// Waits until what was proposed here is answered.
async fn drain(core: &Core) {
    let deadline = tokio::time::Instant::now() + DRAIN;
    while core.proposer.in_flight() > 0 && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
