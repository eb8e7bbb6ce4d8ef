//! What the stores of a stopped node hold: opened as the node opens them, with the log applied as
//! Raft applies it, and read to the last row.
//!
//! A damaged directory may crash more than a test should bear, so `test-node CONFIG examine` does
//! it in a process of its own ([`in_process`]).

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use openraft::storage::{RaftLogReader, RaftStateMachine};
use quorate_node::Config;
use quorate_node::storage::{DataDir, LogReader, StateStore, Storage, StorageOptions};

/// Opening and reading what a test has written takes a fraction of this.
const EXAMINE_MAX: Duration = Duration::from_secs(60);

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Examined {
    /// Index of the last entry.
    pub last: u64,
    /// The vote.
    pub vote: String,
    /// Digest of the state at each index from the one that was on disk up to the last.
    pub digests: BTreeMap<u64, String>,
}

impl Examined {
    /// Digest of the state at the last entry.
    pub fn digest(&self) -> Result<&str> {
        let found = self.digests.get(&self.last).map(String::as_str);
        found.context("the state does not come to the last entry")
    }

    /// Reads what [`Examined`] prints.
    pub fn parse(text: &str) -> Result<Self> {
        let mut found = Self::default();
        let mut ended = false;
        for line in text.lines() {
            match line.split_once(' ') {
                Some(("last", index)) => found.last = index.parse()?,
                Some(("vote", vote)) => vote.clone_into(&mut found.vote),
                Some(("digest", rest)) => {
                    let (index, digest) = rest.split_once(' ').context("no digest")?;
                    found.digests.insert(index.parse()?, digest.to_owned());
                }
                None if line == "whole" => ended = true,
                _ => bail!("{line:?} is nothing that was found"),
            }
        }
        anyhow::ensure!(ended, "the words end early: {text}");
        Ok(found)
    }
}

impl fmt::Display for Examined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "last {}", self.last)?;
        writeln!(f, "vote {}", self.vote)?;
        for (index, digest) in &self.digests {
            writeln!(f, "digest {index} {digest}")?;
        }
        writeln!(f, "whole")
    }
}

/// Opens the directory of this configuration and reads all of it. An error is what the node says.
pub async fn examine(config: &Config) -> Result<Examined> {
    let dir = DataDir::open(config.node.data_dir.clone())?;
    dir.check_name(&config.node.name)?;
    let Storage { log, mut state } =
        Storage::open(&dir, &StorageOptions::default(), Arc::new(|_| {}))?;
    // As Raft does it when it starts.
    if let Some(snapshot) = state.get_current_snapshot().await?
        && snapshot.meta.last_log_id > state.reader().applied()
    {
        let meta = snapshot.meta.clone();
        state.install_snapshot(&meta, snapshot.snapshot).await?;
    }
    let mut reader = log.reader();
    let vote = reader.read_vote().await?;
    let mut found = Examined {
        last: log.last_log_id().map_or(0, |id| id.index),
        vote: vote.map_or_else(|| "none".to_owned(), |vote| vote.to_string()),
        digests: BTreeMap::new(),
    };
    read_entries(&reader, found.last)?;
    apply_rest(&mut state, &reader, &mut found).await?;
    // Every row, and memory against the disk.
    state.reader().verify()?;
    Ok(found)
}

/// Reads what a follower that was away would be sent.
fn read_entries(log: &LogReader, last: u64) -> Result<()> {
    let mut next = log.first();
    while next <= last {
        let some = log.read_some(next, last + 1)?;
        next = some.last().context("nothing was read")?.log_id.index + 1;
    }
    Ok(())
}

/// Applies what the state lacks, and keeps the digest behind every entry.
async fn apply_rest(state: &mut StateStore, log: &LogReader, found: &mut Examined) -> Result<()> {
    let reader = state.reader();
    let mut applied = reader.applied().map_or(0, |id| id.index);
    let digest = |reader: &quorate_node::storage::StateReader| reader.meta().digest.to_string();
    found.digests.insert(applied, digest(&reader));
    while applied < found.last {
        let some = log.read_some(applied + 1, found.last + 1)?;
        anyhow::ensure!(!some.is_empty(), "entry {} is missing", applied + 1);
        for entry in some {
            applied = entry.log_id.index;
            state
                .apply(futures::stream::iter([Ok((entry, None))]))
                .await?;
            found.digests.insert(applied, digest(&reader));
        }
    }
    Ok(())
}

/// How a process that examined a directory has ended.
#[derive(Debug)]
pub enum Ended {
    /// It has read everything.
    Read(Examined),
    /// It has refused, with these words.
    Refused(String),
    /// It has done neither: a panic, a signal, no end.
    Fell(String),
}

/// Examines the directory of the configuration in the file `config`, in a process of `node`.
pub async fn in_process(node: &str, config: &Path) -> Result<Ended> {
    let mut command = tokio::process::Command::new(node);
    command
        .arg(config)
        .arg("examine")
        .env("RUST_LOG", "warn")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let Ok(output) = tokio::time::timeout(EXAMINE_MAX, command.output()).await else {
        return Ok(Ended::Fell(format!("it is not done after {EXAMINE_MAX:?}")));
    };
    let output = output.with_context(|| format!("cannot run {node}"))?;
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    let last = words.lines().last().unwrap_or_default().to_owned();
    match output.status.code() {
        _ if words.contains("panicked") => Ok(Ended::Fell(words)),
        Some(0) => Ok(Ended::Read(Examined::parse(&String::from_utf8(
            output.stdout,
        )?)?)),
        Some(1) if last.starts_with("error: ") => Ok(Ended::Refused(last)),
        _ => Ok(Ended::Fell(format!("{}: {words}", output.status))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_is_read_back_and_what_was_cut_is_not() {
        let found = Examined {
            last: 3,
            vote: "T1-N2".to_owned(),
            digests: BTreeMap::from([(2, "aa".to_owned()), (3, "bb".to_owned())]),
        };
        let text = found.to_string();
        assert_eq!(Examined::parse(&text).expect("whole"), found);
        assert_eq!(found.digest().expect("there"), "bb");
        let cut = text.trim_end_matches("whole\n");
        assert!(Examined::parse(cut).is_err());
    }
}
