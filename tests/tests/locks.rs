//! Locks on three real nodes: handed on, waited for and given up while leaders are killed.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use quorate_client::statemachine::lock::{Acquire, List, Mode, Waiters};
use quorate_client::statemachine::{Name, Owner, RequestId};
use quorate_client::{AcquireError, Client, LeaseState, LockBuilder, LockGuard};
use quorate_tests::cluster::{Cluster, Options, scenario};
use quorate_tests::wait::{PATIENCE, RECOVERY_MAX, until};
use tokio::task::JoinHandle;

const NODE: &str = env!("CARGO_BIN_EXE_test-node");
/// Longer than any time without a leader here: a hold never ends by itself.
const TTL: Duration = Duration::from_secs(60);

fn name(text: &str) -> Name {
    Name::parse("key", text).expect("a name")
}

async fn waiting(client: &Client, key: &str) -> Result<Vec<RequestId>> {
    let waiters = Waiters {
        key: name(key),
        after: None,
        limit: 0,
    };
    let page = client.lock_waiters(waiters).await?;
    Ok(page.rows.into_iter().map(|row| row.id).collect())
}

/// No lock is held or waited for.
async fn nothing_is_left(client: &Client) -> Result<()> {
    until("all locks to be idle", PATIENCE, async || {
        let all = List {
            prefix: String::new(),
            after: None,
            limit: 0,
        };
        let page = client.lock_list(all).await?;
        ensure!(page.rows.is_empty(), "{:?}", page.rows);
        Ok(Some(()))
    })
    .await
}

/// Starts an acquisition and waits until it has its place.
async fn queued(client: &Client, lock: LockBuilder, key: &str) -> Result<Waiter> {
    let before = waiting(client, key).await?.len();
    let call = tokio::spawn(async move { lock.acquire().await });
    until("the call to wait", PATIENCE, async || {
        Ok((waiting(client, key).await?.len() > before).then_some(()))
    })
    .await?;
    Ok(call)
}

type Waiter = JoinHandle<Result<LockGuard, AcquireError>>;

/// Tokens in the order in which they were held, and who is inside.
#[derive(Default)]
struct Door {
    inside: AtomicI64,
    tokens: Mutex<Vec<u64>>,
    passed: Vec<AtomicU64>,
    closed: AtomicBool,
}

impl Door {
    fn pass(&self, worker: usize, guard: &LockGuard) -> Result<()> {
        ensure!(
            !matches!(guard.state(), LeaseState::Lost(_)),
            "lost at once"
        );
        let before = self.inside.fetch_add(1, Ordering::SeqCst);
        ensure!(before == 0, "{} others hold the lock", before);
        let mut tokens = self.tokens.lock().expect("nobody panics");
        let last = tokens.last().copied().unwrap_or(0);
        ensure!(guard.token() > last, "{} after {last}", guard.token());
        tokens.push(guard.token());
        self.passed[worker].fetch_add(1, Ordering::Relaxed);
        self.inside.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }

    fn count(&self) -> u64 {
        let each = self.passed.iter();
        each.map(|count| count.load(Ordering::Relaxed)).sum()
    }

    async fn more(&self, passes: u64) -> Result<()> {
        let wanted = self.count() + passes;
        until("the lock to be handed on", RECOVERY_MAX, async || {
            Ok((self.count() >= wanted).then_some(()))
        })
        .await
    }
}

async fn pass_again_and_again(client: Client, worker: usize, door: Arc<Door>) -> Result<()> {
    while !door.closed.load(Ordering::Relaxed) {
        let lock = client.lock("door").owner(format!("w{worker}")).ttl(TTL);
        let guard = lock.acquire().await?;
        door.pass(worker, &guard)?;
        if worker.is_multiple_of(2) {
            guard.release().await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_lock_is_handed_on_by_many_while_leaders_are_killed() -> Result<()> {
    const WORKERS: usize = 24;
    scenario(Options::new(NODE, 3), async |cluster| {
        let door = Arc::new(Door {
            passed: (0..WORKERS).map(|_| AtomicU64::new(0)).collect(),
            ..Door::default()
        });
        let clients = [cluster.client()?, cluster.client()?];
        let workers = clients.iter().cycle().zip(0..WORKERS);
        let workers: Vec<_> = workers
            .map(|(client, at)| {
                tokio::spawn(pass_again_and_again(client.clone(), at, door.clone()))
            })
            .collect();
        for _ in 0..3 {
            door.more(300).await?;
            let leader = cluster.leader().await?;
            cluster.nodes[leader].kill()?;
            door.more(100).await?;
            cluster.nodes[leader].start()?;
            cluster.caught_up(leader).await?;
        }
        door.closed.store(true, Ordering::Relaxed);
        for worker in try_join_all(workers).await? {
            worker?;
        }
        let counts = door
            .passed
            .iter()
            .map(|count| count.load(Ordering::Relaxed));
        let (least, most) = (counts.clone().min(), counts.max());
        println!(
            "{} hand-overs, a worker got {least:?} to {most:?}",
            door.count()
        );
        ensure!(least > Some(0), "somebody never got the lock");
        nothing_is_left(&clients[0]).await?;
        cluster.digests_agree().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiter_keeps_its_place_when_the_node_that_holds_its_call_is_killed() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let client = cluster.client()?;
        let held = client.lock("door").ttl(TTL).acquire().await?;
        let waiter = queued(&client, client.lock("door").ttl(TTL), "door").await?;
        let before = waiting(&client, "door").await?;
        let leader = cluster.leader().await?;
        cluster.nodes[leader].kill()?;
        cluster.leader().await?;
        ensure!(waiting(&client, "door").await? == before, "another place");
        let token = held.token();
        held.release().await?;
        let guard = tokio::time::timeout(RECOVERY_MAX, waiter).await???;
        ensure!(guard.token() > token && guard.hold().id == before[0].id);
        guard.release().await?;
        cluster.nodes[leader].start()?;
        nothing_is_left(&client).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_place_of_a_client_that_died_is_passed_over() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let client = cluster.client()?;
        let held = client.lock("door").ttl(TTL).acquire().await?;
        let owner = name("dead");
        // Nobody gives a sign of life for this one.
        let orphan = Acquire {
            key: name("door"),
            id: RequestId {
                id: [7; 16],
                not_before: client.transport().seen_index(),
            },
            owner: Owner::new(owner.clone(), owner),
            mode: Mode::Exclusive,
            ttl_ms: 60_000,
            wait_ttl_ms: 500,
            max_wait_ms: None,
            reentrant: false,
            delay_ms: 0,
            metadata: Vec::new(),
        };
        client.execute(orphan).await?;
        let waiter = queued(&client, client.lock("door").ttl(TTL), "door").await?;
        until("the dead one's place to be gone", PATIENCE, async || {
            Ok((waiting(&client, "door").await?.len() == 1).then_some(()))
        })
        .await?;
        held.release().await?;
        tokio::time::timeout(RECOVERY_MAX, waiter)
            .await???
            .release()
            .await?;
        nothing_is_left(&client).await
    })
    .await
}

/// A lock that counts who is inside, by mode.
struct Room {
    key: &'static str,
    mode: Mode,
    readers: AtomicI64,
    writers: AtomicI64,
}

impl Room {
    fn new(key: &'static str, mode: Mode) -> Self {
        Self {
            key,
            mode,
            readers: AtomicI64::new(0),
            writers: AtomicI64::new(0),
        }
    }

    fn lock(&self, client: &Client, write: bool) -> LockBuilder {
        let lock = client.lock(self.key).ttl(TTL);
        match self.mode {
            Mode::Permit { of } => lock.permit_of(of),
            _ if write => lock,
            _ => lock.shared(),
        }
    }

    fn enter(&self, write: bool) -> Result<()> {
        let count = if write { &self.writers } else { &self.readers };
        let inside = count.fetch_add(1, Ordering::SeqCst) + 1;
        let (readers, writers) = (
            self.readers.load(Ordering::SeqCst),
            self.writers.load(Ordering::SeqCst),
        );
        match self.mode {
            Mode::Permit { of } => ensure!(readers + writers <= i64::from(of)),
            _ => ensure!(writers == 0 || (readers == 0 && writers == 1)),
        }
        ensure!(inside > 0);
        Ok(())
    }

    fn leave(&self, write: bool) {
        let count = if write { &self.writers } else { &self.readers };
        count.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Acquires and gives up at random until `closed`; how often it was inside.
async fn come_and_go(
    client: Client,
    rooms: Arc<Vec<Room>>,
    closed: Arc<AtomicBool>,
    inside: Arc<AtomicU64>,
) -> Result<()> {
    while !closed.load(Ordering::Relaxed) {
        let room = &rooms[fastrand::usize(..rooms.len())];
        let write = fastrand::u8(..3) == 0;
        let patience = Duration::from_micros(fastrand::u64(..40_000));
        let lock = room.lock(&client, write);
        // An acquisition that is dropped in the middle, at a moment of its own each time.
        let Ok(acquired) = tokio::time::timeout(patience, lock.acquire()).await else {
            continue;
        };
        let guard = acquired?;
        room.enter(write)?;
        inside.fetch_add(1, Ordering::Relaxed);
        tokio::task::yield_now().await;
        room.leave(write);
        drop(guard);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn acquisitions_given_up_at_random_leave_no_waiter_and_no_holder() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let client = cluster.client()?;
        let rooms = Arc::new(vec![
            Room::new("exclusive", Mode::Exclusive),
            Room::new("shared", Mode::Shared),
            Room::new("permits", Mode::Permit { of: 3 }),
        ]);
        let (closed, inside) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let workers: Vec<_> = (0..24)
            .map(|_| {
                let (rooms, closed) = (rooms.clone(), closed.clone());
                tokio::spawn(come_and_go(client.clone(), rooms, closed, inside.clone()))
            })
            .collect();
        for _ in 0..2 {
            visits(&inside, 200).await?;
            let leader = cluster.leader().await?;
            cluster.nodes[leader].kill()?;
            visits(&inside, 50).await?;
            cluster.nodes[leader].start()?;
            cluster.caught_up(leader).await?;
        }
        visits(&inside, 100).await?;
        closed.store(true, Ordering::Relaxed);
        for worker in try_join_all(workers).await? {
            worker?;
        }
        println!("{} times inside", inside.load(Ordering::Relaxed));
        nothing_is_left(&client).await?;
        cluster.digests_agree().await
    })
    .await
}

async fn visits(inside: &AtomicU64, more: u64) -> Result<()> {
    let wanted = inside.load(Ordering::Relaxed) + more;
    until("the locks to be acquired", RECOVERY_MAX, async || {
        Ok((inside.load(Ordering::Relaxed) >= wanted).then_some(()))
    })
    .await
}

/// Waiters on one lock: `QUORATE_WAITERS`, up to the limit of 10,000.
fn waiters() -> usize {
    let given = std::env::var("QUORATE_WAITERS").ok();
    given.and_then(|count| count.parse().ok()).unwrap_or(1_000)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_queue_is_served_to_its_end() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster: &mut Cluster| {
        let client = cluster.client()?.with_timeout(PATIENCE);
        let held = client.lock("door").ttl(TTL).acquire().await?;
        let calls = (0..waiters()).map(|_| {
            let lock = client.lock("door").ttl(TTL);
            tokio::spawn(async move { lock.acquire().await.map(drop) })
        });
        let calls: Vec<_> = calls.collect();
        until("all to wait", PATIENCE, async || {
            let view = client.lock_get(&name("door")).await?;
            let count = view.map_or(0, |view| view.lock.waiters as usize);
            ensure!(count == waiters(), "{count} wait");
            Ok(Some(()))
        })
        .await?;
        drop(held);
        for served in try_join_all(calls).await? {
            served?;
        }
        nothing_is_left(&client).await
    })
    .await
}
