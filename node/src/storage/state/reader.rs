//! Reading the state beside Raft: queries, figures, and snapshots for the network.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use quorate_statemachine::digest::Digest;
use quorate_statemachine::tables::{AccessRow, MetaRow, VersionRow};
use quorate_statemachine::{Timestamp, access, version, view};

use super::{Shared, Totals};
use crate::raft::{LogId, StoredMembership};
use crate::storage::error::StorageError;
use crate::storage::log::LogReader;
use crate::storage::receiver::Receiver;
use crate::storage::snapshot::{Manifest, SnapshotData};

/// Reads the state between two entries. Cheap to clone.
#[derive(Clone)]
pub struct StateReader {
    shared: Arc<Shared>,
}

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StateSizes {
    /// Bytes of tables on disk.
    pub disk_bytes: u64,
    /// Bytes that are not in tables yet: in RocksDB's write buffers, or waiting to get there.
    pub buffer_bytes: u64,
    /// Rows of the tables held in memory.
    pub resident_rows: u64,
    /// Bytes of their keys and values.
    pub resident_bytes: u64,
}

/// Keeps the log as it is; see [`StateReader::hold_log`].
pub struct LogHold(Arc<Shared>);

impl Drop for LogHold {
    fn drop(&mut self) {
        self.0.holding_log.fetch_sub(1, Ordering::AcqRel);
    }
}

impl StateReader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Calls `read` with the rows, the last applied index (0 before the first) and cluster time.
    /// Entries wait to be put in place until it returns: keep it short.
    ///
    /// If a row cannot be read, `read` is told so, and the store fails: what else is damaged nobody
    /// knows.
    pub fn read<T>(&self, read: impl FnOnce(&dyn view::View, u64, Timestamp) -> T) -> T {
        let state = self.shared.state();
        let applied = state.applied.map_or(0, |applied| applied.index);
        let told = read(&state.view(), applied, state.meta.now);
        if let Some(problem) = state.database.unreadable() {
            self.shared.behind.fail(problem);
        }
        told
    }

    /// Reads all of a snapshot of this node that another one has refused. If it is damaged so is
    /// the state that it was made of, which fails.
    pub fn check_refused(&self, data: &SnapshotData) {
        let whole = data.check_files().and_then(|()| match data.is_sound() {
            true => Ok(()),
            false => data.check_rows(),
        });
        if let Err(error) = whole {
            tracing::error!(%error, "a snapshot of this node is damaged");
            self.shared.behind.fail(&error.to_string());
        }
    }

    /// The last applied log id.
    #[must_use]
    pub fn applied(&self) -> Option<LogId> {
        self.shared.state().applied
    }

    /// The last applied entry, and the digest of the state there.
    #[cfg(feature = "simulation")]
    #[must_use]
    pub fn reached(&self) -> (u64, Digest) {
        let state = self.shared.state();
        (state.reached(), state.meta.digest)
    }

    /// The last applied membership.
    #[must_use]
    pub fn membership(&self) -> StoredMembership {
        self.shared.state().membership.clone()
    }

    /// Cluster time at the last applied command.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.shared.state().meta.now
    }

    /// Counters and marks at the last applied command: time, digest, cluster id.
    #[must_use]
    pub fn meta(&self) -> MetaRow {
        self.shared.state().meta.clone()
    }

    /// Sums over all queues and all locks.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.shared.state().tables.totals()
    }

    /// The version of the cluster, at the last applied command.
    #[must_use]
    pub fn version(&self) -> VersionRow {
        let state = self.shared.state();
        // It was readable when the state was opened, and only `apply` has written it since.
        version::of(&state.view()).unwrap_or_default()
    }

    /// Whether access is controlled, and cluster time, at the last applied command.
    #[must_use]
    pub fn access(&self) -> (AccessRow, Timestamp) {
        let state = self.shared.state();
        // As with the version; and what cannot be read must not open a door.
        let row = access::of(&state.view()).unwrap_or_else(|_| AccessRow {
            enabled: true,
            ..AccessRow::default()
        });
        (row, state.meta.now)
    }

    /// How an applied entry ended, in a word; none if that is not known any more.
    #[must_use]
    pub fn outcome(&self, index: u64) -> Option<&'static str> {
        self.shared.outcomes().of(index)
    }

    /// The last recorded digests with their log indices, oldest first.
    #[must_use]
    pub fn digests(&self) -> Vec<(u64, Digest)> {
        self.shared.digests().all()
    }

    /// How much there is.
    #[must_use]
    pub fn sizes(&self) -> StateSizes {
        let state = self.shared.state();
        let (disk_bytes, buffer_bytes) = state.database.sizes();
        let (rows, bytes) = state.tables.sizes();
        StateSizes {
            disk_bytes,
            buffer_bytes: buffer_bytes + state.pending.bytes() as u64,
            resident_rows: rows as u64,
            resident_bytes: bytes as u64,
        }
    }

    /// Reads every row and compares with the digest, and memory with the disk. Entries wait
    /// meanwhile, for about a second per million rows.
    pub fn verify(&self) -> Result<Digest, StorageError> {
        let state = self.shared.state();
        let digest = state.stored().digest()?;
        if digest != state.meta.digest {
            let recorded = state.meta.digest;
            let problem = format!("its rows have digest {digest}, its meta row {recorded}");
            return Err(state.database.damaged(problem));
        }
        if !state.stored().agrees_with(&state.tables)? {
            return Err(state
                .database
                .damaged("rows in memory differ from rows on disk"));
        }
        Ok(digest)
    }

    /// Writes all that is applied to disk, so that the next start applies nothing again.
    pub fn flush(&self) -> Result<(), StorageError> {
        self.shared.write_pending()?;
        let database = self.shared.state().database.clone();
        database.flush()
    }

    /// The newest snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Option<SnapshotData> {
        self.shared.snapshots().newest().cloned()
    }

    /// Until what it answers is dropped, no snapshot is made by which the log could be purged.
    #[must_use]
    pub fn hold_log(&self) -> LogHold {
        self.shared.holding_log.fetch_add(1, Ordering::AcqRel);
        LogHold(Arc::clone(&self.shared))
    }

    /// Puts a snapshot of another member, and the entries of the log behind it, in the place of the
    /// state; see [`super::rebuild`]. The snapshot must not be newer than the state. Answers the
    /// last applied index.
    pub fn rebuild(&self, data: &SnapshotData, log: &LogReader) -> Result<u64, StorageError> {
        self.shared.rebuild(data, log)
    }

    /// Starts or goes on receiving a snapshot; what comes out is for Raft to install.
    pub fn receiver(&self, manifest: Manifest) -> Result<Receiver, StorageError> {
        let dir = self.shared.snapshots().dir().to_owned();
        Receiver::new(&dir, manifest)
    }
}
