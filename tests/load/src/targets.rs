//! What is to be reached, and whether it was.

use crate::record::{System, Test};
use crate::summary::Summary;

/// At least so many times etcd's rate.
const RATES: [(Test, u32, f64); 7] = [
    (Test::Lock, 1, 1.0),
    (Test::Lock, 64, 6.0),
    (Test::Lock, 256, 6.0),
    (Test::Renew, 64, 5.0),
    (Test::Renew, 256, 5.0),
    (Test::RenewSpread, 64, 5.0),
    (Test::RenewSpread, 256, 5.0),
];
/// Lock cycles whose p99 must be no worse than etcd's.
const LATENCIES: [u32; 2] = [64, 256];
const MEMORY_LEASES: u64 = 100_000;
const MEMORY_MB_MAX: f64 = 300.0;
const RESTART_ROWS: u64 = 1_000_000;
const RESTART_SECONDS_MAX: f64 = 5.0;

/// One line of the table.
pub struct Target {
    pub what: String,
    pub wanted: String,
    pub measured: String,
    pub met: bool,
}

/// All targets that something was measured for.
pub fn all(summary: &Summary) -> Vec<Target> {
    let rates = RATES.iter().filter_map(|target| rate(summary, *target));
    let latencies = LATENCIES
        .iter()
        .filter_map(|clients| latency(summary, *clients));
    rates
        .chain(latencies)
        .chain(memory(summary))
        .chain(restarts(summary))
        .collect()
}

fn rate(summary: &Summary, (test, clients, wanted): (Test, u32, f64)) -> Option<Target> {
    let of = |system| summary.median(system, test, clients, 0);
    let ratio = of(System::Quorate)?.ops_per_second / of(System::Etcd)?.ops_per_second;
    Some(Target {
        what: format!("{} at {clients}, rate", test.as_str()),
        wanted: format!("{wanted:.0} x etcd or more"),
        measured: format!("{ratio:.2} x"),
        met: ratio >= wanted,
    })
}

fn latency(summary: &Summary, clients: u32) -> Option<Target> {
    let of = |system| summary.median(system, Test::Lock, clients, 0);
    let (ours, etcd) = (of(System::Quorate)?.p99_us, of(System::Etcd)?.p99_us);
    Some(Target {
        what: format!("lock at {clients}, p99"),
        wanted: format!("etcd's {:.2} ms or less", etcd / 1_000.0),
        measured: format!("{:.2} ms", ours / 1_000.0),
        met: ours <= etcd,
    })
}

fn memory(summary: &Summary) -> Option<Target> {
    let wanted = |leases, system| leases == MEMORY_LEASES && system == System::Quorate;
    let mut records = summary.memory.iter();
    let memory = records.find(|memory| wanted(memory.leases, memory.system))?;
    let kib = *memory.nodes_kib.iter().max()?;
    let mb = kib as f64 * 1_024.0 / 1e6;
    Some(Target {
        what: format!("memory of the largest node with {MEMORY_LEASES} live leases"),
        wanted: format!("below {MEMORY_MB_MAX:.0} MB"),
        measured: format!("{mb:.0} MB"),
        met: mb < MEMORY_MB_MAX,
    })
}

fn restarts(summary: &Summary) -> impl Iterator<Item = Target> {
    let large = |restart: &&crate::record::Restart| {
        restart.system == System::Quorate && restart.rows >= RESTART_ROWS
    };
    summary.restarts.iter().filter(large).map(|restart| Target {
        what: format!(
            "restart with {} leases after {}",
            restart.rows,
            if restart.killed { "kill -9" } else { "a stop" }
        ),
        wanted: format!("below {RESTART_SECONDS_MAX:.0} s"),
        measured: format!("{:.1} s", restart.seconds),
        met: restart.seconds < RESTART_SECONDS_MAX,
    })
}
