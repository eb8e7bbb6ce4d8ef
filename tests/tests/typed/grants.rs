//! `quorate.v1.Processes`: who may use a process, and sessions that are taken out of all.

use anyhow::{Context, Result, ensure};
use quorate_rpc::v1;
use quorate_rpc::v1::processes_client::ProcessesClient;
use quorate_tests::cluster::{Options, scenario};
use tonic::Code;
use tonic::transport::Channel;
use tonic_types::StatusExt;

use super::processes::register;
use super::{NODE, channel, refused, request_id};

type Processes = ProcessesClient<Channel>;

fn grant(scope: &str, session: &str, process_id: &str) -> v1::ProcessGrant {
    v1::ProcessGrant {
        scope: scope.to_owned(),
        session: session.to_owned(),
        process_id: process_id.to_owned(),
        descriptor: format!("{process_id} of {scope}").into(),
    }
}

fn put(scope: &str, session: &str, process_id: &str) -> v1::PutGrantRequest {
    v1::PutGrantRequest {
        grant: Some(grant(scope, session, process_id)),
        ..v1::PutGrantRequest::default()
    }
}

async fn may(processes: &mut Processes, scope: &str, process_id: &str) -> Result<bool> {
    let asked = v1::HasGrantRequest {
        scope: scope.to_owned(),
        process_id: process_id.to_owned(),
        read: None,
    };
    Ok(processes.has_grant(asked).await?.into_inner().granted)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_is_put_replaced_and_deleted() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let node = cluster.follower().await?;
        let mut processes = ProcessesClient::new(channel(cluster, node).await?);
        let outcome = processes.put_grant(put("ann", "s", "p")).await;
        let status = refused(outcome, Code::NotFound, "NOT_FOUND")?;
        let resource = status.get_details_resource_info().context("which")?;
        ensure!(resource.resource_type == "process" && resource.resource_name == "p");
        let nothing = processes.put_grant(v1::PutGrantRequest::default()).await;
        refused(nothing, Code::InvalidArgument, "INVALID_ARGUMENT")?;

        processes.register(register("p")).await?;
        ensure!(!may(&mut processes, "ann", "p").await?, "not yet");
        for (session, existed) in [("s", false), ("s", true), ("t", true)] {
            let reply = processes.put_grant(put("ann", session, "p")).await?;
            ensure!(reply.into_inner().existed == existed, "{session}");
        }
        ensure!(may(&mut processes, "ann", "p").await?, "granted");
        let of = v1::GrantsOfRequest {
            process_id: "p".to_owned(),
            ..v1::GrantsOfRequest::default()
        };
        let reply = processes.grants_of(of.clone()).await?.into_inner();
        ensure!(reply.grants == [grant("ann", "t", "p")], "{reply:?}");

        let delete = v1::DeleteGrantRequest {
            scope: "ann".to_owned(),
            process_id: "p".to_owned(),
            ..v1::DeleteGrantRequest::default()
        };
        let once = v1::DeleteGrantRequest {
            request_id: request_id(reply.index),
            ..delete.clone()
        };
        for (asked, existed) in [(&once, true), (&once, true), (&delete, false)] {
            let reply = processes.delete_grant(asked.clone()).await?.into_inner();
            ensure!(reply.existed == existed, "{asked:?}: {reply:?}");
        }
        ensure!(!may(&mut processes, "ann", "p").await?, "deleted");
        let nobody = v1::GrantsOfRequest {
            process_id: "nobody".to_owned(),
            ..of
        };
        let outcome = processes.grants_of(nobody).await;
        refused(outcome, Code::NotFound, "NOT_FOUND")?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_are_read_page_by_page_from_both_ends() -> Result<()> {
    scenario(Options::new(NODE, 1), async |cluster| {
        let mut processes = ProcessesClient::new(channel(cluster, 0).await?);
        for id in ["p/1", "p/2", "p/3"] {
            processes.register(register(id)).await?;
            processes.put_grant(put("ann", "s", id)).await?;
        }
        for (scope, session) in [("bob", "t"), ("cid", "r")] {
            processes.put_grant(put(scope, session, "p/1")).await?;
        }
        let complete = v1::CompleteProcessRequest {
            id: "p/2".to_owned(),
            state: v1::ProcessState::Succeeded.into(),
            ..v1::CompleteProcessRequest::default()
        };
        processes.complete(complete).await?;

        for (running, expected) in [(false, &["p/1", "p/2", "p/3"][..]), (true, &["p/1", "p/3"])] {
            let mut asked = v1::GrantsToRequest {
                scope: "ann".to_owned(),
                running,
                limit: 1,
                ..v1::GrantsToRequest::default()
            };
            let mut found = Vec::new();
            loop {
                let page = processes.grants_to(asked.clone()).await?.into_inner();
                for row in page.rows {
                    let grant = row.grant.context("the grant")?;
                    let process = row.process.context("the process")?;
                    ensure!(grant.process_id == process.id, "{grant:?}, {process:?}");
                    ensure!(process.definition.is_some(), "{process:?}");
                    found.push(process.id);
                }
                if page.next.is_empty() {
                    break;
                }
                asked.after = page.next;
            }
            ensure!(found == expected, "running={running}: {found:?}");
        }

        let mut asked = v1::GrantsOfRequest {
            process_id: "p/1".to_owned(),
            limit: 2,
            ..v1::GrantsOfRequest::default()
        };
        let page = processes.grants_of(asked.clone()).await?.into_inner();
        let expected = [grant("cid", "r", "p/1"), grant("ann", "s", "p/1")];
        ensure!(page.grants == expected, "{page:?}");
        asked.after = page.next;
        ensure!(asked.after.is_some(), "there is one more");
        let page = processes.grants_of(asked).await?.into_inner();
        ensure!(page.grants == [grant("bob", "t", "p/1")], "{page:?}");
        ensure!(page.next.is_none(), "{page:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_move_all_or_none() -> Result<()> {
    scenario(Options::new(NODE, 1), async |cluster| {
        let mut processes = ProcessesClient::new(channel(cluster, 0).await?);
        for id in ["p/1", "p/2", "p/3"] {
            processes.register(register(id)).await?;
        }
        for id in ["p/1", "p/2"] {
            processes.put_grant(put("ann", "s", id)).await?;
        }
        let moving = |ids: &[&str]| v1::MoveGrantsRequest {
            from_scope: "ann".to_owned(),
            to_scope: "bob".to_owned(),
            to_session: "t".to_owned(),
            process_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
            ..v1::MoveGrantsRequest::default()
        };
        let outcome = processes.move_grants(moving(&["p/1", "p/3"])).await;
        let status = refused(outcome, Code::NotFound, "NOT_FOUND")?;
        let resource = status.get_details_resource_info().context("which")?;
        ensure!(resource.resource_name == "ann/p/3", "{resource:?}");
        ensure!(!may(&mut processes, "bob", "p/1").await?, "half was done");

        let once = v1::MoveGrantsRequest {
            request_id: request_id(0),
            ..moving(&["p/1", "p/2"])
        };
        for _ in 0..2 {
            let reply = processes.move_grants(once.clone()).await?.into_inner();
            ensure!(reply.moved == 2, "{reply:?}");
        }
        for id in ["p/1", "p/2"] {
            ensure!(may(&mut processes, "bob", id).await?, "{id}");
            ensure!(!may(&mut processes, "ann", id).await?, "{id}");
        }
        let again = v1::MoveGrantsRequest {
            request_id: None,
            ..once
        };
        let outcome = processes.move_grants(again).await;
        refused(outcome, Code::NotFound, "NOT_FOUND")?;
        let too_many = vec!["p/1"; 1_025];
        let outcome = processes.move_grants(moving(&too_many)).await;
        let status = refused(outcome, Code::InvalidArgument, "INVALID_ARGUMENT")?;
        ensure!(status.message().contains("1025"), "{status:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_taken_out_of_all_processes() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let node = cluster.follower().await?;
        let mut processes = ProcessesClient::new(channel(cluster, node).await?);
        for id in ["p/1", "p/2"] {
            let waking = v1::RegisterProcessRequest {
                wake_target: Some(v1::WakeTarget {
                    session: "s".to_owned(),
                    target: "lane".into(),
                }),
                ..register(id)
            };
            processes.register(waking).await?;
            processes.put_grant(put("ann", "s", id)).await?;
        }
        processes.put_grant(put("bob", "t", "p/2")).await?;

        let detach = v1::DetachSessionRequest {
            session: "s".to_owned(),
            ..v1::DetachSessionRequest::default()
        };
        let once = v1::DetachSessionRequest {
            request_id: request_id(0),
            ..detach.clone()
        };
        for _ in 0..2 {
            let reply = processes.detach_session(once.clone()).await?.into_inner();
            ensure!(reply.grants == 2 && reply.wake_targets == 2, "{reply:?}");
            ensure!(reply.orphaned == ["p/1"], "{reply:?}");
            ensure!(reply.preserved == ["p/2"], "{reply:?}");
        }
        let reply = processes.detach_session(detach).await?.into_inner();
        ensure!(reply.grants == 0 && reply.wake_targets == 0, "{reply:?}");
        ensure!(!may(&mut processes, "ann", "p/1").await?, "still granted");
        ensure!(may(&mut processes, "bob", "p/2").await?, "not its grant");
        let get = v1::GetProcessRequest {
            id: "p/1".to_owned(),
            read: None,
        };
        let record = processes.get(get).await?.into_inner().process;
        let record = record.context("the record")?;
        ensure!(record.wake_target.is_none(), "{record:?}");
        ensure!(record.state() == v1::ProcessState::Running, "{record:?}");
        let nobody = v1::DetachSessionRequest::default();
        let outcome = processes.detach_session(nobody).await;
        refused(outcome, Code::InvalidArgument, "INVALID_ARGUMENT")?;
        Ok(())
    })
    .await
}
