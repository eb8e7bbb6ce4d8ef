//! The cluster of the demo: `quorate dev`, and nodes that were killed and started again.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use quorate_client::Client;
use quorate_client::admin::Admin;
use quorate_client::statemachine::Command;
use quorate_client::statemachine::cluster::RecordDigest;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, test_kill_process};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin};
use tokio::time::{Instant, sleep, timeout};

use crate::crew::send;

/// `quorate dev` gives a cluster 60 s to get ready.
const READY_MAX: Duration = Duration::from_secs(70);

/// A node bounds its own stop below this, and so does `quorate dev`.
const STOP_MAX: Duration = Duration::from_secs(25);

/// A killed process is gone, and a restarted node has caught up, far sooner.
const STEP_MAX: Duration = Duration::from_secs(30);

/// A node, as `cluster.json` tells it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Node {
    /// Its id.
    pub id: String,
    /// Its process.
    pub pid: u32,
    /// Where clients reach it.
    pub client: String,
    /// Its name.
    pub name: String,
    command: Vec<String>,
    log: PathBuf,
    #[serde(flatten)]
    rest: serde_json::Map<String, serde_json::Value>,
}

#[derive(Serialize, Deserialize)]
struct ClusterFile {
    nodes: Vec<Node>,
}

/// A running cluster.
pub struct Cluster {
    /// Its nodes.
    pub nodes: Vec<Node>,
    dir: PathBuf,
    processes: Vec<Started>,
}

/// A process that ends when its stdin does.
struct Started {
    what: String,
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Cluster {
    /// Starts three nodes on an empty directory.
    pub async fn start(quorate: &Path, dir: &Path, base_port: u16) -> Result<Self> {
        make_empty(dir)?;
        let log = dir.join("dev.log");
        let mut child = tokio::process::Command::new(quorate)
            .args(["dev", "--exit-with-parent", "--nodes", "3"])
            .args(["--base-port", &base_port.to_string()])
            .arg("--data-dir")
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {}", quorate.display()))?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        let mut lines = BufReader::new(stdout).lines();
        let ready = async {
            while let Some(line) = lines.next_line().await? {
                println!("  {line}");
                if line == "ready" {
                    return Ok(());
                }
            }
            bail!(
                "the cluster did not start:\n{}",
                std::fs::read_to_string(&log)?
            )
        };
        timeout(READY_MAX, ready)
            .await
            .context("the cluster was not ready in time")??;
        let text = std::fs::read_to_string(dir.join("cluster.json")).context("cluster.json")?;
        let file: ClusterFile = serde_json::from_str(&text).context("cluster.json")?;
        let stdin = child.stdin.take();
        let dev = Started {
            what: "quorate dev".to_owned(),
            child,
            stdin,
        };
        Ok(Self {
            nodes: file.nodes,
            dir: dir.to_owned(),
            processes: vec![dev],
        })
    }

    /// Where clients reach it.
    pub fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.client.clone()).collect()
    }

    /// The node with this id.
    pub fn node(&self, id: u64) -> Result<&Node> {
        let id = id.to_string();
        self.nodes
            .iter()
            .find(|node| node.id == id)
            .with_context(|| format!("node {id}"))
    }

    /// Kills a node as a power failure would, and waits until it is gone.
    pub async fn kill(&self, id: u64) -> Result<()> {
        let pid = self.node(id)?.pid;
        send(pid, Signal::KILL)?;
        let gone = i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .context("a process id")?;
        let deadline = Instant::now() + STEP_MAX;
        while test_kill_process(gone) != Err(Errno::SRCH) {
            if Instant::now() >= deadline {
                bail!("process {pid} is not gone {STEP_MAX:?} after SIGKILL");
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Starts a node again that was killed, as it was started first, and waits until it is well.
    pub async fn restart(&mut self, id: u64) -> Result<()> {
        let node = self.node(id)?.clone();
        let (program, args) = node.command.split_first().context("the node's command")?;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&node.log)?;
        let mut child = tokio::process::Command::new(program)
            .args(args)
            .arg("--exit-with-parent")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {}", node.name))?;
        let pid = child.id().unwrap_or_default();
        for known in &mut self.nodes {
            if known.id == node.id {
                known.pid = pid;
            }
        }
        let stdin = child.stdin.take();
        self.processes.push(Started {
            what: node.name.clone(),
            child,
            stdin,
        });
        self.tell()?;
        caught_up(&node.client)
            .await
            .with_context(|| format!("{} after its restart", node.name))
    }

    /// The state's digest on every node, at a mark that a command sets in the log.
    pub async fn digests(&self, client: &Client) -> Result<(u64, Vec<String>)> {
        let (index, _) = client
            .execute_command(Command::from(RecordDigest {}))
            .await?;
        let admin = Admin::connect(self.endpoints())?;
        let mut digests = Vec::new();
        for node in &self.nodes {
            digests.push(
                admin
                    .digest_at(&node.client, index, STEP_MAX / 4)
                    .await?
                    .digest,
            );
        }
        Ok((index, digests))
    }

    /// Stops all of it.
    pub async fn stop(self) -> Result<()> {
        let stops = self.processes.into_iter().map(Started::stop);
        futures::future::try_join_all(stops).await?;
        Ok(())
    }

    /// `cluster.json` names the process that the node is now.
    fn tell(&self) -> Result<()> {
        let file = ClusterFile {
            nodes: self.nodes.clone(),
        };
        let unfinished = self.dir.join("cluster.json.new");
        std::fs::write(&unfinished, serde_json::to_string_pretty(&file)? + "\n")?;
        Ok(std::fs::rename(unfinished, self.dir.join("cluster.json"))?)
    }
}

impl Started {
    async fn stop(mut self) -> Result<()> {
        self.stdin = None;
        let ended = timeout(STOP_MAX, self.child.wait()).await;
        ended.with_context(|| format!("{} did not stop within {STOP_MAX:?}", self.what))??;
        Ok(())
    }
}

/// Removes the cluster of an earlier demo, and nothing else.
fn make_empty(dir: &Path) -> Result<()> {
    let marker = dir.join("node-1.toml");
    let is_empty = std::fs::read_dir(dir).map_or(true, |mut files| files.next().is_none());
    if !is_empty {
        if !marker.is_file() {
            bail!(
                "{} is in use by something else; give another directory",
                dir.display()
            );
        }
        std::fs::remove_dir_all(dir).with_context(|| dir.display().to_string())?;
    }
    std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())
}

/// Waits until the node follows and has applied what was committed when it was first asked.
async fn caught_up(address: &str) -> Result<()> {
    let admin = Admin::connect([address])?.with_timeout(Duration::from_secs(1));
    let deadline = Instant::now() + STEP_MAX;
    loop {
        let status = admin.status().await;
        if let Ok(status) = &status
            && status.healthy
            && status.leader_id != 0
            && status.applied > 0
            && status.applied + 1_000 >= status.last_log
        {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!("it is not well after {STEP_MAX:?}: {status:?}");
        }
        sleep(Duration::from_millis(50)).await;
    }
}
