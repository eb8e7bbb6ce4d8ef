//! Backups by schedule: they are made while the cluster works and goes from leader to leader, the
//! newest are kept, each is whole, and who cannot make them says so.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use quorate_client::Client;
use quorate_node::snapshot_file;
use quorate_statemachine::Name;
use quorate_statemachine::lease::Claimed;
use quorate_tests::cluster::{Cluster, Options, no_panic, scenario};
use quorate_tests::http;
use quorate_tests::process::free_port;
use quorate_tests::program::{self, printed};
use quorate_tests::s3::{KEY_ID, S3, SECRET};
use quorate_tests::wait::{PATIENCE, until};

const NODE: &str = env!("CARGO_BIN_EXE_test-node");

const KEEP: usize = 3;

const ALARM: &str = "backup_old";

/// Nodes that save every second to a directory beside theirs.
fn options(nodes: usize) -> Options {
    Options::new(NODE, nodes).configure(|config| {
        let beside = config.node.data_dir.with_file_name("backups");
        config.backup.to = beside.to_string_lossy().into_owned();
        config.backup.every_s = 1;
        config.backup.keep = KEEP;
        config.backup.alarm_after_s = 3;
        config.listen.http = format!("127.0.0.1:{}", free_port());
    })
}

/// The same to a store.
fn options_of_store(store: &S3) -> Options {
    let endpoint = store.url().to_owned();
    Options::new(NODE, 1)
        .configure(move |config| {
            config.backup.to = "s3://safe/quorate/prod".to_owned();
            config.backup.endpoint = endpoint.clone();
            config.backup.every_s = 1;
            config.backup.keep = KEEP;
            config.backup.alarm_after_s = 3;
        })
        .env("AWS_ACCESS_KEY_ID", KEY_ID)
        .env("AWS_SECRET_ACCESS_KEY", SECRET)
}

/// The backups in `dir`, oldest first.
fn backups(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for cluster in std::fs::read_dir(dir)? {
        let cluster = cluster?.path();
        if !cluster.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(cluster)? {
            let path = file?.path();
            let ending = path.extension();
            if ending.is_some_and(|ending| ending == "quorate") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The names of backups in a store, oldest first.
fn stored(store: &S3) -> Vec<String> {
    let names = store.objects().into_keys();
    names.filter(|name| name.ends_with(".quorate")).collect()
}

/// Waits until `count` backups are there that were not there at the beginning. Answers those that
/// are there then.
async fn made<T: PartialEq + std::fmt::Debug>(
    count: usize,
    list: impl Fn() -> Result<Vec<T>>,
) -> Result<Vec<T>> {
    let mut seen = list()?;
    let before = seen.len();
    until("more backups", PATIENCE, async || {
        let now = list()?;
        // One more than the number to keep is there until the oldest is removed.
        ensure!(now.len() <= KEEP + 1, "{now:?}");
        for backup in list()? {
            if !seen.contains(&backup) {
                seen.push(backup);
            }
        }
        Ok((seen.len() >= before + count).then_some(now))
    })
    .await
}

/// The alarms of the node that leads, with their texts.
async fn alarms(cluster: &Cluster) -> Result<Vec<(String, String)>> {
    let leader = cluster.leader().await?;
    let alarms = cluster.status(leader).await?.alarms.into_iter();
    Ok(alarms.map(|alarm| (alarm.kind, alarm.text)).collect())
}

/// Waits until the alarm is on, and answers its text.
async fn alarmed(cluster: &Cluster) -> Result<String> {
    until("the alarm", PATIENCE, async || {
        let mut alarms = alarms(cluster).await?.into_iter();
        Ok(alarms.find_map(|(kind, text)| (kind == ALARM).then_some(text)))
    })
    .await
}

async fn content(cluster: &Cluster) -> Result<()> {
    until("the alarm to end", PATIENCE, async || {
        Ok(alarms(cluster).await?.is_empty().then_some(()))
    })
    .await
}

/// A whole number among the metrics of a node.
async fn metric(cluster: &Cluster, node: usize, name: &str) -> Result<u64> {
    let address = &cluster.nodes[node].config().listen.http;
    let (_, text) = http::get(address, "/metrics").await?;
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    let found = lines.find(|(found, _)| *found == name);
    let (_, value) = found.with_context(|| format!("{name} is not there"))?;
    Ok(value.parse()?)
}

/// Claims `kept` for somebody who does not give it back; its token.
async fn claim(cluster: &Cluster) -> Result<u64> {
    let client = cluster.client()?.with_timeout(PATIENCE);
    let lease = client.lease("kept").owner("o").ttl(PATIENCE * 10);
    let Claimed::Granted(lease) = client.execute(lease.claim()?).await? else {
        bail!("nobody else wants it");
    };
    Ok(lease.fencing_token)
}

/// Makes a new cluster of `file` by the program, and looks whether `kept` is held by `token` there.
async fn restored(cluster: &Cluster, file: &str, store: Option<&S3>, token: u64) -> Result<()> {
    let mut config = cluster.new_config("r1");
    config.backup.to.clear();
    let dir = config.node.data_dir.to_string_lossy().into_owned();
    let mut command = tokio::process::Command::new(program::quorate(NODE));
    command.args([
        "snapshot",
        "restore",
        file,
        "--data-dir",
        &dir,
        "--name",
        "r1",
    ]);
    if let Some(store) = store {
        command
            .env("AWS_ENDPOINT_URL", store.url())
            .env("AWS_ACCESS_KEY_ID", KEY_ID)
            .env("AWS_SECRET_ACCESS_KEY", SECRET);
    }
    printed(&command.kill_on_drop(true).output().await?)?;
    let mut node = cluster.process(config)?;
    node.start()?;
    let client = Client::connect([node.client_addr()])?.with_timeout(PATIENCE);
    let found = client.lease_get(&Name::parse("key", "kept")?).await?;
    let found = found.context("it is there")?;
    ensure!(found.fencing_token == token, "{found:?}");
    no_panic(&node)
}

/// The first backup of a schedule that covers this entry.
async fn covering(dir: &Path, index: u64) -> Result<PathBuf> {
    until("a backup with the entry in it", PATIENCE, async || {
        let Some(newest) = backups(dir)?.pop() else {
            return Ok(None);
        };
        let (header, _) = snapshot_file::verify(std::fs::File::open(&newest)?)?;
        let last = header.covers.last_log_id.map_or(0, |id| id.index);
        Ok((last >= index).then_some(newest))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_backups_are_kept_and_a_new_leader_goes_on() -> Result<()> {
    program::quorate(NODE);
    scenario(options(3), async |cluster| {
        let dir = cluster.dir().join("backups");
        std::fs::create_dir(&dir)?;
        std::fs::write(dir.join("thesis.txt"), "years of work")?;
        let token = claim(cluster).await?;
        let list = || backups(&dir);
        made(KEEP + 2, list).await?;
        cluster.hurt().await?;
        let files = made(2, list).await?;
        ensure!(dir.join("thesis.txt").exists());

        // A copy: the newest one of now is removed in a few seconds.
        let file = cluster.dir().join("taken.quorate");
        ensure!(files.len() >= KEEP - 1, "{files:?}");
        until("a copy", PATIENCE, async || {
            std::fs::copy(covering(&dir, token).await?, &file)?;
            Ok(Some(()))
        })
        .await?;
        restored(cluster, &file.to_string_lossy(), None, token).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schedule_outlives_leaders_and_restarts() -> Result<()> {
    let rarely = |config: &mut quorate_node::Config| {
        (config.backup.every_s, config.backup.alarm_after_s) = (3_600, 7_200);
    };
    scenario(options(3), async |cluster| {
        let dir = cluster.dir().join("backups");
        std::fs::create_dir(&dir)?;
        made(1, || backups(&dir)).await?;
        for node in 0..3 {
            cluster.restart(node, rarely).await?;
        }
        let name = "quorate_backup_last_good_timestamp_seconds";
        let known = async |cluster: &Cluster| {
            until("the leader to know the newest one", PATIENCE, async || {
                let leader = cluster.leader().await?;
                let newest = metric(cluster, leader, name).await?;
                let made = metric(cluster, leader, "quorate_backups_made_total").await?;
                ensure!(made == 0, "one was made though none was due");
                Ok((newest > 0).then_some(newest))
            })
            .await
        };
        let before = (known(cluster).await?, backups(&dir)?);
        cluster.hurt().await?;
        let after = (known(cluster).await?, backups(&dir)?);
        ensure!(before == after, "{before:?} {after:?}");
        ensure!(alarms(cluster).await?.is_empty());

        // One that is damaged counts for nothing.
        let newest = before.1.last().context("there is one")?;
        let mut bytes = std::fs::read(newest)?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        std::fs::write(newest, bytes)?;
        cluster.hurt().await?;
        let newest = until("a good one", PATIENCE, async || {
            Ok(backups(&dir)?
                .pop()
                .filter(|file| Some(file) != before.1.last()))
        })
        .await?;
        snapshot_file::verify(std::fs::File::open(newest)?)?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_makes_no_backups_raises_an_alarm_until_it_does() -> Result<()> {
    scenario(options(1), async |cluster| {
        let dir = cluster.dir().join("backups");
        let text = alarmed(cluster).await?;
        ensure!(text.contains("not mounted"), "{text}");
        ensure!(!dir.exists(), "a directory that may be a disk was made");
        ensure!(metric(cluster, 0, "quorate_backup_failures_total").await? > 0);
        std::fs::create_dir(&dir)?;
        made(1, || backups(&dir)).await?;
        content(cluster).await?;
        ensure!(metric(cluster, 0, "quorate_backup_last_good_bytes").await? > 0);
        std::fs::rename(&dir, cluster.dir().join("unmounted"))?;
        alarmed(cluster).await.map(drop)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_gets_whole_backups_and_what_it_spoils_counts_for_nothing() -> Result<()> {
    program::quorate(NODE);
    let store = S3::start().await?;
    store.put("safe/quorate/prod/thesis.txt", b"years of work");
    let list = || Ok(stored(&store));
    scenario(options_of_store(&store), async |cluster| {
        let token = claim(cluster).await?;
        let made_here = made(KEEP + 2, list).await?;
        let id = cluster.status(0).await?.cluster_id;
        let place = format!("safe/quorate/prod/{id}/");
        ensure!(
            made_here.iter().all(|name| name.starts_with(&place)),
            "{made_here:?}"
        );

        store.refuse(true);
        let text = alarmed(cluster).await?;
        ensure!(text.contains("AccessDenied"), "{text}");
        let kept = stored(&store);
        ensure!(!kept.is_empty(), "the last good ones are gone");
        store.refuse(false);
        made(1, list).await?;
        content(cluster).await?;

        store.damage(true);
        let text = alarmed(cluster).await?;
        ensure!(text.contains("damaged"), "{text}");
        let good = until("all that is spoilt to be removed", PATIENCE, async || {
            let backups = store.objects().into_iter();
            let backups = backups.filter(|(name, _)| name.ends_with(".quorate"));
            let (good, spoilt): (Vec<_>, Vec<_>) =
                backups.partition(|(_, bytes)| snapshot_file::verify(&bytes[..]).is_ok());
            let done = spoilt.is_empty() && store.uploads() == 0;
            Ok(done.then(|| good.into_iter().map(|(name, _)| name)))
        })
        .await?;
        let newest = good.last().context("the last good ones are gone")?;
        cluster.nodes[0].terminate().await?;
        store.damage(false);
        ensure!(store.objects().contains_key("safe/quorate/prod/thesis.txt"));
        restored(cluster, &format!("s3://{newest}"), Some(&store), token).await?;

        let told = cluster.nodes[0].stderr()?;
        ensure!(!told.contains(SECRET) && !text.contains(SECRET));
        ensure!(
            !told.contains("Signature="),
            "what was signed is in the log"
        );
        Ok(())
    })
    .await
}
