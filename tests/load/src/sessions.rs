//! lash's session stores: ours on three nodes beside lash's own, on one PostgreSQL and on SQLite.
//!
//! All are the same trait, driven by the same loop in this process: each task has a session of its
//! own, whose execution lease it holds, and one turn on its way ([`crate::turns`]).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use futures::future::try_join_all;
use hdrhistogram::Histogram;
use lash_core::SessionStoreFactory;
use lash_sqlite_store::SqliteSessionStoreFactory;
use quorate_lash::QuorateSessions;

use crate::record::{self, Record, Sessions, Store, Turn};
use crate::turns::{NODES, Session};
use crate::{meter, postgres, quorate};

const CONNECTIONS: usize = 4;
/// How long SQLite may take to close the databases of a point, each with a checkpoint.
const CLOSE_MAX: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Arguments of `sessions`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Our program
    #[arg(long)]
    pub program: PathBuf,
    /// Where all keep their data
    #[arg(long)]
    pub data_dir: PathBuf,
    /// Records are appended to it
    #[arg(long)]
    pub out: PathBuf,
    /// Sessions with a turn on its way
    #[arg(long, value_delimiter = ' ', default_value = "16 64")]
    pub sessions: Vec<u32>,
    /// How long each round lasts, after a second of warming up
    #[arg(long, default_value_t = 5)]
    pub seconds: u32,
    /// How often each is measured
    #[arg(long, default_value_t = 3)]
    pub rounds: u32,
}

/// Measures all in turns.
pub async fn run(args: &Arguments) -> Result<()> {
    let Some(bin) = postgres::installed() else {
        eprintln!(
            "no PostgreSQL in /usr/lib/postgresql: session stores are left out; see setup.sh"
        );
        return Ok(());
    };
    let dir = |name: &str| args.data_dir.join(name);
    let theirs = postgres::Server::start(&bin, &dir("postgres-sessions")).await?;
    let durable = theirs.durability(&bin).await?;
    let stores = Stores {
        ours: quorate::Cluster::start(&args.program, &dir("quorate-sessions")).await?,
        postgres: format!("{}, {durable}", postgres::version(&bin).await?),
        theirs,
        files: dir("sqlite-sessions"),
    };
    for round in 0..args.rounds {
        for sessions in &args.sessions {
            for turn in Turn::ALL {
                for store in Store::ALL {
                    let point = Point {
                        store,
                        turn,
                        sessions: *sessions,
                        round,
                    };
                    let measured = stores.measure(&point, args.seconds).await?;
                    record::write(&args.out, &Record::Sessions(measured))?;
                }
            }
        }
    }
    stores.stop().await
}

/// All of them, running the whole time.
struct Stores {
    ours: quorate::Cluster,
    theirs: postgres::Server,
    /// What PostgreSQL is, and how durable.
    postgres: String,
    /// Where SQLite's databases are.
    files: PathBuf,
}

struct Point {
    store: Store,
    turn: Turn,
    sessions: u32,
    round: u32,
}

/// What a point, or one session's part of it, came to.
struct Measured {
    /// In microseconds.
    latency: Histogram<u64>,
    turns: u64,
}

type Factories = Vec<Arc<dyn SessionStoreFactory>>;

impl Stores {
    async fn measure(&self, point: &Point, seconds: u32) -> Result<Sessions> {
        let measured = match point.store {
            Store::Quorate => closed_loop(self.our_factories()?, point, seconds).await?,
            Store::Postgres => {
                let storage = self.theirs.connect(point.sessions).await?;
                let factory = Arc::new(storage.session_store_factory());
                let measured = closed_loop(vec![factory], point, seconds).await?;
                storage.pool().close().await;
                measured
            }
            Store::Sqlite => {
                let factory = Arc::new(SqliteSessionStoreFactory::new(&self.files));
                let measured = closed_loop(vec![factory], point, seconds).await?;
                until_closed(&self.files).await?;
                measured
            }
        };
        let turns = measured.turns as f64 / f64::from(point.sessions);
        Ok(Sessions {
            store: point.store,
            postgres: self.postgres.clone(),
            turn: point.turn,
            sessions: point.sessions,
            round: point.round,
            per_second: measured.latency.len() as f64 / f64::from(seconds),
            p50_us: measured.latency.value_at_quantile(0.5),
            p99_us: measured.latency.value_at_quantile(0.99),
            nodes: turns * NODES as f64,
        })
    }

    fn our_factories(&self) -> Result<Factories> {
        let factory = |_| {
            let sessions = QuorateSessions::connect(self.ours.endpoints.iter().cloned());
            let sessions = sessions.namespace("bench").build()?;
            Ok(Arc::new(sessions) as Arc<dyn SessionStoreFactory>)
        };
        (0..CONNECTIONS).map(factory).collect()
    }

    async fn stop(self) -> Result<()> {
        self.theirs.stop().await?;
        std::fs::remove_dir_all(&self.files)?;
        Ok(std::fs::remove_dir_all(self.ours.stop().await?)?)
    }
}

/// Opens the sessions, then lets each take its turns until the time is over.
async fn closed_loop(factories: Factories, point: &Point, seconds: u32) -> Result<Measured> {
    let turn = point.turn;
    let factories = factories.iter().cycle();
    let opened = factories.zip(0..point.sessions).map(|(factory, at)| {
        let (store, round, sessions) = (point.store.id(), point.round, point.sessions);
        let id = format!("{store}-{}-{round}-{sessions}-{at:02}", turn.id());
        async move { Session::open(&**factory, &id).await }
    });
    let opened = try_join_all(opened).await?;
    let from = Instant::now() + meter::WARM_UP;
    let end = from + Duration::from_secs(seconds.into());
    let tasks = opened.into_iter();
    let tasks = tasks.map(|session| tokio::spawn(work(session, turn, from, end)));
    let mut all = Measured {
        latency: meter::histogram()?,
        turns: 0,
    };
    for done in try_join_all(tasks.collect::<Vec<_>>()).await? {
        let part = done?;
        all.latency.add(&part.latency)?;
        all.turns += part.turns;
    }
    Ok(all)
}

async fn work(mut session: Session, turn: Turn, from: Instant, end: Instant) -> Result<Measured> {
    let mut latency = meter::histogram()?;
    loop {
        session.renew_if_due().await?;
        let sent = Instant::now();
        session.operate(turn).await?;
        let answered = Instant::now();
        if answered > end {
            session.check().await?;
            let turns = session.turns;
            return Ok(Measured { latency, turns });
        }
        if sent >= from {
            let micros = u64::try_from(answered.duration_since(sent).as_micros())?;
            latency.saturating_record(micros.max(1));
        }
    }
}

/// Waits until SQLite has closed all databases in `dir`: it does so on threads of its own, and what
/// is in a log is then written to its database, which must not happen beside the next point.
async fn until_closed(dir: &Path) -> Result<()> {
    let deadline = Instant::now() + CLOSE_MAX;
    while has_logs(dir)? {
        ensure!(
            Instant::now() < deadline,
            "SQLite did not close its databases within {CLOSE_MAX:?}"
        );
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

/// A database's log is there until it is closed.
fn has_logs(dir: &Path) -> Result<bool> {
    for entry in std::fs::read_dir(dir)? {
        if entry?.file_name().to_string_lossy().ends_with("-wal") {
            return Ok(true);
        }
    }
    Ok(false)
}
