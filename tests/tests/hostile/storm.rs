//! Requests that are late when they come.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use futures::StreamExt;
use quorate_client::Client;
use quorate_statemachine::cluster::RecordDigest;
use quorate_statemachine::{Command, Name, Query, lease};
use quorate_tests::http::get;
use quorate_tests::long_form;
use quorate_tests::wait::{PATIENCE, until};

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
