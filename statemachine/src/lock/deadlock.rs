//! Deadlocks: a circle of owners each of whom waits for what the next one holds.
//!
//! The search starts from a wait and follows holders to what they wait for in turn (Coffman,
//! Elphick, Shoshani, "System Deadlocks", 1971). A wait that holders keep back is stuck if any of
//! them is; a wait for a permit only if all of them are, since any one would do. A wait that
//! something else keeps back, a delay or the rule of one grant an entry, is not stuck. An owner
//! incarnation is one flow of control: while it waits it releases nothing. The search looks at a
//! bounded number of members and never errs by naming a circle that is none; a circle too large to
//! be seen ends by the waits' limits.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::hand_over::end_wait;
use super::row::{holders, member_of, waiters_before};
use super::{End, Member, Mode, Place};
use crate::context::Context;
use crate::id::{Name, Owner};
use crate::limits::{DEADLOCK_CYCLE_MAX, DEADLOCK_LOOKS_MAX, MEMBERS_ENDED_MAX};
use crate::refusal::Broken;
use crate::tables::{MetaRow, lock_key, lock_owner_prefix, lock_owner_subject};
use crate::time::Timestamp;
use crate::transaction::Transaction;

/// One wait of a circle: the owner waits for the key, which the next owner holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Who waits.
    pub owner_id: Name,
    /// Which boot, or which flow, of it.
    pub incarnation_id: Name,
    /// For what.
    pub waits_for: Name,
}

/// A wait on the path of the search.
#[derive(Debug, Clone)]
struct Step {
    owner: Owner,
    key: Name,
    wait: Wait,
}

/// A wait as the search sees it.
#[derive(Debug, Clone, Copy)]
struct Wait {
    mode: Mode,
    /// Acquisition and ticket; none for one that is about to wait, behind all others.
    place: Option<([u8; 16], u64)>,
}

/// The circle that a wait of `owner` for `key` would close.
pub(super) fn find(
    tx: &mut Transaction<'_>,
    ctx: &Context,
    owner: &Owner,
    key: &Name,
    mode: Mode,
) -> Result<Option<Vec<Link>>, Broken> {
    let newcomer = Wait { mode, place: None };
    let path = Search::new(tx, ctx.now, owner, DEADLOCK_LOOKS_MAX).run(key, newcomer)?;
    Ok(path.map(|path| links(&path)))
}

/// Ends the youngest wait of each circle that was closed by a grant to an owner which waits for
/// another lock too, a bounded number. True if there was one.
pub(super) fn break_after_grant(
    tx: &mut Transaction<'_>,
    meta: &mut MetaRow,
    ctx: &Context,
    holder: &Member,
) -> Result<bool, Broken> {
    let mut broke = false;
    let mut looks = DEADLOCK_LOOKS_MAX;
    for _ in 0..MEMBERS_ENDED_MAX {
        let Some(path) = circle_of(tx, ctx.now, &holder.owner, &mut looks)? else {
            return Ok(broke);
        };
        let waits = path
            .iter()
            .filter_map(|step| Some((step, step.wait.place?)));
        let Some((step, (id, _))) = waits.max_by_key(|(_, (_, ticket))| *ticket) else {
            return Ok(broke);
        };
        let cycle = links(&path);
        end_wait(tx, meta, ctx, &step.key, id, End::Deadlock { cycle })?;
        broke = true;
    }
    Ok(broke)
}

/// A circle that one of the owner's waits is a part of. All searches of an entry share `looks`.
fn circle_of(
    tx: &mut Transaction<'_>,
    now: Timestamp,
    owner: &Owner,
    looks: &mut usize,
) -> Result<Option<Vec<Step>>, Broken> {
    for (key, member) in waits_of(tx, now, owner, *looks)? {
        *looks = looks.saturating_sub(1);
        let mut search = Search::new(tx, now, owner, *looks);
        let path = search.run(&key, wait(&member))?;
        *looks = search.looks;
        if path.is_some() {
            return Ok(path);
        }
    }
    Ok(None)
}

fn links(path: &[Step]) -> Vec<Link> {
    path.iter()
        .map(|step| Link {
            owner_id: step.owner.owner_id.clone(),
            incarnation_id: step.owner.incarnation_id.clone(),
            waits_for: step.key.clone(),
        })
        .collect()
}

fn wait(member: &Member) -> Wait {
    let place = match member.place {
        Place::Waiting { ticket, .. } => Some((member.id.id, ticket)),
        Place::Holding { .. } => None,
    };
    Wait {
        mode: member.mode,
        place,
    }
}

/// What `owner` waits for: live waits only, at most `limit`.
fn waits_of(
    tx: &mut Transaction<'_>,
    now: Timestamp,
    owner: &Owner,
    limit: usize,
) -> Result<Vec<(Name, Member)>, Broken> {
    let mut subjects = Vec::new();
    let prefix = lock_owner_prefix(owner);
    tx.scan(&prefix, &lock_owner_prefix(owner).end(), &mut |key, ()| {
        subjects.push(key.to_vec());
        if subjects.len() >= limit {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    let mut waits = Vec::new();
    for subject in subjects {
        let (key, id) = lock_owner_subject(&subject)?;
        let member = member_of(tx, &key, id)?;
        if member.fencing_token().is_none() && member.is_live(now) {
            waits.push((key, member));
        }
    }
    Ok(waits)
}

struct Search<'a, 'tx> {
    tx: &'a mut Transaction<'tx>,
    now: Timestamp,
    start: &'a Owner,
    /// Members that may still be looked at.
    looks: usize,
    path: Vec<Step>,
    /// Owners looked at: how they lead back, if they do. One that is being looked at does not.
    known: BTreeMap<(Name, Name), Option<Vec<Step>>>,
}

impl<'a, 'tx> Search<'a, 'tx> {
    fn new(tx: &'a mut Transaction<'tx>, now: Timestamp, start: &'a Owner, looks: usize) -> Self {
        Self {
            tx,
            now,
            start,
            looks,
            path: Vec::new(),
            known: BTreeMap::new(),
        }
    }

    fn run(&mut self, key: &Name, wait: Wait) -> Result<Option<Vec<Step>>, Broken> {
        let start = self.start.clone();
        let found = self.wait_leads_back(&start, key, wait)?;
        Ok(found.then(|| std::mem::take(&mut self.path)))
    }

    /// Whether a wait of `owner` for `key` depends on the start. If so, the path is longer by how.
    fn wait_leads_back(&mut self, owner: &Owner, key: &Name, wait: Wait) -> Result<bool, Broken> {
        if self.path.len() >= DEADLOCK_CYCLE_MAX || self.looks == 0 {
            return Ok(false);
        }
        let length = self.path.len();
        self.path.push(Step {
            owner: owner.clone(),
            key: key.clone(),
            wait,
        });
        let found = self.holders_lead_back(key, wait)?;
        if !found {
            self.path.truncate(length);
        }
        Ok(found)
    }

    fn holders_lead_back(&mut self, key: &Name, wait: Wait) -> Result<bool, Broken> {
        let Some(lock) = self.tx.get(&lock_key(key))? else {
            return Ok(false);
        };
        let mut live = holders(self.tx, key, self.looks)?;
        self.looks -= live.len();
        live.retain(|holder| holder.is_live(self.now));
        match lock.permits {
            Some(of) => {
                let tokens = live.iter().filter_map(Member::fencing_token);
                let tokens: BTreeSet<_> = tokens.collect();
                // A permit is free, or held by somebody who was not looked at.
                let room = tokens.len() < of as usize;
                Ok(!room && self.all_lead_back(&live)?)
            }
            None => {
                let excluded = live.iter().any(|holder| holder.mode == Mode::Exclusive);
                let kept_back = excluded || self.is_behind_exclusive(key, wait)?;
                Ok(kept_back && self.any_leads_back(&live)?)
            }
        }
    }

    /// Whether those who share a lock keep this wait back: it is exclusive, or one before it is.
    fn is_behind_exclusive(&mut self, key: &Name, wait: Wait) -> Result<bool, Broken> {
        if wait.mode == Mode::Exclusive {
            return Ok(true);
        }
        let before = wait.place.map_or(u64::MAX, |(_, ticket)| ticket);
        let ahead = waiters_before(self.tx, key, before, self.looks)?;
        self.looks -= ahead.len();
        let exclusive = |member: &Member| member.mode == Mode::Exclusive;
        Ok(ahead
            .iter()
            .any(|member| exclusive(member) && member.is_live(self.now)))
    }

    /// Whether one of the holders depends on the start.
    fn any_leads_back(&mut self, holders: &[Member]) -> Result<bool, Broken> {
        for holder in holders {
            if self.leads_back(&holder.owner)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether all holders depend on the start. The path shows how the first does.
    fn all_lead_back(&mut self, holders: &[Member]) -> Result<bool, Broken> {
        let (length, mut shown) = (self.path.len(), None);
        for holder in holders {
            if !self.leads_back(&holder.owner)? {
                return Ok(false);
            }
            let how = self.path.split_off(length);
            shown.get_or_insert(how);
        }
        self.path.extend(shown.iter().flatten().cloned());
        Ok(shown.is_some())
    }

    /// Whether `owner` is the start, or waits for something that depends on it.
    fn leads_back(&mut self, owner: &Owner) -> Result<bool, Broken> {
        if owner.is(self.start) {
            return Ok(true);
        }
        let name = (owner.owner_id.clone(), owner.incarnation_id.clone());
        if let Some(known) = self.known.get(&name) {
            self.path.extend(known.iter().flatten().cloned());
            return Ok(known.is_some());
        }
        self.known.insert(name.clone(), None);
        let length = self.path.len();
        for (key, member) in waits_of(self.tx, self.now, owner, self.looks)? {
            self.looks = self.looks.saturating_sub(1);
            if self.wait_leads_back(owner, &key, wait(&member))? {
                let how = self.path[length..].to_vec();
                self.known.insert(name, Some(how));
                return Ok(true);
            }
        }
        Ok(false)
    }
}
