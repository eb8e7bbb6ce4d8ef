//! Calls from inside tokio runtimes, where a plugin that drives a runtime of its own must not
//! panic or stand still.

use std::sync::Arc;

use bext_plugin_api::locking::LockingPlugin;
use tokio::runtime::{Builder, Runtime};
use tokio::task::{LocalSet, spawn_blocking};

use super::bench::{Bench, Check, LONG, ensure, ensure_taken, lock, release, renew, try_lock};

pub(super) const CHECKS: &[(&str, Check)] = &[
    ("a_current_thread_runtime_may_call", current_thread),
    ("a_local_task_may_call", local_task),
    (
        "a_multi_threaded_runtime_may_call_from_more_tasks_than_workers",
        multi_thread,
    ),
    (
        "a_plugin_may_be_made_and_dropped_inside_a_runtime",
        made_inside,
    ),
];

const WORKERS: usize = 2;

fn built(mut builder: Builder) -> Result<Runtime, String> {
    let runtime = builder.enable_all().build();
    runtime.map_err(|error| format!("no runtime: {error}"))
}

/// Everything a host does with a lock.
fn use_lock(plugin: &dyn LockingPlugin, key: &str) -> Result<(), String> {
    let handle = lock(plugin, key, LONG)?;
    ensure_taken(plugin, key)?;
    renew(plugin, &handle)?;
    release(plugin, handle.clone())?;
    release(plugin, handle)
}

async fn joined(task: tokio::task::JoinHandle<Result<(), String>>) -> Result<(), String> {
    let done = task.await;
    done.unwrap_or_else(|_| Err("a call panicked in a task".to_owned()))
}

fn current_thread(bench: &Bench) -> Result<(), String> {
    let runtime = built(Builder::new_current_thread())?;
    let key = bench.key("current-thread");
    runtime.block_on(async {
        use_lock(&*bench.ours, &key)?;
        let (plugin, of) = (Arc::clone(&bench.ours), key.clone());
        joined(tokio::spawn(async move { use_lock(&*plugin, &of) })).await?;
        let (plugin, of) = (Arc::clone(&bench.ours), key.clone());
        joined(spawn_blocking(move || use_lock(&*plugin, &of))).await
    })
}

fn local_task(bench: &Bench) -> Result<(), String> {
    let runtime = built(Builder::new_current_thread())?;
    let (plugin, key) = (Arc::clone(&bench.ours), bench.key("local"));
    let tasks = LocalSet::new();
    let task = tasks.spawn_local(async move { use_lock(&*plugin, &key) });
    tasks.block_on(&runtime, joined(task))
}

fn multi_thread(bench: &Bench) -> Result<(), String> {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(WORKERS);
    let runtime = built(builder)?;
    let key = bench.key("multi-thread");
    runtime.block_on(async {
        use_lock(&*bench.ours, &key)?;
        let mut tasks = Vec::new();
        for number in 0..bench.threads.max(2 * WORKERS) {
            let own = format!("{key}-{number}");
            let plugin = Arc::clone(&bench.ours);
            tasks.push(tokio::spawn(async move { use_lock(&*plugin, &own) }));
        }
        for task in tasks {
            joined(task).await?;
        }
        Ok(())
    })
}

fn made_inside(bench: &Bench) -> Result<(), String> {
    let runtimes = [
        built(Builder::new_current_thread())?,
        built(Builder::new_multi_thread())?,
    ];
    for runtime in runtimes {
        let key = bench.key("made-inside");
        runtime.block_on(async {
            let plugin = bench.another();
            let handle = lock(&*plugin, &key, LONG)?;
            ensure!(
                try_lock(&*bench.theirs, &key, LONG)?.is_none(),
                "a lock of a plugin that was made inside a runtime excludes nobody"
            );
            release(&*plugin, handle)?;
            let cleaned = plugin.cleanup();
            cleaned.map_err(|error| format!("cleanup failed: {error}"))
        })?;
    }
    Ok(())
}
