//! `quorate.v1.Locks`.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use quorate_rpc::v1;
use quorate_rpc::v1::acquire_lock_reply::Result as Standing;
use quorate_rpc::v1::locks_client::LocksClient;
use quorate_rpc::v1::release_lock_reply::Result as Left;
use quorate_tests::cluster::{Options, scenario};
use tonic::{Code, Request};

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
        let release = v1::ReleaseLockRequest {
            key: "l".to_owned(),
            acquisition_id: held.acquisition_id.clone(),
        };
        let reply = locks.release(release).await?.into_inner();
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
        ensure!(end.reason() == v1::lock_end::Reason::GaveUp, "{end:?}");
        Ok(())
    })
    .await
}
