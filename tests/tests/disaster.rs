//! A cluster is saved to a file while it works, and a new one is made from the file: nothing that
//! was acknowledged before is missing, and no token is issued twice.

use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Context, Result, ensure};
use quorate_client::Client;
use quorate_histories::history::Span;
use quorate_node::Config;
use quorate_tests::cluster::{Cluster, Options, scenario};
use quorate_tests::load::Load;
use quorate_tests::oracle;
use quorate_tests::process::NodeProcess;
use quorate_tests::program::{self, printed, run};
use quorate_tests::wait::{PATIENCE, RECOVERY_MAX, until};
use serde_json::Value;
use tokio::time::Instant;

const NODE: &str = env!("CARGO_BIN_EXE_test-node");

async fn quorate(endpoints: &str, args: &[&str]) -> Result<Output> {
    run(program::quorate(NODE), endpoints, args).await
}

async fn json(endpoints: &str, args: &[&str]) -> Result<Value> {
    let args = [args, &["-o", "json"]].concat();
    let output = quorate(endpoints, &args).await?;
    let text = printed(&output).with_context(|| format!("{args:?}"))?;
    Ok(serde_json::from_str(&text)?)
}

/// The words of a command that must be refused.
async fn refused(args: &[&str]) -> Result<String> {
    let output = quorate("127.0.0.1:1", args).await?;
    ensure!(!output.status.success(), "{args:?} was done");
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

fn number(value: &Value) -> Result<u64> {
    let text = value.as_str().context("a number in a string")?;
    Ok(text.parse()?)
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a path in UTF-8")
}

/// Claims `key`; its token.
async fn claim(endpoints: &str, key: &str) -> Result<u64> {
    number(&json(endpoints, &program::claim(key)).await?["fencing_token"])
}

/// The configuration of a directory made from `file`, and what was said of it.
async fn restored(cluster: &Cluster, file: &Path, name: &str) -> Result<(Config, Value)> {
    let config = cluster.new_config(name);
    let dir = path(&config.node.data_dir)?.to_owned();
    let args = ["snapshot", "restore", path(file)?, "--data-dir", &dir];
    let made = json("127.0.0.1:1", &[&args[..], &["--name", name]].concat()).await?;
    Ok((config, made))
}

/// Adds blank nodes to the cluster at `first` until it has three voters; answers where all are.
async fn grow(cluster: &mut Cluster, first: &str, names: [&str; 2]) -> Result<[String; 3]> {
    let mut added = [first.to_owned(), String::new(), String::new()];
    for (name, added) in names.into_iter().zip(&mut added[1..]) {
        let node = started(cluster, cluster.new_config(name))?;
        let listen = &node.config().listen;
        let addresses = ["--peer", &listen.peer, "--client", &listen.client];
        let add = [&["member", "add", name], &addresses[..]].concat();
        until("the node to be added", PATIENCE, async || {
            printed(&quorate(first, &add).await?).map(Some)
        })
        .await?;
        *added = node.client_addr().to_owned();
    }
    let members = json(first, &["member", "list"]).await?;
    let voters = members.as_array().context("a list")?.iter();
    let voters = voters.filter(|member| member["voter"] == true).count();
    ensure!(voters == 3, "{members}");
    Ok(added)
}

/// One more node of the scenario, which shows its log when it fails.
fn started(cluster: &mut Cluster, config: Config) -> Result<&NodeProcess> {
    let mut node = cluster.process(config)?;
    node.start()?;
    cluster.nodes.push(node);
    cluster.nodes.last().context("it was pushed")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_cluster_has_all_that_was_acknowledged_and_new_tokens() -> Result<()> {
    // Built before the clients begin, which work for a limited time.
    program::quorate(NODE);
    scenario(Options::new(NODE, 3), async |cluster| {
        let load = Load::start(&cluster.all_endpoints(), 8).await?;
        load.more(500, RECOVERY_MAX).await?;
        let old = cluster.endpoints().join(",");
        let file = cluster.dir().join("saved.quorate");
        // An item that nobody works on before it is saved.
        let left = cluster.client()?.queue("left")?;
        left.push("for the new cluster").send().await?;
        let began = Instant::now();
        let saved = json(&old, &["snapshot", "save", path(&file)?]).await?;
        let within = Span::since(began);
        let inspected = json("127.0.0.1:1", &["snapshot", "inspect", path(&file)?]).await?;
        ensure!(saved == inspected, "{saved}\n{inspected}");
        // The old cluster lives on: nobody knows of these tokens but those who hold them.
        load.more(500, RECOVERY_MAX).await?;
        let history = load.finish().await?;
        let old_id = cluster.status(0).await?.cluster_id;
        cluster.kill_all()?;
        let highest = history.highest_token();
        ensure!(number(&saved["index"])? < highest, "{saved}");

        let (first, made) = restored(cluster, &file, "r1").await?;
        ensure!(made["old_cluster_id"] == old_id.as_str(), "{made}");
        ensure!(made["cluster_id"] != old_id.as_str(), "{made}");
        ensure!(number(&made["tokens_above"])? > highest, "{made}");
        let first = &started(cluster, first)?.client_addr().to_owned();
        let first_token = claim(first, "new").await?;
        ensure!(first_token > highest, "{first_token} after {highest}");
        let nodes = grow(cluster, first, ["r2", "r3"]).await?;
        let client = Client::connect(nodes)?.with_timeout(PATIENCE);
        let mut history = history.as_of(within);
        oracle::read_back(&client, &mut history).await?;
        let items = client.queue("left")?.claim(1).await?;
        let item = items.first().context("the item that was left is gone")?;
        let claim_of_item = item.item.claim.as_ref();
        let token = claim_of_item.context("it is not claimed")?.fencing_token;
        ensure!(token > first_token, "{token} after {first_token}");
        let agreed = quorate(first, &["verify", "--timeout", "30s"]).await?;
        printed(&agreed)?;

        // The same file once more: above all that the first restored cluster has issued too.
        let last = claim(first, "last").await?;
        let (again, made) = restored(cluster, &file, "s1").await?;
        ensure!(number(&made["tokens_above"])? > last, "{made}");
        let again = started(cluster, again)?;
        let token = claim(again.client_addr(), "new").await?;
        ensure!(token > last, "{token} after {last}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_or_not_empty_is_refused_and_left_alone() -> Result<()> {
    scenario(Options::new(NODE, 1), async |cluster| {
        let endpoint = cluster.endpoints().join(",");
        claim(&endpoint, "k").await?;
        let file = cluster.dir().join("good");
        json(&endpoint, &["snapshot", "save", path(&file)?]).await?;
        let again = quorate(&endpoint, &["snapshot", "save", path(&file)?]).await?;
        let words = String::from_utf8_lossy(&again.stderr).into_owned();
        ensure!(again.status.code() == Some(2), "{words}");
        ensure!(words.contains("exists"), "{words}");

        let bytes = std::fs::read(&file)?;
        let bad = cluster.dir().join("bad");
        let dir = cluster.dir().join("target");
        let restore = [
            "snapshot",
            "restore",
            path(&bad)?,
            "--data-dir",
            path(&dir)?,
        ];
        for length in [0, 7, 100, bytes.len() - 1] {
            std::fs::write(&bad, &bytes[..length])?;
            refused(&["snapshot", "inspect", path(&bad)?]).await?;
            refused(&restore).await?;
        }
        let mut flipped = bytes.clone();
        let at = bytes.len() / 2;
        flipped[at] ^= 4;
        std::fs::write(&bad, &flipped)?;
        let words = refused(&restore).await?;
        ensure!(words.contains("block 1 at byte"), "{words}");
        ensure!(words.contains("checksum does not hold"), "{words}");
        let left: Vec<PathBuf> = std::fs::read_dir(&dir)?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<_>>()?;
        ensure!(left.iter().all(|left| left.ends_with("LOCK")), "{left:?}");

        let good = ["snapshot", "restore", path(&file)?, "--data-dir"];
        let running = path(cluster.nodes[0].data_dir())?;
        let words = refused(&[&good[..], &[running]].concat()).await?;
        ensure!(words.contains("in use by another process"), "{words}");
        std::fs::write(dir.join("thesis.txt"), "years of work")?;
        let words = refused(&[&good[..], &[path(&dir)?]].concat()).await?;
        ensure!(words.contains("thesis.txt"), "{words}");
        std::fs::remove_file(dir.join("thesis.txt"))?;
        json("127.0.0.1:1", &[&good[..], &[path(&dir)?]].concat()).await?;
        let words = refused(&[&good[..], &[path(&dir)?]].concat()).await?;
        ensure!(words.contains("is not empty"), "{words}");
        claim(&endpoint, "and it still runs").await.map(drop)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_without_a_quorum_can_still_be_saved_if_stale_is_enough() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let all = cluster.endpoints().join(",");
        let token = claim(&all, "k").await?;
        let left = cluster.follower().await?;
        cluster.caught_up(left).await?;
        for node in 0..3 {
            if node != left {
                cluster.nodes[node].kill()?;
            }
        }
        let endpoint = cluster.nodes[left].client_addr().to_owned();
        let file = cluster.dir().join("saved");
        let fresh = ["snapshot", "save", path(&file)?, "--timeout", "3s"];
        let fresh = quorate(&endpoint, &fresh).await?;
        ensure!(!fresh.status.success() && !file.exists(), "{fresh:?}");
        let stale = ["snapshot", "save", path(&file)?, "--consistency", "stale"];
        let saved = json(&endpoint, &stale).await?;
        ensure!(number(&saved["index"])? >= token, "{saved}");
        Ok(())
    })
    .await
}

/// Four voters need three: while one stands still, all others have every acknowledged write.
#[tokio::test(flavor = "multi_thread")]
async fn of_those_that_are_left_the_most_advanced_becomes_a_new_cluster() -> Result<()> {
    program::quorate(NODE);
    scenario(Options::new(NODE, 4), async |cluster| {
        let load = Load::start(&cluster.all_endpoints(), 8).await?;
        load.more(300, RECOVERY_MAX).await?;
        let leader = cluster.leader().await?;
        let others: Vec<usize> = (0..4).filter(|node| *node != leader).collect();
        let (behind, ahead) = (others[0], others[1]);
        cluster.nodes[behind].pause().await?;
        load.more(500, RECOVERY_MAX).await?;
        cluster.kill_all()?;
        let mut history = load.finish().await?;
        let highest = history.highest_token();

        let dirs = [behind, ahead, leader].map(|node| cluster.nodes[node].data_dir().to_owned());
        let [behind, ahead, leader] = [path(&dirs[0])?, path(&dirs[1])?, path(&dirs[2])?];
        let config = cluster.new_config("r1");
        let made = path(&config.node.data_dir)?.to_owned();
        let target = ["--data-dir", &made, "--name", "r1"];
        let quorum = ["recover", behind, ahead, leader];
        let words = refused(&[&quorum[..], &target].concat()).await?;
        ensure!(words.contains("start them, and nothing is lost"), "{words}");
        let recover = [&["recover", behind, ahead][..], &target].concat();
        let words = refused(&recover).await?;
        ensure!(words.contains("lost: every write behind entry"), "{words}");
        ensure!(words.contains("give --yes"), "{words}");
        let plan = json("127.0.0.1:1", &[&recover[..], &["--dry-run"]].concat()).await?;
        ensure!(plan["given"][0]["data_dir"] == ahead, "{plan}");
        ensure!(
            plan["missing"]
                .as_array()
                .is_some_and(|missing| missing.len() == 2),
            "{plan}"
        );
        let last = |given: &Value| number(&given["last_index"]);
        ensure!(
            last(&plan["given"][1])? < last(&plan["given"][0])?,
            "{plan}"
        );
        ensure!(!config.node.data_dir.exists(), "a dry run has made {made}");

        let done = json("127.0.0.1:1", &[&recover[..], &["--yes"]].concat()).await?;
        ensure!(number(&done["tokens_above"])? > highest, "{done}");
        let whole = quorate("127.0.0.1:1", &["offline", "verify", ahead]).await?;
        printed(&whole)?;
        let first = &started(cluster, config)?.client_addr().to_owned();
        let token = claim(first, "new").await?;
        ensure!(token > highest, "{token} after {highest}");
        let nodes = grow(cluster, first, ["r2", "r3"]).await?;
        let client = Client::connect(nodes)?.with_timeout(PATIENCE);
        oracle::read_back(&client, &mut history).await?;
        let agreed = quorate(first, &["verify", "--timeout", "30s"]).await?;
        printed(&agreed)?;
        Ok(())
    })
    .await
}
