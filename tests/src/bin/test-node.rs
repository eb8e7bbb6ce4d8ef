//! One node as a process of its own: `test-node CONFIG.toml`. With `plant` behind it, the state of
//! the stopped node is made another than its log says, as a fault of memory or program would; with
//! `examine`, its stores are opened and read ([`quorate_tests::examine`]).
//!
//! It stops in order on SIGTERM. It ends at once when its stdin closes, so that no node outlives
//! the test that started it, and with an error when the node has stopped by itself.

use std::io::Read;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use openraft::EntryPayload;
use openraft::storage::{RaftLogReader, RaftStateMachine};
use quorate_node::origin::Caller;
use quorate_node::raft::{Entry, Proposal};
use quorate_node::storage::{DataDir, Storage, StorageOptions};
use quorate_node::{Config, Health, Node};
use quorate_statemachine::process::Register;
use quorate_statemachine::{Command, Name};
use quorate_tests::examine;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,openraft=warn"));
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_env_filter(filter)
        .init();
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let path = args
        .next()
        .context("usage: test-node CONFIG.toml [plant|examine]")?;
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let config: Config = toml::from_str(&text).with_context(|| format!("{path} is no config"))?;
    match args.next().as_deref() {
        None => serve(config).await,
        Some("plant") => plant(&config).await,
        Some("examine") => {
            print!("{}", examine::examine(&config).await?);
            Ok(())
        }
        Some(other) => bail!("{other:?} is nothing that a test node does"),
    }
}

async fn serve(config: Config) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    end_with_stdin();
    let node = Node::start(config).await?;
    let mut health = node.health();
    tokio::select! {
        _ = terminate.recv() => {
            node.shutdown().await;
            Ok(())
        }
        failed = health.wait_for(|health| matches!(health, Health::Failed(_))) => {
            let facts = failed.map(|health| format!("{:?}", *health));
            bail!("the node has stopped by itself: {facts:?}")
        }
    }
}

/// Applies another command in place of the next one in the log. There must be one: kill the node
/// while it works.
async fn plant(config: &Config) -> Result<()> {
    let dir = DataDir::open(config.node.data_dir.clone())?;
    let Storage { log, mut state } =
        Storage::open(&dir, &StorageOptions::default(), Arc::new(|_| {}))?;
    let next = state.reader().applied().map_or(0, |id| id.index + 1);
    let mut reader = log.reader();
    let found = reader.try_get_log_entries(next..next + 1).await?;
    let replaced = found.first().context("all of the log is applied")?;
    let id = Name::parse("process_id", "planted")?;
    let command = Command::from(Register::new(id, Vec::new()));
    let now = state.reader().now();
    let proposal = Proposal::new(now, &Caller::Cluster.into(), &command.encode());
    let planted = Entry {
        log_id: replaced.log_id,
        payload: EntryPayload::Normal(proposal),
    };
    let once = futures::stream::iter([Ok((planted, None))]);
    state.apply(once).await?;
    state.reader().flush()?;
    eprintln!("planted in place of entry {next}");
    Ok(())
}

/// As sudden as a crash: what was acknowledged is on disk by then anyhow.
fn end_with_stdin() {
    std::thread::spawn(|| {
        let mut nothing = [0; 64];
        while std::io::stdin()
            .read(&mut nothing)
            .is_ok_and(|read| read > 0)
        {}
        std::process::exit(0);
    });
}
