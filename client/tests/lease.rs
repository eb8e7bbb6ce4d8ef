//! The guard of a lease: how sure its holder is, and what it leaves behind.

use std::time::Duration;

use quorate_client::statemachine::lease::{Lease, Released};
use quorate_client::statemachine::{Name, Refusal};
use quorate_client::testing::{Fault, MemoryTransport};
use quorate_client::{ClaimOutcome, Client, LeaseGuard, LeaseState, LostReason};
use tokio::time::{Instant, sleep};

const TTL: Duration = Duration::from_secs(9);

fn key() -> Name {
    Name::parse("key", "job").expect("a name")
}

fn cluster() -> (MemoryTransport, Client) {
    let transport = MemoryTransport::new();
    (transport.clone(), Client::new(transport))
}

async fn hold(client: &Client) -> LeaseGuard {
    let outcome = client.lease("job").owner("a").ttl(TTL).try_claim().await;
    outcome.expect("answered").granted().expect("free")
}

async fn live(client: &Client) -> Option<Lease> {
    client.lease_get(&key()).await.expect("read")
}

/// Polls with the paused clock moving on.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds().await {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_held_lease_is_renewed_and_stays_safe() {
    let (_, client) = cluster();
    let guard = hold(&client).await;
    sleep(TTL * 5).await;
    assert_eq!(guard.state(), LeaseState::Safe);
    assert!(guard.remaining() > TTL / 2, "{:?}", guard.remaining());
    let lease = live(&client).await.expect("held");
    assert_eq!(
        (lease.fencing_token, &lease.lease_token),
        (guard.token(), guard.lease_token())
    );
    assert!(
        (10..=20).contains(&lease.renewals),
        "{} renewals",
        lease.renewals
    );
    assert!(!guard.lost().is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn without_the_cluster_it_is_safe_then_in_jeopardy_then_lost() {
    let (cluster, client) = cluster();
    let guard = hold(&client).await;
    let (claimed, mut states) = (Instant::now(), guard.watch_state());
    cluster.set_down(true);
    states.changed().await.expect("the guard lives");
    assert_eq!(*states.borrow_and_update(), LeaseState::Jeopardy);
    assert!(claimed.elapsed() >= TTL * 2 / 3 && claimed.elapsed() < TTL * 3 / 4);
    assert!(!guard.lost().is_cancelled());
    states.changed().await.expect("the guard lives");
    assert_eq!(
        *states.borrow_and_update(),
        LeaseState::Lost(LostReason::Unconfirmed)
    );
    assert!(guard.lost().is_cancelled());
    assert_eq!(guard.remaining(), Duration::ZERO);
    assert!(
        claimed.elapsed() <= TTL * 19 / 20,
        "{:?}",
        claimed.elapsed()
    );
    cluster.set_down(false);
    assert!(
        live(&client).await.is_some(),
        "the holder knows before the cluster does"
    );
}

#[tokio::test(start_paused = true)]
async fn jeopardy_passes_when_a_renewal_comes_through() {
    let (cluster, client) = cluster();
    let guard = hold(&client).await;
    let mut states = guard.watch_state();
    cluster.set_down(true);
    states.changed().await.expect("the guard lives");
    assert_eq!(*states.borrow_and_update(), LeaseState::Jeopardy);
    cluster.set_down(false);
    states.changed().await.expect("the guard lives");
    assert_eq!(*states.borrow_and_update(), LeaseState::Safe);
    sleep(TTL * 2).await;
    assert_eq!(guard.state(), LeaseState::Safe);
}

#[tokio::test(start_paused = true)]
async fn passing_errors_are_outlived_inside_the_ttl() {
    let (cluster, client) = cluster();
    let guard = hold(&client).await;
    for _ in 0..4 {
        cluster.fail_next([
            Fault::NoLeader,
            Fault::LoseReply,
            Fault::Hang,
            Fault::NoLeader,
        ]);
        sleep(TTL).await;
    }
    assert_eq!(guard.state(), LeaseState::Safe);
    assert_eq!(
        live(&client).await.map(|lease| lease.fencing_token),
        Some(guard.token())
    );
}

#[tokio::test(start_paused = true)]
async fn a_revoked_lease_is_lost_at_the_next_renewal_with_the_reason() {
    let (_, client) = cluster();
    let guard = hold(&client).await;
    client
        .lease_revoke(&key(), None, "operator")
        .await
        .expect("revoked");
    tokio::time::timeout(TTL, guard.lost().cancelled_owned())
        .await
        .expect("told within a TTL");
    let LeaseState::Lost(LostReason::Refused(refusal)) = guard.state() else {
        panic!("{:?}", guard.state());
    };
    assert!(
        matches!(refusal, Refusal::Fenced { current: None, .. }),
        "{refusal}"
    );
    let successor = hold(&client).await;
    assert!(successor.token() > guard.token());
    drop(guard);
    sleep(TTL).await;
    assert_eq!(
        successor.state(),
        LeaseState::Safe,
        "the late drop of another grant is harmless"
    );
}

#[tokio::test(start_paused = true)]
async fn a_dropped_guard_releases_even_when_the_first_release_fails() {
    let (cluster, client) = cluster();
    let guard = hold(&client).await;
    let lost = guard.lost();
    cluster.fail_next([Fault::NoLeader, Fault::LoseReply]);
    drop(guard);
    until("the key is free", async || live(&client).await.is_none()).await;
    assert!(lost.is_cancelled());
    let story = client.lease_history(&key()).await.expect("read");
    let reasons: Vec<_> = story
        .history
        .ended
        .iter()
        .map(|ended| ended.reason.as_str())
        .collect();
    assert_eq!(reasons, ["released"]);
}

#[tokio::test(start_paused = true)]
async fn release_waits_for_the_answer() {
    let (_, client) = cluster();
    let guard = hold(&client).await;
    assert_eq!(guard.release().await, Ok(Released::Released));
    assert_eq!(live(&client).await, None);
    let guard = hold(&client).await;
    client
        .lease_revoke(&key(), None, "operator")
        .await
        .expect("revoked");
    assert_eq!(
        guard.release().await,
        Ok(Released::NotHeld { current: None })
    );
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_caller_is_gone_leaves_nothing_held() {
    let (cluster, client) = cluster();
    cluster.fail_next([Fault::Delay(Duration::from_millis(500))]);
    let builder = client.lease("job").owner("a").ttl(TTL);
    let given_up = tokio::time::timeout(Duration::from_millis(100), builder.try_claim()).await;
    assert!(given_up.is_err());
    let released = async || {
        let story = client.lease_history(&key()).await.expect("read");
        story.live.is_none() && story.history.ended.len() == 1
    };
    until("the abandoned grant is released", released).await;
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_a_slow_claim_counts_from_before_it_was_sent() {
    let (cluster, client) = cluster();
    cluster.fail_next([Fault::LoseReply, Fault::Delay(Duration::from_secs(2))]);
    let sent = Instant::now();
    let guard = hold(&client).await;
    assert!(
        sent.elapsed() >= Duration::from_secs(2),
        "and no renewal is due yet"
    );
    let lease = guard.lease();
    let ends = Duration::from_millis(lease.expires_at.since(cluster.now()));
    assert!(
        guard.remaining() < ends,
        "{:?} against {ends:?}",
        guard.remaining()
    );
}

#[tokio::test(start_paused = true)]
async fn a_claim_within_waits_for_the_end_of_the_holder() {
    let (cluster, client) = cluster();
    let guard = hold(&client).await;
    let other = client.clone();
    let waiting = tokio::spawn(async move {
        let builder = other.lease("job").owner("b").ttl(TTL);
        builder.claim_within(Duration::from_secs(60)).await
    });
    until("the watch is registered", async || cluster.watches() == 1).await;
    cluster.break_watches();
    until("the watch is registered again", async || {
        cluster.watches() == 1
    })
    .await;
    assert!(!waiting.is_finished());
    guard.release().await.expect("released");
    let outcome = waiting.await.expect("no panic").expect("answered");
    let successor = outcome.granted().expect("free");
    assert_eq!(successor.lease().owner.owner_id.as_str(), "b");
    let late = client
        .lease("job")
        .owner("c")
        .claim_within(Duration::from_secs(1))
        .await;
    let Ok(ClaimOutcome::Busy(holder)) = late else {
        panic!("{late:?}");
    };
    assert_eq!(holder.fencing_token, successor.token());
}
