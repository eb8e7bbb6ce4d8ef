//! The state made anew from another member's snapshot and this node's own log, while Raft goes on.
//!
//! Log and vote stay as they are: whatever this node has acknowledged is in them. Raft does not
//! notice: before and after, the state is that of the same entry.

use std::sync::PoisonError;

use super::current::write_current;
use super::snapshots::check_installed;
use super::{Digests, Shared, State, Told};
use crate::raft::Entry;
use crate::storage::error::StorageError;
use crate::storage::log::LogReader;
use crate::storage::snapshot::SnapshotData;
use crate::storage::{files, open};

/// The last entries are applied while nothing else can be, so there should be few.
const LAST_ENTRIES_MAX: u64 = 512;

/// Entries read at a time.
const STEP_ENTRIES: u64 = 1_024;

impl Shared {
    /// Puts `snapshot`, and the entries behind it up to the last one that is applied, in the place
    /// of the state. Answers which entry that is. This node's snapshots were made of the old state,
    /// so a new one takes their place too.
    ///
    /// All is made beside the present state; one rename switches over. A crash before it leaves the
    /// old state, a crash behind it the new one and perhaps an old snapshot: whoever called it has
    /// noted durably that it must be called again.
    pub(super) fn rebuild(
        &self,
        snapshot: &SnapshotData,
        log: &LogReader,
    ) -> Result<u64, StorageError> {
        let replacing = self
            .replacing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let number = self.state().number + 1;
        let path = open::state_of(&self.dir, number);
        snapshot.link_to(&path)?;
        let mut digests = Digests::default();
        let built = State::load(&self.dir, number, &self.options)
            .and_then(|state| check_installed(state, snapshot))
            .and_then(|state| self.catch_up(state, log, &mut digests));
        let state = match built {
            Ok(state) => state,
            Err(error) => {
                files::remove_dir(&path)?;
                return Err(error);
            }
        };
        // It stays on disk from here on: `current` may name it, also if that fails.
        let applied = self.switch(state, log, digests)?;
        drop(replacing);
        self.build_snapshot()?;
        Ok(applied)
    }

    /// Applies what this node has applied, but for the last few entries.
    fn catch_up(
        &self,
        mut state: State,
        log: &LogReader,
        digests: &mut Digests,
    ) -> Result<State, StorageError> {
        let pending_bytes = self.options.pending_bytes;
        loop {
            let wanted = self.state().reached();
            state.replay_from(log, wanted, pending_bytes, digests)?;
            if self.state().reached() <= wanted + LAST_ENTRIES_MAX {
                break;
            }
        }
        state.write_all()?;
        state.database.flush()?;
        Ok(state)
    }

    /// Applies the last entries while nothing else is applied, and switches over.
    fn switch(
        &self,
        mut state: State,
        log: &LogReader,
        mut digests: Digests,
    ) -> Result<u64, StorageError> {
        // In this order wherever both are held.
        let mut snapshots = self.snapshots();
        let mut present = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let wanted = present.reached();
        state.replay_from(log, wanted, self.options.pending_bytes, &mut digests)?;
        if state.applied != present.applied {
            let found = state.reached();
            let problem = format!("with the log it leads to entry {found}, not to {wanted}");
            return Err(state.database.damaged(problem));
        }
        // What is on disk must reach as far as the log may be purged.
        state.write_all()?;
        state.database.flush()?;
        if let Err(error) = write_current(&self.dir, state.number) {
            // Which of the two states the next start finds is unknown, so this one must not go on.
            self.behind.fail(&error.to_string());
            return Err(error);
        }
        self.take_place(&mut present, state, digests);
        drop(present);
        snapshots.remove_newest()?;
        Ok(wanted)
    }
}

impl State {
    /// Applies the entries of the log behind this state up to `to`.
    fn replay_from(
        &mut self,
        log: &LogReader,
        to: u64,
        pending_bytes: usize,
        digests: &mut Digests,
    ) -> Result<(), StorageError> {
        loop {
            let next = self.reached() + 1;
            if next > to {
                return Ok(());
            }
            let upper = (to + 1).min(next + STEP_ENTRIES);
            let step = log.read_some(next, upper);
            let entries = step.map_err(|error| self.database.damaged(error.to_string()))?;
            match entries.first() {
                Some(first) if first.log_id.index == next => {}
                _ => {
                    let problem = format!("the log no longer has entry {next}, which follows it");
                    return Err(self.database.damaged(problem));
                }
            }
            let mut told = Told::default();
            for entry in &entries {
                self.replay(entry, pending_bytes, &mut told)?;
            }
            digests.record(&told.notices);
        }
    }

    /// Applies an entry for which nobody waits.
    pub(super) fn replay(
        &mut self,
        entry: &Entry,
        pending_bytes: usize,
        told: &mut Told,
    ) -> Result<(), StorageError> {
        let index = entry.log_id.index;
        let applied = self.apply(&entry.log_id, &entry.payload, told);
        applied.map_err(|error| self.database.damaged(format!("log entry {index}: {error}")))?;
        self.applied = Some(entry.log_id);
        if self.pending.bytes() > pending_bytes {
            self.write_all()?;
        }
        Ok(())
    }

    /// Writes the rows that wait. Only for a state that nobody else sees yet.
    pub(super) fn write_all(&mut self) -> Result<(), StorageError> {
        let rows = self.pending.begin();
        self.database
            .write(&rows, self.applied.as_ref(), &self.membership)?;
        self.pending.finish(&rows);
        Ok(())
    }
}
