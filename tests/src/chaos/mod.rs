//! Chaos: a cluster of processes on machines of their own, hurt in every way while clients record
//! what they are answered, and what they were answered checked. `make chaos`; docs/TESTING.md says
//! how to read what it says.
//!
//! | module | what it has |
//! |---|---|
//! | [`net`] | the machines, and the switch between them |
//! | [`control`] | disk and clock as one node's process sees them |
//! | [`field`] | the cluster on the machines |
//! | [`nemesis`] | the faults |
//! | [`quorate_histories`] | who asks, what they were answered, and the verdicts |
//! | [`resource`] | a resource outside, with and without a look at tokens |
//! | [`report`] | the verdicts in words |
//! | [`gauges`] | what the processes take of their machines |
//! | [`recovery`] | how long nobody is served after the death of a leader |

pub mod control;
pub mod field;
pub mod gauges;
pub mod nemesis;
pub mod net;
pub mod recovery;
pub mod report;
pub mod resource;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use quorate_histories::check;
use quorate_histories::clients::{self, KEYS, Pace, Shared};
use quorate_histories::record::Recorder;
use quorate_node::Config;
use tokio::task::JoinSet;

use field::Field;
use nemesis::{Done, Fault};
use report::Report;
use resource::Resource;

/// After the faults everything is served again within this time, on a busy machine.
const CONVERGES_WITHIN: Duration = Duration::from_secs(90);

/// Clients that were told to stop have stopped within this time: each may have an answer to wait
/// for, and the last word on its key.
const STOPS_WITHIN: Duration = Duration::from_secs(120);

/// With a quorum a lease ends at the next look after its time, and leaders look all the time.
const LEASES_END_WITHIN: Duration = Duration::from_secs(5);

/// What a run is to be like.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long faults are dealt.
    pub time: Duration,
    /// What they are dealt by.
    pub seed: u64,
    /// Nodes.
    pub nodes: usize,
    /// Which faults.
    pub faults: Vec<Fault>,
    /// Where its files go.
    pub dir: PathBuf,
}

/// Says what this machine lacks for a run, if anything.
pub fn require() -> Result<()> {
    let root = rustix::process::geteuid().is_root();
    ensure!(
        root,
        "root is needed, for network namespaces; run it with sudo"
    );
    let device = Path::new(net::DEVICE);
    ensure!(
        device.exists(),
        "{} is needed, for TUN interfaces",
        net::DEVICE
    );
    let cc = std::process::Command::new("cc").arg("--version").output();
    ensure!(
        cc.is_ok_and(|it| it.status.success()),
        "cc is needed; Debian: gcc and libc6-dev"
    );
    let node = std::env::current_exe()?.with_file_name("test-node");
    ensure!(
        node.exists(),
        "{} is needed: cargo build --bin test-node",
        node.display()
    );
    Ok(())
}

/// Logs are cut and snapshots made all the time, and members compare their states often.
fn hurried(config: &mut Config) {
    config.raft.snapshot_entries = 2_000;
    config.raft.keep_entries = 1_000;
    config.verify.every_ms = 5_000;
}

/// A run. Fails if it could not be done; what it found is in the report.
pub async fn run(options: &Options) -> Result<Report> {
    let Options { seed, dir, .. } = options;
    let field = Field::make(dir, options.nodes, *seed, hurried).await?;
    let recorder = Recorder::create(&dir.join("history.jsonl"))?;
    let shared = Arc::new(Shared::new(
        field.cluster.all_endpoints(),
        Pace::PROCESSES,
        recorder,
    ));
    let resources = [Resource::fenced(), Resource::bare()];
    let mut work = JoinSet::new();
    for (slot, noun) in KEYS.into_iter().enumerate() {
        let seed = seed.wrapping_mul(31).wrapping_add(slot as u64);
        work.spawn(clients::work(Arc::clone(&shared), noun, slot, seed));
    }
    for resource in &resources {
        work.spawn(Arc::clone(resource).work(Arc::clone(&shared), *seed));
    }
    let (field, faults, trouble) = hurt(field, options).await;
    let (converged, still) = calm(field, &shared, work).await;
    shared.recorder.flush()?;
    let verdicts = check::all(&shared.recorder);
    let odd = shared
        .odd
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let failures = shared
        .failures
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    Ok(Report {
        seed: *seed,
        verdicts,
        faults,
        acknowledged: shared.recorder.acknowledged(),
        updates: [resources[0].updates(), resources[1].updates()],
        converged,
        failures,
        odd: [odd, trouble, still].concat(),
    })
}

/// Deals the faults. What went wrong with them is part of what was found.
async fn hurt(mut field: Field, options: &Options) -> (Field, Vec<Done>, Vec<String>) {
    let mut done = Vec::new();
    let path = options.dir.join("faults.jsonl");
    let mut file = std::fs::File::create(path).ok();
    let tell = |fault: Done| {
        if let (Some(file), Ok(line)) = (&mut file, serde_json::to_string(&fault)) {
            let _ = writeln!(file, "{line}");
        }
        println!(
            "           {} (leader after {} ms)",
            fault.what, fault.recovered_ms
        );
        done.push(fault);
    };
    let (faults, seed, time) = (&options.faults, options.seed, options.time);
    let dealt = nemesis::run(&mut field, faults, seed, time, tell).await;
    let trouble = dealt.err().map(|error| format!("{error:#}"));
    (field, done, trouble.into_iter().collect())
}

/// Undoes everything, lets the clients come to an end, and waits until all members are equal.
async fn calm(
    mut field: Field,
    shared: &Arc<Shared>,
    work: JoinSet<Result<()>>,
) -> (Result<Duration>, Vec<String>) {
    println!("the faults are over");
    let mut trouble = Vec::new();
    if let Err(error) = field.mend() {
        trouble.push(format!("{error:#}"));
    }
    let mended = Instant::now();
    let before = shared.recorder.acknowledged().len();
    let converged = tokio::time::timeout(CONVERGES_WITHIN, async {
        field.settled().await?;
        let more = || shared.recorder.acknowledged().len() > before;
        crate::wait::until("writes after the faults", CONVERGES_WITHIN, async || {
            Ok(more().then_some(()))
        })
        .await?;
        anyhow::Ok(mended.elapsed())
    });
    let converged = match converged.await {
        Ok(converged) => converged,
        Err(_) => Err(anyhow::anyhow!("not converged after {CONVERGES_WITHIN:?}")),
    };
    shared.stop.cancel();
    if let Err(error) = ended(work).await {
        trouble.push(format!("{error:#}"));
    }
    if let Err(error) = leases_end(&field).await {
        trouble.push(format!("{error:#}"));
    }
    let equal = field.cluster.digests_agree().await;
    let equal = equal.and_then(|()| field.cluster.nobody_panicked());
    (equal.and(converged), trouble)
}

/// Nobody renews the leases of the histories any more: they end, not much later than their time.
async fn leases_end(field: &Field) -> Result<()> {
    let client = field.cluster.client()?;
    crate::wait::until("the last leases to end", LEASES_END_WITHIN, async || {
        let list = quorate_statemachine::lease::List {
            prefix: "lease/".to_owned(),
            after: None,
            limit: 1,
        };
        let left = client.lease_list(list).await?;
        Ok(left.rows.is_empty().then_some(()))
    })
    .await
}

async fn ended(mut work: JoinSet<Result<()>>) -> Result<()> {
    let all = async {
        while let Some(client) = work.join_next().await {
            client?.context("a client")?;
        }
        anyhow::Ok(())
    };
    match tokio::time::timeout(STOPS_WITHIN, all).await {
        Ok(ended) => ended,
        Err(_) => bail!("clients have not come to an end in {STOPS_WITHIN:?}"),
    }
}
