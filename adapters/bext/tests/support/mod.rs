//! Real nodes in this process, on real directories, for tests that call from plain threads.
#![allow(dead_code, reason = "each test file uses some of it")]

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use quorate_bext::LockId;
use quorate_client::Client;
use quorate_client::statemachine::Name;
use quorate_client::statemachine::lock::Member;
use quorate_node::Node;
use quorate_rpc::v1;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// Nothing in these tests takes longer on a machine that works.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks.
const POLL: Duration = Duration::from_millis(5);

/// A node on a runtime of its own: to end the runtime is to end the node between two instructions.
struct Running {
    node: Node,
    runtime: Runtime,
}

/// Nodes of one cluster.
pub struct Cluster {
    /// What the tests ask the cluster runs here.
    runtime: Runtime,
    nodes: Mutex<Vec<Running>>,
    endpoints: Vec<String>,
    _dirs: Vec<TempDir>,
}

impl Cluster {
    /// One node without sockets.
    pub fn embedded() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let node = Running::start(Node::builder().data_dir(dir.path()));
        Self {
            runtime: runtime(),
            nodes: Mutex::new(vec![node]),
            endpoints: Vec::new(),
            _dirs: vec![dir],
        }
    }

    /// Three nodes with sockets.
    pub fn of_three() -> Self {
        let dirs: Vec<TempDir> = (0..3)
            .map(|_| tempfile::tempdir().expect("a directory"))
            .collect();
        let nodes: Vec<Running> = (1..)
            .zip(&dirs)
            .map(|(number, dir)| Running::start(with_sockets(number, dir)))
            .collect();
        for added in &nodes[1..] {
            nodes[0].add(&added.node);
        }
        let endpoints = nodes.iter().map(|it| it.node.member().client_addr);
        Self {
            endpoints: endpoints.collect(),
            runtime: runtime(),
            nodes: Mutex::new(nodes),
            _dirs: dirs,
        }
    }

    fn nodes(&self) -> MutexGuard<'_, Vec<Running>> {
        self.nodes.lock().expect("no test panics while it holds it")
    }

    /// Where clients reach the nodes that there were at the start.
    pub fn endpoints(&self) -> Vec<String> {
        self.endpoints.clone()
    }

    /// A client in this process, without a socket.
    pub fn client(&self) -> Client {
        self.nodes()[0].node.client()
    }

    /// Ends the leader as a kill does, and waits until another one leads.
    pub fn kill_leader(&self) {
        let leader = self.leader();
        let Running { node, runtime } = self.nodes().remove(leader);
        runtime.shutdown_timeout(PATIENCE);
        let _entered = self.runtime.enter();
        drop(node);
        self.leader();
    }

    fn leader(&self) -> usize {
        until("a leader", || {
            let nodes = self.nodes();
            nodes
                .iter()
                .position(|it| it.node.status().role == "leader")
        })
    }

    /// Who holds a lock, as the cluster knows it.
    pub fn holder(&self, key: &str) -> Option<Member> {
        let key = Name::parse("key", key).expect("a valid key");
        let client = self.client();
        let view = self.runtime.block_on(client.lock_get(&key));
        let view = view.expect("the cluster answers");
        view.and_then(|view| view.holders.into_iter().next())
    }

    /// The lock id of who holds a lock.
    pub fn holder_id(&self, key: &str) -> Option<LockId> {
        let holder = self.holder(key)?;
        Some(LockId {
            id: holder.id.id,
            fencing_token: holder.fencing_token()?,
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for Running { node, runtime } in self.nodes().drain(..) {
            runtime.block_on(node.shutdown());
        }
    }
}

impl Running {
    fn start(builder: quorate_node::Builder) -> Self {
        let runtime = runtime();
        let node = runtime.block_on(builder.start());
        Self {
            node: node.expect("the node starts"),
            runtime,
        }
    }

    fn add(&self, node: &Node) {
        let member = node.member();
        let request = v1::AddMemberRequest {
            name: member.name.clone(),
            peer_addr: member.peer_addr.clone(),
            client_addr: member.client_addr.clone(),
            promote: true,
            ..v1::AddMemberRequest::default()
        };
        let added = self.runtime.block_on(self.node.add_member(request));
        added.expect("the node becomes a voter");
    }
}

/// The first one founds the cluster, the others wait to be added.
fn with_sockets(number: u32, dir: &TempDir) -> quorate_node::Builder {
    let builder = Node::builder()
        .data_dir(dir.path())
        .name(format!("n{number}"))
        .listen_peer("127.0.0.1:0")
        .listen_client("127.0.0.1:0");
    match number {
        1 => builder,
        _ => builder.join(),
    }
}

fn runtime() -> Runtime {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.expect("a runtime")
}

/// Looks again and again until there is an answer.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(POLL);
    }
}
