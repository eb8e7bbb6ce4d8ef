//! What the clients did, as it goes into the checks and into the file of the run.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use tokio::time::Instant;

use crate::models::{events, leases, locks, queues, sessions};

/// Microseconds since the run began.
pub type Micros = i64;

/// One operation of one client, with what was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Record<S> {
    /// What it was about.
    pub key: String,
    /// Who asked. A client whose operation has no known outcome never asks again.
    pub client: u32,
    /// Before it was sent.
    pub call: Micros,
    /// After the answer came; none if it may take effect at any time from the call on.
    pub ret: Option<Micros>,
    /// What was asked and answered.
    pub step: S,
}

/// Everything that was recorded of one kind of thing.
pub struct Log<S> {
    noun: &'static str,
    records: Mutex<Vec<Record<S>>>,
    file: Option<Arc<Mutex<BufWriter<File>>>>,
}

#[derive(Serialize)]
struct Line<'a, S> {
    noun: &'a str,
    #[serde(flatten)]
    record: &'a Record<S>,
}

impl<S: Serialize + Clone> Log<S> {
    fn new(noun: &'static str, file: Option<&Arc<Mutex<BufWriter<File>>>>) -> Self {
        Self {
            noun,
            records: Mutex::new(Vec::new()),
            file: file.cloned(),
        }
    }

    /// Adds one operation.
    pub fn add(&self, record: Record<S>) {
        if let Some(file) = &self.file {
            let noun = self.noun;
            let line = serde_json::to_string(&Line {
                noun,
                record: &record,
            });
            let line = line.expect("a record is plain data");
            // The file is for people: the checks read what is in memory.
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = writeln!(file, "{line}");
        }
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.push(record);
    }

    /// All operations so far.
    #[must_use]
    pub fn all(&self) -> Vec<Record<S>> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.clone()
    }
}

/// The account of a run.
pub struct Recorder {
    start: Instant,
    file: Option<Arc<Mutex<BufWriter<File>>>>,
    acknowledged: Mutex<Vec<Instant>>,
    /// Operations on leases.
    pub leases: Log<leases::Step>,
    /// On locks.
    pub locks: Log<locks::Step>,
    /// On queues.
    pub queues: Log<queues::Step>,
    /// On processes' events.
    pub events: Log<events::Step>,
    /// On heads of sessions.
    pub sessions: Log<sessions::Step>,
}

impl Recorder {
    /// An account that is also written to a file.
    pub fn create(path: &Path) -> Result<Self> {
        let file = BufWriter::new(File::create(path)?);
        Ok(Self::new(Some(Arc::new(Mutex::new(file)))))
    }

    /// An account that is kept in memory.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::new(None)
    }

    fn new(file: Option<Arc<Mutex<BufWriter<File>>>>) -> Self {
        Self {
            start: Instant::now(),
            acknowledged: Mutex::new(Vec::new()),
            leases: Log::new("lease", file.as_ref()),
            locks: Log::new("lock", file.as_ref()),
            queues: Log::new("queue", file.as_ref()),
            events: Log::new("event", file.as_ref()),
            sessions: Log::new("session", file.as_ref()),
            file,
        }
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Micros {
        Micros::try_from(self.start.elapsed().as_micros()).unwrap_or(Micros::MAX)
    }

    /// The instant of a time in the account.
    #[must_use]
    pub fn instant(&self, at: Micros) -> Instant {
        self.start + Duration::from_micros(u64::try_from(at).unwrap_or(0))
    }

    /// Notes that a write was acknowledged just now.
    pub fn acknowledge(&self) {
        let acknowledged = self.acknowledged.lock();
        acknowledged
            .unwrap_or_else(PoisonError::into_inner)
            .push(Instant::now());
    }

    /// When writes were acknowledged, in order.
    #[must_use]
    pub fn acknowledged(&self) -> Vec<Instant> {
        let acknowledged = self.acknowledged.lock();
        let mut all = acknowledged.unwrap_or_else(PoisonError::into_inner).clone();
        all.sort_unstable();
        all
    }

    /// Writes out what is held back.
    pub fn flush(&self) -> Result<()> {
        if let Some(file) = &self.file {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            file.flush()?;
        }
        Ok(())
    }
}
