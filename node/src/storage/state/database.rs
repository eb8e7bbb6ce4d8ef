//! The database of the state: rows of the state machine, and two rows of the node.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use quorate_statemachine::tables;

use super::view::{Overlay, Tables};
use super::{Rows, StateOptions};
use crate::raft::{LogId, StoredMembership};
use crate::storage::codec::{
    decode_log_id, decode_stored_membership, encode_log_id, encode_stored_membership,
};
use crate::storage::disk::{DatabaseError, Durability, KeyValue};
use crate::storage::error::StorageError;
use crate::storage::files;

/// The node's own rows sort behind every row of the state machine, which is in namespace 0.
pub(super) const KEYS_END: [u8; 2] = [0xff, 0xff];
const KEY_APPLIED: [u8; 3] = [0xff, 0xff, 1];
const KEY_MEMBERSHIP: [u8; 3] = [0xff, 0xff, 2];

/// An open database. The last one to let go of a doomed database removes its files.
pub(super) struct Database {
    // Dropped in this order: closed first, removed after.
    db: KeyValue,
    dir: Directory,
    unreadable: OnceLock<String>,
}

struct Directory {
    path: PathBuf,
    doomed: AtomicBool,
}

impl Drop for Directory {
    fn drop(&mut self) {
        if self.doomed.load(Ordering::Acquire)
            && let Err(error) = files::remove_dir(&self.path)
        {
            tracing::warn!(%error, "a replaced state stays on disk until the next start");
        }
    }
}

impl Database {
    pub fn open(path: &Path, options: &StateOptions) -> Result<Self, StorageError> {
        // The database syncs what is in its directory, and not the name of the directory itself.
        files::create_dir(path)?;
        let db = KeyValue::open(path, options.tuning())
            .map_err(StorageError::database("open the state in", path))?;
        Ok(Self::new(db, path))
    }

    /// Opens a checkpoint without changing it.
    pub fn open_checkpoint(path: &Path) -> Result<Self, StorageError> {
        let db = KeyValue::open_read_only(path)
            .map_err(StorageError::database("open the checkpoint", path))?;
        Ok(Self::new(db, path))
    }

    fn new(db: KeyValue, path: &Path) -> Self {
        let dir = Directory {
            path: path.to_owned(),
            doomed: AtomicBool::new(false),
        };
        Self {
            db,
            dir,
            unreadable: OnceLock::new(),
        }
    }

    /// Lets the files go with the last user.
    pub fn doom(&self) {
        self.dir.doomed.store(true, Ordering::Release);
    }

    pub fn damaged(&self, problem: impl Into<String>) -> StorageError {
        StorageError::damaged(&self.dir.path, problem)
    }

    /// Why a row could not be read, if that has happened.
    pub fn unreadable(&self) -> Option<&str> {
        self.unreadable.get().map(String::as_str)
    }

    fn not_read(&self, error: DatabaseError) -> StorageError {
        let error = self.failed("read")(error);
        self.unreadable.get_or_init(|| error.to_string());
        error
    }

    fn failed(&self, doing: &'static str) -> impl FnOnce(DatabaseError) -> StorageError {
        StorageError::database(doing, &self.dir.path)
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        self.db.get(key).map_err(|error| self.not_read(error))
    }

    /// Calls `visit` with the rows of `from..to` until it says no.
    pub fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageError> {
        let scanned = self.db.scan(from, to, visit);
        scanned.map_err(|error| self.not_read(error))
    }

    /// Rows, applied log id and membership in one batch, without a write-ahead log.
    pub fn write(
        &self,
        changes: &Overlay,
        applied: Option<&LogId>,
        membership: &StoredMembership,
    ) -> Result<(), StorageError> {
        let mut batch = self.db.batch();
        for (key, value) in changes {
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
        }
        if let Some(applied) = applied {
            batch.put(KEY_APPLIED, encode_log_id(applied));
        }
        batch.put(KEY_MEMBERSHIP, encode_stored_membership(membership));
        let written = self.db.write(batch, Durability::Unlogged);
        written.map_err(self.failed("write to"))
    }

    /// What the node's own rows say.
    pub fn applied(&self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        let applied = match self.get(&KEY_APPLIED)? {
            Some(row) => Some(decode_log_id(&row).map_err(|error| {
                self.damaged(format!("the applied log id cannot be read: {error}"))
            })?),
            None => None,
        };
        let membership = match self.get(&KEY_MEMBERSHIP)? {
            Some(row) => decode_stored_membership(&row)
                .map_err(|error| self.damaged(format!("the membership cannot be read: {error}")))?,
            None => StoredMembership::default(),
        };
        Ok((applied, membership))
    }

    /// Loads the tables that are held in memory.
    pub fn resident_tables(&self) -> Result<Tables, StorageError> {
        let mut loaded = Tables::default();
        for (tag, _) in tables::REGISTRY
            .iter()
            .filter(|(tag, _)| tables::resident(*tag))
        {
            loaded.add(*tag, self.table(*tag)?);
        }
        Ok(loaded)
    }

    /// The rows come in key order, so the map is built from the front.
    fn table(&self, tag: u8) -> Result<Rows, StorageError> {
        let [high, low] = tables::NAMESPACE.to_be_bytes();
        let mut rows = Vec::new();
        self.scan(
            &[high, low, tag],
            &[high, low, tag + 1],
            &mut |key, value| {
                rows.push((key.to_vec(), Bytes::copy_from_slice(value)));
                true
            },
        )?;
        Ok(rows.into_iter().collect())
    }

    /// Flushes everything and makes a checkpoint at `path`, which must not exist.
    pub fn checkpoint(&self, path: &Path) -> Result<(), StorageError> {
        let made = self.db.checkpoint(path);
        made.map_err(self.failed("make a checkpoint of"))
    }

    /// Writes everything to tables.
    pub fn flush(&self) -> Result<(), StorageError> {
        self.db.flush().map_err(self.failed("flush"))
    }

    /// About how many rows there are.
    pub fn rows_estimated(&self) -> u64 {
        self.db.rows_estimated()
    }

    /// Bytes of tables on disk, and bytes that are not flushed yet.
    pub fn sizes(&self) -> (u64, u64) {
        (self.db.table_bytes(), self.db.unflushed_bytes())
    }
}
