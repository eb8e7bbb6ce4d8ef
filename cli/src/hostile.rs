//! What is read from outside, for tests that give it anything: command lines and configurations.

use std::ffi::OsString;
use std::path::Path;

use clap::Parser;
use quorate_node::Config;

use crate::args::lock::Attend;
use crate::args::{Cli, Command};
use crate::commands::serve::layers::layered;
use crate::commands::serve::{filter, flags};

/// Reads a command line, the program's name first. What is wrong is told in words.
pub fn arguments(line: &[OsString]) -> Result<(), String> {
    let told = |error: clap::Error| error.render().to_string();
    if line.get(1).is_some_and(|word| word == Attend::NAME) {
        return Attend::try_parse_from(&line[1..]).map(drop).map_err(told);
    }
    let cli = Cli::read_from(line).map_err(told)?;
    let Command::Serve(serve) = cli.command else {
        return Ok(());
    };
    let layered = layered(None, std::iter::empty(), flags(&serve));
    layered
        .map(drop)
        .map_err(|failure| failure.message().to_owned())
}

/// Reads a file of a configuration and variables of an environment; what is printed of them.
pub fn configuration(
    file: &Path,
    env: impl Iterator<Item = (String, String)>,
) -> Result<(Config, String), String> {
    let told = |failure: crate::exit::Failure| failure.message().to_owned();
    let layered = layered(Some(file), env, Vec::new()).map_err(told)?;
    filter(&layered.config.log).map_err(told)?;
    let shown = layered.to_string();
    Ok((layered.config, shown))
}
