//! Queues as one would write them without a store: vectors that are searched from end to end.
//!
//! The model shares the types of requests and replies with the state machine and none of its rules.

use std::cmp::Reverse;

use quorate_statemachine::limits::{DEDUPE_RETENTION_MS, QUEUE_IDLE_RETENTION_MS};
use quorate_statemachine::queue::{
    Claim, ClaimedItem, Command, Item, ItemClaim, ItemId, ItemState, Outcome, Push, Pushed, Queue,
    Renew, Response, Settle, Settled,
};
use quorate_statemachine::{Name, Refusal, Subject, Timestamp};

/// A dedupe key, whose item it names, and when it is forgotten once the item has left.
#[derive(Debug, Clone)]
pub struct RememberedKey {
    pub key: Name,
    pub item_id: ItemId,
    pub forget_at: Option<Timestamp>,
}

/// A queue with everything in it, items in the order of their pushes.
#[derive(Debug, Clone)]
pub struct ModelQueue {
    pub name: Name,
    pub created_at: Timestamp,
    pub changed_at: Timestamp,
    pub items: Vec<ClaimedItem>,
    pub keys: Vec<RememberedKey>,
    pub done: u64,
    pub looked_at_when_idle: Timestamp,
}

/// All queues; what was ever pushed and granted, for tests to pick from.
#[derive(Debug, Clone, Default)]
pub struct Model {
    pub now: Timestamp,
    pub index: u64,
    pub queues: Vec<ModelQueue>,
    pub pushed: Vec<(Name, ItemId)>,
    pub granted: Vec<(ItemId, u64)>,
}

type Outcomes<T> = Result<T, Refusal>;

impl ModelQueue {
    fn count(&self, state: ItemState) -> u64 {
        self.items
            .iter()
            .filter(|held| held.item.state == state)
            .count() as u64
    }

    /// The counters, counted.
    pub fn counters(&self) -> Queue {
        Queue {
            name: self.name.clone(),
            created_at: self.created_at,
            changed_at: self.changed_at,
            ready: self.count(ItemState::Ready),
            delayed: self.count(ItemState::Delayed),
            claimed: self.count(ItemState::Claimed),
            dead: self.count(ItemState::Dead),
            done: self.done,
            dedupe_keys: self.keys.len() as u64,
        }
    }

    fn remove(&mut self, now: Timestamp, item_id: ItemId) {
        self.items.retain(|held| held.item.item_id != item_id);
        for key in self.keys.iter_mut().filter(|key| key.item_id == item_id) {
            key.forget_at = Some(now.plus(DEDUPE_RETENTION_MS));
        }
    }

    fn pass_time(&mut self, now: Timestamp) {
        for item in self.items.iter_mut().map(|held| &mut held.item) {
            if item.state == ItemState::Delayed && item.available_at <= now {
                item.state = ItemState::Ready;
                self.changed_at = now;
            }
            if end_if_over(item, now) {
                self.changed_at = now;
            }
        }
        let keys = self.keys.len();
        self.keys
            .retain(|key| key.forget_at.is_none_or(|at| at > now));
        if self.keys.len() < keys {
            self.changed_at = now;
        }
    }

    /// Whether the queue is forgotten at `now`.
    fn is_forgotten(&mut self, now: Timestamp) -> bool {
        if now < self.looked_at_when_idle {
            return false;
        }
        let empty = self.items.is_empty() && self.keys.is_empty();
        let from = if empty { self.changed_at } else { now };
        self.looked_at_when_idle = from.plus(QUEUE_IDLE_RETENTION_MS);
        self.looked_at_when_idle <= now
    }
}

/// Ends a claim whose time is over; says whether there was one.
fn end_if_over(item: &mut Item, now: Timestamp) -> bool {
    let Some(claim) = item.claim.clone().filter(|claim| claim.expires_at <= now) else {
        return false;
    };
    item.claim = None;
    item.note = format!("claim by {} expired", claim.owner.owner_id);
    after_attempt(item, now, 0);
    true
}

fn after_attempt(item: &mut Item, now: Timestamp, delay_ms: u64) {
    item.claim = None;
    if item.max_attempts > 0 && item.attempts >= item.max_attempts {
        item.state = ItemState::Dead;
        return;
    }
    item.available_at = now.plus(delay_ms);
    item.state = match delay_ms {
        0 => ItemState::Ready,
        _ => ItemState::Delayed,
    };
}

impl Model {
    /// Cluster time goes on to `now`.
    pub fn pass_time(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
        for queue in &mut self.queues {
            queue.pass_time(now);
        }
        self.queues.retain_mut(|queue| !queue.is_forgotten(now));
    }

    /// Does a command, or refuses it and changes nothing.
    pub fn execute(&mut self, step: u64, command: &Command) -> Outcomes<Response> {
        let before = self.clone();
        let outcome = match command {
            Command::Push(push) => Ok(Response::Push(self.push(step, push))),
            Command::Claim(claim) => Ok(Response::Claim(self.claim(claim))),
            Command::Renew(renew) => self.renew(renew).map(Response::Renew),
            Command::Settle(settle) => self.settle(settle).map(Response::Settle),
            Command::Cancel(cancel) => self
                .cancel(&cancel.queue, cancel.item_id)
                .map(Response::Cancel),
            Command::Requeue(requeue) => self
                .requeue(&requeue.queue, requeue.item_id)
                .map(Response::Requeue),
        };
        if outcome.is_err() {
            *self = before;
        }
        outcome
    }

    /// The queue, if there is one.
    pub fn queue(&self, name: &Name) -> Option<&ModelQueue> {
        self.queues.iter().find(|queue| queue.name == *name)
    }

    fn queue_mut(&mut self, name: &Name) -> Option<&mut ModelQueue> {
        self.queues.iter_mut().find(|queue| queue.name == *name)
    }

    /// The item, if it is in the queue.
    pub fn item(&self, name: &Name, item_id: ItemId) -> Option<&Item> {
        let items = &self.queue(name)?.items;
        items
            .iter()
            .map(|held| &held.item)
            .find(|item| item.item_id == item_id)
    }

    fn push(&mut self, step: u64, push: &Push) -> Pushed {
        let (now, index) = (self.now, self.index);
        if self.queue(&push.queue).is_none() {
            self.queues.push(ModelQueue {
                name: push.queue.clone(),
                created_at: now,
                changed_at: now,
                items: Vec::new(),
                keys: Vec::new(),
                done: 0,
                looked_at_when_idle: now.plus(QUEUE_IDLE_RETENTION_MS),
            });
        }
        let queue = self.queue_mut(&push.queue).expect("made above");
        let known = queue
            .keys
            .iter()
            .find(|known| Some(&known.key) == push.dedupe_key.as_ref());
        if let Some(known) = known {
            return Pushed {
                item_id: known.item_id,
                duplicate: true,
            };
        }
        let item_id = ItemId(index * 1024 + step);
        queue.changed_at = now;
        queue.items.push(ClaimedItem {
            item: new_item(item_id, now, push),
            payload: push.payload.clone(),
        });
        queue
            .keys
            .extend(push.dedupe_key.iter().map(|key| RememberedKey {
                key: key.clone(),
                item_id,
                forget_at: None,
            }));
        self.pushed.push((push.queue.clone(), item_id));
        Pushed {
            item_id,
            duplicate: false,
        }
    }

    fn claim(&mut self, claim: &Claim) -> Vec<ClaimedItem> {
        let (now, token) = (self.now, self.index);
        let mut claimed = Vec::new();
        let Some(queue) = self.queue_mut(&claim.queue) else {
            return claimed;
        };
        for _ in 0..claim.max {
            let ready = queue
                .items
                .iter_mut()
                .filter(|held| held.item.state == ItemState::Ready);
            let first = ready.max_by_key(|held| (held.item.priority, Reverse(held.item.item_id)));
            let Some(held) = first else {
                break;
            };
            held.item.state = ItemState::Claimed;
            held.item.attempts += 1;
            held.item.claim = Some(ItemClaim {
                owner: claim.owner.clone(),
                fencing_token: token,
                ttl_ms: claim.ttl_ms,
                claimed_at: now,
                expires_at: now.plus(claim.ttl_ms),
                filed_at: now.plus(claim.ttl_ms),
            });
            queue.changed_at = now;
            claimed.push(held.clone());
        }
        for held in &claimed {
            let mut earlier = self
                .granted
                .iter()
                .filter(|(of, _)| *of == held.item.item_id);
            assert!(
                earlier.all(|(_, before)| *before < token),
                "tokens of an item grow"
            );
        }
        self.granted
            .extend(claimed.iter().map(|held| (held.item.item_id, token)));
        claimed
    }

    /// The queue and the place of the item in it.
    fn find(&mut self, queue: &Name, item_id: ItemId) -> Outcomes<(&mut ModelQueue, usize)> {
        let not_found = Refusal::NotFound {
            subject: Subject::Item,
            name: format!("{queue}/{item_id}"),
        };
        let Some(found) = self.queue_mut(queue) else {
            return Err(not_found);
        };
        match found
            .items
            .iter()
            .position(|held| held.item.item_id == item_id)
        {
            Some(at) => Ok((found, at)),
            None => Err(not_found),
        }
    }

    /// Refuses unless the item's live claim has this token.
    pub fn check_claim(&mut self, queue: &Name, item_id: ItemId, token: u64) -> Outcomes<()> {
        let now = self.now;
        let (found, at) = self.find(queue, item_id)?;
        let claim = found.items[at].item.claim.clone();
        let name = format!("{queue}/{item_id}");
        match claim {
            Some(claim) if claim.fencing_token == token && claim.expires_at > now => Ok(()),
            Some(claim) if claim.fencing_token == token => Err(Refusal::Expired {
                subject: Subject::Item,
                name,
                token,
                expired_at: claim.expires_at,
            }),
            other => Err(Refusal::Fenced {
                subject: Subject::Item,
                name,
                presented: token,
                current: other
                    .filter(|claim| claim.expires_at > now)
                    .map(|c| c.fencing_token),
            }),
        }
    }

    fn renew(&mut self, renew: &Renew) -> Outcomes<ItemClaim> {
        self.check_claim(&renew.queue, renew.item_id, renew.fencing_token)?;
        let now = self.now;
        let (queue, at) = self.find(&renew.queue, renew.item_id)?;
        let claim = queue.items[at].item.claim.as_mut().expect("checked above");
        claim.ttl_ms = renew.ttl_ms;
        claim.expires_at = now.plus(renew.ttl_ms);
        claim.filed_at = claim.expires_at;
        Ok(claim.clone())
    }

    fn settle(&mut self, settle: &Settle) -> Outcomes<Settled> {
        self.check_claim(&settle.queue, settle.item_id, settle.fencing_token)?;
        let now = self.now;
        if settle.outcome != Outcome::Done && settle.fencing_token == self.index {
            return Err(conflict(&settle.queue, settle.item_id));
        }
        let (queue, at) = self.find(&settle.queue, settle.item_id)?;
        queue.changed_at = now;
        let item = &mut queue.items[at].item;
        match &settle.outcome {
            Outcome::Done => {
                queue.done += 1;
                queue.remove(now, settle.item_id);
                return Ok(Settled::Done);
            }
            Outcome::Retry { delay_ms, note } => {
                item.note.clone_from(note);
                after_attempt(item, now, *delay_ms);
            }
            Outcome::Dead { note } => {
                item.note.clone_from(note);
                item.claim = None;
                item.state = ItemState::Dead;
            }
        }
        Ok(match item.state {
            ItemState::Dead => Settled::Dead,
            _ => Settled::Retried,
        })
    }

    fn cancel(&mut self, queue: &Name, item_id: ItemId) -> Outcomes<Item> {
        let now = self.now;
        let (found, at) = self.find(queue, item_id)?;
        end_if_over(&mut found.items[at].item, now);
        let item = found.items[at].item.clone();
        if item.state == ItemState::Claimed {
            return Err(conflict(queue, item_id));
        }
        found.changed_at = now;
        found.remove(now, item_id);
        Ok(item)
    }

    fn requeue(&mut self, queue: &Name, item_id: ItemId) -> Outcomes<Item> {
        let (now, index) = (self.now, self.index);
        let (found, at) = self.find(queue, item_id)?;
        let item = &mut found.items[at].item;
        if item
            .claim
            .as_ref()
            .is_some_and(|claim| claim.fencing_token == index)
        {
            return Err(conflict(queue, item_id));
        }
        end_if_over(item, now);
        if item.state != ItemState::Dead {
            return Err(conflict(queue, item_id));
        }
        item.state = ItemState::Ready;
        item.attempts = 0;
        item.available_at = now;
        found.changed_at = now;
        Ok(item.clone())
    }
}

/// A conflict without its words: those are for people.
fn conflict(queue: &Name, item_id: ItemId) -> Refusal {
    Refusal::Conflict {
        subject: Subject::Item,
        name: format!("{queue}/{item_id}"),
        problem: String::new(),
    }
}

fn new_item(item_id: ItemId, now: Timestamp, push: &Push) -> Item {
    Item {
        item_id,
        state: match push.delay_ms {
            0 => ItemState::Ready,
            _ => ItemState::Delayed,
        },
        priority: push.priority,
        attempts: 0,
        max_attempts: push.max_attempts,
        dedupe_key: push.dedupe_key.clone(),
        pushed_at: now,
        available_at: now.plus(push.delay_ms),
        payload_bytes: push.payload.len() as u64,
        claim: None,
        note: String::new(),
    }
}
