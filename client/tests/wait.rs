//! Waiting by notice: claims that wait for an item, and following a process's events.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use quorate_client::statemachine::Name;
use quorate_client::statemachine::process::ProcessState;
use quorate_client::testing::{Fault, MemoryTransport};
use quorate_client::{
    Answered, Client, ExecuteOptions, Executed, NodeError, ProcessClient, ReadOptions, Transport,
    WatchEvent, WatchWhat,
};
use tokio::time::{Instant, sleep};

fn cluster() -> (MemoryTransport, Client) {
    let transport = MemoryTransport::new();
    (transport.clone(), Client::new(transport))
}

async fn watched(cluster: &MemoryTransport) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while cluster.watches() == 0 {
        assert!(Instant::now() < deadline, "nobody watches");
        sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiting_claim_is_woken_by_a_push() {
    let (cluster, client) = cluster();
    let jobs = client.queue("jobs").expect("a name");
    let worker = jobs.clone();
    let waiting = tokio::spawn(async move { worker.claim_wait(5, Duration::from_secs(60)).await });
    watched(&cluster).await;
    let pushed_at = Instant::now();
    jobs.push("a").send().await.expect("pushed");
    let items = waiting.await.expect("no panic").expect("claimed");
    assert_eq!(items.len(), 1);
    assert_eq!(items[0].payload, b"a");
    assert!(
        pushed_at.elapsed() < Duration::from_secs(1),
        "woken, not timed out"
    );
}

#[tokio::test(start_paused = true)]
async fn a_waiting_claim_finds_what_was_pushed_while_its_watch_was_lost() {
    let (cluster, client) = cluster();
    let jobs = client.queue("jobs").expect("a name");
    let worker = jobs.clone();
    let waiting = tokio::spawn(async move { worker.claim_wait(1, Duration::from_secs(60)).await });
    watched(&cluster).await;
    cluster.lag_watches();
    jobs.push("a").send().await.expect("pushed");
    let items = waiting.await.expect("no panic").expect("claimed");
    assert_eq!(items[0].payload, b"a");
}

#[tokio::test(start_paused = true)]
async fn a_waiting_claim_gives_up_in_time_and_leaves_no_watch() {
    let (cluster, client) = cluster();
    let jobs = client.queue("jobs").expect("a name");
    let started = Instant::now();
    let items = jobs
        .claim_wait(1, Duration::from_secs(5))
        .await
        .expect("answered");
    assert!(items.is_empty());
    assert!(started.elapsed() >= Duration::from_secs(5));
    assert!(started.elapsed() < Duration::from_secs(6));
    assert_eq!(cluster.watches(), 0);
}

#[tokio::test(start_paused = true)]
async fn every_item_goes_to_one_of_many_waiting_workers() {
    let (cluster, client) = cluster();
    let jobs = client.queue("jobs").expect("a name");
    let workers: Vec<_> = (0..5)
        .map(|_| {
            let worker = jobs.clone();
            tokio::spawn(async move { worker.claim_wait(1, Duration::from_secs(60)).await })
        })
        .collect();
    watched(&cluster).await;
    for payload in ["a", "b", "c", "d", "e"] {
        jobs.push(payload).send().await.expect("pushed");
    }
    let mut payloads = Vec::new();
    for worker in workers {
        let items = worker.await.expect("no panic").expect("claimed");
        payloads.extend(items.into_iter().map(|item| item.payload));
    }
    payloads.sort();
    assert_eq!(payloads, [b"a", b"b", b"c", b"d", b"e"]);
}

async fn append(process: &ProcessClient, from: u64, to: u64) {
    let step = Name::parse("type", "step").expect("a name");
    for number in from..=to {
        process
            .append(&step, None, number.to_string())
            .await
            .expect("appended");
    }
}

#[tokio::test(start_paused = true)]
async fn following_has_no_gaps_over_lagging_broken_streams_and_failures() {
    let (cluster, client) = cluster();
    let process = client.process("p").expect("a name");
    process.register("d").await.expect("registered");
    append(&process, 1, 3).await;
    let follower = process.follow(1);
    let following = tokio::spawn(
        follower
            .map(|event| event.expect("read").sequence)
            .collect(),
    );
    watched(&cluster).await;
    append(&process, 4, 10).await;
    cluster.lag_watches();
    append(&process, 11, 20).await;
    watched(&cluster).await;
    cluster.break_watches();
    cluster.fail_next([Fault::LoseReply, Fault::NoLeader]);
    append(&process, 21, 150).await;
    process
        .complete(ProcessState::Succeeded, "ok")
        .await
        .expect("completed");
    let sequences: Vec<u64> = following.await.expect("it ends with the process");
    assert_eq!(sequences, (2..=150).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn following_tells_of_an_outage_and_goes_on_behind_the_last_event() {
    let (cluster, client) = cluster();
    let client = client.with_timeout(Duration::from_secs(2));
    let process = client.process("p").expect("a name");
    process.register("d").await.expect("registered");
    append(&process, 1, 1).await;
    let mut events = process.follow(0);
    let first = events.next().await.expect("an event").expect("read");
    assert_eq!(first.sequence, 1);
    cluster.set_down(true);
    let error = events.next().await.expect("told").expect_err("down");
    assert_eq!(error.code(), "unavailable");
    cluster.set_down(false);
    append(&process, 2, 2).await;
    let second = events.next().await.expect("an event").expect("read");
    assert_eq!(second.sequence, 2);
}

#[tokio::test(start_paused = true)]
async fn following_what_does_not_exist_says_so_and_ends() {
    let (_, client) = cluster();
    let mut events = client.process("nobody").expect("a name").follow(0);
    let error = events.next().await.expect("told").expect_err("unknown");
    assert_eq!(error.code(), "not_found");
    assert!(events.next().await.is_none());
}

/// A transport on which something happens just before each watch is registered.
struct JustBefore(MemoryTransport);

impl Transport for JustBefore {
    fn execute(
        &self,
        command: Bytes,
        options: ExecuteOptions,
    ) -> BoxFuture<'_, Result<Executed, NodeError>> {
        self.0.execute(command, options)
    }

    fn read(
        &self,
        query: Bytes,
        options: ReadOptions,
    ) -> BoxFuture<'_, Result<Answered, NodeError>> {
        self.0.read(query, options)
    }

    fn watch(
        &self,
        what: WatchWhat,
        from_index: u64,
    ) -> BoxFuture<'_, Result<BoxStream<'static, WatchEvent>, NodeError>> {
        let client = Client::new(self.0.clone());
        async move {
            append(&client.process("p").expect("a name"), 1, 1).await;
            let jobs = client.queue("jobs").expect("a name");
            jobs.push("a").send().await.expect("pushed");
            self.0.watch(what, from_index).await
        }
        .boxed()
    }

    fn seen_index(&self) -> u64 {
        self.0.seen_index()
    }
}

#[tokio::test(start_paused = true)]
async fn what_happens_just_before_the_watch_is_registered_is_not_slept_through() {
    let client = Client::new(JustBefore(MemoryTransport::new()));
    let process = client.process("p").expect("a name");
    process.register("d").await.expect("registered");
    let started = Instant::now();
    let event = process
        .follow(0)
        .next()
        .await
        .expect("an event")
        .expect("read");
    assert_eq!(event.sequence, 1);
    let jobs = client.queue("jobs").expect("a name");
    let items = jobs
        .claim_wait(1, Duration::from_secs(60))
        .await
        .expect("claimed");
    assert_eq!(items.len(), 1);
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
}
