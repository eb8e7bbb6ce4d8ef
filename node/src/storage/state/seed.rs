//! A state that no log has made: rows of another cluster's, for the first member of a new one.

use std::path::Path;

use bytes::Bytes;
use quorate_statemachine::codec;
use quorate_statemachine::tables::{self, MetaRow, Table};

use super::current::write_current;
use super::database::Database;
use super::offline::Replay;
use super::view::Overlay;
use super::{StateOptions, decode_meta};
use crate::raft::{LogId, StoredMembership};
use crate::storage::error::StorageError;
use crate::storage::offline::Stopped;
use crate::storage::open;

/// Rows that are written together.
const BATCH_BYTES: usize = 4 << 20;

/// The first state of a directory, while it is made.
pub struct Seed {
    database: Database,
    batch: Overlay,
    batch_bytes: usize,
}

impl Seed {
    /// An empty state in the directory `dir`, which has none.
    pub fn create(dir: &Path) -> Result<Self, StorageError> {
        write_current(dir, 1)?;
        Self::open(dir)
    }

    fn open(dir: &Path) -> Result<Self, StorageError> {
        let database = Database::open(&open::state_of(dir, 1), &StateOptions::default())?;
        Ok(Self {
            database,
            batch: Overlay::default(),
            batch_bytes: 0,
        })
    }

    /// All that a stopped member has: its newest rows, and all of its log behind them applied.
    /// Tells `progress` how many rows and entries are done.
    pub fn of_member(
        dir: &Path,
        member: &Stopped,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, StorageError> {
        let (rows, facts) = member.newest_rows()?;
        let mut seed = Self::create(dir)?;
        let (mut done, mut entries) = (0, 0);
        rows.visit(|key, value| {
            done += 1;
            progress(done, 0);
            seed.row(key, value)
        })?;
        seed.write(facts.applied.as_ref(), &facts.membership)?;
        // Closed: the replay opens it anew.
        drop(seed);
        let mut replay = Replay::begin(dir, None)?;
        member.entries_behind(facts.applied, &mut |entry| {
            entries += 1;
            progress(done, entries);
            replay.apply(&entry)
        })?;
        replay.finish()?;
        Self::open(dir)
    }

    /// Adds a row.
    pub fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        self.batch_bytes += key.len() + value.len();
        let value = Bytes::copy_from_slice(value);
        self.batch.insert(key.to_vec(), Some(value));
        if self.batch_bytes >= BATCH_BYTES {
            self.batch_bytes = 0;
            let batch = std::mem::take(&mut self.batch);
            self.database
                .write(&batch, None, &StoredMembership::default())?;
        }
        Ok(())
    }

    /// Counters and marks as they are.
    pub fn meta(&self) -> Result<MetaRow, StorageError> {
        let key = tables::meta_key();
        let row = match self.batch.get(key.bytes()) {
            Some(row) => row.clone(),
            None => self.database.get(key.bytes())?,
        };
        let row = row.unwrap_or_default();
        decode_meta(&row).map_err(|error| self.database.damaged(error))
    }

    /// Writes the rest durably: the meta row, and what the state covers from here on.
    pub fn finish(
        mut self,
        meta: &MetaRow,
        applied: LogId,
        membership: &StoredMembership,
    ) -> Result<(), StorageError> {
        let row = codec::encode(tables::Meta::TAG.into(), meta);
        let key = tables::meta_key().bytes().to_vec();
        self.batch.insert(key, Some(row.into()));
        self.write(Some(&applied), membership)
    }

    fn write(
        &mut self,
        applied: Option<&LogId>,
        membership: &StoredMembership,
    ) -> Result<(), StorageError> {
        self.database.write(&self.batch, applied, membership)?;
        self.database.flush()
    }
}
