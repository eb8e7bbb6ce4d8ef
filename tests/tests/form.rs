//! `quorate cluster form`, the real program on real nodes: one cluster of blank nodes, never two.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use quorate_tests::cluster::{Cluster, Options, scenario};
use quorate_tests::process::NodeProcess;
use quorate_tests::program::{self, printed, run};

const NODE: &str = env!("CARGO_BIN_EXE_test-node");

/// Starts so many blank nodes of the scenario, which shows their logs when it fails.
fn blank(cluster: &mut Cluster, names: &[&str]) -> Result<()> {
    for name in names {
        let mut node = cluster.process(cluster.new_config(name))?;
        node.start()?;
        cluster.nodes.push(node);
    }
    Ok(())
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
        blank(cluster, &["c", "a", "b"])?;
        let nodes = &mut cluster.nodes;
        let all = endpoints(nodes);
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
        for node in nodes.iter_mut() {
            node.kill()?;
            node.start()?;
        }
        printed(&run(program::quorate(NODE), &all, &program::claim("k")).await?)?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_form_at_once_make_one_cluster() -> Result<()> {
    scenario(Options::new(NODE, 0), async |cluster| {
        blank(cluster, &["a", "b", "c"])?;
        let all = endpoints(&cluster.nodes);
        let args = ["--wait", "30s", "--timeout", "60s"];
        let (one, other) = tokio::join!(form(&all, &args), form(&all, &args));
        let (one, other) = (one?, other?);
        ensure!(
            one.status.success() || other.status.success(),
            "{one:?} {other:?}"
        );

        let after = json(&form(&all, &args).await?)?;
        ensure!(after["founded"] == false, "{after}");
        for done in [&one, &other]
            .into_iter()
            .filter(|out| out.status.success())
        {
            let said = json(done)?;
            ensure!(said["cluster_id"] == after["cluster_id"], "{said} {after}");
        }
        ensure!(voters(&all).await? == 3, "each has a vote");
        printed(&run(program::quorate(NODE), &all, &program::claim("k")).await?)?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_its_disk_founds_nothing() -> Result<()> {
    scenario(Options::new(NODE, 0), async |cluster| {
        blank(cluster, &["a", "b", "c"])?;
        let nodes = &mut cluster.nodes;
        let all = endpoints(nodes);
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
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clusters_are_not_made_one() -> Result<()> {
    scenario(Options::new(NODE, 0), async |cluster| {
        blank(cluster, &["a", "b"])?;
        let nodes = &cluster.nodes;
        for node in nodes {
            json(&form(node.client_addr(), &["--wait", "30s"]).await?)?;
        }
        let refused = form(&endpoints(nodes), &[]).await?;
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
