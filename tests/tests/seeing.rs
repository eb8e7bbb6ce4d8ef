//! What a cluster says of itself: its metrics move with what it does, and say what is wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
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
            ensure!(samples.get("quorate_leases") == 0.0, "all have ended");
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
