//! `quorate.v1.Locks`.

use std::time::Duration;

use quorate_client::WatchWhat;
use quorate_rpc::v1;
use quorate_rpc::v1::acquire_lock_reply::{Busy, Result as Standing};
use quorate_rpc::v1::find_lock_reply::Result as Located;
use quorate_rpc::v1::locks_server::Locks;
use quorate_rpc::v1::release_lock_reply::Result as Left;
use quorate_statemachine::lock::{
    self, Acquire, Acquired, End, Find, Get, Kept, List, LockView, Member, Mode, Place, Proclaim,
    Query, Release, Released, Renew, Revoke, Waiters,
};
use quorate_statemachine::notice::Notice;
use quorate_statemachine::{Answer as Found, InvalidArgument, Query as AnyQuery};
use tokio::time::Instant;
use tonic::{Code, Request, Status};

use super::news::News;
use super::{
    Answer, Call, Typed, after, id, invalid, missing, name, numbered, only, owner, owner_wire,
    request_id, rows, wrong_kind,
};

/// How long a place in the queue lives without a sign of life, unless the caller says otherwise.
const WAIT_TTL_MS: u64 = 10_000;

/// A waiting call gives three signs of life in this time, each an entry of the log.
const WAIT_TTL_MIN_MS: u64 = 1_000;

fn mode(wire: v1::LockMode, permits: u32) -> Mode {
    match wire {
        v1::LockMode::Exclusive => Mode::Exclusive,
        v1::LockMode::Shared => Mode::Shared,
        v1::LockMode::Permit => Mode::Permit { of: permits },
    }
}

fn mode_wire(mode: Mode) -> v1::LockMode {
    match mode {
        Mode::Exclusive => v1::LockMode::Exclusive,
        Mode::Shared => v1::LockMode::Shared,
        Mode::Permit { .. } => v1::LockMode::Permit,
    }
}

fn member_wire(member: Member) -> v1::LockMember {
    let mut wire = v1::LockMember {
        acquisition_id: member.id.id.to_vec().into(),
        mode: mode_wire(member.mode).into(),
        asked_at_ms: member.asked_at.0,
        expires_at_ms: member.deadline().0,
        owner: Some(owner_wire(member.owner)),
        metadata: member.metadata.into(),
        ..v1::LockMember::default()
    };
    match member.place {
        Place::Waiting { ticket, .. } => wire.ticket = ticket,
        Place::Holding {
            fencing_token,
            granted_at,
            ..
        } => (wire.fencing_token, wire.granted_at_ms) = (fencing_token, granted_at.0),
    }
    wire
}

pub(super) fn end_wire(end: End) -> v1::LockEnd {
    use v1::lock_end::Reason;
    let mut wire = v1::LockEnd::default();
    let reason = match end {
        End::Released { fencing_token } => {
            wire.fencing_token = fencing_token;
            Reason::Released
        }
        End::Expired { fencing_token, .. } => {
            wire.fencing_token = fencing_token;
            Reason::Expired
        }
        End::Revoked { fencing_token, by } => {
            (wire.fencing_token, wire.by) = (fencing_token, by);
            Reason::Revoked
        }
        End::Cancelled => Reason::Cancelled,
        End::GaveUp => Reason::GaveUp,
        End::WaiterDied => Reason::WaiterDied,
        End::Deadlock { cycle } => {
            let keys = cycle.into_iter().map(|link| link.waits_for.into());
            wire.cycle = keys.collect();
            Reason::Deadlock
        }
    };
    wire.set_reason(reason);
    wire
}

fn lock_wire(view: LockView) -> v1::Lock {
    v1::Lock {
        key: view.lock.key.into(),
        permits: view.lock.permits.unwrap_or(0),
        holders: view.holders.into_iter().map(member_wire).collect(),
        waiters: view.lock.waiters,
        blocked_until_ms: view.lock.blocked_until.0,
    }
}

fn found_wire(found: lock::Found) -> Located {
    match found {
        lock::Found::Member(member) if member.fencing_token().is_some() => {
            Located::Granted(member_wire(member))
        }
        lock::Found::Member(member) => Located::Waiting(member_wire(member)),
        lock::Found::Over(end) => Located::Over(end_wire(end)),
        lock::Found::Unknown => Located::Unknown(true),
    }
}

fn acquire(asked: v1::AcquireLockRequest) -> Result<Acquire, Status> {
    let missing = || missing("acquisition", "an id of 16 bytes");
    Ok(Acquire {
        mode: mode(asked.mode(), asked.permits),
        key: name("key", asked.key)?,
        id: request_id(asked.acquisition.ok_or_else(missing)?)?,
        owner: owner(asked.owner)?,
        ttl_ms: asked.ttl_ms,
        wait_ttl_ms: match asked.wait_ttl_ms {
            0 => WAIT_TTL_MS,
            given => given,
        },
        max_wait_ms: asked.max_wait_ms,
        reentrant: asked.reentrant,
        delay_ms: asked.delay_ms,
        metadata: asked.metadata.into(),
    })
}

/// Asks until the acquisition waits no longer, or the call's time is over.
///
/// Each time it is the same command: it says where the acquisition stands, and is a sign of life of
/// one that waits. The watch is registered before the first, so that no grant is slept through.
async fn settled(call: &Call, acquire: Acquire) -> Result<(u64, Acquired), Status> {
    if acquire.max_wait_ms == Some(0) {
        return call.execute(acquire, None).await;
    }
    if acquire.wait_ttl_ms < WAIT_TTL_MIN_MS {
        return Err(invalid(InvalidArgument::new(
            "wait_ttl_ms",
            "is too short for a call that waits",
            format!("at least {WAIT_TTL_MIN_MS} ms"),
            format!("{} ms", acquire.wait_ttl_ms),
        )));
    }
    let (prefix, _) = acquire.id.id.split_at(8);
    let prefix = prefix.try_into().expect("eight bytes of sixteen");
    let mut news = News::of(call, WatchWhat::LockAcquisitions(prefix))?;
    let is_own = |notice: &Notice| match notice {
        Notice::LockGranted { id, .. } | Notice::LockLeft { id, .. } => *id == acquire.id.id,
        _ => false,
    };
    let sign = Duration::from_millis(acquire.wait_ttl_ms) / 3;
    let mut place = None;
    loop {
        match (call.execute(acquire.clone(), None).await, &place) {
            (Ok((index, Acquired::Waiting(member))), _) => {
                place = Some((index, Acquired::Waiting(member)));
            }
            (Ok(settled), _) => return Ok(settled),
            // It has its place all the same, and keeps it for a while.
            (Err(status), Some(_)) if passes(&status) => {}
            (Err(status), _) => return Err(status),
        }
        let until = call.last_look.min(Instant::now() + sign);
        let heard = news.heard(until, is_own).await?;
        if !heard
            && Instant::now() >= call.last_look
            && let Some(place) = place
        {
            return Ok(place);
        }
    }
}

/// Whether the same command can be answered at another try: an election, a short overload, an
/// answer that was lost.
fn passes(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded | Code::Unknown
    )
}

#[tonic::async_trait]
impl Locks for Typed {
    async fn acquire(
        &self,
        request: Request<v1::AcquireLockRequest>,
    ) -> Answer<v1::AcquireLockReply> {
        let (call, asked) = self.call(request).await?;
        let (index, acquired) = settled(&call, acquire(asked)?).await?;
        let result = Some(match acquired {
            Acquired::Granted(member) => Standing::Granted(member_wire(member)),
            Acquired::Waiting(member) => Standing::Waiting(member_wire(member)),
            Acquired::Busy(holders) => Standing::Busy(Busy {
                holders: holders.into_iter().map(member_wire).collect(),
            }),
            Acquired::Over(end) => Standing::Over(end_wire(end)),
        });
        Ok(v1::AcquireLockReply { result, index }.into())
    }

    async fn renew(&self, request: Request<v1::RenewLockRequest>) -> Answer<v1::RenewLockReply> {
        let (call, asked) = self.call(request).await?;
        let renew = Renew {
            key: name("key", asked.key)?,
            id: id("acquisition_id", &asked.acquisition_id)?,
            ttl_ms: only(asked.ttl_ms),
        };
        let (index, kept) = call.execute(renew, None).await?;
        let (fencing_token, expires_at) = match kept {
            Kept::Waiting { expires_at } => (0, expires_at),
            Kept::Holding {
                fencing_token,
                expires_at,
            } => (fencing_token, expires_at),
        };
        Ok(v1::RenewLockReply {
            fencing_token,
            expires_at_ms: expires_at.0,
            index,
        }
        .into())
    }

    async fn release(
        &self,
        request: Request<v1::ReleaseLockRequest>,
    ) -> Answer<v1::ReleaseLockReply> {
        let (call, asked) = self.call(request).await?;
        let release = Release {
            key: name("key", asked.key)?,
            id: id("acquisition_id", &asked.acquisition_id)?,
        };
        let (index, released) = call.execute(release, None).await?;
        let result = Some(match released {
            Released::Released { fencing_token } => Left::Released(fencing_token),
            Released::Cancelled => Left::Cancelled(true),
            Released::NotHeld { end } => Left::Over(end_wire(end)),
        });
        Ok(v1::ReleaseLockReply { result, index }.into())
    }

    async fn proclaim(
        &self,
        request: Request<v1::ProclaimLockRequest>,
    ) -> Answer<v1::ProclaimLockReply> {
        let (call, asked) = self.call(request).await?;
        let proclaim = Proclaim {
            key: name("key", asked.key)?,
            fencing_token: asked.fencing_token,
            metadata: asked.metadata.into(),
        };
        let (index, holder) = call.execute(proclaim, asked.request_id).await?;
        let holder = Some(member_wire(holder));
        Ok(v1::ProclaimLockReply { holder, index }.into())
    }

    async fn revoke(&self, request: Request<v1::RevokeLockRequest>) -> Answer<v1::RevokeLockReply> {
        let (call, asked) = self.call(request).await?;
        let revoke = Revoke {
            key: name("key", asked.key)?,
            only: only(asked.only),
            by: asked.by,
        };
        let (index, revoked) = call.execute(revoke, asked.request_id).await?;
        let revoked = revoked.into_iter().map(member_wire).collect();
        Ok(v1::RevokeLockReply { revoked, index }.into())
    }

    async fn get(&self, request: Request<v1::GetLockRequest>) -> Answer<v1::GetLockReply> {
        let (call, asked) = self.call(request).await?;
        let key = name("key", asked.key)?;
        let query = AnyQuery::Lock(Query::Get(Get { key }));
        let found = call.read(query, asked.read).await?;
        let Found::Lock(lock::Answer::Get(lock)) = found.answer else {
            return Err(wrong_kind());
        };
        Ok(v1::GetLockReply {
            lock: lock.map(lock_wire),
            index: found.index,
            now_ms: found.now.0,
        }
        .into())
    }

    async fn list(&self, request: Request<v1::ListLocksRequest>) -> Answer<v1::ListLocksReply> {
        let (call, asked) = self.call(request).await?;
        let list = List {
            prefix: asked.prefix,
            after: after(asked.after)?,
            limit: asked.limit,
        };
        let query = AnyQuery::Lock(Query::List(list));
        let found = call.read(query, asked.read).await?;
        let Found::Lock(lock::Answer::List(page)) = found.answer else {
            return Err(wrong_kind());
        };
        let (locks, next) = rows(page, lock_wire);
        Ok(v1::ListLocksReply {
            locks,
            next,
            index: found.index,
            now_ms: found.now.0,
        }
        .into())
    }

    async fn waiters(
        &self,
        request: Request<v1::LockWaitersRequest>,
    ) -> Answer<v1::LockWaitersReply> {
        let (call, asked) = self.call(request).await?;
        let waiters = Waiters {
            key: name("key", asked.key)?,
            after: only(asked.after),
            limit: asked.limit,
        };
        let query = AnyQuery::Lock(Query::Waiters(waiters));
        let found = call.read(query, asked.read).await?;
        let Found::Lock(lock::Answer::Waiters(page)) = found.answer else {
            return Err(wrong_kind());
        };
        let (waiters, next) = numbered(page, member_wire)?;
        Ok(v1::LockWaitersReply {
            waiters,
            next,
            index: found.index,
            now_ms: found.now.0,
        }
        .into())
    }

    async fn find(&self, request: Request<v1::FindLockRequest>) -> Answer<v1::FindLockReply> {
        let (call, asked) = self.call(request).await?;
        let find = Find {
            key: name("key", asked.key)?,
            id: id("acquisition_id", &asked.acquisition_id)?,
        };
        let query = AnyQuery::Lock(Query::Find(find));
        let answered = call.read(query, asked.read).await?;
        let Found::Lock(lock::Answer::Find(found)) = answered.answer else {
            return Err(wrong_kind());
        };
        Ok(v1::FindLockReply {
            result: Some(found_wire(found)),
            index: answered.index,
            now_ms: answered.now.0,
        }
        .into())
    }
}
