//! Locks as one would write them without a store: a list of those who hold or wait.
//!
//! The model shares the types of requests and replies with the state machine and none of its rules.
//! It ends everything at its deadline, swept or not. What the rules leave open it takes from what
//! the state machine did, and checks: when a waiter is granted (never before its turn, see
//! [`Model::hear`], and never later than it must, see [`Model::check_prompt`]), and which circle of
//! waits was found (see [`crate::circles`]).

use std::collections::VecDeque;

use quorate_statemachine::limits::{
    LOCK_HOLDERS_SHOWN, REQUEST_EVICTIONS_MAX, REQUEST_RETENTION_MS, REQUEST_SLACK_MS,
};
use quorate_statemachine::lock::{Acquire, End, Link, Member, Mode, Place};
use quorate_statemachine::notice::Notice;
use quorate_statemachine::{Name, Owner, Refusal, Subject, Timestamp};

use crate::circles;
pub use crate::rows::{deadline, token_of};

/// The caller's bytes for one acquisition.
pub type Id = [u8; 16];

/// Somebody who holds a lock or waits for it. Where its due entry is filed is no affair of the
/// model's: it is always 0 here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Party {
    pub key: Name,
    pub member: Member,
}

/// A party that is over by the rules, until the state machine has said so.
#[derive(Debug, Clone)]
struct Leaving {
    key: Name,
    member: Member,
    end: End,
    /// Its time ran out, so that the sweep may come by later.
    overdue: bool,
}

/// A lock that nobody gets before an instant, because its holder died.
#[derive(Debug, Clone)]
struct Rest {
    key: Name,
    permits: Option<u32>,
    until: Timestamp,
}

/// What is kept under an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    End(End),
    /// The answer of a command that is no acquisition.
    Other,
}

#[derive(Debug, Clone)]
struct Answered {
    id: Id,
    index: u64,
    at: Timestamp,
    kept: Kept,
}

/// All locks, and the time.
#[derive(Debug, Clone, Default)]
pub struct Model {
    pub now: Timestamp,
    pub index: u64,
    /// Ids used before this log index may be forgotten.
    pub floor: u64,
    /// All that live, in no order that matters.
    pub parties: Vec<Party>,
    /// Every grant ever made.
    pub tokens: Vec<(Name, u64)>,
    leaving: Vec<Leaving>,
    rests: Vec<Rest>,
    answered: Vec<Answered>,
    /// Every acquisition that ever ended.
    ended: Vec<(Name, Id)>,
    /// Locks granted by this entry.
    granted: Vec<Name>,
    /// Locks whose queue lost a wait to break a circle: it is looked at by the next entry.
    stirred: Vec<Name>,
}

/// How it ends when nobody ends it before.
fn ends_by_itself(member: &Member) -> End {
    match member.place {
        Place::Holding { fencing_token, .. } => End::Expired {
            fencing_token,
            at: member.expires_at,
        },
        Place::Waiting { give_up_at, .. } if give_up_at == Some(deadline(member)) => End::GaveUp,
        Place::Waiting { .. } => End::WaiterDied,
    }
}

pub fn ticket_of(member: &Member) -> Option<u64> {
    match member.place {
        Place::Waiting { ticket, .. } => Some(ticket),
        Place::Holding { .. } => None,
    }
}

impl Model {
    /// An entry begins: time goes on, never back, and what is due is over.
    pub fn begin(&mut self, index: u64, proposed_at: Timestamp) {
        self.index = index;
        self.granted.clear();
        self.stirred.clear();
        self.pass_to(self.now.max(proposed_at));
    }

    /// What is due by then is over.
    pub fn pass_to(&mut self, now: Timestamp) {
        self.now = now;
        let dead: Vec<Party> = self
            .parties
            .extract_if(.., |party| deadline(&party.member) <= now)
            .collect();
        for Party { key, member } in dead {
            let end = ends_by_itself(&member);
            self.leave(key, member, end, true);
        }
    }

    fn leave(&mut self, key: Name, member: Member, end: End, overdue: bool) {
        if let End::Expired { at, .. } = end {
            self.rests.push(Rest {
                key: key.clone(),
                permits: member.mode.permits(),
                until: at.plus(member.delay_ms),
            });
        }
        self.ended.push((key.clone(), member.id.id));
        self.leaving.push(Leaving {
            key,
            member,
            end,
            overdue,
        });
    }

    /// Ends a party that lives. The state machine must say so in this entry.
    pub fn end(&mut self, at: usize, end: End) {
        let Party { key, member } = self.parties.remove(at);
        self.leave(key, member, end, false);
    }

    /// Notices of this entry, as far as they can be told before the command does more: who left is
    /// over by the rules, who is granted is first in line and there is room, and who gave way was
    /// part of a circle. Stops at the first that cannot be told yet.
    pub fn hear(&mut self, told: &mut VecDeque<Notice>) {
        while let Some(notice) = told.front() {
            let expected = match notice {
                Notice::LockLeft { key, id, end, .. } => match end {
                    End::Deadlock { cycle } => self.gave_way(key, *id, cycle),
                    end => self.left(key, *id, end),
                },
                Notice::LockGranted {
                    key,
                    id,
                    fencing_token,
                    ..
                } => self.handed_over(key, *id, *fencing_token),
                Notice::LockProclaimed { .. } => false,
                _ => true,
            };
            if !expected {
                return;
            }
            told.pop_front();
        }
    }

    fn left(&mut self, key: &Name, id: Id, end: &End) -> bool {
        let of = |leaving: &Leaving| leaving.key == *key && leaving.member.id.id == id;
        let Some(at) = self.leaving.iter().position(of) else {
            return false;
        };
        assert_eq!(self.leaving.remove(at).end, *end, "why {key} was left");
        self.keep(id, Kept::End(end.clone()));
        true
    }

    fn handed_over(&mut self, key: &Name, id: Id, token: u64) -> bool {
        let Some(at) = self.find(key, id) else {
            return false;
        };
        let ticket = ticket_of(&self.parties[at].member).expect("who is granted had waited");
        let first = self.waiters(key).first().and_then(|first| ticket_of(first));
        assert_eq!(Some(ticket), first, "{key} goes to the first in line");
        self.grant(at, token);
        true
    }

    /// A wait that was ended because it was part of a circle.
    fn gave_way(&mut self, key: &Name, id: Id, cycle: &[Link]) -> bool {
        let at = self.find(key, id).expect("who gives way lives");
        circles::check_victim(self, &self.parties[at], cycle);
        self.stirred.push(key.clone());
        let Party { key, member } = self.parties.remove(at);
        self.ended.push((key, member.id.id));
        let end = End::Deadlock {
            cycle: cycle.to_vec(),
        };
        self.keep(id, Kept::End(end));
        true
    }

    /// Makes a party a holder, if there is room for it.
    fn grant(&mut self, at: usize, token: u64) {
        let Party { key, member } = &self.parties[at];
        assert!(self.has_room(key, member.mode), "there is room in {key}");
        assert!(
            !self.granted.contains(key),
            "{key} is granted once an entry"
        );
        assert_eq!(token, self.index, "a token is the grant's log index");
        let mut before = self.tokens.iter().filter(|(of, _)| of == key);
        assert!(before.all(|(_, before)| *before < token), "tokens grow");
        let key = key.clone();
        self.granted.push(key.clone());
        self.tokens.push((key, token));
        self.hold(at, token);
    }

    fn hold(&mut self, at: usize, fencing_token: u64) {
        let (now, member) = (self.now, &mut self.parties[at].member);
        member.expires_at = now.plus(member.ttl_ms);
        member.place = Place::Holding {
            fencing_token,
            granted_at: now,
            renewed_at: now,
        };
    }

    /// Adds a party that waits, as everyone does first.
    fn add(&mut self, asked: &Acquire) -> usize {
        let (key, id) = (asked.key.clone(), asked.id.id);
        assert_eq!(self.find(&key, id), None, "an acquisition is there once");
        assert!(
            !self.ended.contains(&(key.clone(), id)),
            "an acquisition that ended neither waits nor holds again"
        );
        let member = Member {
            id: asked.id,
            owner: asked.owner.clone(),
            mode: asked.mode,
            ttl_ms: asked.ttl_ms,
            wait_ttl_ms: asked.wait_ttl_ms,
            delay_ms: asked.delay_ms,
            reentrant: asked.reentrant,
            asked_at: self.now,
            expires_at: self.now.plus(asked.wait_ttl_ms),
            filed_at: Timestamp(0),
            place: Place::Waiting {
                ticket: self.index,
                give_up_at: asked.max_wait_ms.map(|ms| self.now.plus(ms)),
            },
            metadata: asked.metadata.clone(),
        };
        self.parties.push(Party { key, member });
        self.parties.len() - 1
    }

    /// A new place in the queue.
    pub fn add_waiter(&mut self, asked: &Acquire) -> Member {
        let at = self.add(asked);
        self.parties[at].member.clone()
    }

    /// A new hold of a lock that is free.
    pub fn add_holder(&mut self, asked: &Acquire) -> Member {
        let at = self.add(asked);
        self.grant(at, self.index);
        self.parties[at].member.clone()
    }

    /// One more acquisition of a hold: it has the hold's mode, and no token of its own.
    pub fn add_to_hold(&mut self, asked: &Acquire, token: u64, mode: Mode) -> Member {
        let at = self.add(asked);
        self.parties[at].member.mode = mode;
        self.hold(at, token);
        self.parties[at].member.clone()
    }

    pub fn find(&self, key: &Name, id: Id) -> Option<usize> {
        let of = |party: &Party| party.key == *key && party.member.id.id == id;
        self.parties.iter().position(of)
    }

    /// Who holds, oldest grant first; those of one grant by their ids.
    pub fn holders(&self, key: &Name) -> Vec<&Member> {
        let of_lock = self.parties.iter().filter(|party| party.key == *key);
        let members = of_lock.map(|party| &party.member);
        let mut holders: Vec<&Member> = members.filter(|m| token_of(m).is_some()).collect();
        holders.sort_by_key(|member| (token_of(member), member.id.id));
        holders
    }

    /// The holders that an answer shows.
    pub fn holders_shown(&self, key: &Name) -> Vec<Member> {
        let holders = self.holders(key).into_iter().cloned();
        holders.take(LOCK_HOLDERS_SHOWN).collect()
    }

    /// Who waits, first in line first.
    pub fn waiters(&self, key: &Name) -> Vec<&Member> {
        let of_lock = self.parties.iter().filter(|party| party.key == *key);
        let members = of_lock.map(|party| &party.member);
        let mut waiters: Vec<&Member> = members.filter(|m| ticket_of(m).is_some()).collect();
        waiters.sort_by_key(|member| ticket_of(member));
        waiters
    }

    /// Grants that are held.
    pub fn tokens_held(&self, key: &Name) -> Vec<u64> {
        let holders = self.holders(key);
        let mut tokens: Vec<u64> = holders.into_iter().filter_map(token_of).collect();
        tokens.dedup();
        tokens
    }

    /// Whether one more may hold, the queue aside.
    pub fn has_room(&self, key: &Name, mode: Mode) -> bool {
        self.rests_until(key).is_none() && has_room(&self.holders(key), mode)
    }

    /// Until when nobody is granted the lock, if its holder has died.
    pub fn rests_until(&self, key: &Name) -> Option<Timestamp> {
        let rests = self.rests.iter().filter(|rest| rest.key == *key);
        rests
            .map(|rest| rest.until)
            .filter(|until| *until > self.now)
            .max()
    }

    /// Whether the entry may grant the lock at once to who asks now.
    pub fn is_free(&self, key: &Name, mode: Mode) -> bool {
        self.waiters(key).is_empty() && self.has_room(key, mode) && !self.granted.contains(key)
    }

    /// The permits of the lock as it is used just now, and none if it is not.
    pub fn used_as(&self, key: &Name) -> Option<Option<u32>> {
        let parties = self.parties.iter().filter(|party| party.key == *key);
        let modes = parties.map(|party| party.member.mode.permits());
        let rests = self
            .rests
            .iter()
            .filter(|rest| rest.key == *key && rest.until > self.now);
        modes.chain(rests.map(|rest| rest.permits)).next()
    }

    /// How an acquisition ended, if its end is known and not forgotten.
    pub fn kept(&self, key: &Name, id: Id) -> Option<Kept> {
        if let Some(end) = self.leaving_end(key, id) {
            return Some(Kept::End(end));
        }
        let answered = self.answered.iter().find(|answered| answered.id == id);
        answered.map(|answered| answered.kept.clone())
    }

    /// How an acquisition ended that the sweep has not come by.
    pub fn leaving_end(&self, key: &Name, id: Id) -> Option<End> {
        let of = |leaving: &&Leaving| leaving.key == *key && leaving.member.id.id == id;
        self.leaving
            .iter()
            .find(of)
            .map(|leaving| leaving.end.clone())
    }

    /// Remembers what became of an id, unless something did before.
    pub fn keep(&mut self, id: Id, kept: Kept) {
        if self.answered.iter().any(|answered| answered.id == id) {
            return;
        }
        let (index, at) = (self.index, self.now);
        self.answered.push(Answered {
            id,
            index,
            at,
            kept,
        });
    }

    /// Forgets what is old, a bounded number of the oldest at a time.
    pub fn forget(&mut self) {
        self.answered
            .sort_by_key(|answered| (answered.index, answered.id));
        let age = |answered: &Answered| self.now.since(answered.at);
        let oldest = self.answered.first().map_or(0, age);
        if oldest < REQUEST_RETENTION_MS + REQUEST_SLACK_MS {
            return;
        }
        let old = self
            .answered
            .iter()
            .take_while(|a| age(a) >= REQUEST_RETENTION_MS);
        let count = old.take(REQUEST_EVICTIONS_MAX).count();
        let last = self.answered.drain(..count).next_back();
        self.floor = last.expect("the oldest is old").index;
    }

    /// How many ids are remembered.
    pub fn answered(&self) -> u64 {
        self.answered.len() as u64
    }

    /// The hold of `token`, or what became of it.
    pub fn hold_of(&self, key: &Name, token: u64) -> Result<Vec<Member>, Refusal> {
        let holders = self.holders(key).into_iter().cloned();
        let of_token: Vec<Member> = holders.filter(|m| token_of(m) == Some(token)).collect();
        if !of_token.is_empty() {
            return Ok(of_token);
        }
        let of =
            |leaving: &&Leaving| leaving.key == *key && token_of(&leaving.member) == Some(token);
        let unswept = self.leaving.iter().filter(of);
        match unswept.map(|leaving| leaving.member.expires_at).max() {
            Some(expired_at) => Err(Refusal::Expired {
                subject: Subject::Lock,
                name: key.to_string(),
                token,
                expired_at,
            }),
            None => Err(self.fenced(key, token)),
        }
    }

    pub fn fenced(&self, key: &Name, presented: u64) -> Refusal {
        Refusal::Fenced {
            subject: Subject::Lock,
            name: key.to_string(),
            presented,
            current: self.tokens_held(key).first().copied(),
        }
    }

    /// Live holds of the owner that it may enter again in this mode: token and mode.
    pub fn holds_to_enter(&self, key: &Name, owner: &Owner, mode: Mode) -> Vec<(u64, Mode)> {
        let own = self.holders(key).into_iter().filter(|member| {
            let fits = member.mode == mode || member.mode == Mode::Exclusive;
            member.owner.is(owner) && member.reentrant && fits
        });
        own.filter_map(|member| Some((token_of(member)?, member.mode)))
            .collect()
    }

    /// Nothing that this entry had to do was left undone: what ended by the command was told, and,
    /// where the sweep is not behind, what is due was ended, and whoever is first in line holds the
    /// lock if there is room and the entry had not granted it already.
    pub fn check_prompt(&self, behind: bool) {
        let untold = self
            .leaving
            .iter()
            .find(|leaving| !behind || !leaving.overdue);
        assert!(untold.is_none(), "nobody was told: {untold:?}");
        for party in &self.parties {
            let key = &party.key;
            let waits = behind || self.granted.contains(key) || self.stirred.contains(key);
            assert!(waits || !self.may_hand_over(key), "{key} is handed over");
        }
    }

    /// Whether somebody waits for whom there is room.
    pub fn may_hand_over(&self, key: &Name) -> bool {
        let waiters = self.waiters(key);
        waiters
            .first()
            .is_some_and(|first| self.has_room(key, first.mode))
    }

    /// When something happens to a lock next, if nobody does anything.
    pub fn next_event(&self) -> Option<Timestamp> {
        let ends = self.parties.iter().map(|party| deadline(&party.member));
        let rests = self
            .rests
            .iter()
            .filter_map(|rest| self.rests_until(&rest.key));
        let grants = self
            .parties
            .iter()
            .filter(|party| self.may_hand_over(&party.key));
        let grants = grants.map(|_| self.now);
        ends.chain(rests).chain(grants).min()
    }

    /// Holders exclude each other as their modes say.
    pub fn check_exclusion(&self) {
        for party in &self.parties {
            let holders = self.holders(&party.key);
            let tokens = self.tokens_held(&party.key).len();
            let exclusive = holders.iter().any(|member| member.mode == Mode::Exclusive);
            assert!(
                !exclusive || tokens == 1,
                "an exclusive hold is alone: {holders:?}"
            );
            let permits = holders.iter().filter_map(|member| member.mode.permits());
            assert!(
                permits.clone().all(|of| tokens <= of as usize),
                "{holders:?}"
            );
        }
    }
}

/// Whether there is room for one more beside these.
pub fn has_room(holders: &[&Member], mode: Mode) -> bool {
    let mut tokens: Vec<_> = holders.iter().map(|member| token_of(member)).collect();
    tokens.dedup();
    match mode {
        Mode::Exclusive => tokens.is_empty(),
        Mode::Shared => holders.iter().all(|member| member.mode == Mode::Shared),
        Mode::Permit { of } => tokens.len() < of as usize,
    }
}
