//! Snapshots of the state: made of it, and put in its place.

use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use openraft::RaftSnapshotBuilder;

use super::current::write_current;
use super::database::Database;
use super::digests::Digests;
use super::outcomes::Outcomes;
use super::{Shared, State};
use crate::blocking::blocking;
use crate::raft::{Snapshot, SnapshotMeta, TypeConfig};
use crate::storage::error::StorageError;
use crate::storage::snapshot::{Manifest, SnapshotData};
use crate::storage::{files, open};

/// Makes a snapshot while the state goes on.
pub struct SnapshotBuilder {
    pub(super) shared: Arc<Shared>,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let shared = self.shared.clone();
        let began = Instant::now();
        let built = blocking(move || shared.build_snapshot()).await;
        let snapshot = as_raft(built.map_err(io::Error::other)??);
        let took = began.elapsed().as_secs_f64();
        self.shared.options.meters.snapshot_build.observe(took);
        Ok(snapshot)
    }
}

pub(super) fn as_raft(data: SnapshotData) -> Snapshot {
    Snapshot {
        meta: data.manifest().meta.clone(),
        snapshot: data,
    }
}

impl Shared {
    /// Checkpoint first, then everything else from the checkpoint itself: what it holds is what it
    /// covers, whatever is applied meanwhile.
    ///
    /// If another state takes the place of this one meanwhile, it is made again of that one.
    pub(super) fn build_snapshot(&self) -> Result<SnapshotData, StorageError> {
        loop {
            let making = self.snapshots().fresh_path();
            files::remove_dir(&making)?;
            self.write_pending()?;
            let (number, database) = {
                let state = self.state();
                (state.number, state.database.clone())
            };
            database.checkpoint(&making)?;
            drop(database);
            let (last_log_id, last_membership) = Database::open_checkpoint(&making)?.applied()?;
            let meta = SnapshotMeta {
                last_log_id,
                last_membership,
            };
            let manifest = Manifest::of_checkpoint(&making, meta)?;
            let mut snapshots = self.snapshots();
            if self.state().number == number {
                return snapshots.publish(&making, manifest);
            }
            drop(snapshots);
            files::remove_dir(&making)?;
        }
    }

    /// Everything is made beside the present state and verified; then one rename switches over.
    ///
    /// The snapshot takes its place first: if the process dies before the switch, Raft finds it
    /// newer than the state and installs it again.
    pub(super) fn install(
        &self,
        meta: &SnapshotMeta,
        data: &SnapshotData,
    ) -> Result<(), StorageError> {
        if data.manifest().meta != *meta {
            let problem = "it covers something else than was announced";
            return Err(StorageError::damaged(data.path(), problem));
        }
        let _replacing = self
            .replacing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let number = self.state().number + 1;
        let path = open::state_of(&self.dir, number);
        data.link_to(&path)?;
        let state = State::load(&self.dir, number, &self.options)
            .and_then(|state| check_installed(state, data));
        let state = match state {
            Ok(state) => state,
            Err(error) => {
                files::remove_dir(&path)?;
                return Err(error);
            }
        };
        self.keep_snapshot(data)?;
        write_current(&self.dir, number)?;
        let mut present = self.state.write().unwrap_or_else(PoisonError::into_inner);
        self.take_place(&mut present, state, Digests::default());
        Ok(())
    }

    /// Another state takes the place of the present one: what is known of that goes with it.
    pub(super) fn take_place(&self, present: &mut State, state: State, digests: Digests) {
        present.database.doom();
        *self.outcomes() = Outcomes::new(state.reached());
        *self.digests() = digests;
        *present = state;
    }

    fn keep_snapshot(&self, data: &SnapshotData) -> Result<(), StorageError> {
        let mut snapshots = self.snapshots();
        if snapshots
            .newest()
            .is_some_and(|newest| newest.path() == data.path())
        {
            return Ok(());
        }
        let making = snapshots.fresh_path();
        data.link_to(&making)?;
        snapshots.publish(&making, data.manifest().clone())?;
        Ok(())
    }
}

/// A snapshot must hold what its manifest says, and its rows what its digest says. All rows of one
/// that was received were read before.
pub(super) fn check_installed(
    state: State,
    snapshot: &SnapshotData,
) -> Result<State, StorageError> {
    let meta = &snapshot.manifest().meta;
    if state.applied != meta.last_log_id || state.membership != meta.last_membership {
        return Err(state
            .database
            .damaged("it covers something else than its manifest says"));
    }
    if snapshot.is_sound() {
        return Ok(state);
    }
    let digest = state.stored().digest()?;
    if digest != state.meta.digest {
        let problem = format!(
            "its rows have digest {digest}, its meta row {}",
            state.meta.digest
        );
        return Err(state.database.damaged(problem));
    }
    Ok(state)
}
