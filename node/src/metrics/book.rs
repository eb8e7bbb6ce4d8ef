//! Registers metrics, and keeps what the reference says of each.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeMetric;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// A label and its value, both known when this program was built.
pub type One = [(&'static str, &'static str); 1];

/// Two of them.
pub type Two = [(&'static str, &'static str); 2];

/// Seconds by one label.
pub type Timings = Family<One, Histogram, fn() -> Histogram>;

/// A gauge of fractions.
pub type Seconds = Gauge<f64, AtomicU64>;

/// The id of another member.
pub type Peer = [(&'static str, String); 1];

/// Seconds by member.
pub type PeerTimings = Family<Peer, Histogram, fn() -> Histogram>;

/// The label of the member with this id.
pub fn peer(id: u64) -> Peer {
    [("peer", id.to_string())]
}

/// A metric as the reference shows it.
pub struct Row {
    pub name: String,
    pub kind: &'static str,
    pub labels: &'static str,
    pub help: &'static str,
}

/// All metrics of a node.
#[derive(Default)]
pub struct Book {
    pub registry: Registry,
    pub rows: Vec<Row>,
}

/// A metric's name, its labels as the reference names them, and what it means.
pub type Told = (&'static str, &'static str, &'static str);

impl Book {
    /// A counter; `_total` is added to its name.
    pub fn counter(&mut self, told: Told) -> Counter {
        self.counters(told, Counter::default())
    }

    /// Counters of another shape.
    pub fn counters<M: EncodeMetric + Clone + std::fmt::Debug + Send + Sync + 'static>(
        &mut self,
        told: Told,
        metric: M,
    ) -> M {
        self.put("counter", "_total", told, metric)
    }

    /// A gauge of whole numbers.
    pub fn gauge(&mut self, told: Told) -> Gauge {
        self.gauges(told, Gauge::default())
    }

    /// Gauges of another shape.
    pub fn gauges<M: EncodeMetric + Clone + std::fmt::Debug + Send + Sync + 'static>(
        &mut self,
        told: Told,
        metric: M,
    ) -> M {
        self.put("gauge", "", told, metric)
    }

    /// A histogram or a family of them.
    pub fn histograms<M: EncodeMetric + Clone + std::fmt::Debug + Send + Sync + 'static>(
        &mut self,
        told: Told,
        metric: &M,
    ) {
        self.put("histogram", "", told, metric.clone());
    }

    /// All of them as text.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }

    fn put<M: EncodeMetric + Clone + std::fmt::Debug + Send + Sync + 'static>(
        &mut self,
        kind: &'static str,
        suffix: &str,
        (name, labels, help): Told,
        metric: M,
    ) -> M {
        self.registry.register(name, help, metric.clone());
        self.rows.push(Row {
            name: format!("{name}{suffix}"),
            kind,
            labels,
            help,
        });
        metric
    }
}

/// 50 µs to 26 s, each bound twice the last: what waits for a disk or for a quorum.
pub fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_05, 2.0, 20))
}

/// 1 µs to 16 ms, each bound four times the last: what only computes.
pub fn short_seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_001, 4.0, 8))
}

/// 10 ms to 5 min, each bound twice the last: what is left of a time to live.
pub fn left_seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.01, 2.0, 16))
}

/// 1 ms to 70 min, each bound four times the last: what waits for other clients.
pub fn wait_seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 4.0, 12))
}

/// 10 ms to 20 min: what moves a whole state.
pub fn long_seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.01, 3.0, 12))
}

/// A number for a gauge.
pub fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A count for a gauge.
pub fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
