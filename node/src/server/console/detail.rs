//! What the page shows of one thing: a key's story, a process's events, a queue's items.

use axum::extract::{Query as Params, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use quorate_rpc::NodeError;
use quorate_statemachine::query::Page;
use quorate_statemachine::queue::{self, ItemState};
use quorate_statemachine::{Answer, InvalidArgument, Name, Query, lease, lock, process};
use serde::Deserialize;
use serde_json::{Value, json};

use super::look::{Look, unexpected};
use super::reader::{self, Reader};
use super::{Console, rows};

/// Waiters, events and items that are shown.
const SHOWN_MAX: u32 = 100;

/// Of what.
#[derive(Deserialize)]
pub struct Asked {
    of: String,
}

/// Why there is no answer.
pub enum Problem {
    Invalid(InvalidArgument),
    Node(NodeError),
    NotFound(String),
}

impl From<InvalidArgument> for Problem {
    fn from(error: InvalidArgument) -> Self {
        Self::Invalid(error)
    }
}

impl From<NodeError> for Problem {
    fn from(error: NodeError) -> Self {
        Self::Node(error)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, problem) = match self {
            Self::Invalid(error) => (StatusCode::BAD_REQUEST, error.to_string()),
            Self::Node(error) if !error.is_passing() => return reader::refused(&error),
            Self::Node(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
            Self::NotFound(what) => (StatusCode::NOT_FOUND, what),
        };
        (status, Json(json!({"problem": problem}))).into_response()
    }
}

type Detail = Result<Json<Value>, Problem>;

/// Who holds a key as a lease or a lock, who waits, and how earlier grants ended. Of the two it
/// shows what the reader may read.
pub async fn key(
    State(console): State<Console>,
    Extension(reader): Extension<Reader>,
    Params(asked): Params<Asked>,
) -> Detail {
    let key = Name::parse("of", asked.of)?;
    let look = Look::open(console.shared.core()?, &reader).await?;
    let (lease, lock) = match tokio::join!(lease_of(&look, &key), lock_of(&look, &key)) {
        (Err(denied), Err(_)) => return Err(denied.into()),
        (lease, lock) => (if_allowed(lease)?, if_allowed(lock)?),
    };
    let mut shown = json!({
        "key": key.as_str(),
        "now_ms": look.now_ms(),
        "fresh": look.is_fresh(),
        "lease_hidden": lease.is_none(),
        "lock_hidden": lock.is_none(),
        "ended": [],
        "waiters": {"rows": []},
    });
    if let Some((history, live)) = lease {
        let ended: Vec<_> = history.ended.iter().rev().map(rows::ended).collect();
        shown["lease"] = json!(live.as_ref().map(rows::lease));
        shown["grants"] = json!(live.map_or(history.epoch, |lease| lease.epoch));
        shown["ended"] = json!(ended);
    }
    if let Some((lock, waiters)) = lock {
        shown["lock"] = json!(lock.as_ref().map(rows::lock));
        shown["waiters"] = rows::page(&waiters, rows::lock_member);
    }
    Ok(Json(shown))
}

/// What was read; nothing if the reader may not read it.
fn if_allowed<T>(read: Result<T, NodeError>) -> Result<Option<T>, NodeError> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(NodeError::Refused(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn lease_of(
    look: &Look,
    key: &Name,
) -> Result<(lease::History, Option<lease::Lease>), NodeError> {
    let of = lease::HistoryOf { key: key.clone() };
    let found = look.ask(Query::Lease(lease::Query::History(of))).await?;
    match found.answer {
        Answer::Lease(lease::Answer::History { history, live }) => Ok((history, live)),
        other => Err(unexpected(&other)),
    }
}

async fn lock_of(
    look: &Look,
    key: &Name,
) -> Result<(Option<lock::LockView>, Page<lock::Member>), NodeError> {
    let get = lock::Get { key: key.clone() };
    let found = look.ask(Query::Lock(lock::Query::Get(get))).await?.answer;
    let Answer::Lock(lock::Answer::Get(lock)) = found else {
        return Err(unexpected(&found));
    };
    let waiters = lock::Waiters {
        key: key.clone(),
        after: None,
        limit: SHOWN_MAX,
    };
    let found = look.ask(Query::Lock(lock::Query::Waiters(waiters))).await?;
    match found.answer {
        Answer::Lock(lock::Answer::Waiters(waiters)) => Ok((lock, waiters)),
        other => Err(unexpected(&other)),
    }
}

/// The last events of a process.
pub async fn process(
    State(console): State<Console>,
    Extension(reader): Extension<Reader>,
    Params(asked): Params<Asked>,
) -> Detail {
    let id = Name::parse("of", asked.of)?;
    let look = Look::open(console.shared.core()?, &reader).await?;
    let get = process::Get { id: id.clone() };
    let found = look.ask(Query::Process(process::Query::Get(get))).await?;
    let Answer::Process(process::Answer::Get(view)) = found.answer else {
        return Err(unexpected(&found.answer).into());
    };
    let events = process::Events {
        id: id.clone(),
        after: 0,
        only: process::Selection::Last(SHOWN_MAX.into()),
        limit: SHOWN_MAX,
    };
    let found = look
        .ask(Query::Process(process::Query::Events(events)))
        .await?;
    let now_ms = found.now.0;
    let Answer::Process(process::Answer::Events(events)) = found.answer else {
        return Err(unexpected(&found.answer).into());
    };
    let (Some(view), Some(events)) = (view, events) else {
        return Err(Problem::NotFound(format!("there is no process {id}")));
    };
    Ok(Json(json!({
        "now_ms": now_ms,
        "fresh": look.is_fresh(),
        "process": rows::process(&view),
        "events": rows::page(&events, rows::event),
    })))
}

/// The first items of a queue that can be claimed, and those that were given up.
pub async fn queue(
    State(console): State<Console>,
    Extension(reader): Extension<Reader>,
    Params(asked): Params<Asked>,
) -> Detail {
    let name = Name::parse("of", asked.of)?;
    let look = Look::open(console.shared.core()?, &reader).await?;
    let (ready, dead) = tokio::try_join!(
        items(&look, &name, ItemState::Ready),
        items(&look, &name, ItemState::Dead),
    )?;
    Ok(Json(json!({
        "name": name.as_str(),
        "now_ms": look.now_ms(),
        "fresh": look.is_fresh(),
        "ready": ready,
        "dead": dead,
    })))
}

async fn items(look: &Look, name: &Name, state: ItemState) -> Result<Value, Problem> {
    let list = queue::ListItems {
        queue: name.clone(),
        state: Some(state),
        after: None,
        limit: SHOWN_MAX,
    };
    let found = look
        .ask(Query::Queue(queue::Query::ListItems(list)))
        .await?;
    match found.answer {
        Answer::Queue(queue::Answer::ListItems(Some(page))) => Ok(rows::page(&page, rows::item)),
        Answer::Queue(queue::Answer::ListItems(None)) => {
            Err(Problem::NotFound(format!("there is no queue {name}")))
        }
        other => Err(unexpected(&other).into()),
    }
}
