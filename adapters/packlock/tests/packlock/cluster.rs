//! Clusters of real nodes in this process, on real directories, for the scenarios of pack locks.

use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_client::Client;
use quorate_client::admin::AddMemberRequest;
use quorate_client::statemachine::Name;
use quorate_client::statemachine::lock::{LockView, Member, Waiters};
use quorate_node::{Builder, Node};
use quorate_packlock::{PackLock, PackLocks};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

pub type Error = Box<dyn std::error::Error + Send + Sync>;
pub type Result<T = ()> = std::result::Result<T, Error>;

/// Nothing in these tests takes this long on a machine that works.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Nodes that run until they are shut down, a client of them, and a directory for packs.
pub struct Cluster {
    nodes: Vec<Node>,
    pub client: Client,
    packs: TempDir,
    _dirs: Vec<TempDir>,
}

impl Cluster {
    /// One node without sockets, and a client in its process.
    pub async fn one() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let node = Node::builder().data_dir(dir.path()).start().await?;
        Ok(Self {
            client: node.client(),
            nodes: vec![node],
            packs: tempfile::tempdir()?,
            _dirs: vec![dir],
        })
    }

    /// Three nodes and a client that talk to each other over TCP.
    pub async fn three() -> Result<Self> {
        let dirs = [
            tempfile::tempdir()?,
            tempfile::tempdir()?,
            tempfile::tempdir()?,
        ];
        let mut nodes = vec![listening(dirs[0].path(), "n1").start().await?];
        for (dir, name) in [(&dirs[1], "n2"), (&dirs[2], "n3")] {
            let node = listening(dir.path(), name).join().start().await?;
            nodes[0].add_member(voter(&node)).await?;
            nodes.push(node);
        }
        let addresses = nodes.iter().map(|node| node.member().client_addr.clone());
        Ok(Self {
            client: Client::connect(addresses.collect::<Vec<_>>())?,
            nodes,
            packs: tempfile::tempdir()?,
            _dirs: dirs.into(),
        })
    }

    pub fn locks(&self) -> Result<PackLocks> {
        Ok(PackLocks::new(self.client.clone(), "tests")?)
    }

    /// The lock of the pack `name`, as everybody else would open it.
    pub fn open(&self, name: &str) -> Result<PackLock> {
        Ok(self.locks()?.open(&self.pack(name)?)?)
    }

    /// The directory of a pack, made if it is missing.
    pub fn pack(&self, name: &str) -> Result<PathBuf> {
        let pack = self.packs.path().join(name);
        std::fs::create_dir_all(&pack)?;
        Ok(pack)
    }

    pub async fn lock(&self, key: &Name) -> Result<Option<LockView>> {
        Ok(self.client.lock_get(key).await?)
    }

    pub async fn waiters(&self, key: &Name) -> Result<Vec<Member>> {
        let waiters = Waiters {
            key: key.clone(),
            after: None,
            limit: 0,
        };
        Ok(self.client.lock_waiters(waiters).await?.rows)
    }

    /// Waits until `count` acquisitions wait for the lock.
    pub async fn until_waiting(&self, key: &Name, count: usize) -> Result {
        until(async || Ok(self.waiters(key).await?.len() == count)).await
    }

    /// Waits until nobody holds the lock or waits for it.
    pub async fn until_idle(&self, key: &Name) -> Result {
        until(async || Ok(self.lock(key).await?.is_none())).await
    }

    pub async fn shutdown(self) {
        for node in self.nodes.into_iter().rev() {
            node.shutdown().await;
        }
    }
}

fn listening(dir: &Path, name: &str) -> Builder {
    let builder = Node::builder().data_dir(dir).name(name);
    builder
        .listen_peer("127.0.0.1:0")
        .listen_client("127.0.0.1:0")
}

fn voter(node: &Node) -> AddMemberRequest {
    let member = node.member();
    AddMemberRequest {
        name: member.name.clone(),
        peer_addr: member.peer_addr.clone(),
        client_addr: member.client_addr.clone(),
        promote: true,
        ..AddMemberRequest::default()
    }
}

/// Asks until the answer is yes.
pub async fn until(mut probe: impl AsyncFnMut() -> Result<bool>) -> Result {
    let deadline = Instant::now() + PATIENCE;
    while !probe().await? {
        if Instant::now() > deadline {
            return Err("what was waited for did not happen".into());
        }
        sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

/// What must happen, and soon.
pub async fn soon<T>(what: impl Future<Output = T>) -> Result<T> {
    Ok(timeout(PATIENCE, what)
        .await
        .map_err(|_| "it hangs: a deadlock")?)
}
