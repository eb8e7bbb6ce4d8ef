//! Medians over rounds.

use crate::record::{
    Call, Cpu, Handovers, Memory, Names, Point, Processes, Record, Registry, Restart, Sessions,
    Store, System, Test, Turn,
};

/// All records of some runs, by what they are.
#[derive(Debug, Default)]
pub struct Summary {
    /// The last ones written.
    pub conditions: Option<crate::record::Conditions>,
    points: Vec<Point>,
    pub memory: Vec<Memory>,
    pub handovers: Vec<Handovers>,
    pub names: Vec<Names>,
    pub processes: Vec<Processes>,
    pub sessions: Vec<Sessions>,
    pub restarts: Vec<Restart>,
}

/// One point over all its rounds.
#[derive(Debug, Clone)]
pub struct Median {
    pub ops_per_second: f64,
    /// The slowest and the fastest round.
    pub range: (f64, f64),
    pub p50_us: f64,
    pub p99_us: f64,
    pub errors: u64,
    pub cpu: Cpu,
}

/// One lock over all rounds.
#[derive(Debug, Clone)]
pub struct Contended {
    /// Hand-overs.
    pub per_second: f64,
    /// The slowest and the fastest round.
    pub range: (f64, f64),
    /// Jain's index of the least fair round.
    pub jain: f64,
    /// What the client with the least got in any round.
    pub least: f64,
    /// What the client with the most got in any round.
    pub most: f64,
}

/// One call of a process registry, or one turn of sessions, over all rounds.
#[derive(Debug, Clone)]
pub struct Calls {
    pub per_second: f64,
    /// The slowest and the fastest round.
    pub range: (f64, f64),
    pub p50_us: f64,
    pub p99_us: f64,
}

impl Calls {
    /// Of rounds with a rate and latencies in µs each; none of no rounds.
    fn over(rounds: impl Iterator<Item = (f64, u64, u64)> + Clone) -> Option<Self> {
        let rates = rounds.clone().map(|(rate, _, _)| rate);
        Some(Self {
            per_second: median(rates.clone())?,
            range: (
                rates.clone().fold(f64::MAX, f64::min),
                rates.fold(0.0, f64::max),
            ),
            p50_us: median(rounds.clone().map(|(_, p50, _)| p50 as f64))?,
            p99_us: median(rounds.map(|(_, _, p99)| p99 as f64))?,
        })
    }
}

impl Summary {
    /// Of these records.
    pub fn new(records: Vec<Record>) -> Self {
        let mut summary = Self::default();
        for record in records {
            match record {
                Record::Conditions(conditions) => summary.conditions = Some(conditions),
                Record::Point(point) => summary.points.push(point),
                Record::Memory(memory) => summary.memory.push(memory),
                Record::Handovers(measured) => summary.handovers.push(measured),
                Record::Names(names) => summary.names.push(names),
                Record::Processes(measured) => summary.processes.push(measured),
                Record::Sessions(measured) => summary.sessions.push(measured),
                Record::Restart(restart) => summary.restarts.push(restart),
            }
        }
        summary
    }

    /// The medians of a point, if it was measured.
    pub fn median(&self, system: System, test: Test, clients: u32, leases: u64) -> Option<Median> {
        let wanted = |point: &&Point| {
            (point.system, point.test, point.clients, point.leases)
                == (system, test, clients, leases)
        };
        let points: Vec<&Point> = self.points.iter().filter(wanted).collect();
        let of = |value: fn(&Point) -> f64| median(points.iter().map(|point| value(point)));
        let rates = points.iter().map(|point| point.ops_per_second);
        Some(Median {
            ops_per_second: of(|point| point.ops_per_second)?,
            range: (
                rates.clone().fold(f64::MAX, f64::min),
                rates.fold(0.0, f64::max),
            ),
            p50_us: of(|point| point.p50_us as f64)?,
            p99_us: of(|point| point.p99_us as f64)?,
            errors: points.iter().map(|point| point.errors).sum(),
            cpu: Cpu {
                nodes: of(|point| point.cpu.nodes)?,
                clients: of(|point| point.cpu.clients)?,
                others: of(|point| point.cpu.others)?,
            },
        })
    }

    /// Whether operations were measured.
    pub fn has_points(&self) -> bool {
        !self.points.is_empty()
    }

    /// Whether contended locks were measured.
    pub fn has_locks(&self) -> bool {
        !self.handovers.is_empty() || !self.names.is_empty()
    }

    /// Clients on one lock, rising.
    pub fn contenders(&self) -> Vec<u32> {
        sorted(self.handovers.iter().map(|round| round.clients))
    }

    /// Rounds of one lock: medians, and the worst fairness.
    pub fn contended(&self, system: System, clients: u32) -> Option<Contended> {
        let wanted = |round: &&Handovers| (round.system, round.clients) == (system, clients);
        let rounds: Vec<&Handovers> = self.handovers.iter().filter(wanted).collect();
        let of = |value: fn(&Handovers) -> f64| median(rounds.iter().map(|round| value(round)));
        let rates = rounds.iter().map(|round| round.per_second);
        let least = |value: fn(&Handovers) -> f64| {
            let values = rounds.iter().map(|round| value(round));
            values.fold(f64::MAX, f64::min)
        };
        Some(Contended {
            per_second: of(|round| round.per_second)?,
            range: (least(|round| round.per_second), rates.fold(0.0, f64::max)),
            jain: least(|round| round.jain),
            least: least(|round| round.least),
            most: rounds.iter().map(|round| round.most).fold(0.0, f64::max),
        })
    }

    /// Tasks of the process registries, rising.
    pub fn tasks(&self) -> Vec<u32> {
        sorted(self.processes.iter().map(|round| round.tasks))
    }

    /// Calls a second over the rounds, the slowest and the fastest, and latencies in µs.
    pub fn calls(&self, registry: Registry, call: Call, tasks: u32) -> Option<Calls> {
        let wanted = |it: &&Processes| (it.registry, it.call, it.tasks) == (registry, call, tasks);
        let rounds = self.processes.iter().filter(wanted);
        Calls::over(rounds.map(|round| (round.per_second, round.p50_us, round.p99_us)))
    }

    /// Sessions at a time, rising.
    pub fn sessions_at_a_time(&self) -> Vec<u32> {
        sorted(self.sessions.iter().map(|round| round.sessions))
    }

    /// Turns a second over the rounds, and how many nodes a session had at the end.
    pub fn turns(&self, store: Store, turn: Turn, sessions: u32) -> Option<(Calls, f64)> {
        let wanted = |it: &&Sessions| (it.store, it.turn, it.sessions) == (store, turn, sessions);
        let rounds = self.sessions.iter().filter(wanted);
        let nodes = median(rounds.clone().map(|round| round.nodes))?;
        let calls = rounds.map(|round| (round.per_second, round.p50_us, round.p99_us));
        Some((Calls::over(calls)?, nodes))
    }

    /// Clients of the points without leases beside them, rising.
    pub fn clients(&self) -> Vec<u32> {
        let beside_none = self.points.iter().filter(|point| point.leases == 0);
        sorted(beside_none.map(|point| point.clients))
    }

    /// Leases, and clients, of the points with leases beside them, rising.
    pub fn beside(&self) -> Vec<(u64, u32)> {
        let beside = self.points.iter().filter(|point| point.leases > 0);
        sorted(beside.map(|point| (point.leases, point.clients)))
    }

    /// What others used of the processors: in the median point, and in the worst.
    pub fn others(&self) -> Option<(f64, f64)> {
        let contended = self.handovers.iter().map(|round| round.cpu.others);
        let others = self.points.iter().map(|point| point.cpu.others);
        let others = others.chain(contended);
        Some((median(others.clone())?, others.fold(0.0, f64::max)))
    }
}

fn sorted<T: Ord>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut values: Vec<T> = values.collect();
    values.sort();
    values.dedup();
    values
}

/// The middle one, or the mean of the two in the middle.
fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = values[(values.len() - 1) / 2];
    Some((lower + upper) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(system: System, round: u32, ops_per_second: f64) -> Record {
        Record::Point(Point {
            system,
            test: Test::Lock,
            clients: 64,
            round,
            leases: 0,
            ops_per_second,
            p50_us: 1,
            p99_us: 2,
            errors: 0,
            first_error: None,
            cpu: Cpu::default(),
        })
    }

    #[test]
    fn a_median_is_over_the_rounds_of_one_point_alone() {
        let rates = [30.0, 10.0, 20.0];
        let mut records: Vec<Record> = (0..)
            .zip(rates)
            .map(|(at, rate)| point(System::Quorate, at, rate))
            .collect();
        records.push(point(System::Etcd, 0, 5.0));
        let summary = Summary::new(records);
        let ours = summary
            .median(System::Quorate, Test::Lock, 64, 0)
            .expect("measured");
        assert_eq!((ours.ops_per_second, ours.range), (20.0, (10.0, 30.0)));
        let etcd = summary
            .median(System::Etcd, Test::Lock, 64, 0)
            .expect("measured");
        assert_eq!(etcd.ops_per_second, 5.0);
        assert!(summary.median(System::Etcd, Test::Lock, 1, 0).is_none());
    }

    #[test]
    fn of_an_even_number_the_median_is_between() {
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), Some(2.5));
        assert_eq!(median(std::iter::empty()), None);
    }
}
