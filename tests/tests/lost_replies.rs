//! Connections between clients and nodes break all the time: requests and answers that were on
//! their way are lost, and what was acknowledged is still done exactly once.

use anyhow::Result;
use quorate_node::Config;
use quorate_tests::cluster::{Options, scenario};
use quorate_tests::load::Load;
use quorate_tests::oracle;
use quorate_tests::process::free_port;
use quorate_tests::proxy::Proxy;
use quorate_tests::wait::RECOVERY_MAX;

const NODE: &str = env!("CARGO_BIN_EXE_test-node");

/// Writes between two cuts: each cut loses about one request or answer a writer.
const CUTS: u32 = 60;
const WRITES_BETWEEN: u64 = 60;

fn behind_a_proxy(config: &mut Config) {
    config.listen.advertise_client = format!("127.0.0.1:{}", free_port());
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_after_lost_answers_do_nothing_twice() -> Result<()> {
    scenario(
        Options::new(NODE, 3).configure(behind_a_proxy),
        async |cluster| {
            let mut proxies = Vec::new();
            let mut endpoints = Vec::new();
            for node in &cluster.nodes {
                let advertised = node.config().listen.advertise_client.clone();
                let to = node.client_addr().to_owned();
                proxies.push(Proxy::start(&advertised, to).await?);
                endpoints.push(advertised);
            }
            let load = Load::start(&endpoints, 16).await?;
            for _ in 0..CUTS {
                load.more(WRITES_BETWEEN, RECOVERY_MAX).await?;
                proxies.iter().for_each(Proxy::cut);
            }
            oracle::check_unfailing(cluster, load).await
        },
    )
    .await
}
