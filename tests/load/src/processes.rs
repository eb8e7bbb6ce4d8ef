//! lash's process registry: ours on three nodes beside lash's own store on one PostgreSQL.
//!
//! Both are the same trait, driven by the same loop in this process: each task has a process of its
//! own and one call in flight.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use clap::Args;
use futures::future::try_join_all;
use hdrhistogram::Histogram;
use lash_core::{
    LashSchema, ProcessEventAppendRequest, ProcessEventType, ProcessInput, ProcessLease,
    ProcessProvenance, ProcessRegistration, ProcessRegistry,
};
use quorate_lash::QuorateProcesses;

use crate::record::{self, Call, Processes, Record, Registry};
use crate::{meter, postgres, quorate};

const CONNECTIONS: usize = 4;
const TTL_MS: u64 = 60_000;

/// Arguments of `processes`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Our program
    #[arg(long)]
    pub program: PathBuf,
    /// Where both keep their data
    #[arg(long)]
    pub data_dir: PathBuf,
    /// Records are appended to it
    #[arg(long)]
    pub out: PathBuf,
    /// Tasks with a call in flight
    #[arg(long, value_delimiter = ' ', default_value = "16 64")]
    pub tasks: Vec<u32>,
    /// How long each round lasts, after a second of warming up
    #[arg(long, default_value_t = 5)]
    pub seconds: u32,
    /// How often each is measured
    #[arg(long, default_value_t = 3)]
    pub rounds: u32,
}

/// Measures both in turns.
pub async fn run(args: &Arguments) -> Result<()> {
    let Some(bin) = postgres::installed() else {
        eprintln!(
            "no PostgreSQL in /usr/lib/postgresql: lash's registry is left out; see setup.sh"
        );
        return Ok(());
    };
    let ours = quorate::Cluster::start(&args.program, &args.data_dir.join("quorate-lash")).await?;
    let theirs = postgres::Server::start(&bin, &args.data_dir.join("postgres")).await?;
    let version = postgres::version(&bin).await?;
    for round in 0..args.rounds {
        for tasks in &args.tasks {
            for call in Call::ALL {
                for registry in [Registry::Quorate, Registry::Postgres] {
                    let handles = match registry {
                        Registry::Quorate => our_handles(&ours.endpoints)?,
                        Registry::Postgres => {
                            let store = theirs.connect(*tasks).await?;
                            vec![Arc::new(store.process_registry()) as Arc<dyn ProcessRegistry>]
                        }
                    };
                    let (rate, latency) =
                        measure(handles, call, round, *tasks, args.seconds).await?;
                    let measured = Processes {
                        registry,
                        version: version.clone(),
                        call,
                        tasks: *tasks,
                        round,
                        per_second: rate,
                        p50_us: latency.value_at_quantile(0.5),
                        p99_us: latency.value_at_quantile(0.99),
                    };
                    record::write(&args.out, &Record::Processes(measured))?;
                }
            }
        }
    }
    theirs.stop().await?;
    std::fs::remove_dir_all(ours.stop().await?)?;
    Ok(())
}

fn our_handles(endpoints: &[String]) -> Result<Vec<Arc<dyn ProcessRegistry>>> {
    let handle = |_| {
        let built = QuorateProcesses::connect(endpoints.iter().cloned()).build()?;
        Ok(Arc::new(built) as Arc<dyn ProcessRegistry>)
    };
    (0..CONNECTIONS).map(handle).collect()
}

async fn measure(
    handles: Vec<Arc<dyn ProcessRegistry>>,
    call: Call,
    round: u32,
    tasks: u32,
    seconds: u32,
) -> Result<(f64, Histogram<u64>)> {
    let from = Instant::now() + meter::WARM_UP;
    let end = from + Duration::from_secs(seconds.into());
    let workers = handles
        .into_iter()
        .cycle()
        .zip(0..tasks)
        .map(|(handle, at)| {
            let id = format!("{}-{round}-{tasks}-{at}", call.as_str());
            tokio::spawn(work(handle, call, id, from, end))
        });
    let workers: Vec<_> = workers.collect();
    let mut all = meter::histogram()?;
    for worker in try_join_all(workers).await? {
        all.add(worker?)?;
    }
    Ok((all.len() as f64 / f64::from(seconds), all))
}

async fn work(
    registry: Arc<dyn ProcessRegistry>,
    call: Call,
    id: String,
    from: Instant,
    end: Instant,
) -> Result<Histogram<u64>> {
    let mut latency = meter::histogram()?;
    let failed = |error: lash_core::PluginError| anyhow!("{}: {error}", call.as_str());
    registry
        .register_process(registration(&id))
        .await
        .map_err(failed)?;
    let claimed = registry.claim_process_lease(&id, "worker", TTL_MS).await;
    let mut lease = claimed.map_err(failed)?;
    loop {
        let sent = Instant::now();
        operate(&*registry, call, &id, &mut lease)
            .await
            .map_err(failed)?;
        let answered = Instant::now();
        if answered > end {
            return Ok(latency);
        }
        if sent >= from {
            let micros = u64::try_from(answered.duration_since(sent).as_micros())?;
            latency.saturating_record(micros.max(1));
        }
    }
}

async fn operate(
    registry: &dyn ProcessRegistry,
    call: Call,
    id: &str,
    lease: &mut ProcessLease,
) -> std::result::Result<(), lash_core::PluginError> {
    match call {
        Call::Claim => *lease = registry.claim_process_lease(id, "worker", TTL_MS).await?,
        Call::Renew => *lease = registry.renew_process_lease(lease, TTL_MS).await?,
        Call::Append => {
            let payload = serde_json::json!({ "text": "x".repeat(100) });
            let event = ProcessEventAppendRequest::new("note", payload);
            registry.append_event(id, event).await?;
        }
    }
    Ok(())
}

fn registration(id: &str) -> ProcessRegistration {
    let metadata = serde_json::json!({ "label": "bench" });
    let input = ProcessInput::External { metadata };
    let note = ProcessEventType {
        name: "note".to_owned(),
        payload_schema: LashSchema::any(),
        semantics: Default::default(),
    };
    ProcessRegistration::new(id, input, ProcessProvenance::host()).with_extra_event_types([note])
}
