//! One node as a process of its own: `test-node CONFIG.toml`.
//!
//! It stops in order on SIGTERM. It ends at once when its stdin closes, so that no node outlives
//! the test that started it, and with an error when the node has stopped by itself.

use std::io::Read;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use quorate_node::{Config, Health, Node};
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
    let path = std::env::args()
        .nth(1)
        .context("usage: test-node CONFIG.toml")?;
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let config: Config = toml::from_str(&text).with_context(|| format!("{path} is no config"))?;
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
