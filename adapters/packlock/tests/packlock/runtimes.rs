//! Pack locks on threads and in runtimes of every kind, and without a cluster that answers.

use std::time::Duration;

use crate::cluster::{Cluster, Result, soon};
use quorate_client::{Client, LeaseState, LostReason};
use quorate_packlock::{PACK_LOCK_REL_PATH, PackLockError, PackLocks};
use tokio::runtime::{Builder, Runtime};

/// Nodes on a runtime of their own, as they would be on machines of their own.
fn apart() -> Result<(Runtime, Cluster)> {
    let runtime = Runtime::new()?;
    let cluster = runtime.block_on(Cluster::three())?;
    Ok((runtime, cluster))
}

#[test]
fn a_thread_without_a_runtime_acquires_and_releases() -> Result {
    let (nodes, cluster) = apart()?;
    let mut lock = cluster.open("p")?;
    let first = lock.acquire()?.token();
    let guard = lock.try_acquire()?;
    assert!(guard.token() > first);
    assert_eq!(guard.state(), LeaseState::Safe);
    guard.release()?;
    drop(lock.acquire()?);
    nodes.block_on(cluster.until_idle(lock.key()))?;
    nodes.block_on(cluster.shutdown());
    Ok(())
}

#[test]
fn blocking_calls_and_drops_inside_runtimes_do_not_panic() -> Result {
    let (nodes, cluster) = apart()?;
    let current = Builder::new_current_thread().enable_all().build()?;
    let several = Builder::new_multi_thread().worker_threads(2).build()?;
    for runtime in [&current, &several] {
        runtime.block_on(async {
            let mut lock = cluster.open("p")?;
            drop(lock.acquire()?);
            lock.try_acquire()?.release()?;
            let mut moved = cluster.open("p")?;
            let inside_a_task = async move { moved.acquire().map(drop) };
            tokio::spawn(inside_a_task).await??;
            Ok::<_, crate::cluster::Error>(())
        })?;
    }
    nodes.block_on(cluster.shutdown());
    Ok(())
}

#[test]
fn a_hold_outlives_the_runtime_that_acquired_it() -> Result {
    let (nodes, cluster) = apart()?;
    let locks = cluster.locks()?.ttl(Duration::from_millis(900));
    let lock = locks.open(&cluster.pack("p")?)?;
    let key = lock.key().clone();
    let brief = Builder::new_current_thread().build()?;
    let hold = brief.block_on(lock.acquire_async())?;
    drop(brief);
    nodes.block_on(async {
        // Two renewals: with none the hold would be over.
        for _ in 0..2 {
            let renewed = expires_at(&cluster, &key).await?;
            crate::cluster::until(async || Ok(expires_at(&cluster, &key).await? > renewed)).await?;
        }
        assert_eq!(hold.state(), LeaseState::Safe);
        Ok::<_, crate::cluster::Error>(())
    })?;
    drop(hold);
    nodes.block_on(cluster.until_idle(&key))?;
    nodes.block_on(cluster.shutdown());
    Ok(())
}

async fn expires_at(
    cluster: &Cluster,
    key: &quorate_client::statemachine::Name,
) -> Result<quorate_client::statemachine::Timestamp> {
    let view = cluster.lock(key).await?.ok_or("it is held")?;
    Ok(view.holders.first().ok_or("it is held")?.expires_at)
}

#[test]
fn what_is_dropped_as_the_last_thing_of_a_runtime_is_released() -> Result {
    let (nodes, cluster) = apart()?;
    let hold = nodes.block_on(cluster.open("held")?.acquire_async())?;
    for _ in 0..5 {
        let (free, held) = (cluster.open("free")?, cluster.open("held")?);
        let (free_key, held_key) = (free.key().clone(), held.key().clone());
        let brief = Builder::new_current_thread().enable_all().build()?;
        brief.block_on(async {
            drop(free.acquire_async().await?);
            let waiting = tokio::spawn(held.acquire_async());
            cluster.until_waiting(&held_key, 1).await?;
            drop(waiting);
            Ok::<_, crate::cluster::Error>(())
        })?;
        // Takes the wait with it.
        drop(brief);
        nodes.block_on(cluster.until_idle(&free_key))?;
        nodes.block_on(cluster.until_waiting(&held_key, 0))?;
    }
    assert_eq!(hold.state(), LeaseState::Safe);
    nodes.block_on(cluster.shutdown());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_is_lost_by_its_own_clock_when_the_cluster_is_gone() -> Result {
    let cluster = Cluster::three().await?;
    let locks = cluster.locks()?.ttl(Duration::from_millis(500));
    let hold = soon(locks.open(&cluster.pack("p")?)?.acquire_async()).await??;
    let lost = hold.lost();
    assert!(!lost.is_cancelled());
    cluster.shutdown().await;
    soon(lost.cancelled()).await?;
    assert_eq!(hold.state(), LeaseState::Lost(LostReason::Unconfirmed));
    Ok(())
}

#[tokio::test]
async fn a_cluster_that_does_not_answer_is_an_io_error_with_the_path() -> Result {
    let silent = Client::connect(["127.0.0.1:1"])?.with_timeout(Duration::from_millis(200));
    let dir = tempfile::tempdir()?;
    let locks = PackLocks::new(silent, "tests")?;
    let outcome = soon(locks.open(dir.path())?.acquire_async()).await?;
    for outcome in [
        outcome.map(drop),
        locks.open(dir.path())?.try_acquire().map(drop),
    ] {
        match outcome {
            Err(PackLockError::Io { path, source }) => {
                assert_eq!(path, dir.path().join(PACK_LOCK_REL_PATH));
                assert!(source.to_string().contains("127.0.0.1:1"), "{source}");
            }
            other => panic!("expected Io, got {other:?}"),
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_path_that_cannot_be_a_pack_is_an_io_error_with_the_path() -> Result {
    let unasked = Client::connect(["127.0.0.1:1"])?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("file");
    std::fs::write(&file, "")?;
    let locks = PackLocks::new(unasked.clone(), "tests")?;
    let refused = locks.open(&file).expect_err("a file is no pack");
    assert_eq!(refused.path(), file.join(PACK_LOCK_REL_PATH));
    assert!(refused.to_string().contains("no directory"), "{refused}");
    let namespace = PackLocks::new(unasked, "a/b").expect_err("it holds a slash");
    assert!(namespace.to_string().contains("slash"), "{namespace}");
    Ok(())
}

#[tokio::test]
async fn arguments_out_of_bounds_say_which_and_how_far() -> Result {
    let cluster = Cluster::one().await?;
    let pack = cluster.pack("p")?;
    let zero = cluster.locks()?.ttl(Duration::ZERO);
    let nameless = cluster.locks()?.owner("");
    for (locks, word) in [(zero, "ttl_ms"), (nameless, "owner_id")] {
        let refused = soon(locks.open(&pack)?.acquire_async()).await?;
        let refused = refused.expect_err(word).to_string();
        assert!(refused.contains(word), "{refused}");
    }
    Ok(())
}

#[test]
fn the_working_directory_and_relative_paths_mean_the_absolute_ones() -> Result {
    let unasked = Client::connect(["127.0.0.1:1"]);
    let locks = PackLocks::new(unasked?, "tests")?;
    let here = std::env::current_dir()?;
    for (relative, absolute) in [
        ("", here.clone()),
        (".", here.clone()),
        ("src", here.join("src")),
    ] {
        let (a, b) = (locks.open(relative.as_ref())?, locks.open(&absolute)?);
        assert_eq!(a.key(), b.key());
        assert_eq!(a.canonical_path(), absolute.canonicalize()?);
    }
    Ok(())
}
