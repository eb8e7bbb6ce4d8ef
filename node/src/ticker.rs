//! Lets time pass when nobody writes.
//!
//! Expiry is the effect of an entry. While something is due, the leader proposes a `Tick`, again
//! and again until nothing is: each ends a bounded number of rows, so that writers get their turn.

use std::sync::Arc;
use std::time::Duration;

use quorate_rpc::NodeError;
use quorate_statemachine::Timestamp;
use quorate_statemachine::cluster::Tick;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::core::Core;

/// How late after its deadline something may be ended while there is a quorum.
pub const TICK: Duration = Duration::from_millis(20);

/// How much time a change of leaders may lose, beside the election's, while something has a
/// deadline.
const BEHIND_MAX_MS: u64 = 1_000;

/// The same while nothing has one: then time only dates what is written.
const BEHIND_IDLE_MAX_MS: u64 = 60_000;

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
    let (next, applied) = core.state.read(|view, _, applied| {
        let next = quorate_statemachine::expiry::next_due(view);
        (next, applied)
    });
    // A state that cannot be read stops the node at its next entry; here it is just not due.
    next.is_ok_and(|next| needs_tick(next, applied, now))
}

/// Whether something is due, or the time of the last entry is too far behind.
fn needs_tick(next_due: Option<Timestamp>, applied: Timestamp, now: Timestamp) -> bool {
    let behind_max = match next_due {
        Some(due) if due <= now => return true,
        Some(_) => BEHIND_MAX_MS,
        None => BEHIND_IDLE_MAX_MS,
    };
    now.0.saturating_sub(applied.0) >= behind_max
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_written_when_something_is_due_or_the_log_is_behind() {
        let applied = Timestamp(50_000);
        let needs = |next, now| needs_tick(next, applied, Timestamp(now));
        let (due, later) = (Some(Timestamp(50_010)), Some(Timestamp(90_000)));
        assert!(needs(due, 50_010) && !needs(due, 50_009));
        assert!(needs(later, 51_000) && !needs(later, 50_999));
        assert!(needs(None, 110_000) && !needs(None, 109_999));
    }
}
