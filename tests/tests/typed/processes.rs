//! `quorate.v1.Processes`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use quorate_rpc::v1;
use quorate_rpc::v1::append_event_request::Ending;
use quorate_rpc::v1::process_events_request::Only;
use quorate_rpc::v1::processes_client::ProcessesClient;
use quorate_tests::cluster::{Options, scenario};
use tonic::{Code, Request};

use super::{NODE, channel, refused};

pub fn register(id: &str) -> v1::RegisterProcessRequest {
    v1::RegisterProcessRequest {
        id: id.to_owned(),
        definition: "a definition".into(),
        ..v1::RegisterProcessRequest::default()
    }
}

pub fn append(id: &str, event_type: &str) -> v1::AppendEventRequest {
    v1::AppendEventRequest {
        id: id.to_owned(),
        event_type: event_type.to_owned(),
        payload: "what happened".into(),
        ..v1::AppendEventRequest::default()
    }
}

pub fn ending(state: v1::ProcessState) -> Option<Ending> {
    Some(Ending {
        state: state.into(),
        outcome: "42".into(),
    })
}

fn await_end(id: &str) -> v1::AwaitEndRequest {
    v1::AwaitEndRequest { id: id.to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_is_registered_reports_and_ends() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let node = cluster.follower().await?;
        let mut processes = ProcessesClient::new(channel(cluster, node).await?);
        let first = processes.register(register("p/1")).await?.into_inner();
        let again = processes.register(register("p/1")).await?.into_inner();
        ensure!(!first.existed && again.existed, "{first:?}, {again:?}");
        let other = v1::RegisterProcessRequest {
            definition: "another".into(),
            ..register("p/1")
        };
        refused(processes.register(other).await, Code::Aborted, "CONFLICT")?;

        let keyed = v1::AppendEventRequest {
            key: "once".to_owned(),
            ..append("p/1", "step")
        };
        for duplicate in [false, true] {
            let reply = processes.append(keyed.clone()).await?.into_inner();
            ensure!(
                (reply.sequence, reply.duplicate) == (1, duplicate),
                "{reply:?}"
            );
        }
        let wait = v1::SetWaitRequest {
            id: "p/1".to_owned(),
            wait: Some("a signal".into()),
            ..v1::SetWaitRequest::default()
        };
        let waits = processes.set_wait(wait).await?.into_inner().process;
        ensure!(waits.context("the record")?.wait.is_some());

        let last = v1::AppendEventRequest {
            ends: ending(v1::ProcessState::Succeeded),
            ..append("p/1", "end")
        };
        let reply = processes.append(last).await?.into_inner();
        let record = reply.process.context("the record")?;
        ensure!(record.state() == v1::ProcessState::Succeeded, "{record:?}");
        ensure!(record.outcome.as_deref() == Some(b"42"), "{record:?}");
        ensure!(record.wait.is_none() && record.last_sequence == 2);
        let late = processes.append(append("p/1", "late")).await;
        refused(late, Code::FailedPrecondition, "ENDED")?;

        let complete = v1::CompleteProcessRequest {
            id: "p/1".to_owned(),
            state: v1::ProcessState::Succeeded.into(),
            outcome: "42".into(),
            ..v1::CompleteProcessRequest::default()
        };
        let reply = processes.complete(complete.clone()).await?.into_inner();
        ensure!(reply.existed, "it has ended so: {reply:?}");
        let otherwise = v1::CompleteProcessRequest {
            state: v1::ProcessState::Failed.into(),
            ..complete
        };
        let outcome = processes.complete(otherwise).await;
        refused(outcome, Code::FailedPrecondition, "ENDED")?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_process_is_waited_for() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let (leader, node) = (cluster.leader().await?, cluster.follower().await?);
        let mut waiting = ProcessesClient::new(channel(cluster, node).await?);
        let mut running = ProcessesClient::new(channel(cluster, leader).await?);
        let outcome = waiting.await_end(await_end("p")).await;
        refused(outcome, Code::NotFound, "NOT_FOUND")?;

        running.register(register("p")).await?;
        let mut hurried = Request::new(await_end("p"));
        hurried.set_timeout(Duration::from_secs(1));
        let still = waiting.await_end(hurried).await?.into_inner().process;
        let still = still.context("the record")?;
        ensure!(still.state() == v1::ProcessState::Running, "{still:?}");

        let waiter = tokio::spawn(async move { waiting.await_end(await_end("p")).await });
        let complete = v1::CompleteProcessRequest {
            id: "p".to_owned(),
            state: v1::ProcessState::Cancelled.into(),
            ..v1::CompleteProcessRequest::default()
        };
        running.complete(complete).await?;
        let ended = waiter.await??.into_inner().process.context("the record")?;
        ensure!(ended.state() == v1::ProcessState::Cancelled, "{ended:?}");
        ensure!(ended.definition.as_deref() == Some(&b"a definition"[..]));
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn records_and_events_are_read_page_by_page() -> Result<()> {
    scenario(Options::new(NODE, 1), async |cluster| {
        let mut processes = ProcessesClient::new(channel(cluster, 0).await?);
        for id in ["a/1", "a/2", "a/3"] {
            processes.register(register(id)).await?;
        }
        for event_type in ["x", "y", "x"] {
            processes.append(append("a/1", event_type)).await?;
        }
        let list = v1::ListProcessesRequest {
            prefix: "a/".to_owned(),
            state: v1::ProcessState::Running.into(),
            limit: 2,
            ..v1::ListProcessesRequest::default()
        };
        let page = processes.list(list.clone()).await?.into_inner();
        ensure!(page.processes.len() == 2 && page.next == "a/2", "{page:?}");
        let after = page.next;
        let rest = v1::ListProcessesRequest { after, ..list };
        let page = processes.list(rest).await?.into_inner();
        ensure!(
            page.processes.len() == 1 && page.next.is_empty(),
            "{page:?}"
        );

        let events = v1::ProcessEventsRequest {
            id: "a/1".to_owned(),
            ..v1::ProcessEventsRequest::default()
        };
        for (only, expected) in [
            (None, &[1, 2, 3][..]),
            (Some(Only::Last(1)), &[3]),
            (Some(Only::EventType("x".to_owned())), &[1, 3]),
        ] {
            let asked = v1::ProcessEventsRequest {
                only,
                ..events.clone()
            };
            let page = processes.events(asked).await?.into_inner();
            let sequences = page.events.iter().map(|event| event.sequence);
            ensure!(sequences.eq(expected.iter().copied()), "{page:?}");
        }
        let nobody = v1::ProcessEventsRequest {
            id: "nobody".to_owned(),
            ..events
        };
        refused(processes.events(nobody).await, Code::NotFound, "NOT_FOUND")?;
        let get = v1::GetProcessRequest {
            id: "nobody".to_owned(),
            read: None,
        };
        ensure!(processes.get(get).await?.into_inner().process.is_none());

        for state in [v1::ProcessState::Unspecified, v1::ProcessState::Running] {
            let wrong = v1::CompleteProcessRequest {
                id: "a/1".to_owned(),
                state: state.into(),
                ..v1::CompleteProcessRequest::default()
            };
            let outcome = processes.complete(wrong).await;
            refused(outcome, Code::InvalidArgument, "INVALID_ARGUMENT")?;
        }
        Ok(())
    })
    .await
}
