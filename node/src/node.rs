//! A node in this process: start, health, stop.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use quorate_client::Client;
use quorate_rpc::tls::TlsError;
use quorate_rpc::v1::peer_server::PeerServer;
use quorate_rpc::{NodeError, frame, v1};
use quorate_statemachine::InvalidArgument;
use thiserror::Error;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::alarm::Alarm;
use crate::config::Config;
use crate::embed::Embedded;
use crate::membership::administer_anywhere;
use crate::network::PeerService;
use crate::raft::Member;
use crate::room::{self, FreeBytes};
use crate::server::{self, Bound, Connections, Edge, ListenError, Patience};
use crate::shared::{self, Shared};
use crate::storage::{DataDir, StorageError};
use crate::tls::{Port, Tls};

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
    /// Certificates or keys could not be used.
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    /// Others could reach a port that anybody may use.
    #[error(
        "refused to listen on {addr} for {what}: others can reach it, and {why}; either set \
         tls.cert, tls.key and tls.ca (`quorate cert` makes them), or say that all who can reach \
         it are trusted, with security.insecure = true (--insecure)"
    )]
    Insecure {
        /// Who the port is for.
        what: &'static str,
        /// Where it would listen.
        addr: SocketAddr,
        /// What is missing.
        why: &'static str,
    },
    /// Raft did not start.
    #[error("raft: {0}")]
    Raft(String),
    /// The node's own threads did not start.
    #[error("threads of the node: {0}")]
    Threads(String),
}

/// A running node. Dropping it stops its tasks without a farewell; see [`Node::shutdown`].
pub struct Node {
    shared: Arc<Shared>,
    /// Behind the state, so that it is let go after it.
    threads: Option<OwnThreads>,
}

/// A runtime that is let go without waiting for it, which no async caller may do.
struct OwnThreads(Option<Runtime>);

impl Drop for OwnThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Builds a node to embed: alone, on a directory, without sockets, unless told otherwise.
pub struct Builder {
    config: Config,
    own_threads: usize,
    free_bytes: FreeBytes,
}

impl Builder {
    /// Where the node's state is. Created if need be, and locked while the node runs.
    #[must_use]
    pub fn data_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.config.node.data_dir = path.into();
        self
    }

    /// The node's name, for people; unique in the cluster. Without it, the node goes by the name in
    /// its directory, or the one under which it is added.
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

    /// Listens for probes over HTTP on `host:port`.
    #[must_use]
    pub fn listen_http(mut self, addr: impl Into<String>) -> Self {
        self.config.listen.http = addr.into();
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

    /// Runs the node's tasks on so many threads of its own, instead of on the runtime that starts
    /// it. Then a caller may block that runtime and still be answered.
    #[must_use]
    pub fn own_threads(mut self, threads: usize) -> Self {
        self.own_threads = threads;
        self
    }

    /// Sees by another way how much of the disk is free; for tests.
    #[doc(hidden)]
    #[must_use]
    pub fn free_bytes(mut self, free_bytes: FreeBytes) -> Self {
        self.free_bytes = free_bytes;
        self
    }

    /// Starts the node. When it answers, a founder has committed its first entry.
    pub async fn start(self) -> Result<Node, StartError> {
        match self.own_threads {
            0 => Node::start_seeing(self.config, self.free_bytes).await,
            threads => Node::start_apart(self.config, self.free_bytes, threads).await,
        }
    }
}

impl Node {
    /// Builds a node to embed.
    #[must_use]
    pub fn builder() -> Builder {
        let mut config = Config::default();
        config.listen.client.clear();
        config.listen.peer.clear();
        config.listen.http.clear();
        config.node.bootstrap = true;
        Builder {
            config,
            own_threads: 0,
            free_bytes: room::free_bytes,
        }
    }

    async fn start_apart(
        config: Config,
        free_bytes: FreeBytes,
        threads: usize,
    ) -> Result<Self, StartError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("quorate-node")
            .enable_all()
            .build()
            .map_err(|error| StartError::Threads(error.to_string()))?;
        let starting = runtime.spawn(Self::start_seeing(config, free_bytes));
        let threads = OwnThreads(Some(runtime));
        let started = starting.await;
        let mut node = started.map_err(|error| StartError::Threads(error.to_string()))??;
        node.threads = Some(threads);
        Ok(node)
    }

    /// Starts a node from its configuration.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::start_seeing(config, room::free_bytes).await
    }

    async fn start_seeing(config: Config, free_bytes: FreeBytes) -> Result<Self, StartError> {
        config.validate()?;
        let tls = Tls::read(&config)?;
        let data = DataDir::open(config.node.data_dir.clone())?;
        data.check_name(&config.node.name)?;
        let identity = data.identity().cloned();
        let sockets = Sockets::bind(&config).await?;
        sockets.check_reach(&config)?;
        let member = sockets.advertised(&config);
        let shared = Shared::new(config, free_bytes, member, data, tls);
        let node = Self {
            shared,
            threads: None,
        };
        let shared = &node.shared;
        // A member that was away answers its peers as soon as it can; its core comes first.
        let identity = match identity {
            None if shared.config().node.bootstrap => Some(shared.found().await?),
            other => other,
        };
        if let Some(identity) = identity {
            shared.start_core(identity).await?;
        }
        let core = shared.running();
        if let Some(core) = &core {
            shared.initialize(core).await?;
        }
        sockets.serve(shared);
        if let Some(core) = &core {
            shared::lead_alone(core).await?;
        }
        Ok(node)
    }

    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
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
        self.shared.health()
    }

    /// What is wrong with this node while it goes on.
    #[must_use]
    pub fn alarms(&self) -> Vec<Alarm> {
        self.shared.alarms().active()
    }

    /// What `quorate status` shows of this node.
    #[must_use]
    pub fn status(&self) -> v1::NodeStatus {
        self.shared.status()
    }

    /// Who it is, and where clients and other nodes reach it. Its name may be empty while it is
    /// blank.
    #[must_use]
    pub fn member(&self) -> Member {
        self.shared.member()
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
        shared.stopping();
        shared.close().await;
        shared.stopped();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shared.abandon();
    }
}

/// What the node listens on; bound before anything else.
struct Sockets {
    client: Option<Bound>,
    peer: Option<Bound>,
    http: Option<Bound>,
}

impl Sockets {
    async fn bind(config: &Config) -> Result<Self, ListenError> {
        let listen = &config.listen;
        Ok(Self {
            client: bind("clients", &listen.client).await?,
            peer: bind("peers", &listen.peer).await?,
            http: bind("probes", &listen.http).await?,
        })
    }

    /// Where others reach this node: what the configuration says, or where it listens.
    fn advertised(&self, config: &Config) -> Member {
        let listen = &config.listen;
        let addr = |told: &str, bound: &Option<Bound>| match (told, bound) {
            ("", Some(bound)) => bound.addr().to_string(),
            (told, _) => told.to_owned(),
        };
        Member {
            name: config.node.name.clone(),
            peer_addr: addr(&listen.advertise_peer, &self.peer),
            client_addr: addr(&listen.advertise_client, &self.client),
            http_addr: addr(&listen.advertise_http, &self.http),
            ..Member::default()
        }
    }

    /// Refuses ports that others can reach and anybody may use.
    fn check_reach(&self, config: &Config) -> Result<(), StartError> {
        let why = match (config.tls.is_on(), config.tls.accept_plaintext) {
            (true, false) => return Ok(()),
            (true, true) => "tls.accept_plaintext lets anybody in without TLS",
            (false, _) => "there is no TLS",
        };
        for (what, bound) in [("clients", &self.client), ("peers", &self.peer)] {
            let Some(addr) = bound.as_ref().map(Bound::addr) else {
                continue;
            };
            if addr.ip().to_canonical().is_loopback() {
                continue;
            }
            if !config.security.insecure {
                return Err(StartError::Insecure { what, addr, why });
            }
            tracing::warn!(what, %addr, why, "whoever reaches this port can use it");
        }
        Ok(())
    }

    fn serve(self, shared: &Arc<Shared>) {
        let limit = frame::MESSAGE_BYTES_MAX;
        let streams = shared.config().limits.streams_per_connection;
        if let Some(bound) = self.client {
            let routes = server::client_routes(shared);
            let router = server::server(streams).add_routes(routes);
            let edge = edge(shared, "clients", Some(Port::Clients));
            let (taking, opened) = edge.take(bound.into_listener());
            run_server(
                shared,
                "clients",
                taking,
                router.serve_with_incoming(opened),
            );
        }
        if let Some(bound) = self.peer {
            let peers = PeerServer::new(PeerService::new(Arc::clone(shared)))
                .max_decoding_message_size(limit)
                .max_encoding_message_size(limit);
            let router = server::server(streams).add_service(peers);
            let edge = edge(shared, "peers", Some(Port::Peers));
            let (taking, opened) = edge.take(bound.into_listener());
            run_server(shared, "peers", taking, router.serve_with_incoming(opened));
        }
        if let Some(bound) = self.http {
            let router = server::http_router(Arc::clone(shared));
            let addr = bound.addr();
            let (taking, opened) = edge(shared, "probes", None).take(bound.into_listener());
            let serving = axum::serve(Connections::new(opened, addr), router);
            run_server(shared, "probes", taking, serving.into_future());
        }
    }
}

/// Connections of nodes at a time: nine members need about thirty, and each blank node one.
const PEER_CONNECTIONS: usize = 256;

/// Connections of probes and browsers at a time.
const PROBE_CONNECTIONS: usize = 256;

/// How long a connection of HTTP/1 may be silent between two requests.
const PROBE_IDLE: Duration = Duration::from_secs(60);

/// What a port takes. A port without a name of its own has no TLS.
fn edge(shared: &Shared, what: &'static str, port: Option<Port>) -> Edge {
    let limits = &shared.config().limits;
    let (connections, per_address) = match port {
        Some(Port::Clients) => (
            server::connections_within(limits.connections),
            limits.connections_per_address,
        ),
        Some(Port::Peers) => (PEER_CONNECTIONS, 0),
        None => (PROBE_CONNECTIONS, 0),
    };
    let idle = match port {
        Some(_) => Duration::from_millis(limits.idle_ms),
        None => PROBE_IDLE,
    };
    Edge {
        what,
        tls: shared.tls().cloned().zip(port),
        connections,
        per_address,
        patience: Patience {
            first: Duration::from_millis(limits.handshake_ms),
            idle,
            plain: port.is_none(),
        },
    }
}

async fn bind(what: &'static str, addr: &str) -> Result<Option<Bound>, ListenError> {
    match addr {
        "" => Ok(None),
        addr => server::bind(what, addr).await.map(Some),
    }
}

fn run_server<E: std::fmt::Display>(
    shared: &Arc<Shared>,
    what: &'static str,
    taking: impl Future<Output = ()> + Send + 'static,
    serving: impl Future<Output = Result<(), E>> + Send + 'static,
) {
    // Streams of clients do not end by themselves, so a stopping server is dropped, not drained.
    shared.spawn_until_stop(async move {
        tokio::select! {
            () = taking => {}
            ended = serving => {
                if let Err(error) = ended {
                    tracing::error!(%error, what, "a server ended");
                }
            }
        }
    });
}
