//! `quorate`: look at a cluster, work with it, and measure it, from the command line.
//!
//! Data goes to stdout, words to stderr, and the exit code says how it ended ([`exit`]).
//!
//! A library only so that tests come to what it reads ([`hostile`]); its program is `main.rs`.

#![allow(
    rustdoc::private_intra_doc_links,
    reason = "for those who read the program, not for those who would use it"
)]

mod args;
mod commands;
mod connect;
mod exit;
#[doc(hidden)]
pub mod hostile;
mod output;
#[cfg(test)]
mod reference;
mod value;

use std::process::ExitCode;

/// The program.
pub fn main() -> ExitCode {
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
