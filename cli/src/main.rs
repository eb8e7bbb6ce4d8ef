//! `quorate`: look at a cluster, work with it, and measure it, from the command line.
//!
//! Data goes to stdout, words to stderr, and the exit code says how it ended ([`exit`]).

mod args;
mod commands;
mod connect;
mod exit;
mod output;
#[cfg(test)]
mod reference;
mod value;

use std::process::ExitCode;

/// Also RocksDB's: a command costs some dozens of small allocations, on every node.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if let Some(attend) = args::lock::Attend::asked() {
        return match attend {
            Ok(attend) => ended(commands::attend(&attend), attend.output),
            Err(error) => exit::of_usage(&error),
        };
    }
    match args::Cli::read() {
        Ok(cli) => {
            let format = cli.global.output;
            ended(commands::run(cli), format)
        }
        Err(error) => exit::of_usage(&error),
    }
}

fn ended(ended: Result<u8, exit::Failure>, format: output::Format) -> ExitCode {
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(failure) => exit::report(&failure, format),
    }
}
