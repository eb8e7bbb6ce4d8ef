//! Looking into the directory of a stopped node: what it holds, whether it is whole, and whether
//! its log leads to its state.
//!
//! Nothing in the directory changes, but for its lock file and the scratch directory of a replay.

use std::path::{Path, PathBuf};

use openraft::EntryPayload;
use quorate_statemachine::Timestamp;
use quorate_statemachine::digest::Digest;

use super::error::StorageError;
use super::files;
use super::log::offline::OfflineLog;
use super::open::{DataDir, FORMAT_VERSION, Identity};
use super::snapshot::{self, SnapshotData};
pub use super::state::offline::StateFacts;
use super::state::offline::{Replay, Rows};
use crate::raft::{Entry, LogId, StoredMembership, Vote, log_id};

const SCRATCH: &str = "replay.tmp";

/// The directory of a stopped node, locked.
pub struct Stopped {
    dir: DataDir,
    identity: Identity,
}

/// What a log holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFacts {
    /// Up to which entry it is purged.
    pub purged: Option<LogId>,
    /// Its last entry.
    pub last: Option<LogId>,
    /// The last entry that was written down as committed; more may be.
    pub committed: Option<LogId>,
    /// The vote.
    pub vote: Option<Vote>,
    /// Index behind the last entry that was acknowledged.
    pub acknowledged_end: u64,
}

/// A snapshot, by its manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFacts {
    /// Where it is.
    pub path: PathBuf,
    /// The last entry that it covers.
    pub last: Option<LogId>,
    /// Bytes of its files.
    pub bytes: u64,
}

/// What a replay has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// The last entry in what it began with; 0 for nothing.
    pub from: u64,
    /// The last entry that it applied: the last that the state has.
    pub to: u64,
    /// Digest of the state at `to`.
    pub expected: Digest,
    /// Digest of what the log leads to.
    pub found: Digest,
}

/// How far a stopped member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The last entry that it has.
    pub last: LogId,
    /// The last entry of which it knows that a quorum had it; more may be.
    pub committed: LogId,
    /// Cluster time at its last entry.
    pub last_time: Timestamp,
    /// The members, as of its last entry.
    pub membership: StoredMembership,
}

impl Stopped {
    /// Opens the directory of a stopped node. One that runs is refused.
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        let (dir, identity) = DataDir::open_existing(path)?;
        Ok(Self { dir, identity })
    }

    /// Whose it is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Why its state is not to be trusted; `None` if it is.
    pub fn quarantine(&self) -> Result<Option<String>, StorageError> {
        self.dir.quarantine().read()
    }

    /// The directory's format version.
    #[must_use]
    pub fn format(&self) -> u8 {
        FORMAT_VERSION
    }

    /// Reads and verifies the log.
    pub fn log(&self) -> Result<LogFacts, StorageError> {
        let log = self.open_log()?;
        Ok(LogFacts {
            purged: log.purged(),
            last: log.last(),
            committed: log.committed(),
            vote: log.vote(),
            acknowledged_end: log.acknowledged_end(),
        })
    }

    /// Reads all of the state; `None` if there is none yet.
    pub fn state(&self) -> Result<Option<StateFacts>, StorageError> {
        let rows = Rows::of_directory(self.dir.path())?;
        rows.map(|rows| rows.facts()).transpose()
    }

    /// Reads all of the state and compares it with its digest.
    pub fn verify_state(&self) -> Result<(), StorageError> {
        match self.state()? {
            Some(facts) => facts.check(self.dir.path()),
            None => Ok(()),
        }
    }

    /// The snapshots, oldest first.
    pub fn snapshots(&self) -> Result<Vec<SnapshotFacts>, StorageError> {
        let facts = |data: &SnapshotData| SnapshotFacts {
            path: data.path().to_owned(),
            last: data.manifest().meta.last_log_id,
            bytes: data.manifest().total_bytes(),
        };
        Ok(self.list()?.iter().map(facts).collect())
    }

    /// Reads every file of every snapshot, and its rows.
    pub fn verify_snapshots(&self) -> Result<(), StorageError> {
        snapshot::check_all_whole(&self.dir.snapshots())?;
        for data in self.list()? {
            data.check_files()?;
            data.check_rows()?;
        }
        Ok(())
    }

    /// Whether log, state and snapshots reach each other: what is purged is in a state or snapshot.
    pub fn verify_reach(&self) -> Result<(), StorageError> {
        let purged = self.open_log()?.purged().map_or(0, |id| id.index);
        let applied = self.state()?.and_then(|facts| facts.applied);
        let newest = self.list()?.pop();
        let covered = newest.and_then(|data| data.manifest().meta.last_log_id);
        let reached = applied.max(covered).map_or(0, |id| id.index);
        if reached >= purged {
            return Ok(());
        }
        let problem =
            format!("the state reaches entry {reached}, but the log is purged up to {purged}");
        Err(StorageError::damaged(self.dir.path(), problem))
    }

    /// Applies the log again, from the newest snapshot that the state is not older than, and
    /// compares the digests at the last entry that the state has.
    pub fn replay(&self) -> Result<Replayed, StorageError> {
        let log = self.open_log()?;
        let Some(state) = self.state()? else {
            let problem = "there is no state to compare with";
            return Err(StorageError::damaged(self.dir.path(), problem));
        };
        let to = state.applied.map_or(0, |id| id.index);
        let covers =
            |data: &SnapshotData| data.manifest().meta.last_log_id.map_or(0, |id| id.index);
        let snapshot = self
            .list()?
            .into_iter()
            .rev()
            .find(|data| covers(data) <= to);
        let from = snapshot.as_ref().map_or(0, covers);
        let purged = log.purged().map_or(0, |id| id.index);
        if purged > from {
            let problem = format!(
                "the log is purged up to entry {purged} and there is no snapshot of it or a later \
                 one up to {to}: nothing to begin with"
            );
            return Err(StorageError::damaged(self.dir.path(), problem));
        }
        let scratch = self.dir.path().join(SCRATCH);
        files::remove_dir(&scratch)?;
        files::create_dir(&scratch)?;
        let found = replay_in(&scratch, snapshot.as_ref(), &log, to);
        files::remove_dir(&scratch)?;
        Ok(Replayed {
            from,
            to,
            expected: state.digest,
            found: found?,
        })
    }

    /// Reads and verifies all that this member has, and says how far that is.
    pub fn standing(&self) -> Result<Standing, StorageError> {
        let log = self.open_log()?;
        let (_, facts) = self.newest_rows()?;
        let applied = facts.applied.unwrap_or_else(|| log_id(0, 0));
        let mut standing = Standing {
            last: applied,
            committed: applied.max(log.committed().unwrap_or(applied)),
            last_time: facts.meta.now,
            membership: facts.membership,
        };
        let last = log.last().unwrap_or(applied).index;
        log.entries(applied.index, last, &mut |entry| {
            standing.last = entry.log_id;
            match entry.payload {
                EntryPayload::Normal(proposal) => {
                    standing.last_time = standing.last_time.max(proposal.proposed_at());
                }
                EntryPayload::Membership(members) => {
                    standing.membership = StoredMembership::new(Some(entry.log_id), members);
                }
                EntryPayload::Blank => {}
            }
            Ok(())
        })?;
        Ok(standing)
    }

    /// The newest rows, of the state or of a snapshot that was not switched to yet, and what they
    /// are; they are whole.
    pub(super) fn newest_rows(&self) -> Result<(Rows, StateFacts), StorageError> {
        let state = Rows::of_directory(self.dir.path())?;
        let snapshot = self.list()?.pop();
        let covers = |data: &SnapshotData| data.manifest().meta.last_log_id;
        let applied = state.as_ref().map(Rows::applied).transpose()?.flatten();
        let rows = match (state, snapshot) {
            (_, Some(snapshot)) if covers(&snapshot) > applied => {
                snapshot.check_files()?;
                Rows::of_snapshot(&snapshot)?
            }
            (Some(state), _) => state,
            (None, _) => {
                let problem = "there is neither a state nor a snapshot";
                return Err(StorageError::damaged(self.dir.path(), problem));
            }
        };
        let facts = rows.facts()?;
        facts.check(self.dir.path())?;
        Ok((rows, facts))
    }

    /// Calls `visit` with the entries of the log behind `after`, to its end.
    pub(super) fn entries_behind(
        &self,
        after: Option<LogId>,
        visit: &mut dyn FnMut(Entry) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let log = self.open_log()?;
        let after = after.map_or(0, |id| id.index);
        let last = log.last().map_or(0, |id| id.index);
        log.entries(after, last, visit)
    }

    fn open_log(&self) -> Result<OfflineLog, StorageError> {
        OfflineLog::open(&self.dir.log(), &self.dir.acked())
    }

    fn list(&self) -> Result<Vec<SnapshotData>, StorageError> {
        snapshot::list(&self.dir.snapshots())
    }
}

fn replay_in(
    scratch: &Path,
    snapshot: Option<&SnapshotData>,
    log: &OfflineLog,
    to: u64,
) -> Result<Digest, StorageError> {
    let mut replay = Replay::begin(scratch, snapshot)?;
    let after = replay.applied();
    log.entries(after, to, &mut |entry| replay.apply(&entry))?;
    if replay.applied() < to {
        let reached = replay.applied();
        let problem = format!("the log ends with entry {reached}, the state has entry {to}");
        return Err(StorageError::damaged(scratch, problem));
    }
    replay.digest()
}
