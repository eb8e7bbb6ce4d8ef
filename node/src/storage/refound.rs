//! The directory of the first member of a new cluster, made from the state of another one.
//!
//! Everything is made in `restoring/` inside the directory, which no node starts beside, and moved
//! up when it is whole and on disk; the identity comes last.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use quorate_statemachine::tables::MetaRow;

use super::error::StorageError;
use super::files;
use super::log::LogStore;
use super::offline::Stopped;
use super::open::{DataDir, Identity};
use super::state::Seed;
use crate::raft::{LogId, Member, Membership, StoredMembership, Vote, log_id};

/// Where a directory is made, inside the one that it shall be.
pub(super) const STAGING: &str = "restoring";

/// Who the first member is, and where its log begins.
#[derive(Debug, Clone)]
pub struct Founder {
    /// Of the new cluster.
    pub identity: Identity,
    /// The log begins behind this.
    pub log_id: LogId,
}

impl Founder {
    /// Behind `last` of the old log, at `index`.
    #[must_use]
    pub fn new(identity: Identity, last: LogId, index: u64) -> Self {
        let log_id = log_id(last.leader_id.term, index);
        Self { identity, log_id }
    }
}

/// A new cluster's directory, while it is made.
pub struct NewCluster {
    target: DataDir,
    staging: PathBuf,
    seed: Seed,
}

impl NewCluster {
    /// Begins in `path`, which must be empty or not there.
    pub fn create(path: &Path) -> Result<Self, StorageError> {
        Self::begin(path, Seed::create)
    }

    /// The same with all that a stopped member has. Tells `progress` how many rows and log entries
    /// are done. Leaves nothing behind when it fails.
    pub fn of_member(
        path: &Path,
        member: &Stopped,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, StorageError> {
        Self::begin(path, |staging| Seed::of_member(staging, member, progress))
    }

    fn begin(
        path: &Path,
        seed: impl FnOnce(&Path) -> Result<Seed, StorageError>,
    ) -> Result<Self, StorageError> {
        let target = DataDir::open(path)?;
        let names = files::names(path)?;
        let found = names.into_iter().find(|name| !is_nothing(name));
        if let Some(found) = found {
            let path = path.to_owned();
            return Err(StorageError::NotEmpty { path, found });
        }
        let staging = path.join(STAGING);
        files::create_dir(&staging)?;
        match seed(&staging) {
            Ok(seed) => Ok(Self {
                target,
                staging,
                seed,
            }),
            Err(error) => {
                files::remove_dir(&staging)?;
                Err(error)
            }
        }
    }

    /// Adds a row of the state.
    pub fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        self.seed.row(key, value)
    }

    /// Counters and marks of the old cluster.
    pub fn meta(&self) -> Result<MetaRow, StorageError> {
        self.seed.meta()
    }

    /// Makes it the directory of `founder`.
    pub fn finish(self, founder: &Founder) -> Result<(), StorageError> {
        let Self {
            target,
            staging,
            seed,
        } = self;
        if let Err(error) = found(&staging, seed, founder) {
            files::remove_dir(&staging)?;
            return Err(error);
        }
        move_up(&staging, target.path())?;
        drop(target);
        Ok(())
    }

    /// Removes what was made.
    pub fn abandon(self) -> Result<(), StorageError> {
        drop(self.seed);
        files::remove_dir(&self.staging)
    }
}

/// What an empty directory may hold.
fn is_nothing(name: &str) -> bool {
    name == "LOCK" || name == "lost+found"
}

/// Ends the making of a directory: state, log and identity are those of the founder.
pub(super) fn found(staging: &Path, seed: Seed, founder: &Founder) -> Result<(), StorageError> {
    let Founder { identity, log_id } = founder;
    let id = identity.node_id;
    let mut meta = seed.meta()?;
    meta.cluster_id = identity.cluster_id.clone();
    meta.last_index = log_id.index;
    meta.last_node_id = meta.last_node_id.max(id);
    let membership = StoredMembership::new(Some(*log_id), alone(founder));
    seed.finish(&meta, *log_id, &membership)?;
    let mut dir = DataDir::open(staging)?;
    begin_log(&dir, founder)?;
    dir.set_identity(identity.clone())
}

/// The founder is the only voter. It tells its addresses by itself when it runs.
fn alone(founder: &Founder) -> Membership {
    let Identity { node_id, name, .. } = &founder.identity;
    let member = Member {
        name: name.clone(),
        ..Member::default()
    };
    let members = BTreeMap::from([(*node_id, member)]);
    let voters = vec![BTreeSet::from([*node_id])];
    Membership::new(voters, members).expect("the one voter is a member")
}

/// An empty log that begins behind the founder's log id. Its vote keeps the next term above all
/// that the old log has.
fn begin_log(dir: &DataDir, founder: &Founder) -> Result<(), StorageError> {
    let vote = Vote::new(founder.log_id.leader_id.term, founder.identity.node_id);
    LogStore::begin(&dir.log(), &dir.acked(), vote, founder.log_id)
}

/// Moves what was made up into its directory, the identity last.
pub(super) fn move_up(staging: &Path, target: &Path) -> Result<(), StorageError> {
    let (last, first): (Vec<String>, Vec<String>) = files::names(staging)?
        .into_iter()
        .filter(|name| name != "LOCK")
        .partition(|name| name == "identity");
    for name in first.into_iter().chain(last) {
        files::rename(&staging.join(&name), &target.join(&name))?;
    }
    files::sync_dir(staging)?;
    files::remove_dir(staging)?;
    files::sync_dir(target)
}
