//! Who can lead next, and how leadership is handed over.

use std::collections::BTreeSet;
use std::time::Duration;

use quorate_rpc::{NodeError, v1};

use super::changed;
use crate::core::Core;
use crate::plan::Plan;

/// How long a member is waited for that is asked whether it can lead.
const ANSWER_MAX: Duration = Duration::from_secs(1);

pub(super) async fn transfer(
    core: &Core,
    request: v1::MemberRequest,
) -> Result<v1::MemberChange, NodeError> {
    let plan = Plan::of(core);
    let own = core.identity().node_id;
    let to = if request.id == 0 {
        successor(core, &plan, |_| true).await?
    } else {
        request.id
    };
    if to != own {
        plan.succession(to)?;
        refuse_quarantined(core, &plan, to).await?;
    }
    let words = format!("member {own} hands leadership to member {to}");
    if request.dry_run || to == own {
        return Ok(changed(core, to, words));
    }
    hand_over(core, to).await?;
    Ok(changed(core, to, words))
}

/// The nearest of the voters that can take leadership over and are `wanted`.
pub async fn successor(
    core: &Core,
    plan: &Plan,
    wanted: impl Fn(u64) -> bool,
) -> Result<u64, NodeError> {
    let (own, mut refused) = (core.identity().node_id, BTreeSet::new());
    loop {
        let to = plan.best_successor(own, |id| wanted(id) && !refused.contains(&id))?;
        if !is_quarantined(core, plan, to).await {
            return Ok(to);
        }
        refused.insert(to);
    }
}

async fn refuse_quarantined(core: &Core, plan: &Plan, id: u64) -> Result<(), NodeError> {
    if !is_quarantined(core, plan, id).await {
        return Ok(());
    }
    Err(NodeError::Unsafe {
        message: format!(
            "member {id} is in quarantine, its state differs from that of the others; wait until \
             it has built it anew, see `quorate alarm list`"
        ),
    })
}

/// Somebody who stays when `gone` leaves must be able to lead, and to send those in quarantine what
/// they build their states from.
pub(super) async fn require_leader(core: &Core, plan: &Plan, gone: u64) -> Result<(), NodeError> {
    let mut refused = Ok(());
    for id in plan.voters.iter().copied().filter(|id| *id != gone) {
        refused = refuse_quarantined(core, plan, id).await;
        if refused.is_ok() {
            return Ok(());
        }
    }
    refused
}

/// Whether it says that its state is not to be used. One that says nothing does not say so.
pub(super) async fn is_quarantined(core: &Core, plan: &Plan, id: u64) -> bool {
    if id == core.identity().node_id {
        return core.quarantine.is_on();
    }
    let Ok(member) = plan.member(id) else {
        return false;
    };
    let asked = core.peers.describe_build(id, &member.peer_addr);
    let answer = tokio::time::timeout(ANSWER_MAX, asked).await;
    let build = answer.ok().and_then(Result::ok);
    build.is_some_and(|build| build.quarantined)
}

/// Hands leadership to `to`, which [`Plan::succession`] allows, and waits until it leads.
pub async fn hand_over(core: &Core, to: u64) -> Result<(), NodeError> {
    let triggered = core.raft().trigger().transfer_leader(to).await;
    triggered.map_err(|error| crate::server::fatal(&error))?;
    let moved = core
        .raft()
        .wait(Some(Duration::from_secs(10)))
        .current_leader(to, "transfer")
        .await;
    moved.map(drop).map_err(|_| NodeError::DeadlineExceeded {
        message: format!("member {to} has not become the leader in 10 s; look at the status"),
    })
}
