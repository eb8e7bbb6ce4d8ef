//! Clients that take a lease from each other.

use std::time::Duration;

use anyhow::Result;
use quorate_statemachine::lease::{Claim, Claimed, Lease, Release, Released, Renew, SameOwner};
use quorate_statemachine::{LeaseToken, Refusal};

use super::{Seat, Told};
use crate::models::leases::{Grant, Step, TTL_MS};

/// The lease token of a claim: its number, so that others who see it know whose it is.
fn lease_token(number: u32) -> Result<LeaseToken> {
    Ok(LeaseToken::parse(format!("g{number}"))?)
}

fn grant(lease: &Lease) -> Grant {
    let number = lease.lease_token.as_str().trim_start_matches('g').parse();
    Grant {
        number: number.unwrap_or(0),
        token: lease.fencing_token,
    }
}

/// Works on the key until its time is over, or until an operation has no known outcome.
pub(super) async fn sit(seat: &mut Seat) -> Result<()> {
    let mut held = None;
    while seat.next().await {
        let stays = match (held, seat.random.u8(0..10)) {
            (None, 0..7) => claim(seat, &mut held).await?,
            (None, _) | (Some(_), 0..2) => read(seat).await?,
            (Some(grant), 2..5) => renew(seat, grant, &mut held).await?,
            (Some(grant), 5..8) => release(seat, grant, &mut held).await?,
            (Some(_), _) => {
                // It forgets to renew: the lease runs out under it, or nearly.
                let rest = seat.random.u64(TTL_MS / 2..TTL_MS * 11 / 10);
                seat.rest(Duration::from_millis(rest)).await;
                true
            }
        };
        if !stays {
            break;
        }
    }
    Ok(())
}

async fn claim(seat: &mut Seat, held: &mut Option<Grant>) -> Result<bool> {
    let number = seat.shared.number();
    let claim = Claim {
        key: seat.name()?,
        owner: seat.owner.clone(),
        lease_token: lease_token(number)?,
        ttl_ms: TTL_MS,
        same_owner: SameOwner::Busy,
        metadata: Vec::new(),
    };
    let call = seat.now();
    let told = seat.told(seat.client.execute(claim).await);
    let log = &seat.shared.recorder.leases;
    match told {
        Told::Answer(Claimed::Granted(lease)) => {
            *held = Some(grant(&lease));
            seat.wrote(log, call, Step::Granted(grant(&lease)));
        }
        Told::Answer(Claimed::Busy(lease)) => seat.wrote(log, call, Step::Busy(grant(&lease))),
        // A try before the one that was answered was granted the lease, and that is over by now.
        Told::Refused(Refusal::Conflict { .. }) => {
            seat.lost(log, call, Step::MayHaveClaimed(number));
        }
        Told::Refused(refusal) => seat.odd("claim", &refusal),
        Told::NotDone => {}
        Told::Unknown => {
            seat.lost(log, call, Step::MayHaveClaimed(number));
            return Ok(false);
        }
    }
    Ok(true)
}

async fn read(seat: &mut Seat) -> Result<bool> {
    let call = seat.now();
    let told = seat.told(seat.client.lease_get(&seat.name()?).await);
    let log = &seat.shared.recorder.leases;
    match told {
        Told::Answer(lease) => seat.noted(log, call, Step::Read(lease.as_ref().map(grant))),
        Told::Refused(refusal) => seat.odd("read", &refusal),
        Told::NotDone | Told::Unknown => {}
    }
    Ok(true)
}

async fn renew(seat: &mut Seat, grant: Grant, held: &mut Option<Grant>) -> Result<bool> {
    let renew = Renew {
        key: seat.name()?,
        lease_token: lease_token(grant.number)?,
        fencing_token: grant.token,
        ttl_ms: TTL_MS,
    };
    let call = seat.now();
    let told = seat.told(seat.client.execute(renew).await);
    let log = &seat.shared.recorder.leases;
    match told {
        Told::Answer(_) => seat.wrote(log, call, Step::Renewed(grant)),
        Told::Refused(Refusal::Expired { .. } | Refusal::Fenced { .. }) => {
            *held = None;
            seat.wrote(log, call, Step::Over(grant));
        }
        Told::Refused(refusal) => seat.odd("renewal", &refusal),
        Told::NotDone => {}
        // Done or not, it only made the lease longer than the model takes it to be.
        Told::Unknown => return Ok(false),
    }
    Ok(true)
}

async fn release(seat: &mut Seat, held: Grant, holds: &mut Option<Grant>) -> Result<bool> {
    let release = Release {
        key: seat.name()?,
        lease_token: lease_token(held.number)?,
        fencing_token: held.token,
    };
    let call = seat.now();
    let told = seat.told(seat.client.execute(release).await);
    let log = &seat.shared.recorder.leases;
    match told {
        Told::Answer(Released::Released) => seat.wrote(log, call, Step::Released(held)),
        Told::Answer(Released::NotHeld { current }) => {
            let now = current.as_ref().map(grant);
            seat.wrote(log, call, Step::NotHeld(held, now));
        }
        Told::Refused(refusal) => seat.odd("release", &refusal),
        Told::NotDone => return Ok(true),
        Told::Unknown => {
            seat.lost(log, call, Step::MayHaveReleased(held));
            return Ok(false);
        }
    }
    *holds = None;
    Ok(true)
}
