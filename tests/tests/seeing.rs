//! What a cluster says of itself: its metrics move with what it does, and say what is wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use quorate_client::statemachine::lease::{Claimed, Renew};
use quorate_client::statemachine::queue::Outcome;
use quorate_client::statemachine::{Name, lock};
use quorate_client::{Client, QueueClient};
use quorate_tests::cluster::{Cluster, Options, scenario};
use quorate_tests::http::get;
use quorate_tests::process::free_port;
use quorate_tests::wait::{PATIENCE, until};

const NODE: &str = env!("CARGO_BIN_EXE_test-node");

fn with_http() -> Options {
    Options::new(NODE, 3).configure(|config| {
        config.listen.http = format!("127.0.0.1:{}", free_port());
    })
}

/// The samples of a node by name and labels.
struct Samples(BTreeMap<String, f64>);

impl Samples {
    async fn of(cluster: &Cluster, node: usize) -> Result<Self> {
        let (status, text) = get(&cluster.nodes[node].config().listen.http, "/metrics").await?;
        ensure!(status == 200, "{status}: {text}");
        ensure!(text.ends_with("# EOF\n"), "the text is not whole: {text}");
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let samples = lines.map(|line| {
            let (name, value) = line.rsplit_once(' ').context("a name and a value")?;
            Ok((name.to_owned(), value.parse()?))
        });
        Ok(Self(samples.collect::<Result<_>>()?))
    }

    /// A sample; 0 if nothing was counted yet.
    fn get(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or(0.0)
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

const GRANTED: &str = "quorate_lease_granted_total{kind=\"lease\"}";
const RELEASED: &str = "quorate_lease_ended_total{kind=\"lease\",reason=\"released\"}";
const EXPIRED: &str = "quorate_lease_ended_total{kind=\"lease\",reason=\"expired\"}";

#[tokio::test(flavor = "multi_thread")]
async fn metrics_move_with_what_the_cluster_does() -> Result<()> {
    scenario(with_http(), async |cluster| {
        let leader = cluster.leader().await?;
        let follower = cluster.follower().await?;
        let before = Samples::of(cluster, leader).await?;
        let client = cluster.client()?;
        for key in ["one", "two", "three"] {
            let lease = client.lease(format!("secret/{key}")).owner("tester");
            let claimed = lease.try_claim().await?;
            let guard = claimed.granted().context("nobody else has it")?;
            guard.release().await?;
        }
        let short = client.lease("secret/short").owner("tester");
        let claim = short.ttl(Duration::from_millis(50)).claim()?;
        client.execute(claim).await?;
        cluster.caught_up(follower).await?;
        for node in [leader, follower] {
            let expired = async || {
                let samples = Samples::of(cluster, node).await?;
                Ok((samples.get(EXPIRED) >= 1.0).then_some(samples))
            };
            let samples = until("the lease to be counted out", PATIENCE, expired).await?;
            ensure!(samples.get(GRANTED) == 4.0, "{}", samples.get(GRANTED));
            ensure!(samples.get(RELEASED) == 3.0, "{}", samples.get(RELEASED));
            ensure!(
                samples.get("quorate_leases{kind=\"lease\"}") == 0.0,
                "all have ended"
            );
            ensure!(samples.get("quorate_raft_voters") == 3.0, "three vote");
            ensure!(samples.get("quorate_server_has_leader") == 1.0, "it is led");
            ensure!(samples.get("quorate_server_healthy") == 1.0, "it is well");
            let leads = f64::from(u8::from(node == leader));
            ensure!(samples.get("quorate_server_is_leader") == leads, "{node}");
            let named = samples.0.keys().find(|name| name.contains("secret"));
            ensure!(named.is_none(), "a key is a label: {named:?}");
            for positive in [
                "quorate_disk_free_bytes",
                "quorate_store_size_bytes{store=\"log\"}",
                "quorate_wal_fsync_duration_seconds_count",
                "quorate_apply_duration_seconds_count{command=\"lease.claim\"}",
                "process_resident_memory_bytes",
                "process_open_fds",
                "tokio_alive_tasks",
            ] {
                ensure!(samples.get(positive) > 0.0, "{positive} is 0");
            }
        }
        let after = Samples::of(cluster, leader).await?;
        let grown = |name: &str| after.get(name) - before.get(name);
        ensure!(
            grown("quorate_raft_proposals_applied_total") >= 7.0,
            "7 commands"
        );
        let answered = "quorate_rpc_server_duration_seconds_count{method=\"execute\",code=\"ok\"}";
        ensure!(grown(answered) >= 1.0, "{}", grown(answered));
        let peers = after.0.keys();
        let peers = peers.filter(|name| name.starts_with("quorate_raft_replication_lag_entries"));
        ensure!(peers.count() == 2, "the leader has two peers");
        Ok(())
    })
    .await
}

/// Longer than the scenario: nothing ends or is renewed by itself.
const LONG: Duration = Duration::from_secs(3_600);

/// Waits until these samples of a node are what they should be.
async fn shows(cluster: &Cluster, node: usize, wanted: &[(&str, f64)]) -> Result<Samples> {
    until("the samples to be right", PATIENCE, async || {
        let samples = Samples::of(cluster, node).await?;
        for (name, value) in wanted {
            let actual = samples.get(name);
            ensure!(actual == *value, "{name} is {actual}, not {value}");
        }
        Ok(Some(samples))
    })
    .await
}

/// A lock that is waited for and handed on, and a lease that is renewed.
async fn hold(cluster: &Cluster, node: usize, client: &Client) -> Result<()> {
    let lock = |who: &str| client.lock("secret/lock").owner(who).ttl(LONG);
    let first = lock("first").acquire().await?;
    let second = lock("second");
    let waiting = tokio::spawn(async move { second.acquire().await });
    let held = "quorate_leases{kind=\"lock\"}";
    shows(cluster, node, &[(held, 1.0), ("quorate_lock_waiters", 1.0)]).await?;
    let renew = lock::Renew {
        key: Name::parse("key", "secret/lock")?,
        id: first.hold().id,
        ttl_ms: None,
    };
    client.execute(renew).await?;
    first.release().await?;
    let second = waiting.await??;
    shows(cluster, node, &[(held, 1.0), ("quorate_lock_waiters", 0.0)]).await?;
    second.release().await?;
    let lease = client.lease("secret/lease").owner("tester");
    let claim = lease.ttl(LONG).claim()?;
    let Claimed::Granted(lease) = client.execute(claim).await? else {
        anyhow::bail!("nobody else has it");
    };
    let renew = Renew {
        key: lease.key,
        lease_token: lease.lease_token,
        fencing_token: lease.fencing_token,
        ttl_ms: lease.ttl_ms,
    };
    client.execute(renew).await?;
    Ok(())
}

async fn push(queue: &QueueClient, delay: Duration) -> Result<()> {
    queue.push("secret").delay(delay).send().await?;
    Ok(())
}

/// One item each that is dead, delayed, claimed and ready; the claimed one was claimed before by
/// somebody whose time ran out.
async fn fill(cluster: &Cluster, node: usize, client: &Client) -> Result<()> {
    let queue = client.queue("secret/queue")?.with_visibility(LONG);
    let now = Duration::ZERO;
    push(&queue, now).await?;
    for item in queue.claim(1).await? {
        let (id, claim) = (item.item.item_id, item.item.claim.context("it has one")?);
        let note = String::new();
        let dead = Outcome::Dead { note };
        queue.renew(id, claim.fencing_token).await?;
        queue.settle(id, claim.fencing_token, dead).await?;
    }
    push(&queue, now).await?;
    let short = queue.clone().with_visibility(Duration::from_millis(50));
    ensure!(short.claim(1).await?.len() == 1, "it can be claimed");
    let back = [
        ("quorate_queue_ready", 1.0),
        ("quorate_claim_reclaimed_total", 1.0),
    ];
    shows(cluster, node, &back).await?;
    ensure!(queue.claim(1).await?.len() == 1, "it can be claimed again");
    push(&queue, now).await?;
    push(&queue, LONG).await
}

/// What every node shows after [`hold`], [`fill`] and an event that was appended twice.
const SHOWN: &[(&str, f64)] = &[
    ("quorate_leases{kind=\"lease\"}", 1.0),
    ("quorate_leases{kind=\"lock\"}", 0.0),
    ("quorate_leases{kind=\"claim\"}", 1.0),
    ("quorate_queue_ready", 1.0),
    ("quorate_queue_claimed", 1.0),
    ("quorate_queue_delayed", 1.0),
    ("quorate_queue_dead", 1.0),
    ("quorate_lease_granted_total{kind=\"lock\"}", 2.0),
    ("quorate_lease_granted_total{kind=\"claim\"}", 3.0),
    ("quorate_lease_renewed_total{kind=\"lease\"}", 1.0),
    ("quorate_lease_renewed_total{kind=\"lock\"}", 1.0),
    ("quorate_lease_renewed_total{kind=\"claim\"}", 1.0),
    (
        "quorate_lease_renew_headroom_seconds_count{kind=\"lease\"}",
        1.0,
    ),
    ("quorate_lock_wait_seconds_count", 2.0),
    (
        "quorate_lease_ended_total{kind=\"claim\",reason=\"expired\"}",
        1.0,
    ),
    (
        "quorate_lease_ended_total{kind=\"claim\",reason=\"dead\"}",
        1.0,
    ),
    ("quorate_events_appended_total{deduped=\"false\"}", 1.0),
    ("quorate_events_appended_total{deduped=\"true\"}", 1.0),
    ("quorate_quota_used_ratio{quota=\"queues\"}", 1e-5),
    ("quorate_quota_used_ratio{quota=\"leases\"}", 1e-7),
];

#[tokio::test(flavor = "multi_thread")]
async fn metrics_tell_what_is_held_waited_for_and_queued() -> Result<()> {
    scenario(with_http(), async |cluster| {
        let leader = cluster.leader().await?;
        let client = cluster.client()?;
        hold(cluster, leader, &client).await?;
        fill(cluster, leader, &client).await?;
        let process = client.process("secret/process")?;
        process.register("").await?;
        let (kind, once) = (Name::parse("type", "tick")?, Name::parse("key", "once")?);
        for _ in 0..2 {
            process.append(&kind, Some(&once), "").await?;
        }
        for node in 0..cluster.nodes.len() {
            cluster.caught_up(node).await?;
            let samples = shows(cluster, node, SHOWN).await?;
            let named = samples.0.keys().find(|name| name.contains("secret"));
            ensure!(named.is_none(), "a name is a label: {named:?}");
            let busy = samples.get("tokio_workers_busy_seconds_total");
            ensure!(busy > 0.0, "its workers have worked");
        }
        until("an age and what peers tell", PATIENCE, async || {
            let samples = Samples::of(cluster, leader).await?;
            let age = samples.get("quorate_queue_oldest_age_seconds");
            ensure!(age > 0.0, "one item is ready");
            for node in (0..cluster.nodes.len()).filter(|node| *node != leader) {
                let id = cluster.status(node).await?.id;
                let of = |name: &str| format!("{name}{{peer=\"{id}\"}}");
                let heard = of("quorate_raft_heartbeat_rtt_seconds_count");
                ensure!(samples.get(&heard) > 0.0, "{heard} is 0");
                let skew = of("quorate_peer_clock_skew_seconds");
                ensure!(samples.has(&skew), "no {skew}");
                // All have the clock of this machine, and no answer takes a second.
                ensure!(samples.get(&skew).abs() < 1.0, "{}", samples.get(&skew));
            }
            Ok(Some(()))
        })
        .await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_quorum_lives_and_says_so_in_metrics_and_readiness() -> Result<()> {
    scenario(with_http(), async |cluster| {
        let survivor = cluster.follower().await?;
        let address = cluster.nodes[survivor].config().listen.http.clone();
        for node in 0..cluster.nodes.len() {
            if node != survivor {
                cluster.nodes[node].kill()?;
            }
        }
        until("the survivor to miss its leader", PATIENCE, async || {
            let samples = Samples::of(cluster, survivor).await?;
            ensure!(samples.has("quorate_server_has_leader"), "no such metric");
            Ok((samples.get("quorate_server_has_leader") == 0.0).then_some(()))
        })
        .await?;
        let (status, body) = get(&address, "/readyz").await?;
        ensure!(
            status == 503 && body.starts_with("[-] leader: no leader"),
            "{body}"
        );
        let (status, body) = get(&address, "/readyz?verbose&exclude=leader").await?;
        ensure!(
            status == 200 && !body.contains("leader"),
            "{status}: {body}"
        );
        ensure!(get(&address, "/livez").await?.0 == 200, "it lives");
        Ok(())
    })
    .await
}
