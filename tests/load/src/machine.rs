//! The machine: what it is, who uses its processors, how fast its disk syncs.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;

use crate::record::Cpu;

/// Linux counts processor time in hundredths of a second towards user space, on every machine.
const TICKS_PER_SECOND: f64 = 100.0;
const PROBE_BYTES: usize = 2_300;
const PROBE: Duration = Duration::from_secs(1);

/// Measures who uses the processors from its making on.
pub struct CpuMeter {
    start: Instant,
    busy: u64,
    nodes: (Vec<u32>, u64),
    clients: (u32, u64),
}

impl CpuMeter {
    /// Of `nodes`, and of the process that loads them.
    pub fn start(nodes: &[u32], clients: u32) -> Result<Self> {
        Ok(Self {
            start: Instant::now(),
            busy: busy_ticks()?,
            nodes: (nodes.to_vec(), all_ticks(nodes)?),
            clients: (clients, ticks(clients)?),
        })
    }

    /// What was used until now. Fails if one of the processes is gone.
    pub fn stop(&self) -> Result<Cpu> {
        let cores = |before: u64, now: u64| {
            let used = now.saturating_sub(before) as f64 / TICKS_PER_SECOND;
            used / self.start.elapsed().as_secs_f64()
        };
        let nodes = cores(self.nodes.1, all_ticks(&self.nodes.0)?);
        let clients = cores(self.clients.1, ticks(self.clients.0)?);
        let busy = cores(self.busy, busy_ticks()?);
        let others = (busy - nodes - clients).max(0.0);
        Ok(Cpu {
            nodes,
            clients,
            others,
        })
    }
}

fn all_ticks(pids: &[u32]) -> Result<u64> {
    pids.iter().map(|pid| ticks(*pid)).sum()
}

/// User and system time of a process; fields 14 and 15, counted after the name, which may hold
/// anything.
fn ticks(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("process {pid} is gone"))?;
    let (_, after_name) = text
        .rsplit_once(") ")
        .context("/proc/PID/stat without a name")?;
    let times = after_name.split_whitespace().skip(11).take(2);
    let times = times
        .map(str::parse::<u64>)
        .collect::<Result<Vec<_>, _>>()?;
    Ok(times.iter().sum())
}

/// Time that the machine was not idle; waiting for a disk is idle.
fn busy_ticks() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().context("/proc/stat is empty")?;
    let fields = line
        .split_whitespace()
        .skip(1)
        .take(8)
        .map(str::parse::<u64>);
    let fields = fields.collect::<Result<Vec<_>, _>>()?;
    const IDLE: usize = 3;
    const IO_WAIT: usize = 4;
    let busy = fields
        .iter()
        .enumerate()
        .filter(|(at, _)| ![IDLE, IO_WAIT].contains(at));
    Ok(busy.map(|(_, ticks)| ticks).sum())
}

/// Resident memory of a process.
pub fn resident_kib(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("process {pid} is gone"))?;
    field(&text, "VmRSS")
        .and_then(|kib| kib.parse().ok())
        .context("no VmRSS")
}

/// Load average over a minute.
pub fn load() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    Ok(text
        .split_whitespace()
        .next()
        .context("/proc/loadavg is empty")?
        .parse()?)
}

/// Model of the processors.
pub fn cpu_model() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = line.and_then(|line| line.split_once(':'));
    model
        .map_or("unknown", |(_, model)| model.trim())
        .to_owned()
}

/// Version of the kernel.
pub fn kernel() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    text.trim().to_owned()
}

/// Memory of the machine.
pub fn memory_mib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    field(&text, "MemTotal")
        .and_then(|kib| kib.parse::<u64>().ok())
        .unwrap_or(0)
        / 1_024
}

/// The first word after `name:`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)
}

/// Times of appends to a file in `dir`, each with its own fdatasync: what no durable system on this
/// disk can be faster than without sharing syncs.
pub fn probe_disk(dir: &Path) -> Result<Histogram<u64>> {
    let path = dir.join("sync-probe");
    let mut file = File::create(&path)?;
    let mut times = Histogram::new(3)?;
    let start = Instant::now();
    while start.elapsed() < PROBE {
        let before = Instant::now();
        file.write_all(&[7; PROBE_BYTES])?;
        file.sync_data()?;
        times.record(u64::try_from(before.elapsed().as_micros())?)?;
    }
    std::fs::remove_file(&path)?;
    Ok(times)
}
