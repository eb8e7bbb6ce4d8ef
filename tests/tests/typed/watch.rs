//! `quorate.v1.Watch`.

use anyhow::{Context, Result, bail, ensure};
use quorate_rpc::v1;
use quorate_rpc::v1::event::Event;
use quorate_rpc::v1::leases_client::LeasesClient;
use quorate_rpc::v1::locks_client::LocksClient;
use quorate_rpc::v1::watch_client::WatchClient;
use quorate_rpc::v1::watch_request::What;
use quorate_rpc::v1::watched::Message;
use quorate_tests::cluster::{Options, scenario};
use quorate_tests::wait::{PATIENCE, until};
use tonic::transport::Channel;
use tonic::{Code, Streaming};

use super::leases::{claim, granted};
use super::locks::{acquire, hold, proclaim};
use super::{NODE, channel, refused};

type Stream = Streaming<v1::Watched>;

async fn message(stream: &mut Stream) -> Result<Message> {
    let watched = stream.message().await?.context("the stream goes on")?;
    watched.message.context("a message says something")
}

/// A watch, and the index at which it is registered.
async fn watch(channel: &Channel, what: What, from_index: u64) -> Result<(u64, Stream)> {
    let request = v1::WatchRequest {
        what: Some(what),
        from_index,
    };
    let mut client = WatchClient::new(channel.clone());
    let mut stream = client.watch(request).await?.into_inner();
    match message(&mut stream).await? {
        Message::RegisteredAt(index) => Ok((index, stream)),
        other => bail!("first it says where it is registered: {other:?}"),
    }
}

/// What the next entry did, and its index.
async fn entry(stream: &mut Stream) -> Result<(u64, Vec<Event>)> {
    match message(stream).await? {
        Message::Entry(entry) => {
            let events = entry.events.into_iter().filter_map(|event| event.event);
            Ok((entry.index, events.collect()))
        }
        other => bail!("no events: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_tells_of_a_lease_and_tells_it_again_from_its_index() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let channel = channel(cluster, cluster.follower().await?).await?;
        let prefix = || What::LeasePrefix("jobs/".to_owned());
        let (registered_at, mut events) = watch(&channel, prefix(), 0).await?;
        let mut leases = LeasesClient::new(channel.clone());
        leases.claim(claim("other", "ann")).await?;
        let reply = leases.claim(claim("jobs/1", "ann")).await?.into_inner();
        let (granted_at, lease) = (reply.index, granted(reply)?);
        let revoke = v1::RevokeLeaseRequest {
            key: "jobs/1".to_owned(),
            by: "an operator".to_owned(),
            ..v1::RevokeLeaseRequest::default()
        };
        let revoked_at = leases.revoke(revoke).await?.into_inner().index;
        ensure!(registered_at < granted_at, "{registered_at}, {granted_at}");

        let granted = Event::LeaseGranted(v1::LeaseGranted {
            key: "jobs/1".to_owned(),
            owner_id: "ann".to_owned(),
            fencing_token: lease.fencing_token,
        });
        let ended = Event::LeaseEnded(v1::LeaseEnded {
            key: "jobs/1".to_owned(),
            owner_id: "ann".to_owned(),
            fencing_token: lease.fencing_token,
            reason: v1::lease_ended::Reason::Revoked.into(),
            by: "an operator".to_owned(),
        });
        let (_, mut again) = watch(&channel, prefix(), granted_at).await?;
        for stream in [&mut events, &mut again] {
            ensure!(entry(stream).await? == (granted_at, vec![granted.clone()]));
            ensure!(entry(stream).await? == (revoked_at, vec![ended.clone()]));
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_changes_hands_is_one_entry_with_both() -> Result<()> {
    scenario(Options::new(NODE, 1), async |cluster| {
        let channel = channel(cluster, 0).await?;
        let (_, mut events) = watch(&channel, What::LockPrefix("l".to_owned()), 0).await?;
        let mut locks = LocksClient::new(channel.clone());
        let (first, second) = (acquire("l", "ann"), acquire("l", "bob"));
        let [first_id, second_id] = [&first, &second].map(|asked| {
            let acquisition = asked.acquisition.as_ref();
            acquisition.map(|acquisition| acquisition.id.clone())
        });
        locks.acquire(first).await?;
        let mut waiting = locks.clone();
        let waiter = tokio::spawn(async move { waiting.acquire(second).await });
        let (_, taken) = entry(&mut events).await?;
        ensure!(matches!(&taken[..], [Event::LockGranted(_)]), "{taken:?}");
        let line = v1::LockWaitersRequest {
            key: "l".to_owned(),
            ..v1::LockWaitersRequest::default()
        };
        until("a waiter", PATIENCE, async || {
            let waiters = locks.clone().waiters(line.clone()).await?.into_inner();
            Ok((waiters.waiters.len() == 1).then_some(()))
        })
        .await?;
        let release = v1::ReleaseLockRequest {
            key: "l".to_owned(),
            acquisition_id: first_id.clone().context("an id")?,
        };
        let released_at = locks.release(release).await?.into_inner().index;
        let (index, events) = entry(&mut events).await?;
        let [Event::LockLeft(left), Event::LockGranted(granted)] = &events[..] else {
            bail!("one leaves and the next is granted: {events:?}");
        };
        ensure!(index == released_at, "{index}, {released_at}");
        ensure!(Some(&left.acquisition_id) == first_id.as_ref(), "{left:?}");
        let end = left.end.as_ref().context("why it left")?;
        ensure!(end.reason() == v1::lock_end::Reason::Released, "{left:?}");
        ensure!(Some(&granted.acquisition_id) == second_id.as_ref());
        ensure!(granted.fencing_token > end.fencing_token, "{events:?}");
        waiter.await??;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_watches_a_lock_hears_that_its_holder_says_something_new() -> Result<()> {
    scenario(Options::new(NODE, 1), async |cluster| {
        let channel = channel(cluster, 0).await?;
        let mut locks = LocksClient::new(channel.clone());
        let held = hold(&locks, "ann").await?;
        let (_, mut events) = watch(&channel, What::LockPrefix("l".to_owned()), 0).await?;
        let reply = locks
            .proclaim(proclaim(held.fencing_token, "at :80"))
            .await?;
        let proclaimed_at = reply.into_inner().index;
        let proclaimed = Event::LockProclaimed(v1::LockProclaimed {
            key: "l".to_owned(),
            fencing_token: held.fencing_token,
        });
        ensure!(entry(&mut events).await? == (proclaimed_at, vec![proclaimed]));
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_when_its_node_stops_and_says_so_when_it_forgot() -> Result<()> {
    scenario(Options::new(NODE, 1), async |cluster| {
        let before = channel(cluster, 0).await?;
        let everything = || What::LeasePrefix(String::new());
        let (_, mut events) = watch(&before, everything(), 0).await?;
        let mut leases = LeasesClient::new(before.clone());
        let granted_at = leases.claim(claim("k", "ann")).await?.into_inner().index;
        entry(&mut events).await?;
        cluster.nodes[0].terminate().await?;
        let status = events.message().await.expect_err("it does not just end");
        ensure!(status.code() == Code::Unavailable, "{status:?}");

        cluster.nodes[0].start()?;
        cluster.ready(0).await?;
        let after = channel(cluster, 0).await?;
        let (_, mut resumed) = watch(&after, everything(), granted_at).await?;
        let lagged = message(&mut resumed).await?;
        let gone = v1::Lagged { resume_from: 0 };
        ensure!(lagged == Message::Lagged(gone), "{lagged:?}");
        ensure!(resumed.message().await?.is_none(), "that was the last");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_of_nothing_is_refused() -> Result<()> {
    scenario(Options::new(NODE, 1), async |cluster| {
        let mut client = WatchClient::new(channel(cluster, 0).await?);
        let outcome = client.watch(v1::WatchRequest::default()).await;
        refused(outcome, Code::InvalidArgument, "INVALID_ARGUMENT")?;
        Ok(())
    })
    .await
}
