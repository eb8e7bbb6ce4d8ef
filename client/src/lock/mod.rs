//! Locks: waiting in a fair queue, holding with a guard, reading and watching.
//!
//! [`LockBuilder::acquire`] asks for the lock; if it is taken, the cluster gives it a place in the
//! lock's queue, and the call waits for the notice of its grant ([`crate::waits`]). While it waits
//! it keeps its place alive at a third of the shorter TTL, through whichever node answers. An
//! acquisition goes by an id that was minted before it was first sent, so that it is found again on
//! another node, and so that dropping the call at any point ends it: a release of the id is sent in
//! the background until the cluster has heard it, and an acquisition that arrives after its release
//! is void.

use std::time::Duration;

use quorate_statemachine::lock::{Acquire, Link, Member, Mode};
use quorate_statemachine::{FencingToken, Name, Owner, RequestId};
use thiserror::Error;
use tokio::time::Instant;

use crate::client::{self, Client};
use crate::error::ClientError;
use crate::guard::LockGuard;
use crate::lease::DEFAULT_TTL;
use crate::retry;

mod attempt;
mod calls;
mod waits;

use attempt::Attempt;
pub(crate) use waits::Acquisitions;

/// Why a lock was not acquired.
#[derive(Debug, Error)]
pub enum AcquireError {
    /// Others hold it or wait for it, and the caller would not wait.
    #[error("lock {key} is taken{}; wait for it, or try again later", by(holders))]
    Busy {
        /// The lock.
        key: Name,
        /// Some of its holders. None of them while the lock rests after a holder died, or has just
        /// been handed on.
        holders: Vec<Member>,
    },
    /// The wait's limit passed.
    #[error("lock {key} was not granted within {waited:?}")]
    TimedOut {
        /// The lock.
        key: Name,
        /// How long the call waited.
        waited: Duration,
    },
    /// The wait would never end: it closed a circle of owners who wait for each other.
    #[error(
        "waiting for lock {key} would be a deadlock: {}; release what you hold, and take locks in \
         one order",
        circle(cycle)
    )]
    Deadlock {
        /// The lock.
        key: Name,
        /// Who waits for what.
        cycle: Vec<Link>,
    },
    /// An operator, or another clone of this id's owner, ended the wait.
    #[error("the wait for lock {key} was cancelled")]
    Cancelled {
        /// The lock.
        key: Name,
    },
    /// The cluster refused, or could not be reached in time.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl AcquireError {
    /// Whether the lock was merely taken: the caller may try again later.
    #[must_use]
    pub fn is_contention(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::TimedOut { .. })
    }
}

fn by(holders: &[Member]) -> String {
    holders.first().map_or(String::new(), |first| {
        let more = match holders.len() {
            1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        format!(" by {}{more}", first.owner.owner_id)
    })
}

fn circle(cycle: &[Link]) -> String {
    let links = cycle
        .iter()
        .map(|link| format!("{} waits for {}", link.owner_id, link.waits_for));
    links.collect::<Vec<_>>().join(", ")
}

/// A granted acquisition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The lock.
    pub key: Name,
    /// The acquisition: the holder's proof.
    pub id: [u8; 16],
    /// Orders this grant among all grants ever made.
    pub fencing_token: FencingToken,
    /// Time to live from each renewal.
    pub ttl: Duration,
}

/// An acquisition to be made; see [`Client::lock`].
#[derive(Debug, Clone)]
#[must_use = "a builder acquires nothing until acquire or try_acquire is called"]
pub struct LockBuilder {
    client: Client,
    key: String,
    owner_id: Option<String>,
    holder: Option<Owner>,
    mode: Mode,
    ttl: Duration,
    wait: Option<Duration>,
    wait_ttl: Option<Duration>,
    reentrant: bool,
    delay: Duration,
    metadata: Vec<u8>,
}

impl LockBuilder {
    fn new(client: Client, key: String) -> Self {
        Self {
            client,
            key,
            owner_id: None,
            holder: None,
            mode: Mode::Exclusive,
            ttl: DEFAULT_TTL,
            wait: None,
            wait_ttl: None,
            reentrant: false,
            delay: Duration::ZERO,
            metadata: Vec::new(),
        }
    }

    /// The name by which others know who asks; this process's incarnation if not given. Each
    /// acquisition is a flow of control of its own, unless [`Self::holder`] says otherwise.
    pub fn owner(mut self, owner_id: impl Into<String>) -> Self {
        self.owner_id = Some(owner_id.into());
        self
    }

    /// Who asks, in full: one flow of control, which releases nothing while it waits. Acquisitions
    /// of one holder may be re-entrant, and are searched for deadlocks together.
    pub fn holder(mut self, owner: Owner) -> Self {
        self.holder = Some(owner);
        self
    }

    /// How long a hold lives without renewal; 10 s if not given. The guard renews it at a third.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// How long to wait; as long as it takes if not given, not at all if zero.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = Some(wait);
        self
    }

    /// How long the place in the queue outlives its last sign of life; the TTL if not given.
    pub fn wait_ttl(mut self, ttl: Duration) -> Self {
        self.wait_ttl = Some(ttl);
        self
    }

    /// To hold with others that hold it shared; exclusive if not called.
    pub fn shared(mut self) -> Self {
        self.mode = Mode::Shared;
        self
    }

    /// To hold one of so many permits: a counting semaphore.
    pub fn permit_of(mut self, permits: u32) -> Self {
        self.mode = Mode::Permit { of: permits };
        self
    }

    /// The same holder ([`Self::holder`]) may acquire the lock again while it holds it, and keeps
    /// its token; the hold ends with the last of its guards.
    pub fn reentrant(mut self) -> Self {
        self.reentrant = true;
        self
    }

    /// For how long nobody gets the lock if this holder dies; not at all if not given. It gives
    /// what the dead one had under way the time to fail.
    pub fn delay_after_death(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// A note shown to others.
    pub fn metadata(mut self, metadata: impl Into<Vec<u8>>) -> Self {
        self.metadata = metadata.into();
        self
    }

    /// Acquires the lock, waiting for it as [`Self::wait`] says.
    ///
    /// Who asked first is granted first. Dropping the call leaves neither a waiter nor a hold once
    /// the cluster has been reached. A call whose place in the queue was lost, because the cluster
    /// could not be reached for longer than the waiter's TTL, asks again, at the end of the queue.
    pub async fn acquire(&self) -> Result<LockGuard, AcquireError> {
        let (hold, since) = self.acquire_hold().await?;
        Ok(LockGuard::new(self.client.clone(), hold, since))
    }

    /// Acquires the lock if it is free.
    pub async fn try_acquire(&self) -> Result<LockGuard, AcquireError> {
        self.clone().wait(Duration::ZERO).acquire().await
    }

    /// Like [`Self::acquire`], for those who renew and release the hold themselves
    /// ([`Client::lock_renew`], [`Client::lock_release`]). With the hold comes the instant from
    /// which its TTL counts on this machine's clock.
    pub async fn acquire_hold(&self) -> Result<(Hold, Instant), AcquireError> {
        let began = Instant::now();
        let until = self.wait.and_then(|wait| began.checked_add(wait));
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let call = waits::enter(self.client.lock_waits());
            let command = self.command(*call.key(), left).await?;
            let attempt = Attempt::new(&self.client, command, began, until);
            if let Some(granted) = attempt.run(call).await? {
                return Ok(granted);
            }
        }
    }

    /// The command of one acquisition that waits for at most `wait`. Refuses what is out of bounds.
    async fn command(&self, id: [u8; 16], wait: Option<Duration>) -> Result<Acquire, ClientError> {
        let owner = match &self.holder {
            Some(owner) => owner.clone(),
            None => crate::owner::flow(self.owner_id.as_deref())?,
        };
        let mut acquire = Acquire {
            key: Name::parse("key", self.key.as_str())?,
            id: RequestId { id, not_before: 0 },
            owner,
            mode: self.mode,
            ttl_ms: client::ttl_ms(self.ttl)?,
            wait_ttl_ms: client::ttl_ms(self.wait_ttl.unwrap_or(self.ttl))?,
            max_wait_ms: wait.map(whole_ms),
            reentrant: self.reentrant,
            delay_ms: whole_ms(self.delay),
            metadata: self.metadata.clone(),
        };
        quorate_statemachine::Validate::validate(&acquire)?;
        let transport = self.client.transport().as_ref();
        let minted = retry::mint(transport, self.client.deadline()).await?;
        acquire.id.not_before = minted.not_before;
        Ok(acquire)
    }
}

/// Up: a wait that is cut to whole milliseconds must not become none.
fn whole_ms(duration: Duration) -> u64 {
    let ms = duration.as_micros().div_ceil(1_000);
    u64::try_from(ms).unwrap_or(u64::MAX)
}

/// The text by which people and scripts name an acquisition: a UUID.
#[must_use]
pub fn acquisition_text(id: [u8; 16]) -> String {
    uuid::Uuid::from_bytes(id).to_string()
}

/// The acquisition that a text names.
#[must_use]
pub fn parse_acquisition(text: &str) -> Option<[u8; 16]> {
    uuid::Uuid::parse_str(text).ok().map(uuid::Uuid::into_bytes)
}
