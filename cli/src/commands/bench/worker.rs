//! One task of a benchmark: what it holds, and what one operation of it is.

use std::time::Duration;

use futures::future::{join_all, try_join_all};
use quorate_client::Client;
use quorate_statemachine::lease::{Claim, Claimed, Get, Lease, Query, Release, Released, Renew};
use quorate_statemachine::process::{Append, Complete, ProcessState, Register};
use quorate_statemachine::queue::{self, Outcome, Push, Settle};
use quorate_statemachine::{self as statemachine, Name, Owner};

use crate::args::bench::{Bench, Test};
use crate::commands::wrong_answer;
use crate::exit::Failure;

/// Leases that are held during a run outlive any run that is worth its name, and a run that was
/// killed leaves them for no longer.
const HELD_TTL: Duration = Duration::from_secs(60 * 60);
/// A lock's own cycle is short.
const LOCK_TTL: Duration = Duration::from_secs(10);

/// One task.
pub struct Worker {
    client: Client,
    test: Test,
    owner: Owner,
    payload: Vec<u8>,
    /// The keys of this worker, used in turn.
    keys: Vec<Name>,
    /// One a key, if the test holds leases.
    held: Vec<Lease>,
    turn: usize,
}

/// Makes the workers and what they need to begin.
pub async fn prepare(clients: Vec<Client>, bench: &Bench) -> Result<Vec<Worker>, Failure> {
    // A run shares no key with another one.
    let run = uuid::Uuid::now_v7().simple().to_string();
    let mut workers = Vec::new();
    for (at, client) in (0..bench.clients).zip(clients.iter().cycle()) {
        workers.push(Worker::new(client.clone(), bench, &run, at)?);
    }
    try_join_all(workers.iter_mut().map(Worker::prepare)).await?;
    Ok(workers)
}

/// Ends what was held. What cannot be ended now ends by itself.
pub async fn clean_up(mut workers: Vec<Worker>) {
    join_all(workers.iter_mut().map(Worker::clean_up)).await;
}

impl Worker {
    fn new(client: Client, bench: &Bench, run: &str, at: u32) -> Result<Self, Failure> {
        let count = bench.keys.unwrap_or(bench.clients);
        let mut own: Vec<u32> = (at..count).step_by(bench.clients as usize).collect();
        if own.is_empty() {
            own.push(at % count);
        }
        let key = |number| Name::parse("key", format!("bench/{run}/{number}"));
        Ok(Self {
            client,
            test: bench.test,
            owner: super::super::owner(&format!("bench/{run}/{at}"), None)?,
            payload: vec![b'x'; bench.payload_bytes as usize],
            keys: own.into_iter().map(key).collect::<Result<_, _>>()?,
            held: Vec::new(),
            turn: 0,
        })
    }

    async fn prepare(&mut self) -> Result<(), Failure> {
        for key in self.keys.clone() {
            match self.test {
                Test::Renew => {
                    let lease = self.claim(key, HELD_TTL).await?;
                    self.held.push(lease);
                }
                Test::Read => self.claim_for_all(key).await?,
                Test::Append => {
                    let register = Register::new(key, b"bench".to_vec());
                    self.client.execute(register).await?;
                }
                Test::Lock | Test::Queue => {}
            }
        }
        Ok(())
    }

    /// Keys to read may be shared: whoever comes first holds the lease.
    async fn claim_for_all(&mut self, key: Name) -> Result<(), Failure> {
        if let Claimed::Granted(lease) = self.client.execute(self.new_claim(key, HELD_TTL)?).await?
        {
            self.held.push(lease);
        }
        Ok(())
    }

    /// One operation.
    pub async fn operate(&mut self) -> Result<(), Failure> {
        let at = self.turn % self.keys.len();
        self.turn += 1;
        let key = self.keys[at].clone();
        match self.test {
            Test::Lock => self.lock(key).await,
            Test::Renew => self.renew(at).await,
            Test::Append => self.append(key).await,
            Test::Queue => self.job(key).await,
            Test::Read => self.read(key).await,
        }
    }

    async fn lock(&self, key: Name) -> Result<(), Failure> {
        let lease = self.claim(key, LOCK_TTL).await?;
        self.release(lease).await
    }

    async fn renew(&mut self, at: usize) -> Result<(), Failure> {
        let lease = &self.held[at];
        let renew = Renew {
            key: lease.key.clone(),
            lease_token: lease.lease_token.clone(),
            fencing_token: lease.fencing_token,
            ttl_ms: lease.ttl_ms,
        };
        self.client.execute(renew).await?;
        Ok(())
    }

    async fn append(&self, id: Name) -> Result<(), Failure> {
        let event_type = Name::parse("type", "bench")?;
        let append = Append::new(id, event_type, self.payload.clone());
        self.client.execute(append).await?;
        Ok(())
    }

    /// A worker claims after it has pushed, so there is always an item for it, if not its own.
    async fn job(&self, queue: Name) -> Result<(), Failure> {
        let push = Push {
            queue: queue.clone(),
            payload: self.payload.clone(),
            dedupe_key: None,
            delay_ms: 0,
            priority: 0,
            max_attempts: 0,
        };
        self.client.execute(push).await?;
        let ttl_ms = crate::args::millis(LOCK_TTL);
        let (owner, max) = (self.owner.clone(), 1);
        let claim = queue::Claim {
            queue: queue.clone(),
            owner,
            ttl_ms,
            max,
        };
        let item = self.client.execute(claim).await?.pop();
        let claimed = item.and_then(|item| item.item.claim.map(|claim| (item.item.item_id, claim)));
        let Some((item_id, claim)) = claimed else {
            return Err(Failure::busy("the queue had nothing to claim"));
        };
        let (fencing_token, outcome) = (claim.fencing_token, Outcome::Done);
        self.client
            .execute(Settle {
                queue,
                item_id,
                fencing_token,
                outcome,
            })
            .await?;
        Ok(())
    }

    async fn read(&self, key: Name) -> Result<(), Failure> {
        let query = statemachine::Query::Lease(Query::Get(Get { key }));
        match self.client.query(query).await?.answer {
            statemachine::Answer::Lease(statemachine::lease::Answer::Get(Some(_))) => Ok(()),
            _ => Err(wrong_answer("a lease that is held")),
        }
    }

    fn new_claim(&self, key: Name, ttl: Duration) -> Result<Claim, Failure> {
        let builder = self
            .client
            .lease(key.as_str())
            .holder(self.owner.clone())
            .ttl(ttl);
        Ok(builder.claim()?)
    }

    async fn claim(&self, key: Name, ttl: Duration) -> Result<Lease, Failure> {
        match self.client.execute(self.new_claim(key, ttl)?).await? {
            Claimed::Granted(lease) => Ok(lease),
            Claimed::Busy(holder) => Err(Failure::busy(format!(
                "lease {:?} is held already",
                holder.key.as_str()
            ))),
        }
    }

    async fn release(&self, lease: Lease) -> Result<(), Failure> {
        let Lease {
            key,
            lease_token,
            fencing_token,
            ..
        } = lease;
        match self
            .client
            .execute(Release {
                key,
                lease_token,
                fencing_token,
            })
            .await?
        {
            Released::Released => Ok(()),
            Released::NotHeld { .. } => Err(Failure::fenced("the lease was lost meanwhile")),
        }
    }

    async fn clean_up(&mut self) {
        for lease in std::mem::take(&mut self.held) {
            // A lease that cannot be released now ends by its TTL.
            let _ = self.release(lease).await;
        }
        if self.test == Test::Append {
            for id in self.keys.clone() {
                let state = ProcessState::Succeeded;
                // Another worker of the same process may have completed it already.
                let _ = self
                    .client
                    .execute(Complete {
                        id,
                        state,
                        outcome: Vec::new(),
                    })
                    .await;
            }
        }
    }
}
