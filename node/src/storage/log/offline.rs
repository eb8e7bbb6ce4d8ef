//! The log of a stopped node, read without changing it.

use std::path::{Path, PathBuf};

use super::split_row;
use super::verify::{self, Verified};
use crate::raft::{Entry, LogId, Vote};
use crate::storage::codec::decode_entry;
use crate::storage::disk::KeyValue;
use crate::storage::error::StorageError;
use crate::storage::guard::{Guard, Mark};

/// A verified log.
pub struct OfflineLog {
    db: KeyValue,
    path: PathBuf,
    found: Verified,
    mark: Mark,
}

impl OfflineLog {
    /// Opens the log in `dir` and verifies all of it, also against its guard file.
    pub fn open(dir: &Path, acked: &Path) -> Result<Self, StorageError> {
        let guard = Guard::open(acked)?;
        let guard = guard.ok_or_else(|| StorageError::damaged(acked, "the file is missing"))?;
        let db = KeyValue::open_read_only(dir)
            .map_err(StorageError::database("open the log in", dir))?;
        let found = verify::verify(&db, dir)?;
        let mark = guard.mark();
        verify::check_guard(&db, &mark, &found, dir, acked)?;
        Ok(Self {
            db,
            path: dir.to_owned(),
            found,
            mark,
        })
    }

    /// Up to which entry it is purged.
    pub fn purged(&self) -> Option<LogId> {
        self.found.purged
    }

    /// Its last entry, or the purge mark.
    pub fn last(&self) -> Option<LogId> {
        self.found.last
    }

    /// The last entry that was written down as committed; more may be.
    pub fn committed(&self) -> Option<LogId> {
        self.found.committed
    }

    /// The vote.
    pub fn vote(&self) -> Option<Vote> {
        self.found.vote
    }

    /// Index behind the last entry that was acknowledged.
    pub fn acknowledged_end(&self) -> u64 {
        self.mark.end
    }

    /// Calls `visit` with the entries behind `after` up to `to`, in order.
    pub fn entries(
        &self,
        after: u64,
        to: u64,
        visit: &mut dyn FnMut(Entry) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let first = after + 1;
        let key = first.to_be_bytes();
        let path = &self.path;
        for (index, row) in (first..=to).zip(self.db.rows(&key, None, 0)) {
            let (key, row) = row.map_err(StorageError::database("read", path))?;
            let entry = split_row(&row).filter(|_| *key == index.to_be_bytes());
            let Some((_, entry)) = entry else {
                let problem = format!("log entry {index} is missing or damaged");
                return Err(StorageError::damaged(path, problem));
            };
            let entry = decode_entry(entry.to_vec().into()).map_err(|error| {
                StorageError::damaged(path, format!("log entry {index}: {error}"))
            })?;
            visit(entry)?;
        }
        Ok(())
    }
}
