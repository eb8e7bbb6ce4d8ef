//! Where a member is: told by itself, or by an administrator.

use std::collections::BTreeMap;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver;
use quorate_rpc::{NodeError, v1};
use quorate_statemachine::InvalidArgument;

use super::{changed, commit, one_at_a_time};
use crate::core::Core;
use crate::plan::Plan;
use crate::propose::no_leader;
use crate::raft::Member;

/// How long a node waits for a leader among those it tells where it is, before it tells them again.
const TELLING_MAX: Duration = Duration::from_secs(5);

/// Tells where this node is to whoever leads: to all other members, as a leader without a quorum
/// that does not know the address cannot tell that it leads.
pub async fn announce_everywhere(core: &Core, own: v1::Member) -> Result<(), NodeError> {
    let members: Vec<(u64, Member)> = {
        let metrics = core.raft().metrics();
        let metrics = metrics.borrow_watched();
        let nodes = metrics.membership_config.membership().nodes();
        let others = nodes.filter(|(id, _)| **id != own.id);
        others.map(|(id, member)| (*id, member.clone())).collect()
    };
    let telling = members.iter().map(|(id, member)| {
        let request = v1::AdministerRequest {
            request: Some(v1::administer_request::Request::Announce(own.clone())),
        };
        Box::pin(async move {
            let reply = core.peers.administer(*id, member, request).await?;
            reply.error.map_or(Ok(()), |error| Err(error.into()))
        })
    });
    if members.is_empty() {
        return Err(no_leader());
    }
    let told = tokio::time::timeout(TELLING_MAX, futures::future::select_ok(telling));
    match told.await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(no_leader()),
    }
}

/// A member tells that its addresses are others than the membership says.
pub(super) async fn announce(core: &Core, told: v1::Member) -> Result<v1::MemberChange, NodeError> {
    let id = told.id;
    check_addr("peer_addr", &told.peer_addr)?;
    check_addr("client_addr", &told.client_addr)?;
    Plan::of(core).member(id)?;
    // At once: it may be the one that is missing for the quorum which a change needs. It is told by
    // the node itself, which is reached nowhere else, whatever becomes of the change.
    core.peers.moved(id, &told.peer_addr);
    let _changing = one_at_a_time(core).await?;
    let plan = Plan::of(core);
    let member = Member {
        name: told.name,
        peer_addr: told.peer_addr,
        client_addr: told.client_addr,
        http_addr: told.http_addr,
        goal: plan.member(id)?.goal,
    };
    let words = format!("member {id} is now {member}");
    set_member(core, &plan, id, member).await?;
    Ok(changed(core, id, words))
}

pub(super) async fn update(
    core: &Core,
    update: v1::UpdateMemberRequest,
) -> Result<v1::MemberChange, NodeError> {
    let _changing = one_at_a_time(core).await?;
    let plan = Plan::of(core);
    let known = plan.member(update.id)?;
    let told = |field, told: String, known: &String| match told.as_str() {
        "" => Ok(known.clone()),
        addr => check_addr(field, addr).map(|()| told),
    };
    let member = Member {
        peer_addr: told("peer_addr", update.peer_addr, &known.peer_addr)?,
        client_addr: told("client_addr", update.client_addr, &known.client_addr)?,
        http_addr: told("http_addr", update.http_addr, &known.http_addr)?,
        ..known.clone()
    };
    let words = plan.relocation(update.id, &member)?;
    if !update.dry_run {
        set_member(core, &plan, update.id, member).await?;
    }
    Ok(changed(core, update.id, words))
}

pub(super) async fn set_member(
    core: &Core,
    plan: &Plan,
    id: u64,
    member: Member,
) -> Result<(), NodeError> {
    let addr = member.peer_addr.clone();
    if plan.member(id)? != &member {
        let change = ChangeMembers::SetNodes(BTreeMap::from([(id, member)]));
        commit(core, change, true).await?;
    }
    core.peers.moved(id, &addr);
    Ok(())
}

pub(super) fn check_addr(field: &str, addr: &str) -> Result<(), InvalidArgument> {
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
