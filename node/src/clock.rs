//! Cluster time: the only reader of a wall clock in the product.
//!
//! A leader starts from the cluster time of the last entry it applied and moves on with its
//! monotonic clock. It drifts towards its wall clock by at most [`SLEW_PERCENT`] of the time that
//! passes, and never jumps: an operator who sets a clock an hour forward ends no lease early, and
//! time without a leader does not count against a lease.

use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use quorate_statemachine::Timestamp;

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
}

/// The clock of a leader.
pub struct ClusterClock<S = System> {
    source: S,
    anchor: Mutex<Anchor>,
}

impl Default for ClusterClock {
    fn default() -> Self {
        Self::new(System)
    }
}

impl<S: Source> ClusterClock<S> {
    /// A clock that has led no term yet.
    pub fn new(source: S) -> Self {
        let at = source.monotonic();
        Self {
            source,
            anchor: Mutex::new(Anchor {
                cluster_micros: 0,
                at,
                term: 0,
            }),
        }
    }

    /// Cluster time now, for the leader of `term` that has applied entries up to `applied`.
    pub fn now(&self, term: u64, applied: Timestamp) -> Timestamp {
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
            };
        }
        let elapsed = at.saturating_duration_since(anchor.at);
        let moved =
            anchor
                .cluster_micros
                .saturating_add(slewed(elapsed, anchor.cluster_micros, wall));
        anchor.cluster_micros = moved.max(applied_micros);
        anchor.at = at;
        Timestamp(anchor.cluster_micros / 1000)
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

    #[test]
    fn a_new_cluster_begins_at_the_wall_clock() {
        let clock = ClusterClock::new(Set::new(1_000_000));
        assert_eq!(clock.now(1, Timestamp(0)), Timestamp(1_000_000));
    }

    #[test]
    fn a_wall_clock_set_an_hour_forward_moves_time_by_five_percent_at_most() {
        let set = Set::new(1_000_000);
        let clock = ClusterClock::new(set.clone());
        clock.now(1, Timestamp(0));
        set.wall.fetch_add(3_600_000_000, Ordering::Relaxed);
        assert_eq!(clock.now(1, Timestamp(0)), Timestamp(1_000_000));
        set.pass(10_000);
        assert_eq!(clock.now(1, Timestamp(0)), Timestamp(1_010_500));
    }

    #[test]
    fn a_wall_clock_set_back_slows_time_and_never_turns_it() {
        let set = Set::new(1_000_000);
        let clock = ClusterClock::new(set.clone());
        clock.now(1, Timestamp(0));
        set.wall.store(0, Ordering::Relaxed);
        set.pass(10_000);
        assert_eq!(clock.now(1, Timestamp(0)), Timestamp(1_009_500));
    }

    #[test]
    fn time_without_a_leader_does_not_count() {
        let set = Set::new(1_000_000);
        let clock = ClusterClock::new(set.clone());
        clock.now(1, Timestamp(0));
        set.pass(60_000);
        let resumed = clock.now(2, Timestamp(1_000_400));
        assert_eq!(resumed, Timestamp(1_000_400));
    }

    #[test]
    fn entries_applied_meanwhile_pull_the_clock_up() {
        let clock = ClusterClock::new(Set::new(1_000_000));
        clock.now(1, Timestamp(5_000));
        assert_eq!(clock.now(1, Timestamp(9_000)), Timestamp(9_000));
    }
}
