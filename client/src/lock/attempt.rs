//! One attempt at a lock: from the command that asks for it to the hold, or to the end of the wait.

use std::sync::Arc;
use std::time::Duration;

use quorate_statemachine::lock::{
    Acquire, Acquired, End, Found, Kept, Member, Place, Release, Renew,
};
use quorate_statemachine::{Action, Command, FencingToken};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use super::waits::{Acquisitions, Event};
use super::{AcquireError, Hold};
use crate::client::{self, Client};
use crate::error::ClientError;
use crate::keeper::release_until_heard;
use crate::retry::{self, Backoff};
use crate::transport::Consistency;
use crate::waits::{Call, Heard};

/// A hold and the instant from which its TTL counts; none when the place in the queue was lost, and
/// there is time to ask again.
type Outcome = Result<Option<(Hold, Instant)>, AcquireError>;

/// One acquisition. Unless it is settled it is released when it is dropped.
pub(super) struct Attempt {
    client: Client,
    acquire: Arc<Acquire>,
    began: Instant,
    until: Option<Instant>,
    /// Whether the cluster may have a member, or get one, that nobody would look after.
    open: bool,
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let (true, Ok(runtime)) = (self.open, Handle::try_current()) else {
            return;
        };
        let (client, acquire) = (self.client.clone(), self.acquire.clone());
        runtime.spawn(async move {
            let release = Release {
                key: acquire.key.clone(),
                id: acquire.id.id,
            };
            release_until_heard(&client, &acquire.key, release.into()).await;
        });
    }
}

/// Where an acquisition was found to stand.
enum Standing {
    Granted(FencingToken),
    Waiting,
    Over(End),
    /// The cluster does not know it: it was never heard of, or forgotten.
    Unknown,
}

impl From<Found> for Standing {
    fn from(found: Found) -> Self {
        match found {
            Found::Member(member) => Self::of(&member),
            Found::Over(end) => Self::Over(end),
            Found::Unknown => Self::Unknown,
        }
    }
}

impl Standing {
    fn of(member: &Member) -> Self {
        match member.place {
            Place::Holding { fencing_token, .. } => Self::Granted(fencing_token),
            Place::Waiting { .. } => Self::Waiting,
        }
    }

    /// None when notices were lost.
    fn of_heard(heard: Heard<Event>) -> Option<Self> {
        match heard {
            Heard::Event(Event::Granted(fencing_token)) => Some(Self::Granted(fencing_token)),
            Heard::Event(Event::Over(end)) => Some(Self::Over(end)),
            Heard::Lost => None,
        }
    }
}

impl Attempt {
    pub(super) fn new(
        client: &Client,
        acquire: Acquire,
        began: Instant,
        until: Option<Instant>,
    ) -> Self {
        Self {
            client: client.clone(),
            acquire: Arc::new(acquire),
            began,
            until,
            open: false,
        }
    }

    /// None when the place in the queue was lost, and there is time to ask again.
    pub(super) async fn run(mut self, call: Call<Acquisitions>) -> Outcome {
        self.open = true;
        let command = Command::from(Action::from(self.acquire.as_ref().clone()));
        let options = self.client.execute_options(self.client.deadline());
        let transport = self.client.transport().as_ref();
        let done = match retry::execute(transport, command, options).await {
            Ok(done) => done,
            Err(error) => {
                self.open = error.may_have_happened();
                return Err(ClientError::from(error).into());
            }
        };
        let (sent_at, index) = (done.sent_at, done.executed.index);
        // A copy of the command that is still on its way must find that it is over.
        self.open = done.earlier_may_have_happened;
        let reply = done.executed.reply.0.map_err(ClientError::from)?;
        match client::typed::<Acquire>(reply)? {
            Acquired::Granted(member) => self.standing(Standing::of(&member), sent_at),
            Acquired::Over(end) => self.standing(Standing::Over(end), sent_at),
            Acquired::Busy(holders) => Err(AcquireError::Busy {
                key: self.acquire.key.clone(),
                holders,
            }),
            Acquired::Waiting(_) => {
                self.open = true;
                self.wait(call, sent_at, index).await
            }
        }
    }

    /// Waits in the queue. `since` is an instant before which the lock was certainly not granted,
    /// and `index` one of the log at which the acquisition had its place.
    async fn wait(
        self,
        mut call: Call<Acquisitions>,
        mut since: Instant,
        mut index: u64,
    ) -> Outcome {
        // Everything up to this index was heard of, or looked at.
        let mut seen = Some(index);
        let mut backoff = Backoff::new();
        while !self.is_too_late() {
            let heard = self.hear(&mut call, &mut seen, index, since).await;
            match self.or_nothing(heard, &mut backoff).await? {
                Some(Standing::Waiting) | None => {}
                Some(standing) => return self.settle(standing, since).await,
            }
            if Instant::now() < self.alive_until(since) {
                continue;
            }
            let kept = self.keep_alive().await.map(Some);
            match self.or_nothing(kept, &mut backoff).await? {
                Some((kept_at, at, Standing::Waiting)) => {
                    (since, index) = (kept_at, index.max(at));
                    backoff = Backoff::new();
                }
                Some((kept_at, _, standing)) => return self.settle(standing, kept_at).await,
                None => {}
            }
        }
        self.give_up()
    }

    /// An error that may pass is waited out: the place in the queue is kept meanwhile.
    async fn or_nothing<T>(
        &self,
        outcome: Result<Option<T>, ClientError>,
        backoff: &mut Backoff,
    ) -> Result<Option<T>, ClientError> {
        match outcome {
            Err(error) if error.is_passing() || error.may_have_happened() => {
                tracing::debug!(key = %self.acquire.key, %error, "a waiter is not heard");
                sleep(backoff.next_delay().min(self.time_left())).await;
                Ok(None)
            }
            outcome => outcome,
        }
    }

    fn is_too_late(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }

    fn time_left(&self) -> Duration {
        self.until.map_or(Duration::MAX, |until| {
            until.saturating_duration_since(Instant::now())
        })
    }

    /// When the next sign of life is due: a third of the shorter TTL after the last one, so that a
    /// hold that is granted meanwhile has two thirds of its time left when it is known.
    fn alive_until(&self, since: Instant) -> Instant {
        let ttl_ms = self.acquire.ttl_ms.min(self.acquire.wait_ttl_ms);
        since + Duration::from_millis(ttl_ms) / 3
    }

    /// Waits for what changes the standing; looks at the state if notices may have been missed.
    /// None when there was nothing before the next sign of life is due.
    async fn hear(
        &self,
        call: &mut Call<Acquisitions>,
        seen: &mut Option<u64>,
        index: u64,
        since: Instant,
    ) -> Result<Option<Standing>, ClientError> {
        let wake_at = self.alive_until(since);
        let wake_at = self.until.map_or(wake_at, |until| wake_at.min(until));
        let Some(registered) = call.registered(&self.client, wake_at).await else {
            return Ok(None);
        };
        if seen.is_none_or(|seen| seen < registered) {
            let at = registered.max(index);
            match self.find(at).await? {
                Standing::Waiting => *seen = Some(at),
                standing => return Ok(Some(standing)),
            }
        }
        let Some(heard) = call.next(wake_at).await else {
            return Ok(None);
        };
        let standing = Standing::of_heard(heard);
        if standing.is_none() {
            *seen = None;
        }
        Ok(standing)
    }

    /// Where the acquisition stands at `index` or later: the notices tell what comes after.
    async fn find(&self, index: u64) -> Result<Standing, ClientError> {
        let client = self.client.clone();
        let client = client.with_consistency(Consistency::Stale { max_lag_ms: None });
        let found = client.lock_find_at(&self.acquire.key, self.acquire.id.id, index);
        Ok(found.await?.into())
    }

    /// A sign of life: when it was sent, at which index it was heard, and what was found then.
    async fn keep_alive(&self) -> Result<(Instant, u64, Standing), ClientError> {
        let renew = Renew {
            key: self.acquire.key.clone(),
            id: self.acquire.id.id,
            ttl_ms: None,
        };
        let command = Command::from(Action::from(renew));
        let options = self.client.execute_options(self.client.deadline());
        let done = retry::execute(self.client.transport().as_ref(), command, options).await?;
        let index = done.executed.index;
        let standing = match done.executed.reply.0 {
            Ok(response) => match client::typed::<Renew>(response)? {
                Kept::Waiting { .. } => Standing::Waiting,
                Kept::Holding { fencing_token, .. } => Standing::Granted(fencing_token),
            },
            Err(_) => self.find(index).await?,
        };
        Ok((done.sent_at, index, standing))
    }

    /// Ends the wait. A hold that may have run out since it was granted is confirmed first.
    async fn settle(self, standing: Standing, since: Instant) -> Outcome {
        let ttl = Duration::from_millis(self.acquire.ttl_ms);
        let fresh = since.elapsed() < ttl / 2;
        if fresh || !matches!(standing, Standing::Granted(_)) {
            return self.standing(standing, since);
        }
        let (kept_at, _, standing) = self.keep_alive().await?;
        self.standing(standing, kept_at)
    }

    /// What the caller gets of an acquisition that waits no longer.
    fn standing(mut self, standing: Standing, since: Instant) -> Outcome {
        let key = self.acquire.key.clone();
        match standing {
            Standing::Granted(fencing_token) => {
                self.open = false;
                let hold = Hold {
                    key,
                    id: self.acquire.id.id,
                    fencing_token,
                    ttl: Duration::from_millis(self.acquire.ttl_ms),
                };
                Ok(Some((hold, since)))
            }
            Standing::Over(end) => {
                self.open = false;
                match end {
                    End::Deadlock { cycle } => Err(AcquireError::Deadlock { key, cycle }),
                    End::Cancelled | End::Revoked { .. } => Err(AcquireError::Cancelled { key }),
                    End::GaveUp => self.give_up(),
                    End::WaiterDied | End::Expired { .. } | End::Released { .. } => self.again(),
                }
            }
            Standing::Waiting | Standing::Unknown => self.again(),
        }
    }

    /// The place in the queue is lost.
    fn again(self) -> Outcome {
        if self.is_too_late() {
            return self.give_up();
        }
        Ok(None)
    }

    fn give_up(self) -> Outcome {
        Err(AcquireError::TimedOut {
            key: self.acquire.key.clone(),
            waited: self.began.elapsed(),
        })
    }
}
