//! `quorate offline`: looking into the directory of a stopped node.

use std::collections::BTreeMap;
use std::fmt::Write;

use quorate_node::raft::LogId;
use quorate_node::storage::StorageError;
use quorate_node::storage::offline::{LogFacts, SnapshotFacts, StateFacts, Stopped};
use serde::Serialize;

use crate::args::offline::Verb;
use crate::exit::Failure;
use crate::output::{Printer, Row};
use crate::value::time;

/// Does what is asked for.
pub fn run(verb: &Verb, printer: &mut Printer) -> Result<(), Failure> {
    match verb {
        Verb::Inspect { dir } => inspect(&open(dir)?, printer),
        Verb::Verify { dir } => verify(&open(dir)?, printer),
        Verb::Replay { dir } => replay(&open(dir)?, printer),
    }
}

fn open(dir: &std::path::Path) -> Result<Stopped, Failure> {
    if !dir.exists() {
        return Err(Failure::not_found("directory", &dir.display().to_string()));
    }
    Stopped::open(dir).map_err(failed)
}

fn failed(error: StorageError) -> Failure {
    Failure::error("storage", error.to_string())
}

fn inspect(stopped: &Stopped, printer: &mut Printer) -> Result<(), Failure> {
    let log = stopped.log().map_err(failed)?;
    let state = stopped.state().map_err(failed)?;
    let snapshots = stopped.snapshots().map_err(failed)?;
    let found = Found::new(stopped, &log, state.as_ref(), &snapshots);
    Ok(printer.value(&found, &found.text())?)
}

/// What a directory holds.
#[derive(Debug, Serialize)]
struct Found {
    cluster_id: String,
    node_id: String,
    name: String,
    format: u8,
    log: Log,
    state: Option<State>,
    snapshots: Vec<Snapshot>,
}

#[derive(Debug, Serialize)]
struct Log {
    purged: Option<Position>,
    last: Option<Position>,
    committed: Option<Position>,
    vote: Option<String>,
    acknowledged: String,
}

#[derive(Debug, Serialize)]
struct State {
    applied: Option<Position>,
    time: String,
    digest: String,
    whole: bool,
    fence_base: String,
    cluster_version: u32,
    voters: Vec<String>,
    learners: Vec<String>,
    rows: BTreeMap<&'static str, String>,
}

#[derive(Debug, Serialize)]
struct Snapshot {
    path: String,
    last: Option<Position>,
    bytes: String,
}

#[derive(Debug, Serialize)]
struct Position {
    index: String,
    term: String,
}

impl Position {
    fn of(id: Option<LogId>) -> Option<Self> {
        id.map(|id| Self {
            index: id.index.to_string(),
            term: id.leader_id.term.to_string(),
        })
    }
}

impl Found {
    fn new(
        stopped: &Stopped,
        log: &LogFacts,
        state: Option<&StateFacts>,
        snapshots: &[SnapshotFacts],
    ) -> Self {
        let identity = stopped.identity();
        let snapshot = |facts: &SnapshotFacts| Snapshot {
            path: facts.path.display().to_string(),
            last: Position::of(facts.last),
            bytes: facts.bytes.to_string(),
        };
        Self {
            cluster_id: identity.cluster_id.clone(),
            node_id: identity.node_id.to_string(),
            name: identity.name.clone(),
            format: stopped.format(),
            log: Log {
                purged: Position::of(log.purged),
                last: Position::of(log.last),
                committed: Position::of(log.committed),
                vote: log.vote.map(|vote| vote.to_string()),
                acknowledged: log.acknowledged_end.saturating_sub(1).to_string(),
            },
            state: state.map(State::of),
            snapshots: snapshots.iter().map(snapshot).collect(),
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: String| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name:<17} {value}");
        };
        line(
            "node",
            format!(
                "{} ({}) of cluster {}",
                self.node_id, self.name, self.cluster_id
            ),
        );
        line("format", self.format.to_string());
        line("log purged to", position(self.log.purged.as_ref()));
        line("log last", position(self.log.last.as_ref()));
        line("log committed", position(self.log.committed.as_ref()));
        line("log acknowledged", self.log.acknowledged.clone());
        line(
            "vote",
            self.log.vote.clone().unwrap_or_else(|| "none".to_owned()),
        );
        match &self.state {
            Some(state) => state.lines(&mut line),
            None => line("state", "none".to_owned()),
        }
        for snapshot in &self.snapshots {
            let last = position(snapshot.last.as_ref());
            let about = format!("{last}, {} bytes, {}", snapshot.bytes, snapshot.path);
            line("snapshot", about);
        }
        text
    }
}

impl State {
    fn of(facts: &StateFacts) -> Self {
        let membership = facts.membership.membership();
        let voters: Vec<u64> = membership.voter_ids().collect();
        let learners = membership.nodes().map(|(id, _)| *id);
        let learners = learners.filter(|id| !voters.contains(id));
        Self {
            applied: Position::of(facts.applied),
            time: time(facts.meta.now),
            digest: facts.digest.to_string(),
            whole: facts.digest == facts.meta.digest,
            fence_base: facts.meta.fence_base.to_string(),
            cluster_version: facts.version.version,
            learners: learners.map(|id| id.to_string()).collect(),
            voters: voters.iter().map(u64::to_string).collect(),
            rows: facts
                .rows
                .iter()
                .map(|(table, rows)| (*table, rows.to_string()))
                .collect(),
        }
    }

    fn lines(&self, line: &mut impl FnMut(&str, String)) {
        line("state applied", position(self.applied.as_ref()));
        line("state time", self.time.clone());
        let whole = if self.whole {
            ""
        } else {
            " (NOT that of its meta row)"
        };
        line("state digest", format!("{}{whole}", self.digest));
        line("fence base", self.fence_base.clone());
        line("cluster version", self.cluster_version.to_string());
        line("voters", self.voters.join(", "));
        line("learners", self.learners.join(", "));
        for (table, rows) in &self.rows {
            line("rows", format!("{rows} in {table}"));
        }
    }
}

fn position(position: Option<&Position>) -> String {
    match position {
        Some(Position { index, term }) => format!("{index} (term {term})"),
        None => "none".to_owned(),
    }
}

fn verify(stopped: &Stopped, printer: &mut Printer) -> Result<(), Failure> {
    let checks = [
        Check::new("log", stopped.log().map(drop)),
        Check::new("state", stopped.verify_state()),
        Check::new("snapshots", stopped.verify_snapshots()),
        Check::new("reach", stopped.verify_reach()),
    ];
    printer.list(&checks)?;
    match checks.iter().find(|check| !check.ok) {
        None => Ok(()),
        Some(bad) => Err(Failure::error("damaged", bad.problem.clone())),
    }
}

/// One question and its answer.
#[derive(Debug, Serialize)]
struct Check {
    check: &'static str,
    ok: bool,
    problem: String,
}

impl Check {
    fn new(check: &'static str, outcome: Result<(), StorageError>) -> Self {
        Self {
            check,
            ok: outcome.is_ok(),
            problem: outcome
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default(),
        }
    }
}

impl Row for Check {
    const HEADER: &'static [&'static str] = &["CHECK", "OK", "PROBLEM"];

    fn cells(&self) -> Vec<String> {
        let ok = if self.ok { "yes" } else { "NO" };
        vec![self.check.to_owned(), ok.to_owned(), self.problem.clone()]
    }

    fn name(&self) -> String {
        self.check.to_owned()
    }

    fn alarming(&self) -> bool {
        !self.ok
    }
}

#[derive(Debug, Serialize)]
struct Replay {
    from: String,
    to: String,
    entries: String,
    state: String,
    replayed: String,
    equal: bool,
}

fn replay(stopped: &Stopped, printer: &mut Printer) -> Result<(), Failure> {
    let replayed = stopped.replay().map_err(failed)?;
    let found = Replay {
        from: replayed.from.to_string(),
        to: replayed.to.to_string(),
        entries: (replayed.to - replayed.from).to_string(),
        state: replayed.expected.to_string(),
        replayed: replayed.found.to_string(),
        equal: replayed.expected == replayed.found,
    };
    let text = format!(
        "from entry {} to {}: state {}, replayed {}",
        found.from, found.to, found.state, found.replayed
    );
    printer.value(&found, &text)?;
    if found.equal {
        return Ok(());
    }
    let message = format!(
        "the log leads to another state than the one on this disk at entry {}: compare with the \
         other members (`quorate verify`), keep this directory, and replace the one that differs",
        found.to
    );
    Err(Failure::error("digest_mismatch", message))
}
