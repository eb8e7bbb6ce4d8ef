//! The typed services, called as a program in another language calls them: on the generated client,
//! without retries and without anything of ours in between.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt};
use quorate_rpc::v1::acquire_lock_reply::Result as Standing;
use quorate_rpc::v1::claim_lease_reply::Result as Claimed;
use quorate_rpc::v1::leases_client::LeasesClient;
use quorate_rpc::v1::locks_client::LocksClient;
use quorate_rpc::v1::release_lock_reply::Result as Left;
use quorate_rpc::{details, v1};
use quorate_tests::cluster::{Cluster, Options, scenario};
use quorate_tests::raw;
use quorate_tests::wait::{PATIENCE, until};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

const NODE: &str = env!("CARGO_BIN_EXE_test-node");

/// Long enough for everything to happen while it runs.
const TTL_MS: u64 = 60_000;

async fn channel(cluster: &Cluster, node: usize) -> Result<Channel> {
    raw::connect(cluster.nodes[node].client_addr()).await
}

fn owner(name: &str) -> Option<v1::Owner> {
    Some(v1::Owner {
        owner_id: name.to_owned(),
        ..v1::Owner::default()
    })
}

fn request_id(not_before: u64) -> Option<v1::RequestId> {
    let id: [u8; 16] = std::array::from_fn(|_| fastrand::u8(..));
    Some(v1::RequestId {
        id: id.to_vec().into(),
        not_before,
    })
}

fn claim(key: &str, who: &str) -> v1::ClaimLeaseRequest {
    v1::ClaimLeaseRequest {
        key: key.to_owned(),
        owner: owner(who),
        lease_token: format!("token of {who}"),
        ttl_ms: TTL_MS,
        ..v1::ClaimLeaseRequest::default()
    }
}

fn renew(lease: &v1::Lease) -> v1::RenewLeaseRequest {
    v1::RenewLeaseRequest {
        key: lease.key.clone(),
        lease_token: lease.lease_token.clone(),
        fencing_token: lease.fencing_token,
        ttl_ms: TTL_MS,
        request_id: None,
    }
}

fn acquire(key: &str, who: &str) -> v1::AcquireLockRequest {
    v1::AcquireLockRequest {
        key: key.to_owned(),
        acquisition: request_id(0),
        owner: owner(who),
        ttl_ms: TTL_MS,
        wait_ttl_ms: TTL_MS,
        ..v1::AcquireLockRequest::default()
    }
}

/// The status of a call that must fail with this code and this reason.
fn refused<T>(outcome: Result<Response<T>, Status>, code: Code, reason: &str) -> Result<Status> {
    let Err(status) = outcome else {
        bail!("not refused with {reason}");
    };
    ensure!(status.code() == code, "{status:?}");
    let info = status.get_details_error_info().context("no ErrorInfo")?;
    ensure!(info.domain == details::DOMAIN, "{info:?}");
    ensure!(info.reason == reason, "{info:?}");
    Ok(status)
}

fn granted(reply: v1::ClaimLeaseReply) -> Result<v1::Lease> {
    match reply.result {
        Some(Claimed::Granted(lease)) => Ok(lease),
        other => bail!("not granted: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_claimed_renewed_and_released_by_a_follower() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let node = cluster.follower().await?;
        let mut leases = LeasesClient::new(channel(cluster, node).await?);
        let reply = leases.claim(claim("k", "ann")).await?.into_inner();
        let (index, lease) = (reply.index, granted(reply)?);
        ensure!(lease.fencing_token > 0 && index > 0, "{lease:?}");

        let again = granted(leases.claim(claim("k", "ann")).await?.into_inner())?;
        ensure!(again == lease, "a repeated claim is the same: {again:?}");
        let other = leases.claim(claim("k", "bob")).await?.into_inner();
        ensure!(
            other.result == Some(Claimed::Busy(lease.clone())),
            "{other:?}"
        );

        let renewed = leases.renew(renew(&lease)).await?.into_inner();
        ensure!(renewed.expires_at_ms >= lease.expires_at_ms, "{renewed:?}");
        let get = v1::GetLeaseRequest {
            key: "k".to_owned(),
            read: None,
        };
        let shown = leases.get(get.clone()).await?.into_inner();
        let held = shown.lease.context("it is held")?;
        ensure!(held.renewals == 1 && held.fencing_token == lease.fencing_token);
        ensure!(shown.now_ms > 0 && shown.index >= renewed.index);

        let release = v1::ReleaseLeaseRequest {
            key: "k".to_owned(),
            lease_token: lease.lease_token.clone(),
            fencing_token: lease.fencing_token,
            request_id: None,
        };
        for _ in 0..2 {
            let released = leases.release(release.clone()).await?.into_inner();
            ensure!(released.released, "also when it is repeated: {released:?}");
        }
        let shown = leases.get(get).await?.into_inner();
        ensure!(shown.lease.is_none(), "{shown:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_say_the_reason_and_the_facts_in_their_details() -> Result<()> {
    scenario(Options::new(NODE, 1), async |cluster| {
        let mut leases = LeasesClient::new(channel(cluster, 0).await?);
        let lease = granted(leases.claim(claim("k", "ann")).await?.into_inner())?;

        let stale = v1::RenewLeaseRequest {
            fencing_token: lease.fencing_token - 1,
            ..renew(&lease)
        };
        let outcome = leases.renew(stale).await;
        let status = refused(outcome, Code::FailedPrecondition, "FENCED")?;
        let failure = status.get_details_precondition_failure();
        let violations = failure.context("no PreconditionFailure")?.violations;
        ensure!(violations[0].subject == "lease/k", "{violations:?}");
        let info = status.get_details_error_info().context("no ErrorInfo")?;
        ensure!(info.metadata["current"] == lease.fencing_token.to_string());

        for (ttl_ms, key) in [(0, "k"), (TTL_MS, "")] {
            let wrong = v1::ClaimLeaseRequest {
                ttl_ms,
                key: key.to_owned(),
                ..claim("k", "bob")
            };
            let outcome = leases.claim(wrong).await;
            let status = refused(outcome, Code::InvalidArgument, "INVALID_ARGUMENT")?;
            let bad = status.get_details_bad_request().context("no BadRequest")?;
            let field = if key.is_empty() { "key" } else { "ttl_ms" };
            ensure!(bad.field_violations[0].field == field, "{bad:?}");
        }

        let nobody = v1::RevokeLeaseRequest {
            key: "free".to_owned(),
            by: "test".to_owned(),
            ..v1::RevokeLeaseRequest::default()
        };
        let status = refused(leases.revoke(nobody).await, Code::NotFound, "NOT_FOUND")?;
        let resource = status.get_details_resource_info().context("no resource")?;
        ensure!(resource.resource_name == "free", "{resource:?}");

        let another = v1::RevokeLeaseRequest {
            key: "k".to_owned(),
            only: lease.fencing_token + 1,
            ..v1::RevokeLeaseRequest::default()
        };
        refused(leases.revoke(another).await, Code::Aborted, "CONFLICT")?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_id_gets_the_first_answer() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let node = cluster.follower().await?;
        let mut leases = LeasesClient::new(channel(cluster, node).await?);
        let reply = leases.claim(claim("k", "ann")).await?.into_inner();
        let revoke = v1::RevokeLeaseRequest {
            key: "k".to_owned(),
            by: "an operator".to_owned(),
            request_id: request_id(reply.index),
            ..v1::RevokeLeaseRequest::default()
        };
        let first = leases.revoke(revoke.clone()).await?.into_inner();
        // Somebody else has the key by now: what is repeated must not touch it.
        let next = granted(leases.claim(claim("k", "bob")).await?.into_inner())?;
        let leader = cluster.leader().await?;
        let mut elsewhere = LeasesClient::new(channel(cluster, leader).await?);
        let again = elsewhere.revoke(revoke).await?.into_inner();
        ensure!(again.revoked == first.revoked, "{again:?}, {first:?}");
        let renewed = leases.renew(renew(&next)).await?.into_inner();
        ensure!(renewed.fencing_token == next.fencing_token, "{renewed:?}");

        let short = v1::RevokeLeaseRequest {
            key: "k".to_owned(),
            request_id: Some(v1::RequestId {
                id: vec![1; 15].into(),
                not_before: 0,
            }),
            ..v1::RevokeLeaseRequest::default()
        };
        let outcome = leases.revoke(short).await;
        refused(outcome, Code::InvalidArgument, "INVALID_ARGUMENT")?;
        Ok(())
    })
    .await
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

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_without_a_quorum_leaves_the_outcome_unknown() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let leader = cluster.leader().await?;
        let mut leases = LeasesClient::new(channel(cluster, leader).await?);
        let others: Vec<_> = cluster.running().filter(|node| *node != leader).collect();
        for node in others {
            cluster.nodes[node].pause().await?;
        }
        let mut hurried = Request::new(claim("k", "ann"));
        hurried.set_timeout(Duration::from_millis(400));
        let outcome = leases.claim(hurried).await;
        let status = refused(outcome, Code::DeadlineExceeded, "DEADLINE_EXCEEDED")?;
        let info = status.get_details_error_info().context("no ErrorInfo")?;
        ensure!(info.metadata["may_have_happened"] == "true", "{info:?}");
        for node in cluster.running() {
            cluster.nodes[node].resume()?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_told_for_each_service_and_ends_when_the_node_stops() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let leader = cluster.leader().await?;
        let mut health = HealthClient::new(channel(cluster, leader).await?);
        for service in ["", "quorate.v1.Coordination", "quorate.v1.Locks"] {
            let request = HealthCheckRequest {
                service: service.to_owned(),
            };
            until("the service to be ready", PATIENCE, async || {
                let status = health.check(request.clone()).await?.into_inner().status();
                Ok((status == ServingStatus::Serving).then_some(()))
            })
            .await?;
        }
        let unknown = HealthCheckRequest {
            service: "no.such".to_owned(),
        };
        let status = health.check(unknown).await.expect_err("nobody serves it");
        ensure!(status.code() == Code::NotFound, "{status:?}");

        let all = HealthCheckRequest::default();
        let mut watch = health.watch(all).await?.into_inner();
        let first = watch.next().await.context("the state now")??;
        ensure!(first.status() == ServingStatus::Serving, "{first:?}");
        cluster.nodes[leader].terminate().await?;
        let next = watch.next().await.context("the change")??;
        ensure!(next.status() == ServingStatus::NotServing, "{next:?}");
        Ok(())
    })
    .await
}

/// All services that reflection names, and how many files describe one of them.
macro_rules! reflected {
    ($version:ident, $channel:expr) => {{
        use pb::server_reflection_request::MessageRequest as Ask;
        use pb::server_reflection_response::MessageResponse as Told;
        use tonic_reflection::pb::$version as pb;
        let mut client =
            pb::server_reflection_client::ServerReflectionClient::new($channel.clone());
        let ask = |message| pb::ServerReflectionRequest {
            message_request: Some(message),
            ..Default::default()
        };
        let asked = futures::stream::iter([
            ask(Ask::ListServices(String::new())),
            ask(Ask::FileContainingSymbol("quorate.v1.Leases".to_owned())),
        ]);
        let answers = client.server_reflection_info(asked).await?.into_inner();
        let answers: Vec<_> = answers.try_collect().await?;
        let mut told = answers
            .into_iter()
            .filter_map(|answer| answer.message_response);
        match (told.next(), told.next()) {
            (
                Some(Told::ListServicesResponse(services)),
                Some(Told::FileDescriptorResponse(files)),
            ) => {
                let names = services.service.into_iter().map(|service| service.name);
                let names: Vec<String> = names.collect();
                (names, files.file_descriptor_proto.len())
            }
            other => bail!("{other:?}"),
        }
    }};
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_names_every_service_but_those_between_nodes() -> Result<()> {
    scenario(Options::new(NODE, 1), async |cluster| {
        let channel = channel(cluster, 0).await?;
        for (names, files) in [reflected!(v1, channel), reflected!(v1alpha, channel)] {
            for wanted in [
                "quorate.v1.Cluster",
                "quorate.v1.Coordination",
                "quorate.v1.Leases",
                "quorate.v1.Locks",
                "grpc.health.v1.Health",
            ] {
                ensure!(names.iter().any(|name| name == wanted), "{names:?}");
            }
            ensure!(
                !names.iter().any(|name| name.ends_with(".Peer")),
                "{names:?}"
            );
            ensure!(files > 0);
        }
        Ok(())
    })
    .await
}
