//! Was every item settled exactly once, and is every digest right? Read from the cluster, and
//! computed again by another program.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use quorate_client::Client;
use quorate_client::statemachine::queue::{List, Queue};

use crate::files::{Tree, sha256sum};
use crate::job::{Finding, HASHED, Job, UNREADABLE};

/// What was found.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Items with one `hashed` event or more.
    pub hashed: usize,
    /// Items with more than one event.
    pub twice: Vec<String>,
    /// Files without an event.
    pub lost: Vec<String>,
    /// Digests that `sha256sum` does not confirm though the file has not changed.
    pub wrong: Vec<String>,
    /// Files that changed or went away meanwhile.
    pub changed: Vec<String>,
    /// Items still in the queue.
    pub left: u64,
}

impl Verdict {
    /// Each item exactly once, each digest right.
    pub fn is_good(&self) -> bool {
        self.twice.is_empty() && self.lost.is_empty() && self.wrong.is_empty() && self.left == 0
    }
}

/// Reads the events of the run and compares them with the files.
pub async fn check(client: &Client, job: &Job, tree: &Tree) -> Result<Verdict> {
    let queue = counters(client, job).await?;
    let mut verdict = Verdict {
        left: queue.items(),
        ..Verdict::default()
    };
    let findings = findings(client, job).await?;
    let digests = sha256sum(&tree.files.keys().collect::<Vec<_>>()).await?;
    for (path, found) in &tree.files {
        match findings.get(path).map(Vec::as_slice) {
            None | Some([]) => verdict.lost.push(path.clone()),
            Some([finding, more @ ..]) => {
                if !more.is_empty() {
                    verdict.twice.push(path.clone());
                }
                verdict.hashed += usize::from(finding.sha256.is_ok());
                let same = finding.sha256.as_ref().ok() == digests.get(path);
                if found.has_changed(path) {
                    verdict.changed.push(path.clone());
                } else if !same {
                    verdict.wrong.push(path.clone());
                }
            }
        }
    }
    let known = findings
        .keys()
        .filter(|path| tree.files.contains_key(*path))
        .count();
    ensure!(
        known == findings.len(),
        "there are events of files that were never pushed"
    );
    Ok(verdict)
}

/// The queue's counters.
pub async fn counters(client: &Client, job: &Job) -> Result<Queue> {
    let list = List {
        prefix: job.queue.to_string(),
        after: None,
        limit: 1,
    };
    let page = client.queue_list(list).await?;
    page.rows
        .into_iter()
        .next()
        .context("the run's queue is there")
}

/// All events of the run, by file.
async fn findings(client: &Client, job: &Job) -> Result<BTreeMap<String, Vec<Finding>>> {
    let record = client.process(job.process.as_str())?;
    let mut findings: BTreeMap<String, Vec<Finding>> = BTreeMap::new();
    let mut after = 0;
    loop {
        let page = record
            .events(after, 0)
            .await?
            .context("the run's process record is there")?;
        for event in &page.rows {
            let sequence = event.sequence;
            ensure!(
                sequence == after + 1,
                "event {sequence} follows event {after}"
            );
            after = sequence;
            let known = [HASHED, UNREADABLE].contains(&event.event_type.as_str());
            ensure!(known, "event {sequence} is of type {}", event.event_type);
            let finding: Finding = serde_json::from_slice(&event.payload)?;
            findings
                .entry(finding.path.clone())
                .or_default()
                .push(finding);
        }
        if page.next.is_none() {
            return Ok(findings);
        }
    }
}
