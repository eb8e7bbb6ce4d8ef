//! What the README shows is compiled here, line by line.

use std::collections::BTreeSet;
use std::time::Duration;

use quorate_client::statemachine::queue::Outcome;
use quorate_client::{ClaimOutcome, Client};
use quorate_node::Node;

type Result = std::result::Result<(), Box<dyn std::error::Error>>;

async fn make_report(_: u64) {}

#[rustfmt::skip]
async fn a_client() -> Result {
    let client = Client::connect(["10.0.0.1:7400", "10.0.0.2:7400", "10.0.0.3:7400"])?;
    let lease = client.lease("reports/nightly").owner("worker-7").ttl(Duration::from_secs(15));
    match lease.try_claim().await? {
        ClaimOutcome::Busy(holder) => println!("{} has it", holder.owner.owner_id),
        ClaimOutcome::Granted(guard) => make_report(guard.token()).await,
    }
    Ok(())
}

#[rustfmt::skip]
async fn a_lock(client: Client) -> Result {
    let lock = client.lock("reports/nightly").owner("worker-7").wait(Duration::from_secs(60));
    let guard = lock.acquire().await?;
    make_report(guard.token()).await;
    guard.release().await?;
    Ok(())
}

#[rustfmt::skip]
async fn a_node() -> Result {
    let node = Node::builder().data_dir("/var/lib/mine/quorate").start().await?;
    let client = node.client();
    let queue = client.queue("mail")?;
    queue.push(b"{}".to_vec()).dedupe_key("mail-1").send().await?;
    for item in queue.claim(10).await? {
        let claim = item.item.claim.expect("a claimed item has a claim");
        queue.settle(item.item.item_id, claim.fencing_token, Outcome::Done).await?;
    }
    node.shutdown().await;
    Ok(())
}

#[test]
fn what_the_readme_shows_is_what_is_compiled() {
    // Named so that they count as used; the addresses and the directory are not this machine's.
    let _ = (a_client, a_lock, a_node);
    let here: BTreeSet<&str> = include_str!("readme.rs").lines().map(str::trim).collect();
    let readme = include_str!("../../README.md");
    let blocks = readme.split("```rust\n").skip(1);
    let shown: Vec<&str> = blocks
        .filter_map(|block| block.split("```").next())
        .flat_map(str::lines)
        .map(str::trim)
        .collect();
    assert!(shown.len() > 10, "the README shows {shown:?}");
    for line in shown {
        assert!(here.contains(line), "not compiled: {line}");
    }
}
