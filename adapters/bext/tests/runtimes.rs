//! An embedded node and the plugin's callers on one runtime of the host.

use std::sync::Arc;

use bext_plugin_api::locking::LockingPlugin;
use quorate_bext::QuorateLocks;
use quorate_node::Node;
use tokio::task::LocalSet;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

const HOUR: u64 = 60 * 60 * 1_000;

struct Host {
    node: Node,
    locks: Arc<QuorateLocks>,
    _dir: tempfile::TempDir,
}

async fn host() -> Result<Host> {
    let dir = tempfile::tempdir()?;
    let node = Node::builder().data_dir(dir.path()).start().await?;
    let locks = Arc::new(QuorateLocks::over(node.client()).build()?);
    Ok(Host {
        node,
        locks,
        _dir: dir,
    })
}

fn use_lock(locks: &QuorateLocks, key: &str) -> std::result::Result<(), String> {
    let handle = locks.try_lock(key, HOUR)?.ok_or("nobody else wants it")?;
    locks.renew(&handle)?;
    locks.release(handle)
}

/// The one worker waits for the node whose tasks it would have to run.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn tasks_on_the_only_worker_may_call_the_node_that_runs_on_it() -> Result {
    let host = host().await?;
    let tasks: Vec<_> = (0..8)
        .map(|number| {
            let locks = Arc::clone(&host.locks);
            tokio::spawn(async move { use_lock(&locks, &format!("k{number}")) })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    drop(host.locks);
    host.node.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_task_on_a_multi_threaded_runtime_may_call() -> Result {
    let host = host().await?;
    let locks = Arc::clone(&host.locks);
    let tasks = LocalSet::new();
    let task = tasks.spawn_local(async move {
        use_lock(&locks, "first")?;
        use_lock(&locks, "second")
    });
    tasks.run_until(task).await??;
    use_lock(&host.locks, "third")?;
    host.node.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn a_current_thread_host_calls_from_a_blocking_thread() -> Result {
    let host = host().await?;
    let locks = Arc::clone(&host.locks);
    tokio::task::spawn_blocking(move || use_lock(&locks, "k")).await??;
    host.node.shutdown().await;
    Ok(())
}
