//! Every scenario of the original's own lock tests, and those of what it cannot do, on one node in
//! process and on three nodes over sockets.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::cluster::{Cluster, Result, soon};
use quorate_client::statemachine::lock::Released;
use quorate_client::{LeaseState, LostReason};
use quorate_packlock::{
    PACK_LOCK_FILE_NAME, PACK_LOCK_REL_PATH, PackLock, PackLockError, PackLockErrorOrCancelled,
    PackLocks, call_chain,
};
use tokio::sync::{Barrier, Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

macro_rules! scenarios {
    ($($name:ident),* $(,)?) => {
        mod on_one_node {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $name() -> super::Result {
                let cluster = super::Cluster::one().await?;
                super::$name(&cluster).await?;
                cluster.shutdown().await;
                Ok(())
            })*
        }
        mod on_three_nodes {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $name() -> super::Result {
                let cluster = super::Cluster::three().await?;
                super::$name(&cluster).await?;
                cluster.shutdown().await;
                Ok(())
            })*
        }
    };
}

scenarios! {
    open_and_acquire_create_nothing,
    the_path_is_that_of_the_original,
    a_second_try_is_busy_while_the_pack_is_held,
    a_dropped_guard_releases,
    a_try_right_after_the_drop_finds_the_pack_free,
    a_blocking_acquire_waits_for_the_holder,
    distinct_packs_do_not_contend,
    two_tasks_take_turns,
    one_holder_at_a_time_among_a_hundred_tasks,
    a_hundred_distinct_packs_are_held_at_once,
    overlapping_trees_in_one_task_end,
    overlapping_trees_in_two_tasks_end,
    dispatch_is_bounded_by_its_semaphore,
    a_cancellable_acquire_of_a_free_pack_is_granted,
    a_cancel_while_waiting_returns_while_the_pack_is_still_held,
    after_a_cancel_the_next_caller_gets_the_pack,
    a_cancel_before_asks_the_cluster_nothing,
    a_wait_that_is_dropped_leaves_nothing,
    a_cancel_that_races_the_grant_leaves_nothing,
    a_revoked_hold_is_known_to_its_guard,
    two_hosts_with_different_roots_exclude_each_other,
    long_and_strange_paths_are_locked_too,
    namespaces_do_not_contend,
    a_release_says_whether_the_pack_was_still_held,
    a_wait_has_the_limit_it_was_given,
    chains_that_wait_in_a_circle_are_found_out,
}

async fn open_and_acquire_create_nothing(cluster: &Cluster) -> Result {
    let pack = cluster.pack("new")?;
    let lock = cluster.locks()?.open(&pack)?;
    let key = lock.key().clone();
    assert!(cluster.lock(&key).await?.is_none(), "open locks nothing");
    let _hold = soon(lock.acquire_async()).await??;
    assert!(cluster.lock(&key).await?.is_some());
    assert_eq!(std::fs::read_dir(&pack)?.count(), 0, "no file was made");

    let missing = pack.join("not/yet");
    let _hold = soon(cluster.locks()?.open(&missing)?.acquire_async()).await??;
    assert!(!missing.exists(), "no directory was made");
    Ok(())
}

async fn the_path_is_that_of_the_original(cluster: &Cluster) -> Result {
    let pack = cluster.pack("pack")?;
    let mut lock = cluster.locks()?.open(&pack)?;
    assert_eq!(lock.path(), pack.join(PACK_LOCK_REL_PATH));
    assert!(lock.path().starts_with(&pack));
    assert_eq!(lock.path().file_name(), Some(PACK_LOCK_FILE_NAME.as_ref()));

    let hold = soon(cluster.open("pack")?.acquire_async()).await??;
    assert_eq!(hold.path(), pack.join(PACK_LOCK_REL_PATH));
    let busy = lock.try_acquire().expect_err("it is held");
    assert_eq!(busy.path(), pack.join(PACK_LOCK_REL_PATH));
    Ok(())
}

async fn a_second_try_is_busy_while_the_pack_is_held(cluster: &Cluster) -> Result {
    let mut first = cluster.locks()?.owner("host-a").open(&cluster.pack("p")?)?;
    let _held = first.acquire()?;
    let mut second = cluster.open("p")?;
    match second.try_acquire() {
        Err(PackLockError::Busy { path, holder, .. }) => {
            assert_eq!(path, cluster.pack("p")?.join(PACK_LOCK_REL_PATH));
            assert_eq!(holder.as_deref(), Some("host-a"));
        }
        other => panic!("expected Busy, got {other:?}"),
    }
    Ok(())
}

async fn a_dropped_guard_releases(cluster: &Cluster) -> Result {
    let mut first = cluster.open("p")?;
    drop(first.acquire()?);
    let mut second = cluster.open("p")?;
    drop(second.acquire()?);
    let hold = soon(cluster.open("p")?.acquire_async()).await??;
    drop(hold);
    cluster.until_idle(second.key()).await
}

async fn a_try_right_after_the_drop_finds_the_pack_free(cluster: &Cluster) -> Result {
    for _ in 0..20 {
        drop(soon(cluster.open("p")?.acquire_async()).await??);
        let mut lock = cluster.open("p")?;
        drop(lock.try_acquire()?);
        drop(lock.try_acquire()?);
    }
    Ok(())
}

async fn a_blocking_acquire_waits_for_the_holder(cluster: &Cluster) -> Result {
    let hold = soon(cluster.open("p")?.acquire_async()).await??;
    let (token, mut lock) = (hold.token(), cluster.open("p")?);
    let key = lock.key().clone();
    let (acquired, mut second) = oneshot::channel();
    let thread = std::thread::spawn(move || {
        let token = lock.acquire().map(|guard| guard.token());
        drop(acquired.send(token));
    });
    cluster.until_waiting(&key, 1).await?;
    assert!(
        second.try_recv().is_err(),
        "it waits while the pack is held"
    );
    drop(hold);
    assert!(
        soon(second).await??? > token,
        "it is granted after the holder"
    );
    thread.join().expect("the thread ends");
    Ok(())
}

async fn distinct_packs_do_not_contend(cluster: &Cluster) -> Result {
    let mut a = cluster.open("a")?;
    let _a = a.acquire()?;
    let mut b = cluster.open("b")?;
    let _b = b.try_acquire()?;
    Ok(())
}

/// Gives others who are ready the chance to run, so many times.
async fn let_others_run(times: u32) {
    for _ in 0..times {
        tokio::task::yield_now().await;
    }
}

/// What is inside a critical section, and how many were at the most.
#[derive(Default)]
struct Inside {
    now: AtomicUsize,
    peak: AtomicUsize,
}

impl Inside {
    async fn work(&self) {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.peak.fetch_max(now, Ordering::SeqCst);
        let_others_run(20).await;
        self.now.fetch_sub(1, Ordering::SeqCst);
    }

    fn peak(&self) -> usize {
        self.peak.load(Ordering::SeqCst)
    }
}

/// Holds the pack for a while.
async fn turn(lock: PackLock, inside: Arc<Inside>) -> Result {
    let _hold = lock.acquire_async().await?;
    inside.work().await;
    Ok(())
}

async fn all(mut tasks: JoinSet<Result>) -> Result {
    while let Some(ended) = soon(tasks.join_next()).await? {
        ended??;
    }
    Ok(())
}

async fn two_tasks_take_turns(cluster: &Cluster) -> Result {
    let inside = Arc::new(Inside::default());
    let mut tasks = JoinSet::new();
    for _ in 0..2 {
        tasks.spawn(turn(cluster.open("p")?, inside.clone()));
    }
    all(tasks).await?;
    assert_eq!(inside.peak(), 1);
    Ok(())
}

async fn one_holder_at_a_time_among_a_hundred_tasks(cluster: &Cluster) -> Result {
    let inside = Arc::new(Inside::default());
    let mut tasks = JoinSet::new();
    for _ in 0..100 {
        tasks.spawn(turn(cluster.open("p")?, inside.clone()));
    }
    all(tasks).await?;
    assert_eq!(inside.peak(), 1, "one holder at a time");
    cluster.until_idle(cluster.open("p")?.key()).await
}

async fn a_hundred_distinct_packs_are_held_at_once(cluster: &Cluster) -> Result {
    let everybody = Arc::new(Barrier::new(100));
    let mut tasks = JoinSet::new();
    for number in 0..100 {
        let lock = cluster.open(&format!("pack-{number}"))?;
        let everybody = everybody.clone();
        tasks.spawn(async move {
            let _hold = lock.acquire_async().await?;
            // Nobody passes before all hold their packs.
            everybody.wait().await;
            Ok(())
        });
    }
    all(tasks).await
}

async fn walk(locks: PackLocks, packs: Vec<PathBuf>) -> Result {
    for pack in packs {
        let _hold = locks.open(&pack)?.acquire_async().await?;
        let_others_run(20).await;
    }
    Ok(())
}

fn trees(cluster: &Cluster) -> Result<[Vec<PathBuf>; 2]> {
    let [p1, p2, p3, p4] = ["1", "2", "3", "4"].map(|name| cluster.pack(name));
    let (p2, p3) = (p2?, p3?);
    Ok([vec![p1?, p2.clone(), p3.clone()], vec![p2, p3, p4?]])
}

/// As the original's own test has it: both walks are branches of one task.
async fn overlapping_trees_in_one_task_end(cluster: &Cluster) -> Result {
    let (locks, [a, b]) = (cluster.locks()?, trees(cluster)?);
    let walks = async { tokio::join!(walk(locks.clone(), a), walk(locks, b)) };
    let (a, b) = soon(walks).await?;
    a.and(b)
}

async fn overlapping_trees_in_two_tasks_end(cluster: &Cluster) -> Result {
    let mut tasks = JoinSet::new();
    for tree in trees(cluster)? {
        tasks.spawn(walk(cluster.locks()?, tree));
    }
    all(tasks).await
}

async fn dispatch_is_bounded_by_its_semaphore(cluster: &Cluster) -> Result {
    for (permits, packs) in [(8, 32), (1, 8)] {
        let (semaphore, inside) = (
            Arc::new(Semaphore::new(permits)),
            Arc::new(Inside::default()),
        );
        let mut tasks = JoinSet::new();
        for number in 0..packs {
            let lock = cluster.open(&format!("pack-{number}"))?;
            let (semaphore, inside) = (semaphore.clone(), inside.clone());
            tasks.spawn(async move {
                let _permit = semaphore.acquire().await?;
                turn(lock, inside).await
            });
        }
        all(tasks).await?;
        assert!(inside.peak() <= permits);
    }
    Ok(())
}

async fn a_cancellable_acquire_of_a_free_pack_is_granted(cluster: &Cluster) -> Result {
    let never = CancellationToken::new();
    let hold = soon(cluster.open("p")?.acquire_cancellable(&never)).await??;
    assert_eq!(hold.state(), LeaseState::Safe);
    Ok(())
}

async fn a_cancel_while_waiting_returns_while_the_pack_is_still_held(cluster: &Cluster) -> Result {
    let hold = soon(cluster.open("p")?.acquire_async()).await??;
    let lock = cluster.open("p")?;
    let (key, cancel) = (lock.key().clone(), CancellationToken::new());
    let waiting = tokio::spawn({
        let cancel = cancel.clone();
        async move {
            let outcome = lock.acquire_cancellable(&cancel).await;
            (outcome, Instant::now())
        }
    });
    cluster.until_waiting(&key, 1).await?;
    let cancelled_at = Instant::now();
    cancel.cancel();
    let (outcome, returned_at) = soon(waiting).await??;
    println!("cancelled after {:?}", returned_at - cancelled_at);
    assert!(matches!(outcome, Err(PackLockErrorOrCancelled::Cancelled)));
    assert_eq!(hold.state(), LeaseState::Safe, "the holder never let go");
    // The place in the queue goes while the pack is still held: nobody is granted it later.
    cluster.until_waiting(&key, 0).await?;
    let view = cluster.lock(&key).await?.ok_or("it is held")?;
    assert_eq!(view.holders.len(), 1);
    assert_eq!(view.holders[0].fencing_token(), Some(hold.token()));
    Ok(())
}

async fn after_a_cancel_the_next_caller_gets_the_pack(cluster: &Cluster) -> Result {
    let hold = soon(cluster.open("p")?.acquire_async()).await??;
    let lock = cluster.open("p")?;
    let (key, cancel) = (lock.key().clone(), CancellationToken::new());
    let cancelled = tokio::spawn({
        let cancel = cancel.clone();
        async move { lock.acquire_cancellable(&cancel).await.map(drop) }
    });
    cluster.until_waiting(&key, 1).await?;
    let next = tokio::spawn(cluster.open("p")?.acquire_async());
    cluster.until_waiting(&key, 2).await?;
    cancel.cancel();
    assert!(soon(cancelled).await??.is_err());
    cluster.until_waiting(&key, 1).await?;
    let token = hold.token();
    hold.release().await?;
    let next = soon(next).await???;
    assert!(next.token() > token);
    drop(next);
    cluster.until_idle(&key).await
}

async fn a_cancel_before_asks_the_cluster_nothing(cluster: &Cluster) -> Result {
    let cancel = CancellationToken::new();
    cancel.cancel();
    // The pack is free, and yet the answer is Cancelled.
    let lock = cluster.open("p")?;
    let key = lock.key().clone();
    let outcome = soon(lock.acquire_cancellable(&cancel)).await?;
    assert!(matches!(outcome, Err(PackLockErrorOrCancelled::Cancelled)));
    assert!(cluster.lock(&key).await?.is_none());
    drop(cluster.open("p")?.try_acquire()?);
    Ok(())
}

async fn a_wait_that_is_dropped_leaves_nothing(cluster: &Cluster) -> Result {
    let hold = soon(cluster.open("p")?.acquire_async()).await??;
    let key = cluster.open("p")?.key().clone();
    let dropped = tokio::spawn(cluster.open("p")?.acquire_async());
    cluster.until_waiting(&key, 1).await?;
    dropped.abort();
    assert!(
        soon(dropped)
            .await?
            .is_err_and(|error| error.is_cancelled())
    );
    cluster.until_waiting(&key, 0).await?;
    assert_eq!(hold.state(), LeaseState::Safe);
    drop(hold);
    cluster.until_idle(&key).await?;
    drop(cluster.open("p")?.try_acquire()?);
    Ok(())
}

async fn a_cancel_that_races_the_grant_leaves_nothing(cluster: &Cluster) -> Result {
    let key = cluster.open("p")?.key().clone();
    let (mut granted, mut cancelled) = (0, 0);
    for round in 0..60_u32 {
        let hold = soon(cluster.open("p")?.acquire_async()).await??;
        let (lock, cancel) = (cluster.open("p")?, CancellationToken::new());
        let racing = tokio::spawn({
            let cancel = cancel.clone();
            async move { lock.acquire_cancellable(&cancel).await.map(drop) }
        });
        if round % 3 != 0 {
            cluster.until_waiting(&key, 1).await?;
        }
        if round % 2 == 0 {
            // The cluster has granted the pack, and the waiter is about to hear it.
            soon(hold.release()).await??;
            let_others_run(round).await;
            cancel.cancel();
        } else {
            // Which of the two the cluster hears first is open.
            cancel.cancel();
            soon(hold.release()).await??;
        }
        match soon(racing).await?? {
            Ok(()) => granted += 1,
            Err(PackLockErrorOrCancelled::Cancelled) => cancelled += 1,
            Err(other) => return Err(other.into()),
        }
        cluster.until_idle(&key).await?;
    }
    println!("{granted} grants and {cancelled} cancels won");
    Ok(())
}

async fn a_revoked_hold_is_known_to_its_guard(cluster: &Cluster) -> Result {
    let lock = cluster.locks()?.ttl(Duration::from_secs(2));
    let lock = lock.open(&cluster.pack("p")?)?;
    let key = lock.key().clone();
    let hold = soon(lock.acquire_async()).await??;
    let (lost, token) = (hold.lost(), hold.token());
    assert!(!lost.is_cancelled());
    cluster
        .client
        .lock_revoke(&key, None, "an operator")
        .await?;
    // The pack is free for others from then on, whatever the holder knows yet.
    let next = soon(cluster.open("p")?.acquire_async()).await??;
    assert!(next.token() > token);
    soon(lost.cancelled()).await?;
    assert!(matches!(
        hold.state(),
        LeaseState::Lost(LostReason::Refused(_))
    ));
    assert!(hold.remaining().is_zero());
    drop(hold);
    assert_eq!(
        next.state(),
        LeaseState::Safe,
        "the late drop releases nobody else's hold"
    );
    assert!(cluster.lock(&key).await?.is_some());
    Ok(())
}

async fn two_hosts_with_different_roots_exclude_each_other(cluster: &Cluster) -> Result {
    let (srv, home) = (cluster.pack("srv")?, cluster.pack("home/ci")?);
    let here = cluster.locks()?.owner("here").root(&srv)?;
    let there = cluster.locks()?.owner("there").root(&home)?;
    std::fs::create_dir_all(srv.join("tools/vim"))?;
    let hold = soon(here.open(&srv.join("tools/vim"))?.acquire_async()).await??;
    // On the other host the pack is not checked out yet.
    let mut same = there.open(&home.join("tools/vim"))?;
    match same.try_acquire() {
        Err(PackLockError::Busy { holder, .. }) => assert_eq!(holder.as_deref(), Some("here")),
        other => panic!("expected Busy, got {other:?}"),
    }
    let mut other = there.open(&home.join("tools/emacs"))?;
    drop(other.try_acquire()?);
    drop(hold);
    drop(same.try_acquire()?);
    let outside = there.open(&srv).expect_err("it is not below the root");
    assert!(outside.to_string().contains("below the root"), "{outside}");
    Ok(())
}

async fn long_and_strange_paths_are_locked_too(cluster: &Cluster) -> Result {
    let base = cluster.pack("base")?.canonicalize()?;
    let long: PathBuf = base.join(vec!["x".repeat(200); 4].join("/"));
    let strange = base.join(OsStr::from_bytes(b"a\xff%\n"));
    for (path, word) in [(&long, "%sha256-"), (&strange, "a%FF%25%0A")] {
        let lock = cluster.locks()?.open(path)?;
        let key = lock.key().clone();
        assert!(key.as_str().contains(word), "{key}");
        let _hold = soon(lock.acquire_async()).await??;
        assert!(cluster.locks()?.open(path)?.try_acquire().is_err());
        // The note tells an operator what no name could hold.
        let view = cluster.lock(&key).await?.ok_or("it is held")?;
        assert_eq!(view.holders[0].metadata, path.as_os_str().as_bytes());
    }
    Ok(())
}

async fn namespaces_do_not_contend(cluster: &Cluster) -> Result {
    let pack = cluster.pack("p")?;
    let _hold = soon(cluster.open("p")?.acquire_async()).await??;
    let other = PackLocks::new(cluster.client.clone(), "other")?;
    drop(other.open(&pack)?.try_acquire()?);
    Ok(())
}

async fn a_release_says_whether_the_pack_was_still_held(cluster: &Cluster) -> Result {
    let hold = soon(cluster.open("p")?.acquire_async()).await??;
    let (fencing_token, lost) = (hold.token(), hold.lost());
    let released = soon(hold.release()).await??;
    assert_eq!(released, Released::Released { fencing_token });
    assert!(lost.is_cancelled());

    let mut lock = cluster.open("p")?;
    let key = lock.key().clone();
    let guard = lock.try_acquire()?;
    cluster
        .client
        .lock_revoke(&key, None, "an operator")
        .await?;
    assert!(matches!(guard.release()?, Released::NotHeld { .. }));
    Ok(())
}

async fn a_wait_has_the_limit_it_was_given(cluster: &Cluster) -> Result {
    let _hold = soon(cluster.open("p")?.acquire_async()).await??;
    let hurried = cluster.locks()?.wait(Duration::from_millis(20));
    let lock = hurried.open(&cluster.pack("p")?)?;
    let key = lock.key().clone();
    let outcome = soon(tokio::spawn(lock.acquire_async())).await??;
    assert!(
        matches!(outcome, Err(PackLockError::TimedOut { .. })),
        "{outcome:?}"
    );
    cluster.until_waiting(&key, 0).await
}

async fn chains_that_wait_in_a_circle_are_found_out(cluster: &Cluster) -> Result {
    let both = Arc::new(Barrier::new(2));
    let mut tasks = JoinSet::new();
    for [first, second] in [["a", "b"], ["b", "a"]] {
        let (first, second) = (cluster.open(first)?, cluster.open(second)?);
        let both = both.clone();
        tasks.spawn(call_chain(async move {
            let _first = first.acquire_async().await?;
            both.wait().await;
            second.acquire_async().await.map(drop)
        }));
    }
    let mut ends = Vec::new();
    while let Some(ended) = soon(tasks.join_next()).await? {
        ends.push(ended?);
    }
    let deadlocks = ends.iter().filter_map(|end| end.as_ref().err());
    let deadlocks: Vec<String> = deadlocks.map(ToString::to_string).collect();
    assert_eq!(
        deadlocks.len(),
        1,
        "one of them must give up: {deadlocks:?}"
    );
    assert!(deadlocks[0].contains("deadlock"), "{}", deadlocks[0]);
    Ok(())
}
