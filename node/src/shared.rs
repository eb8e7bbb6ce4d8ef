//! What the services of a node share: its directory, its health, and its core while it runs.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use openraft::async_runtime::WatchReceiver;
use quorate_rpc::tls::Connector;
use quorate_rpc::{NodeError, v1};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::Admission;
use crate::alarm::Alarms;
use crate::clock::{self, ClusterClock};
use crate::config::Config;
use crate::core::Core;
use crate::membership::{administer_anywhere, leader_of};
use crate::metrics::Metrics;
use crate::network::Peers;
use crate::node::{Health, StartError};
use crate::notices::Hub;
use crate::propose::{Proposer, stopped};
use crate::raft::{Member, Raft};
use crate::read::{ReadContext, Reader};
use crate::room::FreeBytes;
use crate::server;
use crate::storage::{DataDir, Identity, StateChange, Storage, StorageOptions};
use crate::tls::Tls;
use crate::{room, steward, ticker, upgrade};

/// The founder's id; ids handed out later are higher.
const FOUNDER: u64 = 1;

/// The name of a founder that was given none.
const FOUNDER_NAME: &str = "node-1";

/// How long a founder waits for its own first commit.
const FOUND_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a stopping node waits for the answers that are under way.
const DRAIN: Duration = Duration::from_secs(3);

/// What the services of a node share.
pub struct Shared {
    config: Config,
    free_bytes: FreeBytes,
    member: Member,
    /// None once the node has stopped.
    data: Mutex<Option<DataDir>>,
    snapshots: PathBuf,
    /// Set while the node is a member that runs.
    core: RwLock<Option<Arc<Core>>>,
    health: watch::Sender<Health>,
    alarms: Arc<Alarms>,
    tls: Option<Arc<Tls>>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Shared {
    pub fn new(
        config: Config,
        free_bytes: FreeBytes,
        member: Member,
        data: DataDir,
        tls: Option<Arc<Tls>>,
    ) -> Arc<Self> {
        let shared = Arc::new(Self {
            config,
            free_bytes,
            member,
            snapshots: data.snapshots(),
            data: Mutex::new(Some(data)),
            core: RwLock::default(),
            health: watch::Sender::new(Health::Blank),
            alarms: Arc::default(),
            tls,
            metrics: Arc::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        if let Some(tls) = &shared.tls {
            let node = Arc::downgrade(&shared);
            tls.know_members(move || node.upgrade().map_or_else(Vec::new, |node| node.hosts()));
            shared.spawn_until_stop(Arc::clone(tls).run(Arc::clone(&shared.alarms)));
        }
        shared
    }

    /// Certificates, if there are any.
    pub fn tls(&self) -> Option<&Arc<Tls>> {
        self.tls.as_ref()
    }

    /// The hosts of the members.
    fn hosts(&self) -> Vec<String> {
        let Some(core) = self.running() else {
            return Vec::new();
        };
        let metrics = core.raft.metrics();
        let metrics = metrics.borrow_watched();
        let members = metrics.membership_config.membership().nodes();
        let host = |addr: &str| addr.rsplit_once(':').map(|(host, _)| host.to_owned());
        members
            .filter_map(|(_, member)| host(&member.peer_addr))
            .collect()
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn member(&self) -> Member {
        let running = self.running().map(|core| core.member.clone());
        running.unwrap_or_else(|| self.member.clone())
    }

    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// What is wrong with this node while it goes on.
    pub fn alarms(&self) -> &Arc<Alarms> {
        &self.alarms
    }

    /// What is counted and timed here.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Runs a task that is dropped when the node stops.
    pub fn spawn_until_stop(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Whether the node is on its way out, or has gone.
    pub fn is_stopping(&self) -> bool {
        let asked = matches!(&*self.health.borrow(), Health::Stopping | Health::Stopped);
        asked || self.stop.is_cancelled()
    }

    /// From here on the node says that it is stopping, unless it has failed.
    pub fn stopping(&self) {
        self.health.send_if_modified(|health| {
            let running = !matches!(health, Health::Failed(_));
            if running {
                *health = Health::Stopping;
            }
            running
        });
    }

    /// The node has done all that it does before it ends.
    pub fn stopped(&self) {
        self.health.send_if_modified(|health| {
            let clean = *health == Health::Stopping;
            if clean {
                *health = Health::Stopped;
            }
            clean
        });
    }

    /// Stops at once, without a farewell to clients or peers.
    pub fn abandon(&self) {
        self.stop.cancel();
        let core = self
            .core
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // Streams of clients keep the core for as long as they live: Raft must not go on in it.
        if let Some(core) = core {
            let raft = core.raft.clone();
            core.runtime.spawn(async move { raft.shutdown().await });
        }
    }

    /// The core, if the node is a member that runs.
    pub fn running(&self) -> Option<Arc<Core>> {
        self.core
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Hands leadership over, ends Raft, closes the stores and gives the directory back, also when
    /// clients of this node live on.
    pub async fn close(&self) {
        if let Some(core) = self.running() {
            hand_over(&core).await;
            drain(&core).await;
        }
        self.stop.cancel();
        let core = self
            .core
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
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
    pub fn core(&self) -> Result<Arc<Core>, NodeError> {
        if let Health::Failed(facts) = &*self.health.borrow() {
            return Err(NodeError::Stopped {
                message: facts.clone(),
            });
        }
        if self.stop.is_cancelled() {
            return Err(stopped());
        }
        self.running().ok_or_else(|| NodeError::Unavailable {
            message: "this node belongs to no cluster yet; add it with `quorate member add`"
                .to_owned(),
            retry_after_ms: 500,
            leader: None,
        })
    }

    pub fn status(&self) -> v1::NodeStatus {
        let failure = match &*self.health.borrow() {
            Health::Failed(facts) => Some(facts.clone()),
            _ => None,
        };
        let alarms = self.alarms.active();
        let unready = alarms.iter().any(|alarm| alarm.kind.unready());
        let healthy = failure.is_none() && !unready;
        let problems = failure
            .into_iter()
            .chain(alarms.iter().map(|alarm| alarm.text.clone()));
        let status = match self.running() {
            Some(core) => server::status_of(&core),
            None => v1::NodeStatus {
                name: self.member.name.clone(),
                role: "blank".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                command_version: self.config.node.known_version(),
                client_addr: self.member.client_addr.clone(),
                peer_addr: self.member.peer_addr.clone(),
                ..v1::NodeStatus::default()
            },
        };
        v1::NodeStatus {
            healthy,
            problem: problems.collect::<Vec<_>>().join("; "),
            alarms: alarms.iter().map(v1::Alarm::from).collect(),
            ..status
        }
    }

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
        self.start_core(identity.clone()).await.map_err(failed)?;
        let core = self.core()?;
        self.initialize(&core).await.map_err(failed)?;
        Ok(identity)
    }

    /// A member gives this node its id. Answers the id that it has, now or from an earlier time in
    /// the same cluster.
    pub async fn invited(self: &Arc<Self>, invite: v1::InviteRequest) -> Result<u64, NodeError> {
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
        let failed = |error: StartError| NodeError::Stopped {
            message: error.to_string(),
        };
        data.set_identity(identity.clone())
            .map_err(|error| failed(error.into()))?;
        drop(guard);
        let node_id = identity.node_id;
        self.start_core(identity).await.map_err(failed)?;
        Ok(node_id)
    }

    pub async fn start_core(self: &Arc<Self>, identity: Identity) -> Result<(), StartError> {
        let hub = self.hub();
        let storage = self.open_storage(&hub).await?;
        let state = storage.state.reader();
        upgrade::check_own(&self.config.node, state.version().version)?;
        hub.observe(StateChange::Replaced {
            index: state.applied().map_or(0, |id| id.index),
        });
        let stores = Arc::new(storage.handles());
        let log_failure = storage.log.failure();

        let tls = self.tls.as_ref();
        let connector = tls.map_or_else(Connector::plain, Tls::connector);
        let peers = Peers::new(identity.cluster_id.clone(), identity.node_id, connector);
        let config = self.config.raft_config(&identity.cluster_id).validate();
        let config = Arc::new(config.map_err(|error| StartError::Raft(error.to_string()))?);
        let (id, network) = (identity.node_id, Arc::clone(&peers));
        let raft = Raft::new(id, config, network, storage.log, storage.state).await;
        let raft = raft.map_err(|error| StartError::Raft(error.to_string()))?;

        let limits = &self.config.limits;
        let lease = Duration::from_millis(self.config.raft.election_max_ms);
        let clock = Arc::new(ClusterClock::new(clock::System, lease));
        let admission = || Admission::new(limits.commands_in_flight, limits.bytes_in_flight);
        let reads = ReadContext {
            raft: raft.clone(),
            peers: Arc::clone(&peers),
            clock: Arc::clone(&clock),
            state: state.clone(),
            applied: hub.applied(),
        };
        let proposer = Proposer::start(
            raft.clone(),
            Arc::clone(&clock),
            state.clone(),
            admission(),
            Arc::clone(&self.metrics),
            Arc::default(),
        );
        let member = Member {
            name: identity.name.clone(),
            ..self.member.clone()
        };
        let core = Arc::new(Core {
            identity,
            member,
            known_version: self.config.node.known_version(),
            raft,
            state,
            hub,
            peers,
            clock,
            metrics: Arc::clone(&self.metrics),
            proposer,
            reader: Reader::start(reads.clone(), admission()),
            reads,
            stores,
            snapshots: self.snapshots.clone(),
            started: Instant::now(),
            changing: tokio::sync::Mutex::default(),
            runtime: tokio::runtime::Handle::current(),
        });
        self.run_tasks(&core, log_failure);
        self.health.send_replace(Health::Running);
        *self.core.write().unwrap_or_else(PoisonError::into_inner) = Some(core);
        Ok(())
    }

    fn hub(&self) -> Arc<Hub> {
        let lagged = self.metrics.recorded().watches_lagged.clone();
        Arc::new(Hub::new(0, self.config.limits.watches).counting(lagged))
    }

    /// Opens the stores on a thread that may block: a million rows take a second.
    async fn open_storage(self: &Arc<Self>, hub: &Arc<Hub>) -> Result<Storage, StartError> {
        let (shared, hub) = (Arc::clone(self), Arc::clone(hub));
        let opened = tokio::task::spawn_blocking(move || {
            let data = shared.data.blocking_lock();
            let Some(data) = data.as_ref() else {
                return Err(StartError::Raft("the node is stopping".to_owned()));
            };
            let metrics = Arc::clone(&shared.metrics);
            let mut options = StorageOptions::default();
            options.log.meters = metrics.recorded().log.clone();
            options.state.meters = metrics.recorded().state.clone();
            let hook = Arc::new(move |change| {
                metrics.recorded().observe(&change);
                hub.observe(change);
            });
            Ok(Storage::open(data, &options, hook)?)
        });
        opened
            .await
            .map_err(|error| StartError::Raft(error.to_string()))?
    }

    fn run_tasks(self: &Arc<Self>, core: &Arc<Core>, log: watch::Receiver<Option<String>>) {
        self.tasks
            .spawn(ticker::run(Arc::clone(core), self.stop.clone()));
        let stewarded = Arc::clone(core);
        self.spawn_until_stop(async move { steward::run(&stewarded).await });
        let raising = Arc::clone(core);
        self.spawn_until_stop(async move { upgrade::run(&raising).await });
        let (shared, looking) = (Arc::clone(self), Arc::clone(core));
        self.spawn_until_stop(async move {
            room::run(&looking, &shared.config, shared.free_bytes, &shared.alarms).await;
        });
        let (shared, failed) = (Arc::clone(self), Arc::clone(core));
        self.tasks
            .spawn(async move { shared.watch_failure(&failed, log).await });
        let core = Arc::clone(core);
        self.spawn_until_stop(async move { announce(&core).await });
    }

    /// Tells the host when the node has stopped because something is broken. It never ends the
    /// host's process.
    async fn watch_failure(&self, core: &Core, mut log: watch::Receiver<Option<String>>) {
        let mut metrics = core.raft.metrics();
        let mut leader = None;
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
                    let metrics = metrics.borrow_watched();
                    if let Err(fatal) = &metrics.running_state {
                        break fatal.to_string();
                    }
                    if metrics.current_leader != leader {
                        leader = metrics.current_leader;
                        self.metrics.recorded().leader_changes.inc();
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
    pub async fn initialize(&self, core: &Core) -> Result<(), StartError> {
        let failed = |error: String| StartError::Raft(error);
        let initialized = core.raft.is_initialized().await;
        if initialized.map_err(|error| failed(error.to_string()))? {
            return lead_alone(core).await;
        }
        if core.identity.node_id != FOUNDER {
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
async fn lead_alone(core: &Core) -> Result<(), StartError> {
    let own = core.identity.node_id;
    if core.raft.voter_ids().ne([own]) {
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

/// How long a node waits before it tells its addresses again.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(1);

/// Tells the cluster this node's addresses when they are others than the membership says.
async fn announce(core: &Core) {
    let mut metrics = core.raft.metrics();
    loop {
        let known = {
            let metrics = metrics.borrow_watched();
            let membership = metrics.membership_config.membership();
            membership.get_node(&core.identity.node_id).cloned()
        };
        if known
            .as_ref()
            .is_some_and(|known| known.is_at(&core.member))
        {
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
                Ok(_) => {
                    tracing::info!(member = %core.member, "told the cluster where this node is")
                }
                Err(error) => tracing::debug!(%error, "could not tell where this node is"),
            }
            // It takes a while until what was told comes back through the log.
            tokio::time::sleep(ANNOUNCE_EVERY).await;
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
