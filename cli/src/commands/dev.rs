//! `quorate dev`: a whole cluster for trying out, every node a process of its own.

mod cluster;
mod node;

use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_client::{ClaimOutcome, Client, Credential, Remote, RemoteOptions};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::parent::end_of_stdin;
use crate::args::dev::Dev;
use crate::exit::Failure;
use crate::output::Printer;
use cluster::{Shown, form};
use node::{Ended, Layout, Running};

/// How long a cluster may take until it takes writes.
const READY_MAX: Duration = Duration::from_secs(60);

/// Runs a cluster until it is told to stop. The token is for one whose access is controlled.
pub async fn run(
    dev: &Dev,
    token: Option<Credential>,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let (dir, _temporary) = directory(dev)?;
    let layouts: Vec<Layout> = (1..=dev.nodes)
        .map(|at| Layout::new(&dir, dev.base_port, at))
        .collect();
    node::write_configs(&dir, &layouts)?;
    cluster::forget(&dir)?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;

    let parent = async {
        match dev.exit_with_parent {
            true => drop(end_of_stdin().await),
            false => std::future::pending().await,
        }
    };
    let stop = watch::Sender::new(false);
    let mut nodes = Nodes::start(layouts, &stop)?;
    let ended = tokio::select! {
        failed = nodes.keep(&dir, token, printer) => failed,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
        () = parent => Ok(()),
    };
    cluster::forget(&dir)?;
    stop.send_replace(true);
    nodes.stopped().await;
    ended
}

/// Where the data is; a temporary directory goes when the second value does.
fn directory(dev: &Dev) -> Result<(PathBuf, Option<tempfile::TempDir>), Failure> {
    if dev.ephemeral {
        let temporary = tempfile::Builder::new().prefix("quorate-dev-").tempdir()?;
        return Ok((temporary.path().to_owned(), Some(temporary)));
    }
    std::fs::create_dir_all(&dev.data_dir).map_err(|error| {
        Failure::error(
            "io",
            format!("--data-dir {}: {error}", dev.data_dir.display()),
        )
    })?;
    Ok((std::path::absolute(&dev.data_dir)?, None))
}

/// The nodes' processes.
struct Nodes {
    running: Vec<Running>,
    processes: JoinSet<Ended>,
}

impl Nodes {
    fn start(layouts: Vec<Layout>, stop: &watch::Sender<bool>) -> Result<Self, Failure> {
        let command = std::env::current_exe()?;
        let threads = threads_each(layouts.len());
        let mut nodes = Self {
            running: Vec::new(),
            processes: JoinSet::new(),
        };
        for layout in layouts {
            let (running, process) = node::start(&command, layout, threads)?;
            nodes.processes.spawn(process.run(stop.subscribe()));
            nodes.running.push(running);
        }
        Ok(nodes)
    }

    /// Forms the cluster, says so, and reports what ends. Ends when all nodes have ended, or when
    /// one does before the cluster was ready.
    async fn keep(
        &mut self,
        dir: &Path,
        token: Option<Credential>,
        printer: &mut Printer,
    ) -> Result<(), Failure> {
        let shown = tokio::select! {
            shown = ready(&self.running, token) => shown?,
            ended = self.processes.join_next() => {
                let facts = ended.and_then(Result::ok).map_or_else(String::new, |it| it.facts());
                return Err(Failure::error("not_started", facts));
            }
        };
        cluster::write(dir, &shown)?;
        printer.list(&shown)?;
        eprintln!(
            "data and logs are in {}; Ctrl-C stops the cluster",
            dir.display()
        );
        println!("ready");
        while let Some(ended) = self.processes.join_next().await {
            if let Ok(ended) = ended {
                eprintln!("{}", ended.facts());
            }
        }
        Err(Failure::error("stopped", "no node runs any more"))
    }

    async fn stopped(&mut self) {
        while self.processes.join_next().await.is_some() {}
    }
}

/// The nodes share this machine's cores: more threads than cores only switch.
fn threads_each(nodes: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    cores.div_ceil(nodes.max(1))
}

/// Waits until all nodes are voters of one cluster and a write went through.
async fn ready(nodes: &[Running], token: Option<Credential>) -> Result<Vec<Shown>, Failure> {
    let late = || {
        let problem =
            format!("the cluster took no write within {READY_MAX:?}; see the nodes' logs");
        Failure::error("not_started", problem)
    };
    timeout(READY_MAX, async {
        let shown = form(nodes, token.as_ref()).await?;
        write_once(nodes, token).await?;
        Ok(shown)
    })
    .await
    .map_err(|_| late())?
}

async fn write_once(nodes: &[Running], token: Option<Credential>) -> Result<(), Failure> {
    let endpoints = nodes.iter().map(|node| node.layout.client.clone());
    let options = RemoteOptions {
        credential: token,
        ..RemoteOptions::default()
    };
    let client = Client::new(Remote::new(endpoints, options)?).with_timeout(READY_MAX);
    let lease = client
        .lease("quorate/dev/ready")
        .ttl(Duration::from_secs(5));
    if let ClaimOutcome::Granted(guard) = lease.try_claim().await? {
        guard.release().await?;
    }
    Ok(())
}
