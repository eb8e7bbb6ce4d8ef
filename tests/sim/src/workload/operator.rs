//! The operator: forms the cluster, hands leadership over, takes members out and others in.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use quorate_client::admin::{AddMemberRequest, Admin, Member};
use quorate_client::{Client, ClientError};
use tokio::time::sleep;

use super::{TIMEOUT, endpoints, note, now};
use crate::random::Random;

/// Between two tries of what was not done.
const PAUSE: Duration = Duration::from_millis(200);

/// What operator and harness tell each other of members that are replaced.
#[derive(Debug, Default)]
pub struct Members {
    /// A node whose disk is to be replaced: the operator asks for it, the harness does it.
    pub lost: Cell<Option<usize>>,
    /// A member is out, and its successor is not in yet.
    pub incomplete: Cell<bool>,
}

fn request(node: usize, replaces: u64) -> AddMemberRequest {
    AddMemberRequest {
        name: format!("n{node}"),
        peer_addr: format!("n{node}:7401"),
        client_addr: format!("n{node}:7400"),
        promote: true,
        replaces,
        ..AddMemberRequest::default()
    }
}

/// Makes a cluster of the blank nodes and the founder; tries until it is done.
pub async fn form(nodes: usize) -> turmoil::Result {
    let admin = Admin::connect(endpoints(nodes))?.with_timeout(TIMEOUT);
    for node in 2..=nodes {
        while let Err(error) = admin.add_member(request(node, 0)).await {
            note(format_args!("n{node} is no member yet: {error}"));
            sleep(PAUSE).await;
        }
        note(format_args!("n{node} is a member"));
    }
    Ok(())
}

/// Asks for a change of leaders now and then.
pub async fn transfer(nodes: usize, mut random: Random, until: Duration) -> turmoil::Result {
    let admin = Admin::connect(endpoints(nodes))?.with_timeout(TIMEOUT);
    while now() < until {
        sleep(Duration::from_millis(1_000 + random.below(6_000))).await;
        let moved = admin.transfer_leader(None, false).await;
        note(format_args!("leadership handed over: {}", moved.is_ok()));
    }
    Ok(())
}

/// Replaces members, one after the other: each is taken out first, or its disk is lost first and
/// the new member takes its place.
pub async fn replace(
    nodes: usize,
    mut random: Random,
    until: Duration,
    members: Rc<Members>,
) -> turmoil::Result {
    let admin = Admin::connect(endpoints(nodes))?.with_timeout(TIMEOUT);
    loop {
        sleep(Duration::from_millis(500 + random.below(8_000))).await;
        if now() >= until {
            return Ok(());
        }
        let node = 1 + random.below(nodes as u64) as usize;
        let old = id_of(&admin, node).await;
        note(format_args!("n{node}, member {old}, is to be replaced"));
        members.incomplete.set(true);
        let replaces = match random.chance(1, 2) {
            true => take_out(&admin, node, old).await,
            false => old,
        };
        members.lost.set(Some(node - 1));
        while members.lost.get().is_some() {
            sleep(PAUSE / 10).await;
        }
        take_in(&admin, node, old, replaces).await;
        members.incomplete.set(false);
    }
}

/// All members, once a quorum knows them.
async fn all(admin: &Admin) -> Vec<Member> {
    loop {
        match admin.members(false).await {
            Ok(list) => return list.members,
            Err(_) => sleep(PAUSE).await,
        }
    }
}

async fn id_of(admin: &Admin, node: usize) -> u64 {
    let name = format!("n{node}");
    let members = all(admin).await;
    let member = members.iter().find(|member| member.name == name);
    member.map_or(0, |member| member.id)
}

fn told<T>(what: std::fmt::Arguments<'_>, answer: &Result<T, ClientError>) {
    match answer {
        Ok(_) => note(format_args!("{what}: done")),
        Err(error) => note(format_args!("{what}: {error}")),
    }
}

/// Tries until it is gone. What the new member replaces then: nobody.
async fn take_out(admin: &Admin, node: usize, id: u64) -> u64 {
    loop {
        let removed = admin.remove_member(id, false).await;
        told(format_args!("n{node} is taken out"), &removed);
        if all(admin).await.iter().all(|member| member.id != id) {
            return 0;
        }
        sleep(PAUSE).await;
    }
}

/// Tries until it is a voter, of a quorum that needs nobody who is out.
async fn take_in(admin: &Admin, node: usize, old: u64, replaces: u64) {
    let request = request(node, replaces);
    loop {
        let added = admin.add_member(request.clone()).await;
        told(format_args!("n{node} is taken in"), &added);
        let is_in = |member: &Member| member.name == request.name && member.voter;
        let members = all(admin).await;
        let voter = members.iter().find(|it| is_in(it) && it.id != old);
        if let Some(voter) = voter
            && is_settled(admin, voter.id).await
        {
            return;
        }
        sleep(PAUSE).await;
    }
}

/// Whether no change of members is under way, nor can come back with another leader: an entry was
/// committed behind the last one. Until then a second disk must not be lost.
async fn is_settled(admin: &Admin, id: u64) -> bool {
    let done = async || admin.remove_member(id, true).await.is_ok();
    done().await && writes(admin).await.is_ok() && done().await
}

async fn writes(admin: &Admin) -> Result<(), ClientError> {
    let client = Client::connect(admin.endpoints().to_vec())?.with_timeout(TIMEOUT);
    let queue = client.queue("operator")?;
    queue.push("a member is in").send().await.map(drop)
}
