//! What probes ask over HTTP: does the process live, may it be given work, which build is it, and
//! what do its metrics say.
//!
//! On a listener of its own, so that a probe needs no gRPC and no certificate of a client.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use openraft::async_runtime::WatchReceiver;

use super::console;
use crate::alarm::Alarm;
use crate::metrics;
use crate::node::Health;
use crate::shared::Shared;

/// Entries that a ready node may be behind what it knows to be in the log.
const BEHIND_MAX: u64 = 10_000;

/// One question and its answer; an error says what is wrong.
type Check = (&'static str, Result<(), String>);

/// The routes.
pub fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/version", get(version))
        .route("/metrics", get(show_metrics))
        .with_state(Arc::clone(&shared))
        .merge(console::router(shared))
}

/// Whether the process does its work, with or without a quorum: what fails here is cured by a
/// restart or by an operator, never by waiting.
async fn livez(State(shared): State<Arc<Shared>>, RawQuery(query): RawQuery) -> Answer {
    answer(&[store(&shared)], &[], query.as_deref())
}

/// Whether it can be given work: it is a member, knows a leader, has caught up, and has no alarm
/// that forbids it. Other alarms are shown with `?verbose`.
async fn readyz(State(shared): State<Arc<Shared>>, RawQuery(query): RawQuery) -> Answer {
    let checks = readiness(&shared).await;
    answer(&checks, &shared.alarms().active(), query.as_deref())
}

/// Whether `/readyz` says yes.
pub async fn ready(shared: &Shared) -> bool {
    is_well(
        readiness(shared).await.iter(),
        shared.alarms().active().iter(),
    )
}

async fn readiness(shared: &Shared) -> Vec<Check> {
    let mut checks = vec![store(shared), member(shared)];
    if let Some(core) = shared.running() {
        let heard = core.reads.since_leader_was_heard().await;
        checks.push(("leader", led(heard, shared.config().silence_max())));
        let (last, applied) = {
            let metrics = core.raft.metrics();
            let metrics = metrics.borrow_watched();
            let applied = metrics.last_applied.map_or(0, |applied| applied.index);
            (metrics.last_log_index.unwrap_or(0), applied)
        };
        checks.push(("applied", caught_up(last.saturating_sub(applied))));
    }
    checks
}

fn is_well<'a>(
    mut checks: impl Iterator<Item = &'a Check>,
    mut alarms: impl Iterator<Item = &'a Alarm>,
) -> bool {
    checks.all(|(_, outcome)| outcome.is_ok()) && !alarms.any(|alarm| alarm.kind.unready())
}

async fn version() -> String {
    format!("{{\"version\":\"{}\"}}\n", env!("CARGO_PKG_VERSION"))
}

/// Made on a thread that may block: it reads files.
async fn show_metrics(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let heard = match shared.running() {
        Some(core) => core.reads.since_leader_was_heard().await,
        None => None,
    };
    let rendered = tokio::task::spawn_blocking(move || shared.metrics().render(&shared, heard));
    match rendered.await {
        Ok(Ok(text)) => Ok(([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text)),
        Ok(Err(error)) => Err((StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
        Err(error) => Err((StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

fn store(shared: &Shared) -> Check {
    let failed = match &*shared.health().borrow() {
        Health::Failed(facts) => Err(facts.clone()),
        _ => Ok(()),
    };
    ("store", failed)
}

fn member(shared: &Shared) -> Check {
    let problem = match &*shared.health().borrow() {
        Health::Running | Health::Failed(_) => Ok(()),
        Health::Blank => Err("the node belongs to no cluster yet".to_owned()),
        Health::Stopping | Health::Stopped => Err("the node is stopping".to_owned()),
    };
    ("member", problem)
}

/// A follower of a dead leader goes on naming it, so what counts is when it was heard.
fn led(heard: Option<Duration>, max: Duration) -> Result<(), String> {
    let limit = max.as_millis();
    match heard {
        None => Err("no leader was heard yet".to_owned()),
        Some(silence) if silence > max => Err(format!(
            "no leader with a quorum was heard for {} ms, limit {limit} ms",
            silence.as_millis()
        )),
        Some(_) => Ok(()),
    }
}

fn caught_up(behind: u64) -> Result<(), String> {
    if behind <= BEHIND_MAX {
        return Ok(());
    }
    Err(format!(
        "{behind} entries behind its log, limit {BEHIND_MAX}"
    ))
}

type Answer = (StatusCode, String);

/// `ok`, or what is wrong; with `?verbose` a line for each check and each alarm. What `?exclude=`
/// names, which can be given again and again, does not count and is not shown.
fn answer(checks: &[Check], alarms: &[Alarm], query: Option<&str>) -> Answer {
    let asked: Vec<&str> = query.unwrap_or_default().split('&').collect();
    let verbose = asked
        .iter()
        .any(|it| *it == "verbose" || it.starts_with("verbose="));
    let counts = |name: &str| {
        let mut excluded = asked.iter().filter_map(|it| it.strip_prefix("exclude="));
        !excluded.any(|it| it == name)
    };
    let checks = checks.iter().filter(|(name, _)| counts(name));
    let alarms = alarms.iter().filter(|alarm| counts(alarm.kind.name()));
    let mut text = String::new();
    for (name, outcome) in checks.clone() {
        // Writing to a String cannot fail.
        let _ = match outcome {
            Ok(()) if verbose => writeln!(text, "[+] {name} ok"),
            Ok(()) => Ok(()),
            Err(problem) => writeln!(text, "[-] {name}: {problem}"),
        };
    }
    for Alarm {
        kind, text: facts, ..
    } in alarms.clone()
    {
        let _ = match kind.unready() {
            true => writeln!(text, "[-] {}: {facts}", kind.name()),
            false if verbose => writeln!(text, "[!] {}: {facts}", kind.name()),
            false => Ok(()),
        };
    }
    match is_well(checks, alarms) {
        true => (StatusCode::OK, text + "ok\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alarm::{AlarmKind, Alarms};

    #[test]
    fn one_bad_check_is_named_and_verbose_shows_all() {
        let bad = || ("leader", Err("no leader is known".to_owned()));
        let checks = [("store", Ok(())), bad()];
        let (status, text) = answer(&checks, &[], None);
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(text, "[-] leader: no leader is known\n");
        let (_, text) = answer(&checks, &[], Some("verbose"));
        assert_eq!(text, "[+] store ok\n[-] leader: no leader is known\n");
        let (status, text) = answer(&checks[..1], &[], Some("a=b&verbose=1"));
        assert_eq!((status, &*text), (StatusCode::OK, "[+] store ok\nok\n"));
    }

    #[test]
    fn what_is_excluded_does_not_count() {
        let checks = [("store", Ok(())), ("leader", Err("none".to_owned()))];
        let (status, text) = answer(&checks, &[], Some("verbose&exclude=leader"));
        assert_eq!((status, &*text), (StatusCode::OK, "[+] store ok\nok\n"));
        let alarms = Alarms::default();
        alarms.raise(AlarmKind::Quarantined, "the digest differs");
        let query = Some("exclude=leader&exclude=quarantined");
        let (status, _) = answer(&checks, &alarms.active(), query);
        assert_eq!(status, StatusCode::OK);
        let (status, _) = answer(&checks, &alarms.active(), Some("exclude=leader"));
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    }

    #[test]
    fn an_alarm_that_forbids_work_makes_the_node_unready() {
        let alarms = Alarms::default();
        alarms.raise(AlarmKind::Quarantined, "the digest differs");
        let (status, text) = answer(&[("store", Ok(()))], &alarms.active(), None);
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(text, "[-] quarantined: the digest differs\n");
    }

    #[test]
    fn a_node_far_behind_says_how_far() {
        assert_eq!(caught_up(BEHIND_MAX), Ok(()));
        let problem = caught_up(BEHIND_MAX + 1).expect_err("too far");
        assert!(
            problem.contains("10001") && problem.contains("limit 10000"),
            "{problem}"
        );
    }
}
