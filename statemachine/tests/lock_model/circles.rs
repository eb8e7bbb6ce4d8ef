//! Circles of waits, found by playing on: whoever waits for nothing gives back all it holds, queues
//! move up, and so on until nothing moves (Holt, "Some Deadlock Properties of Computer Systems",
//! 1972). Who still waits then could never go on.
//!
//! A wait that the state machine ends as part of a circle must be stuck in this sense, whatever the
//! modes. The other way round it must find a circle in which each lock is held by one exclusive
//! holder; what else is stuck it may leave to the limits of the waits.

use quorate_statemachine::Owner;
use quorate_statemachine::lock::{Acquire, Link, Member, Mode, Place};

use crate::model::{Id, Model, Party, has_room, ticket_of, token_of};

fn is_link_of(link: &Link, owner: &Owner) -> bool {
    link.owner_id == owner.owner_id && link.incarnation_id == owner.incarnation_id
}

/// Whether the wait is granted if all others release what they hold as soon as they wait for
/// nothing, and nobody's time runs out.
fn goes_on(model: &Model, of: &Party) -> bool {
    let mut left: Vec<Party> = model.parties.clone();
    loop {
        let count = left.len();
        let waits = |parties: &[Party], owner: &Owner| {
            let mut own = parties.iter().filter(|party| party.member.owner.is(owner));
            own.any(|party| ticket_of(&party.member).is_some())
        };
        let held = left.clone();
        left.retain(|party| waits(&held, &party.member.owner));
        let granted = left.iter().position(|party| is_next(&left, party));
        if let Some(at) = granted {
            let party = &left[at];
            if party.key == of.key && party.member.id == of.member.id {
                return true;
            }
            hold(&mut left, at);
        } else if left.len() == count {
            return false;
        }
    }
}

/// Whether a party is first in line, and has room.
fn is_next(parties: &[Party], party: &Party) -> bool {
    let Some(ticket) = ticket_of(&party.member) else {
        return false;
    };
    let others: Vec<&Member> = parties
        .iter()
        .filter(|other| other.key == party.key)
        .map(|other| &other.member)
        .collect();
    let first = others.iter().filter_map(|member| ticket_of(member)).min();
    let mut holders: Vec<&Member> = others
        .into_iter()
        .filter(|member| token_of(member).is_some())
        .collect();
    holders.sort_by_key(|member| token_of(member));
    first == Some(ticket) && has_room(&holders, party.member.mode)
}

/// Makes a waiter a holder, with a token above all others.
fn hold(parties: &mut [Party], at: usize) {
    let tokens = parties.iter().filter_map(|party| token_of(&party.member));
    let fencing_token = tokens.max().unwrap_or(0) + 1;
    let member = &mut parties[at].member;
    member.place = Place::Holding {
        fencing_token,
        granted_at: member.asked_at,
        renewed_at: member.asked_at,
    };
}

/// Each link waits for what the next one holds, the last one for what the first one holds.
fn check_named(model: &Model, cycle: &[Link]) {
    assert!(!cycle.is_empty(), "a circle has somebody in it");
    let next = cycle.iter().cycle().skip(1);
    for (link, next) in cycle.iter().zip(next) {
        let of_key = model.parties.iter().filter(|p| p.key == link.waits_for);
        let mut members = of_key.map(|party| &party.member);
        let waits = |m: &&Member| is_link_of(link, &m.owner) && ticket_of(m).is_some();
        assert!(
            members.clone().any(|m| waits(&m)),
            "{link:?} waits: {cycle:?}"
        );
        let holds = |m: &Member| is_link_of(next, &m.owner) && token_of(m).is_some();
        assert!(
            members.any(holds),
            "{next:?} holds what {link:?} waits for: {cycle:?}"
        );
    }
}

/// A wait that was ended for being part of a circle was that, and no other in it is younger.
pub fn check_victim(model: &Model, victim: &Party, cycle: &[Link]) {
    check_named(model, cycle);
    let own = |link: &&Link| is_link_of(link, &victim.member.owner) && link.waits_for == victim.key;
    assert!(
        cycle.iter().any(|link| own(&link)),
        "{victim:?} is in {cycle:?}"
    );
    assert!(!goes_on(model, victim), "{victim:?} would go on: {cycle:?}");
    let ticket = ticket_of(&victim.member);
    for link in cycle {
        let of_link = model
            .parties
            .iter()
            .filter(|party| party.key == link.waits_for && is_link_of(link, &party.member.owner));
        let oldest = of_link.filter_map(|party| ticket_of(&party.member)).min();
        assert!(oldest <= ticket, "the youngest wait gives way: {cycle:?}");
    }
}

/// A circle that an acquisition would close is one, and starts with it.
pub fn check_refused(model: &Model, asked: &Acquire, cycle: &[Link]) {
    let mut model = model.clone();
    let id: Id = model.add_waiter(asked).id.id;
    check_named(&model, cycle);
    let first = &cycle[0];
    assert!(
        is_link_of(first, &asked.owner) && first.waits_for == asked.key,
        "{cycle:?}"
    );
    let at = model.find(&asked.key, id).expect("added above");
    let party = &model.parties[at];
    assert!(!goes_on(&model, party), "{asked:?} would go on: {cycle:?}");
}

/// Who waits for whom, as far as the lock is held by one exclusive holder.
fn edges(model: &Model) -> Vec<(Owner, Owner)> {
    let waits = model
        .parties
        .iter()
        .filter(|p| ticket_of(&p.member).is_some());
    let exclusive = waits.filter_map(|party| {
        let holders = model.holders(&party.key);
        let holder = holders.into_iter().find(|m| m.mode == Mode::Exclusive)?;
        Some((party.member.owner.clone(), holder.owner.clone()))
    });
    exclusive.collect()
}

/// Whether `from` waits for `to`, by however many steps.
fn leads_to(edges: &[(Owner, Owner)], from: &Owner, to: &Owner) -> bool {
    let mut reached = vec![from.clone()];
    let mut at = 0;
    while at < reached.len() {
        let nexts = edges.iter().filter(|(waiting, _)| waiting.is(&reached[at]));
        let new: Vec<Owner> = nexts
            .filter(|(_, next)| !reached.iter().any(|known| known.is(next)))
            .map(|(_, next)| next.clone())
            .collect();
        reached.extend(new);
        at += 1;
    }
    edges
        .iter()
        .any(|(last, next)| next.is(to) && reached.iter().any(|owner| owner.is(last)))
}

/// Whether an acquisition, if it waited, would close a circle of exclusive holders.
pub fn would_close_one(model: &Model, asked: &Acquire) -> bool {
    let mut model = model.clone();
    model.add_waiter(asked);
    let holders = model.holders(&asked.key);
    let Some(holder) = holders.into_iter().find(|m| m.mode == Mode::Exclusive) else {
        return false;
    };
    holder.owner.is(&asked.owner) || leads_to(&edges(&model), &holder.owner, &asked.owner)
}

/// No circle of exclusive holders is left behind by an entry. One that waits for the very lock that
/// it was granted by another of its acquisitions is in no circle with others.
pub fn check_none(model: &Model) {
    let edges = edges(model);
    let others: Vec<_> = edges
        .into_iter()
        .filter(|(from, to)| !from.is(to))
        .collect();
    for (from, _) in &others {
        assert!(
            !leads_to(&others, from, from),
            "{from:?} waits in a circle: {others:?}"
        );
    }
}
