//! A new cluster from what is left of an old one: a snapshot file, or a member's directory.
//!
//! Both make the directory of one voter in a cluster with an id of its own, so that no member of
//! the old one takes it for its own or the other way round. Others are added as to any cluster.
//!
//! # No token twice
//!
//! A fencing token is the log index of the entry that granted, and so are the numbers of queue
//! items and others. What was saved does not say how far the old cluster went on after it. So the
//! log of the new one does not go on where the old one stood: it begins at the clock's milliseconds
//! since [`EPOCH_MS`] times [`INDEXES_PER_MS`]. A new log begins at 0 and a cluster takes its
//! entries one by one, so as long as none writes more than that on average since it was founded or
//! restored, every index that it has given out is below the present one of the clock. That holds
//! for the old cluster, and for every cluster that was restored from it before, from whichever
//! file.
//!
//! A clock that is behind would break it. [`first_index`] refuses one that is behind the snapshot
//! or its log, and takes a floor from whoever knows a higher token.

use std::io;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use thiserror::Error;

use crate::snapshot_file::FileError;
use crate::storage::{Identity, StorageError};

mod recover;
mod restore;

pub use recover::{Plan, Recovered, Survivor, plan};
pub use restore::{Restored, restore};

/// The start of 2020, in Unix milliseconds: before the first cluster was founded.
pub const EPOCH_MS: u64 = 1_577_836_800_000;

/// Log indexes of a millisecond of the clock: 30 times what the fastest cluster that we measured
/// commits. With it indexes stay below [`INDEX_MAX`] until 2089.
pub const INDEXES_PER_MS: u64 = 1 << 12;

/// Where no log may begin: every language can hold a token below it, and numbers of queue items,
/// which are an index times 1024, have room in 64 bits.
pub const INDEX_MAX: u64 = 1 << 53;

/// The first member to make.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The directory to make.
    pub data_dir: PathBuf,
    /// The new node's id; the next one that the old cluster never gave out if there is none.
    pub node_id: Option<u64>,
    /// The new node's name.
    pub name: Option<String>,
    /// A token that nobody was granted a higher one than.
    pub tokens_above: Option<u64>,
}

impl Wanted {
    /// Who the first member is, where the old cluster gave out ids up to `last_node_id`.
    fn identity(&self, last_node_id: u64) -> Identity {
        let node_id = self.node_id.unwrap_or(last_node_id + 1);
        let name = self.name.clone();
        Identity {
            cluster_id: uuid::Uuid::now_v7().to_string(),
            node_id,
            name: name.unwrap_or_else(|| format!("node-{node_id}")),
        }
    }
}

/// Why no new cluster was made.
#[derive(Debug, Error)]
pub enum DisasterError {
    /// The snapshot cannot be used.
    #[error("the snapshot cannot be used: {0}")]
    File(#[from] FileError),
    /// The directory cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The file could not be read.
    #[error("the snapshot cannot be read: {0}")]
    Io(#[from] io::Error),
    /// Tokens might be issued twice.
    #[error(
        "this machine's clock says {clock_ms} ms, which is behind {behind}: tokens of the new \
         cluster could be lower than some that were issued already; set the clock, or give \
         --tokens-above with the highest token that anybody has seen"
    )]
    ClockBehind {
        /// What the clock says.
        clock_ms: u64,
        /// What it should not be behind.
        behind: String,
    },
    /// No directory was given.
    #[error("no directory of a member was given; give those of all members that are left")]
    NoMember,
    /// Two directories do not belong together.
    #[error("one directory is that of {one}, another that of {other}; give those of one cluster")]
    OtherCluster {
        /// Of one member.
        one: String,
        /// Of the other.
        other: String,
    },
    /// The cluster can go on.
    #[error(
        "the members {given} are a quorum of the {voters} voters: start them, and nothing is lost"
    )]
    Quorum {
        /// Their ids.
        given: String,
        /// Of so many voters.
        voters: usize,
    },
    /// What would be taken is known to be wrong.
    #[error(
        "the state in {path} differs from that of the other members ({why}); give the directory of \
         another member, or, if none is left, delete {path}/quarantine to take this state as it is"
    )]
    Quarantined {
        /// The member's directory.
        path: PathBuf,
        /// What was found.
        why: String,
    },
    /// The operator's floor is not above what the old log has.
    #[error(
        "--tokens-above {floor} is not above entry {last} of the old log; give the greatest token \
         that anybody has seen, or more"
    )]
    LowFloor {
        /// What was given.
        floor: u64,
        /// The last entry that is known.
        last: u64,
    },
    /// There is no room above.
    #[error("the log would begin at {index}, the limit is {INDEX_MAX}; {problem}")]
    NoRoom {
        /// Where it would begin.
        index: u64,
        /// What to look at.
        problem: &'static str,
    },
    /// The snapshot has tables that this build does not know.
    #[error("the snapshot has table {0:#04x}, which this build does not know; use a newer build")]
    UnknownTable(u8),
}

/// The index behind which the log of a new cluster begins; see the module.
pub fn first_index(
    last: u64,
    saved_at_ms: u64,
    clock_ms: u64,
    tokens_above: Option<u64>,
) -> Result<u64, DisasterError> {
    let since_epoch = clock_ms.saturating_sub(EPOCH_MS);
    let by_clock = since_epoch.saturating_mul(INDEXES_PER_MS);
    let index = match tokens_above {
        Some(floor) if floor <= last => return Err(DisasterError::LowFloor { floor, last }),
        Some(floor) => by_clock.max(floor),
        None if clock_ms < saved_at_ms => {
            let behind = format!("the time at which this was saved, {saved_at_ms} ms");
            return Err(DisasterError::ClockBehind { clock_ms, behind });
        }
        None if by_clock <= last => {
            let behind = format!("what entry {last} of the old log stands for");
            return Err(DisasterError::ClockBehind { clock_ms, behind });
        }
        None => by_clock,
    };
    if index >= INDEX_MAX {
        let problem = match tokens_above {
            Some(_) => "look at the clock and at --tokens-above",
            None => "look at the clock",
        };
        return Err(DisasterError::NoRoom { index, problem });
    }
    Ok(index)
}

/// The clock, in Unix milliseconds.
#[must_use]
pub fn clock_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_restore_begins_above_all_that_an_earlier_one_can_have_issued() {
        let first = first_index(1_000, 5, 1_764_000_000_000, None).expect("room");
        let later = first_index(1_000, 5, 1_764_000_000_001, None).expect("room");
        assert_eq!(later - first, INDEXES_PER_MS);
        assert!(first > 1_000 && later < INDEX_MAX);
    }

    #[test]
    fn a_clock_that_is_behind_is_refused_unless_a_floor_is_known() {
        let early = first_index(1_000, 9, 8, None).expect_err("before it was saved");
        assert!(early.to_string().contains("--tokens-above"), "{early}");
        let behind = first_index(1 << 40, 0, 8, None).expect_err("behind the log");
        assert!(behind.to_string().contains("1099511627776"), "{behind}");
        let known = first_index(1 << 40, 9, 8, Some(1 << 41));
        assert_eq!(known.expect("a floor"), 1 << 41);
        for low in [3, 1 << 40] {
            let error = first_index(1 << 40, 9, 8, Some(low)).expect_err("not above the log");
            assert!(error.to_string().contains("1099511627776"), "{error}");
        }
    }

    #[test]
    fn a_clock_of_the_next_century_is_refused() {
        let late = first_index(1, 1, 5_000_000_000_000, None).expect_err("no room");
        assert!(late.to_string().contains("look at the clock"), "{late}");
    }
}
