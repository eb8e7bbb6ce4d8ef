//! The closed loop that loads etcd, the same as in `quorate bench`: each of N tasks has one
//! operation in flight and starts the next when it is answered; what is answered after the end does
//! not count.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures::future::try_join_all;
use hdrhistogram::Histogram;

use crate::etcd::Cluster;
use crate::machine::CpuMeter;
use crate::record::{Point, System, Test};
use crate::worker::{self, Worker};

/// Before anything is counted.
pub const WARM_UP: Duration = Duration::from_secs(1);
/// Longer latencies count as this one: ten minutes.
const LATENCY_US_MAX: u64 = 600_000_000;

/// Of microseconds.
pub fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)?)
}

/// Measures one point of etcd.
pub async fn measure(cluster: &Cluster, test: Test, clients: u32, seconds: u32) -> Result<Point> {
    let since_epoch = std::time::UNIX_EPOCH.elapsed()?.as_micros().to_string();
    let mut workers = worker::prepare(cluster, test, clients, &since_epoch).await?;
    round(&mut workers, WARM_UP).await?;
    let meter = CpuMeter::start(&cluster.pids, std::process::id())?;
    let done = round(&mut workers, Duration::from_secs(seconds.into())).await?;
    let cpu = meter.stop()?;
    worker::clean_up(workers).await?;
    Ok(Point {
        system: System::Etcd,
        test,
        clients,
        round: 0,
        leases: 0,
        ops_per_second: done.latency.len() as f64 / f64::from(seconds),
        p50_us: done.latency.value_at_quantile(0.5),
        p99_us: done.latency.value_at_quantile(0.99),
        errors: done.errors,
        first_error: done.first_error,
        cpu,
    })
}

/// What a round, or one worker's part of it, came to.
struct Measured {
    /// In microseconds.
    latency: Histogram<u64>,
    errors: u64,
    first_error: Option<String>,
}

impl Measured {
    fn new() -> Result<Self> {
        Ok(Self {
            latency: histogram()?,
            errors: 0,
            first_error: None,
        })
    }
}

/// Lets all workers work until the round is over, and gives them back.
async fn round(workers: &mut Vec<Worker>, time: Duration) -> Result<Measured> {
    let end = Instant::now() + time;
    let tasks = std::mem::take(workers).into_iter();
    let tasks = tasks.map(|worker| tokio::spawn(work(worker, end)));
    let mut all = Measured::new()?;
    for done in try_join_all(tasks).await? {
        let (worker, part) = done?;
        all.latency.add(&part.latency)?;
        all.errors += part.errors;
        all.first_error = all.first_error.or(part.first_error);
        workers.push(worker);
    }
    Ok(all)
}

async fn work(mut worker: Worker, end: Instant) -> Result<(Worker, Measured)> {
    let mut part = Measured::new()?;
    loop {
        let sent = Instant::now();
        let result = worker.operate().await;
        let answered = Instant::now();
        if answered > end {
            return Ok((worker, part));
        }
        match result {
            Ok(()) => {
                let micros = answered.duration_since(sent).as_micros();
                part.latency
                    .saturating_record(u64::try_from(micros)?.max(1));
            }
            Err(error) => {
                part.errors += 1;
                part.first_error.get_or_insert_with(|| error.to_string());
            }
        }
    }
}
