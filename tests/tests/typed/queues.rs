//! `quorate.v1.Queues`.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use quorate_rpc::v1;
use quorate_rpc::v1::leases_client::LeasesClient;
use quorate_rpc::v1::queues_client::QueuesClient;
use quorate_rpc::v1::settle_item_reply::Settled;
use quorate_rpc::v1::settle_item_request::{Dead, Done, Outcome, Retry};
use quorate_tests::cluster::{Options, scenario};
use tonic::transport::Channel;
use tonic::{Code, Request};

use super::leases::{claim as claim_lease, granted};
use super::{NODE, TTL_MS, channel, owner, refused, request_id};

type Queues = QueuesClient<Channel>;

fn push(payload: &'static str) -> v1::PushItemRequest {
    v1::PushItemRequest {
        queue: "q".to_owned(),
        payload: payload.into(),
        ..v1::PushItemRequest::default()
    }
}

fn claim(who: &str) -> v1::ClaimItemsRequest {
    v1::ClaimItemsRequest {
        queue: "q".to_owned(),
        owner: owner(who),
        ttl_ms: TTL_MS,
        ..v1::ClaimItemsRequest::default()
    }
}

fn settle(item: &v1::QueueItem, outcome: Outcome) -> v1::SettleItemRequest {
    v1::SettleItemRequest {
        queue: "q".to_owned(),
        item_id: item.item_id,
        fencing_token: token(item),
        outcome: Some(outcome),
        ..v1::SettleItemRequest::default()
    }
}

fn token(item: &v1::QueueItem) -> u64 {
    item.claim.as_ref().map_or(0, |claim| claim.fencing_token)
}

async fn stats(queues: &mut Queues) -> Result<v1::Queue> {
    let asked = v1::QueueStatsRequest {
        prefix: "q".to_owned(),
        ..v1::QueueStatsRequest::default()
    };
    let reply = queues.stats(asked).await?.into_inner();
    reply.queues.into_iter().next().context("the queue")
}

async fn one(queues: &mut Queues, asked: v1::ClaimItemsRequest) -> Result<v1::QueueItem> {
    let items = queues.claim(asked).await?.into_inner().items;
    let [item] = <[v1::QueueItem; 1]>::try_from(items)
        .map_err(|items| anyhow::anyhow!("one item was to be claimed: {items:?}"))?;
    Ok(item)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_goes_through_its_life() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let node = cluster.follower().await?;
        let mut queues = QueuesClient::new(channel(cluster, node).await?);
        let asked = v1::PushItemRequest {
            dedupe_key: "once".to_owned(),
            ..push("work")
        };
        let first = queues.push(asked.clone()).await?.into_inner();
        let again = queues.push(asked).await?.into_inner();
        ensure!(!first.duplicate && again.duplicate, "{first:?}, {again:?}");
        ensure!(again.item_id == first.item_id);

        let item = one(&mut queues, claim("ann")).await?;
        ensure!(item.item_id == first.item_id && &item.payload[..] == b"work");
        ensure!(item.state() == v1::ItemState::Claimed && token(&item) > 0);
        let renew = v1::RenewItemRequest {
            queue: "q".to_owned(),
            item_id: item.item_id,
            fencing_token: token(&item),
            ttl_ms: TTL_MS,
            request_id: None,
        };
        let renewed = queues.renew(renew.clone()).await?.into_inner().claim;
        let renewed = renewed.context("the claim")?;
        ensure!(renewed.fencing_token == token(&item), "{renewed:?}");

        let retry = Outcome::Retry(Retry {
            delay_ms: 0,
            note: "not today".to_owned(),
        });
        let reply = queues.settle(settle(&item, retry)).await?.into_inner();
        ensure!(reply.settled() == Settled::Retried, "{reply:?}");
        let second = one(&mut queues, claim("bob")).await?;
        ensure!(token(&second) > token(&item) && second.note == "not today");
        refused(
            queues.renew(renew).await,
            Code::FailedPrecondition,
            "FENCED",
        )?;

        let dead = Outcome::Dead(Dead::default());
        let reply = queues.settle(settle(&second, dead)).await?.into_inner();
        ensure!(reply.settled() == Settled::Dead, "{reply:?}");
        let requeue = v1::RequeueItemRequest {
            queue: "q".to_owned(),
            item_id: item.item_id,
            request_id: None,
        };
        let item = queues.requeue(requeue).await?.into_inner().item;
        let item = item.context("the item")?;
        ensure!(item.state() == v1::ItemState::Ready && item.attempts == 0);

        let third = one(&mut queues, claim("ann")).await?;
        let done = settle(&third, Outcome::Done(Done {}));
        let reply = queues.settle(done.clone()).await?.into_inner();
        ensure!(reply.settled() == Settled::Done, "{reply:?}");
        refused(queues.settle(done).await, Code::NotFound, "NOT_FOUND")?;
        let counters = stats(&mut queues).await?;
        ensure!((counters.done, counters.ready, counters.dead) == (1, 0, 0));
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_waits_for_a_push_at_another_node() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let (leader, node) = (cluster.leader().await?, cluster.follower().await?);
        let mut waiting = QueuesClient::new(channel(cluster, node).await?);
        let mut pushing = QueuesClient::new(channel(cluster, leader).await?);
        let patient = v1::ClaimItemsRequest {
            wait_ms: TTL_MS,
            ..claim("ann")
        };
        let mut hurried = Request::new(patient.clone());
        hurried.set_timeout(Duration::from_secs(1));
        let none = waiting.claim(hurried).await?.into_inner();
        ensure!(
            none.items.is_empty(),
            "the deadline ends the wait: {none:?}"
        );

        let waiter = tokio::spawn(async move { one(&mut waiting, patient).await });
        let pushed = pushing.push(push("work")).await?.into_inner();
        let item = waiter.await??;
        ensure!(item.item_id == pushed.item_id, "{item:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_under_a_request_id_gets_the_same_items_again() -> Result<()> {
    scenario(Options::new(NODE, 1), async |cluster| {
        let mut queues = QueuesClient::new(channel(cluster, 0).await?);
        queues.push(push("one")).await?;
        let index = queues.push(push("two")).await?.into_inner().index;
        let asked = v1::ClaimItemsRequest {
            request_id: request_id(index),
            ..claim("ann")
        };
        let first = one(&mut queues, asked.clone()).await?;
        let again = one(&mut queues, asked.clone()).await?;
        ensure!(again == first, "{again:?}, {first:?}");
        let other = one(&mut queues, claim("ann")).await?;
        ensure!(other.item_id != first.item_id, "{other:?}");

        let both = v1::ClaimItemsRequest {
            wait_ms: 1,
            ..asked
        };
        let outcome = queues.claim(both).await;
        refused(outcome, Code::InvalidArgument, "INVALID_ARGUMENT")?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_under_a_lease_that_is_over_does_nothing() -> Result<()> {
    scenario(Options::new(NODE, 1), async |cluster| {
        let channel = channel(cluster, 0).await?;
        let mut queues = QueuesClient::new(channel.clone());
        let mut leases = LeasesClient::new(channel);
        let lease = granted(leases.claim(claim_lease("k", "ann")).await?.into_inner())?;
        let held = |fencing_token| {
            vec![v1::Precondition {
                what: Some(v1::precondition::What::Lease(v1::precondition::Held {
                    key: "k".to_owned(),
                    fencing_token,
                })),
            }]
        };
        let live = v1::PushItemRequest {
            only_if: held(lease.fencing_token),
            ..push("yes")
        };
        queues.push(live).await?;
        let late = v1::PushItemRequest {
            only_if: held(lease.fencing_token - 1),
            ..push("no")
        };
        refused(queues.push(late).await, Code::FailedPrecondition, "FENCED")?;
        ensure!(stats(&mut queues).await?.ready == 1);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn items_are_listed_page_by_page_and_cancelled() -> Result<()> {
    scenario(Options::new(NODE, 1), async |cluster| {
        let mut queues = QueuesClient::new(channel(cluster, 0).await?);
        for payload in ["one", "two", "three"] {
            queues.push(push(payload)).await?;
        }
        let mut asked = v1::ListItemsRequest {
            queue: "q".to_owned(),
            state: v1::ItemState::Ready.into(),
            limit: 2,
            ..v1::ListItemsRequest::default()
        };
        let page = queues.list_items(asked.clone()).await?.into_inner();
        ensure!(page.items.len() == 2 && page.next != 0, "{page:?}");
        asked.after = page.next;
        let last = queues.list_items(asked.clone()).await?.into_inner();
        ensure!(last.items.len() == 1 && last.next == 0, "{last:?}");
        ensure!(&last.items[0].payload[..] == b"three", "{last:?}");

        let cancel = v1::CancelItemRequest {
            queue: "q".to_owned(),
            item_id: last.items[0].item_id,
            request_id: None,
        };
        queues.cancel(cancel.clone()).await?;
        refused(queues.cancel(cancel).await, Code::NotFound, "NOT_FOUND")?;
        let get = v1::GetItemRequest {
            queue: "q".to_owned(),
            item_id: last.items[0].item_id,
            read: None,
        };
        ensure!(queues.get(get).await?.into_inner().item.is_none());
        asked.queue = "no such".to_owned();
        refused(queues.list_items(asked).await, Code::NotFound, "NOT_FOUND")?;
        let wrong = v1::PushItemRequest {
            priority: 256,
            ..push("late")
        };
        let outcome = queues.push(wrong).await;
        refused(outcome, Code::InvalidArgument, "INVALID_ARGUMENT")?;
        let Some(item) = page.items.first() else {
            bail!("the first page has items");
        };
        let nothing = v1::SettleItemRequest {
            outcome: None,
            ..settle(item, Outcome::Done(Done {}))
        };
        let outcome = queues.settle(nothing).await;
        refused(outcome, Code::InvalidArgument, "INVALID_ARGUMENT")?;
        Ok(())
    })
    .await
}
