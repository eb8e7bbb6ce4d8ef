//! Queues and items as they are printed.

use quorate_statemachine::queue::{ClaimedItem, Item, ItemClaim, ItemId, Pushed, Queue};
use serde::Serialize;

use crate::output::Row;
use crate::value::{Payload, payload, preview, time};

/// An item's name in messages: `queue/item`.
pub fn item_name(queue: &str, item_id: ItemId) -> String {
    format!("{queue}/{item_id}")
}

/// A queue with its counters.
#[derive(Debug, Serialize)]
pub struct QueueRow {
    name: String,
    ready: String,
    delayed: String,
    claimed: String,
    dead: String,
    done: String,
    dedupe_keys: String,
    created_at: String,
    changed_at: String,
}

impl QueueRow {
    /// The queue.
    pub fn new(queue: &Queue) -> Self {
        Self {
            name: queue.name.to_string(),
            ready: queue.ready.to_string(),
            delayed: queue.delayed.to_string(),
            claimed: queue.claimed.to_string(),
            dead: queue.dead.to_string(),
            done: queue.done.to_string(),
            dedupe_keys: queue.dedupe_keys.to_string(),
            created_at: time(queue.created_at),
            changed_at: time(queue.changed_at),
        }
    }
}

impl Row for QueueRow {
    const HEADER: &'static [&'static str] = &[
        "NAME",
        "READY",
        "DELAYED",
        "CLAIMED",
        "DEAD",
        "DONE",
        "CHANGED AT",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.ready.clone(),
            self.delayed.clone(),
            self.claimed.clone(),
            self.dead.clone(),
            self.done.clone(),
            self.changed_at.clone(),
        ]
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

/// An item; with its claim, if somebody works on it.
#[derive(Debug, Serialize)]
pub struct ItemRow {
    queue: String,
    item_id: String,
    state: &'static str,
    attempts: u32,
    max_attempts: u32,
    priority: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Option<Payload>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    payload_bytes: String,
    dedupe_key: Option<String>,
    pushed_at: String,
    available_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fencing_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    incarnation_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    note: String,
    #[serde(skip)]
    preview: String,
}

impl ItemRow {
    /// An item of `queue` as an answer holds it.
    pub fn new(queue: &str, claimed: &ClaimedItem) -> Self {
        let (shown, base64) = payload(&claimed.payload);
        Self {
            payload: Some(shown),
            payload_base64: base64,
            preview: preview(&claimed.payload),
            ..Self::without_payload(queue, &claimed.item)
        }
    }

    /// An item of `queue` whose payload was not read.
    pub fn without_payload(queue: &str, item: &Item) -> Self {
        let claim = item.claim.as_ref();
        Self {
            queue: queue.to_owned(),
            item_id: item.item_id.to_string(),
            state: item.state.as_str(),
            attempts: item.attempts,
            max_attempts: item.max_attempts,
            priority: item.priority,
            payload: None,
            payload_base64: None,
            payload_bytes: item.payload_bytes.to_string(),
            dedupe_key: item.dedupe_key.as_ref().map(ToString::to_string),
            pushed_at: time(item.pushed_at),
            available_at: time(item.available_at),
            fencing_token: claim.map(|claim| claim.fencing_token.to_string()),
            owner_id: claim.map(|claim| claim.owner.owner_id.to_string()),
            incarnation_id: claim.map(|claim| claim.owner.incarnation_id.to_string()),
            expires_at: claim.map(|claim| time(claim.expires_at)),
            note: item.note.clone(),
            preview: String::new(),
        }
    }
}

impl Row for ItemRow {
    const HEADER: &'static [&'static str] = &[
        "ITEM",
        "STATE",
        "PRIORITY",
        "ATTEMPTS",
        "TOKEN",
        "OWNER",
        "AVAILABLE AT",
        "PAYLOAD",
        "NOTE",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.item_id.clone(),
            self.state.to_owned(),
            self.priority.to_string(),
            self.attempts.to_string(),
            self.fencing_token.clone().unwrap_or_default(),
            self.owner_id.clone().unwrap_or_default(),
            self.available_at.clone(),
            self.preview.clone(),
            preview(self.note.as_bytes()),
        ]
    }

    fn name(&self) -> String {
        self.item_id.clone()
    }
}

/// The answer to a push.
#[derive(Debug, Serialize)]
pub struct PushedRow {
    queue: String,
    item_id: String,
    duplicate: bool,
}

impl PushedRow {
    /// What a push to `queue` came to.
    pub fn new(queue: &str, pushed: &Pushed) -> Self {
        Self {
            queue: queue.to_owned(),
            item_id: pushed.item_id.to_string(),
            duplicate: pushed.duplicate,
        }
    }
}

impl Row for PushedRow {
    const HEADER: &'static [&'static str] = &["QUEUE", "ITEM", "DUPLICATE"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.queue.clone(),
            self.item_id.clone(),
            self.duplicate.to_string(),
        ]
    }

    fn name(&self) -> String {
        self.item_id.clone()
    }
}

/// A claim that was renewed.
#[derive(Debug, Serialize)]
pub struct ClaimRow {
    queue: String,
    item_id: String,
    fencing_token: String,
    owner_id: String,
    incarnation_id: String,
    ttl_ms: String,
    claimed_at: String,
    expires_at: String,
}

impl ClaimRow {
    /// The claim of an item of `queue`.
    pub fn new(queue: &str, item_id: ItemId, claim: &ItemClaim) -> Self {
        Self {
            queue: queue.to_owned(),
            item_id: item_id.to_string(),
            fencing_token: claim.fencing_token.to_string(),
            owner_id: claim.owner.owner_id.to_string(),
            incarnation_id: claim.owner.incarnation_id.to_string(),
            ttl_ms: claim.ttl_ms.to_string(),
            claimed_at: time(claim.claimed_at),
            expires_at: time(claim.expires_at),
        }
    }
}

impl Row for ClaimRow {
    const HEADER: &'static [&'static str] = &["QUEUE", "ITEM", "TOKEN", "OWNER", "EXPIRES AT"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.queue.clone(),
            self.item_id.clone(),
            self.fencing_token.clone(),
            self.owner_id.clone(),
            self.expires_at.clone(),
        ]
    }

    fn name(&self) -> String {
        self.item_id.clone()
    }
}

/// An item whose claim was settled.
#[derive(Debug, Serialize)]
pub struct SettledRow {
    queue: String,
    item_id: String,
    state: &'static str,
}

impl SettledRow {
    /// Where an item of `queue` is now.
    pub fn new(queue: &str, item_id: ItemId, state: &'static str) -> Self {
        Self {
            queue: queue.to_owned(),
            item_id: item_id.to_string(),
            state,
        }
    }
}

impl Row for SettledRow {
    const HEADER: &'static [&'static str] = &["QUEUE", "ITEM", "STATE"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.queue.clone(),
            self.item_id.clone(),
            self.state.to_owned(),
        ]
    }

    fn name(&self) -> String {
        self.item_id.clone()
    }
}
