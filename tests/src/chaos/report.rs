//! What a run says at its end, and whether it has failed.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use super::check::Verdicts;
use super::nemesis::{Done, Fault};
use super::resource::Updates;

/// Everything that was found.
pub struct Report {
    /// By which the faults can be dealt again.
    pub seed: u64,
    /// What was recorded and whether it is right.
    pub verdicts: Verdicts,
    /// What was done to the cluster.
    pub faults: Vec<Done>,
    /// When writes were acknowledged.
    pub acknowledged: Vec<Instant>,
    /// The resource that looks at tokens, and the one that does not.
    pub updates: [Updates; 2],
    /// From the end of the faults until all was served and all members had everything.
    pub converged: Result<Duration>,
    /// Operations that came to nothing, by why.
    pub failures: BTreeMap<String, u64>,
    /// Answers that no client may get, and what else went wrong on the way.
    pub odd: Vec<String>,
}

impl Report {
    /// Everything that is wrong.
    #[must_use]
    pub fn wrong(&self) -> Vec<String> {
        let mut wrong: Vec<String> = self.odd.clone();
        for (what, verdict) in &self.verdicts {
            wrong.extend(
                verdict
                    .wrong
                    .iter()
                    .map(|problem| format!("{what}: {problem}")),
            );
        }
        let [fenced, bare] = self.updates;
        if fenced.lost > 0 {
            wrong.push(format!("the fenced resource lost {} updates", fenced.lost));
        }
        if bare.lost == 0 {
            wrong.push("no update was lost without a fence: the run was too tame".to_owned());
        }
        if let Err(error) = &self.converged {
            wrong.push(format!("after the faults: {error:#}"));
        }
        if self.acknowledged.is_empty() {
            wrong.push("no write was acknowledged".to_owned());
        }
        wrong
    }

    /// The longest time in which no write was acknowledged.
    fn longest_gap(&self) -> Duration {
        let gaps = self.acknowledged.windows(2).map(|pair| pair[1] - pair[0]);
        gaps.max().unwrap_or_default()
    }

    /// Acknowledged writes a second, over the whole run.
    fn rate(&self) -> f64 {
        let (first, last) = (self.acknowledged.first(), self.acknowledged.last());
        let time = first.zip(last).map_or(0.0, |(first, last)| {
            last.duration_since(*first).as_secs_f64()
        });
        self.acknowledged.len() as f64 / time.max(1.0)
    }

    /// The table for people.
    #[must_use]
    pub fn table(&self, dir: &Path) -> String {
        let mut text = String::new();
        let mut line = |what: std::fmt::Arguments<'_>| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{what}");
        };
        line(format_args!(
            "seed {}, files in {}",
            self.seed,
            dir.display()
        ));
        line(format_args!(
            "{:<16} {:>6} {:>9} {:>8}  verdict",
            "checked", "keys", "done", "unknown"
        ));
        for (what, it) in &self.verdicts {
            let verdict = if it.wrong.is_empty() {
                "right"
            } else {
                "WRONG"
            };
            let (keys, operations, unknown) = (it.keys, it.operations, it.unknown);
            line(format_args!(
                "{what:<16} {keys:>6} {operations:>9} {unknown:>8}  {verdict}"
            ));
        }
        let [fenced, bare] = self.updates;
        for (what, it) in [("with a fence", fenced), ("without a fence", bare)] {
            let Updates {
                accepted,
                lost,
                refused,
            } = it;
            line(format_args!(
                "{what:<16} {accepted} updates, {lost} lost, {refused} refused"
            ));
        }
        let mut by_kind: BTreeMap<Fault, (u64, u64)> = BTreeMap::new();
        for done in &self.faults {
            let (count, worst) = by_kind.entry(done.fault).or_default();
            *count += 1;
            *worst = done.recovered_ms.max(*worst);
        }
        line(format_args!(
            "{:<16} {:>6}  a leader again after, at worst",
            "fault", "count"
        ));
        for (fault, (count, worst)) in by_kind {
            line(format_args!(
                "{:<16} {count:>6}  {worst} ms",
                format!("{fault:?}")
            ));
        }
        line(format_args!(
            "{} writes acknowledged, {:.0} a second, longest gap {} ms",
            self.acknowledged.len(),
            self.rate(),
            self.longest_gap().as_millis()
        ));
        for (why, count) in &self.failures {
            line(format_args!("came to nothing: {count} ({why})"));
        }
        if let Ok(time) = &self.converged {
            line(format_args!(
                "served, and equal on all members, {} ms after",
                time.as_millis()
            ));
        }
        text
    }
}
