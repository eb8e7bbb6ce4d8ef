//! Whether the cluster's state agrees with what the writers were answered.
//!
//! The checks are in `quorate_histories::oracle`. What a writer could not know may be there or not,
//! but once at most.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use quorate_client::Client;
use quorate_histories::history::History;
use quorate_histories::oracle::{events, items, leases, tokens};
use quorate_statemachine::Name;
use quorate_statemachine::lease::{Lease, List};
use quorate_statemachine::process::Event;
use quorate_statemachine::queue::List as ListQueues;

use crate::cluster::Cluster;
use crate::load::{HELD, LOG, Load, QUEUE, SHARED, SHARED_COUNT, take_and_settle};
use crate::wait::{PATIENCE, RECOVERY_MAX, until};

/// Items taken by one claim while the queue is emptied.
const DRAIN_ITEMS: u32 = 64;

/// Reads everything back and checks it, then compares the digests of all running nodes.
pub async fn check(cluster: &Cluster, mut history: History) -> Result<()> {
    let client = cluster.client()?.with_timeout(PATIENCE);
    read_back(&client, &mut history).await?;
    cluster.digests_agree().await
}

/// Ends a load of which no operation may have failed, and checks it.
pub async fn check_unfailing(cluster: &Cluster, load: Load) -> Result<()> {
    let history = load.finish().await?;
    println!("longest gap {:?}", history.longest_gap());
    ensure!(
        history.failures.is_empty(),
        "operations failed: {:?}",
        history.failures
    );
    check(cluster, history).await
}

/// Reads everything back and checks it. Adds to the history what was taken from the queue for it.
pub async fn read_back(client: &Client, history: &mut History) -> Result<()> {
    println!("{}", history.summary());
    ensure!(
        !history.acknowledged.is_empty(),
        "no write was acknowledged, nothing was tested"
    );
    drain(client, history)
        .await
        .context("while the queue was emptied")?;

    tokens::ordered_in_real_time(history.grants())?;
    leases::never_held_twice(&history.claims)?;
    leases::kept(&history.claims, HELD, &read_leases(client, HELD).await?)?;
    for number in 0..SHARED_COUNT {
        let key = Name::parse("key", format!("{SHARED}{number}"))?;
        // A grant that is due and not swept yet is in neither list for a moment.
        until("the history of a shared key", RECOVERY_MAX, async || {
            let story = client.lease_history(&key).await?;
            leases::told(&history.claims, key.as_str(), &story).map(Some)
        })
        .await?;
        let guarded = read_events(client, key.as_str()).await?;
        events::stored_once(&history.appends, key.as_str(), &guarded)?;
        events::fenced(&guarded)?;
        let log = format!("{LOG}{number}");
        events::stored_once(&history.appends, &log, &read_events(client, &log).await?)?;
    }
    items::settled_once(history)
}

async fn read_leases(client: &Client, prefix: &str) -> Result<BTreeMap<String, Lease>> {
    let mut leases = BTreeMap::new();
    let mut after = None;
    loop {
        let list = List {
            prefix: prefix.to_owned(),
            after,
            limit: 0,
        };
        let page = client.lease_list(list).await?;
        leases.extend(
            page.rows
                .into_iter()
                .map(|lease| (lease.key.to_string(), lease)),
        );
        match page.next {
            Some(next) => after = Some(Name::parse("after", next)?),
            None => return Ok(leases),
        }
    }
}

async fn read_events(client: &Client, process: &str) -> Result<Vec<Event>> {
    let process = client.process(process)?;
    let mut events: Vec<Event> = Vec::new();
    loop {
        let after = events.last().map_or(0, |event| event.sequence);
        let page = process
            .events(after, 0)
            .await?
            .context("the process is gone")?;
        let last = page.next.is_none();
        events.extend(page.rows);
        if last {
            return Ok(events);
        }
    }
}

/// Works on the queue until it is empty: what was claimed under an unknown outcome comes back when
/// its visibility is over.
async fn drain(client: &Client, history: &mut History) -> Result<()> {
    let queue = client.queue(QUEUE)?;
    until("the queue to be empty", PATIENCE, async || {
        while take_and_settle(&queue, DRAIN_ITEMS, history).await > 0 {}
        let list = ListQueues {
            prefix: QUEUE.to_owned(),
            after: None,
            limit: 1,
        };
        let page = client.queue_list(list).await?;
        let left = page
            .rows
            .first()
            .map(|row| row.ready + row.delayed + row.claimed + row.dead);
        Ok((left.unwrap_or(0) == 0).then_some(()))
    })
    .await
}
