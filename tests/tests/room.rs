//! Members whose disk is nearly full: leadership goes to one with room, and without a quorum that
//! has room, what grows is refused.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use quorate_client::Client;
use quorate_node::Config;
use quorate_tests::cluster::{Cluster, Options, scenario};
use quorate_tests::wait::{PATIENCE, until};

const NODE: &str = env!("CARGO_BIN_EXE_test-node");

/// More than any disk has.
fn short(config: &mut Config) {
    config.limits.disk_reserve_bytes = 1 << 60;
}

async fn restart(cluster: &mut Cluster, node: usize, change: fn(&mut Config)) -> Result<()> {
    let mut config = cluster.nodes[node].config().clone();
    change(&mut config);
    cluster.nodes[node].terminate().await?;
    let name = format!("{}-again", config.node.name);
    cluster.nodes[node] = cluster.process_of(&name, config)?;
    cluster.nodes[node].start()?;
    cluster.caught_up(node).await?;
    Ok(())
}

async fn push(client: &Client) -> Result<(), quorate_client::ClientError> {
    let jobs = client.queue("jobs").expect("a name");
    jobs.push("x").send().await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_without_room_hands_over_to_one_that_has_it() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let full = cluster.leader().await?;
        restart(cluster, full, short).await?;
        let id = cluster.status(full).await?.id;
        let alarms = cluster.status(full).await?.alarms;
        ensure!(
            alarms.iter().any(|alarm| alarm.kind == "disk_nearly_full"),
            "{alarms:?}"
        );
        // Asked to lead, it gives the office to one with room, and nothing is refused for long.
        let client = cluster.client()?.with_timeout(PATIENCE);
        cluster
            .admin()?
            .transfer_leader(Some(id), false)
            .await
            .context("it can lead")?;
        push(&client).await?;
        until("another to lead", PATIENCE, async || {
            Ok((cluster.leader().await? != full).then_some(()))
        })
        .await?;
        push(&client).await?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_that_has_room_only_upkeep_goes_on() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let client = cluster.client()?.with_timeout(PATIENCE);
        let claimed = client.lease("held").ttl(PATIENCE).try_claim().await?;
        let held = claimed.granted().context("it is free")?;
        for _ in 0..2 {
            let node = cluster.follower().await?;
            let node = match cluster.nodes[node].config().limits.disk_reserve_bytes {
                reserve if reserve == 1 << 60 => other_follower(cluster, node).await?,
                _ => node,
            };
            restart(cluster, node, short).await?;
        }
        let impatient = client.clone().with_timeout(Duration::from_secs(1));
        let error = until("a push to be refused", PATIENCE, async || {
            Ok(push(&impatient).await.err())
        })
        .await?;
        ensure!(error.code() == "resource_exhausted", "{error}");
        ensure!(error.to_string().contains("limit 2 of 3"), "{error}");
        held.release().await?;

        let full: Vec<usize> = cluster.running().collect();
        for node in full {
            restart(cluster, node, |config| config.limits.disk_reserve_bytes = 0).await?;
        }
        push(&client).await?;
        Ok(())
    })
    .await
}

/// A follower that is not this one.
async fn other_follower(cluster: &Cluster, not: usize) -> Result<usize> {
    let leader = cluster.leader().await?;
    let other = cluster
        .running()
        .find(|node| *node != leader && *node != not);
    other.context("there are three")
}
