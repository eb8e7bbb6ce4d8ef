//! The run: fill the queue, let the crew work, hurt it, wait until the queue is empty, check.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use futures::{StreamExt, TryStreamExt};
use quorate_client::admin::Admin;
use quorate_client::statemachine::Name;
use quorate_client::{Client, incarnation};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex;
use tokio::time::{Instant, interval};

use crate::RunArgs;
use crate::check::{Verdict, check, counters};
use crate::cluster::Cluster;
use crate::crew::Worker;
use crate::faults::{kill_leader, kill_worker, pause_worker};
use crate::files::{self, Tree};
use crate::job::{Job, Task};
use crate::probe;
use crate::progress::{Board, Progress};
use crate::report::{self, Line, announce};

/// Worker processes.
const WORKERS: usize = 8;

/// The worker that is paused, and the one that is killed.
const PAUSED: usize = 0;
const KILLED: usize = 1;

/// Items that come back only when a claim is over: the paused worker's and the killed one's.
const HELD: usize = 2;

/// Pushes in flight: they share syncs.
const PUSHES: usize = 64;

/// With fewer files there is nothing left to do when something is killed.
const FILES_MIN: usize = 50;

/// How long a call of the orchestrator may take: longer than any change of leader.
const CALL_MAX: Duration = Duration::from_secs(30);

/// How long all of the work may take without an item being settled.
const STUCK: Duration = Duration::from_secs(120);

/// Does all of it.
pub async fn run(args: RunArgs) -> Result<()> {
    let quorate = quorate(&args)?;
    let tree = files::list(&args.dir, args.limit)?;
    let items = tree.files.len();
    ensure!(
        items >= FILES_MIN,
        "{} has {items} files that can be read, the demo needs {FILES_MIN}; give another DIR",
        args.dir.display()
    );
    let job = Job::new(incarnation())?;
    println!(
        "three nodes, each a process with its data in {}:",
        args.data_dir.display()
    );
    let dir = std::path::absolute(&args.data_dir)?;
    let cluster = Mutex::new(Cluster::start(&quorate, &dir, args.base_port).await?);
    let done = tokio::select! {
        done = work_and_check(&args, &job, &tree, &cluster) => done,
        stopped = told_to_stop() => stopped.and(Err(anyhow!("stopped before the end"))),
    };
    let cluster = cluster.into_inner();
    if done.is_ok() && !args.once {
        report::invite(&cluster, &job, &quorate);
        told_to_stop().await?;
    }
    cluster.stop().await?;
    done
}

/// The program beside this one, unless told otherwise.
fn quorate(args: &RunArgs) -> Result<PathBuf> {
    let beside = || std::env::current_exe().map(|own| own.with_file_name("quorate"));
    let path = args.quorate.clone().map_or_else(beside, Ok)?;
    ensure!(
        path.is_file(),
        "{} is not there; build it, or give --quorate",
        path.display()
    );
    Ok(path)
}

async fn told_to_stop() -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

async fn work_and_check(
    args: &RunArgs,
    job: &Job,
    tree: &Tree,
    cluster: &Mutex<Cluster>,
) -> Result<()> {
    let endpoints = cluster.lock().await.endpoints();
    let client = Client::connect(endpoints.clone())?.with_timeout(CALL_MAX);
    fill(&client, job, tree, args).await?;
    let board = Board::new();
    let started = Instant::now();
    let probe = Name::parse("process", format!("{}/probe", job.process))?;
    tokio::select! {
        done = work(&client, job, tree.files.len(), cluster, &board) => done?,
        failed = probe::write(client.clone(), probe, board.clone()) => {
            failed.context("the probe")?;
        }
        () = probe::watch_leader(Admin::connect(endpoints)?, board.clone()) => {}
    }
    let verdict = check(&client, job, tree).await?;
    let progress = board.now();
    report::table(tree, &verdict, &progress, progress.busy(HELD) - started);
    judge(&verdict, &progress)?;
    same_everywhere(&client, &*cluster.lock().await).await
}

/// Puts every file into the queue.
async fn fill(client: &Client, job: &Job, tree: &Tree, args: &RunArgs) -> Result<()> {
    let record = client.process(job.process.as_str())?;
    let definition = format!("sha256 of the files below {}", args.dir.display());
    record
        .register(definition)
        .await
        .context("registering the process record")?;
    let queue = client.queue(job.queue.as_str())?;
    let started = Instant::now();
    let pushes = tree.files.keys().map(|path| async {
        let task = Task { path: path.clone() };
        let push = queue
            .push(serde_json::to_vec(&task)?)
            .dedupe_key(path.as_str());
        Ok::<_, anyhow::Error>(push.send().await?)
    });
    let pushes = futures::stream::iter(pushes).buffer_unordered(PUSHES);
    pushes
        .try_for_each(async |_| Ok(()))
        .await
        .context("pushing items")?;
    let (items, took) = (tree.files.len(), started.elapsed().as_secs_f64());
    println!(
        "\n{items} files of {} are in the queue after {took:.1} s",
        args.dir.display()
    );
    Ok(())
}

/// The crew works and is hurt until the queue is empty.
async fn work(
    client: &Client,
    job: &Job,
    items: usize,
    cluster: &Mutex<Cluster>,
    board: &Board,
) -> Result<()> {
    let endpoints = cluster.lock().await.endpoints();
    let mut crew = (0..WORKERS)
        .map(|at| Worker::start(at, &endpoints, job, board))
        .collect::<Result<Vec<_>>>()?;
    announce(&format!("{WORKERS} workers have started, each a process"));
    let killed = crew.remove(KILLED);
    let mut paused = crew.remove(PAUSED);
    let queue = client.queue(job.queue.as_str())?;
    tokio::try_join!(
        pause_worker(&mut paused, PAUSED, &queue, board, items / 20),
        kill_worker(killed, KILLED, board, items / 10),
        kill_leader(cluster, board, items / 5),
        until_empty(client, job, items, board),
    )?;
    let ends = crew.into_iter().chain([paused]).map(Worker::end);
    futures::future::try_join_all(ends).await?;
    Ok(())
}

async fn until_empty(client: &Client, job: &Job, items: usize, board: &Board) -> Result<()> {
    let mut line = Line::new(items);
    let mut pace = interval(Duration::from_millis(200));
    loop {
        pace.tick().await;
        let progress = board.now();
        line.show(&progress);
        let queue = counters(client, job).await?;
        if queue.items() == 0 && queue.done >= items as u64 {
            line.show(&board.now());
            return Ok(());
        }
        ensure!(
            progress.last_done().elapsed() < STUCK,
            "no item was settled for {STUCK:?}: {} ready, {} claimed, {} done",
            queue.ready,
            queue.claimed,
            queue.done
        );
    }
}

fn judge(verdict: &Verdict, progress: &Progress) -> Result<()> {
    if !verdict.is_good() {
        bail!("not every item was settled exactly once with the right digest");
    }
    ensure!(
        !progress.stale.is_empty(),
        "no stale write was refused, though one was made"
    );
    println!("  every item was settled exactly once, and sha256sum confirms every digest");
    Ok(())
}

async fn same_everywhere(client: &Client, cluster: &Cluster) -> Result<()> {
    let (index, digests) = cluster.digests(client).await?;
    let same = digests
        .iter()
        .all(|digest| !digest.is_empty() && *digest == digests[0]);
    ensure!(
        same,
        "the nodes' states differ at log index {index}: {digests:?}"
    );
    println!(
        "  all {} nodes have the same state at log index {index}\n",
        digests.len()
    );
    Ok(())
}
