//! The process that starts the other one, hears what it says, and compares what is left.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};

use openraft::storage::RaftLogReader;
use quorate_statemachine::Timestamp;
use quorate_statemachine::digest::Digest;
use quorate_statemachine::tables::meta_key;
use quorate_statemachine::transaction::read;
use quorate_statemachine::view::MemoryView;

use crate::store::{Random, command, end, open, recover};
use crate::{DIR, MODE};

/// What the parent read from the child.
#[derive(Debug, Default)]
pub struct Heard {
    /// The last entry that was acknowledged.
    pub acked: u64,
    /// Term of the last vote that was.
    pub vote: u64,
    /// How the work ended, if it did.
    pub failed: Option<String>,
    /// So many things were said.
    pub lines: u64,
}

impl Heard {
    fn take(&mut self, line: &str) {
        // The test harness prints on the same pipe, and in front of the first line.
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [.., "acked", index] => self.acked = index.parse().unwrap(),
            [.., "vote", term] => self.vote = term.parse().unwrap(),
            ["failed", ..] => self.failed = Some(line.to_owned()),
            _ => return,
        }
        self.lines += 1;
    }
}

/// `kill -9`.
pub fn kill(child: &mut Child) {
    child.kill().unwrap();
}

/// Runs a child until it has said `lines_max` things, and ends it by `end`.
pub fn run_child(
    mut process: Process,
    dir: &Path,
    mode: &str,
    lines_max: u64,
    end: impl FnOnce(&mut Child),
) -> Heard {
    process.args(["child::process", "--exact", "--nocapture"]);
    process.env(DIR, dir).env(MODE, mode).stdout(Stdio::piped());
    let mut child = process.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut heard = Heard::default();
    while heard.lines < lines_max
        && let Some(line) = lines.next()
    {
        heard.take(&line.unwrap());
    }
    end(&mut child);
    child.wait().unwrap();
    // What is in the pipe was said before the kill; a line without its end was not.
    for line in lines {
        heard.take(&line.unwrap());
    }
    heard
}

/// The state after every right command up to an index.
pub struct Model {
    view: MemoryView,
    next: u64,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            view: MemoryView::default(),
            next: 1,
        }
    }
}

impl Model {
    fn digest(&mut self, end: u64) -> Digest {
        for index in self.next..end {
            let entry = quorate_statemachine::Entry {
                index,
                proposed_at: Timestamp(index),
                command: &command(index),
                principal: quorate_statemachine::Principal::Cluster,
            };
            let applied = quorate_statemachine::apply(&self.view, entry).unwrap();
            self.view.commit(applied.changes);
        }
        self.next = end;
        read(&self.view, &meta_key())
            .unwrap()
            .unwrap_or_default()
            .digest
    }
}

pub async fn check(dir: &Path, heard: &Heard, model: &mut Model) {
    let (_dir, mut storage) = open(dir);
    let vote = storage.log.reader().read_vote().await.unwrap();
    assert!(
        vote.map_or(0, |vote| vote.leader_id.term) >= heard.vote,
        "{vote:?} {heard:?}"
    );
    let reader = storage.state.reader();
    reader.verify().unwrap();
    let applied = reader.applied().map_or(0, |applied| applied.index);
    assert!(
        applied < end(&storage),
        "{applied} is applied, the log ends at {}",
        end(&storage)
    );
    let end = recover(&mut storage).await;
    assert!(end > heard.acked, "the log ends at {end}, {heard:?}");
    assert_eq!(reader.applied().map_or(0, |applied| applied.index), end - 1);
    assert_eq!(reader.verify().unwrap(), model.digest(end));
}

pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .map_or(default, |value| value.parse().unwrap())
}

/// What the run goes by, and prints.
pub fn seed() -> Random {
    let clock = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap()
        .as_nanos() as u64;
    let seed = number("QUORATE_CRASH_SEED", clock);
    println!("QUORATE_CRASH_SEED={seed}");
    Random(seed)
}
