//! Cluster time: the only reader of a wall clock whose time gets into the log.
//!
//! A leader starts from the cluster time of the last entry it applied and moves on with its
//! monotonic clock. It drifts towards its wall clock by at most [`SLEW_PERCENT`] of the time that
//! passes, and never jumps: an operator who sets a clock an hour forward ends no lease early.
//!
//! Time without a leader or without a quorum does not count against a lease. A leader counts on for
//! as long as its lease lasts after the last word of a quorum, then time stands still; once a
//! quorum is back, what was counted on credit is waited out first.

use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use openraft::async_runtime::WatchReceiver;
use quorate_statemachine::Timestamp;

use crate::raft::{Raft, since_quorum};

/// How much faster or slower than the monotonic clock cluster time may run, in percent.
pub const SLEW_PERCENT: u64 = 5;

/// A monotonic and a wall clock; tests replace it.
pub trait Source: Send + Sync + 'static {
    /// The monotonic clock.
    fn monotonic(&self) -> Instant;
    /// Microseconds of the wall clock since the Unix epoch.
    fn wall_micros(&self) -> u64;
}

/// The machine's clocks.
pub struct System;

impl Source for System {
    fn monotonic(&self) -> Instant {
        Instant::now()
    }

    fn wall_micros(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| {
            u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
        })
    }
}

/// Where cluster time stood at an instant of the monotonic clock.
struct Anchor {
    cluster_micros: u64,
    at: Instant,
    /// The leadership that set it; another one starts from the applied time again.
    term: u64,
    /// Counted while no quorum stood behind it.
    credit: Duration,
}

/// The clock of a leader.
pub struct ClusterClock<S = System> {
    source: S,
    /// How long a leader believes in itself after a quorum was heard.
    lease: Duration,
    anchor: Mutex<Anchor>,
}

impl ClusterClock {
    /// Cluster time now, if the node of `raft` leads and has applied entries up to `applied`.
    ///
    /// Only who looks sees time without a quorum, so the ticker looks in each of its intervals.
    pub fn of_leader(&self, raft: &Raft, applied: Timestamp) -> Timestamp {
        let (term, silence) = {
            let metrics = raft.metrics();
            let metrics = metrics.borrow_watched();
            (metrics.current_term, since_quorum(&metrics))
        };
        let confirmed = silence.and_then(|silence| Instant::now().checked_sub(silence));
        self.now(term, confirmed, applied)
    }
}

impl<S: Source> ClusterClock<S> {
    /// A clock that has led no term yet.
    pub fn new(source: S, lease: Duration) -> Self {
        let at = source.monotonic();
        Self {
            source,
            lease,
            anchor: Mutex::new(Anchor {
                cluster_micros: 0,
                at,
                term: 0,
                credit: Duration::ZERO,
            }),
        }
    }

    /// Cluster time now, for the leader of `term` that has heard a quorum at `confirmed` and has
    /// applied entries up to `applied`.
    pub fn now(&self, term: u64, confirmed: Option<Instant>, applied: Timestamp) -> Timestamp {
        let applied_micros = applied.0.saturating_mul(1000);
        let wall = self.source.wall_micros();
        let mut anchor = self
            .anchor
            .lock()
            .expect("no code panics while it holds the anchor");
        let at = self.source.monotonic();
        if anchor.term != term {
            *anchor = Anchor {
                // A cluster without a past begins at the wall clock's time.
                cluster_micros: if applied.0 == 0 { wall } else { applied_micros },
                at,
                term,
                credit: Duration::ZERO,
            };
        }
        #[cfg(feature = "simulation")]
        if let Some(micros) = crate::simulation::local_clock(wall, applied_micros) {
            return Timestamp(micros / 1000);
        }
        let elapsed = self.counted(&mut anchor, at, confirmed);
        let moved =
            anchor
                .cluster_micros
                .saturating_add(slewed(elapsed, anchor.cluster_micros, wall));
        anchor.cluster_micros = moved.max(applied_micros);
        anchor.at = at;
        Timestamp(anchor.cluster_micros / 1000)
    }

    /// What counts of the time since the anchor.
    fn counted(&self, anchor: &mut Anchor, at: Instant, confirmed: Option<Instant>) -> Duration {
        let until = confirmed.map_or(anchor.at, |confirmed| confirmed + self.lease);
        let elapsed = at.min(until).saturating_duration_since(anchor.at);
        if at > until {
            anchor.credit = self.lease;
            return elapsed;
        }
        let waited_out = anchor.credit.min(elapsed);
        anchor.credit -= waited_out;
        elapsed - waited_out
    }
}

/// How far cluster time moves while the monotonic clock moves by `elapsed`.
fn slewed(elapsed: Duration, cluster_micros: u64, wall_micros: u64) -> u64 {
    let elapsed = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
    let bound = elapsed / 100 * SLEW_PERCENT;
    let unslewed = cluster_micros.saturating_add(elapsed);
    if wall_micros >= unslewed {
        elapsed.saturating_add(bound.min(wall_micros - unslewed))
    } else {
        elapsed - bound.min(unslewed - wall_micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[derive(Clone)]
    struct Set {
        start: Instant,
        monotonic: Arc<AtomicU64>,
        wall: Arc<AtomicU64>,
    }

    impl Set {
        fn new(wall_ms: u64) -> Self {
            Self {
                start: Instant::now(),
                monotonic: Arc::default(),
                wall: Arc::new(AtomicU64::new(wall_ms * 1000)),
            }
        }

        fn pass(&self, ms: u64) {
            self.monotonic.fetch_add(ms * 1000, Ordering::Relaxed);
            self.wall.fetch_add(ms * 1000, Ordering::Relaxed);
        }
    }

    impl Source for Set {
        fn monotonic(&self) -> Instant {
            self.start + Duration::from_micros(self.monotonic.load(Ordering::Relaxed))
        }

        fn wall_micros(&self) -> u64 {
            self.wall.load(Ordering::Relaxed)
        }
    }

    fn clock(set: &Set) -> ClusterClock<Set> {
        ClusterClock::new(set.clone(), Duration::from_millis(500))
    }

    /// Cluster time while a quorum is heard all the time.
    fn confirmed(clock: &ClusterClock<Set>, term: u64, applied: u64) -> u64 {
        let now = clock.source.monotonic();
        clock.now(term, Some(now), Timestamp(applied)).0
    }

    #[test]
    fn a_new_cluster_begins_at_the_wall_clock() {
        let clock = clock(&Set::new(1_000_000));
        assert_eq!(confirmed(&clock, 1, 0), 1_000_000);
    }

    #[test]
    fn a_wall_clock_set_an_hour_forward_moves_time_by_five_percent_at_most() {
        let set = Set::new(1_000_000);
        let clock = clock(&set);
        confirmed(&clock, 1, 0);
        set.wall.fetch_add(3_600_000_000, Ordering::Relaxed);
        assert_eq!(confirmed(&clock, 1, 0), 1_000_000);
        set.pass(10_000);
        assert_eq!(confirmed(&clock, 1, 0), 1_010_500);
    }

    #[test]
    fn a_wall_clock_set_back_slows_time_and_never_turns_it() {
        let set = Set::new(1_000_000);
        let clock = clock(&set);
        confirmed(&clock, 1, 0);
        set.wall.store(0, Ordering::Relaxed);
        set.pass(10_000);
        assert_eq!(confirmed(&clock, 1, 0), 1_009_500);
    }

    #[test]
    fn time_without_a_leader_does_not_count() {
        let set = Set::new(1_000_000);
        let clock = clock(&set);
        confirmed(&clock, 1, 0);
        set.pass(60_000);
        let resumed = confirmed(&clock, 2, 1_000_400);
        assert_eq!(resumed, 1_000_400);
    }

    #[test]
    fn time_without_a_quorum_does_not_count() {
        let set = Set::new(1_000_000);
        let clock = clock(&set);
        assert_eq!(confirmed(&clock, 1, 0), 1_000_000);
        let last_word = Some(set.monotonic());
        // On credit, for as long as the leader's lease lasts; then it stands still.
        for (passed_ms, counted) in [(300, 300), (200, 500), (100, 500), (60_000, 500)] {
            set.pass(passed_ms);
            let now = clock.now(1, last_word, Timestamp(0));
            assert_eq!(now, Timestamp(1_000_000 + counted));
        }
        // A quorum is back: the credit is waited out, then time goes on, at most 5 % faster.
        set.pass(20);
        let back = confirmed(&clock, 1, 0);
        assert!((1_000_500..=1_000_501).contains(&back), "{back}");
        set.pass(480);
        let waited = confirmed(&clock, 1, 0);
        assert!((1_000_500..=1_000_525).contains(&waited), "{waited}");
        set.pass(1_000);
        let goes_on = confirmed(&clock, 1, 0);
        assert!((1_001_500..=1_001_575).contains(&goes_on), "{goes_on}");
    }

    #[test]
    fn a_leader_that_has_heard_no_quorum_yet_stands_still() {
        let set = Set::new(1_000_000);
        let clock = clock(&set);
        clock.now(1, None, Timestamp(5_000));
        set.pass(10_000);
        assert_eq!(clock.now(1, None, Timestamp(5_000)), Timestamp(5_000));
    }

    #[test]
    fn entries_applied_meanwhile_pull_the_clock_up() {
        let clock = clock(&Set::new(1_000_000));
        confirmed(&clock, 1, 5_000);
        assert_eq!(confirmed(&clock, 1, 9_000), 9_000);
    }
}
