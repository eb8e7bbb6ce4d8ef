//! The thread that writes the log: all that waits in one batch, one sync, then the callbacks.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::cache::Cache;
use super::verify::encode_purged;
use super::{Core, KEY_COMMITTED, KEY_PURGED, KEY_VOTE, chain, put_row, split_row};
use crate::raft::{Entry, Flushed, LogId, Vote};
use crate::storage::codec::{encode_log_id, encode_vote};
use crate::storage::disk::{Batch, Durability};
use crate::storage::error::StorageError;
use crate::storage::guard::{Guard, Mark};

/// A batch takes no more once it has this many bytes: what waits longer would only wait for memory.
const BATCH_BYTES_MAX: usize = 4 << 20;

type Done = oneshot::Sender<io::Result<()>>;

/// Something to write, in the order in which it was asked for.
enum Job {
    Append {
        entries: Vec<(u64, u64, Bytes)>,
        bytes: usize,
        batch: u64,
        done: Flushed,
    },
    Vote(Vote, Done),
    Truncate {
        /// The log before it.
        old_end: u64,
        /// The log after it.
        end: u64,
        chain: u64,
        done: Done,
    },
    Purge {
        from: u64,
        upto: LogId,
        upto_chain: u64,
        /// The log after it.
        end: u64,
        chain: u64,
        done: Done,
    },
    Stop,
}

/// The near end of the writer thread.
pub(super) struct Writer {
    core: Arc<Core>,
    jobs: Sender<Job>,
    thread: Option<JoinHandle<()>>,
    #[cfg(feature = "simulation")]
    wake: Arc<tokio::sync::Notify>,
}

impl Writer {
    pub fn start(core: Arc<Core>, guard: Guard) -> io::Result<Self> {
        let (jobs, receiver) = channel();
        let mut far = Far::new(core.clone(), guard);
        #[cfg(feature = "simulation")]
        let wake = Arc::new(tokio::sync::Notify::new());
        #[cfg(feature = "simulation")]
        if simulated::is_simulated(&core.path) {
            tokio::spawn(simulated::run(far, receiver, Arc::clone(&wake)));
            return Ok(Self {
                core,
                jobs,
                thread: None,
                wake,
            });
        }
        let thread = Builder::new()
            .name("quorate-log".to_owned())
            .spawn(move || far.run(&receiver))?;
        Ok(Self {
            core,
            jobs,
            thread: Some(thread),
            #[cfg(feature = "simulation")]
            wake,
        })
    }

    /// Makes entries readable, and sends them to be written. The lock is held over both, so that
    /// jobs stand in the queue in the order in which the cache saw them.
    pub fn append(
        &self,
        entries: impl Iterator<Item = (Entry, Bytes)>,
        done: Flushed,
    ) -> io::Result<()> {
        self.core.check_failure()?;
        let mut cache = self.core.cache();
        let batch = cache.start_batch();
        let (mut pending, mut bytes) = (Vec::new(), 0);
        for (entry, encoded) in entries {
            self.check_next(&cache, &entry)?;
            let index = entry.log_id.index;
            let chain = chain(cache.last_chain, &encoded);
            cache.push(entry, &encoded, chain, batch);
            bytes += encoded.len();
            pending.push((index, chain, encoded));
        }
        self.send(Job::Append {
            entries: pending,
            bytes,
            batch,
            done,
        })
    }

    /// Raft examines only the end of the log, so there must never be a hole in it.
    fn check_next(&self, cache: &Cache, entry: &Entry) -> io::Result<()> {
        match cache.last {
            Some(last) if last.index + 1 != entry.log_id.index => Err(self.core.fail(&format!(
                "entry {} was to be appended behind entry {}",
                entry.log_id.index, last.index
            ))),
            _ => Ok(()),
        }
    }

    /// The vote, durably.
    pub async fn vote(&self, vote: Vote) -> io::Result<()> {
        let (done, wait) = oneshot::channel();
        self.send(Job::Vote(vote, done))?;
        self.finished(wait).await
    }

    /// Notes a committed id, to be written without a sync by and by.
    pub fn committed(&self, committed: LogId) {
        let mut cache = self.core.cache();
        cache.committed = Some(committed);
        cache.committed_unwritten = true;
    }

    /// Drops all entries behind `last`, durably.
    pub async fn truncate(&self, last: Option<LogId>) -> io::Result<()> {
        let (done, wait) = oneshot::channel();
        {
            let mut cache = self.core.cache();
            let (old_end, end) = (cache.end(), last.map_or(0, |last| last.index + 1));
            if end >= old_end {
                return Ok(());
            }
            let (last, chain) = self.entry_before(&cache, end)?;
            cache.truncate(last, chain);
            self.send(Job::Truncate {
                old_end,
                end: cache.end(),
                chain,
                done,
            })?;
        }
        self.finished(wait).await
    }

    /// Log id and chain of what stands before `end`: an entry, or the purge mark.
    fn entry_before(&self, cache: &Cache, end: u64) -> io::Result<(Option<LogId>, u64)> {
        match end.checked_sub(1) {
            Some(index) if index >= cache.first => {
                let (id, chain) = self.entry_at(cache, index)?;
                Ok((Some(id), chain))
            }
            _ => Ok((cache.purged, cache.purged_chain)),
        }
    }

    /// Drops all entries up to `upto`, durably.
    pub async fn purge(&self, upto: LogId) -> io::Result<()> {
        let (done, wait) = oneshot::channel();
        {
            let mut cache = self.core.cache();
            if cache
                .purged
                .is_some_and(|purged| purged.index >= upto.index)
            {
                return Ok(());
            }
            let from = cache.first;
            let known = from <= upto.index && upto.index < cache.end();
            let chain = match known {
                true => Some(self.entry_at(&cache, upto.index)?.1),
                false => None,
            };
            cache.purge(upto, chain);
            self.send(Job::Purge {
                from,
                upto,
                upto_chain: cache.purged_chain,
                end: cache.end(),
                chain: cache.last_chain,
                done,
            })?;
        }
        self.finished(wait).await
    }

    fn entry_at(&self, cache: &Cache, index: u64) -> io::Result<(LogId, u64)> {
        if let Some(found) = cache.cached(index) {
            return Ok(found);
        }
        let row = self
            .core
            .db
            .get(&index.to_be_bytes())
            .map_err(io::Error::other)?;
        let found = split_row(row.as_deref().unwrap_or_default()).and_then(|(chain, entry)| {
            Some((crate::storage::codec::entry_log_id(entry).ok()?, chain))
        });
        found.ok_or_else(|| {
            let problem = format!("log entry {index} is missing or damaged");
            StorageError::damaged(&self.core.path, problem).into()
        })
    }

    fn send(&self, job: Job) -> io::Result<()> {
        let sent = self.jobs.send(job);
        #[cfg(feature = "simulation")]
        self.wake.notify_one();
        sent.map_err(|_| self.core.fail("the writer thread of the log has ended"))
    }

    async fn finished(&self, wait: oneshot::Receiver<io::Result<()>>) -> io::Result<()> {
        match wait.await {
            Ok(result) => result,
            Err(_) => Err(self.core.fail("the writer thread of the log has ended")),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.jobs.send(Job::Stop);
        #[cfg(feature = "simulation")]
        self.wake.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            self.core.fail("the writer thread of the log has panicked");
        }
    }
}

/// Writes what a new log begins with, here and now, and closes it.
pub(super) fn begin(
    core: Arc<Core>,
    guard: Guard,
    vote: Vote,
    purged: LogId,
) -> Result<(), StorageError> {
    let from = {
        let mut cache = core.cache();
        let from = cache.first;
        cache.purge(purged, None);
        from
    };
    let purge = |cache: &Cache| Job::Purge {
        from,
        upto: purged,
        upto_chain: cache.purged_chain,
        end: cache.end(),
        chain: cache.last_chain,
        done: oneshot::channel().0,
    };
    let jobs = [Job::Vote(vote, oneshot::channel().0), purge(&core.cache())];
    let mut far = Far::new(core, guard);
    far.write(&jobs)?;
    far.write_marks()
}

/// The far end: what the thread owns.
struct Far {
    core: Arc<Core>,
    guard: Guard,
    row: Vec<u8>,
}

impl Far {
    fn new(core: Arc<Core>, guard: Guard) -> Self {
        Self {
            core,
            guard,
            row: Vec::new(),
        }
    }

    fn run(&mut self, receiver: &Receiver<Job>) {
        loop {
            let first = match self.next(receiver) {
                Ok(first) => Some(first),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            if !self.turn(first, receiver) {
                break;
            }
        }
        self.close();
    }

    /// Writes a job and all that wait behind it; whether it goes on.
    fn turn(&mut self, first: Option<Job>, receiver: &Receiver<Job>) -> bool {
        let jobs = first.map_or_else(Vec::new, |first| gather(first, receiver));
        let stop = jobs.iter().any(|job| matches!(job, Job::Stop));
        self.write_and_answer(jobs);
        if !stop {
            self.catch_up(Instant::now());
        }
        !stop
    }

    fn next(&self, receiver: &Receiver<Job>) -> Result<Job, RecvTimeoutError> {
        match self.deadline() {
            None => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(deadline) => {
                receiver.recv_timeout(deadline.saturating_duration_since(Instant::now()))
            }
        }
    }

    /// When something must be written though nobody asks; never after a failure.
    fn deadline(&self) -> Option<Instant> {
        self.core.check_failure().ok()?;
        self.guard.deadline()
    }

    fn write_and_answer(&mut self, jobs: Vec<Job>) {
        if jobs.is_empty() {
            return;
        }
        let result = match self.core.check_failure() {
            Ok(()) => self.write(&jobs).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match result {
            Ok(()) => jobs.into_iter().for_each(|job| self.answer(job)),
            Err(problem) => {
                let _ = self.core.fail(&problem);
                for job in jobs {
                    refuse(job, || StorageError::Stopped(problem.clone()).into());
                }
            }
        }
    }

    /// One batch, one sync, then the guard.
    fn write(&mut self, jobs: &[Job]) -> Result<(), StorageError> {
        self.lower_guard(jobs)?;
        let mut batch = self.core.db.batch();
        let mut mark = self.guard.mark();
        for job in jobs {
            self.put(&mut batch, &mut mark, job);
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.put_committed(&mut batch, mark.end);
        let began = Instant::now();
        self.core
            .db
            .write(batch, Durability::Synced)
            .map_err(StorageError::database("write to", &self.core.path))?;
        let took = began.elapsed().as_secs_f64();
        self.core.meters.fsync.observe(took);
        self.guard.write(mark)?;
        if jobs
            .iter()
            .any(|job| matches!(job, Job::Vote(..) | Job::Truncate { .. }))
        {
            self.guard.sync()?;
        }
        self.drop_files(jobs)
    }

    /// Before a truncation, and durably: or a crash behind it would leave a guard above the log.
    fn lower_guard(&mut self, jobs: &[Job]) -> Result<(), StorageError> {
        let lowest = jobs
            .iter()
            .filter_map(|job| match job {
                Job::Truncate { end, chain, .. } => Some((*end, *chain)),
                _ => None,
            })
            .min();
        let before = self.guard.mark();
        match lowest {
            Some((end, chain)) if end < before.end => {
                self.guard.write(Mark {
                    end,
                    chain,
                    ..before
                })?;
                self.guard.sync()
            }
            _ => Ok(()),
        }
    }

    fn put(&mut self, batch: &mut Batch, mark: &mut Mark, job: &Job) {
        match job {
            Job::Append { entries, .. } => {
                for (index, chain, entry) in entries {
                    put_row(&mut self.row, *chain, entry);
                    batch.put(index.to_be_bytes(), &self.row);
                    (mark.end, mark.chain) = (index + 1, *chain);
                }
            }
            Job::Vote(vote, _) => {
                batch.put(KEY_VOTE, encode_vote(vote));
                mark.vote = Some(*vote);
            }
            Job::Truncate {
                old_end,
                end,
                chain,
                ..
            } => {
                batch.delete_range(end.to_be_bytes(), old_end.to_be_bytes());
                (mark.end, mark.chain) = (*end, *chain);
            }
            Job::Purge {
                from,
                upto,
                upto_chain,
                end,
                chain,
                ..
            } => {
                batch.put(KEY_PURGED, encode_purged(upto, *upto_chain));
                if *from <= upto.index {
                    batch.delete_range(from.to_be_bytes(), (upto.index + 1).to_be_bytes());
                }
                (mark.end, mark.chain) = (*end, *chain);
            }
            Job::Stop => {}
        }
    }

    /// The committed id goes along, once its entry is in the log: never before, so that a log that
    /// ends below it is known to be damaged.
    fn put_committed(&mut self, batch: &mut Batch, end: u64) -> bool {
        let mut cache = self.core.cache();
        match cache.committed {
            Some(committed) if cache.committed_unwritten && committed.index < end => {
                batch.put(KEY_COMMITTED, encode_log_id(&committed));
                cache.committed_unwritten = false;
                true
            }
            _ => false,
        }
    }

    /// Whole files of purged entries can go at once, without compaction. What cannot is left to it.
    fn drop_files(&self, jobs: &[Job]) -> Result<(), StorageError> {
        for job in jobs {
            if let Job::Purge { upto, .. } = job {
                let (from, to) = (0u64.to_be_bytes(), upto.index.to_be_bytes());
                self.core
                    .db
                    .drop_files(&from, &to)
                    .map_err(StorageError::database("purge", &self.core.path))?;
            }
        }
        Ok(())
    }

    fn answer(&self, job: Job) {
        match job {
            Job::Append { batch, done, .. } => {
                self.core.cache().set_durable(batch);
                done.io_completed(Ok(()));
            }
            Job::Vote(vote, done) => {
                self.core.cache().vote = Some(vote);
                let _ = done.send(Ok(()));
            }
            Job::Truncate { done, .. } | Job::Purge { done, .. } => {
                let _ = done.send(Ok(()));
            }
            Job::Stop => {}
        }
    }

    /// What is due though nothing is written: the guard's sync, and the committed id.
    fn catch_up(&mut self, now: Instant) {
        if self.deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        if let Err(error) = self.write_marks() {
            self.core.fail(&error.to_string());
        }
    }

    fn write_marks(&mut self) -> Result<(), StorageError> {
        if self.core.check_failure().is_err() {
            return Ok(());
        }
        let mut batch = self.core.db.batch();
        if self.put_committed(&mut batch, self.guard.mark().end) {
            self.core
                .db
                .write(batch, Durability::Logged)
                .map_err(StorageError::database("write to", &self.core.path))?;
        }
        self.guard.sync()
    }

    fn close(&mut self) {
        if self.core.check_failure().is_ok()
            && let Err(error) = self.write_marks()
        {
            self.core.fail(&error.to_string());
        }
    }
}

/// The first job and all that wait behind it, up to the batch's limit.
fn gather(first: Job, receiver: &Receiver<Job>) -> Vec<Job> {
    let mut bytes = size(&first);
    let mut jobs = vec![first];
    while bytes < BATCH_BYTES_MAX
        && !matches!(jobs.last(), Some(Job::Stop))
        && let Ok(job) = receiver.try_recv()
    {
        bytes += size(&job);
        jobs.push(job);
    }
    jobs
}

fn size(job: &Job) -> usize {
    match job {
        Job::Append { bytes, .. } => *bytes,
        _ => 0,
    }
}

fn refuse(job: Job, error: impl Fn() -> io::Error) {
    match job {
        Job::Append { done, .. } => done.io_completed(Err(error())),
        Job::Vote(_, done) | Job::Truncate { done, .. } | Job::Purge { done, .. } => {
            let _ = done.send(Err(error()));
        }
        Job::Stop => {}
    }
}

/// The writer of a log on a simulated disk: the same turns, in a task instead of a thread.
#[cfg(feature = "simulation")]
mod simulated {
    use std::sync::mpsc::TryRecvError;

    use tokio::sync::Notify;
    use tokio::time::{sleep, timeout_at};

    use super::{Arc, Far, Job, Receiver};
    pub(super) use crate::storage::disk::simulated::is_simulated;
    use crate::storage::disk::simulated::sync_time;

    pub(super) async fn run(mut far: Far, receiver: Receiver<Job>, wake: Arc<Notify>) {
        loop {
            let first = match receiver.try_recv() {
                Ok(first) => Some(first),
                Err(TryRecvError::Empty) if waited(&far, &wake).await => continue,
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Disconnected) => break,
            };
            // A slow disk keeps what comes meanwhile waiting; it goes into the same batch.
            let time = sync_time(&far.core.path);
            if !time.is_zero() {
                sleep(time).await;
            }
            if !far.turn(first, &receiver) {
                break;
            }
        }
        far.close();
    }

    /// Waits for a job; false once something must be written without one.
    async fn waited(far: &Far, wake: &Notify) -> bool {
        match far.deadline() {
            None => {
                wake.notified().await;
                true
            }
            Some(deadline) => timeout_at(deadline.into(), wake.notified()).await.is_ok(),
        }
    }
}
