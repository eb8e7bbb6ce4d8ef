//! A cluster of one grows to three while clients write, hands leadership over, and loses its
//! founder.

use anyhow::{Context, Result, ensure};
use quorate_tests::cluster::{Cluster, Options, scenario};
use quorate_tests::load::Load;
use quorate_tests::oracle;
use quorate_tests::wait::{PATIENCE, RECOVERY_MAX, until};

const NODE: &str = env!("CARGO_BIN_EXE_test-node");
const FOUNDER: usize = 0;

async fn id_of(cluster: &Cluster, node: usize) -> Result<u64> {
    Ok(cluster.status(node).await?.id)
}

/// Adds the prepared nodes and follows the writes through it.
async fn grow(cluster: &mut Cluster, load: &Load) -> Result<()> {
    for node in 1..cluster.nodes.len() {
        load.more(300, RECOVERY_MAX).await?;
        cluster.add_node(node).await?;
    }
    load.more(300, RECOVERY_MAX).await?;
    let members = cluster.admin()?.members(false).await?.members;
    let voters = members.iter().filter(|member| member.voter).count();
    ensure!(voters == 3, "the members are {members:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_grows_to_three_and_its_founder_leaves() -> Result<()> {
    scenario(Options::new(NODE, 1), async |cluster| {
        // A client that knows the founder alone would be lost with it.
        cluster.prepare_node()?;
        cluster.prepare_node()?;
        let load = Load::start(&cluster.all_endpoints(), 16).await?;
        grow(cluster, &load).await?;
        let admin = cluster.admin()?;
        let founder = id_of(cluster, FOUNDER).await?;
        let second = id_of(cluster, 1).await?;
        admin
            .transfer_leader(Some(second), false)
            .await
            .context("transfer")?;
        ensure!(
            cluster.leader().await? == 1,
            "leadership was not handed to the second node"
        );
        load.more(300, RECOVERY_MAX).await?;

        let plan = admin
            .remove_member(founder, true)
            .await
            .context("dry run")?
            .plan;
        ensure!(plan.contains("quorum 2 of 2"), "the plan is {plan:?}");
        let change = admin
            .remove_member(founder, false)
            .await
            .context("remove")?;
        ensure!(
            change.members.iter().all(|member| member.id != founder),
            "{change:?}"
        );
        load.more(300, RECOVERY_MAX).await?;
        // A removed node that still runs must not disturb the others.
        let term = cluster.status(1).await?.term;
        load.more(600, RECOVERY_MAX).await?;
        ensure!(
            cluster.status(1).await?.term == term,
            "the removed node forced an election"
        );
        cluster.nodes[FOUNDER].terminate().await?;
        load.more(300, RECOVERY_MAX).await?;
        oracle::check_unfailing(cluster, load).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_founder_that_leads_can_be_removed() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        // Clients that know the others too: the founder cannot tell who leads after it.
        let load = Load::start(&cluster.all_endpoints(), 8).await?;
        load.more(300, RECOVERY_MAX).await?;
        ensure!(
            cluster.leader().await? == FOUNDER,
            "the founder does not lead"
        );
        let founder = id_of(cluster, FOUNDER).await?;
        cluster.admin()?.remove_member(founder, false).await?;
        until("another leader", PATIENCE, async || {
            Ok((cluster.leader().await? != FOUNDER).then_some(()))
        })
        .await?;
        load.more(300, RECOVERY_MAX).await?;
        cluster.nodes[FOUNDER].terminate().await?;
        load.more(300, RECOVERY_MAX).await?;
        let history = load.finish().await?;
        oracle::check(cluster, history).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_would_lose_the_quorum_is_refused() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let dead = cluster.follower().await?;
        let dead_id = id_of(cluster, dead).await?;
        cluster.nodes[dead].kill()?;
        let leader = cluster.leader().await?;
        let alive = cluster
            .running()
            .find(|node| *node != leader)
            .context("one is left")?;
        let alive_id = id_of(cluster, alive).await?;
        // Once the leader has noticed that the dead one is silent, removing the other living one
        // would leave one of two.
        let refused = until("the refusal", PATIENCE, async || {
            let dry = cluster.admin()?.remove_member(alive_id, true).await;
            Ok(dry.err().map(|error| error.to_string()))
        });
        let refused = refused.await?;
        ensure!(
            refused.contains("unsafe") && refused.contains("quorum is 2"),
            "{refused}"
        );
        let error = cluster.admin()?.remove_member(99, false).await;
        let error = error.expect_err("there is no member 99").to_string();
        ensure!(error.contains("no member 99"), "{error}");
        cluster
            .admin()?
            .remove_member(dead_id, false)
            .await
            .context("the dead one may go")?;
        cluster.digests_agree().await
    })
    .await
}
