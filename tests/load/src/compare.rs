//! Ours, etcd's, ours, etcd's: the same operation with as many clients, one after the other, so
//! that what else happens on the machine happens to both.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

use crate::record::{self, Record, System, Test};
use crate::{etcd, meter, quorate};

/// Arguments of `compare`.
#[derive(Debug, Args)]
pub struct Compare {
    /// Our program
    #[arg(long)]
    pub program: PathBuf,
    /// Where the nodes of both keep their data
    #[arg(long)]
    pub data_dir: PathBuf,
    /// Records are appended to it
    #[arg(long)]
    pub out: PathBuf,
    /// What to measure
    #[arg(long, value_enum, value_delimiter = ' ', default_values_t = Test::ALL)]
    pub tests: Vec<Test>,
    /// Tasks that each have one operation in flight
    #[arg(long, value_delimiter = ' ', default_value = "1 16 64 256")]
    pub clients: Vec<u32>,
    /// How long each point is measured, after a second of warming up
    #[arg(long, default_value_t = 3)]
    pub seconds: u32,
    /// How often each point is measured
    #[arg(long, default_value_t = 3)]
    pub rounds: u32,
}

struct Both {
    ours: quorate::Cluster,
    etcd: etcd::Cluster,
}

/// Starts both, measures all points, stops both.
pub async fn run(compare: &Compare) -> Result<()> {
    let dir = |name: &str| compare.data_dir.join(name);
    let both = Both {
        ours: quorate::Cluster::start(&compare.program, &dir("quorate")).await?,
        etcd: etcd::Cluster::start(&dir("etcd")).await?,
    };
    for round in 0..compare.rounds {
        for test in &compare.tests {
            for clients in &compare.clients {
                both.point(compare, *test, *clients, round).await?;
            }
        }
    }
    remove(&both.ours.stop().await?)?;
    remove(&both.etcd.end(false).await?)
}

fn remove(dir: &Path) -> Result<()> {
    Ok(std::fs::remove_dir_all(dir)?)
}

impl Both {
    async fn point(&self, compare: &Compare, test: Test, clients: u32, round: u32) -> Result<()> {
        for system in [System::Quorate, System::Etcd] {
            let mut point = match system {
                System::Quorate => self.ours.measure(test, clients, compare.seconds).await?,
                System::Etcd => meter::measure(&self.etcd, test, clients, compare.seconds).await?,
            };
            point.round = round;
            record::write(&compare.out, &Record::Point(point))?;
        }
        Ok(())
    }
}
