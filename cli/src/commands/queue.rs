//! `quorate queue …`

use quorate_client::{Client, QueueClient};
use quorate_statemachine::queue::{
    ClaimedItem, ItemId, ItemState, List, ListItems, Outcome, Settle, Settled,
};
use quorate_statemachine::{Name, queue};

use super::confirm::confirm;
use super::{owner, page_limit, wrong_answer};
use crate::args::millis;
use crate::args::queue::{Claim as ClaimArgs, Push as PushArgs, Settle as SettleArgs, Verb};
use crate::exit::Failure;
use crate::output::Printer;
use crate::value;

mod rows;

use rows::{ClaimRow, ItemRow, PushedRow, QueueRow, SettledRow, item_name};

/// Does one verb.
pub async fn run(client: &Client, verb: Verb, printer: &mut Printer) -> Result<(), Failure> {
    match verb {
        Verb::List { prefix, limit } => list(client, &prefix, limit, printer).await,
        Verb::Push(args) => push(client, args, printer).await,
        Verb::Claim(args) => claim(client, args, printer).await,
        Verb::Renew {
            name,
            item,
            token,
            ttl,
        } => {
            let ttl_ms = ttl.map(millis);
            renew(client, &name, ItemId(item), token, ttl_ms, printer).await
        }
        Verb::Settle(args) => settle(client, args, printer).await,
        Verb::Cancel { name, item, yes } => {
            confirm(yes, &format!("removes item {item} from queue {name:?}"))?;
            let item = client.queue(&name)?.cancel(ItemId(item)).await?;
            Ok(printer.one(&ItemRow::without_payload(&name, &item))?)
        }
        Verb::Peek { name, state, limit } => {
            items(client, &name, state.item_state(), limit, printer).await
        }
        Verb::Dead { name, limit } => {
            items(client, &name, Some(ItemState::Dead), limit, printer).await
        }
        Verb::Requeue { name, item } => {
            let item = client.queue(&name)?.requeue(ItemId(item)).await?;
            Ok(printer.one(&ItemRow::without_payload(&name, &item))?)
        }
    }
}

async fn list(
    client: &Client,
    prefix: &str,
    limit: u64,
    printer: &mut Printer,
) -> Result<(), Failure> {
    Ok(printer.list(&listed(client, prefix, limit).await?)?)
}

/// Queues in the order of their names.
pub async fn listed(client: &Client, prefix: &str, limit: u64) -> Result<Vec<QueueRow>, Failure> {
    let mut rows = Vec::new();
    let mut after = None;
    while let Some(page) = page_limit(limit, rows.len()) {
        let list = List {
            prefix: prefix.to_owned(),
            after: after.take(),
            limit: page,
        };
        let page = client.queue_list(list).await?;
        rows.extend(page.rows.iter().map(QueueRow::new));
        match page.next {
            Some(next) => after = Some(Name::parse("after", next)?),
            None => break,
        }
    }
    Ok(rows)
}

async fn push(client: &Client, args: PushArgs, printer: &mut Printer) -> Result<(), Failure> {
    let payload = value::bytes("payload", &args.payload)?;
    let mut push = client
        .queue(&args.name)?
        .push(payload)
        .delay(args.delay)
        .priority(args.priority)
        .max_attempts(args.max_attempts);
    if let Some(key) = args.key {
        push = push.dedupe_key(key);
    }
    let pushed = push.send().await?;
    Ok(printer.one(&PushedRow::new(&args.name, &pushed))?)
}

async fn claim(client: &Client, args: ClaimArgs, printer: &mut Printer) -> Result<(), Failure> {
    let queue = client
        .queue(&args.name)?
        .with_owner(owner(&args.owner, args.incarnation.as_deref())?)
        .with_visibility(args.ttl);
    let items = match args.wait {
        Some(wait) => queue.claim_wait(args.max, wait).await?,
        None => queue.claim(args.max).await?,
    };
    let rows: Vec<_> = items
        .iter()
        .map(|item| ItemRow::new(&args.name, item))
        .collect();
    printer.list(&rows)?;
    if rows.is_empty() {
        let message = format!("queue {:?} has nothing to claim", args.name);
        return Err(Failure::busy(message));
    }
    Ok(())
}

async fn renew(
    client: &Client,
    name: &str,
    item_id: ItemId,
    token: u64,
    ttl_ms: Option<u64>,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let queue = client.queue(name)?;
    let ttl_ms = match ttl_ms {
        Some(ttl_ms) => ttl_ms,
        None => ttl_of_claim(&queue, item_id, token).await?,
    };
    let renew = queue::Renew {
        queue: queue.name().clone(),
        item_id,
        fencing_token: token,
        ttl_ms,
    };
    let claim = client.execute(renew).await?;
    Ok(printer.one(&ClaimRow::new(name, item_id, &claim))?)
}

async fn ttl_of_claim(queue: &QueueClient, item_id: ItemId, token: u64) -> Result<u64, Failure> {
    let name = item_name(queue.name().as_str(), item_id);
    let found = queue.get(item_id).await?;
    let found = found.ok_or_else(|| Failure::not_found("queue item", &name))?;
    let claim = found
        .item
        .claim
        .filter(|claim| claim.fencing_token == token);
    claim.map(|claim| claim.ttl_ms).ok_or_else(|| {
        Failure::fenced(format!(
            "queue item {name:?}: the claim with fencing token {token} is not live any more"
        ))
    })
}

async fn settle(client: &Client, args: SettleArgs, printer: &mut Printer) -> Result<(), Failure> {
    let (queue, item_id) = (Name::parse("queue", args.name.as_str())?, ItemId(args.item));
    let outcome = match (args.retry_in, args.dead) {
        (Some(delay), _) => Outcome::Retry {
            delay_ms: millis(delay),
            note: args.note,
        },
        (None, true) => Outcome::Dead { note: args.note },
        (None, false) => Outcome::Done,
    };
    let settle = Settle {
        queue,
        item_id,
        fencing_token: args.token,
        outcome,
    };
    let state = match client.execute(settle).await? {
        Settled::Done => "done",
        Settled::Retried => "retried",
        Settled::Dead => "dead",
    };
    Ok(printer.one(&SettledRow::new(&args.name, item_id, state))?)
}

async fn items(
    client: &Client,
    name: &str,
    state: Option<ItemState>,
    limit: u64,
    printer: &mut Printer,
) -> Result<(), Failure> {
    Ok(printer.list(&items_of(client, name, state, limit).await?)?)
}

/// Items of a queue, those of one state or all.
pub async fn items_of(
    client: &Client,
    name: &str,
    state: Option<ItemState>,
    limit: u64,
) -> Result<Vec<ItemRow>, Failure> {
    let queue = client.queue(name)?;
    let mut rows = Vec::new();
    let mut after = None;
    while let Some(page) = page_limit(limit, rows.len()) {
        let list = ListItems {
            queue: queue.name().clone(),
            state,
            after,
            limit: page,
        };
        let page = queue.items(list).await?;
        let page = page.ok_or_else(|| Failure::not_found("queue", name))?;
        rows.extend(
            page.rows
                .iter()
                .map(|item: &ClaimedItem| ItemRow::new(name, item)),
        );
        match page.next {
            Some(next) => {
                let next = next.parse().map_err(|_| wrong_answer("a page of items"))?;
                after = Some(ItemId(next));
            }
            None => break,
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests;
