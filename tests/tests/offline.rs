//! The directory of a stopped node: what it holds, whether it is whole, and whether its log leads
//! to its state. A damaged one is found.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Context, Result, ensure};
use quorate_tests::cluster::{Options, scenario};
use quorate_tests::load::Load;
use quorate_tests::program;
use quorate_tests::wait::RECOVERY_MAX;

const NODE: &str = env!("CARGO_BIN_EXE_test-node");

async fn offline(verb: &str, dir: &Path) -> Result<Output> {
    let dir = dir.display().to_string();
    let args = ["offline", verb, &dir, "--output", "json"];
    program::run(program::quorate(NODE), "127.0.0.1:1", &args).await
}

fn json(output: &Output) -> Result<serde_json::Value> {
    Ok(serde_json::from_str(&program::printed(output)?)?)
}

/// Every file under `dir` whose name ends like this.
fn files(dir: &Path, suffix: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path, suffix)?);
        } else if path.to_string_lossy().ends_with(suffix) {
            found.push(path);
        }
    }
    Ok(found)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_node_is_inspected_verified_and_replayed() -> Result<()> {
    let options = Options::new(NODE, 3).configure(|config| config.raft.snapshot_entries = 500);
    scenario(options, async |cluster| {
        let load = Load::start(&cluster.all_endpoints(), 8).await?;
        load.more(1_500, RECOVERY_MAX).await?;
        let node = cluster.follower().await?;
        let dir = cluster.nodes[node].data_dir().to_owned();
        let refused = offline("inspect", &dir).await?;
        ensure!(
            refused.status.code() == Some(1),
            "a running node is left alone"
        );
        let words = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(words.contains("in use by another process"), "{words}");

        cluster.nodes[node].terminate().await?;
        let found = json(&offline("inspect", &dir).await?)?;
        ensure!(found["name"] == cluster.nodes[node].config().node.name.as_str());
        ensure!(found["state"]["whole"] == true, "{found}");
        ensure!(
            found["state"]["voters"].as_array().map(Vec::len) == Some(3),
            "{found}"
        );
        let snapshots = found["snapshots"].as_array().context("snapshots")?;
        ensure!(!snapshots.is_empty(), "a snapshot was made: {found}");
        let checks = offline("verify", &dir).await?;
        ensure!(
            checks.status.success(),
            "{}",
            String::from_utf8_lossy(&checks.stderr)
        );
        let replayed = json(&offline("replay", &dir).await?)?;
        ensure!(replayed["equal"] == true, "{replayed}");
        ensure!(
            replayed["entries"] != "0",
            "it has replayed something: {replayed}"
        );
        ensure!(
            replayed["to"] == found["state"]["applied"]["index"],
            "{replayed}"
        );

        cluster.nodes[node].start()?;
        cluster.caught_up(node).await?;
        load.finish().await?;
        cluster.digests_agree().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_to_a_stopped_node_is_found() -> Result<()> {
    let options = Options::new(NODE, 1).configure(|config| config.raft.snapshot_entries = 300);
    scenario(options, async |cluster| {
        let load = Load::start(&cluster.all_endpoints(), 4).await?;
        load.more(1_000, RECOVERY_MAX).await?;
        load.finish().await?;
        cluster.nodes[0].terminate().await?;
        let dir = cluster.nodes[0].data_dir().to_owned();
        let tables = files(&dir.join("snapshots"), ".sst")?;
        let table = tables.first().context("a snapshot has tables")?;
        let mut bytes = fs::read(table)?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        // A file of its own: the tables of a snapshot are links to those of the state.
        fs::remove_file(table)?;
        fs::write(table, bytes)?;
        let found = offline("verify", &dir).await?;
        ensure!(found.status.code() == Some(1), "the damage is not found");
        let words = String::from_utf8_lossy(&found.stderr).into_owned();
        ensure!(
            words.contains("damaged") && words.contains(".sst"),
            "{words}"
        );
        // One that lacks what says what it holds is not passed over either.
        let manifests = files(&dir.join("snapshots"), "manifest")?;
        fs::remove_file(manifests.first().context("a snapshot has a manifest")?)?;
        let found = offline("verify", &dir).await?;
        ensure!(found.status.code() == Some(1), "the gap is not found");
        let words = String::from_utf8_lossy(&found.stderr).into_owned();
        ensure!(words.contains("its manifest cannot be read"), "{words}");
        Ok(())
    })
    .await
}
