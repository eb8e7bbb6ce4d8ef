//! `quorate`: look at a cluster, work with it, and measure it, from the command line.
//!
//! Data goes to stdout, words to stderr, and the exit code says how it ended ([`exit`]).

mod args;
mod commands;
mod connect;
mod exit;
mod output;
mod value;

use std::process::ExitCode;

/// Also RocksDB's: a command costs some dozens of small allocations, on every node.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match args::Cli::read() {
        Ok(cli) => cli,
        Err(error) => return exit::of_usage(&error),
    };
    let format = cli.global.output;
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => exit::report(&failure, format),
    }
}
