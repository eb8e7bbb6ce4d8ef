//! Members come in, are replaced, and move, by the commands that an operator gives.

use std::fs;
use std::process::Output;

use anyhow::{Context, Result, ensure};
use quorate_client::admin::Member;
use quorate_node::Config;
use quorate_tests::cluster::{Cluster, Options, scenario};
use quorate_tests::load::Load;
use quorate_tests::process::free_port;
use quorate_tests::wait::{PATIENCE, RECOVERY_MAX, until};
use quorate_tests::{oracle, program};

const NODE: &str = env!("CARGO_BIN_EXE_test-node");

/// `quorate member …` against the nodes that run.
async fn member(cluster: &Cluster, args: &[&str]) -> Result<Output> {
    let program = program::quorate(NODE);
    let endpoints = cluster.endpoints().join(",");
    let args = [&["member"], args, &["--timeout", "60s"]].concat();
    program::run(program, &endpoints, &args).await
}

/// What it printed and what it said beside that, if it ended well.
async fn done(cluster: &Cluster, args: &[&str]) -> Result<(String, String)> {
    let output = member(cluster, args).await?;
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok((program::printed(&output)?, words))
}

/// Why it was refused as unsafe.
async fn refused(cluster: &Cluster, args: &[&str]) -> Result<String> {
    let output = member(cluster, args).await?;
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        output.status.code() == Some(5),
        "{args:?}: {}, {words}",
        output.status
    );
    Ok(words)
}

/// `verb` with the name and the addresses of the node at `node`.
fn incoming<'a>(cluster: &'a Cluster, verb: &[&'a str], node: usize) -> Vec<&'a str> {
    let config = cluster.nodes[node].config();
    let own = [
        &*config.node.name,
        "--peer",
        &*config.listen.peer,
        "--client",
        &*config.listen.client,
    ];
    [verb, &own].concat()
}

/// A blank node that runs.
async fn blank(cluster: &mut Cluster) -> Result<usize> {
    let node = cluster.prepare_node()?;
    cluster.nodes[node].start()?;
    cluster.ready(node).await?;
    Ok(node)
}

async fn id_of(cluster: &Cluster, node: usize) -> Result<u64> {
    Ok(cluster.status(node).await?.id)
}

async fn members(cluster: &Cluster) -> Result<Vec<Member>> {
    Ok(cluster.admin()?.members(false).await?.members)
}

async fn voters(cluster: &Cluster) -> Result<Vec<u64>> {
    let members = members(cluster).await?.into_iter();
    Ok(members.filter(|one| one.voter).map(|one| one.id).collect())
}

async fn becomes_voter(cluster: &Cluster, node: usize) -> Result<()> {
    let id = id_of(cluster, node).await?;
    until("the learner to become a voter", PATIENCE, async || {
        Ok(voters(cluster).await?.contains(&id).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_comes_in_as_a_learner_and_votes_once_it_has_caught_up() -> Result<()> {
    scenario(Options::new(NODE, 1), async |cluster| {
        let (stays, votes) = (blank(cluster).await?, blank(cluster).await?);
        let add = incoming(cluster, &["add"], stays);
        let (plan, _) = done(cluster, &[&*add, &["--dry-run"]].concat()).await?;
        for line in [
            "comes in as a learner",
            "before: voters 1 (quorum 1 of 1)",
            "during: 1 of 1, and 2 of 1, the new one",
            "after: voters 1, the new one (quorum 2 of 2)",
        ] {
            ensure!(plan.contains(line), "no {line:?} in {plan}");
        }
        ensure!(members(cluster).await?.len() == 1, "a dry run added it");

        done(cluster, &[&*add, &["--learner"]].concat()).await?;
        let (_, words) = done(cluster, &incoming(cluster, &["add"], votes)).await?;
        ensure!(words.contains("is a learner"), "{words}");
        let learner = id_of(cluster, stays).await?;
        ensure!(
            voters(cluster).await? == [1, id_of(cluster, votes).await?],
            "the learner did not stay one"
        );
        let id = learner.to_string();
        let words = refused(cluster, &["transfer-leader", &id]).await?;
        ensure!(words.contains("promote it first"), "{words}");
        until("the promotion", PATIENCE, async || {
            Ok(Some(done(cluster, &["promote", &id]).await?))
        })
        .await?;
        ensure!(voters(cluster).await?.len() == 3, "it was not promoted");
        cluster.digests_agree().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_that_does_not_keep_up_gets_no_vote() -> Result<()> {
    scenario(Options::new(NODE, 1), async |cluster| {
        let load = Load::start(&cluster.all_endpoints(), 16).await?;
        let node = blank(cluster).await?;
        let add = incoming(cluster, &["add"], node);
        done(cluster, &[&*add, &["--learner"]].concat()).await?;
        let id = id_of(cluster, node).await?.to_string();
        cluster.caught_up(node).await?;
        cluster.nodes[node].pause().await?;
        load.more(1_500, RECOVERY_MAX).await?;
        let words = refused(cluster, &["promote", &id]).await?;
        ensure!(
            words.contains("entries behind, a new voter may be 1000"),
            "{words}"
        );
        // The same command again says what is to become of it.
        done(cluster, &[&*add, &["--no-wait"]].concat()).await?;
        let all = cluster.admin()?.at(cluster.nodes[0].client_addr());
        let all = all.members(false).await?.members;
        let learner = all.iter().find(|one| !one.voter).context("a learner")?;
        ensure!(
            learner.goal == "vote" && learner.lag.is_some_and(|lag| lag > 1_000),
            "{learner:?}"
        );
        cluster.nodes[node].resume()?;
        becomes_voter(cluster, node).await?;
        oracle::check_unfailing(cluster, load).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_leads_does_what_another_leader_was_asked_for() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let node = blank(cluster).await?;
        let add = incoming(cluster, &["add"], node);
        done(cluster, &[&*add, &["--no-wait"]].concat()).await?;
        let leader = cluster.leader().await?;
        cluster.nodes[leader].kill()?;
        becomes_voter(cluster, node).await?;
        cluster.nodes[leader].start()?;
        cluster.caught_up(leader).await?;
        ensure!(voters(cluster).await?.len() == 4, "a voter is missing");
        cluster.digests_agree().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_member_is_replaced_in_one_step() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let new = cluster.prepare_node()?;
        let load = Load::start(&cluster.all_endpoints(), 8).await?;
        load.more(300, RECOVERY_MAX).await?;
        let dead = cluster.follower().await?;
        let old = id_of(cluster, dead).await?;
        cluster.nodes[dead].kill()?;
        cluster.nodes[new].start()?;
        cluster.ready(new).await?;
        let id = old.to_string();
        let replace = incoming(cluster, &["replace", &id], new);
        let (plan, _) = done(cluster, &[&*replace, &["--dry-run"]].concat()).await?;
        ensure!(
            plan.contains(&format!(
                "voter {old} leaves the cluster in the same change"
            )),
            "{plan}"
        );
        done(cluster, &[&*replace, &["--yes"]].concat()).await?;
        let all = members(cluster).await?;
        ensure!(
            all.len() == 3 && all.iter().all(|one| one.voter && one.id != old),
            "{all:?}"
        );
        load.more(300, RECOVERY_MAX).await?;
        oracle::check_unfailing(cluster, load).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_can_be_replaced() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let new = blank(cluster).await?;
        let load = Load::start(&cluster.all_endpoints(), 8).await?;
        load.more(300, RECOVERY_MAX).await?;
        let leader = cluster.leader().await?;
        let old = id_of(cluster, leader).await?;
        let id = old.to_string();
        let replace = incoming(cluster, &["replace", &id], new);
        done(cluster, &[&*replace, &["--yes"]].concat()).await?;
        let all = members(cluster).await?;
        ensure!(
            all.len() == 3 && all.iter().all(|one| one.voter && one.id != old),
            "{all:?}"
        );
        load.more(300, RECOVERY_MAX).await?;
        cluster.nodes[leader].terminate().await?;
        load.more(300, RECOVERY_MAX).await?;
        oracle::check_unfailing(cluster, load).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_member_comes_back_in_its_place_under_a_new_id() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let wiped = cluster.follower().await?;
        let old = id_of(cluster, wiped).await?;
        cluster.nodes[wiped].kill()?;
        fs::remove_dir_all(cluster.nodes[wiped].data_dir())?;
        cluster.nodes[wiped].start()?;
        cluster.ready(wiped).await?;
        // It does not get its old vote back, which it may have given for something it lost.
        let words = refused(cluster, &incoming(cluster, &["add"], wiped)).await?;
        let id = old.to_string();
        let advice = format!("quorate member replace {id}");
        ensure!(
            words.contains("has lost its data") && words.contains(&advice),
            "{words}"
        );
        ensure!(id_of(cluster, wiped).await? == 0, "it has an id again");
        let replace = incoming(cluster, &["replace", &id], wiped);
        done(cluster, &[&*replace, &["--yes"]].concat()).await?;
        let new = id_of(cluster, wiped).await?;
        ensure!(new > 3, "id {new} was used before");
        let voters = voters(cluster).await?;
        ensure!(
            voters.len() == 3 && voters.contains(&new) && !voters.contains(&old),
            "{voters:?}"
        );
        cluster.caught_up(wiped).await?;
        cluster.digests_agree().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_voter_can_be_replaced() -> Result<()> {
    scenario(Options::new(NODE, 1), async |cluster| {
        let new = blank(cluster).await?;
        let load = Load::start(&cluster.all_endpoints(), 4).await?;
        load.more(200, RECOVERY_MAX).await?;
        let old = id_of(cluster, 0).await?;
        let id = old.to_string();
        let replace = incoming(cluster, &["replace", &id], new);
        done(cluster, &[&*replace, &["--yes"]].concat()).await?;
        let all = members(cluster).await?;
        ensure!(
            all.len() == 1 && all[0].voter && all[0].id != old,
            "{all:?}"
        );
        load.more(200, RECOVERY_MAX).await?;
        cluster.nodes[0].terminate().await?;
        load.more(200, RECOVERY_MAX).await?;
        oracle::check_unfailing(cluster, load).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_goes_to_nobody_who_cannot_take_it() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let leader = cluster.leader().await?;
        let follower = cluster.follower().await?;
        let term = cluster.status(leader).await?.term;
        let dead = id_of(cluster, follower).await?;
        cluster.nodes[follower].kill()?;
        let admin = cluster.admin()?;
        until("it to be given up", PATIENCE, async || {
            let refused = admin.transfer_leader(Some(dead), true).await.err();
            Ok(refused.filter(|error| error.code() == "unsafe"))
        })
        .await?;
        let refused = admin.transfer_leader(Some(dead), false).await;
        let words = refused.expect_err("it is dead").to_string();
        ensure!(words.contains("has not answered"), "{words}");
        let status = cluster.status(leader).await?;
        ensure!(status.role == "leader" && status.term == term, "{status:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_without_a_quorum_is_refused() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let new = blank(cluster).await?;
        let nobody = incoming(cluster, &["replace", "9"], new);
        let output = member(cluster, &[&*nobody, &["--yes"]].concat()).await?;
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(
            output.status.code() == Some(3) && words.contains("no member 9"),
            "{words}"
        );

        let leader = cluster.leader().await?;
        let follower = cluster.follower().await?;
        let dead: Vec<usize> = (0..3).filter(|node| *node != leader).collect();
        let old = id_of(cluster, follower).await?.to_string();
        // Both followers are silent, and the leader does not know yet or any more that it leads:
        // either way nothing is added.
        for node in &dead {
            cluster.nodes[*node].pause().await?;
        }
        let replace = incoming(cluster, &["replace", &old], new);
        let args = [&["member"], &*replace, &["--yes", "--timeout", "5s"]].concat();
        let at = cluster.nodes[leader].client_addr();
        let output = program::run(program::quorate(NODE), at, &args).await?;
        ensure!(!output.status.success(), "{output:?}");
        for node in &dead {
            cluster.nodes[*node].resume()?;
        }
        cluster.leader().await?;
        ensure!(members(cluster).await?.len() == 3, "there is a new member");
        // It belongs to no cluster and has no digest.
        cluster.nodes[new].kill()?;
        cluster.digests_agree().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_change_while_voters_stay() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let follower = cluster.follower().await?;
        let id = id_of(cluster, follower).await?;
        let text = id.to_string();
        let leader = cluster.leader().await?;
        let term = cluster.status(leader).await?.term;
        let taken = cluster.nodes[leader].config().listen.peer.clone();
        let words = refused(cluster, &["update", &text, "--peer", &taken]).await?;
        ensure!(words.contains("addresses of its own"), "{words}");
        let http = format!("127.0.0.1:{}", free_port());
        let update = ["update", &text, "--http", &http];
        let (plan, _) = done(cluster, &[&update[..], &["--dry-run"]].concat()).await?;
        ensure!(plan.contains("(quorum 2 of 3), as before"), "{plan}");
        let http_of = async |cluster: &Cluster| {
            let all = members(cluster).await?;
            let own = all.into_iter().find(|one| one.id == id);
            own.map(|one| one.http_addr).context("it is gone")
        };
        ensure!(http_of(cluster).await? != http, "a dry run changed it");
        done(cluster, &update).await?;
        ensure!(http_of(cluster).await? == http, "it was not changed");
        ensure!(voters(cluster).await?.len() == 3, "the voters are others");
        let now = cluster.status(cluster.leader().await?).await?.term;
        ensure!(now == term, "term {term} became {now}");
        Ok(())
    })
    .await
}

/// Stops the node and starts it with the same data on other ports.
async fn move_node(cluster: &mut Cluster, node: usize) -> Result<()> {
    let id = id_of(cluster, node).await?;
    let moved = |config: &mut Config| {
        config.listen.client = format!("127.0.0.1:{}", free_port());
        config.listen.peer = format!("127.0.0.1:{}", free_port());
    };
    cluster.restart(node, moved).await?;
    let peer_addr = cluster.nodes[node].config().listen.peer.clone();
    until("the new address to be known", PATIENCE, async || {
        let all = members(cluster).await?;
        let own = all.iter().find(|one| one.id == id).context("a member")?;
        Ok((own.peer_addr == peer_addr).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_moves_to_new_addresses_node_by_node() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        // Its clients know the first addresses only, of which none is left at the end.
        let load = Load::start(&cluster.all_endpoints(), 8).await?;
        for node in 0..3 {
            load.more(300, RECOVERY_MAX).await?;
            move_node(cluster, node).await?;
        }
        load.more(300, RECOVERY_MAX).await?;
        oracle::check_unfailing(cluster, load).await
    })
    .await
}
