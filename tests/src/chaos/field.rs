//! What the faults are done to: a cluster of processes on machines of their own.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use quorate_client::admin::Member;
use quorate_node::Config;

use super::control::{Control, Knob, compile};
use super::net::{Link, Network, address};
use crate::cluster::{Cluster, Options};
use crate::wait::{PATIENCE, until};

/// Where nodes listen; each has an address of its own.
const CLIENT_PORT: u16 = 7400;
const PEER_PORT: u16 = 7401;

/// The wall clocks of the machines at the start, in milliseconds: no two agree.
const CLOCK_SPREAD_MS: i64 = 400;

/// A cluster, its machines, and what is set on them.
pub struct Field {
    /// The nodes: node `n` is on machine `n`.
    pub cluster: Cluster,
    /// The machines.
    pub network: Network,
    controls: Vec<Control>,
    /// Where the clock of each node stands apart from the others when nothing is done to it.
    skews: Vec<i64>,
}

/// The place of a node by its name, `n1` and so on.
fn place(name: &str) -> usize {
    let number = name.trim_start_matches('n').parse::<usize>();
    number.map_or(0, |number| number.saturating_sub(1))
}

impl Field {
    /// Makes the machines, founds the cluster and lets it grow. Everything is below `dir`.
    pub async fn make(
        dir: &Path,
        nodes: usize,
        seed: u64,
        configure: impl Fn(&mut Config) + Send + Sync + 'static,
    ) -> Result<Self> {
        let network = Network::start(nodes, seed)?;
        let library = compile(dir)?;
        let paths = (1..=nodes).map(|node| dir.join(format!("n{node}.control")));
        let controls = paths.map(|path| Control::create(&path));
        let controls = controls.collect::<Result<Vec<Control>>>()?;
        let mut random = fastrand::Rng::with_seed(seed);
        let skews = (0..nodes).map(|_| random.i64(-CLOCK_SPREAD_MS..CLOCK_SPREAD_MS));
        let skews: Vec<i64> = skews.map(|ms| ms * 1_000_000).collect();
        for (control, skew) in controls.iter().zip(&skews) {
            control.set(Knob::WallOffset, *skew)?;
        }
        let pages: Vec<_> = controls.iter().map(|it| it.path().to_owned()).collect();
        let machines = network.machines.clone();
        let mut options = Options::new("", nodes).configure(move |config| {
            let own = address(place(&config.node.name));
            config.listen.client = format!("{own}:{CLIENT_PORT}");
            config.listen.peer = format!("{own}:{PEER_PORT}");
            config.security.insecure = true;
            configure(config);
        });
        options.binary = std::env::current_exe()?.with_file_name("test-node");
        options.dir = Some(dir.to_owned());
        options.spawn = Some(Arc::new(move |name| {
            let (machine, page) = (machines[place(name)].clone(), pages[place(name)].clone());
            let library = library.clone();
            Arc::new(move |mut command: Command| {
                command.env("LD_PRELOAD", &library);
                command.env("CHAOS_CONTROL", &page);
                machine.spawn(command)
            })
        }));
        let mut cluster = Cluster::found(options)
            .await
            .context("the cluster was not made")?;
        // Wiped, the founder would found another cluster.
        cluster.nodes[0].configure(|config| config.node.bootstrap = false)?;
        Ok(Self {
            cluster,
            network,
            controls,
            skews,
        })
    }

    /// How many nodes there are.
    #[must_use]
    pub fn size(&self) -> usize {
        self.cluster.nodes.len()
    }

    /// Turns a knob of a node.
    pub fn set(&self, node: usize, knob: Knob, value: i64) -> Result<()> {
        let skew = if knob == Knob::WallOffset {
            self.skews[node]
        } else {
            0
        };
        self.controls[node].set(knob, value + skew)
    }

    /// Any node.
    #[must_use]
    pub fn any(&self, random: &mut fastrand::Rng) -> usize {
        random.usize(0..self.size())
    }

    /// A node that does not lead.
    pub async fn follower(&self, random: &mut fastrand::Rng) -> Result<usize> {
        let leader = self.cluster.leader().await?;
        let step = random.usize(1..self.size());
        Ok((leader + step) % self.size())
    }

    /// Cuts every link between the two sides, in both directions.
    pub fn part(&self, one: &[usize], other: &[usize]) {
        for a in one {
            for b in other {
                self.network.links.set_both(*a, *b, Link::cut());
            }
        }
    }

    /// Sets all links between nodes, and between nodes and clients, to this.
    pub fn weather(&self, link: Link) {
        for a in 0..=self.network.clients() {
            for b in 0..a {
                self.network.links.set_both(a, b, link);
            }
        }
    }

    /// Undoes what was done to network, disks and clocks, and starts what does not run.
    pub fn mend(&mut self) -> Result<()> {
        self.network.check()?;
        self.network.links.heal();
        for node in 0..self.size() {
            self.controls[node].clear()?;
            self.set(node, Knob::WallOffset, 0)?;
            if self.cluster.nodes[node].is_running() {
                self.cluster.nodes[node].resume()?;
            }
            let ended = self.cluster.nodes[node].ended()?;
            let name = &self.cluster.nodes[node].config().node.name;
            ensure!(ended.is_none(), "{name} has stopped by itself: {ended:?}");
        }
        self.cluster.start_all()
    }

    /// Waits until a quorum has a leader and all nodes have what it had then.
    pub async fn settled(&self) -> Result<()> {
        let leader = self.cluster.leader().await?;
        for node in (0..self.size()).filter(|node| *node != leader) {
            self.cluster.caught_up(node).await?;
        }
        Ok(())
    }

    /// Waits until a node has ended by itself, as it must after its disk failed.
    pub async fn has_stopped(&mut self, node: usize, within: Duration) -> Result<()> {
        let node = &mut self.cluster.nodes[node];
        let status = until("the node to stop by itself", within, async || node.ended()).await?;
        ensure!(!status.success(), "it says that all was well: {status}");
        Ok(())
    }

    /// All members, as a quorum sees them.
    pub async fn members(&self) -> Result<Vec<Member>> {
        until("the members to be known", PATIENCE, async || {
            Ok(Some(self.cluster.admin()?.members(false).await?.members))
        })
        .await
    }

    /// The id under which a node is a member.
    pub async fn id_of(&self, node: usize) -> Result<u64> {
        let name = &self.cluster.nodes[node].config().node.name;
        let members = self.members().await?;
        let member = members.iter().find(|member| member.name == *name);
        Ok(member.with_context(|| format!("{name} is no member"))?.id)
    }

    /// Empties the directory of a node that does not run, and takes it in again in place of what it
    /// was.
    pub async fn replace(&mut self, node: usize) -> Result<()> {
        let old = self.id_of(node).await?;
        std::fs::remove_dir_all(self.cluster.nodes[node].data_dir())?;
        self.cluster.nodes[node].start()?;
        self.cluster.ready(node).await?;
        self.take_in(node, old).await
    }

    /// Makes a blank node a voter, in place of a member or beside all.
    pub async fn take_in(&self, node: usize, replaces: u64) -> Result<()> {
        let request = quorate_client::admin::AddMemberRequest {
            replaces,
            ..self.cluster.incoming(node)
        };
        until("the new member to become a voter", PATIENCE, async || {
            let admin = self.cluster.admin()?;
            let added = admin.add_member(request.clone()).await;
            // A try that was answered by nobody may have been done.
            let name = &request.name;
            let members = admin.members(false).await?.members;
            let voter = members
                .iter()
                .any(|it| it.name == *name && it.voter && it.id != replaces);
            match added {
                _ if voter => Ok(Some(())),
                Ok(_) => Ok(None),
                Err(error) => Err(error.into()),
            }
        })
        .await
    }
}
