//! Starts that must be refused: the process ends with an error that says what to do, and whatever
//! runs already goes on.

use std::fs;

use anyhow::{Result, ensure};
use quorate_node::Config;
use quorate_tests::cluster::{Cluster, Options, no_panic, scenario};
use quorate_tests::process::NodeProcess;

const NODE: &str = env!("CARGO_BIN_EXE_test-node");

/// Starts a process that must fail, and checks its words.
async fn fails(cluster: &Cluster, config: Config, words: &[&str]) -> Result<()> {
    process_fails(cluster.process(config)?, words).await
}

async fn process_fails(mut process: NodeProcess, words: &[&str]) -> Result<()> {
    process.start()?;
    let status = process.exited().await?;
    let stderr = process.stderr()?;
    ensure!(status.code() == Some(1), "it ended with {status}: {stderr}");
    let last = stderr.lines().last().unwrap_or_default();
    for word in words {
        ensure!(last.contains(word), "{word:?} is not in the error: {last}");
    }
    no_panic(&process)
}

async fn still_works(cluster: &Cluster) -> Result<()> {
    cluster
        .client()?
        .process("still-works")?
        .register("")
        .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_one_directory() -> Result<()> {
    scenario(Options::new(NODE, 1), async |cluster| {
        let mut config = cluster.new_config("second");
        config.node.data_dir = cluster.nodes[0].data_dir().to_owned();
        fails(
            cluster,
            config,
            &["in use by another process", "directory of its own"],
        )
        .await?;
        still_works(cluster).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use() -> Result<()> {
    scenario(Options::new(NODE, 1), async |cluster| {
        let listen = cluster.nodes[0].config().listen.clone();
        let mut config = cluster.new_config("same-client-port");
        config.listen.client = listen.client.clone();
        fails(
            cluster,
            config,
            &["cannot listen", &listen.client, "another process"],
        )
        .await?;
        let mut config = cluster.new_config("same-peer-port");
        config.listen.peer = listen.peer.clone();
        fails(
            cluster,
            config,
            &["cannot listen", &listen.peer, "another process"],
        )
        .await?;
        still_works(cluster).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_path_that_cannot_be_written() -> Result<()> {
    scenario(Options::new(NODE, 1), async |cluster| {
        let file = cluster.dir().join("a-file");
        fs::write(&file, "")?;
        let mut config = cluster.new_config("under-a-file");
        config.node.data_dir = file.join("data");
        fails(cluster, config, &["cannot create", "a-file/data"]).await?;
        // Nobody can make a directory there, not even a superuser.
        let mut config = cluster.new_config("in-proc");
        config.node.data_dir = "/proc/quorate-data".into();
        fails(cluster, config, &["cannot create", "/proc/quorate-data"]).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_something_else() -> Result<()> {
    scenario(Options::new(NODE, 1), async |cluster| {
        let config = cluster.new_config("foreign");
        fs::create_dir(&config.node.data_dir)?;
        let thesis = config.node.data_dir.join("thesis.txt");
        fs::write(&thesis, "years of work")?;
        fails(cluster, config, &["thesis.txt", "empty directory"]).await?;
        ensure!(
            fs::read_to_string(thesis)? == "years of work",
            "it was touched"
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_another_node() -> Result<()> {
    scenario(Options::new(NODE, 1), async |cluster| {
        cluster.nodes[0].terminate().await?;
        let mut config = cluster.new_config("another");
        config.node.data_dir = cluster.nodes[0].data_dir().to_owned();
        fails(
            cluster,
            config,
            &[
                "belongs to node 1 (n1)",
                "node.name is \"another\"",
                "own directory",
            ],
        )
        .await?;
        cluster.nodes[0].start()?;
        cluster.ready(0).await?;
        still_works(cluster).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_a_newer_format() -> Result<()> {
    scenario(Options::new(NODE, 1), async |cluster| {
        cluster.nodes[0].terminate().await?;
        let config = cluster.nodes[0].config().clone();
        let identity = config.node.data_dir.join("identity");
        let before = fs::read(&identity)?;
        let mut newer = before.clone();
        newer[0] = 200;
        fs::write(&identity, newer)?;
        let mut other = config.clone();
        other.node.name = "older-build".to_owned();
        fails(cluster, other, &["format version 200", "newer"]).await?;
        fs::write(&identity, before)?;
        cluster.nodes[0].start()?;
        cluster.ready(0).await?;
        still_works(cluster).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_whose_log_was_deleted() -> Result<()> {
    scenario(Options::new(NODE, 1), async |cluster| {
        still_works(cluster).await?;
        cluster.nodes[0].terminate().await?;
        let mut config = cluster.nodes[0].config().clone();
        config.node.name.clear();
        fs::remove_dir_all(config.node.data_dir.join("log"))?;
        let process = cluster.process_of("without-log", config)?;
        process_fails(process, &["damaged", "add it again"]).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_without_its_identity() -> Result<()> {
    scenario(Options::new(NODE, 1), async |cluster| {
        cluster.nodes[0].terminate().await?;
        let mut config = cluster.nodes[0].config().clone();
        config.node.name = "without-identity".to_owned();
        fs::remove_file(config.node.data_dir.join("identity"))?;
        fails(cluster, config, &["identity", "missing", "empty directory"]).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn options_out_of_bounds() -> Result<()> {
    scenario(Options::new(NODE, 1), async |cluster| {
        let mut config = cluster.new_config("hasty");
        config.raft.election_min_ms = config.raft.heartbeat_ms;
        fails(
            cluster,
            config,
            &["raft.election_min_ms", "twice", "actual 100"],
        )
        .await?;
        let mut process = cluster.process(cluster.new_config("typo"))?;
        fs::write(cluster.dir().join("typo.toml"), "[node]\nnmae = \"typo\"\n")?;
        process.start()?;
        let status = process.exited().await?;
        ensure!(status.code() == Some(1), "it ended with {status}");
        ensure!(
            process.stderr()?.contains("unknown field `nmae`"),
            "{}",
            process.stderr()?
        );
        no_panic(&process)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_member_does_not_come_back_by_itself() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let wiped = cluster.follower().await?;
        let id = cluster.status(wiped).await?.id;
        cluster.nodes[wiped].kill()?;
        fs::remove_dir_all(cluster.nodes[wiped].data_dir())?;
        cluster.nodes[wiped].start()?;
        let status = cluster.ready(wiped).await?;
        ensure!(status.role == "blank" && status.id == 0, "it is {status:?}");
        still_works(cluster).await?;
        // The leader goes on trying to reach it all the while; it votes and stores for nobody.
        let leader = cluster.leader().await?;
        cluster.admin()?.remove_member(id, false).await?;
        let status = cluster.status(wiped).await?;
        ensure!(
            status.role == "blank" && status.last_log == 0,
            "it is {status:?}"
        );
        ensure!(cluster.leader().await? == leader, "the leader changed");
        Ok(())
    })
    .await
}
