//! What an administrator does on the page: ends a grant, gives an item that was given up another
//! life, takes an item out.
//!
//! Only while access is controlled: then it is known who asks, `apply` decides whether that one
//! may, and it stands in the log under its name.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use quorate_rpc::NodeError;
use quorate_statemachine::queue::{self, ItemId};
use quorate_statemachine::{InvalidArgument, Name, Refusal, lease, lock};
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::Console;
use super::detail::Problem;
use super::reader::Reader;
use crate::core::Core;
use crate::origin::Caller;

/// How long what is done may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A browser sends no such header for a page from elsewhere without asking this node first, which
/// says no: it would add the password that it keeps.
const OF_THE_PAGE: &str = "x-quorate-console";

/// What is to be done. Numbers are text, as in what the page was told.
#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Act {
    /// End the grant of a lease, if it is still this one.
    RevokeLease { key: String, token: String },
    /// End the hold of a lock, if it is still this one.
    RevokeLock { key: String, token: String },
    /// Give an item that was given up another life.
    Requeue { queue: String, item: String },
    /// Take an item out that nobody works on.
    Cancel { queue: String, item: String },
}

/// Does it, and says how it ended.
pub async fn act(
    State(console): State<Console>,
    Extension(reader): Extension<Reader>,
    headers: HeaderMap,
    Json(act): Json<Act>,
) -> Result<Response, Problem> {
    let core = console.shared.core()?;
    if !headers.contains_key(OF_THE_PAGE) {
        let words =
            format!("the header {OF_THE_PAGE} is missing, which this node's own page sends");
        return Ok(problem(StatusCode::FORBIDDEN, &words));
    }
    if !core.state.access().0.enabled {
        let words = "access is not controlled, so nobody knows who asks: nothing is changed from \
                     here; use the command line, or switch access control on (docs/ACCESS.md)";
        return Ok(problem(StatusCode::FORBIDDEN, words));
    }
    let caller = reader.caller(&core)?;
    Ok(match run(&core, caller, act).await? {
        Ok(()) => Json(json!({"done": true})).into_response(),
        Err(error) => problem(status_of(&error), &error.to_string()),
    })
}

async fn run(
    core: &Core,
    caller: Caller,
    act: Act,
) -> Result<Result<(), NodeError>, InvalidArgument> {
    let by = match &caller {
        Caller::Named(name) => format!("{name} (console)"),
        Caller::Anonymous | Caller::Cluster => "the console".to_owned(),
    };
    let (origin, deadline) = (caller.into(), Instant::now() + PATIENCE);
    Ok(match act {
        Act::RevokeLease { key, token } => {
            let (key, only) = (Name::parse("key", key)?, Some(number("token", &token)?));
            let revoke = lease::Revoke { key, only, by };
            core.execute_as(revoke, origin, deadline).await.map(drop)
        }
        Act::RevokeLock { key, token } => {
            let (key, only) = (Name::parse("key", key)?, Some(number("token", &token)?));
            let revoke = lock::Revoke { key, only, by };
            core.execute_as(revoke, origin, deadline).await.map(drop)
        }
        Act::Requeue { queue, item } => {
            let (queue, item_id) = (Name::parse("queue", queue)?, ItemId(number("item", &item)?));
            let requeue = queue::Requeue { queue, item_id };
            core.execute_as(requeue, origin, deadline).await.map(drop)
        }
        Act::Cancel { queue, item } => {
            let (queue, item_id) = (Name::parse("queue", queue)?, ItemId(number("item", &item)?));
            let cancel = queue::Cancel { queue, item_id };
            core.execute_as(cancel, origin, deadline).await.map(drop)
        }
    })
}

fn number(field: &str, text: &str) -> Result<u64, InvalidArgument> {
    let digits = "decimal digits";
    text.parse()
        .map_err(|_| InvalidArgument::new(field, "is no number", digits, text))
}

fn problem(status: StatusCode, words: &str) -> Response {
    (status, Json(json!({"problem": words}))).into_response()
}

fn status_of(error: &NodeError) -> StatusCode {
    match error {
        NodeError::Refused(Refusal::Denied { .. }) => StatusCode::FORBIDDEN,
        NodeError::Refused(_) => StatusCode::CONFLICT,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}
