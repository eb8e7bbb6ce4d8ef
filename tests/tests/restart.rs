//! Every node is stopped with SIGTERM and started again, one after the other, while clients write.

use std::time::Duration;

use anyhow::{Result, ensure};
use quorate_tests::cluster::{Options, scenario};
use quorate_tests::load::Load;
use quorate_tests::oracle;
use quorate_tests::wait::RECOVERY_MAX;

const NODE: &str = env!("CARGO_BIN_EXE_test-node");

/// No operation of any writer may take longer, whichever node is away.
const DEADLINE: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_fails_no_operation() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let load = Load::start_within(&cluster.all_endpoints(), 16, DEADLINE).await?;
        for _ in 0..2 {
            for node in 0..cluster.nodes.len() {
                load.more(300, RECOVERY_MAX).await?;
                cluster.nodes[node].terminate().await?;
                load.more(200, RECOVERY_MAX).await?;
                cluster.nodes[node].start()?;
                cluster.caught_up(node).await?;
            }
        }
        oracle::check_unfailing(cluster, load).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_stopped_hands_over() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let leader = cluster.leader().await?;
        let term = cluster.status(leader).await?.term;
        cluster.nodes[leader].terminate().await?;
        let successor = cluster.leader().await?;
        ensure!(successor != leader, "the stopped node still leads");
        // One election, asked for: nobody had to wait for a timeout and try twice.
        let now = cluster.status(successor).await?.term;
        ensure!(now == term + 1, "term {term} became {now}");
        let stderr = cluster.nodes[leader].stderr()?;
        ensure!(
            stderr.contains("handed leadership over"),
            "the farewell is not in its log"
        );
        cluster.nodes[leader].start()?;
        cluster.caught_up(leader).await?;
        cluster.digests_agree().await
    })
    .await
}
