//! What a call that waits hears of what it waits for.

use quorate_client::{WatchEvent, WatchWhat};
use quorate_rpc::NodeError;
use quorate_statemachine::notice::Notice;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::Call;
use crate::propose::stopped;

/// A watch that lives as long as a call. It is registered before the call first looks at the state,
/// and again before the next look when notices were lost: nothing is slept through.
pub struct News<'a> {
    call: &'a Call,
    what: WatchWhat,
    events: mpsc::Receiver<WatchEvent>,
}

impl<'a> News<'a> {
    pub fn of(call: &'a Call, what: WatchWhat) -> Result<Self, NodeError> {
        let events = call.core.watch(what.clone(), 0)?;
        Ok(Self { call, what, events })
    }

    /// Waits for a notice that is wanted. False if none came by `until`; after the loss of notices,
    /// when anything may have happened, true.
    pub async fn heard(
        &mut self,
        until: Instant,
        wanted: impl Fn(&Notice) -> bool,
    ) -> Result<bool, NodeError> {
        loop {
            let event = tokio::select! {
                () = self.call.stop.cancelled() => return Err(stopped()),
                event = timeout_at(until, self.events.recv()) => event,
            };
            match event {
                Err(_) => return Ok(false),
                Ok(Some(WatchEvent::Notices { notices, .. })) if notices.iter().any(&wanted) => {
                    return Ok(true);
                }
                Ok(Some(WatchEvent::Notices { .. } | WatchEvent::Registered { .. })) => {}
                Ok(Some(WatchEvent::Lagged { .. }) | None) => {
                    self.events = self.call.core.watch(self.what.clone(), 0)?;
                    return Ok(true);
                }
            }
        }
    }
}
