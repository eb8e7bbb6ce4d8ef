//! A member whose state is not that of the others: it finds out, serves nobody, and builds it anew.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail, ensure};
use quorate_client::{Client, Consistency};
use quorate_node::storage::offline::Stopped;
use quorate_node::{Config, disaster};
use quorate_statemachine::Command;
use quorate_statemachine::cluster::RecordDigest;
use quorate_tests::cluster::{Cluster, Options, scenario};
use quorate_tests::http::get;
use quorate_tests::load::Load;
use quorate_tests::oracle;
use quorate_tests::process::free_port;
use quorate_tests::wait::{PATIENCE, RECOVERY_MAX, until};

const NODE: &str = env!("CARGO_BIN_EXE_test-node");

/// Only the test sets marks.
fn never(config: &mut Config) {
    config.verify.every_ms = 0;
    config.listen.http = format!("127.0.0.1:{}", free_port());
}

/// Compared all the time; snapshots are made and the log is purged meanwhile.
fn often(config: &mut Config) {
    config.verify.every_ms = 200;
    config.raft.snapshot_entries = 1_000;
    config.raft.keep_entries = 500;
}

/// Makes the state of a node another than the others', while clients write.
async fn plant(cluster: &mut Cluster, node: usize, load: &Load) -> Result<()> {
    cluster.nodes[node].terminate().await?;
    cluster.nodes[node].start()?;
    cluster.caught_up(node).await?;
    // From a stop in order on, its disk has all; what comes then is only in its log for a while. A
    // snapshot in between leaves nothing to replace: then again.
    until("a fault to be planted", PATIENCE, async || {
        if !cluster.nodes[node].is_running() {
            cluster.nodes[node].start()?;
            cluster.caught_up(node).await?;
        }
        load.more(200, RECOVERY_MAX).await?;
        // So near that the leader sends it entries, and not its snapshot in place of the fault.
        cluster.caught_up(node).await?;
        cluster.nodes[node].kill()?;
        cluster.nodes[node].plant().await?;
        Ok(Some(()))
    })
    .await?;
    cluster.nodes[node].start()
}

async fn mark(cluster: &Cluster) -> Result<u64> {
    let client = cluster.client()?.with_timeout(PATIENCE);
    let marked = client.execute_command(Command::from(RecordDigest {}));
    Ok(marked.await?.0)
}

async fn alarms(cluster: &Cluster, node: usize) -> Result<Vec<String>> {
    let status = cluster.status(node).await?;
    Ok(status.alarms.into_iter().map(|alarm| alarm.kind).collect())
}

/// Waits until the node has been in quarantine and is out of it.
async fn recovered(cluster: &Cluster, node: usize) -> Result<()> {
    until("the quarantine to be over", PATIENCE, async || {
        let said = cluster.nodes[node].stderr()?;
        let over = said.contains("alarm is over alarm=\"quarantined\"");
        Ok((over && alarms(cluster, node).await?.is_empty()).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_with_another_state_builds_it_anew() -> Result<()> {
    scenario(Options::new(NODE, 3).configure(often), async |cluster| {
        let load = Load::start(&cluster.all_endpoints(), 8).await?;
        let node = cluster.follower().await?;
        let id = cluster.status(node).await?.id;
        plant(cluster, node, &load).await?;
        recovered(cluster, node).await?;
        load.more(300, RECOVERY_MAX).await?;
        let history = load.finish().await?;
        ensure!(history.failures.is_empty(), "{:?}", history.failures);
        oracle::check(cluster, history).await?;
        let status = cluster.status(node).await?;
        ensure!(status.id == id && status.healthy, "{status:?}");
        // On its disk is the new state too, and no snapshot of the old one.
        cluster.nodes[node].terminate().await?;
        let stopped = Stopped::open(cluster.nodes[node].data_dir())?;
        stopped.verify_state()?;
        stopped.verify_snapshots()?;
        let replayed = stopped.replay()?;
        ensure!(replayed.found == replayed.expected, "{replayed:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_with_another_state_hands_over() -> Result<()> {
    scenario(Options::new(NODE, 3).configure(never), async |cluster| {
        let load = Load::start(&cluster.all_endpoints(), 4).await?;
        let node = cluster.follower().await?;
        let id = cluster.status(node).await?.id;
        plant(cluster, node, &load).await?;
        cluster.caught_up(node).await?;
        // What it would answer as a leader is nothing to build an account on.
        let history = load.finish().await?;
        ensure!(history.failures.is_empty(), "{:?}", history.failures);
        cluster.admin()?.transfer_leader(Some(id), false).await?;
        ensure!(cluster.leader().await? == node, "it does not lead");
        mark(cluster).await?;
        recovered(cluster, node).await?;
        ensure!(cluster.leader().await? != node, "it leads again");
        cluster.digests_agree().await?;
        // It can lead again.
        cluster.admin()?.transfer_leader(Some(id), false).await?;
        ensure!(cluster.leader().await? == node, "it does not lead");
        cluster.digests_agree().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarantine_outlives_a_restart_and_nothing_is_served_in_it() -> Result<()> {
    scenario(Options::new(NODE, 3).configure(never), async |cluster| {
        cluster.client()?.process("p")?.register("").await?;
        let node = cluster.follower().await?;
        cluster.caught_up(node).await?;
        cluster.nodes[node].terminate().await?;
        let file = cluster.nodes[node].data_dir().join("quarantine");
        fs::write(&file, "found out before it was stopped")?;
        let others: Vec<usize> = cluster.running().collect();
        cluster.kill_all()?;
        let dir = cluster.nodes[node].data_dir().to_owned();
        let Err(refused) = disaster::plan(&[dir]) else {
            bail!("a new cluster would be made of a state that is wrong");
        };
        let words = refused.to_string();
        ensure!(words.contains("found out before it was stopped"), "{words}");
        // Without the others it cannot build its state.
        cluster.nodes[node].start()?;
        let status = cluster.ready(node).await?;
        ensure!(!status.healthy, "{status:?}");
        ensure!(alarms(cluster, node).await? == ["quarantined"]);
        let client = Client::connect([cluster.nodes[node].client_addr()])?;
        let stale = client.with_consistency(Consistency::Stale { max_lag_ms: None });
        let refused = stale.process("p")?.get().await;
        let words = refused
            .expect_err("its state is not to be trusted")
            .to_string();
        ensure!(words.contains("ask another member"), "{words}");
        let http = cluster.nodes[node].config().listen.http.clone();
        let (code, words) = get(&http, "/readyz").await?;
        let said = words.contains("[-] quarantined: found out before");
        ensure!(code == 503 && said, "{code}: {words}");
        let (_, metrics) = get(&http, "/metrics").await?;
        let gauge = "quorate_alarm_active{kind=\"quarantined\"} 1\n";
        ensure!(metrics.contains(gauge), "{metrics}");

        for other in others {
            cluster.nodes[other].start()?;
        }
        recovered(cluster, node).await?;
        ensure!(!file.exists(), "the mark is still there");
        until("it to be ready", PATIENCE, async || {
            let (code, _) = get(&http, "/readyz").await?;
            Ok((code == 200).then_some(()))
        })
        .await?;
        let found = stale.process("p")?.get().await?;
        ensure!(found.is_some(), "its state is empty");
        cluster.digests_agree().await
    })
    .await
}

/// How many names in a data directory and among its snapshots begin so.
fn there(dir: &Path, name: &str) -> Result<usize> {
    let mut count = 0;
    for dir in [dir.to_owned(), dir.join("snapshots")] {
        for entry in fs::read_dir(dir)? {
            let found = entry?.file_name();
            count += usize::from(found.to_string_lossy().starts_with(name));
        }
    }
    Ok(count)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_on_the_way_begins_it_anew() -> Result<()> {
    scenario(Options::new(NODE, 3).configure(often), async |cluster| {
        let load = Load::start(&cluster.all_endpoints(), 8).await?;
        let node = cluster.follower().await?;
        plant(cluster, node, &load).await?;
        let file = cluster.nodes[node].data_dir().join("quarantine");
        let dir = cluster.nodes[node].data_dir().to_owned();
        // Found out, receives, has received, builds. Wherever it dies, it begins anew.
        for (at, step) in ["quarantine", "receiving-", "making-received-", "state-"]
            .into_iter()
            .enumerate()
        {
            until("the node to come so far", PATIENCE, async || {
                // What is only there for a moment is missed now and then.
                let over = at > 0 && !file.exists();
                let wanted = 1 + usize::from(step == "state-");
                Ok((over || there(&dir, step)? >= wanted).then_some(()))
            })
            .await?;
            cluster.nodes[node].kill()?;
            cluster.nodes[node].start()?;
        }
        recovered(cluster, node).await?;
        oracle::check_unfailing(cluster, load).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_differ_say_so_and_go_on() -> Result<()> {
    scenario(Options::new(NODE, 2).configure(never), async |cluster| {
        let load = Load::start(&cluster.all_endpoints(), 4).await?;
        let node = cluster.follower().await?;
        plant(cluster, node, &load).await?;
        cluster.caught_up(node).await?;
        mark(cluster).await?;
        for node in [0, 1] {
            until("the alarm", PATIENCE, async || {
                Ok((alarms(cluster, node).await? == ["diverged"]).then_some(()))
            })
            .await?;
        }
        load.more(100, RECOVERY_MAX).await?;
        let history = load.finish().await?;
        ensure!(history.failures.is_empty(), "{:?}", history.failures);
        Ok(())
    })
    .await
}
