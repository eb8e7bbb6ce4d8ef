//! `chaos`: a cluster hurt in every way, and what its clients were told checked.
//!
//! Ends with 0 if everything was right, with 1 if not, and with 2 if this machine cannot run it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use quorate_tests::chaos::{self, Options, nemesis::FAULTS, recovery};

/// Hurts a cluster of real processes and checks what its clients were told.
#[derive(Parser)]
struct Args {
    /// How long faults are dealt.
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// What they are dealt by; by default another one each time.
    #[arg(long)]
    seed: Option<u64>,
    /// Nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..=9))]
    nodes: u8,
    /// Only these faults, by name; all by default.
    #[arg(long = "fault")]
    faults: Vec<String>,
    /// Only faults that no process dies of: whether what they take of the machine only ever grows.
    #[arg(long)]
    soak: bool,
    /// Where the files of the run go, in a folder of its own.
    #[arg(long, default_value = "target/chaos")]
    dir: PathBuf,
    /// Instead: kill so many leaders, and measure how long nobody is served.
    #[arg(long)]
    kill_leader: Option<usize>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(lacks) = chaos::require() {
        eprintln!("chaos cannot run here: {lacks:#}");
        return ExitCode::from(2);
    }
    // Before there is a second thread: all of them are to be in the new network.
    if let Err(error) = chaos::net::leave_host() {
        eprintln!("chaos cannot run here: {error:#}");
        return ExitCode::from(2);
    }
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<bool> {
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(0..1_000_000));
    let dir = args.dir.join(format!("{seed}-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let dir = dir.canonicalize()?;
    std::fs::write(dir.join("seed"), seed.to_string())?;
    let runtime = tokio::runtime::Runtime::new()?;
    if let Some(kills) = args.kill_leader {
        return runtime.block_on(measure(&dir, kills, seed));
    }
    let named = |fault: &chaos::nemesis::Fault| {
        let name = format!("{fault:?}");
        let all = args.faults.is_empty() && (!args.soak || fault.spares_processes());
        all || args.faults.iter().any(|it| it.eq_ignore_ascii_case(&name))
    };
    let options = Options {
        time: Duration::from_secs_f64(args.minutes * 60.0),
        seed,
        nodes: args.nodes.into(),
        faults: FAULTS.into_iter().filter(named).collect(),
        dir: dir.clone(),
    };
    println!(
        "seed {seed}, {} nodes, files in {}",
        options.nodes,
        dir.display()
    );
    let report = runtime.block_on(chaos::run(&options))?;
    let table = report.table(&dir);
    std::fs::write(dir.join("summary"), &table)?;
    print!("{table}");
    let wrong = report.wrong();
    for problem in &wrong {
        eprintln!("WRONG: {problem}");
    }
    Ok(wrong.is_empty())
}

async fn measure(dir: &std::path::Path, kills: usize, seed: u64) -> Result<bool> {
    for (what, configure) in [
        ("default", (|_| {}) as fn(&mut quorate_node::Config)),
        ("fast", recovery::fast),
    ] {
        let dir = dir.join(what);
        std::fs::create_dir_all(&dir)?;
        let gaps = recovery::measure(&dir, kills, seed, configure).await?;
        println!(
            "{what} settings: {kills} leaders killed, no write for {} ms in the median, {} ms at \
             worst",
            gaps.median().as_millis(),
            gaps.worst().as_millis()
        );
    }
    Ok(true)
}
