//! Lets time pass when nobody writes.
//!
//! Expiry is the effect of an entry. While something is due, the leader proposes a `Tick`, again
//! and again until nothing is: each ends a bounded number of rows, so that writers get their turn.

use std::sync::Arc;
use std::time::Duration;

use quorate_rpc::NodeError;
use quorate_statemachine::cluster::Tick;
use tokio::time::{Instant, Interval, MissedTickBehavior};
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
        // Looked at in every interval, due or not: the clock must see time without a quorum.
        while is_due(&core) && !stop.is_cancelled() {
            if let Err(error) = tick(&core, &mut interval).await {
                tracing::debug!(%error, "a tick was not done");
                break;
            }
        }
    }
}

/// Proposes one tick and looks at the clock until it is answered.
async fn tick(core: &Core, interval: &mut Interval) -> Result<(), NodeError> {
    let ticking = core.execute(Tick {}, Instant::now() + TICK_TIMEOUT);
    tokio::pin!(ticking);
    loop {
        tokio::select! {
            ticked = &mut ticking => return ticked,
            _ = interval.tick() => drop(core.cluster_now()),
        }
    }
}

fn is_due(core: &Core) -> bool {
    if !core.leads() {
        return false;
    }
    let now = core.cluster_now();
    let next = core
        .state
        .read(|view, _, _| quorate_statemachine::expiry::next_due(view));
    // A state that cannot be read stops the node at its next entry; here it is just not due.
    next.ok().flatten().is_some_and(|due| due <= now)
}
