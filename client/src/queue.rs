//! Queues: pushing, claiming with and without waiting, settling, listing.

use std::time::Duration;

use quorate_statemachine::limits::DELAY_MS_MAX;
use quorate_statemachine::notice::Notice;
use quorate_statemachine::query::Page;
use quorate_statemachine::queue::{
    Answer, Cancel, Claim, ClaimedItem, Get, Item, ItemClaim, ItemId, List, ListItems, Outcome,
    Push, Pushed, Query, Queue, Renew, Requeue, Settle, Settled,
};
use quorate_statemachine::{
    Answer as AnyAnswer, FencingToken, InvalidArgument, Name, Owner, Query as AnyQuery,
};
use tokio::time::Instant;

use crate::client::{self, Client};
use crate::error::ClientError;
use crate::lease::wrong_answer;
use crate::transport::WatchWhat;
use crate::watch::Watch;

/// Visibility TTL of a claim that was given none.
pub const DEFAULT_VISIBILITY: Duration = Duration::from_secs(30);

/// One queue; see [`Client::queue`]. Cheap to clone.
#[derive(Debug, Clone)]
pub struct QueueClient {
    client: Client,
    queue: Name,
    owner: Owner,
    visibility: Duration,
}

/// An item to be pushed; see [`QueueClient::push`].
#[derive(Debug, Clone)]
#[must_use = "a builder pushes nothing until send is called"]
pub struct PushBuilder {
    queue: QueueClient,
    payload: Vec<u8>,
    dedupe_key: Option<String>,
    delay: Duration,
    priority: u8,
    max_attempts: u32,
}

impl PushBuilder {
    /// Guards against a second push.
    pub fn dedupe_key(mut self, key: impl Into<String>) -> Self {
        self.dedupe_key = Some(key.into());
        self
    }

    /// Not before so long from now.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Higher is claimed first; 0 if not given.
    pub fn priority(mut self, priority: u8) -> Self {
        self.priority = priority;
        self
    }

    /// Dead after so many claims; no bound if not given.
    pub fn max_attempts(mut self, max_attempts: u32) -> Self {
        self.max_attempts = max_attempts;
        self
    }

    /// Pushes it.
    pub async fn send(self) -> Result<Pushed, ClientError> {
        let dedupe_key = self.dedupe_key.map(|key| Name::parse("dedupe_key", key));
        let push = Push {
            queue: self.queue.queue.clone(),
            payload: self.payload,
            dedupe_key: dedupe_key.transpose()?,
            delay_ms: delay_ms(self.delay)?,
            priority: self.priority,
            max_attempts: self.max_attempts,
        };
        self.queue.client.execute(push).await
    }
}

fn delay_ms(delay: Duration) -> Result<u64, InvalidArgument> {
    let ms = delay.as_millis();
    match u64::try_from(ms) {
        Ok(ms) if ms <= DELAY_MS_MAX => Ok(ms),
        _ => {
            let limit = format!("0 to {DELAY_MS_MAX} ms");
            Err(InvalidArgument::new(
                "delay_ms",
                "is out of range",
                limit,
                format!("{ms} ms"),
            ))
        }
    }
}

impl Client {
    /// The queue `name`. It is made by its first push. Refuses what is no name.
    pub fn queue(&self, name: impl Into<String>) -> Result<QueueClient, ClientError> {
        Ok(QueueClient {
            client: self.clone(),
            queue: Name::parse("queue", name)?,
            owner: crate::owner::owner(None)?,
            visibility: DEFAULT_VISIBILITY,
        })
    }

    /// One page of queues with their counters.
    pub async fn queue_list(&self, list: List) -> Result<Page<Queue>, ClientError> {
        match self.queue_query(Query::List(list)).await? {
            Answer::List(page) => Ok(page),
            _ => Err(wrong_answer("queue.list")),
        }
    }

    async fn queue_query(&self, query: Query) -> Result<Answer, ClientError> {
        match self.query(AnyQuery::Queue(query)).await?.answer {
            AnyAnswer::Queue(answer) => Ok(answer),
            _ => Err(wrong_answer("a queue query")),
        }
    }
}

impl QueueClient {
    /// The same queue for another worker; this process's incarnation if not given.
    #[must_use]
    pub fn with_owner(mut self, owner: Owner) -> Self {
        self.owner = owner;
        self
    }

    /// The same queue with another visibility TTL of claims; 30 s if not given.
    #[must_use]
    pub fn with_visibility(mut self, visibility: Duration) -> Self {
        self.visibility = visibility;
        self
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.queue
    }

    /// Begins a push of `payload`.
    pub fn push(&self, payload: impl Into<Vec<u8>>) -> PushBuilder {
        PushBuilder {
            queue: self.clone(),
            payload: payload.into(),
            dedupe_key: None,
            delay: Duration::ZERO,
            priority: 0,
            max_attempts: 0,
        }
    }

    /// Claims up to `max` items; none when nothing is ready.
    pub async fn claim(&self, max: u32) -> Result<Vec<ClaimedItem>, ClientError> {
        self.client.execute(self.new_claim(max)?).await
    }

    /// Claims up to `max` items, waiting for at most `wait` until there is one; then answers none.
    ///
    /// Waits by notice: the watch is registered before each claim, so no item that becomes ready in
    /// between is slept through. Dropping the call while a claim is on its way may leave items
    /// claimed until their visibility TTL is over.
    pub async fn claim_wait(
        &self,
        max: u32,
        wait: Duration,
    ) -> Result<Vec<ClaimedItem>, ClientError> {
        let claim = self.new_claim(max)?;
        let deadline = Instant::now() + wait;
        let mut watch = Watch::new(self.client.clone(), WatchWhat::Queue(self.queue.clone()));
        loop {
            watch.register(deadline.max(self.client.deadline())).await?;
            let items = self.client.execute(claim.clone()).await?;
            if !items.is_empty() {
                return Ok(items);
            }
            let ready = |notice: &Notice| matches!(notice, Notice::QueueReady { .. });
            if !watch.changed(deadline, ready).await {
                return Ok(Vec::new());
            }
        }
    }

    fn new_claim(&self, max: u32) -> Result<Claim, ClientError> {
        let claim = Claim {
            queue: self.queue.clone(),
            owner: self.owner.clone(),
            ttl_ms: client::ttl_ms(self.visibility)?,
            max,
        };
        quorate_statemachine::Validate::validate(&claim)?;
        Ok(claim)
    }

    /// Starts a claim's visibility TTL anew.
    pub async fn renew(
        &self,
        item_id: ItemId,
        fencing_token: FencingToken,
    ) -> Result<ItemClaim, ClientError> {
        let renew = Renew {
            queue: self.queue.clone(),
            item_id,
            fencing_token,
            ttl_ms: client::ttl_ms(self.visibility)?,
        };
        self.client.execute(renew).await
    }

    /// Says how the work on an item ended.
    pub async fn settle(
        &self,
        item_id: ItemId,
        fencing_token: FencingToken,
        outcome: Outcome,
    ) -> Result<Settled, ClientError> {
        let settle = Settle {
            queue: self.queue.clone(),
            item_id,
            fencing_token,
            outcome,
        };
        self.client.execute(settle).await
    }

    /// Removes an item that nobody works on.
    pub async fn cancel(&self, item_id: ItemId) -> Result<Item, ClientError> {
        let queue = self.queue.clone();
        self.client.execute(Cancel { queue, item_id }).await
    }

    /// Gives a dead item another life.
    pub async fn requeue(&self, item_id: ItemId) -> Result<Item, ClientError> {
        let queue = self.queue.clone();
        self.client.execute(Requeue { queue, item_id }).await
    }

    /// One item with its payload.
    pub async fn get(&self, item_id: ItemId) -> Result<Option<ClaimedItem>, ClientError> {
        let queue = self.queue.clone();
        match self
            .client
            .queue_query(Query::Get(Get { queue, item_id }))
            .await?
        {
            Answer::Get(item) => Ok(item),
            _ => Err(wrong_answer("queue.get")),
        }
    }

    /// One page of items; none if there is no such queue. `list.queue` is set to this queue.
    pub async fn items(&self, list: ListItems) -> Result<Option<Page<ClaimedItem>>, ClientError> {
        let list = ListItems {
            queue: self.queue.clone(),
            ..list
        };
        match self.client.queue_query(Query::ListItems(list)).await? {
            Answer::ListItems(page) => Ok(page),
            _ => Err(wrong_answer("queue.list_items")),
        }
    }
}
