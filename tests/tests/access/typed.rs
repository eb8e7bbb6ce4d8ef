//! The typed services, called without anything of ours in between: at a follower a command is
//! passed on, with the name of whoever gave it.

use anyhow::{Context, Result, bail, ensure};
use quorate_client::Bearer;
use quorate_rpc::token::AUTHORIZATION;
use quorate_rpc::v1;
use quorate_rpc::v1::leases_client::LeasesClient;
use quorate_rpc::v1::locks_client::LocksClient;
use quorate_rpc::v1::processes_client::ProcessesClient;
use quorate_rpc::v1::queues_client::QueuesClient;
use quorate_rpc::v1::watch_client::WatchClient;
use quorate_statemachine::access::RevokeToken;
use quorate_tests::cluster::{Cluster, Options, scenario};
use quorate_tests::raw;
use quorate_tests::wait::{PATIENCE, until};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt;

use super::{NODE, Users, client_of, name};

pub async fn channel(cluster: &Cluster, node: usize) -> Result<Channel> {
    raw::connect(cluster.nodes[node].client_addr()).await
}

/// A request that shows a token.
pub fn showing<T>(message: T, token: Option<&Bearer>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        let metadata = request.metadata_mut();
        metadata.insert(AUTHORIZATION, token.to_metadata());
    }
    request
}

fn claim(key: &str) -> v1::ClaimLeaseRequest {
    v1::ClaimLeaseRequest {
        key: key.to_owned(),
        owner: owner(),
        ttl_ms: 60_000,
        lease_token: "t".to_owned(),
        ..v1::ClaimLeaseRequest::default()
    }
}

fn owner() -> Option<v1::Owner> {
    Some(v1::Owner {
        owner_id: "o".to_owned(),
        ..v1::Owner::default()
    })
}

fn acquire(key: &str) -> v1::AcquireLockRequest {
    v1::AcquireLockRequest {
        key: key.to_owned(),
        acquisition: Some(v1::RequestId {
            id: vec![7; 16].into(),
            not_before: 0,
        }),
        owner: owner(),
        ttl_ms: 60_000,
        ..v1::AcquireLockRequest::default()
    }
}

/// The status of a call that must fail with this code.
fn fails<T>(what: &str, outcome: Result<Response<T>, Status>, code: Code) -> Result<Status> {
    match outcome {
        Ok(_) => bail!("{what} went through"),
        Err(status) if status.code() == code => Ok(status),
        Err(status) => bail!("{what}: {status:?}"),
    }
}

fn reclaim(key: &str) -> v1::ReclaimLeaseRequest {
    v1::ReclaimLeaseRequest {
        key: key.to_owned(),
        observed: Some(v1::ObservedLease {
            owner: owner(),
            lease_token: "t".to_owned(),
            fencing_token: 1,
        }),
        owner: owner(),
        lease_token: "of another".to_owned(),
        ttl_ms: 60_000,
        ..v1::ReclaimLeaseRequest::default()
    }
}

fn history(key: &str) -> v1::LeaseHistoryRequest {
    v1::LeaseHistoryRequest {
        key: key.to_owned(),
        read: None,
    }
}

/// Calls of each service, all with the same token: none of them goes through.
async fn all_fail(channel: &Channel, token: Option<&Bearer>, code: Code) -> Result<()> {
    leases_fail(channel, token, code).await?;
    locks_fail(channel, token, code).await?;
    let other = || "other".to_owned();
    let mut queues = QueuesClient::new(channel.clone());
    let push = v1::PushItemRequest {
        queue: other(),
        ..v1::PushItemRequest::default()
    };
    fails("a push", queues.push(showing(push, token)).await, code)?;
    let take = v1::ClaimItemsRequest {
        queue: other(),
        owner: owner(),
        ttl_ms: 1_000,
        max: 1,
        wait_ms: 1_000,
        ..v1::ClaimItemsRequest::default()
    };
    fails("an item", queues.claim(showing(take, token)).await, code)?;
    let mut processes = ProcessesClient::new(channel.clone());
    let get = v1::GetProcessRequest {
        id: other(),
        ..v1::GetProcessRequest::default()
    };
    fails("a process", processes.get(showing(get, token)).await, code)?;
    let end = v1::AwaitEndRequest { id: other() };
    fails(
        "its end",
        processes.await_end(showing(end, token)).await,
        code,
    )?;
    let mut watches = WatchClient::new(channel.clone());
    fails(
        "a watch",
        watches.watch(showing(watch(""), token)).await,
        code,
    )?;
    Ok(())
}

async fn leases_fail(channel: &Channel, token: Option<&Bearer>, code: Code) -> Result<()> {
    let mut leases = LeasesClient::new(channel.clone());
    fails(
        "a claim",
        leases.claim(showing(claim("other"), token)).await,
        code,
    )?;
    fails(
        "a reclaim",
        leases.reclaim(showing(reclaim("other"), token)).await,
        code,
    )?;
    let list = v1::ListLeasesRequest::default();
    fails("a list", leases.list(showing(list, token)).await, code)?;
    fails(
        "a history",
        leases.history(showing(history("other"), token)).await,
        code,
    )?;
    Ok(())
}

async fn locks_fail(channel: &Channel, token: Option<&Bearer>, code: Code) -> Result<()> {
    let other = || "other".to_owned();
    let mut locks = LocksClient::new(channel.clone());
    fails(
        "a lock",
        locks.acquire(showing(acquire("other"), token)).await,
        code,
    )?;
    let proclaim = v1::ProclaimLockRequest {
        key: other(),
        fencing_token: 1,
        ..v1::ProclaimLockRequest::default()
    };
    fails(
        "a proclamation",
        locks.proclaim(showing(proclaim, token)).await,
        code,
    )?;
    let get = v1::GetLockRequest {
        key: other(),
        ..v1::GetLockRequest::default()
    };
    fails(
        "a look at a lock",
        locks.get(showing(get, token)).await,
        code,
    )?;
    let find = v1::FindLockRequest {
        key: other(),
        acquisition_id: vec![7; 16].into(),
        read: None,
    };
    fails(
        "a look at an acquisition",
        locks.find(showing(find, token)).await,
        code,
    )?;
    Ok(())
}

fn watch(prefix: &str) -> v1::WatchRequest {
    v1::WatchRequest {
        what: Some(v1::watch_request::What::LeasePrefix(prefix.to_owned())),
        from_index: 0,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_service_of_every_node_asks_who_calls() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let users = Users::in_control(cluster).await?;
        for node in 0..3 {
            // A linearizable read: the node has applied what was switched on.
            let ann = client_of(cluster, node, Some(&users.ann))?;
            ensure!(ann.access_status().await?.enabled, "it is on");
            let channel = channel(cluster, node).await?;
            let unknown = Bearer::mint()?;
            all_fail(&channel, None, Code::Unauthenticated).await?;
            all_fail(&channel, Some(&unknown), Code::Unauthenticated).await?;
            all_fail(&channel, Some(&users.ci), Code::PermissionDenied).await?;

            let mut leases = LeasesClient::new(channel.clone());
            leases
                .claim(showing(claim(&format!("build/{node}")), Some(&users.ci)))
                .await
                .context("a claim that is allowed")?;
            let own = history(&format!("build/{node}"));
            let told = leases.history(showing(own, Some(&users.ci))).await;
            let told = told.context("a history that may be read")?.into_inner();
            ensure!(told.live.is_some(), "{told:?}");
            let denied = leases.claim(showing(claim("other"), Some(&users.ci))).await;
            let denied = fails("another key", denied, Code::PermissionDenied)?;
            let info = denied.get_details_error_info().context("no ErrorInfo")?;
            ensure!(info.reason == "DENIED", "{info:?}");
            ensure!(info.metadata["principal"] == "ci", "{info:?}");
            leases
                .claim(showing(claim("other"), Some(&users.ann)))
                .await
                .context("an administrator's claim")?;
            // With the right to it a reclaim is looked at: nobody held the key under that token.
            let wrong = leases.reclaim(showing(reclaim("build/x"), Some(&users.ci)));
            fails("a reclaim of nothing", wrong.await, Code::Aborted)?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_with_the_reason_when_its_token_is_revoked() -> Result<()> {
    scenario(Options::new(NODE, 1), async |cluster| {
        let users = Users::in_control(cluster).await?;
        let channel = channel(cluster, 0).await?;
        let asked = showing(watch("build/"), Some(&users.ci));
        let mut events = WatchClient::new(channel.clone()).watch(asked).await?;
        let first = events.get_mut().message().await?.context("a first word")?;
        ensure!(
            matches!(first.message, Some(v1::watched::Message::RegisteredAt(_))),
            "{first:?}"
        );
        let ann = client_of(cluster, 0, Some(&users.ann))?;
        let id = users.ci.id().clone();
        let revoked = ann.execute(RevokeToken { id }).await?;
        ensure!(revoked.user == Some(name("ci")), "{revoked:?}");
        let ended = tokio::time::timeout(PATIENCE, events.get_mut().message()).await?;
        let status = ended.err().context("it goes on")?;
        ensure!(status.code() == Code::Unauthenticated, "{status:?}");
        let mut leases = LeasesClient::new(channel);
        until("the token to be refused", PATIENCE, async || {
            let claimed = leases
                .claim(showing(claim("build/x"), Some(&users.ci)))
                .await;
            Ok(fails("a claim", claimed, Code::Unauthenticated).ok())
        })
        .await?;
        Ok(())
    })
    .await
}
