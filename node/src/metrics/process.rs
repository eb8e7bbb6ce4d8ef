//! The process and its runtime: names and meanings of Prometheus' own client libraries.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use super::book::{Book, count};

/// What the system and the runtime know of this process.
pub struct Process {
    cpu: Counter<f64, AtomicU64>,
    started: Gauge<f64, AtomicU64>,
    resident: Gauge,
    virtual_memory: Gauge,
    open_files: Gauge,
    open_files_max: Gauge,
    threads: Gauge,
    tasks: Gauge,
    workers: Gauge,
    queued: Gauge,
    busy: Counter<f64, AtomicU64>,
}

impl Process {
    pub fn new(book: &mut Book) -> Self {
        let cpu = "User and system time that the process has used";
        let started = "When the process started, in seconds since 1970";
        Self {
            cpu: book.counters(("process_cpu_seconds", "", cpu), Counter::default()),
            started: book.gauges(
                ("process_start_time_seconds", "", started),
                Gauge::default(),
            ),
            resident: book.gauge((
                "process_resident_memory_bytes",
                "",
                "Memory of the process that is in RAM",
            )),
            virtual_memory: book.gauge((
                "process_virtual_memory_bytes",
                "",
                "Memory that the process has mapped",
            )),
            open_files: book.gauge(("process_open_fds", "", "Open file descriptors")),
            open_files_max: book.gauge((
                "process_max_fds",
                "",
                "File descriptors that the process may have open",
            )),
            threads: book.gauge(("process_threads", "", "Threads of the process")),
            tasks: book.gauge(("tokio_alive_tasks", "", "Tasks of the async runtime")),
            workers: book.gauge(("tokio_workers", "", "Worker threads of the async runtime")),
            queued: book.gauge((
                "tokio_global_queue_depth",
                "",
                "Tasks that wait in the runtime's global queue",
            )),
            busy: book.counters(
                (
                    "tokio_workers_busy_seconds",
                    "",
                    "Time that the worker threads of the async runtime have spent on tasks",
                ),
                Counter::default(),
            ),
        }
    }

    /// Reads `/proc`; what it does not say stays as it was.
    pub fn refresh(&self) {
        if let Some(stat) = Stat::read() {
            set(&self.cpu, stat.cpu);
            self.started.set(stat.started);
            self.threads.set(stat.threads);
            self.virtual_memory.set(stat.virtual_bytes);
            self.resident.set(stat.resident_bytes);
        }
        if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
            self.open_files.set(count(files.count()));
        }
        if let Some(max) = open_files_max() {
            self.open_files_max.set(max);
        }
        let runtime = tokio::runtime::Handle::current();
        let runtime = runtime.metrics();
        self.tasks.set(count(runtime.num_alive_tasks()));
        self.workers.set(count(runtime.num_workers()));
        self.queued.set(count(runtime.global_queue_depth()));
        let workers = 0..runtime.num_workers();
        set(
            &self.busy,
            workers
                .map(|worker| runtime.worker_total_busy_duration(worker))
                .sum(),
        );
    }
}

/// Sets a counter that somebody else counts.
fn set(counter: &Counter<f64, AtomicU64>, total: Duration) {
    let bits = total.as_secs_f64().to_bits();
    counter.inner().store(bits, Ordering::Relaxed);
}

fn open_files_max() -> Option<i64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// `/proc/self/stat`.
struct Stat {
    cpu: Duration,
    started: f64,
    threads: i64,
    virtual_bytes: i64,
    resident_bytes: i64,
}

impl Stat {
    fn read() -> Option<Self> {
        let text = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The name, in parentheses, may hold spaces. Fields are counted from 3 behind it.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<i64>().ok();
        let ticks = i64::try_from(rustix::param::clock_ticks_per_second()).ok()?;
        let page = i64::try_from(rustix::param::page_size()).ok()?;
        let seconds = |ticked: i64| ticked as f64 / ticks as f64;
        let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
        let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        let runs_for = uptime - seconds(field(22)?);
        Some(Self {
            cpu: Duration::try_from_secs_f64(seconds(field(14)? + field(15)?)).ok()?,
            started: now.as_secs_f64() - runs_for,
            threads: field(20)?,
            virtual_bytes: field(23)?,
            resident_bytes: field(24)? * page,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_threads_memory_and_a_start_in_the_past() {
        let stat = Stat::read().expect("/proc is there");
        assert!(stat.threads >= 1 && stat.resident_bytes > 1 << 20);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let age = now.expect("after 1970").as_secs_f64() - stat.started;
        assert!((-1.0..3_600.0).contains(&age), "{age}");
        assert!(open_files_max().is_some_and(|max| max >= 64));
    }
}
