//! Clients that push items and work on them.

use std::time::Duration;

use anyhow::{Result, ensure};
use quorate_client::QueueClient;
use quorate_statemachine::Refusal;
use quorate_statemachine::queue::{ItemId, List, Outcome};

use super::{Seat, Told};
use crate::models::queues::{Claim, Step, TTL_MS};

fn queue(seat: &Seat) -> Result<QueueClient> {
    let queue = seat.client.queue(seat.key.clone())?;
    let queue = queue.with_owner(seat.owner.clone());
    Ok(queue.with_visibility(Duration::from_millis(TTL_MS)))
}

/// Works on the queue until its time is over, or until an operation has no known outcome.
pub(super) async fn sit(seat: &mut Seat) -> Result<()> {
    let queue = queue(seat)?;
    let mut held = None;
    while seat.next().await {
        let stays = match (held, seat.random.u8(0..10)) {
            (None, 0..5) => push(seat, &queue).await,
            (None, _) => take(seat, &queue, &mut held).await,
            (Some(claim), 0..7) => settle(seat, &queue, claim, Outcome::Done, &mut held).await,
            (Some(claim), 7) => {
                let retry = Outcome::Retry {
                    delay_ms: 0,
                    note: String::new(),
                };
                settle(seat, &queue, claim, retry, &mut held).await
            }
            (Some(_), _) => {
                // Slower than its claim lives: another one has the item then, and this one is late.
                seat.rest(Duration::from_millis(TTL_MS)).await;
                true
            }
        };
        if !stays {
            break;
        }
    }
    Ok(())
}

async fn push(seat: &mut Seat, queue: &QueueClient) -> bool {
    let payload = seat.shared.number();
    let call = seat.now();
    let told = seat.told(queue.push(payload.to_string()).send().await);
    let log = &seat.shared.recorder.queues;
    match told {
        Told::Answer(pushed) => {
            let item = pushed.item_id.0;
            seat.wrote(log, call, Step::Pushed { item, payload });
        }
        Told::Refused(refusal) => seat.odd("push", &refusal),
        Told::NotDone => {}
        Told::Unknown => {
            seat.lost(log, call, Step::MayHavePushed(payload));
            return false;
        }
    }
    true
}

async fn take(seat: &mut Seat, queue: &QueueClient, held: &mut Option<Claim>) -> bool {
    let call = seat.now();
    let told = seat.told(queue.claim(1).await);
    let log = &seat.shared.recorder.queues;
    let items = match told {
        Told::Answer(items) => items,
        Told::Refused(refusal) => {
            seat.odd("claim", &refusal);
            return true;
        }
        Told::NotDone => return true,
        Told::Unknown => {
            seat.lost(log, call, Step::MayHaveTaken);
            return false;
        }
    };
    let Some(claimed) = items.first() else {
        seat.wrote(log, call, Step::TookNothing);
        return true;
    };
    let payload = std::str::from_utf8(&claimed.payload).ok();
    let payload = payload.and_then(|text| text.parse().ok());
    match (payload, &claimed.item.claim) {
        (Some(payload), Some(of)) => {
            let claim = Claim {
                item: claimed.item.item_id.0,
                token: of.fencing_token,
            };
            *held = Some(claim);
            seat.wrote(log, call, Step::Took { claim, payload });
        }
        _ => seat.odd("claim", claimed),
    }
    true
}

async fn settle(
    seat: &mut Seat,
    queue: &QueueClient,
    claim: Claim,
    outcome: Outcome,
    held: &mut Option<Claim>,
) -> bool {
    let done = outcome == Outcome::Done;
    let call = seat.now();
    let settled = queue.settle(ItemId(claim.item), claim.token, outcome).await;
    let told = seat.told(settled);
    let log = &seat.shared.recorder.queues;
    match told {
        Told::Answer(_) if done => seat.wrote(log, call, Step::Settled(claim)),
        Told::Answer(_) => seat.wrote(log, call, Step::GivenBack(claim)),
        Told::Refused(
            Refusal::Expired { .. } | Refusal::Fenced { .. } | Refusal::NotFound { .. },
        ) => seat.wrote(log, call, Step::Over(claim)),
        Told::Refused(refusal) => seat.odd("settlement", &refusal),
        Told::NotDone => return true,
        Told::Unknown => {
            let step = match done {
                true => Step::MayHaveSettled(claim),
                false => Step::MayHaveGivenBack(claim),
            };
            seat.lost(log, call, step);
            return false;
        }
    }
    *held = None;
    true
}

/// Works on the queue until nothing is in it: only then is it known what was never pushed.
pub(super) async fn empty(seat: &mut Seat) -> Result<()> {
    let queue = queue(seat)?;
    while tokio::time::Instant::now() < seat.until {
        let mut held = None;
        take(seat, &queue, &mut held).await;
        if let Some(claim) = held {
            settle(seat, &queue, claim, Outcome::Done, &mut held).await;
            continue;
        }
        let list = List {
            prefix: seat.key.clone(),
            after: None,
            limit: 1,
        };
        if let Ok(page) = seat.client.queue_list(list).await {
            let left = page
                .rows
                .first()
                .map(|row| row.ready + row.delayed + row.claimed);
            if left.unwrap_or(0) == 0 {
                return Ok(());
            }
        }
        // What was claimed comes back when its time is over.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    ensure!(false, "{} could not be emptied", seat.key);
    Ok(())
}
