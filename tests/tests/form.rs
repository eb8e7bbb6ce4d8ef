//! `quorate cluster form`, the real program on real nodes: one cluster of blank nodes, never two.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use quorate_tests::cluster::{Cluster, Options, no_panic, scenario};
use quorate_tests::process::NodeProcess;
use quorate_tests::program::{self, printed, run};

const NODE: &str = env!("CARGO_BIN_EXE_test-node");

fn blank(cluster: &Cluster, names: &[&str]) -> Result<Vec<NodeProcess>> {
    let nodes = names.iter().map(|name| {
        let mut node = cluster.process(cluster.new_config(name))?;
        node.start()?;
        Ok(node)
    });
    nodes.collect()
}

fn endpoints(nodes: &[NodeProcess]) -> String {
    let all: Vec<&str> = nodes.iter().map(NodeProcess::client_addr).collect();
    all.join(",")
}

async fn form(endpoints: &str, args: &[&str]) -> Result<std::process::Output> {
    let args = [&["cluster", "form", "-o", "json"], args].concat();
    run(program::quorate(NODE), endpoints, &args).await
}

fn json(output: &std::process::Output) -> Result<serde_json::Value> {
    Ok(serde_json::from_str(&printed(output)?)?)
}

async fn voters(endpoints: &str) -> Result<usize> {
    let list = ["member", "list", "-o", "json"];
    let members = json(&run(program::quorate(NODE), endpoints, &list).await?)?;
    let members = members.as_array().context("a list")?;
    Ok(members
        .iter()
        .filter(|member| member["voter"] == true)
        .count())
}

#[tokio::test(flavor = "multi_thread")]
async fn blank_nodes_become_one_cluster_and_a_second_run_changes_nothing() -> Result<()> {
    scenario(Options::new(NODE, 0), async |cluster| {
        let mut nodes = blank(cluster, &["c", "a", "b"])?;
        let all = endpoints(&nodes);
        let planned = json(&form(&all, &["--wait", "30s", "--dry-run"]).await?)?;
        ensure!(
            planned["founded"] == true && planned["cluster_id"].is_null(),
            "{planned}"
        );

        let formed = json(&form(&all, &["--wait", "30s"]).await?)?;
        ensure!(formed["founded"] == true, "{formed}");
        ensure!(formed["members"] == serde_json::json!(["a"]), "{formed}");
        ensure!(formed["added"] == serde_json::json!(["b", "c"]), "{formed}");
        ensure!(voters(&all).await? == 3, "each has a vote");

        let again = json(&form(&all, &[]).await?)?;
        ensure!(again["founded"] == false, "{again}");
        ensure!(again["added"] == serde_json::json!([]), "{again}");
        ensure!(again["cluster_id"] == formed["cluster_id"], "{again}");

        // It was founded without `bootstrap`: a restart of all must not need it either.
        for node in &mut nodes {
            node.kill()?;
            node.start()?;
        }
        printed(&run(program::quorate(NODE), &all, &program::claim("k")).await?)?;
        nodes.iter().try_for_each(no_panic)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_its_disk_founds_nothing() -> Result<()> {
    scenario(Options::new(NODE, 0), async |cluster| {
        let mut nodes = blank(cluster, &["a", "b", "c"])?;
        let all = endpoints(&nodes);
        json(&form(&all, &["--wait", "30s"]).await?)?;

        // While one is away nothing can be founded, whatever the others say.
        nodes[0].kill()?;
        let refused = form(&all, &[]).await?;
        let words = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(refused.status.code() == Some(7), "{words}");
        ensure!(words.contains("1 of 3 nodes do not answer"), "{words}");

        std::fs::remove_dir_all(nodes[0].data_dir())?;
        nodes[0].start()?;
        // A write waits until the others have a leader.
        printed(
            &run(
                program::quorate(NODE),
                &endpoints(&nodes[1..]),
                &program::claim("k"),
            )
            .await?,
        )?;
        let refused = form(&all, &["--wait", "30s"]).await?;
        let words = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(refused.status.code() == Some(5), "{words}");
        ensure!(words.contains("member remove 1"), "{words}");

        // What the refusal says to do works.
        let remove = ["member", "remove", "1", "--yes"];
        printed(&run(program::quorate(NODE), &endpoints(&nodes[1..]), &remove).await?)?;
        let formed = json(&form(&all, &["--wait", "30s", "--timeout", "60s"]).await?)?;
        ensure!(formed["added"] == serde_json::json!(["a"]), "{formed}");
        ensure!(voters(&all).await? == 3, "it is back under a new id");
        nodes.iter().try_for_each(no_panic)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clusters_are_not_made_one() -> Result<()> {
    scenario(Options::new(NODE, 0), async |cluster| {
        let nodes = blank(cluster, &["a", "b"])?;
        for node in &nodes {
            json(&form(node.client_addr(), &["--wait", "30s"]).await?)?;
        }
        let refused = form(&endpoints(&nodes), &[]).await?;
        let words = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(refused.status.code() == Some(5), "{words}");
        ensure!(words.contains("2 clusters"), "{words}");
        let waited = std::time::Instant::now();
        let nobody = form("127.0.0.1:1", &["--wait", "1s"]).await?;
        ensure!(nobody.status.code() == Some(7), "{nobody:?}");
        ensure!(
            waited.elapsed() < Duration::from_secs(20),
            "{:?}",
            waited.elapsed()
        );
        Ok(())
    })
    .await
}
