//! The page's stream: what has changed, as it changes, by server-sent events.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::reader::Reader;
use super::{Console, VIEWERS_MAX, look};
use crate::shared::Shared;

/// Between two looks for one page, however fast the state changes.
const SPACING: Duration = Duration::from_millis(400);

/// The longest time between two looks: lag, roles and health change without an entry.
const IDLE: Duration = Duration::from_secs(1);

/// What a page wants to see.
#[derive(Deserialize)]
pub struct Asked {
    /// Only keys, ids and names that start with this.
    #[serde(default)]
    prefix: String,
}

/// Streams to one page until it or the node goes.
pub async fn live(
    State(console): State<Console>,
    Extension(reader): Extension<Reader>,
    Query(asked): Query<Asked>,
) -> Response {
    let Ok(seat) = console.viewers.try_acquire_owned() else {
        let problem = format!("{VIEWERS_MAX} pages are open, which is the limit; close one.\n");
        let again = [(header::RETRY_AFTER, "5")];
        return (StatusCode::SERVICE_UNAVAILABLE, again, problem).into_response();
    };
    let viewer = Viewer {
        shared: console.shared,
        reader,
        prefix: asked.prefix,
        sent: BTreeMap::new(),
        applied: None,
        _seat: seat,
    };
    let events = stream::unfold(viewer, |mut viewer| async move {
        let events = viewer.next().await?;
        Some((stream::iter(events), viewer))
    });
    let events = events.flatten().map(Ok::<_, Infallible>);
    Sse::new(events)
        .keep_alive(KeepAlive::default())
        .into_response()
}

/// One page that is open.
struct Viewer {
    shared: Arc<Shared>,
    reader: Reader,
    prefix: String,
    /// What the page has, by part: only what differs is sent.
    sent: BTreeMap<&'static str, String>,
    /// Follows the applied index; none before the first look.
    applied: Option<watch::Receiver<u64>>,
    _seat: OwnedSemaphorePermit,
}

impl Viewer {
    /// What is new for the page; none when the node stops, or the page may not look any more.
    async fn next(&mut self) -> Option<Vec<Event>> {
        loop {
            if !self.sent.is_empty() {
                self.wait().await;
            }
            if self.shared.is_stopping() || !self.may_look() {
                return None;
            }
            let mut events = Vec::new();
            for (name, part) in look::overview(&self.shared, &self.reader, &self.prefix).await {
                let text = part.to_string();
                if self.sent.get(name) != Some(&text) {
                    events.push(Event::default().event(name).data(&text));
                    self.sent.insert(name, text);
                }
            }
            if !events.is_empty() {
                return Some(events);
            }
        }
    }

    /// Whoever may not look any more is told when the page asks again.
    fn may_look(&self) -> bool {
        let core = self.shared.running();
        core.is_none_or(|core| self.reader.caller(&core).is_ok())
    }

    /// Until an entry was applied, but not for long. Holds nothing of the stores meanwhile.
    async fn wait(&mut self) {
        tokio::time::sleep(SPACING).await;
        if self.applied.is_none() {
            self.applied = self.shared.running().map(|core| core.hub.applied());
        }
        let Some(applied) = &mut self.applied else {
            return tokio::time::sleep(IDLE).await;
        };
        // A hub that is gone is replaced with its core; late is the same as nothing new.
        if let Ok(Err(_)) = tokio::time::timeout(IDLE, applied.changed()).await {
            self.applied = None;
        }
    }
}
