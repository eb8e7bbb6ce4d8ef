//! Who belongs to the cluster: add, promote, remove, hand over.
//!
//! A new node comes in as a learner, catches up, and is promoted; it never counts for a quorum
//! before that. What it is to become stands in the membership ([`Goal`]), and whoever leads sees to
//! it (`steward.rs`). Every change is planned first ([`Plan`]), so that a dry run shows what it
//! would do, and what is unsafe is refused.

mod address;
mod succession;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use quorate_rpc::{NodeError, v1};
use quorate_statemachine::{InvalidArgument, Name, cluster};
use tokio::sync::MutexGuard;
use tokio::time::Instant;

use crate::core::Core;
use crate::plan::{CAUGHT_UP_ENTRIES, Plan, count_of, lag_of};
use crate::propose::{no_leader, not_leader};
use crate::raft::{Goal, Member, Raft, TypeConfig};

pub use address::announce_everywhere;
pub use succession::{hand_over, successor};

use crate::upgrade;
use address::{announce, check_addr, update};
use succession::{require_leader, transfer};

/// How long a change waits for its node to catch up, for a commit, or for a new leader.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(60);

/// Between looks whether another change is done.
const IN_PROGRESS_PAUSE: Duration = Duration::from_millis(20);

/// Builds that know no more than version 1 cannot read a membership that says what becomes of a
/// learner.
const GOALS_SINCE: u32 = 2;

/// How long a change waits for its turn behind another.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the leader may take over a request that another node passed on: its turn, a node that
/// catches up, and a commit.
pub const ADMINISTER_TIMEOUT: Duration = TURN_TIMEOUT
    .saturating_add(CHANGE_TIMEOUT)
    .saturating_add(CHANGE_TIMEOUT);

/// The leader and where it is, as far as this node knows.
pub fn leader_of(raft: &Raft) -> Option<(u64, Member)> {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let id = metrics.current_leader?;
    let member = metrics.membership_config.membership().get_node(&id)?;
    Some((id, member.clone()))
}

/// All members, with what this node knows of them.
pub fn members(raft: &Raft) -> Vec<v1::Member> {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let membership = metrics.membership_config.membership();
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    let matched = |id: &u64| {
        let replication = metrics.replication.as_ref()?.get(id)?;
        replication.as_ref().map(|log_id| log_id.index)
    };
    let nodes = membership.nodes().map(|(id, member)| v1::Member {
        id: *id,
        name: member.name.clone(),
        peer_addr: member.peer_addr.clone(),
        client_addr: member.client_addr.clone(),
        http_addr: member.http_addr.clone(),
        voter: voters.contains(id),
        leader: metrics.current_leader == Some(*id),
        matched: matched(id).unwrap_or(0),
        lag: lag_of(&metrics, *id),
        goal: match voters.contains(id) {
            true => String::new(),
            false => member.goal.to_string(),
        },
    });
    nodes.collect()
}

/// Does an administrative request here if this node leads, else passes it on to the leader.
pub async fn administer_anywhere(
    core: &Core,
    request: v1::administer_request::Request,
) -> Result<v1::MemberChange, NodeError> {
    let request = v1::AdministerRequest {
        request: Some(request),
    };
    if core.leads() {
        return administer(core, request).await;
    }
    let (id, leader) = leader_of(core.raft()).ok_or_else(no_leader)?;
    let reply = core.peers.administer(id, &leader, request).await?;
    match (reply.error, reply.change) {
        (Some(error), _) => Err(error.into()),
        (None, Some(change)) => Ok(change),
        (None, None) => Err(NodeError::OutcomeUnknown {
            message: "the leader's answer is empty".to_owned(),
        }),
    }
}

/// Does an administrative request on the leader.
pub async fn administer(
    core: &Core,
    request: v1::AdministerRequest,
) -> Result<v1::MemberChange, NodeError> {
    use v1::administer_request::Request;
    let Some(request) = request.request else {
        return Err(invalid(
            "request",
            "is missing",
            "an administrative request",
            "none",
        ));
    };
    match request {
        Request::Add(add) => add_member(core, add).await,
        Request::Promote(member) => promote(core, member).await,
        Request::Remove(member) => remove(core, member).await,
        Request::Transfer(member) => transfer(core, member).await,
        Request::Announce(member) => announce(core, member).await,
        Request::Update(member) => update(core, member).await,
        Request::Members(_) => confirm(core)
            .await
            .map(|()| changed(core, 0, String::new())),
    }
}

/// Makes sure that what this leader knows is not out of date.
async fn confirm(core: &Core) -> Result<(), NodeError> {
    let reply = core.read_index(&v1::ReadIndexRequest::default()).await;
    reply.error.map_or(Ok(()), |error| Err(error.into()))
}

async fn add_member(core: &Core, add: v1::AddMemberRequest) -> Result<v1::MemberChange, NodeError> {
    let name = Name::parse("name", add.name.clone())?;
    check_addr("peer_addr", &add.peer_addr)?;
    check_addr("client_addr", &add.client_addr)?;
    let goal = match (add.replaces, add.promote) {
        (0, false) => Goal::Stay,
        (0, true) => Goal::Vote,
        (old, _) => Goal::Replace(old),
    };
    let by_itself = core.state.version().version >= GOALS_SINCE;
    let noted = match (by_itself, goal) {
        (true, goal) => goal,
        (false, Goal::Replace(_)) => return Err(replaces_later(core)),
        (false, _) => Goal::Stay,
    };
    let changing = one_at_a_time(core).await?;
    let plan = Plan::of(core);
    let words = plan.addition(&add, goal)?;
    let known = find_known(core, &add)?;
    let id = known.as_ref().map_or(0, |known| known.id);
    if add.dry_run || known.as_ref().is_some_and(|known| known.voter) {
        return Ok(changed(core, id, words));
    }
    plan.require_no_change()?;
    let id = match known {
        Some(known) => set_goal(core, &plan, known.id, noted).await?,
        None => bring_in(core, &name, &add, noted).await?,
    };
    drop(changing);
    if goal != Goal::Stay && !(by_itself && add.answer_at_once) {
        becomes_voter(core, id, by_itself).await?;
    }
    Ok(changed(core, id, words))
}

fn replaces_later(core: &Core) -> NodeError {
    let version = core.state.version().version;
    NodeError::Unsafe {
        message: format!(
            "a replacement needs cluster version {GOALS_SINCE}, the cluster is at {version}: \
             upgrade all members first, or remove the old member and add the new one"
        ),
    }
}

/// The blank node becomes a learner; answers its id.
async fn bring_in(
    core: &Core,
    name: &Name,
    add: &v1::AddMemberRequest,
    goal: Goal,
) -> Result<u64, NodeError> {
    let id = invite(core, name, &add.peer_addr).await?;
    let member = Member {
        name: name.to_string(),
        peer_addr: add.peer_addr.clone(),
        client_addr: add.client_addr.clone(),
        http_addr: add.http_addr.clone(),
        goal,
    };
    let added = core.raft().add_learner(id, member, false).await;
    added.map_err(change_error)?;
    Ok(id)
}

/// A learner that was added before is to become something else; answers its id.
async fn set_goal(core: &Core, plan: &Plan, id: u64, goal: Goal) -> Result<u64, NodeError> {
    let member = plan.member(id)?;
    if goal != Goal::Stay && member.goal != goal {
        let member = Member {
            goal,
            ..member.clone()
        };
        let change = ChangeMembers::SetNodes(BTreeMap::from([(id, member)]));
        commit(core, change, true).await?;
    }
    Ok(id)
}

/// The member that the request is about, if it was added before. The one that it replaces may have
/// the same name and address: a node whose disk was lost comes back in its own place.
fn find_known(core: &Core, add: &v1::AddMemberRequest) -> Result<Option<v1::Member>, NodeError> {
    let same = |member: &v1::Member| member.peer_addr == add.peer_addr || member.name == add.name;
    let others = members(core.raft()).into_iter();
    match others.filter(|one| one.id != add.replaces).find(same) {
        Some(known) if known.peer_addr == add.peer_addr && known.name == add.name => {
            Ok(Some(known))
        }
        Some(other) => Err(NodeError::Unsafe {
            message: format!(
                "member {} is {} at {}; a new member needs a name and a peer address of its own",
                other.id, other.name, other.peer_addr
            ),
        }),
        None => Ok(None),
    }
}

/// Gives the blank node at `addr` an id that was never used before.
async fn invite(core: &Core, name: &Name, addr: &str) -> Result<u64, NodeError> {
    let deadline = Instant::now() + CHANGE_TIMEOUT;
    let node_id = core.execute(cluster::AllocateNodeId {}, deadline).await?;
    let invite = v1::InviteRequest {
        cluster_id: core.identity().cluster_id.clone(),
        node_id,
        name: name.to_string(),
        cluster_version: core.state.version().version,
    };
    let reply = core.peers.invite(addr, invite).await?;
    upgrade::check_joiner(core, addr, reply.command_version)?;
    Ok(reply.node_id)
}

/// Waits until the leader, this node or its successor, has made the learner a voter; promotes it
/// here if it does not become one `by_itself`.
async fn becomes_voter(core: &Core, id: u64, by_itself: bool) -> Result<(), NodeError> {
    let deadline = Instant::now() + CHANGE_TIMEOUT;
    let mut metrics = core.raft().metrics();
    loop {
        let seen = metrics.borrow_watched().clone();
        let joint = seen.membership_config.membership().get_joint_config();
        if joint.len() == 1 && joint[0].contains(&id) {
            return Ok(());
        }
        if !by_itself && lag_of(&seen, id).is_some_and(|lag| lag <= CAUGHT_UP_ENTRIES) {
            let request = v1::MemberRequest { id, dry_run: false };
            return promote(core, request).await.map(drop);
        }
        let change = tokio::time::timeout_at(deadline, metrics.changed()).await;
        if !matches!(change, Ok(Ok(()))) {
            return Err(NodeError::DeadlineExceeded {
                message: format!(
                    "member {id} is a learner now and has not caught up in {} s (it is {} entries \
                     behind); it becomes a voter by itself as soon as it has: see the members",
                    CHANGE_TIMEOUT.as_secs(),
                    count_of(lag_of(&seen, id))
                ),
            });
        }
    }
}

async fn promote(core: &Core, request: v1::MemberRequest) -> Result<v1::MemberChange, NodeError> {
    let _changing = one_at_a_time(core).await?;
    let plan = Plan::of(core);
    plan.member(request.id)?;
    if plan.voters.contains(&request.id) {
        return Ok(changed(
            core,
            request.id,
            format!("member {} is a voter already", request.id),
        ));
    }
    plan.require_no_change()?;
    let words = plan.promotion(request.id)?;
    if !request.dry_run {
        let change = ChangeMembers::AddVoterIds(BTreeSet::from([request.id]));
        commit(core, change, true).await?;
    }
    Ok(changed(core, request.id, words))
}

/// Does what a learner that has caught up was added for. A leader that is to be replaced hands over
/// first, and its successor does it.
pub async fn reach_goal(core: &Core, id: u64) -> Result<(), NodeError> {
    let _changing = one_at_a_time(core).await?;
    let plan = Plan::of(core);
    let member = plan.member(id)?;
    plan.require_no_change()?;
    match member.goal {
        Goal::Stay => {}
        Goal::Replace(old) if plan.voters.contains(&old) => {
            plan.replacement(old, id)?;
            // The only voter has nobody to hand over to; it steps down when it is out.
            if old == core.identity().node_id && plan.voters.len() > 1 {
                let to = successor(core, &plan, |_| true).await?;
                return hand_over(core, to).await;
            }
            let change = ChangeMembers::Batch(vec![
                ChangeMembers::AddVoterIds(BTreeSet::from([id])),
                ChangeMembers::RemoveVoters(BTreeSet::from([old])),
            ]);
            commit(core, change, false).await?;
            tracing::info!(id, old, "a voter was replaced");
        }
        // Who was to be replaced may have been removed meanwhile.
        Goal::Vote | Goal::Replace(_) => {
            plan.promotion(id)?;
            commit(core, ChangeMembers::AddVoterIds(BTreeSet::from([id])), true).await?;
            tracing::info!(id, "a learner has become a voter");
        }
    }
    Ok(())
}

/// Ends a change of which an earlier leader has done the first half.
pub async fn finish_change(core: &Core) -> Result<(), NodeError> {
    let _changing = one_at_a_time(core).await?;
    if Plan::of(core).require_no_change().is_ok() {
        return Ok(());
    }
    // What is added to the newer of the two lists is nobody, so that list becomes the only one.
    commit(core, ChangeMembers::AddVoterIds(BTreeSet::new()), false).await?;
    tracing::info!("a change of membership that an earlier leader began is done");
    Ok(())
}

async fn remove(core: &Core, request: v1::MemberRequest) -> Result<v1::MemberChange, NodeError> {
    let _changing = one_at_a_time(core).await?;
    let plan = Plan::of(core);
    plan.member(request.id)?;
    plan.require_no_change()?;
    let gone = BTreeSet::from([request.id]);
    let (words, change) = if plan.voters.contains(&request.id) {
        let words = plan.removal(request.id)?;
        require_leader(core, &plan, request.id).await?;
        (words, ChangeMembers::RemoveVoters(gone))
    } else {
        let words = format!(
            "learner {} leaves the cluster; voters stay as they are",
            request.id
        );
        (words, ChangeMembers::RemoveNodes(gone))
    };
    if !request.dry_run {
        commit(core, change, false).await?;
    }
    Ok(changed(core, request.id, words))
}

/// A change is planned against the membership as it is, so nobody else may change it meanwhile.
async fn one_at_a_time(core: &Core) -> Result<MutexGuard<'_, ()>, NodeError> {
    let turn = tokio::time::timeout(TURN_TIMEOUT, core.changing.lock()).await;
    turn.map_err(|_| NodeError::Unsafe {
        message: format!(
            "another change of membership has been in progress for {} s, and nothing was done; \
             wait until it is done, or look whether a quorum answers",
            TURN_TIMEOUT.as_secs()
        ),
    })
}

/// Waits for a change that is in progress, as members make one when they tell their addresses; only
/// a removal does not: it was planned against the membership as it was.
async fn commit(
    core: &Core,
    change: ChangeMembers<u64, Member>,
    retain: bool,
) -> Result<(), NodeError> {
    let changing = async {
        loop {
            let changed = core.raft().change_membership(change.clone(), retain).await;
            match changed {
                Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(
                    ChangeMembershipError::InProgress(_),
                ))) if retain => tokio::time::sleep(IN_PROGRESS_PAUSE).await,
                changed => return changed.map(drop).map_err(change_error),
            }
        }
    };
    match tokio::time::timeout(CHANGE_TIMEOUT, changing).await {
        Ok(result) => result,
        Err(_) => Err(NodeError::DeadlineExceeded {
            message: format!("no quorum confirmed it in {} s", CHANGE_TIMEOUT.as_secs()),
        }),
    }
}

fn change_error(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> NodeError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => not_leader(&forward),
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => NodeError::Unsafe {
            message: format!("{error}; wait for the change in progress, then try again"),
        },
        RaftError::APIError(error) => NodeError::OutcomeUnknown {
            message: error.to_string(),
        },
        RaftError::Fatal(error) => crate::server::fatal(&error),
    }
}

fn changed(core: &Core, id: u64, plan: String) -> v1::MemberChange {
    v1::MemberChange {
        id,
        plan,
        members: members(core.raft()),
    }
}

fn invalid(field: &str, problem: &str, limit: &str, actual: &str) -> NodeError {
    NodeError::Invalid(InvalidArgument::new(field, problem, limit, actual))
}
