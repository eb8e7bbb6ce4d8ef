//! Nodes that stand still (SIGSTOP) for longer than an election takes, and come back believing
//! that no time has passed.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use quorate_client::{ClaimOutcome, Client, LeaseState};
use quorate_statemachine::Name;
use quorate_tests::cluster::{Cluster, Options, scenario};
use quorate_tests::load::Load;
use quorate_tests::oracle;
use quorate_tests::wait::{PATIENCE, RECOVERY_MAX, until};

const NODE: &str = env!("CARGO_BIN_EXE_test-node");

/// Waits until a node other than `old` leads.
async fn another_leader(cluster: &Cluster, old: usize) -> Result<usize> {
    until("another leader", PATIENCE, async || {
        let others = cluster.running().filter(|node| *node != old);
        for node in others {
            let status = cluster.status(node).await;
            if status.is_ok_and(|status| status.role == "leader") {
                return Ok(Some(node));
            }
        }
        Ok(None)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_that_pause_under_load_lose_and_double_nothing() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let load = Load::start(&cluster.all_endpoints(), 16).await?;
        for _ in 0..3 {
            load.more(400, RECOVERY_MAX).await?;
            let leader = cluster.leader().await?;
            cluster.nodes[leader].pause().await?;
            another_leader(cluster, leader).await?;
            load.more(400, PATIENCE).await?;
            cluster.nodes[leader].resume()?;
            cluster.caught_up(leader).await?;
        }
        let history = load.finish().await?;
        println!(
            "leader paused 3 times, longest gap {:?}",
            history.longest_gap()
        );
        oracle::check(cluster, history).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_back_from_a_pause_serves_no_old_state() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let old = cluster.leader().await?;
        let register = cluster.client()?.process("register")?;
        register.register("").await?;
        let event_type = Name::parse("event_type", "written")?;
        register.append(&event_type, None, "before").await?;

        cluster.nodes[old].pause().await?;
        let new = another_leader(cluster, old).await?;
        let through_new = Client::connect([cluster.nodes[new].client_addr()])?;
        let through_new = through_new.with_timeout(PATIENCE).process("register")?;
        let written = through_new
            .append(&event_type, None, "after")
            .await?
            .sequence;

        // Connected before it wakes up, so that the question is there when it does.
        let through_old = Client::connect([cluster.nodes[old].client_addr()])?;
        let through_old = through_old.with_timeout(PATIENCE);
        let reading = tokio::spawn(async move {
            let register = through_old.process("register")?;
            register.get().await
        });
        cluster.nodes[old].resume()?;
        let process = reading.await??.context("the process is gone")?.process;
        ensure!(
            process.last_sequence == written,
            "it said {process:?}, {written} was written"
        );
        cluster.caught_up(old).await?;
        cluster.digests_agree().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_was_told_of_the_paused_node_alone_finds_the_others() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let old = cluster.leader().await?;
        let client = Client::connect([cluster.nodes[old].client_addr()])?;
        // The half of it, which is what a node that never answers may use, is longer than the test.
        let register = client.with_timeout(2 * PATIENCE).process("register")?;
        register.register("").await?;
        cluster.nodes[old].pause().await?;
        let event_type = Name::parse("event_type", "written")?;
        let writing = register.append(&event_type, None, "while it is paused");
        let written = tokio::time::timeout(PATIENCE, writing);
        let written = written.await.context("it waits for the paused node")??;
        ensure!(written.sequence == 1, "{written:?}");
        cluster.nodes[old].resume()?;
        cluster.caught_up(old).await?;
        cluster.digests_agree().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_renewed_outlives_the_pause_of_its_leader() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let client = cluster.client()?;
        let lease = client
            .lease("steady")
            .owner("holder")
            .ttl(Duration::from_secs(10));
        let ClaimOutcome::Granted(guard) = lease.try_claim().await? else {
            anyhow::bail!("nobody else wants it");
        };
        for _ in 0..2 {
            let leader = cluster.leader().await?;
            cluster.nodes[leader].pause().await?;
            another_leader(cluster, leader).await?;
            cluster.nodes[leader].resume()?;
            cluster.caught_up(leader).await?;
        }
        let before = client
            .lease_get(guard.key())
            .await?
            .context("the lease is gone")?;
        until("a renewal under the new leader", PATIENCE, async || {
            let lease = client
                .lease_get(guard.key())
                .await?
                .context("the lease is gone")?;
            Ok((lease.renewals > before.renewals).then_some(()))
        })
        .await?;
        ensure!(
            before.fencing_token == guard.token(),
            "it is another grant now: {before:?}"
        );
        ensure!(
            !matches!(guard.state(), LeaseState::Lost(_)),
            "the guard says {:?}",
            guard.state()
        );
        guard.release().await?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_whose_lease_ran_out_is_fenced() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let client = cluster.client()?;
        let holder = client
            .lease("resource")
            .owner("first")
            .ttl(Duration::from_secs(30));
        let ClaimOutcome::Granted(first) = holder.try_claim().await? else {
            anyhow::bail!("nobody else wants it");
        };
        let stale = first.precondition();
        client
            .lease_revoke(first.key(), Some(first.token()), "an operator")
            .await?;
        let other = client
            .lease("resource")
            .owner("second")
            .ttl(Duration::from_secs(30));
        let ClaimOutcome::Granted(second) = other.try_claim().await? else {
            anyhow::bail!("it was free");
        };
        let push = quorate_statemachine::queue::Push {
            queue: Name::parse("queue", "guarded")?,
            payload: Vec::new(),
            dedupe_key: None,
            delay_ms: 0,
            priority: 0,
            max_attempts: 0,
        };
        let leader = cluster.leader().await?;
        cluster.nodes[leader].kill()?;
        let refused = client.execute_under(push.clone(), vec![stale]).await;
        let refused = refused.expect_err("the first holder is out");
        ensure!(refused.code() == "fenced", "{refused}");
        ensure!(
            refused.to_string().contains(&second.token().to_string()),
            "{refused}"
        );
        client
            .execute_under(push, vec![second.precondition()])
            .await?;
        cluster.nodes[leader].start()?;
        cluster.caught_up(leader).await?;
        cluster.digests_agree().await
    })
    .await
}
