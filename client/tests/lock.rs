//! Locks: waiting, holding, and what is left behind by whoever stops in the middle.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::StreamExt;
use quorate_client::statemachine::lock::{Place, Released, WaitCancelled, Waiters};
use quorate_client::statemachine::{Name, Owner, Refusal};
use quorate_client::testing::{Fault, MemoryTransport};
use quorate_client::{
    AcquireError, Client, Leader, LeaseState, LockBuilder, LockGuard, LostReason,
};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

const TTL: Duration = Duration::from_secs(9);

fn key() -> Name {
    Name::parse("key", "door").expect("a name")
}

fn cluster() -> (MemoryTransport, Client) {
    let transport = MemoryTransport::new();
    (transport.clone(), Client::new(transport))
}

fn door(client: &Client, owner: &str) -> LockBuilder {
    client.lock("door").owner(owner).ttl(TTL)
}

async fn hold(client: &Client, owner: &str) -> LockGuard {
    let acquired = timeout(TTL / 3, door(client, owner).acquire()).await;
    acquired.expect("it is free").expect("acquired")
}

/// Starts an acquisition and waits until it has its place in the queue.
async fn queued(client: &Client, builder: LockBuilder) -> JoinHandle<Acquired> {
    let before = waiting(client).await.len();
    let waiting_call = tokio::spawn(async move { builder.acquire().await });
    until("it waits", async || waiting(client).await.len() > before).await;
    waiting_call
}

type Acquired = Result<LockGuard, AcquireError>;

async fn granted(waiter: JoinHandle<Acquired>) -> LockGuard {
    let acquired = timeout(TTL * 2, waiter).await.expect("in time");
    acquired.expect("not aborted").expect("acquired")
}

/// Who waits, first in line first.
async fn waiting(client: &Client) -> Vec<String> {
    let all = Waiters {
        key: key(),
        after: None,
        limit: 0,
    };
    let page = client.lock_waiters(all).await.expect("read");
    let owners = page.rows.iter().map(|row| row.owner.owner_id.to_string());
    owners.collect()
}

async fn is_idle(client: &Client) -> bool {
    let view = client.lock_get(&key()).await.expect("read");
    view.is_none_or(|view| view.holders.is_empty() && view.lock.waiters == 0)
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
async fn waiters_are_granted_in_the_order_in_which_they_asked() {
    let (_, client) = cluster();
    let first = hold(&client, "a").await;
    let second = queued(&client, door(&client, "b")).await;
    let third = queued(&client, door(&client, "c")).await;
    assert_eq!(waiting(&client).await, ["b", "c"]);
    let released = first.token();
    assert_eq!(
        first.release().await.expect("answered"),
        Released::Released {
            fencing_token: released
        }
    );
    let second = granted(second).await;
    assert!(second.token() > released && !third.is_finished());
    drop(second);
    let third = granted(third).await;
    assert!(waiting(&client).await.is_empty());
    drop(third);
    until("the lock is idle", async || is_idle(&client).await).await;
}

#[tokio::test(start_paused = true)]
async fn who_would_not_wait_is_told_who_holds_the_lock() {
    let (_, client) = cluster();
    let _held = hold(&client, "a").await;
    let error = door(&client, "b").try_acquire().await.expect_err("taken");
    assert!(error.is_contention());
    assert_eq!(
        error.to_string(),
        "lock door is taken by a; wait for it, or try again later"
    );
    assert!(waiting(&client).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_at_its_limit_and_leaves_no_place() {
    let (_, client) = cluster();
    let _held = hold(&client, "a").await;
    let began = Instant::now();
    let wait = Duration::from_secs(30);
    let error = door(&client, "b").wait(wait).acquire().await;
    let error = error.expect_err("nobody released it");
    assert!(matches!(error, AcquireError::TimedOut { .. }), "{error}");
    assert!(began.elapsed() >= wait && began.elapsed() < wait + TTL);
    until("the queue is empty", async || {
        waiting(&client).await.is_empty()
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_waiter_keeps_its_place_for_as_long_as_it_waits() {
    let (cluster, client) = cluster();
    let held = hold(&client, "a").await;
    let waiter = queued(&client, door(&client, "b").wait_ttl(TTL / 3)).await;
    for _ in 0..10 {
        sleep(TTL).await;
        cluster.tick();
        assert_eq!(waiting(&client).await, ["b"]);
    }
    drop(held);
    let guard = granted(waiter).await;
    assert_eq!(guard.state(), LeaseState::Safe);
    assert!(guard.remaining() > TTL / 2);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_was_not_heard_for_too_long_asks_again_at_the_end() {
    let (cluster, client) = cluster();
    let held = door(&client, "a").ttl(TTL * 100).acquire().await;
    let waiter = queued(&client, door(&client, "b")).await;
    let view = client.lock_waiters(Waiters {
        key: key(),
        after: None,
        limit: 0,
    });
    let before = view.await.expect("read").rows.remove(0).id;
    cluster.set_down(true);
    sleep(TTL * 2).await;
    cluster.set_down(false);
    cluster.tick();
    until("it asks again", async || waiting(&client).await == ["b"]).await;
    let found = client.lock_find(&key(), before.id).await.expect("read");
    assert!(format!("{found:?}").contains("WaiterDied"), "{found:?}");
    drop(held);
    drop(granted(waiter).await);
}

#[tokio::test(start_paused = true)]
async fn a_lost_watch_does_not_lose_the_grant() {
    let (cluster, client) = cluster();
    let held = hold(&client, "a").await;
    let waiter = queued(&client, door(&client, "b")).await;
    until("it watches", async || cluster.watches() == 1).await;
    cluster.lag_watches();
    drop(held);
    drop(granted(waiter).await);
    let held = hold_after_idle(&client).await;
    let waiter = queued(&client, door(&client, "c")).await;
    cluster.break_watches();
    drop(held);
    drop(granted(waiter).await);
}

async fn hold_after_idle(client: &Client) -> LockGuard {
    until("the lock is idle", async || is_idle(client).await).await;
    hold(client, "z").await
}

#[tokio::test(start_paused = true)]
async fn lost_replies_take_no_second_place_and_no_second_hold() {
    let (cluster, client) = cluster();
    cluster.fail_next([Fault::LoseReply, Fault::NoLeader, Fault::LoseReply]);
    let first = hold(&client, "a").await;
    cluster.fail_next([Fault::LoseReply, Fault::Hang]);
    let waiter = queued(&client, door(&client, "b")).await;
    sleep(TTL).await;
    assert_eq!(waiting(&client).await, ["b"]);
    let view = client.lock_get(&key()).await.expect("read").expect("held");
    assert_eq!((view.lock.holders, view.lock.waiters), (1, 1));
    first.release().await.expect("answered");
    drop(granted(waiter).await);
}

/// Polls a future so many times, and then drops it.
struct Interrupted<F> {
    inner: Pin<Box<F>>,
    polls_left: usize,
}

impl<F: Future> Future for Interrupted<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.polls_left == 0 {
            return Poll::Ready(None);
        }
        self.polls_left -= 1;
        self.inner.as_mut().poll(context).map(Some)
    }
}

/// Drops an acquisition after `polls`; true if it had been granted before.
async fn interrupted(builder: LockBuilder, polls: usize) -> bool {
    let inner = Box::pin(async move { builder.acquire().await });
    let call = Interrupted {
        inner,
        polls_left: polls,
    };
    match timeout(TTL * 3, call).await {
        Ok(Some(acquired)) => acquired.is_ok(),
        Ok(None) | Err(_) => false,
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_an_acquisition_anywhere_leaves_neither_waiter_nor_hold() {
    let faults = [
        vec![],
        vec![Fault::LoseReply],
        vec![Fault::Delay(Duration::from_millis(50)), Fault::LoseReply],
        vec![Fault::NoLeader, Fault::Hang, Fault::LoseReply],
    ];
    for faults in faults {
        for taken in [false, true] {
            for polls in 0..12 {
                let (cluster, client) = cluster();
                let held = match taken {
                    true => Some(hold(&client, "a").await),
                    false => None,
                };
                cluster.fail_next(faults.clone());
                interrupted(door(&client, "b"), polls).await;
                until("nobody waits", async || waiting(&client).await.is_empty()).await;
                drop(held);
                until("the lock is idle", async || is_idle(&client).await).await;
                sleep(TTL * 2).await;
                assert!(is_idle(&client).await, "{faults:?} {taken} {polls}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_dropped_while_the_cluster_was_away_is_released_when_it_is_back() {
    let (cluster, client) = cluster();
    let held = hold(&client, "a").await;
    let waiter = queued(&client, door(&client, "b").wait_ttl(TTL * 1_000)).await;
    cluster.set_down(true);
    waiter.abort();
    drop(held);
    sleep(Duration::from_secs(120)).await;
    cluster.set_down(false);
    until("the lock is idle", async || is_idle(&client).await).await;
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_crosses_the_drop_goes_to_the_next() {
    let (_, client) = cluster();
    let held = hold(&client, "a").await;
    let dropped = queued(&client, door(&client, "b")).await;
    let next = queued(&client, door(&client, "c")).await;
    // The grant of b is in the same entry as the release; b goes before it can hear of it.
    let release = pin!(held.release());
    dropped.abort();
    release.await.expect("answered");
    drop(granted(next).await);
}

#[tokio::test(start_paused = true)]
async fn a_circle_of_waits_is_told_to_the_one_that_closes_it() {
    let (_, client) = cluster();
    let flow = |name: &str| {
        let name = Name::parse("owner", name).expect("a name");
        Owner::new(name.clone(), name)
    };
    let lock = |key: &str, owner: &str| client.lock(key).holder(flow(owner)).ttl(TTL);
    let _door = lock("door", "a").acquire().await.expect("free");
    let _window = lock("window", "b").acquire().await.expect("free");
    let waiter = lock("door", "b");
    let waiter = queued(&client, waiter).await;
    let error = lock("window", "a").acquire().await.expect_err("a circle");
    assert_eq!(
        error.to_string(),
        "waiting for lock window would be a deadlock: a waits for window, b waits for door; \
         release what you hold, and take locks in one order"
    );
    assert!(!waiter.is_finished());
    // Without a holder of their own, acquisitions of one process are flows of their own.
    let _one = client.lock("one").acquire().await.expect("free");
    let same_process = client.lock("one").wait(TTL).acquire().await;
    let error = same_process.expect_err("it is held");
    assert!(matches!(error, AcquireError::TimedOut { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_operator_can_cancel_a_wait() {
    let (_, client) = cluster();
    let _held = hold(&client, "a").await;
    let waiter = queued(&client, door(&client, "b")).await;
    let all = Waiters {
        key: key(),
        after: None,
        limit: 0,
    };
    let member = client.lock_waiters(all).await.expect("read").rows.remove(0);
    assert!(matches!(member.place, Place::Waiting { .. }));
    let cancelled = client.lock_cancel_wait(&key(), member.id.id).await;
    assert_eq!(cancelled.expect("answered"), WaitCancelled::Cancelled);
    let error = waiter.await.expect("not aborted").expect_err("cancelled");
    assert_eq!(error.to_string(), "the wait for lock door was cancelled");
}

#[tokio::test(start_paused = true)]
async fn a_guard_keeps_its_hold_and_knows_when_it_is_lost() {
    let (cluster, client) = cluster();
    let guard = hold(&client, "a").await;
    for _ in 0..5 {
        sleep(TTL).await;
        cluster.tick();
    }
    assert_eq!(guard.state(), LeaseState::Safe);
    let mut states = guard.watch_state();
    cluster.set_down(true);
    states.changed().await.expect("the guard lives");
    assert_eq!(*states.borrow_and_update(), LeaseState::Jeopardy);
    states.changed().await.expect("the guard lives");
    let unconfirmed = LeaseState::Lost(LostReason::Unconfirmed);
    assert_eq!(*states.borrow_and_update(), unconfirmed);
    assert!(guard.lost().is_cancelled() && guard.remaining().is_zero());
    cluster.set_down(false);
    drop(guard);
    until("the lock is idle", async || is_idle(&client).await).await;
}

#[tokio::test(start_paused = true)]
async fn a_revoked_hold_is_lost_and_the_next_has_a_greater_token() {
    let (_, client) = cluster();
    let guard = hold(&client, "a").await;
    let waiter = queued(&client, door(&client, "b")).await;
    let revoked = client.lock_revoke(&key(), Some(guard.token()), "ops").await;
    assert_eq!(revoked.expect("answered").len(), 1);
    let next = granted(waiter).await;
    assert!(next.token() > guard.token());
    let lost = timeout(TTL, guard.lost().cancelled_owned()).await;
    lost.expect("told within a TTL");
    let LeaseState::Lost(LostReason::Refused(refusal)) = guard.state() else {
        panic!("{:?}", guard.state());
    };
    assert!(matches!(refusal, Refusal::Fenced { .. }), "{refusal}");
    drop(guard);
    sleep(TTL).await;
    assert_eq!(next.state(), LeaseState::Safe, "a late drop is harmless");
}

#[tokio::test(start_paused = true)]
async fn shared_counting_and_reentrant_locks_admit_whom_they_should() {
    let (_, client) = cluster();
    let _reader = door(&client, "a").shared().acquire().await.expect("free");
    let _other = door(&client, "b").shared().acquire().await.expect("shared");
    let writer = door(&client, "c").try_acquire().await;
    assert!(matches!(writer, Err(AcquireError::Busy { holders, .. }) if holders.len() == 2));
    let pool = || client.lock("pool").permit_of(2).ttl(TTL);
    let (one, two) = (pool().acquire().await, pool().acquire().await);
    let (one, two) = (one.expect("a permit"), two.expect("a permit"));
    assert!(two.token() > one.token());
    let third = pool().try_acquire().await.expect_err("two permits");
    assert!(third.is_contention());
    let me = Name::parse("owner", "me").expect("a name");
    let again = || {
        client
            .lock("room")
            .holder(Owner::new(me.clone(), me.clone()))
    };
    let outer = again().reentrant().acquire().await.expect("free");
    let inner = again().reentrant().acquire().await.expect("its own");
    assert_eq!(inner.token(), outer.token());
    outer.release().await.expect("answered");
    let room = client.lock("room").try_acquire().await;
    room.expect_err("the inner one still holds it");
    inner.release().await.expect("answered");
    drop(client.lock("room").try_acquire().await.expect("free"));
}

#[tokio::test(start_paused = true)]
async fn a_leader_proclaims_is_observed_and_resigns() {
    let (_, client) = cluster();
    let election = client.election("door").expect("a name");
    let mut seen = election.observe();
    assert_eq!(seen.next().await.expect("open").expect("read"), None);
    let first = election.clone().candidate("a").campaign("a:1").await;
    let first = first.expect("elected");
    assert_eq!(proclaimed(&mut seen, "a:1").await.candidate.as_str(), "a");
    first.proclaim("a:2").await.expect("leads");
    proclaimed(&mut seen, "a:2").await;
    let other = election.clone().candidate("b");
    let campaign = tokio::spawn(async move { other.campaign("b:1").await });
    until("it stands", async || waiting(&client).await == ["b"]).await;
    let token = first.token();
    first.resign().await.expect("answered");
    let second = campaign.await.expect("not aborted").expect("elected");
    assert!(second.token() > token);
    assert_eq!(
        proclaimed(&mut seen, "b:1").await.fencing_token,
        second.token()
    );
    drop(second);
    let nobody = async || {
        let leader = election.leader().await.expect("read");
        leader.is_none()
    };
    until("nobody leads", nobody).await;
}

type Seen =
    futures::stream::BoxStream<'static, Result<Option<Leader>, quorate_client::ClientError>>;

/// Goes on until this value is seen.
async fn proclaimed(seen: &mut Seen, value: &str) -> Leader {
    let deadline = Duration::from_secs(60);
    loop {
        let next = timeout(deadline, seen.next()).await.expect("in time");
        let leader = next.expect("open").expect("read");
        match leader {
            Some(leader) if leader.value == value.as_bytes() => return leader,
            _ => {}
        }
    }
}
