//! Members whose disk is nearly full: leadership goes to one with room, and without a quorum that
//! has room, what grows is refused.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use quorate_client::Client;
use quorate_node::Config;
use quorate_tests::cluster::{Options, scenario};
use quorate_tests::wait::{PATIENCE, until};

const NODE: &str = env!("CARGO_BIN_EXE_test-node");

/// More than any disk has.
fn short(config: &mut Config) {
    config.limits.disk_reserve_bytes = 1 << 60;
}

async fn push(client: &Client) -> Result<(), quorate_client::ClientError> {
    let jobs = client.queue("jobs").expect("a name");
    jobs.push("x").send().await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_without_room_hands_over_to_one_that_has_it() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let full = cluster.leader().await?;
        cluster.restart(full, short).await?;
        let id = cluster.status(full).await?.id;
        let alarms = cluster.status(full).await?.alarms;
        ensure!(
            alarms.iter().any(|alarm| alarm.kind == "disk_nearly_full"),
            "{alarms:?}"
        );
        // Asked to lead, it gives the office to one with room, and nothing is refused for long: two
        // elections, of which each was asked for.
        let client = cluster.client()?.with_timeout(PATIENCE);
        let before = cluster.status(full).await?.term;
        cluster
            .admin()?
            .transfer_leader(Some(id), false)
            .await
            .context("it can lead")?;
        push(&client).await?;
        until("another to lead", PATIENCE, async || {
            let leader = cluster.leader().await?;
            let term = cluster.status(leader).await?.term;
            Ok((leader != full && term >= before + 2).then_some(()))
        })
        .await?;
        push(&client).await?;
        Ok(())
    })
    .await
}

/// Nobody to hand over to is nobody to wait for: upkeep goes on, and the leader stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_without_room_stays_if_no_other_can_lead() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let leader = cluster.leader().await?;
        let others: Vec<usize> = (0..3).filter(|node| *node != leader).collect();
        let client = cluster.client()?.with_timeout(PATIENCE);
        let claimed = client.lease("held").ttl(PATIENCE).try_claim().await?;
        let held = claimed.granted().context("it is free")?;
        cluster.restart(others[0], short).await?;
        cluster.nodes[others[1]].kill()?;
        cluster.restart(leader, short).await?;
        let leader = cluster.leader().await?;
        let term = cluster.status(leader).await?.term;
        let impatient = client.clone().with_timeout(Duration::from_secs(1));
        for _ in 0..5 {
            let error = push(&impatient).await.expect_err("no room");
            ensure!(error.code() == "resource_exhausted", "{error}");
        }
        held.release().await?;
        let now = cluster.status(leader).await?;
        ensure!(now.term == term && now.role == "leader", "{now:?}");
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
        let leader = cluster.leader().await?;
        for node in (0..3).filter(|node| *node != leader) {
            cluster.restart(node, short).await?;
        }
        let impatient = client.clone().with_timeout(Duration::from_secs(1));
        let error = until("a push to be refused", PATIENCE, async || {
            Ok(push(&impatient).await.err())
        })
        .await?;
        ensure!(error.code() == "resource_exhausted", "{error}");
        ensure!(error.to_string().contains("limit 2 of 3"), "{error}");
        held.release().await?;

        for node in 0..3 {
            let enough = |config: &mut Config| config.limits.disk_reserve_bytes = 0;
            cluster.restart(node, enough).await?;
        }
        push(&client).await?;
        Ok(())
    })
    .await
}
