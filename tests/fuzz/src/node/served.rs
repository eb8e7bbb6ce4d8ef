//! A node in this process that all inputs are sent to, one after the other. It must live on.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use quorate_client::{ClaimOutcome, Client};
use quorate_node::{Config, Console, Health, Node};
use quorate_rpc::v1;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};

/// Nothing that a probe asks takes longer on a machine that works.
const PATIENCE: Duration = Duration::from_secs(30);

/// Inputs between two probes.
const PROBE_EVERY: u64 = 64;

/// Inputs for one node: a state that grows without end would hide what memory an input costs.
const INPUTS_MAX: u64 = 20_000;

/// Whether any thread of the process has panicked.
static PANICKED: AtomicBool = AtomicBool::new(false);

static SERVED: Mutex<Option<Served>> = Mutex::new(None);

/// A node that serves.
pub struct Served {
    runtime: Runtime,
    node: Node,
    /// What it is, as it was when it had started.
    pub status: v1::NodeStatus,
    /// To the port of clients.
    pub clients: Channel,
    /// To the port of the nodes.
    pub peers: Channel,
    inputs: AtomicU64,
    _data: TempDir,
}

/// Does something with the node, and sees that it lives.
pub fn with_node(act: impl AsyncFnOnce(&Served)) {
    let mut served = SERVED.lock().unwrap_or_else(PoisonError::into_inner);
    if served
        .as_ref()
        .is_some_and(|it| it.inputs.load(Ordering::Relaxed) >= INPUTS_MAX)
        && let Some(old) = served.take()
    {
        old.runtime.block_on(old.node.shutdown());
    }
    let served: &Served = served.get_or_insert_with(Served::start);
    served.runtime.block_on(async {
        act(served).await;
        served.check().await;
    });
}

/// Remembers panics: a task that panics takes nothing else with it.
fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICKED.store(true, Ordering::SeqCst);
            before(info);
        }));
    });
}

impl Served {
    fn start() -> Self {
        watch_panics();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let data = folder();
        let any = "127.0.0.1:0";
        let builder = Node::builder()
            .data_dir(data.path())
            .listen_client(any)
            .listen_peer(any)
            .listen_http(any)
            .configure(configure);
        let node = runtime.block_on(builder.start()).expect("the node starts");
        let status = node.status();
        let channel = |address: &str| {
            let _on = runtime.enter();
            let endpoint = Endpoint::from_shared(format!("http://{address}"));
            endpoint.expect("an address").connect_lazy()
        };
        Self {
            clients: channel(&status.client_addr),
            peers: channel(&status.peer_addr),
            runtime,
            node,
            status,
            inputs: AtomicU64::new(0),
            _data: data,
        }
    }

    async fn check(&self) {
        let inputs = self.inputs.fetch_add(1, Ordering::Relaxed);
        assert!(
            !PANICKED.load(Ordering::SeqCst),
            "a task of the node has panicked"
        );
        let health = self.node.health().borrow().clone();
        assert_eq!(health, Health::Running);
        if inputs.is_multiple_of(PROBE_EVERY) {
            let probed = timeout(PATIENCE, probe(&self.node.client())).await;
            probed.expect("a probe is answered in time");
        }
    }
}

/// No clocks in the way: what is silent is closed late, and nothing is compared or saved.
fn configure(config: &mut Config) {
    config.http.console = Console::On;
    config.limits.disk_reserve_bytes = 0;
    config.verify.every_ms = 0;
    config.raft.snapshot_entries = 5_000;
    config.raft.keep_entries = 5_000;
}

/// On memory if there is a disk of it: what is slow here is the sync of each entry.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    made.expect("a directory")
}

/// A lease is granted and given back: the node leads, writes and answers.
async fn probe(client: &Client) {
    let lease = client.lease("fuzz/probe").owner("probe").ttl(PATIENCE);
    if let ClaimOutcome::Granted(guard) = lease.try_claim().await.expect("the node answers") {
        guard.release().await.expect("the node answers");
    }
}
