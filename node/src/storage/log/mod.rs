//! The Raft log on disk: entries, vote and purge mark in a RocksDB of their own.
//!
//! One column family (a vote in a family of its own would keep every old write-ahead log alive),
//! whose write-ahead logs are recycled, so that a sync overwrites blocks and need not touch the
//! inode. One OS thread writes ([`writer`]): it takes all that waits, writes one batch, syncs once,
//! then calls back. Vote, truncation and purge go the same way, so that nothing overtakes anything.
//!
//! Entries are readable when `append` returns: they are in the cache ([`cache`]), which never drops
//! an entry before it is durable.
//!
//! A failed write or sync is never tried again: whether it reached the disk is unknown, and a
//! second `fsync` may say yes to pages that the kernel has dropped. Everything after it fails, and
//! [`LogStore::failure`] tells the node to stop.
//!
//! # Rows
//!
//! | key | value |
//! |---|---|
//! | index, 8 bytes, big endian | `[crc32c u32][chain u64][entry]` |
//! | `ff 01` | vote |
//! | `ff 02` | purge mark: log id, chain |
//! | `ff 03` | committed log id, at most [`guard::SYNC_EVERY`](super::guard) old |
//!
//! The chain of an entry hashes its bytes and the chain before it, so entries cannot be lost,
//! swapped or mixed from two logs without notice ([`verify`]).

use std::any::Any;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use futures::Stream;
use openraft::OptionalSend;
use openraft::storage::{RaftLogReader, RaftLogStorage};
use tokio::sync::watch;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use self::cache::Cache;
use self::writer::Writer;
use super::codec::{decode_entry, encode_entry};
use super::disk::{DatabaseError, KeyValue, Row, Tuning};
use super::error::StorageError;
use super::files;
use super::guard::Guard;
use crate::metrics::LogMeters;
use crate::raft::{Entry, Flushed, LogId, LogState, TypeConfig, Vote};

mod cache;
pub(super) mod offline;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

/// Most bytes that one read of a stream or of replication gives, beyond its first entry.
const READ_BYTES_MAX: usize = 1 << 20;

/// Most entries that one read of a stream gives.
const READ_ENTRIES_MAX: u64 = 1024;

const KEY_VOTE: [u8; 2] = [0xff, 1];
const KEY_PURGED: [u8; 2] = [0xff, 2];
const KEY_COMMITTED: [u8; 2] = [0xff, 3];

/// Bounds of the log's memory.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// Bytes of entries kept in memory; entries that are not yet on disk may exceed it.
    pub cache_bytes: usize,
    /// RocksDB's write buffer: also the size of a write-ahead log.
    pub write_buffer_bytes: usize,
    /// Times what it does.
    pub meters: LogMeters,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 16 << 20,
            write_buffer_bytes: 32 << 20,
            meters: LogMeters::default(),
        }
    }
}

impl LogOptions {
    fn tuning(&self) -> Tuning {
        Tuning::Log {
            write_buffer_bytes: self.write_buffer_bytes,
        }
    }
}

/// What all handles share.
struct Core {
    path: PathBuf,
    db: KeyValue,
    cache: Mutex<Cache>,
    failure: watch::Sender<Option<String>>,
    meters: LogMeters,
}

impl Core {
    fn cache(&self) -> MutexGuard<'_, Cache> {
        // No holder leaves the cache half changed, so a panic elsewhere does not spoil it.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the first failure, and gives the error that everything gets from now on.
    fn fail(&self, problem: &str) -> io::Error {
        self.failure.send_if_modified(|failure| {
            let first = failure.is_none();
            if first {
                *failure = Some(problem.to_owned());
            }
            first
        });
        StorageError::Stopped(problem.to_owned()).into()
    }

    fn check_failure(&self) -> io::Result<()> {
        match &*self.failure.borrow() {
            None => Ok(()),
            Some(problem) => Err(StorageError::Stopped(problem.clone()).into()),
        }
    }
}

/// The log of this node. Dropping it finishes what waits and closes it.
pub struct LogStore {
    core: Arc<Core>,
    writer: Writer,
}

/// Reads the log, while it is written. Keeps the database open.
#[derive(Clone)]
pub struct LogReader {
    core: Arc<Core>,
}

impl LogStore {
    /// Dead once the database is closed.
    pub(super) fn handle(&self) -> Weak<dyn Any + Send + Sync> {
        let core: Arc<dyn Any + Send + Sync> = self.core.clone();
        Arc::downgrade(&core)
    }

    /// Opens or creates the log in `dir` with its guard file, and verifies all of it.
    pub fn open(dir: &Path, acked: &Path, options: &LogOptions) -> Result<Self, StorageError> {
        let (core, guard) = open_core(dir, acked, options)?;
        let writer = Writer::start(core.clone(), guard)
            .map_err(StorageError::io("start the writer thread of", dir))?;
        Ok(Self { core, writer })
    }

    /// Makes a log in `dir` that has a vote and begins behind `purged`, durably.
    pub(super) fn begin(
        dir: &Path,
        acked: &Path,
        vote: Vote,
        purged: LogId,
    ) -> Result<(), StorageError> {
        let (core, guard) = open_core(dir, acked, &LogOptions::default())?;
        writer::begin(core, guard, vote, purged)
    }

    /// Tells why the log has stopped, when it has. The node must stop too.
    #[must_use]
    pub fn failure(&self) -> watch::Receiver<Option<String>> {
        self.core.failure.subscribe()
    }

    /// The log id up to which entries are purged.
    #[must_use]
    pub fn purged(&self) -> Option<LogId> {
        self.core.cache().purged
    }

    /// The last log id.
    #[must_use]
    pub fn last_log_id(&self) -> Option<LogId> {
        self.core.cache().last
    }

    /// A reader.
    #[must_use]
    pub fn reader(&self) -> LogReader {
        LogReader {
            core: self.core.clone(),
        }
    }

    /// Bytes of the log on disk, without the write-ahead log.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        self.core.db.table_bytes()
    }
}

/// The log in `dir` as it was found, with its guard.
fn open_core(
    dir: &Path,
    acked: &Path,
    options: &LogOptions,
) -> Result<(Arc<Core>, Guard), StorageError> {
    let guard = open_guard(dir, acked)?;
    // The database syncs what is in its directory, and not the name of the directory itself.
    files::create_dir(dir)?;
    let db = KeyValue::open(dir, options.tuning())
        .map_err(StorageError::database("open the log in", dir))?;
    let verified = verify::verify(&db, dir)?;
    verify::check_guard(&db, &guard.mark(), &verified, dir, acked)?;
    let core = Core {
        path: dir.to_owned(),
        db,
        cache: Mutex::new(Cache::new(verified, options.cache_bytes)),
        failure: watch::channel(None).0,
        meters: options.meters.clone(),
    };
    Ok((Arc::new(core), guard))
}

/// The guard is made before the database, so a database without a guard has lost it.
fn open_guard(dir: &Path, acked: &Path) -> Result<Guard, StorageError> {
    let exists = files::exists(&dir.join("CURRENT"));
    match Guard::open(acked)? {
        None if exists => Err(StorageError::damaged(
            acked,
            "the file is missing, but there is a log beside it",
        )),
        None => Guard::create(acked),
        Some(guard) if !exists && guard.mark() != Default::default() => Err(StorageError::damaged(
            &dir.join("CURRENT"),
            format!(
                "the log is missing, but votes and entries before {} were acknowledged",
                guard.mark().end
            ),
        )),
        Some(guard) => Ok(guard),
    }
}

/// The chain of an entry, from the chain before it.
fn chain(previous: u64, entry: &[u8]) -> u64 {
    xxh3_64_with_seed(entry, previous)
}

/// The chain at a purge mark that is no entry of this log: a snapshot brought it.
fn chain_anchor(id: &LogId) -> u64 {
    xxh3_64_with_seed(&super::codec::encode_log_id(id), u64::MAX)
}

fn put_row(out: &mut Vec<u8>, chain: u64, entry: &[u8]) {
    let chain = chain.to_le_bytes();
    let crc = crc32c::crc32c_append(crc32c::crc32c(&chain), entry);
    out.clear();
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&chain);
    out.extend_from_slice(entry);
}

/// Chain and entry of a row whose checksum holds.
fn split_row(row: &[u8]) -> Option<(u64, &[u8])> {
    let (crc, rest) = row.split_first_chunk::<4>()?;
    if crc32c::crc32c(rest) != u32::from_le_bytes(*crc) {
        return None;
    }
    let (chain, entry) = rest.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*chain), entry))
}

type RowResult = Result<Row, DatabaseError>;

/// `from..to` of any range.
fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(from) => *from,
        Bound::Excluded(before) => before + 1,
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(last) => last + 1,
        Bound::Excluded(to) => *to,
        Bound::Unbounded => u64::MAX,
    };
    (from, to)
}

impl LogReader {
    /// Index of the first entry that is not purged; of the next one while there is none.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.core.cache().first
    }

    /// Entries of `from..to` that the log has: the first ones, about so many as are good to hold in
    /// memory at a time, and at least one.
    pub fn read_some(&self, from: u64, to: u64) -> io::Result<Vec<Entry>> {
        self.read(from, to, Some(READ_BYTES_MAX))
    }

    /// Entries of `from..to` that the log has: all of them, or with a limit the first ones, at
    /// least one.
    fn read(&self, from: u64, to: u64, bytes_max: Option<usize>) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut room = bytes_max.unwrap_or(usize::MAX);
        let cache = self.core.cache();
        let (from, to) = (from.max(cache.first), to.min(cache.end()));
        if from >= to {
            return Ok(entries);
        }
        let cached_from = cache.cached_from().max(from);
        if cached_from == from {
            cache.copy(from, to, &mut room, &mut entries);
            return Ok(entries);
        }
        // Both parts are of this moment: the iterator sees the database as it is now, whatever is
        // purged or truncated while it runs.
        let upper = cached_from.min(to);
        let rows = self.rows(from, upper);
        let mut tail = Vec::new();
        if bytes_max.is_none() && upper < to {
            cache.copy(upper, to, &mut room, &mut tail);
        }
        drop(cache);
        self.read_rows(from..upper, rows, bytes_max, &mut entries)?;
        entries.append(&mut tail);
        Ok(entries)
    }

    fn read_rows(
        &self,
        range: Range<u64>,
        rows: impl Iterator<Item = RowResult>,
        bytes_max: Option<usize>,
        entries: &mut Vec<Entry>,
    ) -> io::Result<()> {
        let (mut next, mut bytes) = (range.start, 0);
        for row in rows {
            let (key, row) = row.map_err(|error| self.damaged(next, &error.message))?;
            if *key != next.to_be_bytes() {
                break;
            }
            entries.push(self.decode(next, &row)?);
            next += 1;
            bytes += row.len();
            if bytes_max.is_some_and(|max| bytes >= max) {
                return Ok(());
            }
        }
        if next < range.end {
            return Err(self.damaged(next, "it is missing"));
        }
        Ok(())
    }

    fn rows(&self, from: u64, to: u64) -> impl Iterator<Item = RowResult> + '_ {
        let (from, to) = (from.to_be_bytes(), to.to_be_bytes());
        self.core.db.rows(&from, Some(&to), 0)
    }

    fn decode(&self, index: u64, row: &[u8]) -> io::Result<Entry> {
        let Some((_, entry)) = split_row(row) else {
            return Err(self.damaged(index, "its checksum does not hold"));
        };
        decode_entry(Bytes::copy_from_slice(entry))
            .map_err(|error| self.damaged(index, &error.to_string()))
    }

    fn damaged(&self, index: u64, problem: &str) -> io::Error {
        StorageError::damaged(&self.core.path, format!("entry {index}: {problem}")).into()
    }
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> io::Result<Vec<Entry>> {
        let (from, to) = bounds(&range);
        self.read(from, to, None)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.core.cache().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start, end, Some(READ_BYTES_MAX))
    }

    /// Reads in steps, so that applying a long range does not hold all of it in memory.
    async fn entries_stream<R>(
        &mut self,
        range: R,
    ) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (from, to) = bounds(&range);
        let reader = self.clone();
        let steps = futures::stream::try_unfold(from, move |from| {
            let upper = to.min(from.saturating_add(READ_ENTRIES_MAX));
            let step = reader.read(from, upper, Some(READ_BYTES_MAX));
            async move {
                let step = step?;
                let next = step.last().map(|entry| entry.log_id.index + 1);
                Ok::<_, io::Error>(next.map(|next| (step, next)))
            }
        });
        Box::pin(flatten(steps))
    }
}

/// A stream of steps as a stream of their entries.
fn flatten(
    steps: impl Stream<Item = io::Result<Vec<Entry>>> + Send,
) -> impl Stream<Item = io::Result<Entry>> + Send {
    use futures::StreamExt;
    steps.flat_map(|step| {
        let items: Vec<io::Result<Entry>> = match step {
            Ok(entries) => entries.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        };
        futures::stream::iter(items)
    })
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> io::Result<LogState> {
        let cache = self.core.cache();
        Ok(LogState {
            last_purged_log_id: cache.purged,
            last_log_id: cache.last,
        })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        self.reader()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.writer.vote(*vote).await
    }

    /// Costs nothing: the writer puts it into the next batch that it writes anyway, or beside the
    /// guard. So after a crash this node may start from a slightly older committed id: a
    /// linearizable read waits until the state has caught up, a stale read may see an older state.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.core.check_failure()?;
        if let Some(committed) = committed {
            self.writer.committed(committed);
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.core.cache().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: Flushed) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let encoded = entries.into_iter().map(|entry| {
            let bytes = encode_entry(&entry);
            (entry, bytes)
        });
        self.writer.append(encoded, callback)
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.writer.truncate(last).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.writer.purge(upto).await
    }
}
