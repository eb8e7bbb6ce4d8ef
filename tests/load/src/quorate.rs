//! Three nodes of ours: `quorate dev`, and `quorate bench` against them.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use quorate_client::statemachine::Name;
use quorate_client::{Client, ReadFrom, Remote, RemoteOptions};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep_until, timeout};

use crate::machine::CpuMeter;
use crate::record::{Point, System, Test};

/// How long the nodes may take to start or stop, with a million rows and on a busy machine.
const START_MAX: Duration = Duration::from_secs(300);
const BASE_PORT: u16 = 27_400;
/// `quorate bench` prepares and warms up for this long before it measures.
const WARM_UP: Duration = Duration::from_millis(1_200);
/// More make a cluster no faster: what waits on a connection goes out in one message.
const CONNECTIONS: u32 = 4;

/// A running cluster. Its nodes end with this process, however it ends: `quorate dev` stops when
/// its stdin does.
pub struct Cluster {
    program: PathBuf,
    dir: PathBuf,
    dev: Child,
    pub pids: Vec<u32>,
    pub endpoints: Vec<String>,
}

#[derive(Deserialize)]
struct ClusterFile {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    pid: u32,
    client: String,
}

/// What `quorate bench -o json` prints.
#[derive(Deserialize)]
struct Benched {
    ops_per_second: f64,
    p50_us: u64,
    p99_us: u64,
    errors: u64,
}

impl Cluster {
    /// Starts the nodes whose data is in `dir`, new ones if there is none.
    pub async fn start(program: &Path, dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let mut dev = Command::new(program)
            .args(["dev", "--nodes", "3", "--exit-with-parent"])
            .args(["--base-port", &BASE_PORT.to_string(), "--data-dir"])
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(dir.join("dev.log"))?)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| program.display().to_string())?;
        wait_until_ready(&mut dev, dir).await?;
        let file = std::fs::read(dir.join("cluster.json"))?;
        let file: ClusterFile = serde_json::from_slice(&file)?;
        Ok(Self {
            program: program.to_owned(),
            dir: dir.to_owned(),
            dev,
            pids: file.nodes.iter().map(|node| node.pid).collect(),
            endpoints: file.nodes.into_iter().map(|node| node.client).collect(),
        })
    }

    /// A client that commands the leader.
    pub fn client(&self) -> Result<Client> {
        Ok(Client::connect(self.endpoints.clone())?.with_timeout(START_MAX))
    }

    /// Asks every node for a linearizable read.
    pub async fn read_from_each(&self) -> Result<()> {
        let key = Name::parse("key", "quorate/dev/ready")?;
        let read_from = ReadFrom::AnyNode;
        for endpoint in &self.endpoints {
            let options = RemoteOptions {
                read_from,
                ..RemoteOptions::default()
            };
            let remote = Remote::new([endpoint.clone()], options)?;
            Client::new(remote)
                .with_timeout(START_MAX)
                .lease_get(&key)
                .await?;
        }
        Ok(())
    }

    /// Measures one point.
    pub async fn measure(&self, test: Test, clients: u32, seconds: u32) -> Result<Point> {
        let mut bench = self.bench(test, clients, seconds);
        let before = Instant::now();
        let child = bench.spawn()?;
        let pid = child.id().context("the bench has ended already")?;
        let output = tokio::spawn(child.wait_with_output());
        sleep_until(before + WARM_UP).await;
        let meter = CpuMeter::start(&self.pids, pid)?;
        // Ends within what is measured: at the end of it, the bench is about to be gone.
        let inside = Duration::from_secs(seconds.into()).saturating_sub(WARM_UP / 3);
        sleep_until(before + WARM_UP + inside).await;
        let cpu = meter.stop();
        let output = output.await??;
        let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        ensure!(
            !output.stdout.is_empty(),
            "quorate bench {}: {complaint}",
            test.as_str()
        );
        let done: Benched = serde_json::from_slice(&output.stdout)?;
        Ok(Point {
            system: System::Quorate,
            test,
            clients,
            round: 0,
            leases: 0,
            ops_per_second: done.ops_per_second,
            p50_us: done.p50_us,
            p99_us: done.p99_us,
            errors: done.errors,
            first_error: (done.errors > 0).then_some(complaint),
            cpu: cpu?,
        })
    }

    fn bench(&self, test: Test, clients: u32, seconds: u32) -> Command {
        let mut bench = Command::new(&self.program);
        bench
            .args(["bench", test.verb(), "--output", "json"])
            .args(["--endpoints", &self.endpoints.join(",")])
            .args([
                "--clients",
                &clients.to_string(),
                "--seconds",
                &seconds.to_string(),
            ])
            .args(["--connections", &CONNECTIONS.min(clients).to_string()])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if test == Test::Queue {
            // One queue that all share, as with etcd.
            bench.args(["--keys", "1"]);
        }
        bench
    }

    /// Stops the nodes as SIGTERM does.
    pub async fn stop(mut self) -> Result<PathBuf> {
        drop(self.dev.stdin.take());
        timeout(START_MAX, self.dev.wait()).await??;
        Ok(self.dir)
    }

    /// Kills all nodes at once.
    pub async fn kill(mut self) -> Result<PathBuf> {
        let pids = self.pids.iter().map(u32::to_string);
        let killed = Command::new("kill").arg("-9").args(pids).status().await?;
        ensure!(killed.success(), "kill -9 of the nodes failed");
        // It has no node to keep any more, and ends.
        timeout(START_MAX, self.dev.wait()).await??;
        Ok(self.dir)
    }
}

/// Reads on after the word, so that later words do not block the writer.
async fn wait_until_ready(dev: &mut Child, dir: &Path) -> Result<()> {
    let stdout = dev.stdout.take().context("stdout is piped")?;
    let mut lines = BufReader::new(stdout).lines();
    let ready = async {
        while let Some(line) = lines.next_line().await? {
            if line == "ready" {
                return Ok(());
            }
        }
        bail!("quorate dev ended; see {}", dir.join("dev.log").display())
    };
    timeout(START_MAX, ready)
        .await
        .context("quorate dev was not ready in time")??;
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Ok(())
}
