//! What the stores ask of a disk: files, and rows under ordered keys.
//!
//! Nothing else under [`storage`](super) names RocksDB or `std::fs`. Below are the machine's own
//! disk, and with the feature `simulation` a second one ([`simulated`]): it lives in memory, loses
//! at a crash what was not synced, and does so by its seed alone. Which of the two a file or a
//! database is on is told by its path, so that the stores above are one code.
//!
//! Without the feature there is one kind of each, and what is here compiles to calls of it.

use std::path::Path;

use bytes::Bytes;
use thiserror::Error;

#[cfg(feature = "simulation")]
pub mod fs;
#[cfg(feature = "rocksdb")]
mod rocks;
#[cfg(feature = "simulation")]
pub mod simulated;

/// Files, as the standard library has them.
#[cfg(not(feature = "simulation"))]
pub mod fs {
    pub use std::fs::*;
    pub use std::os::unix::fs::FileExt;
}

/// Why a database could not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct DatabaseError {
    /// What it says.
    pub message: String,
    /// Whether what is on the disk is not what was written.
    pub damaged: bool,
}

/// How a database is used.
#[derive(Debug, Clone, Copy)]
pub enum Tuning {
    /// Rows written in the order of their keys, always with a write-ahead log.
    Log {
        /// Also the size of a write-ahead log.
        write_buffer_bytes: usize,
    },
    /// Rows read and written in any order, never with a write-ahead log.
    State {
        write_buffer_bytes: usize,
        block_cache_bytes: usize,
    },
}

/// What of a batch outlives a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// All of it, once `write` has answered.
    Synced,
    /// It goes to the write-ahead log: it outlives the process, and a power cut if a synced batch
    /// comes behind it.
    Logged,
    /// It is not in the write-ahead log, so only a flush keeps it.
    Unlogged,
}

/// A row, as an iterator gives it.
pub type Row = (Box<[u8]>, Box<[u8]>);

/// An ordered map on a disk.
pub enum KeyValue {
    /// On the machine's disk.
    #[cfg(feature = "rocksdb")]
    RocksDb(rocks::KeyValue),
    /// On a simulated one.
    #[cfg(feature = "simulation")]
    Simulated(simulated::KeyValue),
}

/// Changes that are made together or not at all.
pub enum Batch {
    #[cfg(feature = "rocksdb")]
    RocksDb(rocksdb::WriteBatch),
    #[cfg(feature = "simulation")]
    Simulated(simulated::Batch),
}

/// Rows as they were when it was made, whatever is written meanwhile.
pub enum Rows<'a> {
    #[cfg(feature = "rocksdb")]
    RocksDb(rocks::Rows<'a>),
    #[cfg(feature = "simulation")]
    Simulated(simulated::Rows, std::marker::PhantomData<&'a ()>),
}

/// Does the same with whichever kind it is.
macro_rules! either {
    ($of:ident, $inner:ident => $call:expr) => {
        match $of {
            #[cfg(feature = "rocksdb")]
            Self::RocksDb($inner) => $call,
            #[cfg(feature = "simulation")]
            Self::Simulated($inner, ..) => $call,
        }
    };
}

impl KeyValue {
    /// Opens or creates it.
    pub fn open(path: &Path, tuning: Tuning) -> Result<Self, DatabaseError> {
        #[cfg(feature = "simulation")]
        if let Some(disk) = simulated::disk_of(path) {
            return simulated::KeyValue::open(disk, path, tuning).map(Self::Simulated);
        }
        machine::open(path, tuning)
    }

    /// Opens one that is there, and never changes it.
    pub fn open_read_only(path: &Path) -> Result<Self, DatabaseError> {
        #[cfg(feature = "simulation")]
        if let Some(disk) = simulated::disk_of(path) {
            return simulated::KeyValue::open_read_only(disk, path).map(Self::Simulated);
        }
        machine::open_read_only(path)
    }

    /// The value under `key`.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, DatabaseError> {
        either!(self, db => db.get(key))
    }

    /// Rows of `from..to`, or all from `from` on. `readahead_bytes` is 0 unless much is read.
    pub fn rows(&self, from: &[u8], to: Option<&[u8]>, readahead_bytes: usize) -> Rows<'_> {
        match self {
            #[cfg(feature = "rocksdb")]
            Self::RocksDb(db) => Rows::RocksDb(db.rows(from, to, readahead_bytes)),
            #[cfg(feature = "simulation")]
            Self::Simulated(db) => {
                // It is in memory already.
                let _ = readahead_bytes;
                Rows::Simulated(db.rows(from, to), std::marker::PhantomData)
            }
        }
    }

    /// Calls `visit` with the rows of `from..to` until it says no.
    pub fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), DatabaseError> {
        either!(self, db => db.scan(from, to, visit))
    }

    /// An empty batch for [`Self::write`].
    pub fn batch(&self) -> Batch {
        match self {
            #[cfg(feature = "rocksdb")]
            Self::RocksDb(_) => Batch::RocksDb(rocksdb::WriteBatch::default()),
            #[cfg(feature = "simulation")]
            Self::Simulated(_) => Batch::Simulated(simulated::Batch::default()),
        }
    }

    /// Makes all changes of a batch. After an error it is unknown which are on the disk.
    pub fn write(&self, batch: Batch, durability: Durability) -> Result<(), DatabaseError> {
        match (self, batch) {
            #[cfg(feature = "rocksdb")]
            (Self::RocksDb(db), Batch::RocksDb(batch)) => db.write(batch, durability),
            #[cfg(feature = "simulation")]
            (Self::Simulated(db), Batch::Simulated(batch)) => db.write(batch, durability),
            #[cfg(all(feature = "rocksdb", feature = "simulation"))]
            _ => unreachable!("a batch is of the database that made it"),
        }
    }

    /// Writes everything to tables, durably.
    pub fn flush(&self) -> Result<(), DatabaseError> {
        either!(self, db => db.flush())
    }

    /// Flushes everything and makes a copy at `path`, which must not exist.
    pub fn checkpoint(&self, path: &Path) -> Result<(), DatabaseError> {
        either!(self, db => db.checkpoint(path))
    }

    /// Drops whole files of deleted rows of `from..to` at once; what cannot go so stays deleted.
    pub fn drop_files(&self, from: &[u8], to: &[u8]) -> Result<(), DatabaseError> {
        match self {
            #[cfg(feature = "rocksdb")]
            Self::RocksDb(db) => db.drop_files(from, to),
            // It has one table, which a flush writes anew.
            #[cfg(feature = "simulation")]
            Self::Simulated(_) => {
                let _ = (from, to);
                Ok(())
            }
        }
    }

    /// About how many rows there are.
    pub fn rows_estimated(&self) -> u64 {
        either!(self, db => db.rows_estimated())
    }

    /// Bytes of tables on disk.
    pub fn table_bytes(&self) -> u64 {
        either!(self, db => db.table_bytes())
    }

    /// Bytes that are not in tables yet.
    pub fn unflushed_bytes(&self) -> u64 {
        either!(self, db => db.unflushed_bytes())
    }
}

impl Batch {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        either!(self, batch => batch.is_empty())
    }

    /// Puts a row.
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        either!(self, batch => batch.put(key, value));
    }

    /// Deletes a row.
    pub fn delete(&mut self, key: impl AsRef<[u8]>) {
        either!(self, batch => batch.delete(key));
    }

    /// Deletes the rows of `from..to`.
    pub fn delete_range(&mut self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) {
        either!(self, batch => batch.delete_range(from.as_ref(), to.as_ref()));
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<Row, DatabaseError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            #[cfg(feature = "rocksdb")]
            Self::RocksDb(rows) => rows.next().map(|row| row.map_err(DatabaseError::from)),
            #[cfg(feature = "simulation")]
            Self::Simulated(rows, _) => rows.next().map(Ok),
        }
    }
}

/// A database on the machine's own disk.
#[cfg(feature = "rocksdb")]
mod machine {
    use super::{DatabaseError, KeyValue, Path, Tuning, rocks};

    pub fn open(path: &Path, tuning: Tuning) -> Result<KeyValue, DatabaseError> {
        rocks::KeyValue::open(path, tuning).map(KeyValue::RocksDb)
    }

    pub fn open_read_only(path: &Path) -> Result<KeyValue, DatabaseError> {
        rocks::KeyValue::open_read_only(path).map(KeyValue::RocksDb)
    }
}

/// A simulation may be built without RocksDB; then there are only simulated disks.
#[cfg(not(feature = "rocksdb"))]
mod machine {
    use super::{DatabaseError, KeyValue, Path, Tuning};

    pub fn open(path: &Path, _tuning: Tuning) -> Result<KeyValue, DatabaseError> {
        open_read_only(path)
    }

    pub fn open_read_only(path: &Path) -> Result<KeyValue, DatabaseError> {
        Err(DatabaseError {
            message: format!("{} is on no simulated disk", path.display()),
            damaged: false,
        })
    }
}

#[cfg(not(any(feature = "rocksdb", feature = "simulation")))]
compile_error!("a node needs a disk: the feature \"rocksdb\", or for tests \"simulation\"");
