//! Three nodes of etcd on loopback.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use etcd_client::{Client, ConnectOptions};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

const START_MAX: Duration = Duration::from_secs(300);
const LOOK_AGAIN: Duration = Duration::from_millis(10);
const NODES: u16 = 3;
const BASE_PORT: u16 = 27_500;
/// The default of 2 GiB ends a long run with "no space".
const QUOTA_BYTES: u64 = 8 << 30;

/// A running cluster. Its processes are killed when it is dropped.
pub struct Cluster {
    dir: PathBuf,
    nodes: Vec<Child>,
    pub pids: Vec<u32>,
    pub endpoints: Vec<String>,
}

fn client_url(node: u16) -> String {
    format!("http://127.0.0.1:{}", BASE_PORT + 10 * node)
}

fn peer_url(node: u16) -> String {
    format!("http://127.0.0.1:{}", BASE_PORT + 10 * node + 1)
}

/// What the installed etcd calls itself.
pub async fn version() -> Result<String> {
    let output = Command::new("etcd").arg("--version").output().await;
    let output = output.context("etcd: is etcd-server installed?")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.lines().next().and_then(|line| line.rsplit(' ').next());
    Ok(version.context("etcd --version said nothing")?.to_owned())
}

impl Cluster {
    /// Starts the nodes whose data is in `dir`, new ones if there is none.
    pub async fn start(dir: &Path) -> Result<Self> {
        let nodes = (1..=NODES)
            .map(|node| spawn(dir, node))
            .collect::<Result<Vec<_>>>()?;
        let cluster = Self {
            dir: dir.to_owned(),
            pids: nodes.iter().filter_map(Child::id).collect(),
            nodes,
            endpoints: (1..=NODES).map(client_url).collect(),
        };
        ensure!(
            cluster.pids.len() == cluster.nodes.len(),
            "an etcd ended at once"
        );
        cluster.ready().await?;
        Ok(cluster)
    }

    /// Until every node has answered a linearizable read and a write is acknowledged.
    async fn ready(&self) -> Result<()> {
        let late = Instant::now() + START_MAX;
        for endpoint in &self.endpoints {
            while read_from(endpoint).await.is_err() {
                ensure!(
                    Instant::now() < late,
                    "etcd at {endpoint} was not ready in time"
                );
                sleep(LOOK_AGAIN).await;
            }
        }
        connect(&self.endpoints[0])
            .await?
            .put("ready", "", None)
            .await?;
        Ok(())
    }

    /// The leader's address. Clients that ask it save a hop, as ours do.
    pub async fn leader(&self) -> Result<String> {
        for endpoint in &self.endpoints {
            let status = connect(endpoint).await?.status().await?;
            let own = status.header().map(etcd_client::ResponseHeader::member_id);
            if status.leader() != 0 && own == Some(status.leader()) {
                return Ok(endpoint.clone());
            }
        }
        bail!("no etcd leads")
    }

    /// Ends the nodes, kindly or not.
    pub async fn end(mut self, kill: bool) -> Result<PathBuf> {
        let signal = if kill { "-9" } else { "-15" };
        let pids = self.pids.iter().map(u32::to_string);
        let sent = Command::new("kill").arg(signal).args(pids).status().await?;
        ensure!(sent.success(), "kill {signal} of etcd failed");
        for node in &mut self.nodes {
            node.wait().await?;
        }
        Ok(self.dir)
    }
}

fn spawn(dir: &Path, node: u16) -> Result<Child> {
    let name = |node: u16| format!("n{node}");
    let dir = dir.join(name(node));
    std::fs::create_dir_all(&dir)?;
    let cluster = (1..=NODES).map(|node| format!("{}={}", name(node), peer_url(node)));
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(dir.join("log"))?;
    Command::new("etcd")
        .args(["--name", &name(node), "--data-dir"])
        .arg(dir.join("data"))
        .args(["--listen-client-urls", &client_url(node)])
        .args(["--advertise-client-urls", &client_url(node)])
        .args(["--listen-peer-urls", &peer_url(node)])
        .args(["--initial-advertise-peer-urls", &peer_url(node)])
        .args(["--initial-cluster", &cluster.collect::<Vec<_>>().join(",")])
        .args([
            "--initial-cluster-token",
            "quorate-load",
            "--log-level",
            "error",
        ])
        .args(["--quota-backend-bytes", &QUOTA_BYTES.to_string()])
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .context("etcd: is etcd-server installed?")
}

/// A connection to one node.
pub async fn connect(endpoint: &str) -> Result<Client> {
    let options = ConnectOptions::new().with_connect_timeout(Duration::from_secs(1));
    Ok(Client::connect([endpoint], Some(options)).await?)
}

async fn read_from(endpoint: &str) -> Result<()> {
    let options = ConnectOptions::new()
        .with_connect_timeout(Duration::from_millis(200))
        .with_timeout(Duration::from_secs(1));
    Client::connect([endpoint], Some(options))
        .await?
        .get("ready", None)
        .await?;
    Ok(())
}
