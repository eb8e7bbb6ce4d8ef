//! What a node keeps on disk: its identity, the Raft log, the state, and snapshots.
//!
//! [`DataDir`] opens and locks the directory, [`Storage`] opens the stores in it and checks that
//! they fit each other. What is damaged is refused with the file and the reason, never repaired: a
//! node that lost something it has acknowledged must not vote, and comes back with an empty
//! directory.

use std::any::Any;
use std::sync::Weak;

mod codec;
#[cfg(not(feature = "simulation"))]
mod disk;
#[cfg(feature = "simulation")]
pub mod disk;
mod error;
mod files;
mod guard;
mod log;
mod mark;
pub mod offline;
mod open;
mod receiver;
mod refound;
mod snapshot;
mod state;

pub use codec::{
    decode_entry, decode_log_id, decode_snapshot_meta, decode_stored_membership, decode_vote,
    encode_entry, encode_log_id, encode_snapshot_meta, encode_stored_membership, encode_vote,
    entry_log_id,
};
pub use disk::DatabaseError;
pub use error::StorageError;
pub use log::{LogOptions, LogReader, LogStore};
pub use mark::QuarantineMark;
pub use open::{DataDir, FORMAT_VERSION, Identity};
pub use receiver::{ReceiveError, Receiver};
pub use refound::{Founder, NewCluster};
#[cfg(feature = "simulation")]
pub use snapshot::RECEIVING_PREFIX;
pub use snapshot::{CHUNK_BYTES_MAX, Chunk, FileEntry, Manifest, SnapshotData};
pub use state::{
    AppliedNotices, Checkpoint, NoticeHook, SnapshotBuilder, StateChange, StateOptions,
    StateReader, StateSizes, StateStore, Totals,
};

/// Bounds of the stores' memory.
#[derive(Debug, Clone, Default)]
pub struct StorageOptions {
    /// Of the log.
    pub log: LogOptions,
    /// Of the state.
    pub state: StateOptions,
}

/// The two stores of a node, for Raft.
pub struct Storage {
    /// The log.
    pub log: LogStore,
    /// The state.
    pub state: StateStore,
}

/// Tells whether a part of the stores is still open, in a task that has not ended yet.
pub struct OpenStores {
    handles: [Weak<dyn Any + Send + Sync>; 2],
}

impl OpenStores {
    /// Whether opening the directory again would fail.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.handles.iter().any(|handle| handle.strong_count() > 0)
    }
}

impl Storage {
    /// Follows the stores beyond their use.
    #[must_use]
    pub fn handles(&self) -> OpenStores {
        OpenStores {
            handles: [self.log.handle(), self.state.handle()],
        }
    }

    /// Opens or creates the stores of a directory that has its identity.
    pub fn open(
        dir: &DataDir,
        options: &StorageOptions,
        hook: NoticeHook,
    ) -> Result<Self, StorageError> {
        if dir.identity().is_none() {
            return Err(StorageError::NoIdentity {
                path: dir.path().to_owned(),
            });
        }
        let log = LogStore::open(&dir.log(), &dir.acked(), &options.log)?;
        let state = StateStore::open(dir.path(), &options.state, hook)?;
        let storage = Self { log, state };
        storage.check(dir)?;
        Ok(storage)
    }

    /// What is purged from the log must be in the state, or in the snapshot that Raft will install.
    ///
    /// A snapshot that ends before the log begins is of no use, and another is made. The log begins
    /// behind the state where the state is ahead of it: a follower may apply and write what a
    /// quorum has before its own log is on its disk, and lose the end of that log.
    fn check(&self, dir: &DataDir) -> Result<(), StorageError> {
        if let Some(applied) = self.state.reader().applied()
            && Some(applied) > self.log.last_log_id()
        {
            self.state.discard_snapshot_before(applied);
        }
        let Some(purged) = self.log.purged() else {
            return Ok(());
        };
        self.state.discard_snapshot_before(purged);
        let reader = self.state.reader();
        let snapshot = reader
            .snapshot()
            .and_then(|data| data.manifest().meta.last_log_id);
        let reached = reader.applied().max(snapshot).map_or(0, |id| id.index);
        if reached < purged.index {
            let problem = format!(
                "the state reaches entry {reached}, but the log is purged up to {}",
                purged.index
            );
            return Err(StorageError::damaged(dir.path(), problem));
        }
        Ok(())
    }
}
