//! [`ProcessWaits`]: waits for processes, any number of them over one stream.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use quorate_statemachine::notice::Notice;
use quorate_statemachine::process::{Event, Events, ProcessView, Selection};
use quorate_statemachine::query::Page;
use quorate_statemachine::{Name, Refusal, Subject};
use tokio::time::{Instant, sleep};

use crate::client::Client;
use crate::error::ClientError;
use crate::retry::Backoff;
use crate::transport::WatchWhat;
use crate::waits::{Topic, Waits};

/// A look at the state so often bounds what a connection that is silent can hide.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// The same while there is no stream.
const LOOK_WITHOUT_STREAM: Duration = Duration::from_millis(250);

/// Waits for events and ends of processes. Cheap to clone; clones share the stream.
///
/// A wait goes on for as long as it takes, through changes of leaders and the loss of nodes, and
/// costs nothing while nothing happens to its process. Dropping it leaves nothing behind.
#[derive(Clone)]
pub struct ProcessWaits {
    client: Client,
    waits: Arc<Waits<Processes>>,
}

/// A look at the state of a log index or later.
type Look<'a, T> = BoxFuture<'a, Result<Option<T>, ClientError>>;

/// Processes whose id starts with a prefix.
struct Processes {
    prefix: String,
}

impl Topic for Processes {
    type Key = Name;
    type Event = ();

    fn watch(&self) -> WatchWhat {
        WatchWhat::ProcessPrefix(self.prefix.clone())
    }

    fn read(notice: Notice) -> Option<(Name, ())> {
        match notice {
            Notice::EventAppended { process_id, .. }
            | Notice::ProcessChanged { process_id, .. } => Some((process_id, ())),
            _ => None,
        }
    }
}

impl ProcessWaits {
    /// Waits for processes whose id starts with `prefix`.
    pub fn new(client: Client, prefix: impl Into<String>) -> Self {
        let prefix = prefix.into();
        Self {
            client,
            waits: Arc::new(Waits::new(Processes { prefix })),
        }
    }

    /// The first event of type `of` with a sequence above `after`. Fails with `NotFound` when there
    /// is no such process, and otherwise only on what waiting cannot mend.
    pub async fn event(&self, id: &Name, of: &Name, after: u64) -> Result<Event, ClientError> {
        let look = |index| {
            let asked = Events {
                id: id.clone(),
                after,
                only: Selection::OfType(of.clone()),
                limit: 1,
            };
            let reading = self.client.process_events_at(asked, index);
            let first = |page: Option<Page<Event>>| {
                let page = page.ok_or_else(|| not_found(id))?;
                Ok(page.rows.into_iter().next())
            };
            reading.map(move |page| page.and_then(first)).boxed()
        };
        self.until(id, look).await
    }

    /// The record of the process once it has ended. Fails as [`Self::event`] does.
    pub async fn end(&self, id: &Name) -> Result<ProcessView, ClientError> {
        let look = |index| {
            let reading = self.client.process_get_at(id, index);
            let ended = |view: Option<ProcessView>| {
                let view = view.ok_or_else(|| not_found(id))?;
                Ok(view.process.state.is_ended().then_some(view))
            };
            reading.map(move |view| view.and_then(ended)).boxed()
        };
        self.until(id, look).await
    }

    /// Looks at the state whenever something may have happened to the process, until `look` finds
    /// what it wants. The wait is entered before the first look.
    async fn until<'a, T>(
        &self,
        id: &Name,
        look: impl Fn(u64) -> Look<'a, T>,
    ) -> Result<T, ClientError> {
        debug_assert!(id.as_str().starts_with(&self.waits.topic().prefix));
        let mut call = self.waits.enter(id.clone());
        let mut backoff = Backoff::new();
        loop {
            // First: the loss of the stream after its registration must be heard.
            call.forget();
            let wake_at = Instant::now() + LOOK_WITHOUT_STREAM;
            let registered = call.registered(&self.client, wake_at).await;
            // At or after the registration of the stream nothing falls between. What is there
            // already needs no stream to be seen.
            match look(registered.unwrap_or_default()).await {
                Ok(Some(found)) => return Ok(found),
                Ok(None) if registered.is_none() => continue,
                Ok(None) => backoff = Backoff::new(),
                Err(error) if error.is_passing() => {
                    tracing::debug!(%error, %id, "a wait goes on");
                    sleep(backoff.next_delay()).await;
                    continue;
                }
                Err(error) => return Err(error),
            }
            call.next(Instant::now() + LOOK_EVERY).await;
        }
    }
}

fn not_found(id: &Name) -> ClientError {
    ClientError::Refused(Refusal::NotFound {
        subject: Subject::Process,
        name: id.to_string(),
    })
}
