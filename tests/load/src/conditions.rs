//! Where and how a run is made.

use std::path::PathBuf;

use anyhow::Result;

use crate::record::{self, Conditions, Record};
use crate::{etcd, machine};

/// Arguments of `conditions`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Of the measured program
    #[arg(long)]
    pub commit: String,
    /// Today
    #[arg(long)]
    pub date: String,
    /// How long each point will be measured
    #[arg(long)]
    pub seconds: u32,
    /// How often
    #[arg(long)]
    pub rounds: u32,
    /// On the disk that the nodes will use
    #[arg(long)]
    pub data_dir: PathBuf,
    /// Records are appended to it
    #[arg(long)]
    pub out: PathBuf,
}

/// Looks at the machine and writes it down.
pub async fn run(args: &Args) -> Result<()> {
    std::fs::create_dir_all(&args.data_dir)?;
    // Before the probe, which is a load itself.
    let load = machine::load()?;
    let syncs = machine::probe_disk(&args.data_dir)?;
    let conditions = Conditions {
        date: args.date.clone(),
        commit: args.commit.clone(),
        etcd: etcd::version().await?,
        cpu_model: machine::cpu_model(),
        cores: std::thread::available_parallelism()?.get(),
        kernel: machine::kernel(),
        memory_mib: machine::memory_mib(),
        load,
        syncs_per_second: syncs.len() as f64,
        sync_p50_us: syncs.value_at_quantile(0.5),
        sync_p99_us: syncs.value_at_quantile(0.99),
        seconds: args.seconds,
        rounds: args.rounds,
    };
    record::write(&args.out, &Record::Conditions(conditions))
}
