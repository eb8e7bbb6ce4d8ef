//! Lets time pass when nobody writes.
//!
//! Expiry is the effect of an entry. While something is due, the leader proposes a `Tick`, again and
//! again until nothing is: each ends a bounded number of rows, so that writers get their turn.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use quorate_statemachine::cluster::Tick;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::core::Core;

/// How late after its deadline something may be ended while there is a quorum.
pub const TICK: Duration = Duration::from_millis(20);

/// How long a tick waits for a quorum before the ticker looks again who leads.
const TICK_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs until the node stops.
pub async fn run(core: Arc<Core>, stop: CancellationToken) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = interval.tick() => {}
        }
        while is_due(&core) && !stop.is_cancelled() {
            let deadline = Instant::now() + TICK_TIMEOUT;
            if let Err(error) = core.execute(Tick {}, deadline).await {
                tracing::debug!(%error, "a tick was not done");
                break;
            }
        }
    }
}

fn is_due(core: &Core) -> bool {
    let term = {
        let metrics = core.raft().metrics();
        let metrics = metrics.borrow_watched();
        if !metrics.state.is_leader() {
            return false;
        }
        metrics.current_term
    };
    let next = core
        .state
        .read(|view, _, _| quorate_statemachine::expiry::next_due(view));
    // A state that cannot be read stops the node at its next entry; here it is just not due.
    let due = next.ok().flatten();
    due.is_some_and(|due| due <= core.clock.now(term, core.state.meta().now))
}
