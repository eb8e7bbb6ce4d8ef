//! Leader election on a lock: candidates wait in its queue, the holder leads, its note is what it
//! proclaims.

use std::time::Duration;

use futures::stream::{BoxStream, StreamExt, unfold};
use quorate_statemachine::lock::{LockView, Released};
use quorate_statemachine::notice::Notice;
use quorate_statemachine::{FencingToken, Name};
use tokio::time::Instant;

use crate::client::Client;
use crate::error::ClientError;
use crate::guard::LockGuard;
use crate::lease::DEFAULT_TTL;
use crate::lock::AcquireError;
use crate::transport::WatchWhat;
use crate::watch::Watch;

/// An election by name; see [`Client::election`]. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Election {
    client: Client,
    name: Name,
    candidate: Option<String>,
    ttl: Duration,
}

/// Who leads, as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// The candidate's name.
    pub candidate: Name,
    /// What it proclaims.
    pub value: Vec<u8>,
    /// Its fencing token: a greater one is a later leader.
    pub fencing_token: FencingToken,
}

/// A won election, until it is resigned, dropped or lost.
#[derive(Debug)]
#[must_use = "dropping it resigns"]
pub struct Leadership {
    client: Client,
    guard: LockGuard,
}

impl Client {
    /// The election `name`. It is a lock of that key. Refuses what is no name.
    pub fn election(&self, name: impl Into<String>) -> Result<Election, ClientError> {
        Ok(Election {
            client: self.clone(),
            name: Name::parse("name", name)?,
            candidate: None,
            ttl: DEFAULT_TTL,
        })
    }
}

impl Election {
    /// The name under which this process stands; its incarnation if not given.
    #[must_use]
    pub fn candidate(mut self, candidate: impl Into<String>) -> Self {
        self.candidate = Some(candidate.into());
        self
    }

    /// How long a leader that died is still taken for one; 10 s if not given.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Waits to be elected, and proclaims `value` at once. Candidates are elected in the order in
    /// which they began; dropping the call is no longer to stand.
    pub async fn campaign(&self, value: impl Into<Vec<u8>>) -> Result<Leadership, AcquireError> {
        let lock = self.client.lock(self.name.as_str()).ttl(self.ttl);
        let lock = match &self.candidate {
            Some(candidate) => lock.owner(candidate),
            None => lock,
        };
        let guard = lock.metadata(value).acquire().await?;
        Ok(Leadership {
            client: self.client.clone(),
            guard,
        })
    }

    /// Who leads now.
    pub async fn leader(&self) -> Result<Option<Leader>, ClientError> {
        Ok(self.client.lock_get(&self.name).await?.and_then(leader_of))
    }

    /// Who leads now, and then every change of leader or value. Changes that follow each other
    /// closely may be seen as one. The stream ends with its first error: the cluster could not be
    /// reached within the client's timeout.
    #[must_use]
    pub fn observe(&self) -> BoxStream<'static, Result<Option<Leader>, ClientError>> {
        let what = WatchWhat::LockPrefix(self.name.to_string());
        let observer = Observer {
            watch: Watch::new(self.client.clone(), what),
            election: self.clone(),
            shown: None,
        };
        let seen = unfold(Some(observer), |observer| async {
            let mut observer = observer?;
            match observer.next().await {
                Ok(leader) => Some((Ok(leader), Some(observer))),
                Err(error) => Some((Err(error), None)),
            }
        });
        seen.boxed()
    }
}

fn leader_of(view: LockView) -> Option<Leader> {
    let holder = view.holders.into_iter().next()?;
    Some(Leader {
        fencing_token: holder.fencing_token()?,
        candidate: holder.owner.owner_id,
        value: holder.metadata,
    })
}

struct Observer {
    watch: Watch,
    election: Election,
    /// What was shown last; none before the first.
    shown: Option<Option<Leader>>,
}

/// An observer looks again at least so often, should it have slept through a change.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

impl Observer {
    async fn next(&mut self) -> Result<Option<Leader>, ClientError> {
        let name = self.election.name.clone();
        loop {
            let deadline = self.election.client.deadline();
            self.watch.register(deadline).await?;
            let leader = self.election.leader().await?;
            if self.shown.as_ref() != Some(&leader) {
                self.shown = Some(leader.clone());
                return Ok(leader);
            }
            let of_this = |notice: &Notice| match notice {
                Notice::LockGranted { key, .. }
                | Notice::LockLeft { key, .. }
                | Notice::LockProclaimed { key, .. } => *key == name,
                _ => false,
            };
            self.watch
                .changed(Instant::now() + LOOK_AGAIN, of_this)
                .await;
        }
    }
}

impl Leadership {
    /// The lock that is held.
    pub fn guard(&self) -> &LockGuard {
        &self.guard
    }

    /// The fencing token: send it along with what is done as the leader.
    #[must_use]
    pub fn token(&self) -> FencingToken {
        self.guard.token()
    }

    /// Is cancelled when this process leads no longer.
    #[must_use]
    pub fn lost(&self) -> tokio_util::sync::CancellationToken {
        self.guard.lost()
    }

    /// Proclaims another value. Refused once another leads.
    pub async fn proclaim(&self, value: impl Into<Vec<u8>>) -> Result<(), ClientError> {
        let (key, token) = (self.guard.key(), self.guard.token());
        self.client.lock_proclaim(key, token, value).await?;
        Ok(())
    }

    /// Steps down; who is next in line leads.
    pub async fn resign(self) -> Result<Released, ClientError> {
        self.guard.release().await
    }
}
