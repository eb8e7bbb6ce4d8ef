//! Counters of what clients hold for a time: leases, locks, claims of queue items.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use quorate_statemachine::figure::Held;

use super::book::{Book, One, Timings, Two, left_seconds};

const LEASE_ENDS: &[&str] = &["expired", "released", "superseded", "reclaimed", "revoked"];

const LOCK_ENDS: &[&str] = &[
    "expired",
    "released",
    "revoked",
    "cancelled",
    "gave_up",
    "waiter_died",
    "deadlock",
];

const CLAIM_ENDS: &[&str] = &["expired", "done", "retried", "dead"];

/// Each kind of them.
pub struct Holdings {
    pub lease: Holding,
    pub lock: Holding,
    pub claim: Holding,
}

/// Counters of one kind.
pub struct Holding {
    kind: &'static str,
    granted: Counter,
    renewed: Counter,
    headroom: Histogram,
    /// The ends that are known, by reason.
    ends: Vec<(&'static str, Counter)>,
    all_ends: Family<Two, Counter>,
}

impl Holdings {
    pub fn new(book: &mut Book) -> Self {
        let granted = (
            "quorate_lease_granted",
            "kind",
            "Grants, by kind (lease, lock, claim), counted by every node as it applies them",
        );
        let renewed = (
            "quorate_lease_renewed",
            "kind",
            "Renewals, by kind (lease, lock, claim)",
        );
        let ended = (
            "quorate_lease_ended",
            "kind, reason",
            "Ends by kind (lease, lock, claim) and reason: expired, released, superseded, \
             reclaimed, revoked; of locks also those of waits (cancelled, gave_up, waiter_died, \
             deadlock); of claims expired, done, retried, dead",
        );
        let headroom = (
            "quorate_lease_renew_headroom_seconds",
            "kind",
            "What was left of the time to live when a renewal was applied, by kind (lease, lock, \
             claim): near 0 its holder nearly lost it",
        );
        let granted = book.counters(granted, Family::<One, Counter>::default());
        let renewed = book.counters(renewed, Family::<One, Counter>::default());
        let all_ends = book.counters(ended, Family::<Two, Counter>::default());
        let left = Timings::new_with_constructor(left_seconds);
        book.histograms(headroom, &left);
        let of = |kind: &'static str, reasons: &[&'static str]| Holding {
            kind,
            granted: granted.get_or_create_owned(&[("kind", kind)]),
            renewed: renewed.get_or_create_owned(&[("kind", kind)]),
            headroom: left.get_or_create_owned(&[("kind", kind)]),
            ends: reasons
                .iter()
                .map(|reason| (*reason, end(&all_ends, kind, reason)))
                .collect(),
            all_ends: all_ends.clone(),
        };
        Self {
            lease: of("lease", LEASE_ENDS),
            lock: of("lock", LOCK_ENDS),
            claim: of("claim", CLAIM_ENDS),
        }
    }

    /// Those of one kind.
    pub fn of(&self, held: Held) -> &Holding {
        match held {
            Held::Lease => &self.lease,
            Held::Lock => &self.lock,
            Held::Claim => &self.claim,
        }
    }
}

fn end(all: &Family<Two, Counter>, kind: &'static str, reason: &'static str) -> Counter {
    all.get_or_create_owned(&[("kind", kind), ("reason", reason)])
}

impl Holding {
    pub fn granted(&self) {
        self.granted.inc();
    }

    /// With so much of its time to live left.
    pub fn renewed(&self, left_seconds: f64) {
        self.renewed.inc();
        self.headroom.observe(left_seconds);
    }

    pub fn ended(&self, reason: &'static str) {
        match self.ends.iter().find(|(known, _)| *known == reason) {
            Some((_, ends)) => ends.inc(),
            None => end(&self.all_ends, self.kind, reason).inc(),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_counted_by_kind_and_reason() {
        let holdings = Holdings::new(&mut Book::default());
        holdings.lease.ended("expired");
        holdings.lock.ended("expired");
        holdings.lock.ended("expired");
        holdings.lock.ended("for a reason of a newer build");
        let count = |kind, reason| end(&holdings.lease.all_ends, kind, reason).get();
        assert_eq!(count("lease", "expired"), 1);
        assert_eq!(count("lock", "expired"), 2);
        assert_eq!(count("lock", "for a reason of a newer build"), 1);
        assert_eq!(count("claim", "expired"), 0);
    }

    #[test]
    fn a_renewal_counts_once_and_tells_what_was_left() {
        let mut book = Book::default();
        let holdings = Holdings::new(&mut book);
        holdings.of(Held::Claim).renewed(1.5);
        let text = book.text().expect("a String takes all");
        for line in [
            "quorate_lease_renewed_total{kind=\"claim\"} 1\n",
            "quorate_lease_renewed_total{kind=\"lease\"} 0\n",
            "quorate_lease_renew_headroom_seconds_count{kind=\"claim\"} 1\n",
            "quorate_lease_renew_headroom_seconds_sum{kind=\"claim\"} 1.5\n",
        ] {
            assert!(text.contains(line), "no {line} in {text}");
        }
    }
}
