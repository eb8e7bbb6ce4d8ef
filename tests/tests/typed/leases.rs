//! `quorate.v1.Leases`.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use quorate_rpc::v1;
use quorate_rpc::v1::claim_lease_reply::Result as Claimed;
use quorate_rpc::v1::lease_ended::Reason;
use quorate_rpc::v1::leases_client::LeasesClient;
use quorate_tests::cluster::{Options, scenario};
use quorate_tests::wait::{PATIENCE, until};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use super::{NODE, TTL_MS, channel, owner, refused, request_id};

pub fn claim(key: &str, who: &str) -> v1::ClaimLeaseRequest {
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

/// Takes the key from a grant as it was shown.
fn reclaim(seen: &v1::Lease, who: &str) -> v1::ReclaimLeaseRequest {
    v1::ReclaimLeaseRequest {
        key: seen.key.clone(),
        observed: Some(v1::ObservedLease {
            owner: seen.owner.clone(),
            lease_token: seen.lease_token.clone(),
            fencing_token: seen.fencing_token,
        }),
        owner: owner(who),
        lease_token: format!("token of {who}"),
        ttl_ms: TTL_MS,
        ..v1::ReclaimLeaseRequest::default()
    }
}

fn history(key: &str) -> v1::LeaseHistoryRequest {
    v1::LeaseHistoryRequest {
        key: key.to_owned(),
        read: None,
    }
}

/// The field that the status of a call out of bounds names.
fn wrong_field(status: &Status) -> Result<String> {
    let bad = status.get_details_bad_request().context("no BadRequest")?;
    let violation = bad.field_violations.into_iter().next();
    Ok(violation.context("no field")?.field)
}

pub fn granted(reply: v1::ClaimLeaseReply) -> Result<v1::Lease> {
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
async fn a_dead_holder_is_reclaimed_once_and_the_history_tells_of_it() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let node = cluster.follower().await?;
        let mut leases = LeasesClient::new(channel(cluster, node).await?);
        let dead = granted(leases.claim(claim("k", "ann")).await?.into_inner())?;
        let reply = leases.reclaim(reclaim(&dead, "bob")).await?.into_inner();
        let (reclaimed_at, taken) = (reply.index, reply.granted.context("what he holds")?);
        ensure!(taken.fencing_token > dead.fencing_token, "{taken:?}");
        let holder = taken.owner.as_ref().context("who holds it")?;
        ensure!(holder.owner_id == "bob", "{taken:?}");

        let again = leases.reclaim(reclaim(&dead, "bob")).await?.into_inner();
        ensure!(again.granted.as_ref() == Some(&taken), "{again:?}");
        let late = leases.reclaim(reclaim(&dead, "cid")).await;
        let status = refused(late, Code::Aborted, "CONFLICT")?;
        let info = status.get_details_error_info().context("no ErrorInfo")?;
        ensure!(info.metadata["subject"] == "lease" && info.metadata["name"] == "k");
        let fenced = leases.renew(renew(&dead)).await;
        refused(fenced, Code::FailedPrecondition, "FENCED")?;

        let told = leases.history(history("k")).await?.into_inner();
        ensure!(told.ended_count == 1 && told.ended.len() == 1, "{told:?}");
        let ended = &told.ended[0];
        ensure!(ended.reason() == Reason::Reclaimed && ended.by == "bob");
        ensure!(ended.fencing_token == dead.fencing_token, "{ended:?}");
        ensure!(ended.lease_token == dead.lease_token, "{ended:?}");
        ensure!(ended.owner == dead.owner && ended.ttl_ms == TTL_MS);
        ensure!(ended.granted_at_ms == dead.granted_at_ms, "{ended:?}");
        ensure!(ended.ended_at_ms == taken.granted_at_ms, "{ended:?}");
        ensure!(ended.ended_index == reclaimed_at, "{ended:?}");
        ensure!(told.live.as_ref() == Some(&taken), "{told:?}");
        ensure!(told.index >= reclaimed_at && told.now_ms >= ended.ended_at_ms);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_ran_out_is_reclaimed_and_one_that_was_given_back_is_not() -> Result<()> {
    scenario(Options::new(NODE, 1), async |cluster| {
        let mut leases = LeasesClient::new(channel(cluster, 0).await?);
        let short = v1::ClaimLeaseRequest {
            ttl_ms: 1,
            ..claim("k", "ann")
        };
        let dead = granted(leases.claim(short).await?.into_inner())?;
        let ended = until("the grant to run out", PATIENCE, async || {
            let told = leases.history(history("k")).await?.into_inner();
            Ok(told.ended.into_iter().next())
        })
        .await?;
        ensure!(ended.reason() == Reason::Expired, "{ended:?}");
        ensure!(ended.ended_at_ms == dead.expires_at_ms, "{ended:?}");

        let once = v1::ReclaimLeaseRequest {
            request_id: request_id(ended.ended_index),
            ..reclaim(&dead, "bob")
        };
        let reply = leases.reclaim(once.clone()).await?.into_inner();
        let taken = reply.granted.context("nobody has had it since")?;
        let release = v1::ReleaseLeaseRequest {
            key: "k".to_owned(),
            lease_token: taken.lease_token.clone(),
            fencing_token: taken.fencing_token,
            request_id: None,
        };
        ensure!(leases.release(release).await?.into_inner().released);
        let given_back = leases.reclaim(reclaim(&taken, "cid")).await;
        refused(given_back, Code::Aborted, "CONFLICT")?;
        let again = leases.reclaim(reclaim(&dead, "bob")).await;
        refused(again, Code::Aborted, "CONFLICT")?;
        // Under its request id it is the first answer, and nobody is granted anything.
        let again = leases.reclaim(once).await?.into_inner();
        ensure!(again.granted.as_ref() == Some(&taken), "{again:?}");

        let told = leases.history(history("k")).await?.into_inner();
        let reasons: Vec<_> = told.ended.iter().map(v1::EndedLease::reason).collect();
        ensure!(reasons == [Reason::Expired, Reason::Released], "{told:?}");
        ensure!(told.ended_count == 2 && told.live.is_none(), "{told:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reclaim_names_the_whole_grant_and_a_wrong_field_is_told() -> Result<()> {
    scenario(Options::new(NODE, 1), async |cluster| {
        let mut leases = LeasesClient::new(channel(cluster, 0).await?);
        let told = leases.history(history("k")).await?.into_inner();
        ensure!(told.ended.is_empty() && told.ended_count == 0, "{told:?}");
        ensure!(told.live.is_none() && told.now_ms > 0, "{told:?}");
        let nameless = leases.history(history("")).await;
        let status = refused(nameless, Code::InvalidArgument, "INVALID_ARGUMENT")?;
        ensure!(wrong_field(&status)? == "key", "{status:?}");

        let lease = granted(leases.claim(claim("k", "ann")).await?.into_inner())?;
        let another_boot = v1::Owner {
            incarnation_id: "another boot".to_owned(),
            ..lease.owner.clone().context("the owner")?
        };
        for seen in [
            v1::Lease {
                owner: Some(another_boot),
                ..lease.clone()
            },
            v1::Lease {
                lease_token: "another".to_owned(),
                ..lease.clone()
            },
            v1::Lease {
                fencing_token: lease.fencing_token + 1,
                ..lease.clone()
            },
        ] {
            let outcome = leases.reclaim(reclaim(&seen, "bob")).await;
            refused(outcome, Code::Aborted, "CONFLICT").with_context(|| format!("{seen:?}"))?;
        }

        let right = reclaim(&lease, "bob");
        let seen = right.observed.clone().context("what was seen")?;
        let observed = |seen| v1::ReclaimLeaseRequest {
            observed: seen,
            ..right.clone()
        };
        let nobody = v1::ObservedLease {
            owner: None,
            ..seen.clone()
        };
        let unproved = v1::ObservedLease {
            lease_token: String::new(),
            ..seen
        };
        let short = v1::ReclaimLeaseRequest {
            ttl_ms: 0,
            ..right.clone()
        };
        for (field, wrong) in [
            ("observed", observed(None)),
            ("observed.owner.owner_id", observed(Some(nobody))),
            ("observed.lease_token", observed(Some(unproved))),
            ("ttl_ms", short),
        ] {
            let outcome = leases.reclaim(wrong).await;
            let status = refused(outcome, Code::InvalidArgument, "INVALID_ARGUMENT")?;
            ensure!(wrong_field(&status)? == field, "{field}: {status:?}");
        }
        let renewed = leases.renew(renew(&lease)).await?.into_inner();
        ensure!(renewed.fencing_token == lease.fencing_token, "{renewed:?}");
        Ok(())
    })
    .await
}
