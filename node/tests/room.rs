//! A disk that is nearly full: what grows is refused with the facts, what keeps or ends goes on,
//! and all is taken again when there is room.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quorate_client::statemachine::queue::Outcome;
use quorate_client::{Client, ClientError};
use quorate_node::Node;

const RESERVE: u64 = 1_000_000;

/// What the disk under the node seems to have.
static FREE: AtomicU64 = AtomicU64::new(u64::MAX);

fn free(_: &Path) -> io::Result<u64> {
    Ok(FREE.load(Ordering::SeqCst))
}

async fn push(client: &Client) -> Result<(), ClientError> {
    let jobs = client.queue("jobs").expect("a name");
    jobs.push("x").send().await.map(drop)
}

/// Waits until a push is answered as wanted; the node looks once a second.
async fn until_push(client: &Client, wanted: &str) -> Option<ClientError> {
    let impatient = client.clone().with_timeout(Duration::from_millis(300));
    let patience = Instant::now() + Duration::from_secs(30);
    while Instant::now() < patience {
        let outcome = push(&impatient).await;
        let word = outcome.as_ref().map_or_else(ClientError::code, |()| "done");
        if word == wanted {
            return outcome.err();
        }
    }
    panic!("never {wanted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_grows_waits_for_room_and_what_ends_does_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let node = Node::builder()
        .data_dir(dir.path().join("data"))
        .free_bytes(free)
        .configure(|config| config.limits.disk_reserve_bytes = RESERVE)
        .start()
        .await
        .expect("it starts");
    let client = node.client();
    let jobs = client.queue("jobs").expect("a name");
    push(&client).await.expect("there is room");
    let claim = client.lease("held").try_claim().await.expect("room");
    let held = claim.granted().expect("it is free");
    let mut items = jobs.claim(1).await.expect("there is one");
    let item = items.pop().expect("pushed before");

    FREE.store(RESERVE - 1, Ordering::SeqCst);
    let error = until_push(&client, "resource_exhausted")
        .await
        .expect("refused");
    let text = error.to_string();
    assert!(text.contains("free space on the leader's disk"), "{text}");
    assert!(text.contains("999999 bytes free"), "{text}");
    assert!(!error.may_have_happened());
    let alarms = node.alarms();
    assert_eq!(alarms[0].kind.name(), "disk_nearly_full", "{alarms:?}");
    assert!(alarms[0].text.contains("make room"), "{alarms:?}");
    let impatient = client.clone().with_timeout(Duration::from_millis(300));
    let refused = impatient.lease("other").try_claim().await;
    let error = refused.expect_err("a claim grows the state");
    assert_eq!(error.code(), "resource_exhausted", "{error}");
    let token = item.item.claim.expect("it is claimed").fencing_token;
    let settled = jobs.settle(item.item.item_id, token, Outcome::Done).await;
    settled.expect("a settlement goes on");
    held.release().await.expect("a release goes on");

    FREE.store(RESERVE + RESERVE / 10, Ordering::SeqCst);
    until_push(&client, "done").await;
    assert_eq!(node.alarms(), []);
    node.shutdown().await;
}
