//! `quorate bench …`: a closed loop. Each of N tasks has one operation in flight and starts the
//! next when it is answered; what is prepared before and cleaned up after is not measured.
//!
//! A closed loop waits while the cluster is slow, so its latencies are those of callers that wait
//! too; it says nothing about callers that do not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use hdrhistogram::Histogram;
use quorate_client::Client;
use quorate_statemachine::InvalidArgument;
use serde::Serialize;

use crate::args::Global;
use crate::args::bench::{Bench, Test};
use crate::connect;
use crate::exit::Failure;
use crate::output::{Printer, Row};

mod worker;

use worker::Worker;

const WARM_UP: Duration = Duration::from_secs(1);
const DEFAULT_SECONDS: u32 = 5;
/// Longer latencies count as this one: ten minutes, above any timeout that makes sense.
const LATENCY_US_MAX: u64 = 600_000_000;

/// Prepares, warms up, measures, cleans up, prints.
pub async fn run(global: &Global, bench: &Bench, printer: &mut Printer) -> Result<(), Failure> {
    check_keys(bench)?;
    let clients = (0..bench.connections).map(|_| connect::client(global));
    let clients = clients.collect::<Result<Vec<_>, _>>()?;
    let measured = measure(clients, bench).await?;
    if let Some(error) = &measured.first_error {
        eprintln!("the first of {} errors: {error}", measured.errors);
    }
    printer.one(&ResultRow::new(bench, &measured))?;
    if measured.latency.is_empty() {
        return Err(Failure::error("bench_failed", "no operation succeeded"));
    }
    Ok(())
}

/// Who holds a lease excludes the others, so fewer keys than holders would measure being refused.
fn check_keys(bench: &Bench) -> Result<(), InvalidArgument> {
    let keys = bench.keys.unwrap_or(bench.clients);
    if !matches!(bench.test, Test::Lock | Test::Renew) || keys >= bench.clients {
        return Ok(());
    }
    let limit = format!("{} or more, one a client", bench.clients);
    Err(InvalidArgument::new(
        "keys",
        "are too few",
        limit,
        keys.to_string(),
    ))
}

async fn measure(clients: Vec<Client>, bench: &Bench) -> Result<Measured, Failure> {
    let mut workers = worker::prepare(clients, bench).await?;
    let (warm_up, measured) = match bench.count {
        Some(count) => (Until::Count(count.div_ceil(10)), Until::Count(count)),
        None => {
            let seconds = bench.seconds.unwrap_or(DEFAULT_SECONDS);
            (
                Until::Time(WARM_UP),
                Until::Time(Duration::from_secs(seconds.into())),
            )
        }
    };
    round(&mut workers, warm_up).await?;
    let measured = round(&mut workers, measured).await?;
    worker::clean_up(workers).await;
    Ok(measured)
}

/// When a round is over.
#[derive(Debug, Clone, Copy)]
enum Until {
    /// After so many operations of all workers together.
    Count(u64),
    /// After this time; what is answered later does not count.
    Time(Duration),
}

/// What a round, or one worker's part of it, came to.
#[derive(Debug)]
struct Measured {
    /// In microseconds.
    latency: Histogram<u64>,
    errors: u64,
    first_error: Option<String>,
    seconds: f64,
}

impl Measured {
    fn new() -> Self {
        Self {
            latency: Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)
                .expect("three significant digits are allowed"),
            errors: 0,
            first_error: None,
            seconds: 0.0,
        }
    }

    fn add(&mut self, other: &Self) -> Result<(), Failure> {
        self.errors += other.errors;
        if self.first_error.is_none() {
            self.first_error.clone_from(&other.first_error);
        }
        let added = self.latency.add(&other.latency);
        added.map_err(|error| Failure::error("bench_failed", error.to_string()))
    }
}

/// Lets all workers work until the round is over, and gives them back.
async fn round(workers: &mut Vec<Worker>, until: Until) -> Result<Measured, Failure> {
    let tickets = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let tasks = std::mem::take(workers).into_iter().map(|worker| {
        let tickets = tickets.clone();
        tokio::spawn(async move { work(worker, until, start, &tickets).await })
    });
    let done = try_join_all(tasks).await;
    let elapsed = start.elapsed();
    let done = done.map_err(|error| Failure::error("bench_failed", error.to_string()))?;
    let mut all = Measured::new();
    for (worker, part) in done {
        all.add(&part)?;
        workers.push(worker);
    }
    all.seconds = match until {
        Until::Count(_) => elapsed.as_secs_f64(),
        Until::Time(time) => time.as_secs_f64(),
    };
    Ok(all)
}

async fn work(
    mut worker: Worker,
    until: Until,
    start: Instant,
    tickets: &AtomicU64,
) -> (Worker, Measured) {
    let mut part = Measured::new();
    loop {
        if let Until::Count(count) = until
            && tickets.fetch_add(1, Ordering::Relaxed) >= count
        {
            break;
        }
        let sent = Instant::now();
        let result = worker.operate().await;
        let answered = Instant::now();
        if let Until::Time(time) = until
            && answered.duration_since(start) > time
        {
            break;
        }
        match result {
            Ok(()) => {
                let micros = answered.duration_since(sent).as_micros();
                part.latency
                    .saturating_record(u64::try_from(micros).unwrap_or(u64::MAX).max(1));
            }
            Err(error) => {
                part.errors += 1;
                part.first_error
                    .get_or_insert_with(|| error.message().to_owned());
            }
        }
    }
    (worker, part)
}

#[derive(Debug, Serialize)]
struct ResultRow {
    test: &'static str,
    clients: u32,
    keys: u32,
    connections: u32,
    seconds: f64,
    ops: u64,
    ops_per_second: f64,
    p50_us: u64,
    p99_us: u64,
    p999_us: u64,
    max_us: u64,
    errors: u64,
}

impl ResultRow {
    fn new(bench: &Bench, measured: &Measured) -> Self {
        let (ops, latency) = (measured.latency.len(), &measured.latency);
        let per_second = ops as f64 / measured.seconds.max(f64::MIN_POSITIVE);
        Self {
            test: bench.test.as_str(),
            clients: bench.clients,
            keys: bench.keys.unwrap_or(bench.clients),
            connections: bench.connections,
            seconds: (measured.seconds * 1_000.0).round() / 1_000.0,
            ops,
            ops_per_second: (per_second * 10.0).round() / 10.0,
            p50_us: latency.value_at_quantile(0.5),
            p99_us: latency.value_at_quantile(0.99),
            p999_us: latency.value_at_quantile(0.999),
            max_us: latency.max(),
            errors: measured.errors,
        }
    }
}

impl Row for ResultRow {
    const HEADER: &'static [&'static str] = &[
        "TEST", "CLIENTS", "SECONDS", "OPS", "OPS/S", "P50", "P99", "P99.9", "MAX", "ERRORS",
    ];

    fn cells(&self) -> Vec<String> {
        let ms = |us: u64| format!("{:.2}ms", us as f64 / 1_000.0);
        vec![
            self.test.to_owned(),
            self.clients.to_string(),
            format!("{:.1}", self.seconds),
            self.ops.to_string(),
            format!("{:.0}", self.ops_per_second),
            ms(self.p50_us),
            ms(self.p99_us),
            ms(self.p999_us),
            ms(self.max_us),
            self.errors.to_string(),
        ]
    }

    fn name(&self) -> String {
        self.test.to_owned()
    }

    fn alarming(&self) -> bool {
        self.errors > 0
    }
}

#[cfg(test)]
mod tests;
