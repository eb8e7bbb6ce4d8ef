//! All nodes are killed at once while many clients write, as when a room loses power to its
//! processes but not to its disks.

use anyhow::Result;
use quorate_tests::cluster::{Options, scenario};
use quorate_tests::load::Load;
use quorate_tests::oracle;
use quorate_tests::wait::RECOVERY_MAX;

const NODE: &str = env!("CARGO_BIN_EXE_test-node");
const WRITERS: usize = 16;
const ROUNDS: u32 = 4;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_all_nodes_are_killed() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let load = Load::start(&cluster.all_endpoints(), WRITERS).await?;
        for _ in 0..ROUNDS {
            load.more(800, RECOVERY_MAX).await?;
            cluster.kill_all()?;
            cluster.start_all()?;
            load.more(400, RECOVERY_MAX).await?;
        }
        let history = load.finish().await?;
        println!(
            "all killed {ROUNDS} times, longest gap {:?}",
            history.longest_gap()
        );
        oracle::check(cluster, history).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_and_purges_at_the_time_of_the_kill_lose_nothing() -> Result<()> {
    let options = Options::new(NODE, 3).configure(|config| {
        config.raft.snapshot_entries = 150;
        config.raft.keep_entries = 50;
    });
    scenario(options, async |cluster| {
        let load = Load::start(&cluster.all_endpoints(), WRITERS).await?;
        for _ in 0..ROUNDS {
            load.more(600, RECOVERY_MAX).await?;
            cluster.kill_all()?;
            cluster.start_all()?;
            load.more(300, RECOVERY_MAX).await?;
        }
        let history = load.finish().await?;
        oracle::check(cluster, history).await
    })
    .await
}
