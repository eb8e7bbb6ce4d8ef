//! Clients that append events to one process and read them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use quorate_client::ProcessClient;
use quorate_statemachine::Name;
use quorate_statemachine::process::Event;

use super::{LAST_WORD_MAX, Seat, Shared, Told};
use crate::models::events::Step;

/// Makes the process; answers whether it is there.
pub(super) async fn prepare(shared: &Arc<Shared>, key: &str) -> Result<bool> {
    let client = shared.client()?.with_timeout(LAST_WORD_MAX);
    let registered = client.process(key)?.register("").await;
    Ok(registered.is_ok())
}

/// Works on the process until its time is over, or until an operation has no known outcome.
pub(super) async fn sit(seat: &mut Seat) -> Result<()> {
    let process = seat.client.process(seat.key.clone())?;
    let mut last = 0;
    while seat.next().await {
        let stays = match seat.random.u8(0..10) {
            0..7 => append(seat, &process, &mut last).await?,
            // From where it was, or all: what is read must not change behind the reader.
            7..9 => read(seat, &process, last).await,
            _ => read(seat, &process, 0).await,
        };
        if !stays {
            break;
        }
    }
    Ok(())
}

async fn append(seat: &mut Seat, process: &ProcessClient, last: &mut u64) -> Result<bool> {
    let event = seat.shared.number();
    let key = Name::parse("key", event.to_string())?;
    // With a key a retry is known by it, without one by the id of its request.
    let key = seat.random.bool().then_some(&key);
    let event_type = Name::parse("event_type", "noted")?;
    let call = seat.now();
    let told = seat.told(process.append(&event_type, key, event.to_string()).await);
    let log = &seat.shared.recorder.events;
    match told {
        Told::Answer(appended) => {
            let sequence = appended.sequence;
            *last = sequence;
            seat.wrote(log, call, Step::Appended { event, sequence });
        }
        Told::Refused(refusal) => seat.odd("append", &refusal),
        Told::NotDone => {}
        Told::Unknown => {
            seat.lost(log, call, Step::MayHaveAppended(event));
            return Ok(false);
        }
    }
    Ok(true)
}

/// An event's number; 0, which is nobody's, if it is not one of ours.
fn number(event: &Event) -> u32 {
    let text = std::str::from_utf8(&event.payload).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

async fn read(seat: &mut Seat, process: &ProcessClient, after: u64) -> bool {
    let call = seat.now();
    let told = seat.told(process.events(after, 0).await);
    let log = &seat.shared.recorder.events;
    match told {
        Told::Answer(Some(page)) if page.next.is_none() => {
            let gapless = page
                .rows
                .iter()
                .zip(after + 1..)
                .all(|(it, at)| it.sequence == at);
            if !gapless {
                seat.odd("events with a gap", &page.rows);
            }
            let events = page.rows.iter().map(number).collect();
            seat.noted(log, call, Step::Read { after, events });
            return true;
        }
        // A page of many says nothing of those behind it.
        Told::Answer(Some(_)) => {}
        Told::Answer(None) => seat.odd("read", &"the process is gone"),
        Told::Refused(refusal) => seat.odd("read", &refusal),
        Told::NotDone | Told::Unknown => {}
    }
    false
}

/// Reads all of it once: what is not there then was not done.
pub(super) async fn read_all(seat: &mut Seat) -> Result<()> {
    let process = seat.client.process(seat.key.clone())?;
    while tokio::time::Instant::now() < seat.until {
        if read(seat, &process, 0).await {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bail!("the events of {} could not be read", seat.key)
}
