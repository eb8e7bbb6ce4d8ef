//! A cluster of node processes on this machine.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::future::join_all;
use quorate_client::admin::{AddMemberRequest, Admin, MemberChange, NodeStatus};
use quorate_client::{Client, ClientTls, Remote, RemoteOptions};
use quorate_node::Config;
use quorate_statemachine::Command;
use quorate_statemachine::cluster::RecordDigest;
use tempfile::TempDir;

use crate::pki::{self, Authority};
use crate::process::{NodeProcess, Spawn, free_port};
use crate::wait::{PATIENCE, until};

/// A scenario takes a fraction of this; what hangs for longer is a failure.
const SCENARIO_MAX: Duration = Duration::from_secs(300);

/// A follower that passes a mark by a snapshot keeps no digest of it, so the mark is set again.
const MARKS_MAX: u32 = 20;

/// What starts the node of a name.
pub type SpawnOf = Arc<dyn Fn(&str) -> Spawn + Send + Sync>;

/// What a scenario's cluster is like.
#[derive(Clone)]
pub struct Options {
    /// The program of a node: `env!("CARGO_BIN_EXE_test-node")`.
    pub binary: PathBuf,
    /// Nodes to begin with; 0 leaves all to the scenario.
    pub nodes: usize,
    /// Changes each node's configuration.
    pub configure: Arc<dyn Fn(&mut Config) + Send + Sync>,
    /// Set in each node's environment.
    pub env: Vec<(&'static str, String)>,
    /// Whether connections are encrypted.
    pub tls: bool,
    /// Starts the node of this name.
    pub spawn: Option<SpawnOf>,
    /// Where the files of the nodes go, and stay; none for a directory that goes with the cluster.
    pub dir: Option<PathBuf>,
}

impl Options {
    /// `nodes` nodes with the default configuration.
    #[must_use]
    pub fn new(binary: &str, nodes: usize) -> Self {
        Self {
            binary: binary.into(),
            nodes,
            configure: Arc::new(|_| {}),
            env: Vec::new(),
            tls: false,
            spawn: None,
            dir: None,
        }
    }

    /// The same with certificates for nodes and clients.
    #[must_use]
    pub fn with_tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// The same with other options for each node.
    #[must_use]
    pub fn configure(mut self, configure: impl Fn(&mut Config) + Send + Sync + 'static) -> Self {
        self.configure = Arc::new(configure);
        self
    }

    /// The same with this in each node's environment.
    #[must_use]
    pub fn env(mut self, name: &'static str, value: &str) -> Self {
        self.env.push((name, value.to_owned()));
        self
    }
}

/// Node processes that form a cluster. Dropping it kills them.
pub struct Cluster {
    /// The nodes, in the order in which they were added; the first is the founder.
    pub nodes: Vec<NodeProcess>,
    options: Options,
    tls: Option<(Authority, ClientTls)>,
    dir: TempDir,
}

/// Runs a scenario on a fresh cluster. What the nodes wrote is printed when it fails, and a node
/// that panicked fails it.
pub async fn scenario(
    options: Options,
    body: impl AsyncFnOnce(&mut Cluster) -> Result<()>,
) -> Result<()> {
    let mut cluster = Cluster::new(options)?;
    let run = async {
        cluster
            .found_and_grow()
            .await
            .context("while the cluster was made")?;
        body(&mut cluster).await
    };
    let outcome = match tokio::time::timeout(SCENARIO_MAX, run).await {
        Ok(outcome) => outcome,
        Err(_) => Err(anyhow::anyhow!(
            "the scenario is not over after {SCENARIO_MAX:?}"
        )),
    };
    let outcome = outcome.and_then(|()| cluster.nobody_panicked());
    if outcome.is_err() {
        cluster.print_stderr();
        cluster.keep_if_asked();
    }
    outcome
}

impl Cluster {
    fn new(options: Options) -> Result<Self> {
        let mut dir = tempfile::Builder::new();
        dir.prefix("quorate-")
            .disable_cleanup(options.dir.is_some());
        let dir = match &options.dir {
            Some(parent) => dir.tempdir_in(parent)?,
            None => dir.tempdir()?,
        };
        let tls = options.tls.then(|| {
            let authority = Authority::new(&dir.path().join("pki"))?;
            let own = authority.client("test")?;
            let tls = pki::client_tls(&authority.ca(), Some(&own))?;
            anyhow::Ok((authority, tls))
        });
        Ok(Self {
            nodes: Vec::new(),
            options,
            tls: tls.transpose()?,
            dir,
        })
    }

    /// A cluster that nobody looks after but the caller: see [`scenario`].
    pub async fn found(options: Options) -> Result<Self> {
        let mut cluster = Self::new(options)?;
        cluster.found_and_grow().await?;
        Ok(cluster)
    }

    async fn found_and_grow(&mut self) -> Result<()> {
        if self.options.nodes == 0 {
            return Ok(());
        }
        let founder = self.prepare(true)?;
        self.nodes[founder].start()?;
        self.leader().await?;
        for _ in 1..self.options.nodes {
            let node = self.prepare_node()?;
            self.add_node(node).await?;
        }
        Ok(())
    }

    /// Where the scenario's files are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Who signs the certificates of nodes and clients, if there are any.
    #[must_use]
    pub fn authority(&self) -> Option<&Authority> {
        self.tls.as_ref().map(|(authority, _)| authority)
    }

    fn client_tls(&self) -> Option<ClientTls> {
        self.tls.as_ref().map(|(_, tls)| tls.clone())
    }

    /// A configuration with a name, a directory and ports of its own.
    #[must_use]
    pub fn new_config(&self, name: &str) -> Config {
        let mut config = Config::default();
        config.node.name = name.to_owned();
        config.node.data_dir = self.dir().join(name);
        config.listen.client = format!("127.0.0.1:{}", free_port());
        config.listen.peer = format!("127.0.0.1:{}", free_port());
        config.listen.http.clear();
        if let Some(authority) = self.authority() {
            let pair = authority
                .node(name)
                .expect("a directory that can be written");
            pki::configure(&mut config, &pair, &authority.ca());
        }
        (self.options.configure)(&mut config);
        config
    }

    /// A process with this configuration that is no node of the cluster, or not yet.
    pub fn process(&self, config: Config) -> Result<NodeProcess> {
        let name = config.node.name.clone();
        self.process_of(&name, config)
    }

    /// The same with other names for its files.
    pub fn process_of(&self, name: &str, config: Config) -> Result<NodeProcess> {
        let env = self.options.env.clone();
        let spawn = self.options.spawn.as_ref();
        let spawn = spawn.map(|of| of(&config.node.name));
        let node = NodeProcess::new(&self.options.binary, self.dir(), name, config)?.with_env(env);
        Ok(match spawn {
            Some(spawn) => node.with_spawn(spawn),
            None => node,
        })
    }

    fn prepare(&mut self, bootstrap: bool) -> Result<usize> {
        let mut config = self.new_config(&format!("n{}", self.nodes.len() + 1));
        config.node.bootstrap = bootstrap;
        self.nodes.push(self.process(config)?);
        Ok(self.nodes.len() - 1)
    }

    /// Gives the next node its ports, so that clients can know it before it is there. Answers its
    /// place in [`Self::nodes`].
    pub fn prepare_node(&mut self) -> Result<usize> {
        self.prepare(false)
    }

    /// Starts a prepared node and makes it a voter.
    pub async fn add_node(&mut self, node: usize) -> Result<()> {
        self.nodes[node].start()?;
        self.ready(node).await?;
        self.promote(node).await?;
        Ok(())
    }

    /// What takes this node in as a voter.
    #[must_use]
    pub fn incoming(&self, node: usize) -> AddMemberRequest {
        let config = self.nodes[node].config();
        let told = |advertised: &str, listens: &str| match advertised {
            "" => listens.to_owned(),
            advertised => advertised.to_owned(),
        };
        AddMemberRequest {
            name: config.node.name.clone(),
            peer_addr: told(&config.listen.advertise_peer, &config.listen.peer),
            client_addr: told(&config.listen.advertise_client, &config.listen.client),
            promote: true,
            ..AddMemberRequest::default()
        }
    }

    async fn promote(&self, node: usize) -> Result<MemberChange> {
        let request = self.incoming(node);
        // Safe to repeat for the same address: a change of leader in between does not matter.
        until("the new member to become a voter", PATIENCE, async || {
            Ok(Some(self.admin()?.add_member(request.clone()).await?))
        })
        .await
    }

    /// Stops the node, changes its configuration, starts it again and waits until it has caught up.
    pub async fn restart(&mut self, node: usize, change: impl FnOnce(&mut Config)) -> Result<()> {
        self.nodes[node].terminate().await?;
        self.nodes[node].configure(change)?;
        self.nodes[node].start()?;
        self.caught_up(node).await.map(drop)
    }

    /// Waits until the node answers its status.
    pub async fn ready(&self, node: usize) -> Result<NodeStatus> {
        until("the node to answer", PATIENCE, async || {
            Ok(Some(self.status(node).await?))
        })
        .await
    }

    /// Kills the leader, waits until another one leads, and brings the killed one back.
    pub async fn hurt(&mut self) -> Result<()> {
        let leader = self.leader().await?;
        self.nodes[leader].kill()?;
        self.leader().await?;
        self.nodes[leader].start()?;
        self.caught_up(leader).await.map(drop)
    }

    /// Where clients reach the nodes that run.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        let running = self.nodes.iter().filter(|node| node.is_running());
        running.map(|node| node.client_addr().to_owned()).collect()
    }

    /// Where clients reach all nodes.
    #[must_use]
    pub fn all_endpoints(&self) -> Vec<String> {
        self.nodes
            .iter()
            .map(|node| node.client_addr().to_owned())
            .collect()
    }

    /// A client of all nodes.
    pub fn client(&self) -> Result<Client> {
        let options = RemoteOptions {
            tls: self.client_tls(),
            ..RemoteOptions::default()
        };
        Ok(Client::new(Remote::new(self.all_endpoints(), options)?))
    }

    /// An operator of the nodes that run.
    pub fn admin(&self) -> Result<Admin> {
        Ok(self.admin_at(&self.endpoints())?.with_timeout(PATIENCE))
    }

    /// An operator of the nodes at these addresses.
    pub fn admin_at(&self, addresses: &[String]) -> Result<Admin> {
        Ok(Admin::connect_with(addresses.to_vec(), self.client_tls())?)
    }

    /// How one node is.
    pub async fn status(&self, node: usize) -> Result<NodeStatus> {
        let address = self.nodes[node].client_addr().to_owned();
        let admin = self
            .admin_at(&[address])?
            .with_timeout(Duration::from_secs(2));
        Ok(admin.status().await?)
    }

    /// Waits until a node leads and a quorum confirms it. Answers its place in [`Self::nodes`].
    pub async fn leader(&self) -> Result<usize> {
        until("a leader that a quorum confirms", PATIENCE, async || {
            for node in self.running() {
                let status = self.status(node).await;
                if status.is_ok_and(|status| status.role == "leader") {
                    let address = self.nodes[node].client_addr().to_owned();
                    let admin = self.admin_at(&[address])?;
                    let admin = admin.with_timeout(Duration::from_secs(2));
                    let confirmed = admin.members(false).await?;
                    let leads = confirmed.members.iter().find(|member| member.leader);
                    let own = self.status(node).await?.id;
                    return Ok(leads.is_some_and(|member| member.id == own).then_some(node));
                }
            }
            Ok(None)
        })
        .await
    }

    /// A running node that does not lead now.
    pub async fn follower(&self) -> Result<usize> {
        let leader = self.leader().await?;
        let other = self.running().find(|node| *node != leader);
        other.context("there is no other node that runs")
    }

    /// The nodes whose process runs.
    pub fn running(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.nodes.len()).filter(|node| self.nodes[*node].is_running())
    }

    /// Kills all nodes that run, one right after the other.
    pub fn kill_all(&mut self) -> Result<()> {
        let mut running = self.nodes.iter_mut().filter(|node| node.is_running());
        running.try_for_each(NodeProcess::kill)
    }

    /// Starts all nodes that do not run.
    pub fn start_all(&mut self) -> Result<()> {
        let mut stopped = self.nodes.iter_mut().filter(|node| !node.is_running());
        stopped.try_for_each(NodeProcess::start)
    }

    /// Waits until `node` has applied what the leader has applied now.
    pub async fn caught_up(&self, node: usize) -> Result<NodeStatus> {
        let leader = self.leader().await?;
        let wanted = self.status(leader).await?.applied;
        until("the node to catch up", PATIENCE, async || {
            let status = self.status(node).await?;
            Ok((status.applied >= wanted).then_some(status))
        })
        .await
    }

    /// Sets a mark in the log and compares the digests of all running nodes there. Fails if they
    /// differ, or if a node gives none.
    pub async fn digests_agree(&self) -> Result<()> {
        let client = self.client()?.with_timeout(PATIENCE);
        for _ in 0..MARKS_MAX {
            let (index, _) = client
                .execute_command(Command::from(RecordDigest {}))
                .await?;
            let digests = self.digests_at(index).await?;
            if digests.iter().any(|(_, digest)| digest.is_empty()) {
                continue;
            }
            let equal = digests.windows(2).all(|pair| pair[0].1 == pair[1].1);
            ensure!(
                equal,
                "the digests at log index {index} differ: {digests:?}"
            );
            return Ok(());
        }
        bail!("a node passed {MARKS_MAX} marks by snapshots, so that no digests can be compared")
    }

    async fn digests_at(&self, index: u64) -> Result<Vec<(String, String)>> {
        let admin = self.admin()?;
        let digests = self.running().map(|node| {
            let (admin, node) = (admin.clone(), &self.nodes[node]);
            async move {
                let digest = admin.digest_at(node.client_addr(), index, PATIENCE).await;
                let name = node.config().node.name.clone();
                let digest = digest.with_context(|| format!("{name} gives no digest"))?;
                Ok((name, digest.digest))
            }
        });
        join_all(digests).await.into_iter().collect()
    }

    /// Fails with the words of a node that panicked.
    pub fn nobody_panicked(&self) -> Result<()> {
        for node in &self.nodes {
            no_panic(node)?;
        }
        Ok(())
    }

    /// With `QUORATE_TESTS_KEEP` set the directories of a scenario that failed stay, to be looked
    /// at.
    fn keep_if_asked(&mut self) {
        if std::env::var_os("QUORATE_TESTS_KEEP").is_some() {
            // What is on disk is what was there when the scenario failed: no farewell changes it.
            let _ = self.kill_all();
            self.dir.disable_cleanup(true);
            eprintln!("kept: {}", self.dir.path().display());
        }
    }

    fn print_stderr(&self) {
        for node in &self.nodes {
            let text = node.stderr().unwrap_or_else(|error| error.to_string());
            let lines: Vec<&str> = text.lines().collect();
            let last = &lines[lines.len().saturating_sub(100)..];
            eprintln!("--- standard error of {}:", node.config().node.name);
            last.iter().for_each(|line| eprintln!("{line}"));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_stderr();
        }
    }
}

/// Fails if the process has panicked.
pub fn no_panic(node: &NodeProcess) -> Result<()> {
    let stderr = node.stderr()?;
    let panicked = stderr.lines().find(|line| line.contains("panicked"));
    match panicked {
        Some(line) => bail!("{} panicked: {line}", node.config().node.name),
        None => Ok(()),
    }
}
