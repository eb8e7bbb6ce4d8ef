//! [`LeaseGuard`] and [`LockGuard`]: keep what was granted until they are dropped, and know before
//! the cluster does when they may have lost it.
//!
//! # The holder's own deadline
//!
//! The guard counts the TTL from the instant *before* it sent the claim or renewal that was
//! answered, on its monotonic clock, and takes a margin off: a twentieth of the TTL and 1 ms. The
//! twentieth is there because cluster time may run up to 5 % fast while a leader slews it towards
//! its wall clock (TTL / 1.05 is 4.8 % less; the rest is for the drift between two machines'
//! clocks); the millisecond because cluster time has no finer unit. So the guard says Lost before
//! the cluster may grant the key to somebody else. A machine that sleeps may stop its monotonic
//! clock: what was promised then is still fenced, which is why every write should carry the token.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use quorate_rpc::NodeError;
use quorate_statemachine::lease::{self, Lease};
use quorate_statemachine::limits::REQUEST_RETENTION_MS;
use quorate_statemachine::{
    Action, Command, FencingToken, LeaseToken, Name, Precondition, Refusal, Response, lock,
};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::client::{self, Client};
use crate::error::ClientError;
use crate::lease::runtime_ended;
use crate::lock::Hold;
use crate::retry::{self, Backoff};
use crate::transport::ExecuteOptions;

/// A renewal waits at least this long for its answer, however short the TTL.
const SHORTEST_RENEWAL: Duration = Duration::from_millis(200);

/// How sure the holder can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseState {
    /// A claim or renewal was confirmed within the last two thirds of the TTL.
    Safe,
    /// A renewal is overdue, but the time is not over: start nothing new. May become Safe again.
    Jeopardy,
    /// The lease is over or may be. Terminal: claim again.
    Lost(LostReason),
}

/// Why a lease is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LostReason {
    /// No renewal was confirmed in time. The cluster may not know it yet.
    Unconfirmed,
    /// The cluster said so: expired, or fenced because the grant was superseded, reclaimed or
    /// revoked.
    Refused(Refusal),
    /// The holder released it.
    Released,
}

/// When the holder must consider a lease over that was confirmed for a request sent at `sent_at`.
fn deadline(sent_at: Instant, ttl: Duration) -> Instant {
    let margin = ttl / 20 + Duration::from_millis(1);
    sent_at + ttl.saturating_sub(margin)
}

/// A held lease. Renews itself in the background at a third of its TTL; releases itself in the
/// background when it is dropped.
#[derive(Debug)]
#[must_use = "a dropped guard releases its lease"]
pub struct LeaseGuard {
    lease: Lease,
    keep: Keep,
}

impl LeaseGuard {
    /// Begins to keep a lease that was granted to a request sent at `sent_at`.
    pub(crate) fn new(client: Client, lease: Lease, sent_at: Instant) -> Self {
        let kept = Kept::Lease {
            key: lease.key.clone(),
            lease_token: lease.lease_token.clone(),
            fencing_token: lease.fencing_token,
            ttl_ms: lease.ttl_ms,
        };
        let keep = Keep::begin(client, kept, Duration::from_millis(lease.ttl_ms), sent_at);
        Self { lease, keep }
    }

    /// The lease as it was granted.
    #[must_use]
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &Name {
        &self.lease.key
    }

    /// The fencing token: send it along with every write, to the cluster or elsewhere.
    #[must_use]
    pub fn token(&self) -> FencingToken {
        self.lease.fencing_token
    }

    /// The holder's proof.
    #[must_use]
    pub fn lease_token(&self) -> &LeaseToken {
        &self.lease.lease_token
    }

    /// How long the lease certainly lives yet; zero when it is lost.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.keep.held.remaining()
    }

    /// How sure the holder can be right now.
    #[must_use]
    pub fn state(&self) -> LeaseState {
        self.keep.held.check()
    }

    /// Every change of [`Self::state`].
    #[must_use]
    pub fn watch_state(&self) -> watch::Receiver<LeaseState> {
        self.keep.held.state.subscribe()
    }

    /// Is cancelled when the lease is lost or released: hand it to the work that the lease
    /// protects.
    #[must_use]
    pub fn lost(&self) -> CancellationToken {
        self.keep.held.lost.clone()
    }

    /// Makes a command be refused unless this lease is live at the command's instant.
    #[must_use]
    pub fn precondition(&self) -> Precondition {
        Precondition::Lease {
            key: self.lease.key.clone(),
            token: self.lease.fencing_token,
        }
    }

    /// Gives the lease back and waits for the answer.
    pub async fn release(self) -> Result<lease::Released, ClientError> {
        client::typed::<lease::Release>(self.keep.release().await?)
    }
}

/// A held lock. Renews itself in the background at a third of its TTL; releases itself in the
/// background when it is dropped, and goes on trying until the cluster has heard it.
#[derive(Debug)]
#[must_use = "a dropped guard releases its lock"]
pub struct LockGuard {
    hold: Hold,
    keep: Keep,
}

impl LockGuard {
    /// Begins to keep a hold that was not granted before `since`.
    pub(crate) fn new(client: Client, hold: Hold, since: Instant) -> Self {
        let kept = Kept::Lock {
            key: hold.key.clone(),
            id: hold.id,
        };
        let keep = Keep::begin(client, kept, hold.ttl, since);
        Self { hold, keep }
    }

    /// The hold as it was granted.
    #[must_use]
    pub fn hold(&self) -> &Hold {
        &self.hold
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &Name {
        &self.hold.key
    }

    /// The fencing token: send it along with every write, to the cluster or elsewhere.
    #[must_use]
    pub fn token(&self) -> FencingToken {
        self.hold.fencing_token
    }

    /// How long the hold certainly lives yet; zero when it is lost.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.keep.held.remaining()
    }

    /// How sure the holder can be right now.
    #[must_use]
    pub fn state(&self) -> LeaseState {
        self.keep.held.check()
    }

    /// Every change of [`Self::state`].
    #[must_use]
    pub fn watch_state(&self) -> watch::Receiver<LeaseState> {
        self.keep.held.state.subscribe()
    }

    /// Is cancelled when the lock is lost or released: hand it to the work that the lock protects.
    #[must_use]
    pub fn lost(&self) -> CancellationToken {
        self.keep.held.lost.clone()
    }

    /// Makes a command be refused unless this hold is live at the command's instant.
    #[must_use]
    pub fn precondition(&self) -> Precondition {
        Precondition::Lock {
            key: self.hold.key.clone(),
            token: self.hold.fencing_token,
        }
    }

    /// Gives the lock back and waits for the answer.
    pub async fn release(self) -> Result<lock::Released, ClientError> {
        client::typed::<lock::Release>(self.keep.release().await?)
    }
}

/// What is kept, and the commands that do it.
#[derive(Debug)]
enum Kept {
    Lease {
        key: Name,
        lease_token: LeaseToken,
        fencing_token: FencingToken,
        ttl_ms: u64,
    },
    Lock {
        key: Name,
        id: [u8; 16],
    },
}

impl Kept {
    fn renew(&self) -> Action {
        match self {
            Self::Lease {
                key,
                lease_token,
                fencing_token,
                ttl_ms,
            } => lease::Renew {
                key: key.clone(),
                lease_token: lease_token.clone(),
                fencing_token: *fencing_token,
                ttl_ms: *ttl_ms,
            }
            .into(),
            Self::Lock { key, id } => lock::Renew {
                key: key.clone(),
                id: *id,
                ttl_ms: None,
            }
            .into(),
        }
    }

    fn release(&self) -> Action {
        match self {
            Self::Lease {
                key,
                lease_token,
                fencing_token,
                ..
            } => lease::Release {
                key: key.clone(),
                lease_token: lease_token.clone(),
                fencing_token: *fencing_token,
            }
            .into(),
            Self::Lock { key, id } => lock::Release {
                key: key.clone(),
                id: *id,
            }
            .into(),
        }
    }

    fn key(&self) -> &Name {
        match self {
            Self::Lease { key, .. } | Self::Lock { key, .. } => key,
        }
    }
}

/// A guard's side of keeping.
#[derive(Debug)]
struct Keep {
    held: Arc<Held>,
    /// Asks the keeper to release; dropping it asks too, without waiting for the answer.
    release: oneshot::Sender<Answer>,
}

/// Where the answer to a release goes.
type Answer = oneshot::Sender<Result<Response, ClientError>>;

impl Keep {
    fn begin(client: Client, kept: Kept, ttl: Duration, since: Instant) -> Self {
        let (release, released) = oneshot::channel();
        let held = Arc::new(Held::new(since, ttl));
        let keeper = Keeper {
            client,
            kept,
            held: held.clone(),
        };
        tokio::spawn(keeper.run(released));
        Self { held, release }
    }

    async fn release(self) -> Result<Response, ClientError> {
        let (sender, answer) = oneshot::channel();
        if self.release.send(sender).is_err() {
            return Err(runtime_ended());
        }
        answer.await.unwrap_or_else(|_| Err(runtime_ended()))
    }
}

/// What guard and keeper share.
#[derive(Debug)]
struct Held {
    ttl: Duration,
    /// When the request was sent that was confirmed last.
    confirmed: Mutex<Instant>,
    state: watch::Sender<LeaseState>,
    lost: CancellationToken,
}

impl Held {
    fn new(sent_at: Instant, ttl: Duration) -> Self {
        Self {
            ttl,
            confirmed: Mutex::new(sent_at),
            state: watch::Sender::new(LeaseState::Safe),
            lost: CancellationToken::new(),
        }
    }

    fn confirmed(&self) -> MutexGuard<'_, Instant> {
        self.confirmed
            .lock()
            .expect("nothing panics while it holds the lock")
    }

    fn deadline(&self) -> Instant {
        deadline(*self.confirmed(), self.ttl)
    }

    fn remaining(&self) -> Duration {
        match self.check() {
            LeaseState::Lost(_) => Duration::ZERO,
            _ => self.deadline().saturating_duration_since(Instant::now()),
        }
    }

    fn jeopardy_at(&self) -> Instant {
        *self.confirmed() + self.ttl * 2 / 3
    }

    /// The state as the clock has it: whoever asks finds out as early as the keeper.
    fn check(&self) -> LeaseState {
        let now = Instant::now();
        if now >= self.deadline() {
            self.set(LeaseState::Lost(LostReason::Unconfirmed));
        } else if now >= self.jeopardy_at() {
            self.set(LeaseState::Jeopardy);
        }
        self.state.borrow().clone()
    }

    /// A renewal sent at `sent_at` was confirmed. An answer that comes after the deadline is too
    /// late: the holder may have been told already that the lease is lost.
    fn confirm(&self, sent_at: Instant) {
        if matches!(self.check(), LeaseState::Lost(_)) {
            return;
        }
        {
            let mut confirmed = self.confirmed();
            *confirmed = sent_at.max(*confirmed);
        }
        self.set(LeaseState::Safe);
        self.check();
    }

    /// Lost is terminal.
    fn set(&self, next: LeaseState) {
        let is_lost = matches!(next, LeaseState::Lost(_));
        let changed = self.state.send_if_modified(|state| {
            if matches!(state, LeaseState::Lost(_)) || *state == next {
                return false;
            }
            *state = next;
            true
        });
        if changed && is_lost {
            self.lost.cancel();
        }
    }

    /// Passes Jeopardy and ends when the lease is lost by the clock.
    async fn run_out(&self) {
        sleep_until(self.jeopardy_at()).await;
        self.check();
        sleep_until(self.deadline()).await;
        self.check();
    }
}

/// Renews until the guard is dropped or what it keeps is lost.
struct Keeper {
    client: Client,
    kept: Kept,
    held: Arc<Held>,
}

impl Keeper {
    async fn run(self, mut stop: oneshot::Receiver<Answer>) {
        let asked = tokio::select! {
            biased;
            asked = &mut stop => asked,
            () = self.keep() => stop.await,
        };
        let before = self.held.check();
        self.held.set(LeaseState::Lost(LostReason::Released));
        match asked {
            // Nobody waits to hear that the guard is gone.
            Ok(answer) => drop(answer.send(self.release(self.client.deadline()).await)),
            Err(_) => self.release_in_background(&before).await,
        }
    }

    /// Ends when the lease is lost.
    async fn keep(&self) {
        loop {
            let pause = self.held.ttl.mul_f64((0.8 + fastrand::f64() * 0.2) / 3.0);
            let renew_at = *self.held.confirmed() + pause;
            sleep_until(renew_at).await;
            tokio::select! {
                biased;
                () = self.held.run_out() => return,
                () = self.renew() => {}
            }
            if matches!(self.held.check(), LeaseState::Lost(_)) {
                return;
            }
        }
    }

    /// Ends when a renewal was confirmed or refused. Whatever else goes wrong may pass.
    async fn renew(&self) {
        let command: bytes::Bytes = Command::from(self.kept.renew()).encode().into();
        let mut backoff = Backoff::new();
        loop {
            let sent_at = Instant::now();
            let share = sent_at + (self.held.ttl / 6).max(SHORTEST_RENEWAL);
            let options = ExecuteOptions {
                deadline: share.min(self.held.deadline()),
                ..self.client.execute_options(share)
            };
            let transport = self.client.transport().as_ref();
            match retry::one_try(transport, command.clone(), options).await {
                Ok(executed) => match executed.reply.0 {
                    Ok(_) => return self.held.confirm(sent_at),
                    Err(refusal) => {
                        return self
                            .held
                            .set(LeaseState::Lost(LostReason::Refused(refusal)));
                    }
                },
                Err(error) => self.put_up_with(&error),
            }
            sleep(backoff.next_delay().min(self.held.ttl / 10)).await;
        }
    }

    fn put_up_with(&self, error: &NodeError) {
        let key = self.kept.key();
        tracing::debug!(%key, %error, "a renewal was not confirmed, trying again");
    }

    async fn release(&self, deadline: Instant) -> Result<Response, ClientError> {
        let command = Command::from(self.kept.release());
        let (_, response) = self.client.execute_command_by(command, deadline).await?;
        Ok(response)
    }

    /// After its deadline a lease is left to end by itself. Others wait for a lock, so that its
    /// release goes on until the cluster has heard it: without a quorum its time would stand still.
    async fn release_in_background(&self, before: &LeaseState) {
        let over = matches!(before, LeaseState::Lost(LostReason::Refused(_)));
        match &self.kept {
            Kept::Lock { key, id } if !over => release_until_heard(&self.client, key, *id).await,
            Kept::Lease { key, .. } if !matches!(before, LeaseState::Lost(_)) => {
                if let Err(error) = self.release(self.held.deadline()).await {
                    tracing::debug!(%key, %error, "a dropped lease is left to expire");
                }
            }
            _ => {}
        }
    }
}

/// How long a release in the background goes on: what the cluster forgets an acquisition's end
/// after.
const HEARD_WITHIN: Duration = Duration::from_millis(REQUEST_RETENTION_MS);

/// Releases an acquisition that nobody waits for any more.
pub(crate) async fn release_until_heard(client: &Client, key: &Name, id: [u8; 16]) {
    let release = lock::Release {
        key: key.clone(),
        id,
    };
    let command = Command::from(Action::from(release));
    let deadline = Instant::now() + HEARD_WITHIN;
    let mut backoff = Backoff::new();
    while Instant::now() < deadline {
        let heard = client.execute_command_by(command.clone(), client.deadline());
        match heard.await {
            Err(error) if error.is_passing() || error.may_have_happened() => {
                tracing::debug!(%key, %error, "a release was not confirmed, trying again");
            }
            Err(error) => return tracing::warn!(%key, %error, "a lock is left to expire"),
            Ok(_) => return,
        }
        sleep(backoff.next_delay()).await;
    }
    tracing::warn!(%key, "a lock is left to expire: the cluster was not heard for 10 minutes");
}
