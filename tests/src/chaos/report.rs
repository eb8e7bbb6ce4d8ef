//! What a run says at its end, and whether it has failed.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use super::gauges::{self, Gauges};
use super::nemesis::{Done, Fault};
use super::resource::Updates;
use quorate_histories::check::Verdicts;

/// A client tries again every 200 ms at the latest.
const QUIET_MIN: Duration = Duration::from_secs(1);

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
        wrong.extend(self.growth().1);
        if let Err(error) = &self.converged {
            wrong.push(format!("after the faults: {error:#}"));
        }
        if self.acknowledged.is_empty() {
            wrong.push("no write was acknowledged".to_owned());
        }
        if self.slowest() == Some(0.0) {
            wrong.push("between two faults no write was acknowledged".to_owned());
        }
        wrong
    }

    fn growth(&self) -> (usize, Vec<String>) {
        let looks = self.faults.iter().flat_map(|fault| &fault.gauges);
        gauges::growing(&looks.copied().collect::<Vec<_>>())
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

    /// Acknowledged writes a second between two faults, where there were fewest. Of times that are
    /// too short to tell nothing is said.
    fn slowest(&self) -> Option<f64> {
        let long = self
            .faults
            .iter()
            .filter(|it| it.began - it.quiet >= QUIET_MIN);
        let rates = long.map(|fault| {
            let until = |end: Instant| self.acknowledged.partition_point(|at| *at < end);
            let writes = until(fault.began) - until(fault.quiet);
            writes as f64 / (fault.began - fault.quiet).as_secs_f64()
        });
        rates.min_by(f64::total_cmp)
    }

    /// The table for people.
    #[must_use]
    pub fn table(&self, dir: &Path) -> String {
        let mut lines = vec![format!("seed {}, files in {}", self.seed, dir.display())];
        lines.extend(self.checked());
        lines.extend(self.resources());
        lines.extend(self.by_kind());
        lines.extend(self.service());
        lines.extend(self.taken());
        lines.push(String::new());
        lines.join("\n")
    }

    fn checked(&self) -> Vec<String> {
        let (what, keys, done, unknown) = ("checked", "keys", "done", "unknown");
        let head = format!("{what:<16} {keys:>6} {done:>9} {unknown:>8}  verdict");
        let rows = self.verdicts.iter().map(|(what, it)| {
            let verdict = ["right", "WRONG"][usize::from(!it.wrong.is_empty())];
            let (keys, done, unknown) = (it.keys, it.operations, it.unknown);
            format!("{what:<16} {keys:>6} {done:>9} {unknown:>8}  {verdict}")
        });
        std::iter::once(head).chain(rows).collect()
    }

    fn resources(&self) -> Vec<String> {
        let names = ["with a fence", "without a fence"].into_iter();
        let rows = names.zip(&self.updates).map(|(what, it)| {
            let (accepted, lost, refused) = (it.accepted, it.lost, it.refused);
            format!("{what:<16} {accepted} updates, {lost} lost, {refused} refused")
        });
        rows.collect()
    }

    fn by_kind(&self) -> Vec<String> {
        let mut kinds: BTreeMap<Fault, (u64, u64)> = BTreeMap::new();
        for done in &self.faults {
            let (count, worst) = kinds.entry(done.fault).or_default();
            *count += 1;
            *worst = done.recovered_ms.max(*worst);
        }
        let (fault, count) = ("fault", "count");
        let head = format!("{fault:<16} {count:>6}  a leader again after, at worst");
        let rows = kinds.into_iter().map(|(fault, (count, worst))| {
            let fault = format!("{fault:?}");
            format!("{fault:<16} {count:>6}  {worst} ms")
        });
        std::iter::once(head).chain(rows).collect()
    }

    fn service(&self) -> Vec<String> {
        let (count, rate) = (self.acknowledged.len(), self.rate());
        let gap = self.longest_gap().as_millis();
        let mut lines = vec![format!(
            "{count} writes acknowledged, {rate:.0} a second, longest gap {gap} ms"
        )];
        let slowest = self.slowest();
        lines.extend(slowest.map(|rate| format!("between faults {rate:.0} a second at least")));
        let failures = self.failures.iter();
        lines.extend(failures.map(|(why, count)| format!("came to nothing: {count} ({why})")));
        let converged = self.converged.as_ref().map(Duration::as_millis);
        let words = |ms| format!("served, and equal on all members, {ms} ms after");
        lines.extend(converged.ok().map(words));
        lines
    }

    /// What the processes took of their machines at most, and whether it stayed so.
    fn taken(&self) -> Vec<String> {
        let looks = || self.faults.iter().flat_map(|fault| &fault.gauges);
        let most = |of: fn(&Gauges) -> u64| looks().map(of).max().unwrap_or(0);
        let (memory, disk) = (
            most(|it| it.memory_bytes) >> 20,
            most(|it| it.disk_bytes) >> 20,
        );
        let (handles, threads) = (most(|it| it.handles), most(|it| it.threads));
        let (followed, grown) = self.growth();
        vec![
            format!(
                "a node took {memory} MiB of memory, {disk} MiB of disk, {handles} handles and \
                 {threads} threads at most"
            ),
            format!(
                "{followed} processes lived long enough to be followed, {} grew",
                grown.len()
            ),
        ]
    }
}
