//! Clients: what they do, and the account of it. One file for each noun.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_client::admin::{AddMemberRequest, Admin};
use quorate_client::{Client, ClientError};
use quorate_statemachine::{FencingToken, Name};
use tokio::time::sleep;

use crate::history::Shared;
use crate::invariants::acknowledged::KEPT;
use crate::planted::Planted;
use crate::random::Random;
use crate::trace;

mod events;
mod leases;
mod locks;
mod queues;

pub use events::Teller;
pub use leases::Contender;
pub use locks::Locker;
pub use queues::Worker;

/// Long enough for a cluster that has lost its leader, short enough to try again.
const TIMEOUT: Duration = Duration::from_secs(4);

/// Now, in simulated time.
pub fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

/// A line of the trace at the present time.
pub fn note(what: std::fmt::Arguments<'_>) {
    trace::note(now().as_millis(), what);
}

/// Where clients find the cluster.
pub fn endpoints(nodes: usize) -> Vec<String> {
    (1..=nodes).map(|node| format!("n{node}:7400")).collect()
}

/// Makes a cluster of the blank nodes and the founder; tries until it is done.
pub async fn form(nodes: usize) -> turmoil::Result {
    let admin = Admin::connect(endpoints(nodes))?.with_timeout(TIMEOUT);
    for node in 2..=nodes {
        let request = AddMemberRequest {
            name: format!("n{node}"),
            peer_addr: format!("n{node}:7401"),
            client_addr: format!("n{node}:7400"),
            promote: true,
            ..AddMemberRequest::default()
        };
        while let Err(error) = admin.add_member(request.clone()).await {
            note(format_args!("n{node} is no member yet: {error}"));
            sleep(Duration::from_millis(200)).await;
        }
        note(format_args!("n{node} is a member"));
    }
    Ok(())
}

/// Asks for a change of leaders now and then.
pub async fn transfer(nodes: usize, mut random: Random, until: Duration) -> turmoil::Result {
    let admin = Admin::connect(endpoints(nodes))?.with_timeout(TIMEOUT);
    while now() < until {
        sleep(Duration::from_millis(1_000 + random.below(6_000))).await;
        let moved = admin.transfer_leader(None, false).await;
        note(format_args!("leadership handed over: {}", moved.is_ok()));
    }
    Ok(())
}

/// What the cluster has of the keys that were claimed for good.
pub async fn kept(
    client: &Client,
    history: &Shared,
) -> Result<BTreeMap<String, FencingToken>, ClientError> {
    let claims = history.borrow().claims.clone();
    let looks_away = history.borrow().planted == Some(Planted::LostKey);
    let mut found = BTreeMap::new();
    for claim in claims.iter().filter(|claim| claim.key.starts_with(KEPT)) {
        let mut asked = claim.key.clone();
        if looks_away {
            asked.push('x');
        }
        let key = Name::parse("key", asked)?;
        if let Some(lease) = client.lease_get(&key).await? {
            found.insert(claim.key.clone(), lease.fencing_token);
        }
    }
    Ok(found)
}

/// When all faults are over: the cluster serves, and what it has is put into the history. What it
/// has of the keys that were claimed for good.
pub async fn judge(
    nodes: usize,
    history: &Shared,
) -> Result<BTreeMap<String, FencingToken>, ClientError> {
    let client = Client::connect(endpoints(nodes))?.with_timeout(2 * TIMEOUT);
    let found = kept(&client, history).await?;
    locks::judge(&client, history).await?;
    queues::judge(&client, history).await?;
    events::judge(&client, history).await?;
    leases::judge(&client, history).await?;
    Ok(found)
}
