//! Metrics of a node, as Prometheus reads them from `/metrics`.
//!
//! Some are recorded while the node works (`recorded`, `held`), the others are looked at when
//! somebody asks (`sampled`, `contents`, `process`). No label holds a key, a name of a client, or
//! anything else that callers choose. `docs/reference/metrics.md` is written from the same list.

mod book;
mod contents;
mod held;
mod oldest;
mod process;
mod recorded;
mod sampled;

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use self::book::{Book, Row};
use self::process::Process;
use self::sampled::Sampled;
use crate::shared::Shared;

pub(crate) use book::{PeerTimings, peer};
pub(crate) use recorded::{BackupMeters, Recorded};
pub use recorded::{LogMeters, StateMeters};

/// What [`Metrics::render`] writes.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of one node.
pub(crate) struct Metrics {
    recorded: Recorded,
    /// Held while one answer is made.
    asked: Mutex<Asked>,
}

struct Asked {
    book: Book,
    sampled: Sampled,
    process: Process,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut book = Book::default();
        let sampled = Sampled::new(&mut book);
        let recorded = Recorded::new(&mut book);
        let process = Process::new(&mut book);
        let asked = Mutex::new(Asked {
            book,
            sampled,
            process,
        });
        Self { recorded, asked }
    }
}

impl Metrics {
    /// Where the node counts.
    pub fn recorded(&self) -> &Recorded {
        &self.recorded
    }

    /// All metrics as they are now. Reads a few files; `heard` is how long ago a leader was heard.
    pub fn render(&self, shared: &Shared, heard: Option<Duration>) -> Result<String, fmt::Error> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let led = heard.is_some_and(|heard| heard <= shared.config().silence_max());
        asked.sampled.refresh(shared, led);
        asked.process.refresh();
        asked.book.text()
    }
}

/// What the reference says of all of them.
const PREFACE: &str = "# Metrics

What `/metrics` on the HTTP port shows, in the text format of OpenMetrics. Units are in the names:
seconds, bytes, entries. This page is written by a test from the list in the code:
`QUORATE_WRITE_DOCS=1 cargo test -p quorate-node the_reference_is_current`.

A histogram has `_bucket`, `_sum` and `_count`. Counters start at 0 with the process. What is about
the state (leases, ends, events) every node counts as it applies the log: look at one node, do not
add them up. After a crash it applies, and counts, some entries again.

| metric | type | labels | meaning |
|---|---|---|---|
";

/// The page `docs/reference/metrics.md`.
#[must_use]
pub fn reference() -> String {
    let metrics = Metrics::default();
    let asked = metrics.asked.lock().unwrap_or_else(PoisonError::into_inner);
    let mut rows: Vec<&Row> = asked.book.rows.iter().collect();
    rows.sort_by_key(|row| &row.name);
    let mut text = PREFACE.to_owned();
    for Row {
        name,
        kind,
        labels,
        help,
    } in rows
    {
        text += &format!("| `{name}` | {kind} | {labels} | {help}. |\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_is_current() {
        let page = reference();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/metrics.md");
        if std::env::var_os("QUORATE_WRITE_DOCS").is_some() {
            std::fs::write(path, &page).expect("the reference can be written");
        }
        let present = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            present == page,
            "docs/reference/metrics.md is not what the code says; write it with \
             QUORATE_WRITE_DOCS=1 cargo test -p quorate-node the_reference_is_current"
        );
    }

    #[test]
    fn names_are_ours_or_those_of_all_processes_and_appear_once() {
        let metrics = Metrics::default();
        let asked = metrics.asked.lock().expect("nobody panicked");
        let mut names = std::collections::BTreeSet::new();
        for row in &asked.book.rows {
            let known = ["quorate_", "process_", "tokio_"];
            assert!(
                known.iter().any(|it| row.name.starts_with(it)),
                "{}",
                row.name
            );
            assert!(names.insert(&row.name), "{} is there twice", row.name);
            assert!(
                !row.help.is_empty() && !row.help.ends_with('.'),
                "{}",
                row.name
            );
        }
    }
}
