//! How the core of a member is put together, and the tasks that run beside it.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use openraft::async_runtime::WatchReceiver;
use quorate_rpc::tls::Connector;
use quorate_rpc::v1;
use tokio::sync::{Semaphore, watch};

use super::Shared;
use crate::access;
use crate::admission::Admission;
use crate::blocking::blocking;
use crate::clock::{self, ClusterClock};
use crate::core::Core;
use crate::membership::{administer_anywhere, announce_everywhere};
use crate::network::Peers;
use crate::node::{Health, StartError};
use crate::notices::Hub;
use crate::propose::Proposer;
use crate::quarantine::{self, Quarantine};
use crate::raft::{Member, Raft};
use crate::read::{ReadContext, Reader};
use crate::server::SAVES_MAX;
use crate::storage::{Identity, StateChange, StateReader, Storage, StorageOptions};
use crate::tls::Tls;
use crate::{backup, room, steward, ticker, upgrade};

/// Tells why a store has stopped.
type Failure = watch::Receiver<Option<String>>;

impl Shared {
    /// Opens the stores and starts Raft and all that belongs to a member.
    pub async fn start_core(self: &Arc<Self>, identity: Identity) -> Result<(), StartError> {
        let hub = self.hub();
        let storage = self.open_storage(&hub).await?;
        let state = storage.state.reader();
        upgrade::check_own(&self.config.node, state.version().version)?;
        hub.observe(StateChange::Replaced {
            index: state.applied().map_or(0, |id| id.index),
        });
        let stores = Arc::new(storage.handles());
        let log = storage.log.reader();
        let failures = (storage.log.failure(), storage.state.failure());
        let quarantine = self.open_quarantine().await?;

        let peers = self.peers(&identity, &quarantine, &state);
        let raft = self.start_raft(&identity, storage, &peers, !quarantine.is_on());
        let raft = raft.await?;

        let limits = &self.config.limits;
        let lease = Duration::from_millis(self.config.raft.election_max_ms);
        let clock = Arc::new(ClusterClock::new(clock::System, lease));
        let admission = || Admission::new(limits.of_node(), limits.of_principal());
        let reads = ReadContext {
            raft: raft.clone(),
            peers: Arc::clone(&peers),
            clock: Arc::clone(&clock),
            state: state.clone(),
            applied: hub.applied(),
            quarantine: Arc::clone(&quarantine),
        };
        let proposer = Proposer::start(
            raft.clone(),
            Arc::clone(&clock),
            state.clone(),
            admission(),
            Arc::clone(&self.metrics),
            Arc::default(),
            Arc::clone(&quarantine),
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
            log,
            state,
            quarantine,
            hub,
            peers,
            clock,
            metrics: Arc::clone(&self.metrics),
            proposer,
            reader: Reader::start(reads.clone(), admission()),
            reads,
            saves: Arc::new(Semaphore::new(SAVES_MAX)),
            stores,
            snapshots: self.snapshots.clone(),
            started: Instant::now(),
            changing: tokio::sync::Mutex::default(),
            runtime: tokio::runtime::Handle::current(),
        });
        self.run_tasks(&core, failures);
        self.health.send_replace(Health::Running);
        *self.core.write().unwrap_or_else(PoisonError::into_inner) = Some(core);
        Ok(())
    }

    fn peers(
        &self,
        identity: &Identity,
        quarantine: &Arc<Quarantine>,
        state: &StateReader,
    ) -> Arc<Peers> {
        let tls = self.tls.as_ref();
        let connector = tls.map_or_else(Connector::plain, Tls::connector);
        let (cluster_id, node_id) = (identity.cluster_id.clone(), identity.node_id);
        let round_trips = self.metrics.recorded().round_trips.clone();
        let quarantine = Arc::clone(quarantine);
        let state = state.clone();
        Peers::new(
            cluster_id,
            node_id,
            connector,
            quarantine,
            state,
            round_trips,
        )
    }

    /// Starts Raft. A node that cannot lead votes like the others.
    async fn start_raft(
        &self,
        identity: &Identity,
        storage: Storage,
        peers: &Arc<Peers>,
        can_lead: bool,
    ) -> Result<Raft, StartError> {
        let failed = |error: &dyn std::error::Error| StartError::Raft(error.to_string());
        let config = openraft::Config {
            enable_elect: can_lead,
            ..self.config.raft_config(&identity.cluster_id)
        };
        let config = Arc::new(config.validate().map_err(|error| failed(&error))?);
        let (id, network) = (identity.node_id, Arc::clone(peers));
        let raft = Raft::new(id, config, network, storage.log, storage.state).await;
        raft.map_err(|error| failed(&error))
    }

    async fn open_quarantine(&self) -> Result<Arc<Quarantine>, StartError> {
        let data = self.data.lock().await;
        let Some(data) = data.as_ref() else {
            return Err(StartError::Raft("the node is stopping".to_owned()));
        };
        let alarms = Arc::clone(&self.alarms);
        Ok(Quarantine::open(data.quarantine(), alarms)?)
    }

    fn hub(&self) -> Arc<Hub> {
        let lagged = self.metrics.recorded().watches_lagged.clone();
        Arc::new(Hub::new(0, self.config.limits.watches).counting(lagged))
    }

    /// Opens the stores on a thread that may block: a million rows take a second.
    async fn open_storage(self: &Arc<Self>, hub: &Arc<Hub>) -> Result<Storage, StartError> {
        let (shared, hub) = (Arc::clone(self), Arc::clone(hub));
        let data = Arc::clone(&self.data).lock_owned().await;
        let opened = blocking(move || {
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

    fn run_tasks(self: &Arc<Self>, core: &Arc<Core>, failures: (Failure, Failure)) {
        self.tasks
            .spawn(ticker::run(Arc::clone(core), self.stop.clone()));
        let stewarded = Arc::clone(core);
        self.spawn_until_stop(async move { steward::run(&stewarded).await });
        let (shared, comparing) = (Arc::clone(self), Arc::clone(core));
        self.spawn_until_stop(async move {
            let every = Duration::from_millis(shared.config.verify.every_ms);
            quarantine::run(&comparing, &shared.alarms, every).await;
        });
        let raising = Arc::clone(core);
        self.spawn_until_stop(async move { upgrade::run(&raising).await });
        if self.config.security.switch_access_off {
            let switching = Arc::clone(core);
            self.spawn_until_stop(async move { access::switch_off(&switching).await });
        }
        let (shared, looking) = (Arc::clone(self), Arc::clone(core));
        self.spawn_until_stop(async move {
            room::run(&looking, &shared.config, shared.free_bytes, &shared.alarms).await;
        });
        let section = self.config.backup.clone();
        if section.is_on() {
            let (core, alarms) = (Arc::clone(core), Arc::clone(&self.alarms));
            self.spawn_until_stop(async move { backup::run(&core, &section, &alarms).await });
        }
        let (shared, failed) = (Arc::clone(self), Arc::clone(core));
        self.tasks
            .spawn(async move { shared.watch_failure(&failed, failures).await });
        let core = Arc::clone(core);
        self.spawn_until_stop(async move { announce(&core).await });
    }

    /// Tells the host when the node has stopped because something is broken. It never ends the
    /// host's process.
    async fn watch_failure(&self, core: &Core, (mut log, mut state): (Failure, Failure)) {
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
                failed = state.wait_for(Option::is_some) => {
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
        self.fail(facts);
    }

    /// The node has stopped, and says why.
    pub(super) fn fail(&self, facts: String) {
        if self.stop.is_cancelled() {
            return;
        }
        tracing::error!(facts, "this node has stopped");
        self.health.send_replace(Health::Failed(facts));
    }
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
        if known.is_some() {
            let own = v1::Member {
                id: core.identity.node_id,
                name: core.member.name.clone(),
                peer_addr: core.member.peer_addr.clone(),
                client_addr: core.member.client_addr.clone(),
                http_addr: core.member.http_addr.clone(),
                ..v1::Member::default()
            };
            // Whom it takes for the leader may be one that died: others are told as well.
            let told = if core.leads() {
                let request = v1::administer_request::Request::Announce(own);
                administer_anywhere(core, request).await.map(drop)
            } else {
                announce_everywhere(core, own).await
            };
            match told {
                Ok(()) => {
                    tracing::info!(member = %core.member, "told the cluster where this node is")
                }
                Err(error) => tracing::debug!(%error, "could not tell where this node is"),
            }
            // It takes a while until what was told comes back through the log.
            tokio::time::sleep(ANNOUNCE_EVERY).await;
        }
        let changed = tokio::time::timeout(ANNOUNCE_EVERY, metrics.changed());
        if let Ok(Err(_)) = changed.await {
            return;
        }
    }
}
