//! A cluster of one seed: nodes, disks, network, and the loop that moves time.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::rc::Rc;
use std::time::Duration;

use quorate_node::disaster::{self, DisasterError, Wanted};
use quorate_node::storage::disk::simulated::{Disk, Faults, attach};
use quorate_node::{Config, Health, Node};
use tokio::task::JoinSet;
use tokio::time::sleep;
use turmoil::Sim;

use crate::faults::{Done, Plan};
use crate::history::{History, Shared};
use crate::invariants::{self, acknowledged};
use crate::planted::Planted;
use crate::random::{self, Random};
use crate::workload::{self, Account, Contender, Locker, Members, Teller, Worker, note};
use crate::{aftermath, process, trace};

/// How long faults go on.
const FAULTS: Duration = Duration::from_secs(16);

/// How long the cluster has to recover when they are over.
const CALM: Duration = Duration::from_secs(8);

/// How long a client may take that is waited for.
const JUDGED: Duration = Duration::from_secs(20);

/// How long it may take until all nodes have applied the same entry.
const CONVERGED: Duration = Duration::from_secs(3);

/// How long clusters that follow may take, together.
const AFTERMATH: Duration = Duration::from_secs(200);

/// How often a node is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(7);

/// What a run is like.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// All that happens is its alone.
    pub seed: u64,
    /// No faults: for a first look at a change.
    pub calm: bool,
    /// A bug that must be caught.
    pub planted: Option<Planted>,
}

/// What a run was like.
#[derive(Debug)]
pub struct Report {
    /// What was wrong.
    pub wrong: Vec<String>,
    /// In numbers, by name.
    pub sums: Done,
}

/// What `quorate snapshot restore` is told.
#[derive(Debug)]
pub struct Restore {
    /// The snapshot file.
    pub file: Rc<Vec<u8>>,
    /// As its option.
    pub tokens_above: Option<u64>,
}

/// A node, as the harness holds it.
pub struct Machine {
    pub name: String,
    pub disk: Disk,
    config: Config,
    /// It founds the cluster if its disk is empty.
    pub founds: Cell<bool>,
    skew_micros: Cell<i64>,
    runtime: Cell<Option<tokio::runtime::Id>>,
    /// Why it stopped by itself.
    pub stopped: RefCell<Option<String>>,
    /// Something is wrong with the disk, so that it may.
    pub excused: Cell<bool>,
    /// Its next process restores a snapshot file instead of being a node.
    pub restores: RefCell<Option<Restore>>,
    /// How that ended: the token that all of the new cluster are above.
    pub restored: RefCell<Option<Result<u64, DisasterError>>>,
}

impl Machine {
    fn new(number: usize, seed: u64) -> Rc<Self> {
        let name = format!("n{number}");
        let root = format!("/simulated/{name}");
        let disk = Disk::new(&root, random::stream(seed, &name).any());
        attach(&disk);
        Rc::new(Self {
            config: config(number, &root),
            name,
            disk,
            founds: Cell::new(number == 1),
            skew_micros: Cell::new(0),
            runtime: Cell::new(None),
            stopped: RefCell::default(),
            excused: Cell::new(false),
            restores: RefCell::default(),
            restored: RefCell::default(),
        })
    }

    /// Sets its wall clock.
    pub fn set_skew(&self, micros: i64) {
        self.skew_micros.set(micros);
        if let Some(runtime) = self.runtime.get() {
            process::set_skew(runtime, micros);
        }
    }

    /// One life of its process.
    async fn run(self: Rc<Self>, number: usize, history: Shared) {
        let runtime = tokio::runtime::Handle::current().id();
        self.runtime.set(Some(runtime));
        process::set_skew(runtime, self.skew_micros.get());
        if let Some(order) = self.restores.take() {
            return self.restore(&order);
        }
        let mut config = self.config.clone();
        config.node.bootstrap = self.founds.get();
        let builder = Node::builder().configure(|of_node| *of_node = config);
        let node = match builder.free_bytes(|_| Ok(u64::MAX)).start().await {
            Ok(node) => node,
            Err(error) => return self.stop(&format!("did not start: {error}")),
        };
        note(format_args!("{} runs", self.name));
        loop {
            if let Health::Failed(facts) = &*node.health().borrow() {
                return self.stop(&format!("failed: {facts}"));
            }
            if let Some(seen) = node.seen() {
                let mut history = history.borrow_mut();
                let term = (history.cluster, seen.term);
                if seen.leads && !history.leaders.contains_key(&term) {
                    note(format_args!("{} leads term {}", self.name, seen.term));
                }
                invariants::digests::seen(&mut history, number, &seen);
                invariants::leaders::seen(&mut history, number, &seen);
                history.seen.insert(number, seen);
            }
            sleep(LOOK_EVERY).await;
        }
    }

    fn restore(&self, order: &Restore) {
        let wanted = Wanted {
            data_dir: self.config.node.data_dir.clone(),
            node_id: None,
            name: Some(self.name.clone()),
            tokens_above: order.tokens_above,
        };
        let made = disaster::restore(&wanted, &order.file[..], &mut |_| {});
        let made = made.map(|restored| restored.tokens_above);
        note(format_args!("{} restores: {made:?}", self.name));
        *self.restored.borrow_mut() = Some(made);
    }

    fn stop(&self, why: &str) {
        note(format_args!("{} {why}", self.name));
        *self.stopped.borrow_mut() = Some(why.to_owned());
    }
}

fn config(number: usize, root: &str) -> Config {
    let mut config = Config::default();
    config.node.name = format!("n{number}");
    config.node.data_dir = format!("{root}/data").into();
    config.listen.client = "0.0.0.0:7400".to_owned();
    config.listen.peer = "0.0.0.0:7401".to_owned();
    config.listen.http.clear();
    config.listen.advertise_client = format!("n{number}:7400");
    config.listen.advertise_peer = format!("n{number}:7401");
    config.security.insecure = true;
    config.limits.disk_reserve_bytes = 0;
    // Few, so that snapshots are made and sent in the seconds that a run has.
    config.raft.snapshot_entries = 60;
    config.raft.keep_entries = 40;
    config.verify.every_ms = 3_000;
    config
}

/// A running simulation.
pub struct World {
    pub machines: Vec<Rc<Machine>>,
    pub history: Shared,
    pub sim: Sim<'static>,
    /// What was done to it, by kind.
    pub faults: Done,
    /// Of members that are being replaced.
    pub members: Rc<Members>,
    account: Account,
    /// The clients have come to an end.
    ended: Rc<Cell<bool>>,
}

impl World {
    fn new(options: Options, nodes: usize, random: &mut Random) -> Self {
        // How often messages are passed on, and so how finely nodes are interleaved.
        let tick = Duration::from_millis(1 + random.below(8));
        let latency = tick + Duration::from_millis(random.below(30));
        let mut builder = turmoil::Builder::new();
        builder
            .simulation_duration(FAULTS + CALM + 5 * JUDGED + AFTERMATH)
            .tick_duration(tick)
            .enable_random_order()
            .tcp_capacity(4_096)
            .rng_seed(random.any())
            .min_message_latency(tick)
            .max_message_latency(latency);
        let mut sim = builder.build();
        let history = Shared::default();
        history.borrow_mut().planted = options.planted;
        let mut machines = Vec::new();
        for number in 1..=nodes {
            let machine = Machine::new(number, options.seed);
            machine.disk.set_faults(Faults {
                lying_syncs: options.planted == Some(Planted::AckBeforeSync),
                // So that entries are on their way for long.
                sync_time_max: match options.planted {
                    Some(Planted::ReadsByClock) => Duration::from_millis(400),
                    _ => Duration::ZERO,
                },
                ..Faults::default()
            });
            let (run, seen) = (Rc::clone(&machine), Rc::clone(&history));
            sim.host(machine.name.clone(), move || {
                let (run, seen) = (Rc::clone(&run), Rc::clone(&seen));
                async move {
                    run.run(number, seen).await;
                    Ok(())
                }
            });
            machines.push(machine);
        }
        Self {
            machines,
            history,
            sim,
            faults: Done::new(),
            members: Rc::default(),
            account: Account::default(),
            ended: Rc::default(),
        }
    }

    /// Now, in milliseconds.
    pub fn now_ms(&self) -> u128 {
        self.sim.elapsed().as_millis()
    }

    /// The process or the machine of a node dies.
    pub fn crash(&mut self, node: usize, power: bool) {
        let machine = &self.machines[node];
        match power {
            true => machine.disk.cut(),
            false => machine.disk.kill(),
        }
        let name = machine.name.clone();
        trace::note(
            self.now_ms(),
            format_args!("{name} dies, power cut: {power}"),
        );
        self.sim.crash(name);
        self.history.borrow_mut().seen.remove(&(node + 1));
    }

    /// It is started again.
    pub fn restart(&mut self, node: usize) {
        let machine = &self.machines[node];
        if machine.disk.is_on() {
            machine.disk.kill();
        }
        machine.disk.start();
        machine.stopped.borrow_mut().take();
        let name = machine.name.clone();
        trace::note(self.now_ms(), format_args!("{name} is started"));
        self.sim.bounce(name);
    }

    /// A node that has stopped by itself though nothing is wrong with its disk is a bug.
    fn look_at_stopped(&mut self) {
        for machine in &self.machines {
            let stopped = machine.stopped.borrow();
            if let Some(why) = &*stopped
                && machine.disk.is_on()
                && !machine.excused.get()
            {
                let what = format!("{} {why}", machine.name);
                self.history.borrow_mut().violated(what);
            }
        }
    }

    /// Runs a client on a machine of its own until it has an answer.
    pub fn ask<T: 'static, E: Display + 'static>(
        &mut self,
        name: &str,
        otherwise: &str,
        what: impl Future<Output = Result<T, E>> + 'static,
    ) -> Result<T, String> {
        let answer = Rc::new(RefCell::new(None));
        let told = Rc::clone(&answer);
        self.sim.client(name, async move {
            let answered = what.await;
            *told.borrow_mut() = Some(answered);
            Ok(())
        });
        let answered = |_: &Self| answer.borrow().is_some();
        self.wait_for(otherwise, JUDGED, answered, |_| {})?;
        let answer = answer.take().expect("it was waited for");
        answer.map_err(|error| format!("{otherwise}: {error}"))
    }

    /// All nodes have applied the same entry last.
    fn has_converged(&self, nodes: usize) -> bool {
        let seen = &self.history.borrow().seen;
        let mut applied = seen.values().map(|seen| seen.applied);
        let first = applied.next();
        seen.len() == nodes && applied.all(|applied| Some(applied) == first)
    }

    /// Goes on until `is_so`, but for no longer than `within`.
    pub fn wait_for(
        &mut self,
        otherwise: &str,
        within: Duration,
        is_so: impl Fn(&Self) -> bool,
        mut each: impl FnMut(&mut Self),
    ) -> Result<(), String> {
        let until = self.sim.elapsed() + within;
        while !is_so(self) {
            if self.sim.elapsed() > until {
                return Err(format!("{otherwise} in {within:?}"));
            }
            let next = self.sim.elapsed() + Duration::from_millis(50);
            self.run_until(next, &mut each)?;
        }
        Ok(())
    }

    /// Goes on until that time.
    pub fn run_until(
        &mut self,
        until: Duration,
        mut each: impl FnMut(&mut Self),
    ) -> Result<(), String> {
        while self.sim.elapsed() < until {
            self.sim.step().map_err(|error| error.to_string())?;
            self.look_at_stopped();
            each(self);
            if !self.history.borrow().violations.is_empty() {
                return Err("an invariant does not hold".to_owned());
            }
        }
        Ok(())
    }
}

/// Runs a seed.
pub fn run(options: Options) -> Report {
    if let Some(bug) = options.planted.and_then(Planted::of_nodes) {
        quorate_node::simulation::plant(bug);
    }
    let mut random = random::stream(options.seed, "world");
    let nodes = if random.chance(1, 3) { 5 } else { 3 };
    let mut world = World::new(options, nodes, &mut random);
    let ended = live(&mut world, options, nodes, &mut random);
    let mut wrong = Vec::new();
    if let Err(why) = ended {
        wrong.push(why);
    }
    wrong.extend(invariants::check(&world.history.borrow()));
    let (verdicts, odd) = world.account.judge();
    wrong.extend(odd);
    let mut sums = sums(&world);
    for verdict in verdicts.values() {
        *sums.entry("answers_checked").or_default() += verdict.operations as u64;
        *sums.entry("outcomes_unknown").or_default() += verdict.unknown as u64;
    }
    Report { wrong, sums }
}

fn live(
    world: &mut World,
    options: Options,
    nodes: usize,
    random: &mut Random,
) -> Result<(), String> {
    world.ask(
        "founder",
        "the cluster was not formed",
        workload::form(nodes),
    )?;
    let begin = world.sim.elapsed();
    let end = begin + FAULTS;
    clients(world, options, nodes, random, end);
    let mut plan = Plan::new(options.seed, begin, end);
    if !options.calm {
        world.run_until(end, |world| plan.step(world))?;
    }
    plan.heal(world);
    world.run_until(end + CALM, |world| plan.calm(world))?;
    let whole = |world: &World| !world.members.incomplete.get();
    let calm = |world: &mut World| plan.calm(world);
    world.wait_for("a member was not replaced", JUDGED, whole, calm)?;
    world.faults = plan.done;
    judge(world, "judge")?;
    let ended = |world: &World| world.ended.get();
    world.wait_for("the clients have not come to an end", JUDGED, ended, |_| {})?;
    aftermath::run(world, options)
}

/// Starts all clients, on one machine. They work on for a while when the faults are over.
fn clients(world: &mut World, options: Options, nodes: usize, random: &mut Random, end: Duration) {
    let until = end + CALM / 2;
    let (contenders, lockers) = (2 + random.below(3), 2 + random.below(2));
    let history = Rc::clone(&world.history);
    let replaces = !options.calm && random.chance(1, 2);
    let (members, done) = (Rc::clone(&world.members), Rc::clone(&world.ended));
    let account = world.account.clone();
    world.sim.client("clients", async move {
        let mut work = JoinSet::new();
        let with = |name: &str| (Rc::clone(&history), random::stream(options.seed, name));
        for name in (1..=contenders).map(|number| format!("c{number}")) {
            let (history, own) = with(&name);
            work.spawn_local(Contender::new(name, nodes, history, own)?.run(until));
        }
        let (seen, own) = with("r1");
        work.spawn_local(Contender::new("r1".to_owned(), nodes, seen, own)?.watch(until));
        for name in (1..=lockers).map(|number| format!("l{number}")) {
            let (history, own) = with(&name);
            work.spawn_local(Locker::new(name, nodes, history, own)?.run(until, end + CALM));
        }
        for name in ["w1", "w2"] {
            let (history, own) = with(name);
            work.spawn_local(Worker::new(name.to_owned(), nodes, history, own)?.run(until));
        }
        for name in ["t1", "t2"] {
            let (history, own) = with(name);
            work.spawn_local(Teller::new(name.to_owned(), nodes, history, own)?.run(until));
        }
        work.spawn_local(account.keep(nodes, with("recorded").1, until, options.planted));
        if !options.calm {
            work.spawn_local(workload::transfer(nodes, with("transfers").1, end));
        }
        if replaces {
            let own = with("members").1;
            work.spawn_local(workload::replace(nodes, own, end, members));
        }
        while let Some(ended) = work.join_next().await {
            ended??;
        }
        note(format_args!("the clients are done"));
        done.set(true);
        Ok(())
    });
}

/// The cluster must have converged, and have what it acknowledged.
pub fn judge(world: &mut World, name: &str) -> Result<(), String> {
    let (nodes, history) = (world.machines.len(), Rc::clone(&world.history));
    let judged = async move { workload::judge(nodes, &history).await };
    let found = world.ask(name, "the cluster does not serve", judged)?;
    let wrong = acknowledged::check(&world.history.borrow(), &found);
    world.history.borrow_mut().violations.extend(wrong);
    // What is committed reaches everybody with the next heartbeats; time goes on in ticks.
    let converged = |world: &World| world.has_converged(nodes);
    let waited = world.wait_for("the nodes have not converged", CONVERGED, converged, |_| {});
    waited.map_err(|why| format!("{why}: {:?}", world.history.borrow().seen))
}

/// Entries of the first cluster; the log of another one does not begin at 0.
fn entries(history: &History) -> u64 {
    let mut of_first = history.digests.range(..(1, 0));
    of_first.next_back().map_or(0, |((_, applied), _)| *applied)
}

/// What is summed over seeds: numbers by name.
fn sums(world: &World) -> Done {
    let history = world.history.borrow();
    let disks = world.machines.iter().map(|machine| machine.disk.counts());
    let syncs: u64 = disks.map(|disk| disk.syncs).sum();
    let size = |length: usize| length as u64;
    let mut sums = world.faults.clone();
    sums.extend([
        ("simulated_s", world.sim.elapsed().as_secs()),
        ("leases_claimed", size(history.claims.len())),
        ("leases_read", size(history.reads.len())),
        ("locks_held_in_line", history.handed_over),
        ("items_pushed", size(history.pushed.len())),
        ("items_claimed", size(history.items.len())),
        ("events_appended", size(history.appended.len())),
        ("writes_to_resource", size(history.writes.len())),
        ("leaders", size(history.leaders.len())),
        ("entries", entries(&history)),
        ("syncs", syncs),
    ]);
    sums
}
