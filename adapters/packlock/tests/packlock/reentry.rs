//! Who would wait for itself, and who only for a neighbour.

use std::os::unix::fs::symlink;
use std::time::Duration;

use crate::cluster::{Cluster, Result, soon};
use quorate_packlock::{PackLockError, PackLockErrorOrCancelled, call_chain};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// Longer than any test: what is Busy in spite of it was so at once.
const LONG: Duration = Duration::from_secs(3600);

fn is_reentry<T>(outcome: &std::result::Result<T, PackLockError>) -> bool {
    matches!(outcome, Err(PackLockError::Busy { holder: None, .. }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nested_acquire_in_a_task_is_busy_and_does_not_hang() -> Result {
    let cluster = Cluster::one().await?;
    let (outer, inner) = (cluster.open("p")?, cluster.open("p")?);
    let key = outer.key().clone();
    let task = tokio::spawn(async move {
        let _hold = outer.acquire_async().await?;
        inner.acquire_async().await.map(drop)
    });
    let nested = soon(task).await??;
    assert!(is_reentry(&nested), "{nested:?}");
    cluster.until_idle(&key).await?;
    cluster.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn a_nested_acquire_without_a_task_is_busy_and_does_not_hang() -> Result {
    let cluster = Cluster::one().await?;
    let _hold = soon(cluster.open("p")?.acquire_async()).await??;
    let nested = soon(cluster.open("p")?.acquire_async()).await?;
    assert!(is_reentry(&nested), "{nested:?}");
    let never = CancellationToken::new();
    let nested = soon(cluster.open("p")?.acquire_cancellable(&never)).await?;
    let busy = matches!(
        nested,
        Err(PackLockErrorOrCancelled::Lock(PackLockError::Busy { .. }))
    );
    assert!(busy, "{nested:?}");
    Ok(())
}

#[tokio::test]
async fn without_patience_for_its_own_task_a_nested_acquire_is_busy_at_once() -> Result {
    let cluster = Cluster::one().await?;
    let locks = cluster.locks()?.reentry_wait(Duration::ZERO);
    let _hold = soon(cluster.open("p")?.acquire_async()).await??;
    let nested = soon(locks.open(&cluster.pack("p")?)?.acquire_async()).await?;
    assert!(is_reentry(&nested), "{nested:?}");
    Ok(())
}

#[tokio::test]
async fn a_child_that_leads_back_to_its_parent_is_busy_at_once_in_a_call_chain() -> Result {
    let cluster = Cluster::one().await?;
    let locks = cluster.locks()?.reentry_wait(LONG);
    let parent = cluster.pack("parent")?;
    let child = cluster.pack("parent/child")?;
    symlink(&parent, child.join("link"))?;
    let outcome = call_chain(async {
        let _parent = locks.open(&parent)?.acquire_async().await?;
        let _child = locks.open(&child)?.acquire_async().await?;
        for back in ["..", "link", "link/child/.."] {
            let again = locks.open(&child.join(back))?.acquire_async().await;
            assert!(is_reentry(&again), "{back}: {again:?}");
            // The same from a chain inside, and from a function that blocks.
            let lock = locks.open(&child.join(back))?;
            assert!(is_reentry(&call_chain(lock.acquire_async()).await));
            assert!(is_reentry(&locks.open(&child.join(back))?.acquire()));
        }
        Ok(())
    });
    soon(outcome).await?
}

#[tokio::test]
async fn branches_of_one_task_wait_for_each_other_as_long_as_it_takes_if_they_are_chains() -> Result
{
    let cluster = Cluster::one().await?;
    // Without chains the second branch would be Busy at once.
    let locks = cluster.locks()?.reentry_wait(Duration::ZERO);
    let (first, second) = (cluster.pack("p")?, cluster.pack("p")?);
    let key = locks.open(&first)?.key().clone();
    let (held, is_held) = oneshot::channel();
    let first = call_chain(async {
        let _hold = locks.open(&first)?.acquire_async().await?;
        let _ = held.send(());
        // Lets go when the other waits.
        cluster.until_waiting(&key, 1).await
    });
    let second = call_chain(async {
        is_held.await?;
        drop(locks.open(&second)?.acquire_async().await?);
        Ok(())
    });
    let (first, second) = soon(async { tokio::join!(first, second) }).await?;
    first.and(second)
}

#[tokio::test]
async fn a_hold_that_left_its_chain_is_still_a_reentry_for_its_task() -> Result {
    let cluster = Cluster::one().await?;
    let _hold = soon(call_chain(cluster.open("p")?.acquire_async())).await??;
    let nested = soon(cluster.open("p")?.acquire_async()).await?;
    assert!(is_reentry(&nested), "{nested:?}");
    Ok(())
}

#[tokio::test]
async fn two_tasks_on_one_thread_wait_for_each_other() -> Result {
    let cluster = Cluster::one().await?;
    // If tasks were told apart by their thread, the second would be Busy at once.
    let locks = cluster.locks()?.reentry_wait(Duration::ZERO);
    let pack = cluster.pack("p")?;
    let (first, second) = (locks.open(&pack)?, locks.open(&pack)?);
    let key = first.key().clone();
    let (held, is_held) = oneshot::channel();
    let (go, may_go) = oneshot::channel::<()>();
    let first = tokio::spawn(async move {
        let hold = first.acquire_async().await?;
        let _ = held.send(());
        let _ = may_go.await;
        Ok::<_, PackLockError>(hold.token())
    });
    soon(is_held).await??;
    let second = tokio::spawn(async move { Ok(second.acquire_async().await?.token()) });
    cluster.until_waiting(&key, 1).await?;
    drop(go);
    let (first, second) = (soon(first).await???, soon(second).await??);
    assert!(second.map_err(|error: PackLockError| error)? > first);
    Ok(())
}

#[tokio::test]
async fn a_chain_may_hold_a_pack_again_that_it_has_released_or_lost() -> Result {
    let cluster = Cluster::one().await?;
    let outcome = call_chain(async {
        for _ in 0..3 {
            drop(cluster.open("p")?.acquire_async().await?);
        }
        let lock = cluster.locks()?.ttl(Duration::from_millis(300));
        let lock = lock.open(&cluster.pack("p")?)?;
        let key = lock.key().clone();
        let hold = lock.acquire_async().await?;
        cluster.client.lock_revoke(&key, None, "test").await?;
        hold.lost().cancelled().await;
        drop(cluster.open("p")?.acquire_async().await?);
        Ok(())
    });
    soon(outcome).await?
}

#[test]
fn a_thread_that_acquires_twice_is_busy_and_does_not_hang() -> Result {
    let runtime = tokio::runtime::Runtime::new()?;
    let cluster = runtime.block_on(Cluster::one())?;
    let (mut outer, mut inner) = (cluster.open("p")?, cluster.open("p")?);
    let guard = outer.acquire()?;
    assert!(is_reentry(&inner.acquire()));
    // A thread of its own is another chain: it waits.
    let key = inner.key().clone();
    let waiting = std::thread::spawn(move || inner.acquire().map(|guard| guard.token()));
    runtime.block_on(cluster.until_waiting(&key, 1))?;
    let token = guard.token();
    drop(guard);
    assert!(waiting.join().expect("it does not panic")? > token);
    runtime.block_on(cluster.shutdown());
    Ok(())
}

#[test]
fn blocking_the_only_thread_of_the_holder_is_busy_and_does_not_hang() -> Result {
    let nodes = tokio::runtime::Runtime::new()?;
    let cluster = nodes.block_on(Cluster::one())?;
    let (first, mut second) = (cluster.open("p")?, cluster.open("p")?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (held, is_held) = oneshot::channel();
        let holder = tokio::spawn(async move {
            let _hold = first.acquire_async().await?;
            let _ = held.send(());
            std::future::pending::<Result>().await
        });
        is_held.await?;
        assert!(is_reentry(&second.acquire()));
        holder.abort();
        Ok::<_, crate::cluster::Error>(())
    })?;
    nodes.block_on(cluster.shutdown());
    Ok(())
}
