//! Requests that are late when they come, and requests that are cancelled as soon as they are sent.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use futures::StreamExt;
use quorate_client::Client;
use quorate_rpc::v1;
use quorate_rpc::v1::coordination_client::CoordinationClient;
use quorate_statemachine::cluster::RecordDigest;
use quorate_statemachine::{Command, Name, Query, lease};
use quorate_tests::http::get;
use quorate_tests::wait::{PATIENCE, until};
use quorate_tests::{long_form, raw};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::siege::{Siege, besieged, options};

/// Requests of each kind.
const REQUESTS: usize = 4_000;

/// Requests that are under way at a time.
const AT_A_TIME: usize = 500;

const MOMENT: Duration = Duration::from_millis(1);

fn query() -> Result<Query> {
    let key = Name::parse("key", "k")?;
    Ok(Query::Lease(lease::Query::Get(lease::Get { key })))
}

async fn many(count: usize, one: impl AsyncFn(usize) -> Result<()>) -> Result<()> {
    let one = &one;
    let mut all = futures::stream::iter(0..count)
        .map(move |number| one(number))
        .buffer_unordered(AT_A_TIME);
    while let Some(done) = all.next().await {
        done?;
    }
    Ok(())
}

/// A share of what the node may have in flight, once nothing of the storm is.
async fn nothing_in_flight(siege: &Siege<'_>) -> Result<()> {
    const NAME: &str = "quorate_quota_used_ratio{quota=\"commands_in_flight\"} ";
    until("the storm to be over", PATIENCE, async || {
        let (_, metrics) = get(siege.http(), "/metrics").await?;
        let Some(used) = metrics.lines().find_map(|line| line.strip_prefix(NAME)) else {
            bail!("no {NAME} in {metrics}");
        };
        // Two clients work beside it.
        Ok((used.parse::<f64>()? < 0.001).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn deadlines_that_nobody_can_keep_leave_nothing_behind() -> Result<()> {
    let count = long_form("QUORATE_STORM", REQUESTS);
    besieged(options(|_| {}), 48, async |siege| {
        let client = Client::connect([siege.grpc()[0]])?.with_timeout(MOMENT);
        // Done in time or not, nobody may wait for them.
        many(count, async |number| {
            let done = match number % 2 {
                0 => client.query(query()?).await.map(drop),
                _ => client.process("storm")?.get().await.map(drop),
            };
            let code = done.err().map(|error| error.code());
            let expected = [None, Some("deadline_exceeded"), Some("unavailable")];
            ensure!(
                expected.contains(&code) || code == Some("outcome_unknown"),
                "{code:?}"
            );
            Ok(())
        })
        .await?;
        let raised = many(count, async |_| {
            let _ = client.execute_command(Command::from(RecordDigest {})).await;
            Ok(())
        });
        raised.await?;
        siege.served().await?;
        nothing_in_flight(siege).await
    })
    .await
}

/// Begins a call and lets go of it, at any moment of it.
async fn cancelled(channel: tonic::transport::Channel, number: usize) -> Result<()> {
    let mut client = CoordinationClient::new(channel);
    let patience = MOMENT * (number % 4) as u32;
    let request = v1::ExecuteRequest {
        id: 1,
        command: Command::from(RecordDigest {}).encode().into(),
        timeout_ms: 60_000,
        ..v1::ExecuteRequest::default()
    };
    let batch = v1::ExecuteBatch {
        requests: vec![request],
    };
    // What is sent ends when it is let go of: a body that never ends would keep the connection open
    // on this side, whatever the node does.
    let (_held, let_go) = oneshot::channel::<()>();
    let rest = futures::stream::once(let_go).filter_map(async |_| None);
    let endless = futures::stream::iter([batch]).chain(rest);
    let what = v1::watch_request::What::LeasePrefix(String::new());
    let watch = v1::WatchRequest {
        what: Some(what),
        from_index: 0,
    };
    let _ = timeout(patience, async {
        match number % 2 {
            0 => {
                let mut replies = client.execute(endless).await?.into_inner();
                while replies.message().await?.is_some() {}
            }
            _ => {
                let mut news = client.watch(watch).await?.into_inner();
                while news.message().await?.is_some() {}
            }
        }
        anyhow::Ok(())
    })
    .await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_cancelled_at_once_leave_nothing_behind() -> Result<()> {
    let count = long_form("QUORATE_STORM", REQUESTS);
    besieged(options(|_| {}), 48, async |siege| {
        let mut channels = Vec::new();
        for _ in 0..8 {
            channels.push(raw::connect(siege.grpc()[0]).await?);
        }
        many(count, async |number| {
            cancelled(channels[number % channels.len()].clone(), number).await
        })
        .await?;
        drop(channels);
        siege.served().await?;
        nothing_in_flight(siege).await
    })
    .await
}
