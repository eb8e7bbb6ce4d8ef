//! What is done to the cluster and its workers while they work.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use quorate_client::QueueClient;
use rustix::process::Signal;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use crate::cluster::Cluster;
use crate::crew::Worker;
use crate::job::Order;
use crate::progress::{Board, Held};
use crate::report::announce;

/// Every step of a fault is over long before.
const STEP_MAX: Duration = Duration::from_secs(60);

/// Kills the leader, waits until another leads and the work goes on, and starts the killed one
/// again.
pub async fn kill_leader(cluster: &Mutex<Cluster>, board: &Board, after: usize) -> Result<()> {
    let progress = board
        .until(
            "items are done and a leader is known",
            STEP_MAX,
            |progress| progress.done() >= after && progress.leader.is_some(),
        )
        .await?;
    let leader = progress.leader.context("it was waited for")?;
    let mut cluster = cluster.lock().await;
    let name = cluster.node(leader.id)?.name.clone();
    announce(&format!(
        "killing the leader {name} with SIGKILL, at {} items",
        progress.done()
    ));
    let killed = Instant::now();
    cluster.kill(leader.id).await?;
    let progress = board
        .until("another node leads", STEP_MAX, |progress| {
            progress
                .leader
                .is_some_and(|new| new.term > leader.term && new.id != leader.id)
        })
        .await?;
    let new = progress.leader.context("it was waited for")?;
    let new = cluster.node(new.id)?.name.clone();
    announce(&format!(
        "{new} leads, {} ms after the kill",
        killed.elapsed().as_millis()
    ));
    cluster.restart(leader.id).await?;
    announce(&format!("{name} was started again and has caught up"));
    Ok(())
}

/// Stops a worker that holds a claim and is about to write, lets it go on when its claim is over,
/// and waits until its late write was refused.
pub async fn pause_worker(
    worker: &mut Worker,
    at: usize,
    queue: &QueueClient,
    board: &Board,
    after: usize,
) -> Result<()> {
    let held = hold(worker, at, board, after).await?;
    worker.signal(Signal::STOP)?;
    worker.stopped().await?;
    announce(&format!(
        "{} is stopped (SIGSTOP) with item {} hashed",
        worker.name, held.item
    ));
    // It waits in the pipe: the first thing the worker does when it goes on is to write.
    worker.order(Order::Go).await?;
    until_over(queue, held).await?;
    announce(&format!(
        "its claim is over; {} goes on (SIGCONT) and writes late",
        worker.name
    ));
    worker.signal(Signal::CONT)?;
    let refused = board.until("the late write is refused", STEP_MAX, |progress| {
        progress.stale.contains(&held)
    });
    refused.await?;
    announce(&format!(
        "the late write with token {} was refused as stale",
        held.token
    ));
    Ok(())
}

/// Kills a worker that holds a claim.
pub async fn kill_worker(mut worker: Worker, at: usize, board: &Board, after: usize) -> Result<()> {
    let held = hold(&mut worker, at, board, after).await?;
    announce(&format!(
        "killing {} with SIGKILL; it holds item {}",
        worker.name, held.item
    ));
    worker.kill().await
}

/// Waits until the worker has a claim and is about to write.
async fn hold(worker: &mut Worker, at: usize, board: &Board, after: usize) -> Result<Held> {
    board
        .until("items are done", STEP_MAX, |progress| {
            progress.done() >= after
        })
        .await?;
    worker.order(Order::Hold).await?;
    let what = format!("{} holds a claim", worker.name);
    let progress = board
        .until(&what, STEP_MAX, |progress| {
            progress.holding.contains_key(&at)
        })
        .await?;
    progress
        .holding
        .get(&at)
        .copied()
        .context("it was waited for")
}

/// Waits until the cluster says that this claim holds no more.
async fn until_over(queue: &QueueClient, held: Held) -> Result<()> {
    let deadline = Instant::now() + STEP_MAX;
    loop {
        let item = queue.get(held.item).await?;
        let claim = item.and_then(|claimed| claimed.item.claim);
        if claim.is_none_or(|claim| claim.fencing_token != held.token) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!(
                "the claim of item {} is not over after {STEP_MAX:?}",
                held.item
            );
        }
        sleep(Duration::from_millis(50)).await;
    }
}
