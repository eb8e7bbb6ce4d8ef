//! The remote transport against nodes that serve the real state machine over gRPC.

mod served;

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::StreamExt;
use quorate_client::statemachine::Name;
use quorate_client::statemachine::lease::List;
use quorate_client::testing::{Fault, MemoryTransport};
use quorate_client::{Client, ReadFrom, Remote, RemoteOptions};
use served::Node;

fn name(text: &str) -> Name {
    Name::parse("name", text).expect("a name")
}

fn connect<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> Client {
    let endpoints = nodes.into_iter().map(|node| node.address.to_string());
    Client::connect(endpoints).expect("addresses")
}

/// Polls until it holds; the clock is the real one here.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn many_requests_share_one_stream_and_each_gets_its_own_answer() {
    let cluster = MemoryTransport::new();
    let node = Node::start(&cluster).await;
    let client = connect([&node]);
    let jobs = client.queue("jobs").expect("a name");
    jobs.push("first").send().await.expect("connected");
    let pushes = (0..2_000).map(|number| {
        let push = jobs.push(number.to_string()).dedupe_key(number.to_string());
        async move { (number, push.send().await.expect("pushed").item_id) }
    });
    let pushed = futures::future::join_all(pushes).await;
    let distinct: HashSet<_> = pushed.iter().map(|(_, item_id)| item_id).collect();
    assert_eq!(distinct.len(), 2_000);
    for (number, item_id) in pushed.iter().step_by(97) {
        let item = jobs
            .get(*item_id)
            .await
            .expect("read")
            .expect("it is there");
        assert_eq!(item.payload, number.to_string().into_bytes());
    }
    let batches = node.knobs.batches.load(Ordering::SeqCst);
    assert!(
        batches < 500,
        "{batches} batches for 2,000 concurrent requests"
    );
}

#[tokio::test]
async fn large_payloads_pass_whole() {
    let cluster = MemoryTransport::new();
    let node = Node::start(&cluster).await;
    let jobs = connect([&node]).queue("jobs").expect("a name");
    let payload: Vec<u8> = (0..1 << 20).map(|at| (at % 251) as u8).collect();
    let pushes = (0..8).map(|_| jobs.push(payload.clone()).send());
    for pushed in futures::future::join_all(pushes).await {
        let item_id = pushed.expect("pushed").item_id;
        let item = jobs.get(item_id).await.expect("read").expect("it is there");
        assert!(item.payload == payload, "a payload came back changed");
    }
}

#[tokio::test]
async fn a_command_in_flight_when_the_node_dies_is_done_once_by_the_next() {
    let cluster = MemoryTransport::new();
    let (dying, next) = (Node::start(&cluster).await, Node::start(&cluster).await);
    next.set_leader(&dying.address.to_string());
    dying.knobs.mute.store(true, Ordering::SeqCst);
    let jobs = connect([&dying, &next]).queue("jobs").expect("a name");
    let push = tokio::spawn(jobs.push("a").send());
    until("the command was executed", || cluster.tries().len() == 1).await;
    drop(dying);
    let pushed = push
        .await
        .expect("no panic")
        .expect("the next node answers");
    let items = jobs.claim(10).await.expect("claimed");
    assert_eq!(items.len(), 1);
    assert_eq!(items[0].item.item_id, pushed.item_id);
    let tries = cluster.tries();
    assert_eq!(
        tries[0], tries[1],
        "the same bytes under the same request id"
    );
}

#[tokio::test]
async fn the_leader_is_learned_from_a_greeting_and_from_a_hint() {
    let cluster = MemoryTransport::new();
    let (follower, leader) = (Node::start(&cluster).await, Node::start(&cluster).await);
    follower.set_leader(&leader.address.to_string());
    // The leader is no endpoint of this client: it is known from the follower's greeting alone.
    let client = connect([&follower]);
    let jobs = client.queue("jobs").expect("a name");
    jobs.push("a").send().await.expect("pushed");
    assert_eq!((follower.commands(), leader.commands()), (0, 1));
    let successor = Node::start(&cluster).await;
    leader.knobs.refuse.store(true, Ordering::SeqCst);
    leader.set_leader(&successor.address.to_string());
    for _ in 0..5 {
        jobs.push("b").send().await.expect("pushed");
    }
    assert_eq!((leader.commands(), successor.commands()), (2, 5));
}

#[tokio::test]
async fn endpoints_that_are_down_are_passed_over_and_found_again() {
    let cluster = MemoryTransport::new();
    let (first, second) = (Node::start(&cluster).await, Node::start(&cluster).await);
    second.set_leader("");
    first.set_leader("");
    let client = connect([&first, &second]);
    let jobs = client.queue("jobs").expect("a name");
    jobs.push("a").send().await.expect("pushed");
    let address = first.address.to_string();
    drop(first);
    for _ in 0..3 {
        jobs.push("b").send().await.expect("the second takes over");
    }
    let first = Node::start_at(&address, &cluster).await;
    first.set_leader("");
    drop(second);
    jobs.push("c").send().await.expect("the first is back");
    assert!(first.commands() >= 1);
    let items = jobs.claim(10).await.expect("claimed");
    assert_eq!(items.len(), 5);
}

#[tokio::test]
async fn nobody_there_is_unavailable_and_not_done() {
    let cluster = MemoryTransport::new();
    let gone = Node::start(&cluster).await.address;
    let client = Client::connect([gone.to_string()]).expect("an address");
    let client = client.with_timeout(Duration::from_secs(1));
    let error = client
        .queue("q")
        .expect("a name")
        .push("a")
        .send()
        .await
        .expect_err("gone");
    assert_eq!(error.code(), "unavailable");
    assert!(!error.may_have_happened(), "{error}");
    let error = Client::connect(["no address"]).expect_err("refused");
    assert_eq!(error.code(), "invalid_argument");
    let error = Client::connect(Vec::<String>::new()).expect_err("refused");
    assert_eq!(error.code(), "invalid_argument");
}

#[tokio::test]
async fn a_node_of_another_cluster_is_told_apart() {
    let cluster = MemoryTransport::new();
    let (ours, other) = (Node::start(&cluster).await, Node::start(&cluster).await);
    *other.knobs.cluster_id.lock().expect("no panic") = "other".to_owned();
    ours.set_leader("");
    let client = connect([&ours]);
    let jobs = client.queue("jobs").expect("a name");
    jobs.push("a").send().await.expect("pushed");
    ours.set_leader(&other.address.to_string());
    ours.knobs.refuse.store(true, Ordering::SeqCst);
    let client = client.with_timeout(Duration::from_secs(1));
    let error = client.queue("jobs").expect("a name").push("b").send().await;
    assert!(error.is_err(), "{error:?}");
    assert_eq!(other.commands(), 0, "no command went to another cluster");
}

#[tokio::test]
async fn a_refused_query_names_the_bound() {
    let cluster = MemoryTransport::new();
    let node = Node::start(&cluster).await;
    let list = List {
        prefix: "x".repeat(600),
        after: None,
        limit: 0,
    };
    let error = connect([&node])
        .lease_list(list)
        .await
        .expect_err("out of bounds");
    assert_eq!(error.code(), "invalid_argument");
    assert!(error.to_string().contains("600 bytes"), "{error}");
}

#[tokio::test]
async fn reads_can_be_kept_off_the_leader() {
    let cluster = MemoryTransport::new();
    let (follower, leader) = (Node::start(&cluster).await, Node::start(&cluster).await);
    follower.set_leader(&leader.address.to_string());
    let options = RemoteOptions {
        read_from: ReadFrom::AnyNode,
        ..RemoteOptions::default()
    };
    let remote = Remote::new([follower.address.to_string()], options).expect("an address");
    let client = Client::new(remote);
    let guard = client
        .lease("job")
        .try_claim()
        .await
        .expect("claimed")
        .granted()
        .expect("free");
    let lease = client
        .lease_get(&name("job"))
        .await
        .expect("read")
        .expect("held");
    assert_eq!(lease.fencing_token, guard.token());
    let queries = |node: &Node| node.knobs.queries.load(Ordering::SeqCst);
    assert_eq!((queries(&follower), queries(&leader)), (1, 0));
    assert_eq!((follower.commands(), leader.commands()), (0, 1));
}

#[tokio::test]
async fn a_guard_lives_through_the_death_of_its_node() {
    let cluster = MemoryTransport::new();
    let (first, second) = (Node::start(&cluster).await, Node::start(&cluster).await);
    second.set_leader(&first.address.to_string());
    let client = connect([&first, &second]);
    let lease = client.lease("job").ttl(Duration::from_secs(3));
    let guard = lease
        .try_claim()
        .await
        .expect("claimed")
        .granted()
        .expect("free");
    second.set_leader(&second.address.to_string());
    drop(first);
    until("the second node renewed it", || second.commands() >= 2).await;
    assert!(!guard.lost().is_cancelled());
    let renewed = client
        .lease_get(&name("job"))
        .await
        .expect("read")
        .expect("held");
    assert!(renewed.renewals >= 1);
    guard.release().await.expect("released");
}

#[tokio::test]
async fn following_goes_on_over_the_death_of_the_watched_node() {
    let cluster = MemoryTransport::new();
    let (first, second) = (Node::start(&cluster).await, Node::start(&cluster).await);
    second.set_leader(&first.address.to_string());
    let process = connect([&first, &second]).process("p").expect("a name");
    process.register("d").await.expect("registered");
    let mut events = process.follow(0);
    let step = name("step");
    process.append(&step, None, "1").await.expect("appended");
    assert_eq!(
        events
            .next()
            .await
            .expect("an event")
            .expect("read")
            .sequence,
        1
    );
    second.set_leader(&second.address.to_string());
    drop(first);
    cluster.fail_next([Fault::LoseReply]);
    process.append(&step, None, "2").await.expect("appended");
    process.append(&step, None, "3").await.expect("appended");
    for sequence in 2..=3 {
        assert_eq!(
            events
                .next()
                .await
                .expect("an event")
                .expect("read")
                .sequence,
            sequence
        );
    }
}
