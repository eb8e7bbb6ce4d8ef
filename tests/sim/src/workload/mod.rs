//! Clients: what they do, and the account of it. One file for each noun.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_client::{Client, ClientError};
use quorate_statemachine::{FencingToken, Name};

use crate::history::Shared;
use crate::invariants::acknowledged::KEPT;
use crate::planted::Planted;
use crate::trace;

mod events;
mod leases;
mod locks;
mod operator;
mod queues;
mod recorded;

pub use events::Teller;
pub use leases::Contender;
pub use locks::Locker;
pub use operator::{Members, form, replace, transfer};
pub use queues::Worker;
pub use recorded::Account;

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
