//! What a person sees: a line while it runs, a table at the end, and how to look around.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use tokio::time::Instant;

use crate::check::Verdict;
use crate::cluster::Cluster;
use crate::files::Tree;
use crate::job::Job;
use crate::progress::Progress;

/// Shown of a list of files.
const SHOWN_MAX: usize = 5;

/// Without a terminal a line stays, so there are fewer.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// Takes the progress line away; empty where there is no terminal, and lines stay.
fn erase() -> &'static str {
    if std::io::stderr().is_terminal() {
        "\r\x1b[K"
    } else {
        ""
    }
}

/// Says what is done to the cluster, above the progress line.
pub fn announce(what: &str) {
    eprintln!("{}  ! {what}", erase());
}

/// The line that tells how far it is.
pub struct Line {
    started: Instant,
    items: usize,
    last: Option<Instant>,
}

impl Line {
    /// Of a run that starts now.
    pub fn new(items: usize) -> Self {
        Self {
            started: Instant::now(),
            items,
            last: None,
        }
    }

    /// Shows how far it is.
    pub fn show(&mut self, progress: &Progress) {
        let terminal = std::io::stderr().is_terminal();
        if !terminal && self.last.is_some_and(|last| last.elapsed() < LINE_EVERY) {
            return;
        }
        self.last = Some(Instant::now());
        let seconds = self.started.elapsed().as_secs_f64();
        let leader = progress
            .leader
            .map_or_else(|| "none".to_owned(), |it| it.id.to_string());
        let text = format!(
            "{seconds:5.1} s  {:>6} of {} hashed  {} refused as stale  leader {leader}",
            progress.done(),
            self.items,
            progress.stale.len(),
        );
        let shown = if terminal {
            format!("{}{text}", erase())
        } else {
            format!("{text}\n")
        };
        let mut stderr = std::io::stderr();
        let _ = stderr
            .write_all(shown.as_bytes())
            .and_then(|()| stderr.flush());
    }
}

/// The table at the end.
pub fn table(tree: &Tree, verdict: &Verdict, progress: &Progress, busy: Duration) {
    let rate = progress.done() as f64 / busy.as_secs_f64().max(0.001);
    let gap = progress.longest_gap.as_secs_f64();
    let rows = [
        ("items", tree.files.len().to_string()),
        ("hashed", verdict.hashed.to_string()),
        ("hashed twice", verdict.twice.len().to_string()),
        ("lost", verdict.lost.len().to_string()),
        ("left in the queue", verdict.left.to_string()),
        ("wrong digests", verdict.wrong.len().to_string()),
        ("stale writes refused", progress.stale.len().to_string()),
        ("leader changes", progress.leader_changes.to_string()),
        ("longest without a write", format!("{gap:.2} s")),
        ("throughput", format!("{rate:.0} items/s")),
        ("changed meanwhile", verdict.changed.len().to_string()),
        ("skipped", skipped(tree)),
    ];
    eprint!("{}", erase());
    println!();
    for (name, value) in rows {
        println!("  {name:<24}{value:>10}");
    }
    println!();
    for (what, paths) in [
        ("changed meanwhile", &verdict.changed),
        ("hashed twice", &verdict.twice),
        ("lost", &verdict.lost),
        ("wrong digest", &verdict.wrong),
    ] {
        for path in paths.iter().take(SHOWN_MAX) {
            println!("  {what}: {path}");
        }
        if paths.len() > SHOWN_MAX {
            println!("  {what}: … and {} more", paths.len() - SHOWN_MAX);
        }
    }
}

fn skipped(tree: &Tree) -> String {
    let (all, links) = (tree.skipped(), tree.symlinks);
    if all == 0 {
        return "0".to_owned();
    }
    format!(
        "{all} ({links} links, {} unreadable, {} other)",
        tree.unreadable, tree.other
    )
}

/// How to look around in the cluster that is left running.
pub fn invite(cluster: &Cluster, job: &Job, quorate: &std::path::Path) {
    let quorate = quorate.display();
    let endpoints = cluster.endpoints().join(",");
    println!("The cluster is still running. Look around, in another terminal:\n");
    println!("  export QUORATE_ENDPOINTS={endpoints}");
    for verb in ["status", "queue list", "lease list"] {
        println!("  {quorate} {verb}");
    }
    println!("  {quorate} process events {}", job.process);
    println!("\nCtrl-C stops it.");
}
