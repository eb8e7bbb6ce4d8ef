//! Many clients on one lock: how often it changes hands, how evenly, and what names leave behind.
//!
//! Each client takes the lock, counts, and gives it back, with nothing in between; a second holder
//! at a time would be an error. etcd's side is its own lock service with a session lease for each
//! client. Both are driven by this process.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use etcd_client::LockOptions;
use futures::future::try_join_all;
use quorate_client::Client;

use crate::machine::CpuMeter;
use crate::record::{self, Handovers, Names, Record, System};
use crate::{etcd, machine, quorate};

/// As in the other measurements.
const CONNECTIONS: u32 = 4;
const ETCD_CONNECTIONS: u32 = 12;
const WARM_UP: Duration = Duration::from_secs(1);
const TTL: Duration = Duration::from_secs(60);
const IN_FLIGHT: u64 = 256;
/// How long memory is watched after the last name was used: an answered request is remembered for
/// ten minutes, on the disk.
const SETTLE: Duration = Duration::from_secs(5);

/// Arguments of `contend`.
#[derive(Debug, Args)]
pub struct Contend {
    /// Our program
    #[arg(long)]
    pub program: PathBuf,
    /// Where the nodes of both keep their data
    #[arg(long)]
    pub data_dir: PathBuf,
    /// Records are appended to it
    #[arg(long)]
    pub out: PathBuf,
    /// Clients on the one lock
    #[arg(long, value_delimiter = ' ', default_value = "64")]
    pub clients: Vec<u32>,
    /// How long each round lasts, after a second of warming up
    #[arg(long, default_value_t = 5)]
    pub seconds: u32,
    /// How often each is measured
    #[arg(long, default_value_t = 3)]
    pub rounds: u32,
    /// Lock names that are used once; 0 to leave it out
    #[arg(long, default_value_t = 1_000_000)]
    pub names: u64,
}

/// Starts both, measures in turns, stops both; then the names, on a cluster of their own.
pub async fn run(contend: &Contend) -> Result<()> {
    let dir = |name: &str| contend.data_dir.join(name);
    let ours = quorate::Cluster::start(&contend.program, &dir("quorate-contend")).await?;
    let theirs = etcd::Cluster::start(&dir("etcd-contend")).await?;
    for round in 0..contend.rounds {
        for clients in &contend.clients {
            let time = Duration::from_secs(contend.seconds.into());
            for system in [System::Quorate, System::Etcd] {
                let mut measured = match system {
                    System::Quorate => ours_once(&ours, *clients, time).await?,
                    System::Etcd => theirs_once(&theirs, *clients, time).await?,
                };
                measured.round = round;
                record::write(&contend.out, &Record::Handovers(measured))?;
            }
        }
    }
    remove(&ours.stop().await?)?;
    remove(&theirs.end(false).await?)?;
    if contend.names > 0 {
        names(contend, &dir("quorate-names")).await?;
    }
    Ok(())
}

fn remove(dir: &Path) -> Result<()> {
    Ok(std::fs::remove_dir_all(dir)?)
}

/// What the clients of a round share.
struct Round {
    end: Instant,
    from: Instant,
    /// Who is inside.
    inside: AtomicU32,
    /// Hand-overs that each client got.
    counts: Vec<AtomicU64>,
}

impl Round {
    fn new(clients: u32, time: Duration) -> Arc<Self> {
        let from = Instant::now() + WARM_UP;
        Arc::new(Self {
            from,
            end: from + time,
            inside: AtomicU32::new(0),
            counts: (0..clients).map(|_| AtomicU64::new(0)).collect(),
        })
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.end
    }

    /// The critical section.
    fn count(&self, client: usize) -> Result<()> {
        let before = self.inside.fetch_add(1, Ordering::SeqCst);
        ensure!(before == 0, "two clients hold the lock");
        let now = Instant::now();
        if now >= self.from && now < self.end {
            self.counts[client].fetch_add(1, Ordering::Relaxed);
        }
        self.inside.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }

    fn result(&self, system: System, cpu: record::Cpu) -> Handovers {
        let counts = self
            .counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed));
        let counts: Vec<f64> = counts.map(|count| count as f64).collect();
        let (sum, squares) = counts
            .iter()
            .fold((0.0, 0.0), |(sum, squares), n| (sum + n, squares + n * n));
        Handovers {
            system,
            clients: u32::try_from(counts.len()).unwrap_or(u32::MAX),
            round: 0,
            per_second: sum / (self.end - self.from).as_secs_f64(),
            jain: sum * sum / (counts.len() as f64 * squares),
            least: counts.iter().copied().fold(f64::MAX, f64::min),
            most: counts.iter().copied().fold(0.0, f64::max),
            cpu,
        }
    }
}

async fn ours_once(cluster: &quorate::Cluster, clients: u32, time: Duration) -> Result<Handovers> {
    let connections = (0..CONNECTIONS.min(clients)).map(|_| cluster.client());
    let connections = connections.collect::<Result<Vec<_>>>()?;
    let round = Round::new(clients, time);
    let tasks = connections.into_iter().cycle().zip(0..clients as usize);
    let tasks = tasks.map(|(client, at)| tokio::spawn(ours_one(client, at, round.clone())));
    let tasks: Vec<_> = tasks.collect();
    let cpu = metered(&cluster.pids, &round).await?;
    for done in try_join_all(tasks).await? {
        done?;
    }
    Ok(round.result(System::Quorate, cpu))
}

async fn ours_one(client: Client, at: usize, round: Arc<Round>) -> Result<()> {
    while !round.is_over() {
        let lock = client.lock("contended").owner(format!("client-{at}"));
        let guard = lock.ttl(TTL).acquire().await?;
        round.count(at)?;
        guard.release().await?;
    }
    Ok(())
}

async fn theirs_once(cluster: &etcd::Cluster, clients: u32, time: Duration) -> Result<Handovers> {
    let leader = cluster.leader().await?;
    let connections = (0..ETCD_CONNECTIONS.min(clients)).map(|_| etcd::connect(&leader));
    let connections = try_join_all(connections).await?;
    let mut sessions = Vec::new();
    for (mut client, at) in connections.into_iter().cycle().zip(0..clients as usize) {
        let ttl = i64::try_from(TTL.as_secs() * 10)?;
        let lease = client.lease_grant(ttl, None).await?.id();
        sessions.push((client, at, lease));
    }
    let round = Round::new(clients, time);
    let tasks = sessions.into_iter().map(|(client, at, lease)| {
        let round = round.clone();
        tokio::spawn(theirs_one(client, at, lease, round))
    });
    let tasks: Vec<_> = tasks.collect();
    let cpu = metered(&cluster.pids, &round).await?;
    for done in try_join_all(tasks).await? {
        done?;
    }
    Ok(round.result(System::Etcd, cpu))
}

async fn theirs_one(
    mut client: etcd_client::Client,
    at: usize,
    lease: i64,
    round: Arc<Round>,
) -> Result<()> {
    while !round.is_over() {
        let options = LockOptions::new().with_lease(lease);
        let held = client.lock("contended", Some(options)).await?;
        round.count(at)?;
        client.unlock(held.key()).await?;
    }
    client.lease_revoke(lease).await?;
    Ok(())
}

async fn metered(pids: &[u32], round: &Round) -> Result<record::Cpu> {
    tokio::time::sleep_until(round.from.into()).await;
    let meter = CpuMeter::start(pids, std::process::id())?;
    tokio::time::sleep_until(round.end.into()).await;
    meter.stop()
}

/// Uses many names once each, and says what the nodes' memory was before and after.
async fn names(contend: &Contend, dir: &Path) -> Result<()> {
    let cluster = quorate::Cluster::start(&contend.program, dir).await?;
    // Buffers that fill once are no cost of the names: the first tenth fills them.
    let warm = contend.names / 10;
    use_names(&cluster, 0, warm).await?;
    tokio::time::sleep(SETTLE).await;
    let before_kib = resident(&cluster.pids)?;
    let start = Instant::now();
    use_names(&cluster, warm, warm + contend.names).await?;
    let per_second = contend.names as f64 / start.elapsed().as_secs_f64();
    tokio::time::sleep(SETTLE).await;
    let names = Names {
        names: contend.names,
        per_second,
        before_kib,
        after_kib: resident(&cluster.pids)?,
    };
    record::write(&contend.out, &Record::Names(names))?;
    remove(&cluster.stop().await?)
}

fn resident(pids: &[u32]) -> Result<Vec<u64>> {
    pids.iter().map(|pid| machine::resident_kib(*pid)).collect()
}

async fn use_names(cluster: &quorate::Cluster, from: u64, to: u64) -> Result<()> {
    let clients = (0..CONNECTIONS).map(|_| cluster.client());
    let clients = clients.collect::<Result<Vec<_>>>()?;
    let next = Arc::new(AtomicU64::new(from));
    let tasks = clients.iter().cycle().zip(0..IN_FLIGHT).map(|(client, _)| {
        let (client, next) = (client.clone(), next.clone());
        tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= to {
                    return anyhow::Ok(());
                }
                let lock = client.lock(format!("once/{number:09}")).ttl(TTL);
                let guard = lock.try_acquire().await.context("a fresh name")?;
                guard.release().await?;
            }
        })
    });
    for done in try_join_all(tasks).await? {
        done?;
    }
    Ok(())
}
