//! `quorate.v1.Queues`.

use std::time::Duration;

use quorate_client::WatchWhat;
use quorate_rpc::frame::TIMEOUT_MS_MAX;
use quorate_rpc::v1;
use quorate_rpc::v1::queues_server::Queues;
use quorate_rpc::v1::settle_item_request::Outcome as AskedOutcome;
use quorate_statemachine::notice::Notice;
use quorate_statemachine::queue::{
    self, Cancel, Claim, ClaimedItem, Get, Item, ItemClaim, ItemId, ItemState, List, ListItems,
    Outcome, Push, Query, Queue, Renew, Requeue, Settle, Settled,
};
use quorate_statemachine::{Answer as Found, InvalidArgument, Query as AnyQuery, Subject};
use tokio::time::Instant;
use tonic::{Request, Status};

use super::news::News;
use super::{
    Answer, Call, Typed, after, invalid, missing, name, not_found, numbered, only, optional_name,
    owner, owner_wire, preconditions, rows, wrong_kind,
};

fn claim_wire(claim: ItemClaim) -> v1::ItemClaim {
    v1::ItemClaim {
        owner: Some(owner_wire(claim.owner)),
        fencing_token: claim.fencing_token,
        ttl_ms: claim.ttl_ms,
        claimed_at_ms: claim.claimed_at.0,
        expires_at_ms: claim.expires_at.0,
    }
}

fn item_wire(item: Item) -> v1::QueueItem {
    let state = match item.state {
        ItemState::Ready => v1::ItemState::Ready,
        ItemState::Delayed => v1::ItemState::Delayed,
        ItemState::Claimed => v1::ItemState::Claimed,
        ItemState::Dead => v1::ItemState::Dead,
    };
    v1::QueueItem {
        item_id: item.item_id.0,
        state: state.into(),
        priority: item.priority.into(),
        attempts: item.attempts,
        max_attempts: item.max_attempts,
        dedupe_key: item.dedupe_key.map_or(String::new(), Into::into),
        pushed_at_ms: item.pushed_at.0,
        available_at_ms: item.available_at.0,
        payload_bytes: item.payload_bytes,
        note: item.note,
        claim: item.claim.map(claim_wire),
        ..v1::QueueItem::default()
    }
}

fn with_payload(claimed: ClaimedItem) -> v1::QueueItem {
    v1::QueueItem {
        payload: claimed.payload.into(),
        ..item_wire(claimed.item)
    }
}

fn queue_wire(queue: Queue) -> v1::Queue {
    v1::Queue {
        name: queue.name.into(),
        created_at_ms: queue.created_at.0,
        changed_at_ms: queue.changed_at.0,
        ready: queue.ready,
        delayed: queue.delayed,
        claimed: queue.claimed,
        dead: queue.dead,
        done: queue.done,
        dedupe_keys: queue.dedupe_keys,
    }
}

fn state(wire: v1::ItemState) -> Option<ItemState> {
    match wire {
        v1::ItemState::Unspecified => None,
        v1::ItemState::Ready => Some(ItemState::Ready),
        v1::ItemState::Delayed => Some(ItemState::Delayed),
        v1::ItemState::Claimed => Some(ItemState::Claimed),
        v1::ItemState::Dead => Some(ItemState::Dead),
    }
}

fn outcome(asked: Option<AskedOutcome>) -> Result<Outcome, Status> {
    match asked {
        Some(AskedOutcome::Done(_)) => Ok(Outcome::Done),
        Some(AskedOutcome::Retry(retry)) => Ok(Outcome::Retry {
            delay_ms: retry.delay_ms,
            note: retry.note,
        }),
        Some(AskedOutcome::Dead(dead)) => Ok(Outcome::Dead { note: dead.note }),
        None => Err(missing("outcome", "done, retry or dead")),
    }
}

fn settled_wire(settled: Settled) -> v1::settle_item_reply::Settled {
    use v1::settle_item_reply::Settled as Wire;
    match settled {
        Settled::Done => Wire::Done,
        Settled::Retried => Wire::Retried,
        Settled::Dead => Wire::Dead,
    }
}

fn priority(asked: u32) -> Result<u8, Status> {
    u8::try_from(asked).map_err(|_| {
        let (limit, actual) = (format!("0 to {}", u8::MAX), asked.to_string());
        invalid(InvalidArgument::new(
            "priority",
            "is out of range",
            limit,
            actual,
        ))
    })
}

/// Claims again and again until there is something, or the time to wait is over. The request id is
/// for one claim; what waits has none.
async fn claimed(
    call: &Call,
    claim: Claim,
    wait_ms: u64,
    request: Option<v1::RequestId>,
) -> Result<(u64, Vec<ClaimedItem>), Status> {
    if request.is_some() && wait_ms != 0 {
        return Err(invalid(InvalidArgument::new(
            "wait_ms",
            "is given together with a request id",
            "0 ms",
            format!("{wait_ms} ms"),
        )));
    }
    if wait_ms == 0 {
        return call.execute(claim, request).await;
    }
    // No call lasts longer than the limit.
    let wait = Duration::from_millis(wait_ms.min(TIMEOUT_MS_MAX.into()));
    let until = call.last_look.min(Instant::now() + wait);
    let mut news = News::of(call, WatchWhat::Queue(claim.queue.clone()))?;
    let ready = |notice: &Notice| matches!(notice, Notice::QueueReady { .. });
    loop {
        let (index, items) = call.execute(claim.clone(), None).await?;
        if !items.is_empty() || !news.heard(until, ready).await? {
            return Ok((index, items));
        }
    }
}

#[tonic::async_trait]
impl Queues for Typed {
    async fn push(&self, request: Request<v1::PushItemRequest>) -> Answer<v1::PushItemReply> {
        let (call, asked) = self.call(request).await?;
        let push = Push {
            queue: name("queue", asked.queue)?,
            payload: asked.payload.into(),
            dedupe_key: optional_name("dedupe_key", asked.dedupe_key)?,
            delay_ms: asked.delay_ms,
            priority: priority(asked.priority)?,
            max_attempts: asked.max_attempts,
        };
        let only_if = preconditions(asked.only_if)?;
        let (index, pushed) = call.execute_if(only_if, push, asked.request_id).await?;
        Ok(v1::PushItemReply {
            item_id: pushed.item_id.0,
            duplicate: pushed.duplicate,
            index,
        }
        .into())
    }

    async fn claim(&self, request: Request<v1::ClaimItemsRequest>) -> Answer<v1::ClaimItemsReply> {
        let (call, asked) = self.call(request).await?;
        let claim = Claim {
            queue: name("queue", asked.queue)?,
            owner: owner(asked.owner)?,
            ttl_ms: asked.ttl_ms,
            max: asked.max.max(1),
        };
        let (index, items) = claimed(&call, claim, asked.wait_ms, asked.request_id).await?;
        let items = items.into_iter().map(with_payload).collect();
        Ok(v1::ClaimItemsReply { items, index }.into())
    }

    async fn renew(&self, request: Request<v1::RenewItemRequest>) -> Answer<v1::RenewItemReply> {
        let (call, asked) = self.call(request).await?;
        let renew = Renew {
            queue: name("queue", asked.queue)?,
            item_id: ItemId(asked.item_id),
            fencing_token: asked.fencing_token,
            ttl_ms: asked.ttl_ms,
        };
        let (index, claim) = call.execute(renew, asked.request_id).await?;
        let claim = Some(claim_wire(claim));
        Ok(v1::RenewItemReply { claim, index }.into())
    }

    async fn settle(&self, request: Request<v1::SettleItemRequest>) -> Answer<v1::SettleItemReply> {
        let (call, asked) = self.call(request).await?;
        let settle = Settle {
            queue: name("queue", asked.queue)?,
            item_id: ItemId(asked.item_id),
            fencing_token: asked.fencing_token,
            outcome: outcome(asked.outcome)?,
        };
        let only_if = preconditions(asked.only_if)?;
        let (index, settled) = call.execute_if(only_if, settle, asked.request_id).await?;
        let settled = settled_wire(settled).into();
        Ok(v1::SettleItemReply { settled, index }.into())
    }

    async fn cancel(&self, request: Request<v1::CancelItemRequest>) -> Answer<v1::CancelItemReply> {
        let (call, asked) = self.call(request).await?;
        let cancel = Cancel {
            queue: name("queue", asked.queue)?,
            item_id: ItemId(asked.item_id),
        };
        let (index, item) = call.execute(cancel, asked.request_id).await?;
        let item = Some(item_wire(item));
        Ok(v1::CancelItemReply { item, index }.into())
    }

    async fn requeue(
        &self,
        request: Request<v1::RequeueItemRequest>,
    ) -> Answer<v1::RequeueItemReply> {
        let (call, asked) = self.call(request).await?;
        let requeue = Requeue {
            queue: name("queue", asked.queue)?,
            item_id: ItemId(asked.item_id),
        };
        let (index, item) = call.execute(requeue, asked.request_id).await?;
        let item = Some(item_wire(item));
        Ok(v1::RequeueItemReply { item, index }.into())
    }

    async fn get(&self, request: Request<v1::GetItemRequest>) -> Answer<v1::GetItemReply> {
        let (call, asked) = self.call(request).await?;
        let get = Get {
            queue: name("queue", asked.queue)?,
            item_id: ItemId(asked.item_id),
        };
        let query = AnyQuery::Queue(Query::Get(get));
        let found = call.read(query, asked.read).await?;
        let Found::Queue(queue::Answer::Get(item)) = found.answer else {
            return Err(wrong_kind());
        };
        Ok(v1::GetItemReply {
            item: item.map(with_payload),
            index: found.index,
            now_ms: found.now.0,
        }
        .into())
    }

    async fn list_items(
        &self,
        request: Request<v1::ListItemsRequest>,
    ) -> Answer<v1::ListItemsReply> {
        let (call, asked) = self.call(request).await?;
        let state = state(asked.state());
        let queue = name("queue", asked.queue)?;
        let list = ListItems {
            queue: queue.clone(),
            state,
            after: only(asked.after).map(ItemId),
            limit: asked.limit,
        };
        let query = AnyQuery::Queue(Query::ListItems(list));
        let found = call.read(query, asked.read).await?;
        let Found::Queue(queue::Answer::ListItems(page)) = found.answer else {
            return Err(wrong_kind());
        };
        let page = page.ok_or_else(|| not_found(Subject::Queue, &queue))?;
        let (items, next) = numbered(page, with_payload)?;
        Ok(v1::ListItemsReply {
            items,
            next,
            index: found.index,
            now_ms: found.now.0,
        }
        .into())
    }

    async fn stats(&self, request: Request<v1::QueueStatsRequest>) -> Answer<v1::QueueStatsReply> {
        let (call, asked) = self.call(request).await?;
        let list = List {
            prefix: asked.prefix,
            after: after(asked.after)?,
            limit: asked.limit,
        };
        let query = AnyQuery::Queue(Query::List(list));
        let found = call.read(query, asked.read).await?;
        let Found::Queue(queue::Answer::List(page)) = found.answer else {
            return Err(wrong_kind());
        };
        let (queues, next) = rows(page, queue_wire);
        Ok(v1::QueueStatsReply {
            queues,
            next,
            index: found.index,
            now_ms: found.now.0,
        }
        .into())
    }
}
