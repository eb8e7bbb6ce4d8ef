//! The workload of Jepsen's report on etcd's locks: read a set, think, write it back with one more
//! element, all under a lease, while the holder may think for longer than the lease lives.
//!
//! <https://jepsen.io/analyses/etcd-3.4.3>: no lock service can keep two holders apart that do not
//! look at the time. So one of the two resources loses updates, which shows that the run is hard
//! enough to tell; the other one looks at the fencing token at each access and must lose none.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use quorate_client::fence::FenceGate;
use quorate_client::{Client, ClientError};
use quorate_statemachine::lease::{Claim, Claimed, Lease, Release, SameOwner};
use quorate_statemachine::{LeaseToken, Name, Owner};
use tokio::task::JoinSet;
use tokio::time::sleep;

use quorate_histories::clients::Shared;

/// Clients of one resource.
const CLIENTS: usize = 4;

const TTL_MS: u64 = 800;

/// How long a holder thinks between its read and its write.
const THINKS_MS: std::ops::Range<u64> = 0..2_000;

const PAUSE_MS: std::ops::Range<u64> = 20..100;

const ANSWER_MAX: Duration = Duration::from_secs(2);

/// A set in memory, outside the cluster.
#[derive(Default)]
struct Set {
    elements: BTreeSet<u32>,
    /// None for one that does not look at tokens.
    gate: Option<FenceGate>,
}

impl Set {
    fn admits(&mut self, token: u64) -> bool {
        self.gate
            .as_mut()
            .is_none_or(|gate| gate.check(token).is_ok())
    }

    /// What is in it, for a holder that is not known to be stale.
    fn read(&mut self, token: u64) -> Option<BTreeSet<u32>> {
        self.admits(token).then(|| self.elements.clone())
    }

    /// Writes all of it; answers whether it did.
    fn write(&mut self, token: u64, elements: BTreeSet<u32>) -> bool {
        let admitted = self.admits(token);
        if admitted {
            self.elements = elements;
        }
        admitted
    }
}

/// A resource with those who write to it.
pub struct Resource {
    name: &'static str,
    set: Mutex<Set>,
    accepted: Mutex<BTreeSet<u32>>,
    refused: Mutex<u64>,
}

/// What became of the updates of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Updates {
    /// Said to be written.
    pub accepted: usize,
    /// Of these, no longer there.
    pub lost: usize,
    /// Refused by the token.
    pub refused: u64,
}

impl Resource {
    /// One that looks at tokens.
    #[must_use]
    pub fn fenced() -> Arc<Self> {
        Self::new("resource/fenced", Some(FenceGate::new()))
    }

    /// One that trusts its callers.
    #[must_use]
    pub fn bare() -> Arc<Self> {
        Self::new("resource/bare", None)
    }

    fn new(name: &'static str, gate: Option<FenceGate>) -> Arc<Self> {
        let set = Set {
            gate,
            ..Set::default()
        };
        Arc::new(Self {
            name,
            set: Mutex::new(set),
            accepted: Mutex::default(),
            refused: Mutex::default(),
        })
    }

    /// What became of the updates.
    #[must_use]
    pub fn updates(&self) -> Updates {
        let set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        let accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        Updates {
            accepted: accepted.len(),
            lost: accepted.difference(&set.elements).count(),
            refused: *refused,
        }
    }

    /// Works on it until the clients are to stop.
    pub async fn work(self: Arc<Self>, shared: Arc<Shared>, seed: u64) -> Result<()> {
        let mut clients = JoinSet::new();
        for place in 0..CLIENTS as u64 {
            let (own, shared) = (Arc::clone(&self), Arc::clone(&shared));
            let random = fastrand::Rng::with_seed(seed ^ (place << 32));
            clients.spawn(async move { own.update(shared, random).await });
        }
        while let Some(client) = clients.join_next().await {
            client??;
        }
        Ok(())
    }

    async fn update(&self, shared: Arc<Shared>, mut random: fastrand::Rng) -> Result<()> {
        let client = shared.client()?.with_timeout(ANSWER_MAX);
        while !shared.stop.is_cancelled() {
            sleep(Duration::from_millis(random.u64(PAUSE_MS))).await;
            let element = shared.number();
            // Busy or unreachable: it tries again later.
            let Ok(Some(lease)) = self.claim(&client, element).await else {
                continue;
            };
            let token = lease.fencing_token;
            let read = self.lock(|set| set.read(token));
            let Some(mut elements) = read else {
                continue;
            };
            sleep(Duration::from_millis(random.u64(THINKS_MS))).await;
            elements.insert(element);
            if self.lock(|set| set.write(token, elements)) {
                let mut accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
                accepted.insert(element);
            } else {
                *self.refused.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            }
            let release = Release {
                key: lease.key,
                lease_token: lease.lease_token,
                fencing_token: token,
            };
            // If it does not come through, the lease ends by itself.
            let _ = client.execute(release).await;
        }
        Ok(())
    }

    fn lock<T>(&self, work: impl FnOnce(&mut Set) -> T) -> T {
        work(&mut self.set.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn claim(&self, client: &Client, number: u32) -> Result<Option<Lease>, ClientError> {
        let name = Name::parse("owner", format!("writer-{number}"))?;
        let claim = Claim {
            key: Name::parse("key", self.name)?,
            owner: Owner::new(name.clone(), name),
            lease_token: LeaseToken::parse(format!("w{number}"))?,
            ttl_ms: TTL_MS,
            same_owner: SameOwner::Busy,
            metadata: Vec::new(),
        };
        Ok(match client.execute(claim).await? {
            Claimed::Granted(lease) => Some(lease),
            Claimed::Busy(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The holder of token 1 thinks for too long; the one of token 2 comes in between.
    fn late(resource: &Resource) -> Updates {
        let read = |token| resource.lock(|set| set.read(token));
        let write = |token, elements: Option<BTreeSet<u32>>, element| {
            let elements = elements.into_iter().flatten().chain([element]).collect();
            if resource.lock(|set| set.write(token, elements)) {
                resource
                    .accepted
                    .lock()
                    .expect("one thread")
                    .insert(element);
            }
        };
        let first = read(1);
        let second = read(2);
        write(2, second, 20);
        write(1, first, 10);
        resource.updates()
    }

    #[test]
    fn an_update_is_lost_without_a_look_at_the_token_and_none_is_with_it() {
        assert_eq!(late(&Resource::bare()).lost, 1);
        let fenced = late(&Resource::fenced());
        assert_eq!((fenced.accepted, fenced.lost), (1, 0));
    }
}
