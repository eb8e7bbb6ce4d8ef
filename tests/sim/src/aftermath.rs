//! All members are lost, and another cluster goes on from a snapshot file: once or twice.

use std::rc::Rc;
use std::time::Duration;

use quorate_client::ClientError;
use quorate_client::admin::Admin;
use quorate_node::disaster::DisasterError;
use quorate_statemachine::FencingToken;

use crate::history::Outcome;
use crate::planted::Planted;
use crate::random::{self, Random};
use crate::workload::{self, Contender};
use crate::world::{self, Options, Restore, World};
use crate::{faults, trace};

/// Longer than any lease of a contender, also where cluster time is slow.
const LEASES_OVER: Duration = Duration::from_secs(2);

/// How long clients work on a cluster that is lost or new.
const WORK: Duration = Duration::from_secs(1);

/// How long a restore may take, and a node to say that it does not start.
const DONE: Duration = Duration::from_secs(3);

/// What a node says that was started on what a restore has left when the power went.
const HALF_MADE: &str = "restoring";

/// One seed in three goes through it.
pub fn run(world: &mut World, options: Options) -> Result<(), String> {
    let mut random = random::stream(options.seed, "aftermath");
    let wanted = options.planted == Some(Planted::TokenReuse);
    if !(random.chance(1, 3) || wanted) || options.calm {
        return Ok(());
    }
    let nodes = world.machines.len();
    let from = 1 + random.below(nodes as u64);
    let saving = saved(format!("n{from}:7400"));
    let file = Rc::new(world.ask("saver", "no snapshot was saved", saving)?);
    for round in 1..=1 + random.below(2) {
        work(world, options.seed, &format!("a{round}"))?;
        lose_all(world);
        restore(world, &mut random, &file)?;
        let formed = workload::form(nodes);
        world.ask(
            &format!("founder{round}"),
            "no cluster was formed again",
            formed,
        )?;
        work(world, options.seed, &format!("b{round}"))?;
        judge(world, round)?;
    }
    Ok(())
}

/// The bytes of a snapshot file, by way of one node.
async fn saved(node: String) -> Result<Vec<u8>, ClientError> {
    let admin = Admin::connect([node])?;
    let mut parts = admin.save_snapshot(false).await?;
    let mut file = Vec::new();
    while let Some(part) = parts.next().await? {
        file.extend_from_slice(&part.data);
    }
    Ok(file)
}

/// Clients are granted tokens; the snapshot does not know of them.
fn work(world: &mut World, seed: u64, name: &str) -> Result<(), String> {
    let mut own = random::stream(seed, name);
    let keys = 1 + own.below(30);
    let (nodes, history) = (world.machines.len(), Rc::clone(&world.history));
    let contender = Contender::new(name.to_owned(), nodes, history, own);
    let contender = contender.map_err(|error| error.to_string())?;
    world.ask(name, "clients were not served", contender.work(keys, WORK))?;
    // A lease that is lost with its cluster would seem to have ended early.
    world.run_until(world.sim.elapsed() + LEASES_OVER, |_| {})
}

fn lose_all(world: &mut World) {
    for node in 0..world.machines.len() {
        world.crash(node, true);
        blank(world, node);
    }
    world.history.borrow_mut().cluster += 1;
    *world.faults.entry("cluster_lost").or_default() += 1;
    trace::note(world.now_ms(), format_args!("all members are lost"));
}

fn blank(world: &World, node: usize) {
    world.machines[node].disk.wipe();
    world.machines[node].founds.set(false);
}

/// Restores the file to the first machine, tries until it is done, and starts all. The power may go
/// in the middle, and goes once it is done: what was said to be made is there.
fn restore(world: &mut World, random: &mut Random, file: &Rc<Vec<u8>>) -> Result<(), String> {
    let mut tokens_above = None;
    loop {
        let cut = random.chance(1, 2).then(|| random.below(80));
        let order = Restore {
            file: Rc::clone(file),
            tokens_above,
        };
        match tried(world, order, cut)? {
            Some(Ok(_)) => break,
            Some(Err(DisasterError::ClockBehind { .. })) => {
                *world.faults.entry("restore_refused").or_default() += 1;
                match random.chance(1, 2) {
                    true => tokens_above = Some(highest(world)),
                    // Every clock but this one is off by an hour at most.
                    false => world.machines[0].set_skew(3_600_000_000),
                }
            }
            Some(Err(error)) => return Err(format!("the snapshot was not restored: {error}")),
            None => {
                *world.faults.entry("restore_interrupted").or_default() += 1;
                if was_made(world)? {
                    break;
                }
                world.crash(0, true);
                blank(world, 0);
            }
        }
    }
    world.crash(0, true);
    (0..world.machines.len()).for_each(|node| world.restart(node));
    Ok(())
}

/// Runs the program that restores; none if the power has gone.
fn tried(
    world: &mut World,
    order: Restore,
    cut: Option<u64>,
) -> Result<Option<Result<u64, DisasterError>>, String> {
    let machine = Rc::clone(&world.machines[0]);
    *machine.restores.borrow_mut() = Some(order);
    machine.restored.take();
    world.restart(0);
    faults::set_disk(world, 0, |faults| faults.cut_after = cut);
    let ended = |world: &World| world.machines[0].restored.borrow().is_some();
    world.wait_for("the restore has not ended", DONE, ended, |_| {})?;
    faults::set_disk(world, 0, |faults| faults.cut_after = None);
    let ended = machine.restored.take();
    Ok(ended.filter(|_| machine.disk.is_on()))
}

/// Whether the machine has a member when the power is back. Otherwise it says that what is there is
/// half of one, or nothing is there.
fn was_made(world: &mut World) -> Result<bool, String> {
    let machine = Rc::clone(&world.machines[0]);
    machine.excused.set(true);
    world.restart(0);
    world.run_until(world.sim.elapsed() + DONE, |_| {})?;
    machine.excused.set(false);
    let stopped = machine.stopped.take();
    match stopped {
        Some(why) if !why.contains(HALF_MADE) => Err(format!("of half a restore: {why}")),
        Some(_) => Ok(false),
        None => Ok(world.history.borrow().seen.contains_key(&1)),
    }
}

/// The greatest token that anybody has seen.
fn highest(world: &World) -> FencingToken {
    let history = world.history.borrow();
    let granted = history
        .claims
        .iter()
        .filter_map(|claim| match claim.outcome {
            Outcome::Granted(token) => Some(token),
            _ => None,
        });
    granted.max().unwrap_or_default()
}

/// What was there when the snapshot was saved is there again.
fn judge(world: &mut World, round: u64) -> Result<(), String> {
    let stored = std::mem::take(&mut world.history.borrow_mut().stored);
    world::judge(world, &format!("judge{round}"))?;
    let mut history = world.history.borrow_mut();
    if history.stored != stored {
        let found = format!(
            "events after a restore: {:?}, not {stored:?}",
            history.stored
        );
        history.violated(found);
    }
    Ok(())
}
