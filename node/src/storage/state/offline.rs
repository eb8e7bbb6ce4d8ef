//! The state of a stopped node, read without changing it, and built again beside it.

use std::collections::BTreeMap;
use std::path::Path;

use quorate_statemachine::digest::Digest;
use quorate_statemachine::tables::{self, MetaRow, VersionRow};
use quorate_statemachine::version;

use super::current::read_current;
use super::database::{Database, KEYS_END};
use super::{State, StateOptions, Told, decode_meta};
use crate::raft::{Entry, LogId, StoredMembership};
use crate::storage::error::StorageError;
use crate::storage::snapshot::SnapshotData;
use crate::storage::{files, open};

/// What one state holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateFacts {
    /// The last applied entry.
    pub applied: Option<LogId>,
    /// The membership then.
    pub membership: StoredMembership,
    /// Time, counters and digest.
    pub meta: MetaRow,
    /// The cluster's version.
    pub version: VersionRow,
    /// The digest of the rows as they are.
    pub digest: Digest,
    /// Rows by table; tables without rows are not named.
    pub rows: BTreeMap<&'static str, u64>,
}

/// The rows of a state or a snapshot, opened to be read.
pub struct Rows(Database);

impl Rows {
    /// Those of the state under the data directory `dir`; `None` if it has none yet.
    pub fn of_directory(dir: &Path) -> Result<Option<Self>, StorageError> {
        let Some(number) = read_current(dir)? else {
            return Ok(None);
        };
        let path = open::state_of(dir, number);
        if !files::exists(&path) {
            return Ok(None);
        }
        Database::open_checkpoint(&path).map(Self).map(Some)
    }

    /// Those of a snapshot.
    pub fn of_snapshot(data: &SnapshotData) -> Result<Self, StorageError> {
        Database::open_checkpoint(data.path()).map(Self)
    }

    /// The last entry that they cover.
    pub fn applied(&self) -> Result<Option<LogId>, StorageError> {
        Ok(self.0.applied()?.0)
    }

    /// Calls `visit` with all of them, in the order of their keys, until it fails.
    pub fn visit(
        &self,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let mut visited = Ok(());
        self.0.scan(&[], &KEYS_END, &mut |key, value| {
            visited = visit(key, value);
            visited.is_ok()
        })?;
        visited
    }

    /// Reads all of them.
    pub fn facts(&self) -> Result<StateFacts, StorageError> {
        let database = &self.0;
        let (applied, membership) = database.applied()?;
        let names: BTreeMap<u8, &'static str> = tables::REGISTRY.iter().copied().collect();
        let meta_key = tables::meta_key();
        let version_key = version::version_key();
        let (mut meta, mut version_row, mut unknown) = (None, None, None);
        let (mut digest, mut rows) = (Digest::default(), BTreeMap::new());
        database.scan(&[], &KEYS_END, &mut |key, value| {
            match tables::tag_of(key).and_then(|tag| names.get(&tag)) {
                Some(name) => *rows.entry(*name).or_insert(0) += 1,
                None => unknown = Some(key.to_vec()),
            }
            if key == meta_key.bytes() {
                meta = Some(value.to_vec());
            } else {
                digest.replace(key, None, Some(value));
            }
            if key == version_key.bytes() {
                version_row = Some(value.to_vec());
            }
            true
        })?;
        if let Some(key) = unknown {
            let key = key.escape_ascii();
            return Err(database.damaged(format!("row {key} is of no table that this build knows")));
        }
        let meta = match meta {
            Some(row) => decode_meta(&row).map_err(|problem| database.damaged(problem))?,
            None => MetaRow::default(),
        };
        let version = match version_row {
            Some(row) => decode_version(&row).map_err(|problem| database.damaged(problem))?,
            None => VersionRow::default(),
        };
        Ok(StateFacts {
            applied,
            membership,
            meta,
            version,
            digest,
            rows,
        })
    }
}

impl StateFacts {
    /// Whether the rows are those that the digest was written for.
    pub fn check(&self, path: &Path) -> Result<(), StorageError> {
        if self.digest == self.meta.digest {
            return Ok(());
        }
        let (rows, recorded) = (self.digest, self.meta.digest);
        let problem = format!("its rows have digest {rows}, its meta row {recorded}");
        Err(StorageError::damaged(path, problem))
    }
}

fn decode_version(row: &[u8]) -> Result<VersionRow, String> {
    let tag = <tables::ClusterVersion as tables::Table>::TAG.into();
    quorate_statemachine::codec::decode(tag, row)
        .map_err(|error| format!("the version row cannot be read: {error}"))
}

/// A state that is built from a snapshot, or from nothing, entry by entry.
pub struct Replay {
    state: State,
    options: StateOptions,
}

impl Replay {
    /// Begins with a copy of `snapshot` in the empty directory `scratch`; without one, empty.
    pub fn begin(scratch: &Path, snapshot: Option<&SnapshotData>) -> Result<Self, StorageError> {
        let path = open::state_of(scratch, 1);
        if let Some(snapshot) = snapshot {
            snapshot.link_to(&path)?;
        }
        let options = StateOptions::default();
        let state = State::load(scratch, 1, &options)?;
        Ok(Self { state, options })
    }

    /// The last entry that was applied.
    pub fn applied(&self) -> u64 {
        self.state.applied.map_or(0, |id| id.index)
    }

    /// Applies the next entry.
    pub fn apply(&mut self, entry: &Entry) -> Result<(), StorageError> {
        // Nobody waits for what it tells.
        let mut told = Told::default();
        self.state
            .replay(entry, self.options.pending_bytes, &mut told)
    }

    /// Writes what waits, durably.
    pub fn finish(mut self) -> Result<(), StorageError> {
        self.state.write_all()?;
        self.state.database.flush()
    }

    /// The digest of the rows.
    pub fn digest(&self) -> Result<Digest, StorageError> {
        self.state.stored().digest()
    }
}
