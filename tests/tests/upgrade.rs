//! Two builds in one cluster: nothing is proposed that the older one cannot read, and the cluster's
//! version rises when the last member knows the higher one.

use anyhow::{Result, ensure};
use quorate_client::ClientError;
use quorate_statemachine::Command;
use quorate_statemachine::cluster::{HoldVersion, SetVersion};
use quorate_statemachine::version::{FIRST, NEWEST};
use quorate_tests::cluster::{Cluster, Options, scenario};
use quorate_tests::load::Load;
use quorate_tests::oracle;
use quorate_tests::program;
use quorate_tests::wait::{PATIENCE, RECOVERY_MAX, until};

const NODE: &str = env!("CARGO_BIN_EXE_test-node");

/// Every node as a build that knows only the first version.
fn older() -> Options {
    Options::new(NODE, 3).configure(|config| config.node.command_version = FIRST)
}

async fn hold(cluster: &Cluster, held: bool) -> Result<(), ClientError> {
    let client = cluster.client().expect("endpoints");
    let held = client.execute_command(Command::from(HoldVersion { held }));
    held.await.map(drop)
}

async fn version(cluster: &Cluster) -> Result<u32> {
    let leader = cluster.leader().await?;
    Ok(cluster.status(leader).await?.cluster_version)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_version_rises_with_the_last_member() -> Result<()> {
    scenario(older(), async |cluster| {
        let load = Load::start(&cluster.all_endpoints(), 8).await?;
        for node in 0..3 {
            ensure!(version(cluster).await? == FIRST, "before node {node}");
            let refused = hold(cluster, true).await.expect_err("it is of version 2");
            let words = refused.to_string();
            ensure!(
                words.contains("needs cluster version 2, the cluster is at 1"),
                "{words}"
            );
            load.more(200, RECOVERY_MAX).await?;
            cluster
                .restart(node, |config| config.node.command_version = 0)
                .await?;
        }
        until("the version to rise", PATIENCE, async || {
            Ok((version(cluster).await? == NEWEST).then_some(()))
        })
        .await?;
        hold(cluster, true).await?;
        hold(cluster, false).await?;
        load.more(200, RECOVERY_MAX).await?;
        oracle::check_unfailing(cluster, load).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_build_neither_comes_back_nor_joins() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        ensure!(version(cluster).await? == NEWEST, "a new cluster is new");
        let node = cluster.follower().await?;
        let mut config = cluster.nodes[node].config().clone();
        cluster.nodes[node].terminate().await?;
        config.node.command_version = FIRST;
        let mut downgraded = cluster.process_of("downgraded", config)?;
        downgraded.start()?;
        let status = downgraded.exited().await?;
        let stderr = downgraded.stderr()?;
        ensure!(status.code() == Some(1), "it ended with {status}: {stderr}");
        let words = "knows commands up to version 1, the cluster is at version 2";
        ensure!(stderr.contains(words), "{stderr}");
        cluster.nodes[node].start()?;
        cluster.caught_up(node).await?;

        let mut config = cluster.new_config("older");
        config.node.command_version = FIRST;
        let joiner = cluster.process(config)?;
        cluster.nodes.push(joiner);
        let last = cluster.nodes.len() - 1;
        cluster.nodes[last].start()?;
        cluster.ready(last).await?;
        let admin = cluster.admin()?;
        let join = admin.add_member(cluster.incoming(last)).await;
        let refused = join.expect_err("it is too old").to_string();
        ensure!(refused.contains(words), "{refused}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_the_cluster_raises_it_and_the_command_line_shows_it() -> Result<()> {
    scenario(Options::new(NODE, 1), async |cluster| {
        let client = cluster.client()?;
        let raise = Command::from(SetVersion { version: NEWEST });
        let refused = client.execute_command(raise).await.expect_err("not ours");
        ensure!(
            refused.to_string().contains("raises its version itself"),
            "{refused}"
        );
        let endpoints = cluster.all_endpoints().join(",");
        let quorate = program::quorate(NODE);
        program::printed(&program::run(quorate, &endpoints, &["upgrade", "hold"]).await?)?;
        program::printed(&program::run(quorate, &endpoints, &["upgrade", "resume"]).await?)?;
        let args = ["upgrade", "status", "--output", "jsonl"];
        let shown = program::printed(&program::run(quorate, &endpoints, &args).await?)?;
        let row: serde_json::Value = serde_json::from_str(&shown)?;
        ensure!(row["cluster_version"] == NEWEST, "{row}");
        ensure!(row["state"] == "ok", "{row}");
        Ok(())
    })
    .await
}
