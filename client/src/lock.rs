//! Locks: waiting in a fair queue, holding with a guard, reading and watching.
//!
//! [`LockBuilder::acquire`] asks for the lock; if it is taken, the cluster gives it a place in the
//! lock's queue, and the call waits for the notice of its grant ([`crate::waits`]). While it waits
//! it keeps its place alive at a third of the shorter TTL, through whichever node answers. An
//! acquisition goes by an id that was minted before it was first sent, so that it is found again on
//! another node, and so that dropping the call at any point ends it: a release of the id is sent in
//! the background until the cluster has heard it, and an acquisition that arrives after its release
//! is void.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use quorate_statemachine::lock::{
    Acquire, Acquired, Answer, CancelWait, End, Find, Found, Get, Kept, Link, List, LockView,
    Member, Mode, Place, Proclaim, Query, Release, Released, Renew, Revoke, WaitCancelled, Waiters,
};
use quorate_statemachine::query::Page;
use quorate_statemachine::{
    Action, Answer as AnyAnswer, Command, FencingToken, Name, Owner, Query as AnyQuery, RequestId,
};
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use crate::client::{self, Client};
use crate::error::ClientError;
use crate::guard::{LockGuard, release_until_heard};
use crate::lease::{DEFAULT_TTL, wrong_answer};
use crate::retry::{self, Backoff};
use crate::transport::{Consistency, WatchEvent, WatchWhat};
use crate::waits::{Call, Event};

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
            let call = self.client.waits().enter();
            let command = self.command(call.id(), left).await?;
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

/// One acquisition. Unless it is settled it is released when it is dropped.
struct Attempt {
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
            release_until_heard(&client, &acquire.key, acquire.id.id).await;
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
    fn of_event(event: Event) -> Option<Self> {
        match event {
            Event::Granted(fencing_token) => Some(Self::Granted(fencing_token)),
            Event::Over(end) => Some(Self::Over(end)),
            Event::Lost => None,
        }
    }
}

impl Attempt {
    fn new(client: &Client, acquire: Acquire, began: Instant, until: Option<Instant>) -> Self {
        Self {
            client: client.clone(),
            acquire: Arc::new(acquire),
            began,
            until,
            open: false,
        }
    }

    /// None when the place in the queue was lost, and there is time to ask again.
    async fn run(mut self, call: Call) -> Result<Option<(Hold, Instant)>, AcquireError> {
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
        mut call: Call,
        mut since: Instant,
        mut index: u64,
    ) -> Result<Option<(Hold, Instant)>, AcquireError> {
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
        call: &mut Call,
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
        let Some(event) = call.next(wake_at).await else {
            return Ok(None);
        };
        let standing = Standing::of_event(event);
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
    async fn settle(
        self,
        standing: Standing,
        since: Instant,
    ) -> Result<Option<(Hold, Instant)>, AcquireError> {
        let ttl = Duration::from_millis(self.acquire.ttl_ms);
        let fresh = since.elapsed() < ttl / 2;
        if fresh || !matches!(standing, Standing::Granted(_)) {
            return self.standing(standing, since);
        }
        let (kept_at, _, standing) = self.keep_alive().await?;
        self.standing(standing, kept_at)
    }

    /// What the caller gets of an acquisition that waits no longer.
    fn standing(
        mut self,
        standing: Standing,
        since: Instant,
    ) -> Result<Option<(Hold, Instant)>, AcquireError> {
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
    fn again(self) -> Result<Option<(Hold, Instant)>, AcquireError> {
        if self.is_too_late() {
            return self.give_up();
        }
        Ok(None)
    }

    fn give_up(self) -> Result<Option<(Hold, Instant)>, AcquireError> {
        Err(AcquireError::TimedOut {
            key: self.acquire.key.clone(),
            waited: self.began.elapsed(),
        })
    }
}

impl Client {
    /// Begins an acquisition of the lock `key`.
    pub fn lock(&self, key: impl Into<String>) -> LockBuilder {
        LockBuilder {
            client: self.clone(),
            key: key.into(),
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

    /// The lock `key` and some of its holders; none if nobody holds it or waits.
    pub async fn lock_get(&self, key: &Name) -> Result<Option<LockView>, ClientError> {
        let query = Query::Get(Get { key: key.clone() });
        match self.lock_query(query, 0).await? {
            Answer::Get(view) => Ok(view),
            _ => Err(wrong_answer("lock.get")),
        }
    }

    /// One page of locks that are held or waited for.
    pub async fn lock_list(&self, list: List) -> Result<Page<LockView>, ClientError> {
        match self.lock_query(Query::List(list), 0).await? {
            Answer::List(page) => Ok(page),
            _ => Err(wrong_answer("lock.list")),
        }
    }

    /// One page of those who wait for a lock, first in line first.
    pub async fn lock_waiters(&self, waiters: Waiters) -> Result<Page<Member>, ClientError> {
        match self.lock_query(Query::Waiters(waiters), 0).await? {
            Answer::Waiters(page) => Ok(page),
            _ => Err(wrong_answer("lock.waiters")),
        }
    }

    /// Where an acquisition stands.
    pub async fn lock_find(&self, key: &Name, id: [u8; 16]) -> Result<Found, ClientError> {
        self.lock_find_at(key, id, 0).await
    }

    pub(crate) async fn lock_find_at(
        &self,
        key: &Name,
        id: [u8; 16],
        min_index: u64,
    ) -> Result<Found, ClientError> {
        let find = Find {
            key: key.clone(),
            id,
        };
        match self.lock_query(Query::Find(find), min_index).await? {
            Answer::Find(found) => Ok(found),
            _ => Err(wrong_answer("lock.find")),
        }
    }

    /// Starts the TTL of a hold that no guard keeps anew; with another TTL if one is given.
    pub async fn lock_renew(
        &self,
        key: &Name,
        id: [u8; 16],
        ttl: Option<Duration>,
    ) -> Result<Kept, ClientError> {
        let renew = Renew {
            key: key.clone(),
            id,
            ttl_ms: ttl.map(client::ttl_ms).transpose()?,
        };
        self.execute(renew).await
    }

    /// Ends an acquisition wherever it stands: it neither holds nor waits any more, nor ever will.
    pub async fn lock_release(&self, key: &Name, id: [u8; 16]) -> Result<Released, ClientError> {
        self.execute(Release {
            key: key.clone(),
            id,
        })
        .await
    }

    /// Ends a wait, and no hold.
    pub async fn lock_cancel_wait(
        &self,
        key: &Name,
        id: [u8; 16],
    ) -> Result<WaitCancelled, ClientError> {
        self.execute(CancelWait {
            key: key.clone(),
            id,
        })
        .await
    }

    /// Ends the holds of `key` whoever has them; `only` the one with this token.
    pub async fn lock_revoke(
        &self,
        key: &Name,
        only: Option<FencingToken>,
        by: impl Into<String>,
    ) -> Result<Vec<Member>, ClientError> {
        let revoke = Revoke {
            key: key.clone(),
            only,
            by: by.into(),
        };
        self.execute(revoke).await
    }

    /// Puts another note on a hold.
    pub async fn lock_proclaim(
        &self,
        key: &Name,
        fencing_token: FencingToken,
        metadata: impl Into<Vec<u8>>,
    ) -> Result<Member, ClientError> {
        let proclaim = Proclaim {
            key: key.clone(),
            fencing_token,
            metadata: metadata.into(),
        };
        self.execute(proclaim).await
    }

    /// Grants, ends and proclamations of locks whose key starts with `prefix`, from now on.
    pub async fn lock_watch(
        &self,
        prefix: impl Into<String>,
    ) -> Result<BoxStream<'static, WatchEvent>, ClientError> {
        self.watch(WatchWhat::LockPrefix(prefix.into()), 0).await
    }

    async fn lock_query(&self, query: Query, min_index: u64) -> Result<Answer, ClientError> {
        let answered = self.query_at(AnyQuery::Lock(query), min_index).await?;
        match answered.answer {
            AnyAnswer::Lock(answer) => Ok(answer),
            _ => Err(wrong_answer("a lock query")),
        }
    }
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
