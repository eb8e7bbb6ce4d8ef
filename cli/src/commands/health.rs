//! `quorate health`: a real proposal through every endpoint, and how long it took.

use std::time::{Duration, Instant};

use futures::future::join_all;
use quorate_client::{Client, ClientError};
use quorate_statemachine::cluster::Tick;
use serde::Serialize;

use crate::args::Global;
use crate::connect;
use crate::exit::{Exit, Failure};
use crate::output::{Printer, Row};

/// Commits through each endpoint. An endpoint is well if its node says so and a proposal of a
/// client that knows this endpoint only was committed in time.
pub async fn run(global: &Global, printer: &mut Printer) -> Result<(), Failure> {
    let checks = global
        .endpoints
        .iter()
        .map(|endpoint| check(global, endpoint));
    let mut rows = Vec::new();
    for checked in join_all(checks).await {
        rows.push(checked?);
    }
    printer.list(&rows)?;
    verdict(&rows)
}

/// Fails only if the endpoint is no address.
async fn check(global: &Global, endpoint: &str) -> Result<HealthRow, Failure> {
    let client = connect::client_at(global, &[endpoint.to_owned()])?;
    let admin = connect::admin(global)?;
    let (committed, status) = tokio::join!(commit(&client), admin.status_of(endpoint.trim()));
    let problem = match (&committed, &status) {
        (Err(error), _) | (Ok(_), Err(error)) => Some(error.to_string()),
        (Ok(_), Ok(status)) if !status.healthy => Some(status.problem.clone()),
        (Ok(_), Ok(_)) => None,
    };
    Ok(HealthRow::new(endpoint, committed.ok(), problem))
}

/// How long a proposal took from a connected client.
async fn commit(client: &Client) -> Result<Duration, ClientError> {
    client.transport().ready(client.deadline()).await?;
    let start = Instant::now();
    client.execute(Tick {}).await?;
    Ok(start.elapsed())
}

fn verdict(rows: &[HealthRow]) -> Result<(), Failure> {
    let ill = rows.iter().filter(|row| !row.healthy).count();
    if ill == 0 {
        return Ok(());
    }
    let message = format!("{ill} of {} endpoints are not well", rows.len());
    Err(Failure::new(Exit::Unreachable, "unhealthy", message))
}

#[derive(Debug, Serialize)]
struct HealthRow {
    endpoint: String,
    healthy: bool,
    latency_ms: Option<f64>,
    problem: Option<String>,
}

impl HealthRow {
    fn new(endpoint: &str, latency: Option<Duration>, problem: Option<String>) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            healthy: problem.is_none(),
            // To the microsecond.
            latency_ms: latency.map(|latency| latency.as_micros() as f64 / 1_000.0),
            problem,
        }
    }
}

impl Row for HealthRow {
    const HEADER: &'static [&'static str] = &["ENDPOINT", "HEALTH", "COMMITTED IN", "PROBLEM"];

    fn cells(&self) -> Vec<String> {
        let latency = self
            .latency_ms
            .map_or("-".to_owned(), |ms| format!("{ms:.2}ms"));
        vec![
            self.endpoint.clone(),
            if self.healthy { "ok" } else { "not well" }.to_owned(),
            latency,
            self.problem.clone().unwrap_or_default(),
        ]
    }

    fn name(&self) -> String {
        self.endpoint.clone()
    }

    fn alarming(&self) -> bool {
        !self.healthy
    }
}

#[cfg(test)]
mod tests {
    use quorate_client::testing::MemoryTransport;

    use super::*;
    use crate::output::{Captured, Format};

    #[test]
    fn all_endpoints_must_be_well() {
        let well = || HealthRow::new("a:1", Some(Duration::from_micros(1_840)), None);
        let ill = || HealthRow::new("b:1", None, Some("no leader".to_owned()));
        assert_eq!(verdict(&[well(), well()]), Ok(()));
        let failure = verdict(&[well(), ill()]).expect_err("one is not well");
        assert_eq!(failure.exit(), Exit::Unreachable);
        assert_eq!(failure.message(), "1 of 2 endpoints are not well");
        let captured = Captured::default();
        captured
            .printer(Format::Table)
            .list(&[well(), ill()])
            .expect("memory");
        assert_eq!(
            captured.take(),
            "ENDPOINT  HEALTH    COMMITTED IN  PROBLEM\n\
             a:1       ok        1.84ms\n\
             b:1       not well  -             no leader\n"
        );
        captured
            .printer(Format::Json)
            .list(&[well()])
            .expect("memory");
        assert_eq!(
            captured.take(),
            "[{\"endpoint\":\"a:1\",\"healthy\":true,\"latency_ms\":1.84,\"problem\":null}]\n"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_is_a_command_that_was_executed() {
        let transport = MemoryTransport::new();
        let client = Client::new(transport.clone());
        commit(&client).await.expect("the cluster is up");
        assert_eq!(transport.tries().len(), 1);
        transport.set_down(true);
        commit(&client).await.expect_err("the cluster is down");
    }
}
