//! The state of one moment, to be read from end to end while entries go on.

use quorate_statemachine::tables::{self, MetaRow};

use super::database::{Database, KEYS_END};
use super::{StateReader, decode_meta, files};
use crate::raft::SnapshotMeta;
use crate::storage::error::StorageError;

/// A checkpoint that nobody else uses; its files go with it.
pub struct Checkpoint {
    database: Database,
    covers: SnapshotMeta,
    meta: MetaRow,
}

impl StateReader {
    /// Makes a checkpoint of what is applied. Blocks on the disk; links, so it takes little space.
    pub fn checkpoint(&self) -> Result<Checkpoint, StorageError> {
        let shared = self.shared();
        let path = shared.snapshots().fresh_path();
        files::remove_dir(&path)?;
        shared.write_pending()?;
        let database = shared.state().database.clone();
        database.checkpoint(&path)?;
        drop(database);
        Checkpoint::open(&path)
    }
}

impl Checkpoint {
    fn open(path: &std::path::Path) -> Result<Self, StorageError> {
        let database = Database::open_checkpoint(path)?;
        database.doom();
        let (last_log_id, last_membership) = database.applied()?;
        let meta = match database.get(tables::meta_key().bytes())? {
            Some(row) => decode_meta(&row).map_err(|error| database.damaged(error))?,
            None => return Err(database.damaged("no command was applied yet: it has no meta row")),
        };
        Ok(Self {
            database,
            covers: SnapshotMeta {
                last_log_id,
                last_membership,
            },
            meta,
        })
    }

    /// The last entry that it covers, and the members.
    #[must_use]
    pub fn covers(&self) -> &SnapshotMeta {
        &self.covers
    }

    /// Counters and marks.
    #[must_use]
    pub fn meta(&self) -> &MetaRow {
        &self.meta
    }

    /// About how many rows there are.
    #[must_use]
    pub fn rows_estimated(&self) -> u64 {
        self.database.rows_estimated()
    }

    /// Calls `visit` with all rows of the state machine, in the order of their keys, until it says
    /// no.
    pub fn scan(&self, visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), StorageError> {
        self.database.scan(&[], &KEYS_END, visit)
    }
}
