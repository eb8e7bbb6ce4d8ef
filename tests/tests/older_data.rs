//! A data directory that the build of commit 762f84b wrote (`fixtures/README.md`): this build finds
//! it whole, replays its log to the state that the old build had, and goes on from there.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use quorate_client::admin::Admin;
use quorate_node::Config;
use quorate_statemachine::version::NEWEST;
use quorate_tests::cluster::{Cluster, Options, scenario};
use quorate_tests::program;
use quorate_tests::wait::{PATIENCE, until};
use serde_json::Value;

const NODE: &str = env!("CARGO_BIN_EXE_test-node");
const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures");
const OLD: &str = "762f84b";

/// Unpacks the old node's directory: a configuration that runs on it.
fn unpacked(cluster: &Cluster) -> Result<Config> {
    let config = cluster.new_config("n1");
    let archive = format!("{FIXTURES}/{OLD}.tar.gz");
    let unpack = Command::new("tar")
        .args(["-xzf", &archive, "-C"])
        .arg(cluster.dir())
        .status()
        .context("tar is needed")?;
    ensure!(unpack.success(), "{archive} cannot be unpacked");
    std::fs::rename(cluster.dir().join(OLD), &config.node.data_dir)?;
    Ok(config)
}

/// What the old build said.
fn recorded() -> Result<Value> {
    let path = format!("{FIXTURES}/{OLD}.json");
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    Ok(serde_json::from_str(&text)?)
}

fn number(value: &Value) -> Result<u64> {
    let text = value.as_str().with_context(|| format!("{value}"))?;
    Ok(text.parse()?)
}

async fn json(endpoint: &str, args: &[&str]) -> Result<Value> {
    let args = [args, &["--output", "json"]].concat();
    let output = program::run(program::quorate(NODE), endpoint, &args).await?;
    Ok(serde_json::from_str(&program::printed(&output)?)?)
}

async fn offline(verb: &str, dir: &Path) -> Result<Value> {
    let dir = dir.display().to_string();
    json("127.0.0.1:1", &["offline", verb, &dir]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_directory_of_an_older_build_is_read_replayed_and_gone_on_from() -> Result<()> {
    scenario(Options::new(NODE, 0), async |cluster| {
        let config = unpacked(cluster)?;
        let (dir, old) = (config.node.data_dir.clone(), recorded()?);
        offline("verify", &dir).await?;
        let found = offline("inspect", &dir).await?;
        ensure!(found["state"]["cluster_version"] == 1, "{found}");
        let replayed = offline("replay", &dir).await?;
        ensure!(replayed["equal"] == true, "{replayed}");
        ensure!(number(&replayed["entries"])? > 0, "{replayed}");

        // What the state's files do not have is applied from the log, up to the old build's mark.
        let marked = number(&old[0]["index"])?;
        let applied = number(&found["state"]["applied"]["index"])?;
        ensure!(applied > 0 && applied < marked, "{found}");
        cluster.nodes.push(cluster.process(config)?);
        cluster.nodes[0].start()?;
        let addr = cluster.nodes[0].client_addr().to_owned();
        let digest = until("the mark to be applied", PATIENCE, async || {
            let admin = Admin::connect([addr.as_str()])?;
            Ok(admin.digest_at(&addr, marked, PATIENCE).await.ok())
        })
        .await?;
        ensure!(old[0]["digest"] == *digest.digest, "{digest:?}");
        until("the version to rise", PATIENCE, async || {
            Ok((cluster.status(0).await?.cluster_version == NEWEST).then_some(()))
        })
        .await?;
        goes_on(&addr, marked).await
    })
    .await
}

/// What the old build wrote is there, and the next token is above all that it can have granted.
async fn goes_on(at: &str, marked: u64) -> Result<()> {
    let events = json(at, &["process", "events", "kept"]).await?;
    ensure!(events.as_array().map(Vec::len) == Some(2), "{events}");
    let claim = ["queue", "claim", "kept", "--owner", "new", "--ttl", "1m"];
    let items = json(at, &claim).await?.to_string();
    ensure!(items.contains("from the old build"), "{items}");
    let new = json(at, &program::claim("new")).await?;
    ensure!(number(&new["fencing_token"])? > marked, "{new}");
    Ok(())
}
