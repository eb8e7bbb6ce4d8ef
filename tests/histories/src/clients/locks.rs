//! Clients that stand in line for a lock.

use std::time::Duration;

use anyhow::Result;
use quorate_statemachine::lock::{Acquire, Acquired, Member, Mode, Release, Released, Renew};
use quorate_statemachine::{Refusal, RequestId};

use super::{Seat, Told};
use crate::models::locks::{Hold, Step, TTL_MS};

/// Nobody's place is lost while the key is worked on.
const WAIT_TTL_MS: u64 = 600_000;

/// Where a client stands with its acquisition.
#[derive(Clone, Copy)]
enum Stand {
    Out,
    Waits(RequestId),
    Holds(RequestId, Hold),
}

/// An acquisition shows its number to others in the first bytes of its id.
fn number(id: [u8; 16]) -> u32 {
    let [a, b, c, d, ..] = id;
    u32::from_be_bytes([a, b, c, d])
}

fn new_id(seat: &mut Seat) -> RequestId {
    let mut id = seat.random.u128(..).to_be_bytes();
    id[..4].copy_from_slice(&seat.shared.number().to_be_bytes());
    RequestId {
        id,
        not_before: seat.client.transport().seen_index(),
    }
}

fn hold(member: &Member) -> Option<Hold> {
    Some(Hold {
        number: number(member.id.id),
        token: member.fencing_token()?,
    })
}

/// Works on the key until its time is over, or until an operation has no known outcome.
pub(super) async fn sit(seat: &mut Seat) -> Result<()> {
    // An acquisition names an index that its caller has seen: without one it may be too old.
    let mut stand = Stand::Out;
    let mut stays = read(seat).await? && seat.client.transport().seen_index() > 0;
    while stays && seat.next().await {
        stays = match (stand, seat.random.u8(0..10)) {
            (Stand::Out, 0..8) => {
                let id = new_id(seat);
                let waits = seat.random.u8(0..4) > 0;
                ask(seat, id, waits, &mut stand).await?
            }
            (Stand::Out, _) | (Stand::Holds(..), 0) => read(seat).await?,
            (Stand::Waits(id), 0) => release(seat, id, &mut stand).await?,
            (Stand::Waits(id), _) => ask(seat, id, true, &mut stand).await?,
            (Stand::Holds(id, hold), 1..3) => renew(seat, id, hold, &mut stand).await?,
            (Stand::Holds(id, _), 3..9) => release(seat, id, &mut stand).await?,
            (Stand::Holds(..), _) => {
                seat.rest(Duration::from_millis(TTL_MS)).await;
                true
            }
        };
    }
    Ok(())
}

/// Asks for the lock, or where the acquisition stands.
async fn ask(seat: &mut Seat, id: RequestId, waits: bool, stand: &mut Stand) -> Result<bool> {
    let again = matches!(stand, Stand::Waits(_));
    let acquire = Acquire {
        key: seat.name()?,
        id,
        owner: seat.owner.clone(),
        mode: Mode::Exclusive,
        ttl_ms: TTL_MS,
        wait_ttl_ms: WAIT_TTL_MS,
        max_wait_ms: (!waits).then_some(0),
        reentrant: false,
        delay_ms: 0,
        metadata: Vec::new(),
    };
    let call = seat.now();
    let told = seat.told(seat.client.execute(acquire).await);
    let log = &seat.shared.recorder.locks;
    let own = number(id.id);
    let asked = if waits {
        Step::MayHaveAsked(own)
    } else {
        Step::MayHaveGot(own)
    };
    if !again
        && matches!(
            told,
            Told::Answer(Acquired::Granted(_) | Acquired::Waiting(_))
        )
    {
        // The answer may be to a later try than the one that got it a place: it stood in line from
        // some instant on and was granted at another one.
        seat.noted(log, call, Step::MayHaveAsked(own));
    }
    match told {
        Told::Answer(Acquired::Granted(member)) => match hold(&member) {
            Some(hold) => {
                *stand = Stand::Holds(id, hold);
                seat.wrote(log, call, Step::Granted(hold));
            }
            None => seat.odd("grant without a token", &member),
        },
        Told::Answer(Acquired::Waiting(_)) => {
            *stand = Stand::Waits(id);
            seat.wrote(log, call, Step::Waiting(own));
        }
        Told::Answer(Acquired::Busy(holders)) => {
            if let Some(hold) = holders.first().and_then(hold) {
                seat.wrote(log, call, Step::Busy(hold));
            }
        }
        Told::Answer(Acquired::Over(_)) => {
            *stand = Stand::Out;
            // Asked for the first time, a try before this one was granted, and that is over by now.
            seat.wrote(log, call, if again { Step::Over(own) } else { asked });
        }
        Told::Refused(refusal) => seat.odd("acquisition", &refusal),
        Told::NotDone => {}
        // Asked again it only shows where it stands.
        Told::Unknown => {
            if !again {
                seat.lost(log, call, asked);
            }
            return Ok(false);
        }
    }
    Ok(true)
}

async fn read(seat: &mut Seat) -> Result<bool> {
    let call = seat.now();
    let told = seat.told(seat.client.lock_get(&seat.name()?).await);
    let log = &seat.shared.recorder.locks;
    match told {
        Told::Answer(view) => {
            let holder = view.as_ref().and_then(|view| view.holders.first());
            seat.noted(log, call, Step::Read(holder.and_then(hold)));
        }
        Told::Refused(refusal) => seat.odd("read", &refusal),
        Told::NotDone | Told::Unknown => {}
    }
    Ok(true)
}

async fn renew(seat: &mut Seat, id: RequestId, hold: Hold, stand: &mut Stand) -> Result<bool> {
    let renew = Renew {
        key: seat.name()?,
        id: id.id,
        ttl_ms: None,
    };
    let call = seat.now();
    let told = seat.told(seat.client.execute(renew).await);
    let log = &seat.shared.recorder.locks;
    match told {
        Told::Answer(_) => seat.wrote(log, call, Step::Renewed(hold)),
        Told::Refused(Refusal::Expired { .. } | Refusal::Fenced { .. }) => {
            *stand = Stand::Out;
            seat.wrote(log, call, Step::Over(hold.number));
        }
        Told::Refused(refusal) => seat.odd("renewal", &refusal),
        Told::NotDone => {}
        Told::Unknown => return Ok(false),
    }
    Ok(true)
}

async fn release(seat: &mut Seat, id: RequestId, stand: &mut Stand) -> Result<bool> {
    let release = Release {
        key: seat.name()?,
        id: id.id,
    };
    let call = seat.now();
    let told = seat.told(seat.client.execute(release).await);
    let log = &seat.shared.recorder.locks;
    let own = number(id.id);
    match told {
        Told::Answer(Released::Released { fencing_token }) => {
            let hold = Hold {
                number: own,
                token: fencing_token,
            };
            seat.wrote(log, call, Step::Released(hold));
        }
        Told::Answer(Released::Cancelled) => seat.wrote(log, call, Step::Cancelled(own)),
        Told::Answer(Released::NotHeld { .. }) => seat.wrote(log, call, Step::Over(own)),
        Told::Refused(refusal) => seat.odd("release", &refusal),
        Told::NotDone => return Ok(true),
        Told::Unknown => {
            seat.lost(log, call, Step::MayHaveReleased(own));
            return Ok(false);
        }
    }
    *stand = Stand::Out;
    Ok(true)
}
