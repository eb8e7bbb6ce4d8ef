//! What probes are told: over a real socket, with and without a cluster and a quorum.

use anyhow::{Result, ensure};
use quorate_tests::cluster::{Cluster, Options, no_panic, scenario};
use quorate_tests::http::get;
use quorate_tests::process::free_port;
use quorate_tests::wait::{PATIENCE, until};

const NODE: &str = env!("CARGO_BIN_EXE_test-node");

fn with_http() -> Options {
    Options::new(NODE, 3).configure(|config| {
        config.listen.http = format!("127.0.0.1:{}", free_port());
    })
}

fn http(cluster: &Cluster, node: usize) -> &str {
    &cluster.nodes[node].config().listen.http
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_lives_and_is_ready_until_there_is_no_leader() -> Result<()> {
    scenario(with_http(), async |cluster| {
        let survivor = cluster.follower().await?;
        let address = http(cluster, survivor).to_owned();
        until("the follower to be ready", PATIENCE, async || {
            Ok((get(&address, "/readyz").await? == (200, "ok\n".to_owned())).then_some(()))
        })
        .await?;
        let (status, body) = get(&address, "/readyz?verbose").await?;
        ensure!(status == 200, "{status}: {body}");
        for check in ["store", "member", "leader", "applied"] {
            ensure!(
                body.contains(&format!("[+] {check} ok\n")),
                "{check}: {body}"
            );
        }
        let (status, body) = get(&address, "/version").await?;
        ensure!(
            status == 200 && body.contains("\"version\":\""),
            "{status}: {body}"
        );
        ensure!(
            get(&address, "/nothing").await?.0 == 404,
            "a path that is none"
        );
        // Where it is asked is known to the others.
        let members = cluster.admin()?.members(false).await?.members;
        ensure!(
            members.iter().any(|member| member.http_addr == address),
            "{members:?}"
        );

        for node in 0..cluster.nodes.len() {
            if node != survivor {
                cluster.nodes[node].kill()?;
            }
        }
        until("the survivor to miss its leader", PATIENCE, async || {
            let (status, body) = get(&address, "/readyz").await?;
            let named = body.starts_with("[-] leader: no leader") && body.contains("limit ");
            Ok((status == 503 && named).then_some(()))
        })
        .await?;
        let living = get(&address, "/livez").await?;
        ensure!(living == (200, "ok\n".to_owned()), "{living:?}");
        cluster.start_all()?;
        cluster.caught_up(survivor).await?;
        cluster.digests_agree().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blank_node_lives_and_is_not_ready() -> Result<()> {
    scenario(Options::new(NODE, 1), async |cluster| {
        let mut config = cluster.new_config("blank");
        config.listen.http = format!("127.0.0.1:{}", free_port());
        let address = config.listen.http.clone();
        let mut blank = cluster.process(config)?;
        blank.start()?;
        let (status, body) = until("the node to listen", PATIENCE, async || {
            Ok(get(&address, "/readyz?verbose").await.ok())
        })
        .await?;
        ensure!(status == 503, "{status}: {body}");
        let expected = "[+] store ok\n[-] member: the node belongs to no cluster yet\n";
        ensure!(body == expected, "{body}");
        ensure!(get(&address, "/livez").await?.0 == 200, "it lives");
        no_panic(&blank)?;
        blank.kill()
    })
    .await
}
