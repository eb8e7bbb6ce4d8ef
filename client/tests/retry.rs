//! Trying again: what the second try answers, what identity it carries, and what is said in the
//! end.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use quorate_client::statemachine::limits::{REQUEST_RETENTION_MS, REQUEST_SLACK_MS};
use quorate_client::statemachine::queue::{self, Outcome};
use quorate_client::statemachine::{
    Action, Command, Name, Precondition, Refusal, Response, lease, process,
};
use quorate_client::testing::{Fault, MemoryTransport};
use quorate_client::{
    Answered, Client, ClientError, ExecuteOptions, Executed, NodeError, ReadOptions, Transport,
    WatchEvent, WatchWhat,
};

/// A transport that has heard of the log long ago only.
struct Behind(MemoryTransport);

impl Transport for Behind {
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
        self.0.watch(what, from_index)
    }

    fn seen_index(&self) -> u64 {
        0
    }
}

async fn push(client: &Client) -> Result<queue::Pushed, ClientError> {
    let queue = client.queue("q").expect("a name");
    queue.push("a").send().await
}

/// Lets the cluster forget the answers it has given so far.
async fn forget_answers(client: &Client) {
    let jobs = client.queue("others").expect("a name");
    for _ in 0..3 {
        jobs.push("x").send().await.expect("pushed");
    }
    let forgotten = REQUEST_RETENTION_MS + REQUEST_SLACK_MS;
    tokio::time::sleep(Duration::from_millis(forgotten)).await;
    jobs.push("x").send().await.expect("pushed");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_starts_too_low_is_sent_anew_if_no_try_can_have_been_executed() {
    let (cluster, client) = cluster();
    forget_answers(&client).await;
    let before = cluster.tries().len();
    let behind = Client::new(Behind(cluster.clone()))
        .queue("jobs")
        .expect("a name");
    behind
        .push("a")
        .send()
        .await
        .expect("the second id starts high enough");
    assert_eq!(cluster.tries().len(), before + 2);
    cluster.fail_next([Fault::LoseReply]);
    let error = behind
        .push("b")
        .send()
        .await
        .expect_err("the first try may have been executed");
    assert_eq!(error.code(), "outcome_unknown");
    assert!(error.may_have_happened());
    assert_eq!(cluster.tries().len(), before + 4);
}

fn name(text: &str) -> Name {
    Name::parse("name", text).expect("a name")
}

fn cluster() -> (MemoryTransport, Client) {
    let transport = MemoryTransport::new();
    (transport.clone(), Client::new(transport))
}

#[tokio::test(start_paused = true)]
async fn a_push_whose_reply_was_lost_is_stored_once_and_answered() {
    let (cluster, client) = cluster();
    let jobs = client.queue("jobs").expect("a name");
    cluster.fail_next([Fault::LoseReply, Fault::LoseReply]);
    let pushed = jobs
        .push("a")
        .send()
        .await
        .expect("the third try is answered");
    assert!(!pushed.duplicate);
    let tries = cluster.tries();
    assert_eq!(tries.len(), 3);
    assert!(
        tries.iter().all(|again| *again == tries[0]),
        "the same bytes each time"
    );
    let claimed = jobs.claim(10).await.expect("claimed");
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].item.item_id, pushed.item_id);
}

#[tokio::test(start_paused = true)]
async fn a_claim_of_items_whose_reply_was_lost_gets_the_same_items() {
    let (cluster, client) = cluster();
    let jobs = client.queue("jobs").expect("a name");
    for payload in ["a", "b"] {
        jobs.push(payload).send().await.expect("pushed");
    }
    cluster.fail_next([Fault::LoseReply]);
    let claimed = jobs.claim(1).await.expect("claimed");
    assert_eq!(claimed[0].payload, b"a");
    cluster.fail_next([Fault::LoseReply]);
    let item = &claimed[0].item;
    let token = item.claim.as_ref().expect("it is claimed").fencing_token;
    let settled = jobs.settle(item.item_id, token, Outcome::Done).await;
    assert_eq!(settled, Ok(queue::Settled::Done), "not NotFound");
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_to_a_guarded_command_is_not_fenced_by_its_own_first_try() {
    let (cluster, client) = cluster();
    let lease = client
        .lease("job")
        .owner("a")
        .try_claim()
        .await
        .expect("claimed");
    let guard = lease.granted().expect("free");
    let release = lease::Release {
        key: guard.key().clone(),
        lease_token: guard.lease_token().clone(),
        fencing_token: guard.token(),
    };
    cluster.fail_next([Fault::LoseReply]);
    let released = client
        .execute_under(release, vec![guard.precondition()])
        .await;
    assert_eq!(released, Ok(lease::Released::Released));
}

#[tokio::test(start_paused = true)]
async fn operations_with_an_identity_of_their_own_carry_no_request_id() {
    let (cluster, client) = cluster();
    let process = client.process("p").expect("a name");
    process.register("d").await.expect("registered");
    process
        .append(&name("step"), Some(&name("k")), "1")
        .await
        .expect("appended");
    process
        .append(&name("step"), None, "1")
        .await
        .expect("appended");
    let steps = vec![Action::from(process::Append {
        key: Some(name("k2")),
        ..process::Append::new(name("p"), name("step"), Vec::new())
    })];
    let done = client.composite(steps, Vec::new()).await.expect("done");
    assert!(matches!(done[..], [Response::Process(_)]));
    let ids = cluster.tries().into_iter().map(|bytes| {
        Command::decode(&bytes)
            .expect("what was sent can be read")
            .request
            .is_some()
    });
    assert_eq!(ids.collect::<Vec<_>>(), [false, false, true, true]);
}

#[tokio::test(start_paused = true)]
async fn a_leader_change_passes_unnoticed() {
    let (cluster, client) = cluster();
    cluster.fail_next([Fault::NoLeader; 5]);
    let outcome = client
        .lease("job")
        .try_claim()
        .await
        .expect("the sixth try is answered");
    assert!(outcome.granted().is_some());
}

#[tokio::test(start_paused = true)]
async fn without_a_leader_the_error_says_that_nothing_was_done() {
    let (cluster, client) = cluster();
    let client = client.with_timeout(Duration::from_secs(3));
    cluster.set_down(true);
    let started = tokio::time::Instant::now();
    let error = push(&client).await.expect_err("no leader");
    assert_eq!(error.code(), "unavailable");
    assert!(!error.may_have_happened());
    assert!(started.elapsed() <= Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn what_may_have_happened_is_said_even_if_the_last_try_did_not() {
    let (cluster, client) = cluster();
    let client = client.with_timeout(Duration::from_secs(3));
    cluster.fail_next([Fault::LoseReply]);
    cluster.fail_next([Fault::NoLeader; 10_000]);
    let error = push(&client).await.expect_err("no reply");
    assert!(error.may_have_happened(), "{error}");
    assert_eq!(error.code(), "outcome_unknown");
}

/// Refusals that take 150 ms each: the last of them would not be there before the deadline, and an
/// answer that is not there says less than the refusal before it.
#[tokio::test(start_paused = true)]
async fn a_last_try_too_short_for_an_answer_does_not_make_a_refusal_doubtful() {
    for timeout_ms in 1_000..1_100 {
        let (cluster, client) = cluster();
        let client = client.with_timeout(Duration::from_millis(timeout_ms));
        cluster.fail_next([Fault::Refuse(Duration::from_millis(150)); 100]);
        let error = push(&client).await.expect_err("no leader");
        assert_eq!(error.code(), "unavailable", "{timeout_ms} ms: {error}");
        assert!(!error.may_have_happened(), "{timeout_ms} ms: {error}");
    }
}

/// A deadline shorter than the least time of a try is not a reason to try once only.
#[tokio::test(start_paused = true)]
async fn a_short_deadline_still_has_more_than_one_try() {
    let (cluster, client) = cluster();
    let client = client.with_timeout(Duration::from_millis(150));
    cluster.fail_next([Fault::NoLeader; 2]);
    let pushed = push(&client).await;
    assert!(pushed.is_ok(), "{pushed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_never_answers_costs_only_a_share_of_the_time() {
    let (cluster, client) = cluster();
    cluster.fail_next([Fault::Hang]);
    let pushed = push(&client).await;
    assert!(pushed.is_ok(), "{pushed:?}");
    assert_eq!(cluster.tries().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn refusals_are_not_tried_again() {
    let (cluster, client) = cluster();
    let process = client.process("unknown").expect("a name");
    let error = process
        .append(&name("step"), None, "1")
        .await
        .expect_err("unknown");
    assert!(
        matches!(error.refusal(), Some(Refusal::NotFound { .. })),
        "{error}"
    );
    assert_eq!(cluster.tries().len(), 1);
    let stale = Precondition::Lease {
        key: name("job"),
        token: 1,
    };
    let register = process::Register::new(name("p"), Vec::new());
    let error = client
        .execute_under(register, vec![stale])
        .await
        .expect_err("not held");
    assert_eq!(error.code(), "fenced");
    assert_eq!(cluster.tries().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_out_of_bounds_is_refused_before_it_is_sent() {
    let (cluster, client) = cluster();
    let error = client
        .lease("job")
        .ttl(Duration::ZERO)
        .try_claim()
        .await
        .expect_err("no TTL");
    let shown = "ttl_ms is out of range: limit 1 to 86400000 ms, actual 0 ms";
    assert_eq!(
        (error.code(), error.to_string().as_str()),
        ("invalid_argument", shown)
    );
    let day = Duration::from_secs(86_401);
    let error = client
        .lease("job")
        .ttl(day)
        .try_claim()
        .await
        .expect_err("too long");
    assert!(error.to_string().ends_with("actual 86401000 ms"), "{error}");
    let jobs = client.queue("jobs").expect("a name");
    let large = vec![0; (1 << 20) + 1];
    let error = jobs.push(large).send().await.expect_err("too large");
    assert!(error.to_string().contains("1048576 bytes"), "{error}");
    let error = jobs.claim(0).await.expect_err("none");
    assert_eq!(error.code(), "invalid_argument");
    assert_eq!(
        client.queue("").expect_err("empty").code(),
        "invalid_argument"
    );
    assert!(cluster.tries().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_zero_ttl_needs_a_client_that_allows_it() {
    let (_, client) = cluster();
    let claim = |ttl_ms| lease::Claim {
        ttl_ms,
        ..client.lease("job").claim().expect("in bounds")
    };
    let error = client.execute(claim(0)).await.expect_err("refused");
    assert!(
        matches!(error, ClientError::Refused(Refusal::Invalid(_))),
        "{error}"
    );
    let granted = client.clone().allowing_zero_ttl().execute(claim(0)).await;
    assert!(
        matches!(granted, Ok(lease::Claimed::Granted(_))),
        "{granted:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn reads_are_tried_until_the_timeout() {
    let (cluster, client) = cluster();
    let client = client.with_timeout(Duration::from_secs(5));
    cluster.set_down(true);
    let heal = cluster.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(2)).await;
        heal.set_down(false);
    });
    assert_eq!(client.lease_get(&name("job")).await, Ok(None));
    cluster.set_down(true);
    let error = client
        .lease_get(&name("job"))
        .await
        .expect_err("down for good");
    assert!(
        matches!(error, ClientError::Node(NodeError::Unavailable { .. })),
        "{error}"
    );
}
