//! What a change of membership would do, in words, or why it is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::Instant as _;
use openraft::async_runtime::WatchReceiver;
use quorate_rpc::{NodeError, v1};

use crate::core::Core;
use crate::raft::{Goal, Member, Metrics};

/// How far behind the leader's log a learner may be to become a voter. In entries.
pub const CAUGHT_UP_ENTRIES: u64 = 1_000;

/// How far behind it a voter may be to be handed leadership. In entries: about as many as may be in
/// flight. openraft lets a leader that hands over take nothing until another one leads, so the one
/// it hands over to must be able to.
const SUCCESSOR_ENTRIES: u64 = 10_000;

/// A voter that has acknowledged nothing for so long does not count as alive.
const ALIVE: Duration = Duration::from_secs(3);

/// Stands for a node that has no id yet.
const NEWCOMER: u64 = u64::MAX;

/// The membership as it is, against which a change is planned.
pub struct Plan {
    /// Those that count for a quorum; while a change is in progress, of either list.
    pub voters: BTreeSet<u64>,
    /// One list; two while a change is in progress.
    lists: Vec<BTreeSet<u64>>,
    members: BTreeMap<u64, Member>,
    /// Entries behind the leader's log; none when unknown.
    lags: BTreeMap<u64, Option<u64>>,
    alive: BTreeSet<u64>,
}

impl Plan {
    /// As this leader knows it.
    pub fn of(core: &Core) -> Self {
        let metrics = core.raft().metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        let own = core.identity().node_id;
        let members: BTreeMap<u64, Member> = membership
            .nodes()
            .map(|(id, member)| (*id, member.clone()))
            .collect();
        let ids = members.keys().copied();
        let alive = ids.filter(|id| *id == own || heard_lately(&metrics, *id));
        Self {
            voters: membership.voter_ids().collect(),
            lists: membership.get_joint_config().clone(),
            alive: alive.collect(),
            lags: members
                .keys()
                .map(|id| (*id, lag_of(&metrics, *id)))
                .collect(),
            members,
        }
    }

    /// The member with this id.
    pub fn member(&self, id: u64) -> Result<&Member, NodeError> {
        self.members.get(&id).ok_or_else(|| NodeError::NotFound {
            message: format!(
                "there is no member {id}; the members are {}",
                listed(self.members.keys())
            ),
        })
    }

    /// A change on top of half a change is refused.
    pub fn require_no_change(&self) -> Result<(), NodeError> {
        let [before, after] = &self.lists[..] else {
            return Ok(());
        };
        Err(NodeError::Unsafe {
            message: format!(
                "a change of membership is in progress, from {} to {}; the leader ends it by \
                 itself once a quorum of both answers, then try again",
                quorum_words(before),
                quorum_words(after)
            ),
        })
    }

    /// A node comes in, to become what `goal` says.
    pub fn addition(&self, add: &v1::AddMemberRequest, goal: Goal) -> Result<String, NodeError> {
        let same = |(_, member): &(_, &Member)| {
            member.peer_addr == add.peer_addr && member.name == add.name
        };
        let others = self.members.iter().filter(|(id, _)| **id != add.replaces);
        let known = others.map(|(id, member)| (*id, member)).find(same);
        let (id, first) = match known {
            Some((id, member)) if self.voters.contains(&id) => {
                return Ok(format!("{} is member {id} already, a voter", member.name));
            }
            Some((id, member)) => (id, format!("{} is member {id} already", member.name)),
            None => {
                let words = format!("{} at {} comes in as a learner", add.name, add.peer_addr);
                (NEWCOMER, words)
            }
        };
        let then = match goal {
            Goal::Stay => format!("{}, as before", quorum_words(&self.voters)),
            Goal::Vote => {
                let mut after = self.voters.clone();
                after.insert(id);
                let what = "once it has caught up it becomes a voter by itself";
                self.with(id).step(&after, what)?
            }
            Goal::Replace(old) => self.with(id).replacement(old, id)?,
        };
        Ok(format!("{first}\n{then}"))
    }

    /// The same with one more that answers: who comes in is asked when it is invited.
    fn with(&self, id: u64) -> Self {
        let mut alive = self.alive.clone();
        alive.insert(id);
        Self {
            voters: self.voters.clone(),
            lists: self.lists.clone(),
            members: self.members.clone(),
            lags: self.lags.clone(),
            alive,
        }
    }

    /// A learner becomes a voter now.
    pub fn promotion(&self, id: u64) -> Result<String, NodeError> {
        let lag = self.lags.get(&id).copied().flatten();
        if lag.is_none_or(|lag| lag > CAUGHT_UP_ENTRIES) {
            return Err(NodeError::Unsafe {
                message: format!(
                    "member {id} is {} entries behind, a new voter may be {CAUGHT_UP_ENTRIES}; \
                     wait until it has caught up",
                    count_of(lag)
                ),
            });
        }
        let mut after = self.voters.clone();
        after.insert(id);
        self.step(&after, &format!("member {id} becomes a voter"))
    }

    /// A voter leaves.
    pub fn removal(&self, id: u64) -> Result<String, NodeError> {
        let after = &self.voters - &BTreeSet::from([id]);
        if after.is_empty() {
            return Err(NodeError::Unsafe {
                message: format!(
                    "member {id} is the last voter, and without it there is no cluster; add \
                     another first, or stop the node if the cluster is to end"
                ),
            });
        }
        self.step(&after, &format!("voter {id} leaves the cluster"))
    }

    /// A learner takes the place of a voter.
    pub fn replacement(&self, old: u64, new: u64) -> Result<String, NodeError> {
        self.member(old)?;
        if !self.voters.contains(&old) {
            return Err(NodeError::Unsafe {
                message: format!(
                    "member {old} is a learner, and only a voter is replaced; remove it and add \
                     the other"
                ),
            });
        }
        let mut after = &self.voters - &BTreeSet::from([old]);
        after.insert(new);
        self.step(
            &after,
            &format!(
                "{} becomes a voter once it has caught up, and voter {old} leaves the cluster in \
                 the same change",
                match new {
                    NEWCOMER => "it".to_owned(),
                    new => format!("member {new}"),
                }
            ),
        )
    }

    /// A member is elsewhere from now on.
    pub fn relocation(&self, id: u64, member: &Member) -> Result<String, NodeError> {
        let others = self.members.iter().filter(|(other, _)| **other != id);
        for (other, known) in others {
            if known.peer_addr == member.peer_addr || known.client_addr == member.client_addr {
                return Err(NodeError::Unsafe {
                    message: format!(
                        "member {other} is {known}, for clients at {}; each member needs \
                         addresses of its own",
                        known.client_addr
                    ),
                });
            }
        }
        Ok(format!(
            "member {id} ({}) is at {} for members and at {} for clients\n{}, as before",
            member.name,
            member.peer_addr,
            member.client_addr,
            quorum_words(&self.voters)
        ))
    }

    /// Words for a step to `after`, or why it is refused.
    fn step(&self, after: &BTreeSet<u64>, what: &str) -> Result<String, NodeError> {
        for (voters, which) in [(&self.voters, "that there are"), (after, "it would leave")] {
            let alive = voters.intersection(&self.alive).count();
            let quorum = voters.len() / 2 + 1;
            if alive < quorum {
                return Err(NodeError::Unsafe {
                    message: format!(
                        "{what}: {alive} of the {} voters {which} answer now, a quorum is \
                         {quorum}; bring members back or add new ones first",
                        voters.len()
                    ),
                });
            }
        }
        Ok(format!(
            "{what}\nbefore: {}\nduring: {} of {}, and {} of {}\nafter: {}\nanswer now: {}",
            quorum_words(&self.voters),
            self.voters.len() / 2 + 1,
            listed(&self.voters),
            after.len() / 2 + 1,
            listed(after),
            quorum_words(after),
            listed(self.alive.iter().filter(|id| **id != NEWCOMER)),
        ))
    }

    /// The voter with the least lag, of those that may be handed leadership and are `wanted`.
    pub fn best_successor(&self, own: u64, wanted: impl Fn(u64) -> bool) -> Result<u64, NodeError> {
        let others = self.voters.iter().copied();
        let able = others.filter(|id| *id != own && wanted(*id) && self.succession(*id).is_ok());
        let best = able.min_by_key(|id| self.lags.get(id).copied().flatten());
        best.ok_or_else(|| NodeError::Unsafe {
            message: "there is no other voter that answers and has caught up".to_owned(),
        })
    }

    /// Whether this member may be handed leadership.
    pub fn succession(&self, id: u64) -> Result<(), NodeError> {
        self.member(id)?;
        let refused = |message| Err(NodeError::Unsafe { message });
        if !self.voters.contains(&id) {
            return refused(format!(
                "member {id} is a learner; only a voter can lead, promote it first"
            ));
        }
        if !self.alive.contains(&id) {
            return refused(format!(
                "member {id} has not answered for {} s; nobody would lead until it is given up",
                ALIVE.as_secs()
            ));
        }
        let lag = self.lags.get(&id).copied().flatten();
        if lag.is_none_or(|lag| lag > SUCCESSOR_ENTRIES) {
            return refused(format!(
                "member {id} is {} entries behind, who is to lead may be {SUCCESSOR_ENTRIES}; wait \
                 until it has caught up",
                count_of(lag)
            ));
        }
        Ok(())
    }
}

fn quorum_words(voters: &BTreeSet<u64>) -> String {
    format!(
        "voters {} (quorum {} of {})",
        listed(voters),
        voters.len() / 2 + 1,
        voters.len()
    )
}

fn listed<'a>(ids: impl IntoIterator<Item = &'a u64>) -> String {
    let word = |id: &u64| match *id {
        NEWCOMER => "the new one".to_owned(),
        id => id.to_string(),
    };
    let ids: Vec<String> = ids.into_iter().map(word).collect();
    ids.join(", ")
}

/// A number of entries, if it is known.
pub fn count_of(lag: Option<u64>) -> String {
    lag.map_or_else(|| "an unknown number of".to_owned(), |lag| lag.to_string())
}

/// Entries of the leader's log that the member is not known to have.
pub fn lag_of(metrics: &Metrics, id: u64) -> Option<u64> {
    if metrics.id == id && metrics.state.is_leader() {
        return Some(0);
    }
    let matched = metrics.replication.as_ref()?.get(&id)?.as_ref()?.index;
    Some(metrics.last_log_index.unwrap_or(0).saturating_sub(matched))
}

/// Whether the member has acknowledged something of this leader's lately.
pub fn heard_lately(metrics: &Metrics, id: u64) -> bool {
    let heard = metrics
        .heartbeat
        .as_ref()
        .and_then(|heartbeat| heartbeat.get(&id)?.as_ref());
    heard.is_some_and(|at| at.elapsed() < ALIVE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(voters: &[u64], learners: &[(u64, u64)], alive: &[u64]) -> Plan {
        let voters: BTreeSet<u64> = voters.iter().copied().collect();
        let member = |id: &u64| Member {
            name: format!("n{id}"),
            peer_addr: format!("h{id}:7401"),
            client_addr: format!("h{id}:7400"),
            ..Member::default()
        };
        let ids = voters.iter().chain(learners.iter().map(|(id, _)| id));
        Plan {
            lists: vec![voters.clone()],
            members: ids.map(|id| (*id, member(id))).collect(),
            lags: learners.iter().map(|(id, lag)| (*id, Some(*lag))).collect(),
            alive: alive.iter().copied().collect(),
            voters,
        }
    }

    fn refused(answer: Result<String, NodeError>) -> String {
        match answer {
            Err(NodeError::Unsafe { message }) => message,
            other => panic!("it is not refused as unsafe: {other:?}"),
        }
    }

    fn newcomer(replaces: u64) -> v1::AddMemberRequest {
        v1::AddMemberRequest {
            name: "n4".to_owned(),
            peer_addr: "h4:7401".to_owned(),
            client_addr: "h4:7400".to_owned(),
            replaces,
            ..v1::AddMemberRequest::default()
        }
    }

    #[test]
    fn a_plan_shows_the_quorum_before_during_and_after() {
        let plan = plan(&[1, 2, 3], &[], &[1, 2]);
        assert_eq!(
            plan.addition(&newcomer(0), Goal::Vote).expect("safe"),
            "n4 at h4:7401 comes in as a learner\n\
             once it has caught up it becomes a voter by itself\n\
             before: voters 1, 2, 3 (quorum 2 of 3)\n\
             during: 2 of 1, 2, 3, and 3 of 1, 2, 3, the new one\n\
             after: voters 1, 2, 3, the new one (quorum 3 of 4)\n\
             answer now: 1, 2"
        );
        assert_eq!(
            plan.addition(&newcomer(3), Goal::Replace(3)).expect("safe"),
            "n4 at h4:7401 comes in as a learner\n\
             it becomes a voter once it has caught up, and voter 3 leaves the cluster in the same \
             change\n\
             before: voters 1, 2, 3 (quorum 2 of 3)\n\
             during: 2 of 1, 2, 3, and 2 of 1, 2, the new one\n\
             after: voters 1, 2, the new one (quorum 2 of 3)\n\
             answer now: 1, 2"
        );
        let stays = plan.addition(&newcomer(0), Goal::Stay).expect("safe");
        assert!(
            stays.ends_with("voters 1, 2, 3 (quorum 2 of 3), as before"),
            "{stays}"
        );
    }

    #[test]
    fn a_step_that_loses_a_quorum_is_refused_with_the_counts() {
        let two_left = plan(&[1, 2, 3], &[(4, 0)], &[1, 2, 4]);
        let words = refused(two_left.removal(2));
        assert!(
            words.contains("1 of the 2 voters it would leave answer now"),
            "{words}"
        );
        assert!(two_left.removal(3).is_ok() && two_left.replacement(3, 4).is_ok());
        let one_left = plan(&[1, 2, 3], &[(4, 0)], &[1, 4]);
        let words = refused(one_left.replacement(3, 4));
        assert!(
            words.contains("1 of the 3 voters that there are"),
            "{words}"
        );
        let words = refused(plan(&[1], &[], &[1]).removal(1));
        assert!(words.contains("the last voter"), "{words}");
    }

    #[test]
    fn a_learner_is_promoted_only_when_it_has_caught_up() {
        let plan = plan(&[1], &[(2, 1_000), (3, 1_001)], &[1, 2, 3]);
        assert!(plan.promotion(2).is_ok());
        let words = refused(plan.promotion(3));
        assert!(
            words.contains("1001 entries behind, a new voter may be 1000"),
            "{words}"
        );
        let words = refused(plan.replacement(2, 3));
        assert!(words.contains("only a voter is replaced"), "{words}");
    }

    #[test]
    fn half_a_change_and_taken_addresses_are_refused() {
        let mut plan = plan(&[1, 2, 3], &[], &[1, 2, 3]);
        assert_eq!(plan.require_no_change(), Ok(()));
        plan.lists.push(BTreeSet::from([1, 2]));
        let words = refused(plan.require_no_change().map(|()| String::new()));
        assert!(words.contains("to voters 1, 2 (quorum 2 of 2)"), "{words}");
        let member = Member {
            peer_addr: "h3:7401".to_owned(),
            ..plan.members[&2].clone()
        };
        let words = refused(plan.relocation(2, &member));
        assert!(words.contains("member 3 is n3 (h3:7401)"), "{words}");
        assert!(matches!(plan.member(9), Err(NodeError::NotFound { .. })));
    }
}
