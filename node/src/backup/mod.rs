//! Backups by schedule.
//!
//! Every node that has the section `[backup]` looks after them while it leads: it makes a snapshot
//! file when the newest good one is old, reads it back, and then removes those that are too many or
//! too old. What there is, it finds out by listing, so with a place that all nodes share a new
//! leader goes on where the old one stood. Two that take themselves for leaders make two files, and
//! neither touches the other's. An alarm is on while the newest good backup is older than it should
//! be, whatever the reason.

mod s3;
mod store;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::alarm::{AlarmKind, Alarms};
use crate::config::BackupSection;
use crate::core::Core;
use crate::disaster::clock_ms;
use crate::metrics::BackupMeters;
use crate::snapshot_file;

pub use store::{BackupError, Place, read};

use store::{Backup, Store};

/// Longest time between looks, and the pause after the first failure.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// The pause after a failure is twice the one before, up to this power of two.
const DOUBLINGS_MAX: u32 = 5;

/// A store that takes no piece for so long is given up. Its own retries end before.
const STORE_PATIENCE: Duration = Duration::from_secs(600);

const DAY_MS: u64 = 86_400_000;

/// What a leader knows of the backups.
#[derive(Debug, Default)]
struct Known {
    /// The newest good one.
    newest: Option<Backup>,
    /// When this node has made one.
    made_at: Option<Instant>,
    /// Since when this node leads.
    leads_since: Option<Instant>,
    /// Why the last attempt came to nothing.
    failure: Option<String>,
    /// Attempts in a row that came to nothing.
    failures: u32,
    /// No attempt before.
    not_before: Option<Instant>,
}

/// What an attempt has found or made.
#[derive(Debug)]
struct Found {
    newest: Backup,
    made: bool,
}

/// Looks after the backups while this node leads.
pub(crate) async fn run(core: &Arc<Core>, section: &BackupSection, alarms: &Alarms) {
    let meters = &core.metrics.recorded().backup;
    let mut interval = tokio::time::interval(section.pace());
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known = Known::default();
    // Beside the looks: an attempt that hangs must not keep the alarm away.
    let mut attempts = JoinSet::new();
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            Some(ended) = attempts.join_next() => {
                let ended: Result<Result<Found, BackupError>, _> = ended;
                let ended = ended.map_err(|error| error.to_string());
                let ended = ended.and_then(|ended| ended.map_err(|error| error.to_string()));
                known.learn(ended, section, meters);
            }
        }
        if !core.leads() {
            known = Known::default();
            meters.forget();
            alarms.clear(AlarmKind::BackupOld);
            continue;
        }
        let led = known.leads_since.get_or_insert_with(Instant::now).elapsed();
        match known.complaint(section, clock_ms(), led) {
            Some(text) => alarms.raise(AlarmKind::BackupOld, text),
            None => alarms.clear(AlarmKind::BackupOld),
        }
        if attempts.is_empty() && known.wants_an_attempt(section, clock_ms()) {
            let (core, section) = (Arc::clone(core), section.clone());
            let (newest, made_at) = (known.newest.clone(), known.made_at);
            attempts.spawn(async move { attempt(&core, &section, newest, made_at).await });
        }
    }
}

/// Makes a backup if one is due. `good` is one that is known to be whole.
async fn attempt(
    core: &Core,
    section: &BackupSection,
    good: Option<Backup>,
    made_at: Option<Instant>,
) -> Result<Found, BackupError> {
    let store = Store::open(section, &core.identity().cluster_id).await?;
    let newest = store.list().await?.pop();
    let is_due = |newest: &Backup| is_due(newest.saved_at_ms, clock_ms(), made_at, section.every());
    if let Some(newest) = newest.filter(|newest| !is_due(newest)) {
        // Whoever led before may have ended before it was read back.
        let is_good = Some(&newest) == good.as_ref() || store.is_whole(&newest).await?;
        if is_good {
            let made = false;
            return Ok(Found { newest, made });
        }
    }
    let file = snapshot_file::stream(core, STORE_PATIENCE, ()).await?;
    let newest = store.save(file).await?;
    tracing::info!(to = section.to, name = newest.name(), "a backup was made");
    // It is good all the same, and they are removed after the next one.
    if let Err(error) = tidy(&store, section, &newest).await {
        tracing::warn!(%error, to = section.to, "old backups were not removed");
    }
    let made = true;
    Ok(Found { newest, made })
}

/// Removes what is too much, now that `newest` is good.
async fn tidy(store: &Store, section: &BackupSection, newest: &Backup) -> Result<(), BackupError> {
    let all = store.list().await?;
    let mut failed = None;
    for old in beyond(&all, section, newest) {
        match store.remove(old).await {
            Ok(()) => tracing::info!(name = old.name(), "an old backup was removed"),
            // One that cannot be removed keeps no other.
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    store.remove_leftovers(newest).await?;
    failed.map_or(Ok(()), Err)
}

/// Those of `all`, oldest first, that are too many or too old; never `newest`, nor a later one.
fn beyond<'a>(
    all: &'a [Backup],
    section: &BackupSection,
    newest: &Backup,
) -> impl Iterator<Item = &'a Backup> {
    let too_many = match section.keep {
        0 => 0,
        keep => all.len().saturating_sub(keep),
    };
    let too_old = match section.keep_days {
        0 => 0,
        days => newest
            .saved_at_ms
            .saturating_sub(days.saturating_mul(DAY_MS)),
    };
    let before = all.iter().take_while(move |backup| *backup < newest);
    let marked = before
        .enumerate()
        .filter(move |(place, backup)| *place < too_many || backup.saved_at_ms < too_old);
    marked.map(|(_, backup)| backup)
}

/// How old the newest backup is. One of the future (a clock went back) says nothing: then it counts
/// when this node made it, if it did.
fn age(newest_ms: u64, now_ms: u64, made_at: Option<Instant>) -> Option<Duration> {
    let by_clock = now_ms.checked_sub(newest_ms).map(Duration::from_millis);
    by_clock.or_else(|| made_at.map(|made| made.elapsed()))
}

fn is_due(newest_ms: u64, now_ms: u64, made_at: Option<Instant>, every: Duration) -> bool {
    age(newest_ms, now_ms, made_at).is_none_or(|age| age >= every)
}

impl BackupSection {
    fn every(&self) -> Duration {
        Duration::from_secs(self.every_s)
    }

    fn pace(&self) -> Duration {
        LOOK_EVERY.min(self.every() / 4)
    }
}

impl Known {
    fn wants_an_attempt(&self, section: &BackupSection, now_ms: u64) -> bool {
        let rested = self.not_before.is_none_or(|at| Instant::now() >= at);
        let is_due =
            |backup: &Backup| is_due(backup.saved_at_ms, now_ms, self.made_at, section.every());
        rested && self.newest.as_ref().is_none_or(is_due)
    }

    fn learn(
        &mut self,
        ended: Result<Found, String>,
        section: &BackupSection,
        meters: &BackupMeters,
    ) {
        match ended {
            Ok(Found { newest, made }) => {
                meters.good(newest.saved_at_ms, newest.bytes);
                if made {
                    meters.made.inc();
                    self.made_at = Some(Instant::now());
                }
                self.newest = Some(newest);
                (self.failure, self.failures, self.not_before) = (None, 0, None);
            }
            Err(error) => {
                meters.failed.inc();
                if self.failure.as_ref() != Some(&error) {
                    tracing::warn!(error, to = section.to, "no backup was made");
                }
                let pause = section.pace() * (1 << self.failures.min(DOUBLINGS_MAX));
                self.not_before = Some(Instant::now() + pause.min(section.every()));
                self.failures = self.failures.saturating_add(1);
                self.failure = Some(error);
            }
        }
    }

    /// What the alarm says, if it must be on. `led` is how long this node has led.
    fn complaint(&self, section: &BackupSection, now_ms: u64, led: Duration) -> Option<String> {
        let limit = Duration::from_secs(section.alarm_after_s);
        let newest = self.newest.as_ref();
        let age = newest.and_then(|backup| age(backup.saved_at_ms, now_ms, self.made_at));
        let told = match age {
            Some(age) if age > limit => format!("is {} s old", age.as_secs()),
            Some(_) => return None,
            None if self.failure.is_some() || led > limit => "is not known".to_owned(),
            None => return None,
        };
        let why = match &self.failure {
            Some(error) => format!("the last attempt: {error}"),
            None => "an attempt is under way".to_owned(),
        };
        let (to, limit) = (&section.to, limit.as_secs());
        Some(format!(
            "the newest good backup in {to} {told}, the limit is {limit} s; {why}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(60);

    fn section() -> BackupSection {
        BackupSection {
            to: "/backups".to_owned(),
            every_s: 60,
            keep: 2,
            alarm_after_s: 180,
            ..BackupSection::default()
        }
    }

    fn removed(all: &[Backup], section: &BackupSection, newest: &Backup) -> Vec<u64> {
        let removed = beyond(all, section, newest);
        removed.map(|backup| backup.saved_at_ms).collect()
    }

    #[test]
    fn one_is_due_when_the_newest_is_old() {
        assert!(!is_due(1_000, 60_999, None, EVERY));
        assert!(is_due(1_000, 61_000, None, EVERY));
    }

    #[test]
    fn one_of_the_future_keeps_no_other_away_and_causes_no_flood() {
        assert!(is_due(9_000, 1_000, None, EVERY));
        assert!(!is_due(9_000, 1_000, Some(Instant::now()), EVERY));
    }

    #[test]
    fn what_is_too_many_or_too_old_goes_and_the_newest_never() {
        let day = |day| Backup::saved_at(day, day * DAY_MS);
        let all: Vec<Backup> = (1..=4).map(day).collect();
        let ms = |days: &[u64]| days.iter().map(|day| day * DAY_MS).collect::<Vec<_>>();
        let mut section = section();
        assert_eq!(removed(&all, &section, &all[3]), ms(&[1, 2]));
        // Another leader has made a later one meanwhile.
        assert_eq!(removed(&all, &section, &all[1]), ms(&[1]));
        section.keep = 9;
        assert_eq!(removed(&all, &section, &all[3]), ms(&[]));
        (section.keep, section.keep_days) = (0, 1);
        assert_eq!(removed(&all, &section, &all[3]), ms(&[1, 2]));
        section.keep_days = 0;
        assert_eq!(removed(&all, &section, &all[3]), ms(&[]));
    }

    #[test]
    fn what_a_clock_that_was_ahead_has_saved_is_the_oldest_by_its_place_in_the_log() {
        let ahead = Backup::saved_at(1, 9_000);
        let all = vec![
            ahead,
            Backup::saved_at(2, 1_000),
            Backup::saved_at(3, 2_000),
        ];
        assert_eq!(removed(&all, &section(), &all[2]), [9_000]);
    }

    #[test]
    fn an_old_backup_is_told_with_its_age_and_the_reason() {
        let (meters, section) = (BackupMeters::default(), section());
        let mut known = Known::default();
        let led = Duration::from_secs(1);
        assert_eq!(known.complaint(&section, 0, led), None);
        known.learn(Err("disk full".to_owned()), &section, &meters);
        let text = known.complaint(&section, 0, led).expect("none is known");
        let both = text.contains("not known") && text.contains("disk full");
        assert!(both, "{text}");
        assert!(!known.wants_an_attempt(&section, 0), "there is a pause");
        let newest = Backup::saved_at(1, 1_000);
        let made = true;
        known.learn(Ok(Found { newest, made }), &section, &meters);
        assert_eq!(known.complaint(&section, 181_000, led), None);
        let text = known.complaint(&section, 182_000, led).expect("too old");
        assert!(text.contains("is 181 s old, the limit is 180 s"), "{text}");
        assert!(text.contains("under way"), "{text}");
        assert!(known.wants_an_attempt(&section, 182_000));
    }

    #[test]
    fn a_clock_that_went_back_is_no_reason_to_complain_of_a_backup_just_made() {
        let (section, meters) = (section(), BackupMeters::default());
        let mut known = Known::default();
        let newest = Backup::saved_at(1, 9_000);
        known.learn(Ok(Found { newest, made: true }), &section, &meters);
        let led = Duration::from_secs(181);
        assert_eq!(known.complaint(&section, 1_000, led), None);
    }

    #[test]
    fn a_leader_that_finds_nothing_out_complains_in_the_end() {
        let known = Known::default();
        let text = known.complaint(&section(), 0, Duration::from_secs(181));
        assert!(text.expect("too long").contains("under way"));
    }
}
