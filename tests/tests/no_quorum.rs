//! Two of three nodes are away: what can still be answered, and how the rest is refused.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use quorate_client::{Client, Consistency};
use quorate_rpc::identity::Parties;
use quorate_rpc::v1::peer_client::PeerClient;
use quorate_rpc::{NodeError, v1};
use quorate_statemachine::lease::{Claim, Claimed, SameOwner};
use quorate_statemachine::{Command, LeaseToken, Name, Owner};
use quorate_tests::cluster::{Cluster, Options, scenario};
use quorate_tests::raw::{self, Said};
use quorate_tests::wait::{PATIENCE, until};
use tokio::time::Instant;
use tonic::Request;

const NODE: &str = env!("CARGO_BIN_EXE_test-node");

fn claim(key: &str) -> Result<Claim> {
    Ok(Claim {
        key: Name::parse("key", key)?,
        owner: Owner::new(
            Name::parse("owner", "tester")?,
            Name::parse("owner", "boot")?,
        ),
        lease_token: LeaseToken::parse(format!("token-of-{key}"))?,
        ttl_ms: 60_000,
        same_owner: SameOwner::Busy,
        metadata: Vec::new(),
    })
}

async fn send(cluster: &Cluster, node: usize, key: &str, timeout_ms: u32) -> Result<Said<()>> {
    let channel = raw::connect(cluster.nodes[node].client_addr()).await?;
    raw::execute(channel, Command::from(claim(key)?).encode(), timeout_ms).await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_three_says_that_it_cannot_and_takes_nothing() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        cluster.client()?.execute(claim("before")?).await?;
        let survivor = cluster.follower().await?;
        cluster.caught_up(survivor).await?;
        for node in 0..cluster.nodes.len() {
            if node != survivor {
                cluster.nodes[node].kill()?;
            }
        }
        let address = cluster.nodes[survivor].client_addr().to_owned();
        let log_before = until("the survivor to notice", PATIENCE, async || {
            match send(cluster, survivor, "during", 2_000).await? {
                Said::Error(NodeError::Unavailable { retry_after_ms, .. }) => {
                    ensure!(retry_after_ms > 0, "it does not say when to try again");
                    Ok(Some(cluster.status(survivor).await?.last_log))
                }
                Said::Error(
                    NodeError::DeadlineExceeded { .. } | NodeError::OutcomeUnknown { .. },
                ) => Ok(None),
                other => bail!("one of three said {other:?}"),
            }
        })
        .await?;

        let client = Client::connect([address])?.with_timeout(Duration::from_millis(1_500));
        let started = Instant::now();
        let error = client
            .execute(claim("during")?)
            .await
            .expect_err("there is no quorum");
        ensure!(!error.may_have_happened(), "{error}");
        ensure!(error.code() == "unavailable", "{error}");
        ensure!(
            started.elapsed() < Duration::from_secs(10),
            "it took {:?}",
            started.elapsed()
        );
        let before = Name::parse("key", "before")?;
        let error = client
            .lease_get(&before)
            .await
            .expect_err("not linearizable");
        ensure!(error.code() == "unavailable", "{error}");
        let stale = client
            .clone()
            .with_consistency(Consistency::Stale { max_lag_ms: None });
        stale
            .lease_get(&before)
            .await?
            .context("a stale read has it")?;
        let bounded = Consistency::Stale {
            max_lag_ms: Some(1),
        };
        let error = client.with_consistency(bounded).lease_get(&before).await;
        let error = error.expect_err("no leader was heard for longer than 1 ms");
        ensure!(error.code() == "too_stale", "{error}");
        let status = cluster.status(survivor).await?;
        ensure!(
            status.last_log == log_before,
            "its log grew to {}",
            status.last_log
        );

        cluster.start_all()?;
        cluster
            .client()?
            .with_timeout(PATIENCE)
            .execute(claim("after")?)
            .await?;
        let during = Name::parse("key", "during")?;
        let during = cluster.client()?.lease_get(&during).await?;
        ensure!(
            during.is_none(),
            "it was refused and done all the same: {during:?}"
        );
        cluster.digests_agree().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn time_without_a_quorum_does_not_count_against_a_lease() -> Result<()> {
    const TTL: Duration = Duration::from_secs(4);
    scenario(Options::new(NODE, 3), async |cluster| {
        let client = cluster.client()?.with_timeout(PATIENCE);
        let held = client.lease("held").owner("holder").ttl(TTL).claim()?;
        let before = Instant::now();
        let Claimed::Granted(lease) = client.execute(held).await? else {
            bail!("nobody else wants it");
        };
        let leader = cluster.leader().await?;
        let others: Vec<usize> = cluster.running().filter(|node| *node != leader).collect();
        for node in &others {
            cluster.nodes[*node].kill()?;
        }
        // Each of these waits for a quorum until its deadline, or is refused for want of one.
        while before.elapsed() < TTL + TTL / 4 {
            let said = send(cluster, leader, "during", 250).await?;
            ensure!(matches!(said, Said::Error(_)), "it said {said:?}");
        }
        cluster.start_all()?;
        let other = client.lease("held").owner("another").ttl(TTL).claim()?;
        match client.execute(other).await? {
            Claimed::Busy(holder) => ensure!(
                holder.fencing_token == lease.fencing_token,
                "another grant: {holder:?}"
            ),
            Claimed::Granted(_) => bail!("{lease:?} ended early"),
        }
        cluster.digests_agree().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_passes_is_an_unknown_outcome_and_told_in_time() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let leader = cluster.leader().await?;
        let others: Vec<usize> = cluster.running().filter(|node| *node != leader).collect();
        for node in &others {
            cluster.nodes[*node].pause().await?;
        }
        // The leader has heard them a moment ago: it proposes, and nobody confirms.
        let started = Instant::now();
        let said = send(cluster, leader, "in-doubt", 200).await?;
        let took = started.elapsed();
        ensure!(
            took < Duration::from_secs(5),
            "an answer after {took:?} to a request of 200 ms"
        );
        match said {
            Said::Error(error) => ensure!(
                error.may_have_happened() || matches!(error, NodeError::Unavailable { .. }),
                "{error}"
            ),
            other => bail!("without a quorum it said {other:?}"),
        }
        for node in &others {
            cluster.nodes[*node].resume()?;
        }
        cluster.leader().await?;
        // The same command again gets its one grant, whether the first try was done or not.
        let client = cluster.client()?.with_timeout(PATIENCE);
        client.execute(claim("in-doubt")?).await?;
        let story = client
            .lease_history(&Name::parse("key", "in-doubt")?)
            .await?;
        ensure!(
            story.history.ended.is_empty() && story.live.is_some(),
            "{story:?}"
        );
        cluster.digests_agree().await
    })
    .await
}

/// Makes the leader hear of a later term, as from a candidate that leadership was handed to, and
/// of nothing else.
async fn depose(cluster: &Cluster, leader: usize, candidate: u64) -> Result<()> {
    let status = cluster.status(leader).await?;
    let vote = v1::VoteRequest {
        vote: Some(v1::Vote {
            term: status.term + 1,
            node_id: candidate,
            committed: false,
        }),
        last_log_id: Some(v1::LogId {
            term: status.term,
            index: status.last_log + 1_000,
        }),
        pre_vote: false,
        leader_transfer: true,
    };
    let mut request = Request::new(vote);
    let parties = Parties {
        cluster_id: status.cluster_id,
        from: candidate,
        to: status.id,
    };
    parties.write(request.metadata_mut());
    let channel = raw::connect(&cluster.nodes[leader].config().listen.peer).await?;
    let reply = PeerClient::new(channel).vote(request).await?.into_inner();
    ensure!(reply.granted, "{reply:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_leader_proposed_is_answered_though_nobody_tells_it_what_became_of_it() -> Result<()>
{
    scenario(Options::new(NODE, 3), async |cluster| {
        let leader = cluster.leader().await?;
        let others: Vec<usize> = cluster.running().filter(|node| *node != leader).collect();
        let candidate = cluster.status(others[0]).await?.id;
        let before = cluster.status(leader).await?.last_log;
        for node in &others {
            cluster.nodes[*node].pause().await?;
        }
        // The leader has heard them a moment ago: it proposes, and nobody confirms.
        let asked = send(cluster, leader, "stranded", 60_000);
        let deposed = async {
            until("it to be proposed", PATIENCE, async || {
                let status = cluster.status(leader).await?;
                let in_flight = status.load.is_some_and(|load| load.commands_in_flight > 0);
                Ok((in_flight && status.last_log > before).then_some(()))
            })
            .await?;
            depose(cluster, leader, candidate).await
        };
        let (said, ()) = tokio::try_join!(asked, deposed)?;
        match said {
            Said::Error(NodeError::OutcomeUnknown { message }) => {
                ensure!(message.contains("leadership was lost"), "{message}");
            }
            other => bail!("of what it cannot know it said {other:?}"),
        }
        for node in &others {
            cluster.nodes[*node].resume()?;
        }
        let client = cluster.client()?.with_timeout(PATIENCE);
        client.execute(claim("stranded")?).await?;
        cluster.digests_agree().await
    })
    .await
}
