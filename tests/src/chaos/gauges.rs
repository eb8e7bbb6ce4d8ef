//! What a node's process takes of its machine, looked at after each fault: what only ever grows is
//! seen in an hour (`make soak`).

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::process::NodeProcess;

/// One look at one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Gauges {
    /// Which process: another one begins anew.
    pub pid: u32,
    /// Bytes in memory.
    pub memory_bytes: u64,
    /// Open files and sockets.
    pub handles: u64,
    /// Threads.
    pub threads: u64,
    /// Bytes that its directory takes on the disk.
    pub disk_bytes: u64,
}

/// One gauge: its name, how it is read, and by how much the last third of a run may lie above the
/// second: a share of it in percent, and so much more. The state itself grows by what is kept for
/// an hour (events, ended leases, dedupe keys).
type Bound = (&'static str, fn(&Gauges) -> u64, u64, u64);

const BOUNDS: [Bound; 4] = [
    ("bytes in memory", |it| it.memory_bytes, 10, 32 << 20),
    ("handles", |it| it.handles, 10, 16),
    ("threads", |it| it.threads, 0, 4),
    ("bytes on the disk", |it| it.disk_bytes, 50, 128 << 20),
];

/// With fewer looks at a process a third of them says nothing.
const LOOKS_MIN: usize = 30;

impl Gauges {
    /// Looks at a node that runs.
    pub fn of(node: &NodeProcess) -> Result<Self> {
        let pid = node.pid()?;
        let process = format!("/proc/{pid}");
        let status = fs::read_to_string(format!("{process}/status"))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.context("no VmRSS")?.trim();
        let kib: u64 = resident.trim_end_matches(" kB").parse()?;
        Ok(Self {
            pid,
            memory_bytes: kib << 10,
            handles: fs::read_dir(format!("{process}/fd"))?.count() as u64,
            threads: fs::read_dir(format!("{process}/task"))?.count() as u64,
            disk_bytes: allocated(node.data_dir()),
        })
    }
}

/// Bytes of all files below `dir`. One that goes meanwhile does not count.
fn allocated(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(file) if file.is_dir() => allocated(&entry.path()),
        Ok(file) => file.blocks() * 512,
        Err(_) => 0,
    });
    sizes.sum()
}

/// What grows, of processes that were looked at often enough; and how many these are.
#[must_use]
pub fn growing(looks: &[Gauges]) -> (usize, Vec<String>) {
    let mut processes: BTreeMap<u32, Vec<&Gauges>> = BTreeMap::new();
    for look in looks {
        processes.entry(look.pid).or_default().push(look);
    }
    processes.retain(|_, looks| looks.len() >= LOOKS_MIN);
    let grown = processes.iter().flat_map(|(pid, looks)| {
        let rows = BOUNDS.iter().filter_map(move |bound| grown(looks, bound));
        rows.map(move |what| format!("process {pid}: {what}"))
    });
    (processes.len(), grown.collect())
}

fn grown(looks: &[&Gauges], (what, of, percent, more): &Bound) -> Option<String> {
    let third = looks.len() / 3;
    let middle = median(looks[third..2 * third].iter().map(|it| of(it)));
    let last = median(looks[2 * third..].iter().map(|it| of(it)));
    let most = middle + middle * percent / 100 + more;
    (last > most).then(|| format!("{what} grew from {middle} to {last}, {most} would do"))
}

fn median(values: impl Iterator<Item = u64>) -> u64 {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(pid: u32, memory_bytes: impl Fn(u64) -> u64) -> Vec<Gauges> {
        let look = |at| Gauges {
            pid,
            memory_bytes: memory_bytes(at),
            handles: 50,
            threads: 12,
            disk_bytes: 1 << 30,
        };
        (0..60).map(look).collect()
    }

    #[test]
    fn what_settles_is_flat_and_what_leaks_is_not() {
        let settles = looks(1, |at| (100 << 20) + at.min(10) * (10 << 20));
        assert_eq!(growing(&settles), (1, Vec::new()));
        let leaks = looks(2, |at| (100 << 20) + at * (4 << 20));
        let (processes, grown) = growing(&[settles, leaks].concat());
        assert_eq!((processes, grown.len()), (2, 1), "{grown:?}");
        assert!(grown[0].starts_with("process 2: bytes in memory"));
    }

    #[test]
    fn a_process_that_lived_shortly_says_nothing() {
        let short = &looks(1, |at| at << 30)[..LOOKS_MIN - 1];
        assert_eq!(growing(short), (0, Vec::new()));
    }
}
