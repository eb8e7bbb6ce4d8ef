//! [`LeaseGuard`]: keeps a lease until it is dropped, and knows before the cluster does when it may
//! have lost it.
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
use quorate_statemachine::lease::{Lease, Release, Released, Renew};
use quorate_statemachine::{
    Action, Command, FencingToken, LeaseToken, Name, Precondition, Refusal,
};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::error::ClientError;
use crate::lease::runtime_ended;
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
    held: Arc<Held>,
    /// Asks the keeper to release; dropping it asks too, without waiting for the answer.
    release: oneshot::Sender<oneshot::Sender<Result<Released, ClientError>>>,
}

impl LeaseGuard {
    /// Begins to keep a lease that was granted to a request sent at `sent_at`.
    pub(crate) fn new(client: Client, lease: Lease, sent_at: Instant) -> Self {
        let (release, released) = oneshot::channel();
        let held = Arc::new(Held::new(sent_at, Duration::from_millis(lease.ttl_ms)));
        let keeper = Keeper {
            client,
            key: lease.key.clone(),
            lease_token: lease.lease_token.clone(),
            fencing_token: lease.fencing_token,
            ttl_ms: lease.ttl_ms,
            held: held.clone(),
        };
        tokio::spawn(keeper.run(released));
        Self {
            lease,
            held,
            release,
        }
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
        match self.held.check() {
            LeaseState::Lost(_) => Duration::ZERO,
            _ => self
                .held
                .deadline()
                .saturating_duration_since(Instant::now()),
        }
    }

    /// How sure the holder can be right now.
    #[must_use]
    pub fn state(&self) -> LeaseState {
        self.held.check()
    }

    /// Every change of [`Self::state`].
    #[must_use]
    pub fn watch_state(&self) -> watch::Receiver<LeaseState> {
        self.held.state.subscribe()
    }

    /// Is cancelled when the lease is lost or released: hand it to the work that the lease
    /// protects.
    #[must_use]
    pub fn lost(&self) -> CancellationToken {
        self.held.lost.clone()
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
    pub async fn release(self) -> Result<Released, ClientError> {
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

type Stop = oneshot::Receiver<oneshot::Sender<Result<Released, ClientError>>>;

/// Renews the lease until the guard is dropped or the lease is lost.
struct Keeper {
    client: Client,
    key: Name,
    lease_token: LeaseToken,
    fencing_token: FencingToken,
    ttl_ms: u64,
    held: Arc<Held>,
}

impl Keeper {
    async fn run(self, mut stop: Stop) {
        let asked = tokio::select! {
            biased;
            asked = &mut stop => asked,
            () = self.keep() => stop.await,
        };
        let still_held = !matches!(self.held.check(), LeaseState::Lost(_));
        self.held.set(LeaseState::Lost(LostReason::Released));
        match asked {
            // Nobody waits to hear that the guard is gone.
            Ok(answer) => drop(answer.send(self.release(self.client.deadline()).await)),
            Err(_) if still_held => self.release_in_background().await,
            Err(_) => {}
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
        let renew = Renew {
            key: self.key.clone(),
            lease_token: self.lease_token.clone(),
            fencing_token: self.fencing_token,
            ttl_ms: self.ttl_ms,
        };
        let command: bytes::Bytes = Command::from(Action::from(renew)).encode().into();
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
        tracing::debug!(key = %self.key, %error, "a renewal was not confirmed, trying again");
    }

    async fn release(&self, deadline: Instant) -> Result<Released, ClientError> {
        let release = Release {
            key: self.key.clone(),
            lease_token: self.lease_token.clone(),
            fencing_token: self.fencing_token,
        };
        let command = Command::from(Action::from(release));
        let (_, response) = self.client.execute_command_by(command, deadline).await?;
        crate::client::typed::<Release>(response)
    }

    /// After its deadline the lease ends by itself.
    async fn release_in_background(&self) {
        if let Err(error) = self.release(self.held.deadline()).await {
            tracing::debug!(key = %self.key, %error, "a dropped lease is left to expire");
        }
    }
}
