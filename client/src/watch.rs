//! Waiting for something to look at again: the watch is registered first and the state read after,
//! so that nothing falls between.

use futures::StreamExt;
use futures::stream::BoxStream;
use quorate_rpc::NodeError;
use quorate_statemachine::notice::Notice;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::client::Client;
use crate::error::ClientError;
use crate::retry::{Backoff, Failures};
use crate::transport::{WatchEvent, WatchWhat};

/// A watch that registers itself again when it lagged or lost its node.
///
/// The rule for its user: [`Self::register`], then look at the state, then [`Self::changed`], then
/// from the start.
pub(crate) struct Watch {
    client: Client,
    what: WatchWhat,
    events: Option<BoxStream<'static, WatchEvent>>,
    registered_at: u64,
    /// Between streams that end without a notice: its user does work after each.
    backoff: Backoff,
}

impl Watch {
    pub(crate) fn new(client: Client, what: WatchWhat) -> Self {
        Self {
            client,
            what,
            events: None,
            registered_at: 0,
            backoff: Backoff::new(),
        }
    }

    /// Registers unless it is registered. The state read afterwards must be that of the returned
    /// index or later.
    pub(crate) async fn register(&mut self, deadline: Instant) -> Result<u64, ClientError> {
        let mut failures = Failures::new(deadline);
        while self.events.is_none() {
            match timeout_at(deadline, self.try_register()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => failures.wait_after(error).await?,
                Err(_) => return Err(not_registered("in time").into()),
            }
        }
        Ok(self.registered_at)
    }

    async fn try_register(&mut self) -> Result<(), NodeError> {
        let transport = self.client.transport();
        let mut events = transport.watch(self.what.clone(), 0).await?;
        match events.next().await {
            Some(WatchEvent::Registered { index }) => {
                self.registered_at = index;
                self.events = Some(events);
                Ok(())
            }
            Some(_) => Err(not_registered("before it sent notices")),
            None => Err(not_registered("before its stream ended")),
        }
    }

    /// Waits for a notice that `wanted` accepts, or for the loss of notices, after which anything
    /// may have happened. False when neither came by the deadline.
    pub(crate) async fn changed(
        &mut self,
        deadline: Instant,
        wanted: impl Fn(&Notice) -> bool,
    ) -> bool {
        loop {
            match self.next(deadline).await {
                Next::Notices(notices) if notices.iter().any(&wanted) => return true,
                Next::Notices(_) => {}
                Next::Lost => return true,
                Next::TooLate => return false,
            }
        }
    }

    /// Waits for the notices of the next entry that has some.
    pub(crate) async fn next(&mut self, deadline: Instant) -> Next {
        while let Some(events) = &mut self.events {
            match timeout_at(deadline, events.next()).await {
                Err(_) => return Next::TooLate,
                Ok(Some(WatchEvent::Notices { index, notices })) => {
                    self.registered_at = self.registered_at.max(index);
                    self.backoff = Backoff::new();
                    return Next::Notices(notices);
                }
                Ok(Some(WatchEvent::Registered { .. })) => {}
                Ok(Some(WatchEvent::Lagged { .. }) | None) => self.events = None,
            }
        }
        let pause = Instant::now() + self.backoff.next_delay();
        sleep_until(pause.min(deadline)).await;
        Next::Lost
    }
}

/// What a watch came to.
pub(crate) enum Next {
    /// What one entry did.
    Notices(Vec<Notice>),
    /// Notices were lost: register again, and look at the state.
    Lost,
    /// Nothing came by the deadline.
    TooLate,
}

fn not_registered(when: &str) -> NodeError {
    NodeError::Unavailable {
        message: format!("the node did not register the watch {when}"),
        retry_after_ms: 0,
        leader: None,
    }
}
