//! What the services of a node share: its directory, its health, and its core while it runs.
//!
//! `found.rs` is how it becomes a member, `start.rs` how a member's core is put together, `stop.rs`
//! how it ends.

mod found;
mod start;
mod stop;

pub use found::lead_alone;

use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use openraft::async_runtime::WatchReceiver;
use quorate_rpc::{NodeError, v1};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::alarm::Alarms;
use crate::config::Config;
use crate::core::Core;
use crate::metrics::Metrics;
use crate::node::Health;
use crate::propose::stopped;
use crate::raft::Member;
use crate::room::FreeBytes;
use crate::server;
use crate::storage::DataDir;
use crate::tls::Tls;

/// What the services of a node share.
pub struct Shared {
    config: Config,
    free_bytes: FreeBytes,
    member: Member,
    /// None once the node has stopped.
    data: Arc<Mutex<Option<DataDir>>>,
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
            data: Arc::new(Mutex::new(Some(data))),
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

    /// Cancelled when the node stops.
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
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

    /// The core, if the node is a member that runs.
    pub fn running(&self) -> Option<Arc<Core>> {
        self.core
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
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
}
