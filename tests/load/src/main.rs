//! Quorate and etcd side by side on one machine; `make bench` runs it, docs/PERFORMANCE.md shows
//! what came out.
//!
//! Ours is loaded by `quorate bench`, a process of its own, etcd by a loop of the same shape in
//! this process ([`meter`]). Every measurement is a line of JSON ([`record`]); [`table`] writes the
//! Markdown from them.

mod compare;
mod conditions;
mod contend;
mod etcd;
mod machine;
mod meter;
mod postgres;
mod processes;
mod quorate;
mod record;
mod scale;
mod sessions;
mod summary;
mod table;
mod targets;
mod turns;
mod worker;

use anyhow::{Result, bail};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

/// Measures Quorate and etcd side by side.
#[derive(Debug, Parser)]
#[command(name = "load")]
enum Load {
    /// Write down where and how the records that follow are made
    Conditions(conditions::Args),
    /// Measure operations of both, in turns
    Compare(compare::Compare),
    /// Measure hand-overs of one lock, and what lock names leave behind
    Contend(contend::Contend),
    /// Measure lash's process registry beside lash's own on PostgreSQL
    Processes(processes::Arguments),
    /// Measure lash's session stores beside lash's own on PostgreSQL and SQLite
    Sessions(sessions::Arguments),
    /// Measure what many live leases cost
    Scale(scale::Scale),
    /// Write the tables into a document
    Table(table::Args),
}

#[tokio::main]
async fn main() -> Result<()> {
    let load = Load::parse();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    // Whoever is dropped here takes the nodes with it.
    tokio::select! {
        done = run(&load) => done,
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
    }
}

async fn run(load: &Load) -> Result<()> {
    match load {
        Load::Conditions(args) => conditions::run(args).await,
        Load::Compare(args) => compare::run(args).await,
        Load::Contend(args) => contend::run(args).await,
        Load::Processes(args) => processes::run(args).await,
        Load::Sessions(args) => sessions::run(args).await,
        Load::Scale(args) => scale::run(args).await,
        Load::Table(args) => table::run(args),
    }
}
