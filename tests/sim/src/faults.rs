//! What is done to a cluster, and when.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_node::simulation::RECEIVING_PREFIX;
use quorate_node::storage::disk::simulated::Faults;

use crate::planted::Planted;
use crate::random::{self, Random};
use crate::trace;
use crate::world::World;

/// How often each thing was done, by its name.
pub type Done = BTreeMap<&'static str, u64>;

/// Something that ends by itself.
#[derive(Debug)]
enum Ending {
    Start(usize),
    Repair,
    Release,
    Disk(usize),
}

/// The faults of a seed, in order.
pub struct Plan {
    random: Random,
    next: Duration,
    end: Duration,
    endings: Vec<(Duration, Ending)>,
    /// Nodes that are hurt once they are sent a snapshot.
    receivers: Vec<usize>,
    /// What was done.
    pub done: Done,
}

impl Plan {
    /// Faults from `begin` to `end`.
    pub fn new(seed: u64, begin: Duration, end: Duration) -> Self {
        Self {
            random: random::stream(seed, "faults"),
            next: begin + Duration::from_secs(1),
            end,
            endings: Vec::new(),
            receivers: Vec::new(),
            done: Done::new(),
        }
    }

    fn ms(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.random.below(to - from))
    }

    /// Does what is due.
    pub fn step(&mut self, world: &mut World) {
        let now = world.sim.elapsed();
        self.look_at_disks(world, now);
        self.look_at_receivers(world, now);
        self.look_at_replaced(world, now);
        self.end_what_is_due(world, now);
        if now >= self.next && now < self.end {
            self.next = now + self.ms(150, 1_700);
            self.hurt(world, now);
        }
    }

    /// A node whose power has gone in the middle of something, or that has stopped by itself, is
    /// started again after a while.
    fn look_at_disks(&mut self, world: &mut World, now: Duration) {
        for node in 0..world.machines.len() {
            let machine = &world.machines[node];
            let waits = self.endings.iter();
            let starts =
                |(_, ending): &(_, Ending)| matches!(ending, Ending::Start(n) if *n == node);
            if waits.into_iter().any(starts) {
                continue;
            }
            if !machine.disk.is_on() || machine.stopped.borrow().is_some() {
                world.crash(node, false);
                let later = now + self.ms(50, 3_000);
                self.endings.push((later, Ending::Start(node)));
            }
        }
    }

    fn hurt(&mut self, world: &mut World, now: Duration) {
        let nodes = world.machines.len() as u64;
        let node = self.random.below(nodes) as usize;
        let what = match self.random.below(17) {
            0 | 1 => {
                self.crash(world, node, now, false);
                "process_killed"
            }
            2 | 3 => {
                self.crash(world, node, now, true);
                "power_cut"
            }
            4 => {
                self.cut_soon(world, node, now);
                "power_cut_in_a_write"
            }
            5 => {
                self.crash_all(world, now);
                "all_power_cut"
            }
            6 | 7 => {
                self.isolate(world, node, now);
                "partitioned"
            }
            8 => {
                self.cut_one_way(world, node, now);
                "partitioned_one_way"
            }
            9 => {
                self.set_clock(world, node);
                "clock_set"
            }
            10 => {
                self.slow_disk(world, node, now);
                "disk_slow"
            }
            11 => {
                self.bad_disk(world, node, now);
                "disk_bad"
            }
            12 => {
                self.lose(world, now);
                "messages_lost"
            }
            13 | 14 => {
                self.leave_behind(world, node, now);
                "left_behind"
            }
            _ => {
                self.hold(world, node, now);
                "messages_late"
            }
        };
        *self.done.entry(what).or_default() += 1;
    }

    /// The node hears nothing until it needs a snapshot, and is hurt while it is sent one.
    fn leave_behind(&mut self, world: &mut World, node: usize, now: Duration) {
        let name = names(world)[node].clone();
        trace::note(now.as_millis(), format_args!("{name} is left behind"));
        for other in names(world).iter().filter(|other| **other != name) {
            world.sim.partition(other.as_str(), name.as_str());
        }
        let later = now + self.ms(2_000, 6_000);
        self.endings.push((later, Ending::Repair));
        self.receivers.push(node);
    }

    /// A snapshot that is on its way is interrupted, on one of its sides.
    fn look_at_receivers(&mut self, world: &mut World, now: Duration) {
        let receives = |node: &mut usize| world.machines[*node].disk.has_name(RECEIVING_PREFIX);
        let found: Vec<usize> = self.receivers.extract_if(.., receives).collect();
        for node in found {
            *self.done.entry("snapshot_interrupted").or_default() += 1;
            trace::note(
                now.as_millis(),
                format_args!("n{} is sent a snapshot", node + 1),
            );
            match self.random.below(4) {
                0 => self.crash(world, node, now, false),
                1 => self.cut_one_way(world, node, now),
                2 => {
                    let leader = leader(world).unwrap_or(node);
                    self.crash(world, leader, now, true);
                }
                _ => self.cut_soon(world, node, now),
            }
        }
    }

    /// A member that was taken out, or whose disk is lost, comes back with an empty one.
    fn look_at_replaced(&mut self, world: &mut World, now: Duration) {
        let Some(node) = world.members.lost.take() else {
            return;
        };
        *self.done.entry("disk_replaced").or_default() += 1;
        world.crash(node, true);
        world.machines[node].disk.wipe();
        world.machines[node].founds.set(false);
        self.endings
            .retain(|(_, ending)| !matches!(ending, Ending::Start(n) if *n == node));
        let later = now + self.ms(50, 2_000);
        self.endings.push((later, Ending::Start(node)));
    }

    /// What the node says and is told comes all at once, later.
    fn hold(&mut self, world: &mut World, node: usize, now: Duration) {
        let names = names(world);
        let other = self.random.below(names.len() as u64) as usize;
        let all = self.random.chance(1, 2);
        trace::note(now.as_millis(), format_args!("n{} is late", node + 1));
        for (to, name) in names.iter().enumerate() {
            if to != node && (all || to == other) {
                world.sim.hold(names[node].as_str(), name.as_str());
            }
        }
        let later = now + self.ms(50, 3_000);
        self.endings.push((later, Ending::Release));
    }

    /// Some messages are lost, between all nodes, and with them their connections.
    fn lose(&mut self, world: &mut World, now: Duration) {
        let rate = 0.002 * (1 + self.random.below(10)) as f64;
        trace::note(now.as_millis(), format_args!("{rate} of messages are lost"));
        for (a, b) in pairs(world) {
            world.sim.set_link_fail_rate(a.as_str(), b.as_str(), rate);
        }
        let later = now + self.ms(500, 4_000);
        self.endings.push((later, Ending::Repair));
    }

    fn crash(&mut self, world: &mut World, node: usize, now: Duration, power: bool) {
        if !world.machines[node].disk.is_on() {
            return;
        }
        world.crash(node, power);
        let later = now + self.ms(50, 5_000);
        self.endings.push((later, Ending::Start(node)));
    }

    /// The power goes in the middle of what the node does next.
    fn cut_soon(&mut self, world: &mut World, node: usize, now: Duration) {
        let after = self.random.below(40);
        set_disk(world, node, |faults| faults.cut_after = Some(after));
        trace::note(
            now.as_millis(),
            format_args!("n{} is cut in {after} steps", node + 1),
        );
    }

    fn crash_all(&mut self, world: &mut World, now: Duration) {
        for node in 0..world.machines.len() {
            self.crash(world, node, now, true);
        }
    }

    /// One or two nodes on one side, the others on the other.
    fn isolate(&mut self, world: &mut World, node: usize, now: Duration) {
        let names: Vec<String> = names(world);
        let other = self.random.below(names.len() as u64) as usize;
        let near = |at: usize| at == node || at == other;
        trace::note(
            now.as_millis(),
            format_args!("apart: n{} n{}", node + 1, other + 1),
        );
        for (a, of_a) in names.iter().enumerate() {
            for (b, of_b) in names.iter().enumerate() {
                if a < b && near(a) != near(b) {
                    world.sim.partition(of_a.as_str(), of_b.as_str());
                }
            }
        }
        let later = now + self.ms(100, 5_000);
        self.endings.push((later, Ending::Repair));
    }

    /// What the node says reaches nobody, but it hears.
    fn cut_one_way(&mut self, world: &mut World, node: usize, now: Duration) {
        let names = names(world);
        trace::note(now.as_millis(), format_args!("n{} is not heard", node + 1));
        for (to, name) in names.iter().enumerate() {
            if to != node {
                world
                    .sim
                    .partition_oneway(names[node].as_str(), name.as_str());
            }
        }
        let later = now + self.ms(100, 5_000);
        self.endings.push((later, Ending::Repair));
    }

    fn set_clock(&mut self, world: &mut World, node: usize) {
        let hour = 3_600_000_000;
        let mut micros = self.random.below(2 * hour) as i64 - hour as i64;
        if world.history.borrow().planted == Some(Planted::Unclamped) {
            micros = -micros.abs();
        }
        let now = world.now_ms();
        trace::note(
            now,
            format_args!("n{}: wall clock off by {micros} us", node + 1),
        );
        world.machines[node].set_skew(micros);
    }

    fn slow_disk(&mut self, world: &mut World, node: usize, now: Duration) {
        let max = self.ms(1, 250);
        trace::note(
            now.as_millis(),
            format_args!("n{}: syncs take up to {max:?}", node + 1),
        );
        set_disk(world, node, |faults| faults.sync_time_max = max);
        let later = now + self.ms(500, 6_000);
        self.endings.push((later, Ending::Disk(node)));
    }

    fn bad_disk(&mut self, world: &mut World, node: usize, now: Duration) {
        world.machines[node].excused.set(true);
        let full = self.random.chance(1, 2);
        trace::note(
            now.as_millis(),
            format_args!("n{}: bad disk, full: {full}", node + 1),
        );
        set_disk(world, node, |faults| match full {
            true => faults.capacity_bytes = Some(0),
            false => faults.failing_syncs = Some(5),
        });
        let later = now + self.ms(200, 3_000);
        self.endings.push((later, Ending::Disk(node)));
    }

    /// What goes on when all else is right again: a member that is being replaced.
    pub fn calm(&mut self, world: &mut World) {
        let now = world.sim.elapsed();
        self.look_at_replaced(world, now);
        self.end_what_is_due(world, now);
    }

    fn end_what_is_due(&mut self, world: &mut World, now: Duration) {
        let due: Vec<_> = self.endings.extract_if(.., |(at, _)| *at <= now).collect();
        for (_, ending) in due {
            end(world, &ending);
        }
    }

    /// All that is wrong is put right.
    pub fn heal(&mut self, world: &mut World) {
        trace::note(world.now_ms(), format_args!("the faults are over"));
        self.endings.clear();
        self.receivers.clear();
        end(world, &Ending::Release);
        end(world, &Ending::Repair);
        for node in 0..world.machines.len() {
            set_disk(world, node, |faults| faults.cut_after = None);
            end(world, &Ending::Disk(node));
            let machine = &world.machines[node];
            let stopped = machine.stopped.borrow().is_some();
            if !machine.disk.is_on() || stopped {
                end(world, &Ending::Start(node));
            }
            world.machines[node].excused.set(false);
        }
    }
}

/// Who leads the latest term.
fn leader(world: &World) -> Option<usize> {
    let history = world.history.borrow();
    let (_, leader) = history.leaders.last_key_value()?;
    Some(leader - 1)
}

fn names(world: &World) -> Vec<String> {
    world
        .machines
        .iter()
        .map(|machine| machine.name.clone())
        .collect()
}

/// Changes what a disk does worse than a good one.
pub fn set_disk(world: &World, node: usize, change: impl FnOnce(&mut Faults)) {
    let disk = &world.machines[node].disk;
    let mut faults = disk.faults();
    change(&mut faults);
    disk.set_faults(faults);
}

fn end(world: &mut World, ending: &Ending) {
    match ending {
        Ending::Start(node) => world.restart(*node),
        Ending::Disk(node) => set_disk(world, *node, |faults| {
            faults.sync_time_max = Duration::ZERO;
            faults.capacity_bytes = None;
            faults.failing_syncs = None;
        }),
        Ending::Release => {
            for (a, b) in pairs(world) {
                world.sim.release(a.as_str(), b.as_str());
            }
            trace::note(world.now_ms(), format_args!("nobody is late"));
        }
        Ending::Repair => {
            for (a, b) in pairs(world) {
                world.sim.set_link_fail_rate(a.as_str(), b.as_str(), 0.0);
                world.sim.repair(a.as_str(), b.as_str());
            }
            trace::note(world.now_ms(), format_args!("the network is whole"));
        }
    }
}

/// Every two nodes.
fn pairs(world: &World) -> Vec<(String, String)> {
    let names = names(world);
    let mut pairs = Vec::new();
    for (at, a) in names.iter().enumerate() {
        for b in &names[at + 1..] {
            pairs.push((a.clone(), b.clone()));
        }
    }
    pairs
}
