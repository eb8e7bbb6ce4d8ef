//! The leader is killed again and again while many clients write.

use anyhow::{Result, ensure};
use quorate_tests::cluster::{Options, scenario};
use quorate_tests::load::Load;
use quorate_tests::oracle;
use quorate_tests::wait::RECOVERY_MAX;

const NODE: &str = env!("CARGO_BIN_EXE_test-node");
const WRITERS: usize = 16;
const ROUNDS: u32 = 5;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_leaders_are_killed() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let load = Load::start(&cluster.all_endpoints(), WRITERS).await?;
        for _ in 0..ROUNDS {
            load.more(800, RECOVERY_MAX).await?;
            let leader = cluster.leader().await?;
            cluster.nodes[leader].kill()?;
            load.more(400, RECOVERY_MAX).await?;
            cluster.nodes[leader].start()?;
            cluster.caught_up(leader).await?;
        }
        let history = load.finish().await?;
        let gap = history.longest_gap();
        println!("leader killed {ROUNDS} times, the longest time without a write was {gap:?}");
        ensure!(gap < RECOVERY_MAX, "no write was acknowledged for {gap:?}");
        oracle::check(cluster, history).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_follower_costs_no_operation() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let load = Load::start(&cluster.all_endpoints(), WRITERS).await?;
        for _ in 0..ROUNDS {
            load.more(400, RECOVERY_MAX).await?;
            let follower = cluster.follower().await?;
            cluster.nodes[follower].kill()?;
            load.more(400, RECOVERY_MAX).await?;
            cluster.nodes[follower].start()?;
            cluster.caught_up(follower).await?;
        }
        oracle::check_unfailing(cluster, load).await
    })
    .await
}
