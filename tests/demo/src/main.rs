//! `make demo`: three nodes hash a directory tree with eight workers, while the leader is killed,
//! one worker is paused past its claim and another is killed. At the end every file must have been
//! settled exactly once, with the digest that another program computes.

mod check;
mod cluster;
mod crew;
mod faults;
mod files;
mod job;
mod probe;
mod progress;
mod report;
mod run;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// Hashes files with a cluster that is being hurt.
#[derive(Debug, Parser)]
#[command(name = "quorate-demo")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a cluster and the workers, hurt them, and check the result
    Run(RunArgs),
    /// One worker; started by `run`
    Worker(worker::WorkerArgs),
}

/// Arguments of `run`.
#[derive(Debug, Args)]
struct RunArgs {
    /// Whose files are hashed
    #[arg(long, default_value = "/usr/share/doc")]
    dir: PathBuf,
    /// How many files at most; 0 for all
    #[arg(long, default_value_t = 0)]
    limit: usize,
    /// Stop the cluster at the end instead of waiting for Ctrl-C
    #[arg(long)]
    once: bool,
    /// Where the cluster keeps its data; a cluster of an earlier demo there is removed
    #[arg(long, default_value = "target/demo")]
    data_dir: PathBuf,
    /// Client port of the first node
    #[arg(long, default_value_t = 7400)]
    base_port: u16,
    /// The `quorate` program [default: the one beside this program]
    #[arg(long)]
    quorate: Option<PathBuf>,
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let done = runtime.block_on(async {
        match Cli::parse().command {
            Command::Run(args) => run::run(args).await,
            Command::Worker(args) => worker::run(args).await,
        }
    });
    runtime.shutdown_background();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("demo: {error:#}");
    ExitCode::FAILURE
}
