//! From what members that are left still have to the first member of a new cluster.
//!
//! A quorum that is gone for good may have acknowledged writes that nobody else has. What is left
//! is all that the most advanced of the given members has: its rows, and its log to the end, also
//! entries of which it does not know that a quorum had them. Their callers know them as done, or do
//! not know; to leave them out could lose what was acknowledged. Raft's own rule says who is the
//! most advanced: the last entry of the later term, and in one term that of the greater index. Any
//! entry that was acknowledged and that one of the given members has, that one has.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use quorate_statemachine::tables::MetaRow;

use super::{DisasterError, Wanted, clock_ms, first_index};
use crate::raft::StoredMembership;
use crate::storage::offline::{Standing, Stopped};
use crate::storage::{Founder, Identity, NewCluster};

/// A stopped member that is left.
#[derive(Debug, Clone)]
pub struct Survivor {
    /// Its directory.
    pub path: PathBuf,
    /// Who it is.
    pub identity: Identity,
    /// How far it is.
    pub standing: Standing,
}

/// What would be done, and what may be lost by it.
pub struct Plan {
    /// The given members, the most advanced first: all is taken from that one.
    pub survivors: Vec<Survivor>,
    /// Voters that were not given, id and name.
    pub missing: Vec<(u64, String)>,
    /// Voters of which a majority is needed.
    pub voters: usize,
    from: Stopped,
}

/// What was made.
#[derive(Debug, Clone)]
pub struct Recovered {
    /// The first member.
    pub identity: Identity,
    /// Every token of the new cluster is greater.
    pub tokens_above: u64,
    /// Counters and marks, as the old cluster left them.
    pub meta: MetaRow,
}

/// Looks at the directories of stopped members of one cluster. Changes nothing. Refuses what is
/// not needed: a quorum of voters goes on by itself and loses nothing.
pub fn plan(from: &[PathBuf]) -> Result<Plan, DisasterError> {
    let mut found = Vec::new();
    for path in from {
        found.push(look(path)?);
    }
    found.sort_by_key(|(survivor, _)| std::cmp::Reverse(survivor.standing.last));
    let (survivors, mut stopped): (Vec<Survivor>, Vec<Stopped>) = found.into_iter().unzip();
    let first = survivors.first().ok_or(DisasterError::NoMember)?;
    let stranger = survivors
        .iter()
        .find(|other| other.identity.cluster_id != first.identity.cluster_id);
    if let Some(stranger) = stranger {
        let (one, other) = (first.identity.to_string(), stranger.identity.to_string());
        return Err(DisasterError::OtherCluster { one, other });
    }
    let here: BTreeSet<u64> = survivors.iter().map(|one| one.identity.node_id).collect();
    let membership = &first.standing.membership;
    let voters: BTreeSet<u64> = membership.membership().voter_ids().collect();
    if is_quorum(membership, &here) {
        let ids: Vec<String> = here.intersection(&voters).map(u64::to_string).collect();
        return Err(DisasterError::Quorum {
            given: ids.join(", "),
            voters: voters.len(),
        });
    }
    if let Some(why) = stopped[0].quarantine()? {
        let path = first.path.clone();
        return Err(DisasterError::Quarantined { path, why });
    }
    let missing = membership.membership().nodes();
    let missing = missing.filter(|(id, _)| voters.contains(id) && !here.contains(id));
    let missing = missing.map(|(id, member)| (*id, member.name.clone()));
    Ok(Plan {
        missing: missing.collect(),
        voters: voters.len(),
        from: stopped.swap_remove(0),
        survivors,
    })
}

fn look(path: &Path) -> Result<(Survivor, Stopped), DisasterError> {
    let stopped = Stopped::open(path)?;
    let survivor = Survivor {
        path: path.to_owned(),
        identity: stopped.identity().clone(),
        standing: stopped.standing()?,
    };
    Ok((survivor, stopped))
}

/// During a change of voters a majority of the old and of the new ones is needed.
fn is_quorum(membership: &StoredMembership, here: &BTreeSet<u64>) -> bool {
    let configs = membership.membership().get_joint_config();
    let majority = |voters: &BTreeSet<u64>| voters.intersection(here).count() > voters.len() / 2;
    !configs.is_empty() && configs.iter().all(majority)
}

impl Plan {
    /// The member from which all is taken.
    #[must_use]
    pub fn from(&self) -> &Survivor {
        &self.survivors[0]
    }

    /// Where the new cluster's log would begin, if its tokens can be greater than the old one's.
    pub fn first_index(&self, tokens_above: Option<u64>) -> Result<u64, DisasterError> {
        let standing = &self.from().standing;
        let time = standing.last_time.0;
        first_index(standing.last.index, time, clock_ms(), tokens_above)
    }

    /// Makes the directory of the new cluster. Changes nothing in the old directories. Tells
    /// `progress` how many rows and log entries are done.
    pub fn recover(
        self,
        wanted: &Wanted,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Recovered, DisasterError> {
        let index = self.first_index(wanted.tokens_above)?;
        let made = NewCluster::of_member(&wanted.data_dir, &self.from, progress)?;
        let meta = match made.meta() {
            Ok(meta) => meta,
            Err(error) => {
                made.abandon()?;
                return Err(error.into());
            }
        };
        let identity = wanted.identity(meta.last_node_id);
        let founder = Founder::new(identity, self.from().standing.last, index);
        let identity = founder.identity.clone();
        made.finish(&founder)?;
        Ok(Recovered {
            identity,
            tokens_above: index,
            meta,
        })
    }
}
