//! Who belongs to the cluster: add, promote, remove, hand over.
//!
//! A new node comes in as a learner, catches up, and is promoted; it never counts for a quorum
//! before that. What would leave the cluster without a quorum of nodes that answer is refused, with
//! the counts. Every change is planned first ([`Plan`]), so that a dry run shows what the change
//! would do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{ChangeMembers, Instant as _};
use quorate_rpc::{NodeError, v1};
use quorate_statemachine::{InvalidArgument, Name, cluster};
use tokio::time::Instant;

use crate::core::Core;
use crate::propose::{no_leader, not_leader};
use crate::raft::{Member, Metrics, Raft, TypeConfig};
use crate::upgrade;

/// How far behind the leader's log a learner may be to become a voter. In entries.
pub const CAUGHT_UP_ENTRIES: u64 = 1_000;

/// How long a change waits for its node to catch up, for a commit, or for a new leader.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(60);

/// Between looks whether another change is done.
const IN_PROGRESS_PAUSE: Duration = Duration::from_millis(20);

/// A voter that has acknowledged nothing for so long does not count as alive.
const ALIVE: Duration = Duration::from_secs(3);

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
    if let Some(known) = find_known(core, &add)? {
        let plan = format!("{} is member {} already", known.name, known.id);
        if add.dry_run || !add.promote || known.voter {
            return Ok(changed(core, known.id, plan));
        }
        return promote_when_ready(core, known.id).await;
    }
    let plan = Plan::of(core).learner(&add);
    if add.dry_run {
        return Ok(changed(core, 0, plan));
    }
    let id = invite(core, &name, &add.peer_addr).await?;
    let member = Member {
        name: name.to_string(),
        peer_addr: add.peer_addr,
        client_addr: add.client_addr,
        http_addr: add.http_addr,
    };
    let added = core.raft().add_learner(id, member, false).await;
    added.map_err(change_error)?;
    if add.promote {
        return promote_when_ready(core, id).await;
    }
    Ok(changed(core, id, plan))
}

/// The member that the request is about, if it was added before.
fn find_known(core: &Core, add: &v1::AddMemberRequest) -> Result<Option<v1::Member>, NodeError> {
    let same = |member: &v1::Member| member.peer_addr == add.peer_addr || member.name == add.name;
    match members(core.raft()).into_iter().find(same) {
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

async fn promote_when_ready(core: &Core, id: u64) -> Result<v1::MemberChange, NodeError> {
    let deadline = Instant::now() + CHANGE_TIMEOUT;
    let mut metrics = core.raft().metrics();
    loop {
        let lag = lag_of(&metrics.borrow_watched().clone(), id);
        if lag.is_some_and(|lag| lag <= CAUGHT_UP_ENTRIES) {
            return promote(core, v1::MemberRequest { id, dry_run: false }).await;
        }
        let change = tokio::time::timeout_at(deadline, metrics.changed()).await;
        if !matches!(change, Ok(Ok(()))) {
            return Err(NodeError::DeadlineExceeded {
                message: format!(
                    "member {id} is a learner now and has not caught up in {} s (it is {} entries \
                     behind); promote it when it has",
                    CHANGE_TIMEOUT.as_secs(),
                    lag.map_or("an unknown number of".to_owned(), |lag| lag.to_string())
                ),
            });
        }
    }
}

async fn promote(core: &Core, request: v1::MemberRequest) -> Result<v1::MemberChange, NodeError> {
    let plan = Plan::of(core);
    plan.require(request.id)?;
    if plan.voters.contains(&request.id) {
        return Ok(changed(
            core,
            request.id,
            format!("member {} is a voter already", request.id),
        ));
    }
    let lag = plan.lags.get(&request.id).copied().flatten();
    if lag.is_none_or(|lag| lag > CAUGHT_UP_ENTRIES) {
        let lag = lag.map_or("an unknown number of".to_owned(), |lag| lag.to_string());
        return Err(NodeError::Unsafe {
            message: format!(
                "member {} is {lag} entries behind, a new voter may be {CAUGHT_UP_ENTRIES}; wait \
                 until it has caught up",
                request.id
            ),
        });
    }
    let mut after = plan.voters.clone();
    after.insert(request.id);
    let words = plan.step(&after, &format!("member {} becomes a voter", request.id))?;
    if !request.dry_run {
        let change = ChangeMembers::AddVoterIds(BTreeSet::from([request.id]));
        commit(core, change, true).await?;
    }
    Ok(changed(core, request.id, words))
}

async fn remove(core: &Core, request: v1::MemberRequest) -> Result<v1::MemberChange, NodeError> {
    let plan = Plan::of(core);
    plan.require(request.id)?;
    let gone = BTreeSet::from([request.id]);
    let (words, change) = if plan.voters.contains(&request.id) {
        let after = &plan.voters - &gone;
        let words = plan.step(&after, &format!("voter {} leaves the cluster", request.id))?;
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

async fn transfer(core: &Core, request: v1::MemberRequest) -> Result<v1::MemberChange, NodeError> {
    let plan = Plan::of(core);
    let own = core.identity().node_id;
    let to = if request.id == 0 {
        plan.best_successor(own)?
    } else {
        request.id
    };
    plan.require(to)?;
    if !plan.voters.contains(&to) {
        return Err(NodeError::Unsafe {
            message: format!("member {to} is a learner; only a voter can lead, promote it first"),
        });
    }
    let words = format!("member {own} hands leadership to member {to}");
    if request.dry_run || to == own {
        return Ok(changed(core, to, words));
    }
    let triggered = core.raft().trigger().transfer_leader(to).await;
    triggered.map_err(|error| crate::server::fatal(&error))?;
    let moved = core
        .raft()
        .wait(Some(Duration::from_secs(10)))
        .current_leader(to, "transfer")
        .await;
    moved.map_err(|_| NodeError::DeadlineExceeded {
        message: format!("member {to} has not become the leader in 10 s; look at the status"),
    })?;
    Ok(changed(core, to, words))
}

/// A member tells that its addresses are others than the membership says.
async fn announce(core: &Core, told: v1::Member) -> Result<v1::MemberChange, NodeError> {
    let plan = Plan::of(core);
    plan.require(told.id)?;
    let id = told.id;
    let member = Member {
        name: told.name,
        peer_addr: told.peer_addr,
        client_addr: told.client_addr,
        http_addr: told.http_addr,
    };
    let words = format!("member {id} is now {member}");
    let addr = member.peer_addr.clone();
    if plan.members.get(&id) != Some(&member) {
        let change = ChangeMembers::SetNodes(BTreeMap::from([(id, member)]));
        commit(core, change, true).await?;
    }
    core.peers.moved(id, &addr);
    Ok(changed(core, id, words))
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

/// The membership as it is, against which a change is planned.
struct Plan {
    voters: BTreeSet<u64>,
    members: BTreeMap<u64, Member>,
    /// Entries behind the leader's log; none when unknown.
    lags: BTreeMap<u64, Option<u64>>,
    alive: BTreeSet<u64>,
}

impl Plan {
    fn of(core: &Core) -> Self {
        let metrics = core.raft().metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        let own = core.identity().node_id;
        let ids: Vec<u64> = membership.nodes().map(|(id, _)| *id).collect();
        let alive = |id: &u64| *id == own || heard_lately(&metrics, *id);
        Self {
            voters: membership.voter_ids().collect(),
            members: membership
                .nodes()
                .map(|(id, member)| (*id, member.clone()))
                .collect(),
            lags: ids.iter().map(|id| (*id, lag_of(&metrics, *id))).collect(),
            alive: ids.iter().copied().filter(alive).collect(),
        }
    }

    fn require(&self, id: u64) -> Result<(), NodeError> {
        if self.lags.contains_key(&id) {
            return Ok(());
        }
        let known: Vec<String> = self.lags.keys().map(u64::to_string).collect();
        Err(NodeError::NotFound {
            message: format!(
                "there is no member {id}; the members are {}",
                known.join(", ")
            ),
        })
    }

    fn learner(&self, add: &v1::AddMemberRequest) -> String {
        format!(
            "{} at {} comes in as a learner\nvoters stay {}",
            add.name,
            add.peer_addr,
            quorum_words(&self.voters)
        )
    }

    /// Words for a step to `after`, or why it is refused.
    fn step(&self, after: &BTreeSet<u64>, what: &str) -> Result<String, NodeError> {
        let alive = after.intersection(&self.alive).count();
        let quorum = after.len() / 2 + 1;
        if after.is_empty() || alive < quorum {
            return Err(NodeError::Unsafe {
                message: format!(
                    "{what}: {alive} of the {} voters it would leave answer now, a quorum is \
                     {quorum}; bring members back or add new ones first",
                    after.len()
                ),
            });
        }
        Ok(format!(
            "{what}\nbefore: {}\nduring: a majority of both\nafter: {}",
            quorum_words(&self.voters),
            quorum_words(after)
        ))
    }

    /// The living voter with the least lag.
    fn best_successor(&self, own: u64) -> Result<u64, NodeError> {
        let others = self
            .voters
            .iter()
            .filter(|id| **id != own && self.alive.contains(id));
        let best = others.min_by_key(|id| self.lags.get(id).copied().flatten().unwrap_or(u64::MAX));
        best.copied().ok_or_else(|| NodeError::Unsafe {
            message: "there is no other voter that answers".to_owned(),
        })
    }
}

fn quorum_words(voters: &BTreeSet<u64>) -> String {
    let ids: Vec<String> = voters.iter().map(u64::to_string).collect();
    format!(
        "voters {} (quorum {} of {})",
        ids.join(", "),
        voters.len() / 2 + 1,
        voters.len()
    )
}

/// Entries of the leader's log that the member is not known to have.
fn lag_of(metrics: &Metrics, id: u64) -> Option<u64> {
    if metrics.id == id {
        return Some(0);
    }
    let matched = metrics.replication.as_ref()?.get(&id)?.as_ref()?.index;
    Some(metrics.last_log_index.unwrap_or(0).saturating_sub(matched))
}

fn heard_lately(metrics: &Metrics, id: u64) -> bool {
    let heard = metrics
        .heartbeat
        .as_ref()
        .and_then(|heartbeat| heartbeat.get(&id)?.as_ref());
    heard.is_some_and(|at| at.elapsed() < ALIVE)
}

fn check_addr(field: &str, addr: &str) -> Result<(), InvalidArgument> {
    let host_and_port = addr
        .rsplit_once(':')
        .filter(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0));
    match host_and_port {
        Some(_) => Ok(()),
        None => Err(InvalidArgument::new(
            field,
            "is no address",
            "host:port",
            addr,
        )),
    }
}

fn invalid(field: &str, problem: &str, limit: &str, actual: &str) -> NodeError {
    NodeError::Invalid(InvalidArgument::new(field, problem, limit, actual))
}
