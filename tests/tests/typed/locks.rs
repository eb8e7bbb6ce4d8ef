//! `quorate.v1.Locks`.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use quorate_rpc::v1;
use quorate_rpc::v1::acquire_lock_reply::Result as Standing;
use quorate_rpc::v1::find_lock_reply::Result as Located;
use quorate_rpc::v1::lock_end::Reason;
use quorate_rpc::v1::locks_client::LocksClient;
use quorate_rpc::v1::release_lock_reply::Result as Left;
use quorate_tests::cluster::{Options, scenario};
use quorate_tests::wait::{PATIENCE, until};
use tonic::transport::Channel;
use tonic::{Code, Request};
use tonic_types::StatusExt;

use super::{NODE, TTL_MS, channel, owner, refused, request_id};

pub fn acquire(key: &str, who: &str) -> v1::AcquireLockRequest {
    v1::AcquireLockRequest {
        key: key.to_owned(),
        acquisition: request_id(0),
        owner: owner(who),
        ttl_ms: TTL_MS,
        wait_ttl_ms: TTL_MS,
        ..v1::AcquireLockRequest::default()
    }
}

/// The acquisition that a request names.
fn id_of(asked: &v1::AcquireLockRequest) -> Result<Vec<u8>> {
    let acquisition = asked.acquisition.as_ref().context("an acquisition")?;
    Ok(acquisition.id.to_vec())
}

fn release(id: &[u8]) -> v1::ReleaseLockRequest {
    v1::ReleaseLockRequest {
        key: "l".to_owned(),
        acquisition_id: id.to_vec().into(),
    }
}

/// Where an acquisition of the lock `l` stands.
async fn find(locks: &LocksClient<Channel>, id: &[u8]) -> Result<Located> {
    let asked = v1::FindLockRequest {
        key: "l".to_owned(),
        acquisition_id: id.to_vec().into(),
        read: None,
    };
    let reply = locks.clone().find(asked).await?.into_inner();
    ensure!(reply.index > 0 && reply.now_ms > 0, "{reply:?}");
    reply.result.context("it stands somewhere")
}

pub async fn hold(locks: &LocksClient<Channel>, who: &str) -> Result<v1::LockMember> {
    let reply = locks.clone().acquire(acquire("l", who)).await?.into_inner();
    match reply.result {
        Some(Standing::Granted(held)) => Ok(held),
        other => bail!("not granted: {other:?}"),
    }
}

pub fn proclaim(fencing_token: u64, note: &str) -> v1::ProclaimLockRequest {
    v1::ProclaimLockRequest {
        key: "l".to_owned(),
        fencing_token,
        metadata: note.to_owned().into(),
        request_id: None,
    }
}

/// The note of whoever holds the lock `l`.
async fn note(locks: &LocksClient<Channel>) -> Result<Vec<u8>> {
    let asked = v1::GetLockRequest {
        key: "l".to_owned(),
        read: None,
    };
    let shown = locks.clone().get(asked).await?.into_inner();
    let holders = shown.lock.context("it is held")?.holders;
    ensure!(holders.len() == 1, "{holders:?}");
    Ok(holders[0].metadata.to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_for_a_lock_ends_with_the_deadline_and_goes_on_in_its_place() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let node = cluster.follower().await?;
        let mut locks = LocksClient::new(channel(cluster, node).await?);
        let (first, second) = (acquire("l", "ann"), acquire("l", "bob"));
        let reply = locks.acquire(first.clone()).await?.into_inner();
        let Some(Standing::Granted(held)) = reply.result else {
            bail!("a free lock is granted: {reply:?}");
        };

        let mut hurried = Request::new(second.clone());
        hurried.set_timeout(Duration::from_secs(2));
        let reply = locks.acquire(hurried).await?.into_inner();
        let Some(Standing::Waiting(place)) = reply.result else {
            bail!("it waits still: {reply:?}");
        };
        ensure!(place.ticket > 0 && place.fencing_token == 0, "{place:?}");
        let waiters = v1::LockWaitersRequest {
            key: "l".to_owned(),
            ..v1::LockWaitersRequest::default()
        };
        let line = locks.waiters(waiters).await?.into_inner().waiters;
        ensure!(
            line.len() == 1 && line[0].ticket == place.ticket,
            "{line:?}"
        );

        let no_wait = v1::AcquireLockRequest {
            max_wait_ms: Some(0),
            ..acquire("l", "cid")
        };
        let reply = locks.acquire(no_wait).await?.into_inner();
        let Some(Standing::Busy(busy)) = reply.result else {
            bail!("it would not wait: {reply:?}");
        };
        ensure!(busy.holders[0].fencing_token == held.fencing_token);

        let mut waiting = locks.clone();
        let waiter = tokio::spawn(async move { waiting.acquire(second).await });
        let reply = locks.release(release(&held.acquisition_id)).await?;
        let reply = reply.into_inner();
        ensure!(reply.result == Some(Left::Released(held.fencing_token)));
        let reply = waiter.await??.into_inner();
        let Some(Standing::Granted(next)) = reply.result else {
            bail!("first in line: {reply:?}");
        };
        ensure!(next.fencing_token > held.fencing_token, "{next:?}");

        let gone = v1::RenewLockRequest {
            key: "l".to_owned(),
            acquisition_id: held.acquisition_id,
            ttl_ms: 0,
        };
        refused(locks.renew(gone).await, Code::FailedPrecondition, "FENCED")?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_was_told_to_end_gives_up() -> Result<()> {
    scenario(Options::new(NODE, 1), async |cluster| {
        let mut locks = LocksClient::new(channel(cluster, 0).await?);
        locks.acquire(acquire("l", "ann")).await?;
        let patient = v1::AcquireLockRequest {
            max_wait_ms: Some(200),
            ..acquire("l", "bob")
        };
        let reply = locks.acquire(patient).await?.into_inner();
        let Some(Standing::Over(end)) = reply.result else {
            bail!("its time to wait is over: {reply:?}");
        };
        ensure!(end.reason() == Reason::GaveUp, "{end:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acquisition_is_found_where_it_stands() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let node = cluster.follower().await?;
        let mut locks = LocksClient::new(channel(cluster, node).await?);
        let (first, second) = (acquire("l", "ann"), acquire("l", "bob"));
        let [ann, bob] = [id_of(&first)?, id_of(&second)?];
        ensure!(find(&locks, &ann).await? == Located::Unknown(true));
        let reply = locks.acquire(first).await?.into_inner();
        let Some(Standing::Granted(held)) = reply.result else {
            bail!("a free lock is granted: {reply:?}");
        };
        ensure!(find(&locks, &ann).await? == Located::Granted(held.clone()));

        let mut waiting = locks.clone();
        let waiter = tokio::spawn(async move { waiting.acquire(second).await });
        let place = until("a place in the queue", PATIENCE, async || {
            match find(&locks, &bob).await? {
                Located::Waiting(place) => Ok(Some(place)),
                _ => Ok(None),
            }
        })
        .await?;
        ensure!(place.ticket > 0 && place.fencing_token == 0, "{place:?}");

        locks.release(release(&ann)).await?;
        let Located::Over(end) = find(&locks, &ann).await? else {
            bail!("it was given back");
        };
        ensure!(end.reason() == Reason::Released, "{end:?}");
        ensure!(end.fencing_token == held.fencing_token, "{end:?}");
        let Located::Granted(next) = find(&locks, &bob).await? else {
            bail!("it was first in line");
        };
        ensure!(next.fencing_token > held.fencing_token, "{next:?}");
        let reply = waiter.await??.into_inner();
        ensure!(reply.result == Some(Standing::Granted(next)), "{reply:?}");

        let revoke = v1::RevokeLockRequest {
            key: "l".to_owned(),
            by: "an operator".to_owned(),
            ..v1::RevokeLockRequest::default()
        };
        locks.revoke(revoke).await?;
        let Located::Over(end) = find(&locks, &bob).await? else {
            bail!("it was revoked");
        };
        ensure!(end.reason() == Reason::Revoked && end.by == "an operator");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acquisition_that_was_cancelled_before_it_came_is_found_over() -> Result<()> {
    scenario(Options::new(NODE, 1), async |cluster| {
        let mut locks = LocksClient::new(channel(cluster, 0).await?);
        let late = acquire("l", "ann");
        let id = id_of(&late)?;
        ensure!(find(&locks, &id).await? == Located::Unknown(true));
        let reply = locks.release(release(&id)).await?.into_inner();
        ensure!(reply.result == Some(Left::Cancelled(true)), "{reply:?}");
        let Located::Over(end) = find(&locks, &id).await? else {
            bail!("it will never hold");
        };
        ensure!(end.reason() == Reason::Cancelled, "{end:?}");
        let reply = locks.acquire(late).await?.into_inner();
        ensure!(reply.result == Some(Standing::Over(end)), "{reply:?}");

        for (field, key, id) in [("acquisition_id", "l", &id[1..]), ("key", "", &id[..])] {
            let wrong = v1::FindLockRequest {
                key: key.to_owned(),
                acquisition_id: id.to_vec().into(),
                read: None,
            };
            let outcome = locks.find(wrong).await;
            let status = refused(outcome, Code::InvalidArgument, "INVALID_ARGUMENT")?;
            let bad = status.get_details_bad_request().context("no BadRequest")?;
            ensure!(bad.field_violations[0].field == field, "{bad:?}");
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_and_nobody_else_proclaims() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let node = cluster.follower().await?;
        let mut locks = LocksClient::new(channel(cluster, node).await?);
        let held = hold(&locks, "ann").await?;
        let once = v1::ProclaimLockRequest {
            request_id: request_id(0),
            ..proclaim(held.fencing_token, "one")
        };
        let first = locks.proclaim(once.clone()).await?.into_inner();
        let holder = first.holder.clone().context("the hold")?;
        let expected = v1::LockMember {
            metadata: "one".into(),
            ..held.clone()
        };
        ensure!(holder == expected, "nothing but the note: {holder:?}");
        ensure!(note(&locks).await? == b"one");
        let two = proclaim(held.fencing_token, "two");
        for _ in 0..2 {
            let reply = locks.proclaim(two.clone()).await?.into_inner();
            ensure!(reply.holder.context("the hold")?.metadata == "two");
        }
        // It may come late: the note that was put in between stays.
        let again = locks.proclaim(once).await?.into_inner();
        ensure!(again.holder == first.holder, "{again:?}");
        ensure!(note(&locks).await? == b"two");

        let stale = locks.proclaim(proclaim(held.fencing_token - 1, "x")).await;
        let status = refused(stale, Code::FailedPrecondition, "FENCED")?;
        let failure = status.get_details_precondition_failure();
        let violations = failure.context("no PreconditionFailure")?.violations;
        ensure!(violations[0].subject == "lock/l", "{violations:?}");
        let long = "x".repeat(4 * 1024 + 1);
        let long = locks.proclaim(proclaim(held.fencing_token, &long)).await;
        let status = refused(long, Code::InvalidArgument, "INVALID_ARGUMENT")?;
        let bad = status.get_details_bad_request().context("no BadRequest")?;
        ensure!(bad.field_violations[0].field == "metadata", "{bad:?}");
        ensure!(note(&locks).await? == b"two");

        locks.release(release(&held.acquisition_id)).await?;
        let next = hold(&locks, "bob").await?;
        let late = locks.proclaim(two).await;
        refused(late, Code::FailedPrecondition, "FENCED")?;
        ensure!(note(&locks).await?.is_empty(), "{next:?}");
        Ok(())
    })
    .await
}
