//! Members of a running cluster whose disk is damaged: they stop with words, the others go on, and
//! what the words say brings them back.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use quorate_client::{Client, Consistency};
use quorate_statemachine::Name;
use quorate_statemachine::process::Event;
use quorate_tests::cluster::{Cluster, scenario};
use quorate_tests::load::Load;
use quorate_tests::wait::{PATIENCE, RECOVERY_MAX, until};
use quorate_tests::{oracle, program};

use super::NODE;
use super::damage::{Damage, flip_at};
use super::directory::{files, kind, options};

/// What the words of a damaged node tell an operator to do.
const ADVICE: &str = "quorate member replace";

/// Bytes of an event that are found again in the file of a table: nothing can compress them.
const EVENT_BYTES: usize = 8_000;
const EVENTS: usize = 60;

/// The files of a node of this kind, the newest last.
fn of_kind(cluster: &Cluster, node: usize, wanted: &str) -> Result<Vec<PathBuf>> {
    let dir = cluster.nodes[node].data_dir();
    let all = files(dir)?.into_iter().filter(|file| kind(file) == wanted);
    let all: Vec<PathBuf> = all.map(|file| dir.join(file)).collect();
    ensure!(!all.is_empty(), "no {wanted} in {}", dir.display());
    Ok(all)
}

/// Waits until the node has ended by itself; answers its last words.
async fn last_words(cluster: &mut Cluster, node: usize) -> Result<String> {
    let status = cluster.nodes[node].exited().await?;
    let stderr = cluster.nodes[node].stderr()?;
    ensure!(status.code() == Some(1), "it ended with {status}: {stderr}");
    // Tasks that end after it may say something more.
    let last = stderr.lines().rfind(|line| line.starts_with("error: "));
    Ok(last.context("it ended without a word")?.to_owned())
}

/// What docs/OPERATIONS.md says of a member whose disk is damaged: an empty directory, a new id in
/// its own place.
async fn replace(cluster: &mut Cluster, node: usize, id: u64) -> Result<()> {
    fs::remove_dir_all(cluster.nodes[node].data_dir())?;
    cluster.nodes[node].start()?;
    cluster.ready(node).await?;
    let (endpoints, id) = (cluster.endpoints().join(","), id.to_string());
    let config = cluster.nodes[node].config();
    let (name, listen) = (&*config.node.name, &config.listen);
    let args = [
        "member",
        "replace",
        &*id,
        name,
        "--peer",
        &*listen.peer,
        "--client",
        &*listen.client,
        "--yes",
        "--timeout",
        "60s",
    ];
    let output = program::run(program::quorate(NODE), &endpoints, &args).await?;
    program::printed(&output)?;
    let status = cluster.caught_up(node).await?;
    ensure!(status.healthy, "{status:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_member_says_what_to_do_and_that_brings_it_back() -> Result<()> {
    scenario(options(), async |cluster| {
        program::quorate(NODE);
        let load = Load::start(&cluster.all_endpoints(), 4).await?;
        load.more(600, RECOVERY_MAX).await?;
        let early = Damage::Flip { at: 100, bit: 0 };
        for (wanted, damage, place) in [
            ("log/#.log", early, "log: "),
            ("state-#/#.sst", Damage::Delete, "state-"),
            ("identity", early, "identity: "),
        ] {
            let node = cluster.follower().await?;
            let id = cluster.status(node).await?.id;
            match wanted {
                "log/#.log" => cluster.nodes[node].kill()?,
                _ => cluster.nodes[node].terminate().await?,
            }
            let path = of_kind(cluster, node, wanted)?.pop().context("a file")?;
            let damage = match damage {
                Damage::Flip { bit, .. } if wanted == "identity" => Damage::Flip { at: 3, bit },
                other => other,
            };
            ensure!(damage.inflict(&path)?, "{}", path.display());
            cluster.nodes[node].start()?;
            let words = last_words(cluster, node).await?;
            let place = cluster.nodes[node].data_dir().join(place);
            let place = place.display().to_string();
            ensure!(words.contains(&place), "{place} is not in {words}");
            ensure!(words.contains(ADVICE), "{words}");
            replace(cluster, node, id).await?;
            load.more(200, RECOVERY_MAX).await?;
        }
        oracle::check_unfailing(cluster, load).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_made_anew_is_made_anew() -> Result<()> {
    scenario(options(), async |cluster| {
        let load = Load::start(&cluster.all_endpoints(), 4).await?;
        load.more(900, RECOVERY_MAX).await?;
        for wanted in [
            "snapshots/#-#/manifest",
            "state-#/IDENTITY",
            "log/IDENTITY",
            // All of it: of the log, what is before the last snapshot is gone.
            "state-#/",
        ] {
            let node = cluster.follower().await?;
            cluster.nodes[node].terminate().await?;
            let dir = cluster.nodes[node].data_dir().to_owned();
            let all = files(&dir)?.into_iter();
            let gone = all.filter(|file| match wanted.ends_with('/') {
                true => kind(file).starts_with(wanted),
                false => kind(file) == wanted,
            });
            for file in gone {
                fs::remove_file(dir.join(file))?;
            }
            cluster.nodes[node].start()?;
            cluster.caught_up(node).await.context(wanted)?;
            load.more(100, RECOVERY_MAX).await?;
        }
        oracle::check_unfailing(cluster, load).await
    })
    .await
}

/// Appends events that cannot be compressed. Answers what they hold.
async fn append_events(client: &Client) -> Result<Vec<Vec<u8>>> {
    let process = client.process("noisy")?;
    process.register("").await?;
    let (event_type, mut random) = (Name::parse("event_type", "noise")?, fastrand::Rng::new());
    let mut payloads = Vec::new();
    for _ in 0..EVENTS {
        let mut payload = vec![0; EVENT_BYTES];
        random.fill(&mut payload);
        process.append(&event_type, None, payload.clone()).await?;
        payloads.push(payload);
    }
    Ok(payloads)
}

async fn events(client: &Client) -> Result<Vec<Event>> {
    let process = client.process("noisy")?;
    let mut all: Vec<Event> = Vec::new();
    while all.len() < EVENTS {
        let after = all.last().map_or(0, |event| event.sequence);
        let page = process.events(after, 20).await?.context("no process")?;
        ensure!(!page.rows.is_empty(), "it ends behind event {after}");
        all.extend(page.rows);
    }
    Ok(all)
}

/// A leader that has everything on disk and nothing of the events in memory, with a flipped bit in
/// one of them. Answers which node, its id, and the damaged file.
async fn leader_with_a_flipped_bit(
    cluster: &mut Cluster,
    event: &[u8],
) -> Result<(usize, u64, PathBuf)> {
    let node = cluster.follower().await?;
    cluster.restart(node, |_| {}).await?;
    let id = cluster.status(node).await?.id;
    cluster.admin()?.transfer_leader(Some(id), false).await?;
    until("it to lead", PATIENCE, async || {
        Ok((cluster.leader().await? == node).then_some(()))
    })
    .await?;
    let damaged = flip_at(&event[100..132], &of_kind(cluster, node, "state-#/#.sst")?)?;
    Ok((node, id, damaged))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bit_flipped_under_a_running_leader_is_never_served() -> Result<()> {
    scenario(options(), async |cluster| {
        program::quorate(NODE);
        let client = cluster.client()?.with_timeout(PATIENCE);
        let payloads = append_events(&client).await?;
        let (node, id, damaged) = leader_with_a_flipped_bit(cluster, &payloads[40]).await?;
        let own = Client::connect([cluster.nodes[node].client_addr()])?;
        let own = own.with_consistency(Consistency::Stale { max_lag_ms: None });
        // The client may ask another node in place of the one that fails.
        if let Ok(all) = events(&own).await {
            let told = all.iter().map(|event| &event.payload);
            ensure!(told.eq(&payloads), "what is damaged was served");
        }
        let place = damaged.parent().context("a directory")?;
        let place = place.display().to_string();
        let words = last_words(cluster, node).await?;
        ensure!(words.contains(&place) && words.contains(ADVICE), "{words}");
        let all = events(&client).await?;
        let same = all.iter().map(|event| &event.payload).eq(&payloads);
        ensure!(same, "the others tell something else");
        replace(cluster, node, id).await?;
        cluster.digests_agree().await
    })
    .await
}

/// Its snapshot matches its manifest, since it was hashed as it was, and its rows are damaged.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_snapshot_stops_the_leader_that_sends_it_and_nobody_else() -> Result<()> {
    scenario(options(), async |cluster| {
        program::quorate(NODE);
        let client = cluster.client()?.with_timeout(PATIENCE);
        let payloads = append_events(&client).await?;
        let (leader, id, damaged) = leader_with_a_flipped_bit(cluster, &payloads[40]).await?;
        let away = cluster.follower().await?;
        cluster.nodes[away].kill()?;
        // More than the log keeps, so that who was away needs a snapshot.
        let load = Load::start(&cluster.all_endpoints(), 4).await?;
        load.more(700, RECOVERY_MAX).await?;
        cluster.nodes[away].start()?;
        let words = last_words(cluster, leader).await?;
        let place = damaged.parent().context("a directory")?;
        let snapshots = cluster.nodes[leader].data_dir().join("snapshots");
        let named = [place, &snapshots].map(|place| words.contains(&place.display().to_string()));
        ensure!(named.contains(&true) && words.contains(ADVICE), "{words}");
        cluster.caught_up(away).await?;
        let said = cluster.nodes[away].stderr()?;
        ensure!(
            !said.contains("this node has stopped"),
            "a healthy node has stopped: {said}"
        );
        replace(cluster, leader, id).await?;
        load.more(100, RECOVERY_MAX).await?;
        oracle::check_unfailing(cluster, load).await
    })
    .await
}
