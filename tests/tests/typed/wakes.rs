//! `quorate.v1.Processes`: events that wake, and what is noted at a process.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use quorate_rpc::v1;
use quorate_rpc::v1::await_event_request::Only as Awaited;
use quorate_rpc::v1::leases_client::LeasesClient;
use quorate_rpc::v1::process_events_request::Only;
use quorate_rpc::v1::processes_client::ProcessesClient;
use quorate_tests::cluster::{Options, scenario};
use tonic::transport::Channel;
use tonic::{Code, Request};

use super::leases::{claim, granted};
use super::processes::{append, ending, register};
use super::{NODE, channel, refused, request_id};

type Processes = ProcessesClient<Channel>;

fn waking(id: &str) -> v1::AppendEventRequest {
    v1::AppendEventRequest {
        wakes: true,
        ..append(id, "wake")
    }
}

fn ack(id: &str, sequence: u64) -> v1::AckWakeRequest {
    v1::AckWakeRequest {
        id: id.to_owned(),
        sequence,
        ..v1::AckWakeRequest::default()
    }
}

fn await_event(id: &str, after: u64, only: Option<Awaited>) -> v1::AwaitEventRequest {
    v1::AwaitEventRequest {
        id: id.to_owned(),
        after,
        only,
    }
}

async fn pending(processes: &mut Processes, id: &str) -> Result<Vec<u64>> {
    let asked = v1::ProcessEventsRequest {
        id: id.to_owned(),
        only: Some(Only::PendingWakes(v1::PendingWakes {})),
        ..v1::ProcessEventsRequest::default()
    };
    let page = processes.events(asked).await?.into_inner();
    Ok(page.events.iter().map(|event| event.sequence).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wake_is_pending_until_it_is_acknowledged() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let node = cluster.follower().await?;
        let mut processes = ProcessesClient::new(channel(cluster, node).await?);
        let target = v1::WakeTarget {
            session: "chat".to_owned(),
            target: "lane 1".into(),
        };
        let asked = v1::RegisterProcessRequest {
            wake_target: Some(target.clone()),
            ..register("p")
        };
        for existed in [false, true] {
            let reply = processes.register(asked.clone()).await?.into_inner();
            let record = reply.process.context("the record")?;
            ensure!(reply.existed == existed, "{existed}: {record:?}");
            ensure!(record.wake_target.as_ref() == Some(&target), "{record:?}");
        }
        processes.append(append("p", "step")).await?;
        for _ in 0..2 {
            processes.append(waking("p")).await?;
        }
        ensure!(pending(&mut processes, "p").await? == [2, 3]);

        // By its request id a repeated call is answered the same, without one it finds nothing.
        let first = v1::AckWakeRequest {
            request_id: request_id(0),
            ..ack("p", 2)
        };
        for _ in 0..2 {
            let reply = processes.ack_wake(first.clone()).await?.into_inner();
            ensure!(reply.was_pending, "{reply:?}");
        }
        for sequence in [1, 2, 99] {
            let reply = processes.ack_wake(ack("p", sequence)).await?.into_inner();
            ensure!(!reply.was_pending, "{sequence}: {reply:?}");
        }
        ensure!(pending(&mut processes, "p").await? == [3]);
        let status = refused(
            processes.ack_wake(ack("nobody", 1)).await,
            Code::NotFound,
            "NOT_FOUND",
        )?;
        ensure!(status.message().contains("nobody"), "{status:?}");
        let unnamed = v1::RegisterProcessRequest {
            wake_target: Some(v1::WakeTarget::default()),
            ..register("q")
        };
        let outcome = processes.register(unnamed).await;
        let status = refused(outcome, Code::InvalidArgument, "INVALID_ARGUMENT")?;
        ensure!(status.message().contains("wake_target.session"));
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wake_is_not_acknowledged_under_a_lease_that_is_over() -> Result<()> {
    scenario(Options::new(NODE, 1), async |cluster| {
        let channel = channel(cluster, 0).await?;
        let mut processes = ProcessesClient::new(channel.clone());
        let mut leases = LeasesClient::new(channel);
        processes.register(register("p")).await?;
        processes.append(waking("p")).await?;
        let held = granted(leases.claim(claim("waker", "me")).await?.into_inner())?;
        let release = v1::ReleaseLeaseRequest {
            key: held.key.clone(),
            lease_token: held.lease_token,
            fencing_token: held.fencing_token,
            request_id: None,
        };
        leases.release(release).await?;
        let fenced = v1::AckWakeRequest {
            only_if: vec![v1::Precondition {
                what: Some(v1::precondition::What::Lease(v1::precondition::Held {
                    key: held.key,
                    fencing_token: held.fencing_token,
                })),
            }],
            ..ack("p", 1)
        };
        let outcome = processes.ack_wake(fenced).await;
        refused(outcome, Code::FailedPrecondition, "FENCED")?;
        ensure!(pending(&mut processes, "p").await? == [1], "it was done");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_waited_for() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let (leader, node) = (cluster.leader().await?, cluster.follower().await?);
        let waiting = ProcessesClient::new(channel(cluster, node).await?);
        let mut running = ProcessesClient::new(channel(cluster, leader).await?);
        let outcome = waiting.clone().await_event(await_event("p", 0, None)).await;
        refused(outcome, Code::NotFound, "NOT_FOUND")?;

        running.register(register("p")).await?;
        let mut hurried = Request::new(await_event("p", 0, None));
        hurried.set_timeout(Duration::from_secs(1));
        let none = waiting.clone().await_event(hurried).await?.into_inner();
        ensure!(none.event.is_none() && none.index > 0, "{none:?}");

        let asked = [
            (None, 1),
            (Some(Awaited::EventType("end".to_owned())), 3),
            (Some(Awaited::PendingWakes(v1::PendingWakes {})), 2),
        ];
        let waiters = asked.clone().map(|(only, sequence)| {
            let mut waiting = waiting.clone();
            let waiter = tokio::spawn(async move {
                let reply = waiting.await_event(await_event("p", 0, only)).await?;
                anyhow::Ok(reply.into_inner().event.context("an event")?.sequence)
            });
            (waiter, sequence)
        });
        running.append(append("p", "step")).await?;
        running.append(waking("p")).await?;
        let last = v1::AppendEventRequest {
            ends: ending(v1::ProcessState::Succeeded),
            ..append("p", "end")
        };
        running.append(last).await?;
        for (waiter, sequence) in waiters {
            ensure!(waiter.await?? == sequence, "not the first of its kind");
        }
        // What is there already is not waited for.
        for (only, sequence) in asked {
            let asked = await_event("p", sequence - 1, only);
            let reply = waiting.clone().await_event(asked).await?.into_inner();
            let event = reply.event.context("an event")?;
            ensure!(event.sequence == sequence, "{event:?}");
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_after_the_end_only_if_they_may_and_are_counted() -> Result<()> {
    scenario(Options::new(NODE, 1), async |cluster| {
        let mut processes = ProcessesClient::new(channel(cluster, 0).await?);
        processes.register(register("p")).await?;
        let last = v1::AppendEventRequest {
            ends: ending(v1::ProcessState::Failed),
            ..append("p", "end")
        };
        processes.append(last).await?;
        let late = append("p", "note");
        let outcome = processes.append(late.clone()).await;
        refused(outcome, Code::FailedPrecondition, "ENDED")?;
        let allowed = v1::AppendEventRequest {
            after_end: true,
            ..late
        };
        for sequence in [2, 3] {
            let reply = processes.append(allowed.clone()).await?.into_inner();
            ensure!(reply.sequence == sequence, "{reply:?}");
        }
        let count = |event_type: &str, through| v1::CountEventsRequest {
            id: "p".to_owned(),
            event_type: event_type.to_owned(),
            through,
            read: None,
        };
        for (event_type, through, expected) in [
            ("note", None, 2),
            ("note", Some(2), 1),
            ("note", Some(0), 0),
            ("end", None, 1),
            ("other", None, 0),
        ] {
            let asked = count(event_type, through);
            let reply = processes.count_events(asked).await?.into_inner();
            ensure!(reply.count == expected, "{event_type}: {reply:?}");
        }
        let nobody = v1::CountEventsRequest {
            id: "nobody".to_owned(),
            ..count("note", None)
        };
        let outcome = processes.count_events(nobody).await;
        refused(outcome, Code::NotFound, "NOT_FOUND")?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_external_reference_is_set_once() -> Result<()> {
    scenario(Options::new(NODE, 1), async |cluster| {
        let mut processes = ProcessesClient::new(channel(cluster, 0).await?);
        let set = |id: &str, to: &'static str| v1::SetExternalRefRequest {
            id: id.to_owned(),
            external_ref: to.into(),
            ..v1::SetExternalRefRequest::default()
        };
        let outcome = processes.set_external_ref(set("p", "job 7")).await;
        refused(outcome, Code::NotFound, "NOT_FOUND")?;
        processes.register(register("p")).await?;
        for existed in [false, true] {
            let reply = processes.set_external_ref(set("p", "job 7")).await?;
            let reply = reply.into_inner();
            let record = reply.process.context("the record")?;
            ensure!(reply.existed == existed, "{existed}: {record:?}");
            ensure!(record.external_ref.as_deref() == Some(&b"job 7"[..]));
        }
        let outcome = processes.set_external_ref(set("p", "job 8")).await;
        refused(outcome, Code::Aborted, "CONFLICT")?;
        let too_long = v1::SetExternalRefRequest {
            external_ref: vec![0; (16 << 10) + 1].into(),
            ..set("p", "")
        };
        let outcome = processes.set_external_ref(too_long).await;
        let status = refused(outcome, Code::InvalidArgument, "INVALID_ARGUMENT")?;
        ensure!(status.message().contains("16385"), "{status:?}");
        Ok(())
    })
    .await
}
