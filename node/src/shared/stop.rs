//! How a member stops: it hands over, finishes what is under way, and closes its stores.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use quorate_rpc::v1;

use super::Shared;
use crate::blocking::blocking;
use crate::core::Core;
use crate::membership::administer_anywhere;

/// How long a stopping node waits for the answers that are under way.
const DRAIN: Duration = Duration::from_secs(3);

impl Shared {
    /// From here on nobody gets the core; who has it keeps it until it lets go.
    fn take_core(&self) -> Option<Arc<Core>> {
        self.stop.cancel();
        let mut core = self.core.write().unwrap_or_else(PoisonError::into_inner);
        core.take()
    }

    /// Stops at once, without a farewell to clients or peers.
    pub fn abandon(&self) {
        // Streams of clients keep the core for as long as they live: Raft must not go on in it.
        if let Some(core) = self.take_core() {
            let raft = core.raft.clone();
            core.runtime.spawn(async move { raft.shutdown().await });
        }
    }

    /// Hands leadership over, ends Raft, closes the stores and gives the directory back, also when
    /// clients of this node live on.
    pub async fn close(&self) {
        if let Some(core) = self.running() {
            hand_over(&core).await;
            drain(&core).await;
        }
        if let Some(core) = self.take_core() {
            if let Err(error) = core.raft.shutdown().await {
                tracing::warn!(%error, "raft did not stop cleanly");
            }
            let state = core.state.clone();
            let flushed = blocking(move || state.flush()).await;
            if let Ok(Err(error)) = flushed {
                tracing::warn!(%error, "the state was not flushed; the next start replays the log");
            }
            let stores = Arc::clone(&core.stores);
            drop(core);
            self.tasks.close();
            let _ = tokio::time::timeout(DRAIN, self.tasks.wait()).await;
            let deadline = tokio::time::Instant::now() + DRAIN;
            while stores.is_open() && tokio::time::Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            if stores.is_open() {
                tracing::warn!("a task still has the stores open; the directory may stay locked");
            }
        }
        self.data.lock().await.take();
    }
}

/// A leader that stops hands over first, so that nobody waits for an election.
async fn hand_over(core: &Core) {
    if !core.leads() {
        return;
    }
    let alone = core.raft.voter_ids().count() <= 1;
    if alone {
        return;
    }
    let request = v1::administer_request::Request::Transfer(v1::MemberRequest::default());
    let transfer = administer_anywhere(core, request);
    match tokio::time::timeout(DRAIN, transfer).await {
        Ok(Ok(change)) => tracing::info!(to = change.id, "handed leadership over"),
        Ok(Err(error)) => tracing::warn!(%error, "leadership was not handed over"),
        Err(_) => tracing::warn!("leadership was not handed over in time"),
    }
}

/// Waits until what was proposed here is answered.
async fn drain(core: &Core) {
    let deadline = tokio::time::Instant::now() + DRAIN;
    while core.proposer.in_flight() > 0 && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
