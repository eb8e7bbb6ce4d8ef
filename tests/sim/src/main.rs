//! Whole clusters by a seed: `make sim`, and docs/decisions/0019-simulation.md.
//!
//! ```text
//! sim --seed 7 [--trace]        one seed, in this process
//! sim --seeds 200 [--from 1]    that many, a process each
//! sim --seed 7 --twice          the same seed must give the same trace
//! sim --seeds 9 --planted NAME  with a bug of planted.rs: seeds must fail
//! ```

mod aftermath;
mod faults;
mod history;
mod invariants;
mod planted;
mod process;
mod random;
mod trace;
mod workload;
mod world;

use std::collections::BTreeMap;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use planted::Planted;
use world::Options;

/// Whether anything has panicked: a task that does takes nothing else down.
static PANICKED: AtomicBool = AtomicBool::new(false);

/// So much of what is wrong is enough to begin with.
const SHOWN: usize = 5;

#[derive(Debug, Default)]
struct Args {
    seed: Option<u64>,
    seeds: u64,
    from: u64,
    trace: bool,
    twice: bool,
    calm: bool,
    planted: Option<String>,
}

fn args() -> Result<Args, String> {
    let mut args = Args {
        from: 1,
        ..Args::default()
    };
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        let mut number = || {
            let text = given.next().unwrap_or_default();
            text.parse::<u64>()
                .map_err(|_| format!("{name} wants a number, not {text:?}"))
        };
        match name.as_str() {
            "--seed" => args.seed = Some(number()?),
            "--seeds" => args.seeds = number()?,
            "--from" => args.from = number()?,
            "--trace" => args.trace = true,
            "--twice" => args.twice = true,
            "--calm" => args.calm = true,
            "--planted" => args.planted = given.next(),
            other => return Err(format!("{other:?} is not known; see tests/sim/src/main.rs")),
        }
    }
    Ok(args)
}

fn main() -> ExitCode {
    let args = match args() {
        Ok(args) => args,
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::from(2);
        }
    };
    let good = match args.seed {
        Some(seed) if args.twice => same_twice(seed),
        Some(seed) => one(seed, &args),
        None => many(&args),
    };
    match good {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Runs a seed here.
fn one(seed: u64, args: &Args) -> bool {
    let planted = args.planted.as_deref();
    let planted = planted.map(|name| Planted::parse(name).ok_or(name));
    let planted = match planted.transpose() {
        Ok(planted) => planted,
        Err(name) => {
            eprintln!("{name:?} is no bug of planted.rs");
            return false;
        }
    };
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICKED.store(true, Ordering::Relaxed);
        hook(info);
    }));
    process::seed(seed);
    if args.trace {
        trace::show();
    }
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .with_ansi(false)
        .with_thread_ids(false)
        .without_time()
        .with_writer(trace::Lines)
        .finish();
    let report = tracing::subscriber::with_default(subscriber, || {
        world::run(Options {
            seed,
            calm: args.calm,
            planted,
        })
    });
    let mut wrong = report.wrong;
    if PANICKED.load(Ordering::Relaxed) {
        wrong.push("something panicked".to_owned());
    }
    let (lines, hash) = trace::hash();
    let (taken, next) = process::fingerprint();
    let sums = report.sums.iter();
    let sums: Vec<String> = sums.map(|(name, sum)| format!("{name}={sum}")).collect();
    println!("seed {seed}: {}", sums.join(" "));
    println!("seed {seed}: trace of {lines} lines {hash:016x}, chance {taken} {next:016x}");
    for what in wrong.iter().take(SHOWN) {
        println!("seed {seed}: VIOLATED {what}");
    }
    wrong.is_empty()
}

/// Runs a seed in a process of its own; whether it went well, and what it printed.
fn apart(seed: u64, more: &[&str]) -> (bool, String) {
    let program = std::env::current_exe().expect("this program has a path");
    let ran = Command::new(program)
        .args(["--seed", &seed.to_string()])
        .args(more)
        .output();
    match ran {
        Ok(ran) => {
            let said = [ran.stdout, ran.stderr].concat();
            (
                ran.status.success(),
                String::from_utf8_lossy(&said).into_owned(),
            )
        }
        Err(error) => (false, error.to_string()),
    }
}

fn same_twice(seed: u64) -> bool {
    let (first, second) = (apart(seed, &["--trace"]), apart(seed, &["--trace"]));
    if first == second {
        println!(
            "seed {seed}: the same twice, {} bytes of trace",
            first.1.len()
        );
        return first.0;
    }
    let lines = first.1.lines().zip(second.1.lines());
    let differs = lines.enumerate().find(|(_, (one, other))| one != other);
    println!("seed {seed}: DIFFERENT at {differs:?}");
    false
}

/// Runs seeds, one for each processor at a time.
fn many(args: &Args) -> bool {
    let mut more = Vec::new();
    more.extend(args.calm.then_some("--calm"));
    if let Some(planted) = &args.planted {
        more.extend(["--planted", planted]);
    }
    let next = AtomicU64::new(args.from);
    let end = args.from + args.seeds;
    let all = Mutex::new((Vec::new(), BTreeMap::new()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return;
            }
            let (good, said) = apart(seed, &more);
            print!("{said}");
            let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
            add(&mut all.1, &said);
            if !good {
                all.0.push(seed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let (mut failed, sums) = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.sort_unstable();
    for (name, sum) in sums {
        println!("{sum:>12} {name}");
    }
    println!("{} seeds, {} failed {failed:?}", args.seeds, failed.len());
    for seed in &failed {
        println!("again: make sim SEED={seed}");
    }
    failed.is_empty()
}

/// Adds up what a seed has said of itself: `name=number`.
fn add(sums: &mut BTreeMap<String, u64>, said: &str) {
    let words = said.lines().next().unwrap_or_default().split(' ');
    for (name, number) in words.filter_map(|word| word.split_once('=')) {
        if let Ok(number) = number.parse::<u64>() {
            *sums.entry(name.to_owned()).or_default() += number;
        }
    }
}
