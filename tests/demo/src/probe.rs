//! Looking at the cluster from outside while it works: does it take writes, and who leads.

use std::time::Duration;

use quorate_client::admin::Admin;
use quorate_client::statemachine::Name;
use quorate_client::{Client, ClientError, ProcessClient};
use tokio::time::{MissedTickBehavior, interval};

use crate::progress::{Board, Leader};

/// Pause between two writes of the probe: it sees how long there are none, within so much.
const EVERY: Duration = Duration::from_millis(20);

/// Pause between two looks at the leader.
const LOOK: Duration = Duration::from_millis(100);

/// Writes a little all the time: without it, workers that wait for an item would look like a
/// cluster that takes no writes. Ends only with an error.
pub async fn write(client: Client, process: Name, board: Board) -> Result<(), ClientError> {
    let record: ProcessClient = client.process(process.as_str())?;
    record.register("writes a little all the time").await?;
    let event = Name::parse("event_type", "probe")?;
    let mut pace = interval(EVERY);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pace.tick().await;
        match record.append(&event, None, Vec::new()).await {
            Ok(_) => board.wrote(),
            Err(error) if error.is_passing() || error.may_have_happened() => {}
            Err(error) => return Err(error),
        }
    }
}

/// Notes who leads, for as long as it is polled.
pub async fn watch_leader(admin: Admin, board: Board) {
    let mut pace = interval(LOOK);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let admin = admin.with_timeout(Duration::from_millis(500));
    loop {
        pace.tick().await;
        for address in admin.endpoints() {
            if let Ok(status) = admin.status_of(address).await {
                let leader = Leader {
                    term: status.term,
                    id: status.leader_id,
                };
                board.note(|progress| progress.heard_of(leader));
            }
        }
    }
}
