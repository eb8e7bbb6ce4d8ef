//! A follower that was away catches up: from the log, from a snapshot, and when the transfer of the
//! snapshot is interrupted at either end.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use quorate_client::Client;
use quorate_node::Config;
use quorate_tests::cluster::{Cluster, Options, scenario};
use quorate_tests::load::Load;
use quorate_tests::oracle;
use quorate_tests::wait::{PATIENCE, RECOVERY_MAX, until};

const NODE: &str = env!("CARGO_BIN_EXE_test-node");

/// So little log that a follower which was away needs a snapshot.
fn small_log(config: &mut Config) {
    config.raft.snapshot_entries = 400;
    config.raft.keep_entries = 100;
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_entries_behind_it_catches_up_from_the_log() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let load = Load::start(&cluster.all_endpoints(), 16).await?;
        let follower = cluster.follower().await?;
        cluster.nodes[follower].kill()?;
        load.more(4_000, PATIENCE).await?;
        cluster.nodes[follower].start()?;
        load.more(400, RECOVERY_MAX).await?;
        let status = cluster.caught_up(follower).await?;
        ensure!(
            status.snapshot == 0,
            "it got a snapshot up to {}",
            status.snapshot
        );
        let history = load.finish().await?;
        oracle::check(cluster, history).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_the_purged_log_it_catches_up_from_a_snapshot() -> Result<()> {
    scenario(
        Options::new(NODE, 3).configure(small_log),
        async |cluster| {
            let load = Load::start(&cluster.all_endpoints(), 16).await?;
            let follower = cluster.follower().await?;
            let before = cluster.status(follower).await?;
            cluster.nodes[follower].kill()?;
            load.more(2_000, PATIENCE).await?;
            purged_beyond(cluster, before.last_log).await?;
            cluster.nodes[follower].start()?;
            load.more(400, RECOVERY_MAX).await?;
            let status = cluster.caught_up(follower).await?;
            ensure!(
                status.snapshot > before.last_log,
                "it has the snapshot up to {}",
                status.snapshot
            );
            let history = load.finish().await?;
            oracle::check(cluster, history).await
        },
    )
    .await
}

/// Waits until the leader no longer has the entry.
async fn purged_beyond(cluster: &Cluster, index: u64) -> Result<()> {
    let leader = cluster.leader().await?;
    until("the leader to purge its log", PATIENCE, async || {
        Ok((cluster.status(leader).await?.purged > index).then_some(()))
    })
    .await
}

/// Megabytes of state, so that a transfer takes long enough to be interrupted.
async fn fill(client: &Client, items: usize) -> Result<()> {
    let queue = client.queue("ballast")?;
    let mut pushes = futures::stream::iter(0..items)
        .map(|number| {
            // Bytes that do not compress.
            let mut payload = vec![0; 128 << 10];
            fastrand::Rng::with_seed(number as u64).fill(&mut payload);
            queue.push(payload).send()
        })
        .buffer_unordered(8);
    while let Some(pushed) = pushes.next().await {
        pushed?;
    }
    Ok(())
}

/// A follower that is away, and a leader that can only send it a snapshot.
async fn needs_a_snapshot(cluster: &mut Cluster) -> Result<usize> {
    let follower = cluster.follower().await?;
    let before = cluster.status(follower).await?.last_log;
    cluster.nodes[follower].kill()?;
    fill(&cluster.client()?.with_timeout(PATIENCE), 600).await?;
    purged_beyond(cluster, before).await?;
    Ok(follower)
}

/// Whether a snapshot is being received into this data directory.
fn is_receiving(data_dir: &Path) -> Result<bool> {
    let Ok(entries) = std::fs::read_dir(data_dir.join("snapshots")) else {
        return Ok(false);
    };
    for entry in entries {
        let name = entry?.file_name();
        if name.to_string_lossy().starts_with("receiving") {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn receiving(cluster: &Cluster, node: usize) -> Result<()> {
    let dir = cluster.nodes[node].data_dir().to_owned();
    let limit = Duration::from_secs(30);
    let seen = async {
        while !is_receiving(&dir)? {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    };
    tokio::time::timeout(limit, seen)
        .await
        .context("no snapshot is being received")?
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_killed_takes_the_snapshot_up_again() -> Result<()> {
    scenario(
        Options::new(NODE, 3).configure(small_log),
        async |cluster| {
            let follower = needs_a_snapshot(cluster).await?;
            for _ in 0..3 {
                cluster.nodes[follower].start()?;
                receiving(cluster, follower).await?;
                cluster.nodes[follower].kill()?;
            }
            cluster.nodes[follower].start()?;
            cluster.caught_up(follower).await?;
            cluster.digests_agree().await
        },
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_is_killed_leaves_no_half_snapshot() -> Result<()> {
    scenario(
        Options::new(NODE, 3).configure(small_log),
        async |cluster| {
            let follower = needs_a_snapshot(cluster).await?;
            let sender = cluster.leader().await?;
            cluster.nodes[follower].start()?;
            receiving(cluster, follower).await?;
            cluster.nodes[sender].kill()?;
            // The other one, which has all that was acknowledged, leads and sends its own snapshot.
            let leader = cluster.leader().await?;
            ensure!(
                leader != follower,
                "a node without the acknowledged entries leads"
            );
            cluster.caught_up(follower).await?;
            cluster.nodes[sender].start()?;
            cluster.caught_up(sender).await?;
            cluster.digests_agree().await
        },
    )
    .await
}
