//! What many live leases cost: memory, the time of a claim beside them, and a restart.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use etcd_client::PutOptions;
use futures::future::try_join_all;
use quorate_client::Client;
use quorate_client::statemachine::lease::Claimed;

use crate::record::{self, Memory, Record, Restart, System, Test};
use crate::{etcd, machine, quorate};

const CONNECTIONS: u64 = 4;
const IN_FLIGHT: u64 = 256;
/// Longer than any run.
const TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// Points beside the leases.
const CLIENTS: [u32; 2] = [1, 64];

/// Arguments of `scale`.
#[derive(Debug, Args)]
pub struct Scale {
    /// Our program
    #[arg(long)]
    pub program: PathBuf,
    /// Where the nodes keep their data
    #[arg(long)]
    pub data_dir: PathBuf,
    /// Records are appended to it
    #[arg(long)]
    pub out: PathBuf,
    /// Live leases, in rising order; after the last, all nodes are restarted
    #[arg(long, value_delimiter = ' ', default_value = "1000 100000 1000000")]
    pub leases: Vec<u64>,
    /// Live leases of etcd, each with a key
    #[arg(long, default_value_t = 100_000)]
    pub etcd_leases: u64,
    /// How long each point is measured, after a second of warming up
    #[arg(long, default_value_t = 3)]
    pub seconds: u32,
}

/// Ours first, then etcd, each alone.
pub async fn run(scale: &Scale) -> Result<()> {
    ours(scale).await?;
    theirs(scale).await
}

async fn ours(scale: &Scale) -> Result<()> {
    let dir = scale.data_dir.join("quorate-scale");
    let mut cluster = quorate::Cluster::start(&scale.program, &dir).await?;
    let mut filled = 0;
    for leases in &scale.leases {
        let per_second = claim_all(&cluster, filled, *leases).await?;
        filled = *leases;
        remember(scale, System::Quorate, filled, &cluster.pids, per_second)?;
        for clients in CLIENTS {
            let mut point = cluster.measure(Test::Lock, clients, scale.seconds).await?;
            point.leases = filled;
            record::write(&scale.out, &Record::Point(point))?;
        }
    }
    for killed in [false, true] {
        let dir = if killed {
            cluster.kill().await?
        } else {
            cluster.stop().await?
        };
        let start = Instant::now();
        cluster = quorate::Cluster::start(&scale.program, &dir).await?;
        cluster.read_from_each().await?;
        restarted(scale, System::Quorate, filled, killed, start)?;
    }
    Ok(std::fs::remove_dir_all(cluster.stop().await?)?)
}

async fn theirs(scale: &Scale) -> Result<()> {
    let cluster = etcd::Cluster::start(&scale.data_dir.join("etcd-scale")).await?;
    let per_second = grant_all(&cluster, scale.etcd_leases).await?;
    remember(
        scale,
        System::Etcd,
        scale.etcd_leases,
        &cluster.pids,
        per_second,
    )?;
    Ok(std::fs::remove_dir_all(cluster.end(false).await?)?)
}

fn remember(
    scale: &Scale,
    system: System,
    leases: u64,
    pids: &[u32],
    leases_per_second: f64,
) -> Result<()> {
    let nodes_kib = pids
        .iter()
        .map(|pid| machine::resident_kib(*pid))
        .collect::<Result<_>>()?;
    let memory = Memory {
        system,
        leases,
        nodes_kib,
        leases_per_second,
    };
    record::write(&scale.out, &Record::Memory(memory))
}

fn restarted(scale: &Scale, system: System, rows: u64, killed: bool, start: Instant) -> Result<()> {
    let seconds = start.elapsed().as_secs_f64();
    record::write(
        &scale.out,
        &Record::Restart(Restart {
            system,
            rows,
            killed,
            seconds,
        }),
    )
}

/// Claims leases number `from` to `to`, each with a command of its own, and says how many a second.
async fn claim_all(cluster: &quorate::Cluster, from: u64, to: u64) -> Result<f64> {
    let clients = (0..CONNECTIONS)
        .map(|_| cluster.client())
        .collect::<Result<Vec<_>>>()?;
    let next = Arc::new(AtomicU64::new(from));
    let start = Instant::now();
    let tasks = (0..IN_FLIGHT)
        .zip(clients.iter().cycle())
        .map(|(_, client)| {
            let (client, next) = (client.clone(), next.clone());
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= to {
                        return anyhow::Ok(());
                    }
                    claim(&client, number).await?;
                }
            })
        });
    for done in try_join_all(tasks).await? {
        done?;
    }
    Ok((to - from) as f64 / start.elapsed().as_secs_f64())
}

async fn claim(client: &Client, number: u64) -> Result<()> {
    let lease = client
        .lease(format!("live/{number:09}"))
        .owner("load")
        .ttl(TTL);
    let claimed = client.execute(lease.claim()?).await?;
    ensure!(
        matches!(claimed, Claimed::Granted(_)),
        "lease {number} is held already"
    );
    Ok(())
}

/// Grants leases with a key each, and says how many a second.
async fn grant_all(cluster: &etcd::Cluster, count: u64) -> Result<f64> {
    let leader = cluster.leader().await?;
    let clients = try_join_all((0..CONNECTIONS).map(|_| etcd::connect(&leader))).await?;
    let next = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let tasks = (0..IN_FLIGHT)
        .zip(clients.iter().cycle())
        .map(|(_, client)| {
            let (mut client, next) = (client.clone(), next.clone());
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return anyhow::Ok(());
                    }
                    let ttl = i64::try_from(TTL.as_secs())?;
                    let lease = client.lease_grant(ttl, None).await?.id();
                    let options = PutOptions::new().with_lease(lease);
                    client
                        .put(format!("live/{number:09}"), "load", Some(options))
                        .await?;
                }
            })
        });
    for done in try_join_all(tasks).await? {
        done?;
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}
