//! How a guard keeps what was granted: in the background, by renewals, until it is dropped or lost.
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

use bytes::Bytes;
use quorate_rpc::NodeError;
use quorate_statemachine::limits::REQUEST_RETENTION_MS;
use quorate_statemachine::{Action, Command, Name, Response};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::error::ClientError;
use crate::guard::{Granted, LeaseState, LostReason};
use crate::lease::runtime_ended;
use crate::retry::{self, Backoff};
use crate::transport::ExecuteOptions;

/// A renewal waits at least this long for its answer, however short the TTL.
const SHORTEST_RENEWAL: Duration = Duration::from_millis(200);

/// When the holder must consider a lease over that was confirmed for a request sent at `sent_at`.
fn deadline(sent_at: Instant, ttl: Duration) -> Instant {
    let margin = ttl / 20 + Duration::from_millis(1);
    sent_at + ttl.saturating_sub(margin)
}

/// A guard's side of keeping.
#[derive(Debug)]
pub(crate) struct Keep<G> {
    pub(crate) held: Arc<Held<G>>,
    /// Asks the keeper to release; dropping it asks too, without waiting for the answer.
    release: oneshot::Sender<Answer>,
}

/// Where the answer to a release goes.
type Answer = oneshot::Sender<Result<Response, ClientError>>;

impl<G: Granted> Keep<G> {
    /// Begins to keep what was not granted before `since`.
    pub(crate) fn begin(client: Client, granted: G, since: Instant) -> Self {
        let (release, released) = oneshot::channel();
        let held = Arc::new(Held::new(granted, since));
        let keeper = Keeper {
            client,
            held: held.clone(),
        };
        tokio::spawn(keeper.run(released));
        Self { held, release }
    }

    /// Releases, and waits for the answer.
    pub(crate) async fn release(self) -> Result<Response, ClientError> {
        let (sender, answer) = oneshot::channel();
        if self.release.send(sender).is_err() {
            return Err(runtime_ended());
        }
        answer.await.unwrap_or_else(|_| Err(runtime_ended()))
    }
}

/// What guard and keeper share.
#[derive(Debug)]
pub(crate) struct Held<G> {
    granted: G,
    /// When the request was sent that was confirmed last.
    confirmed: Mutex<Instant>,
    state: watch::Sender<LeaseState>,
    lost: CancellationToken,
}

impl<G: Granted> Held<G> {
    fn new(granted: G, since: Instant) -> Self {
        Self {
            granted,
            confirmed: Mutex::new(since),
            state: watch::Sender::new(LeaseState::Safe),
            lost: CancellationToken::new(),
        }
    }

    pub(crate) fn granted(&self) -> &G {
        &self.granted
    }

    pub(crate) fn watch(&self) -> watch::Receiver<LeaseState> {
        self.state.subscribe()
    }

    pub(crate) fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }

    fn confirmed(&self) -> MutexGuard<'_, Instant> {
        self.confirmed
            .lock()
            .expect("nothing panics while it holds the lock")
    }

    fn deadline(&self) -> Instant {
        deadline(*self.confirmed(), self.granted.ttl())
    }

    pub(crate) fn remaining(&self) -> Duration {
        match self.check() {
            LeaseState::Lost(_) => Duration::ZERO,
            _ => self.deadline().saturating_duration_since(Instant::now()),
        }
    }

    fn jeopardy_at(&self) -> Instant {
        *self.confirmed() + self.granted.ttl() * 2 / 3
    }

    /// The state as the clock has it: whoever asks finds out as early as the keeper.
    pub(crate) fn check(&self) -> LeaseState {
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
struct Keeper<G> {
    client: Client,
    held: Arc<Held<G>>,
}

impl<G: Granted> Keeper<G> {
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
            let ttl = self.held.granted.ttl();
            let pause = ttl.mul_f64((0.8 + fastrand::f64() * 0.2) / 3.0);
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
        let ttl = self.held.granted.ttl();
        let command: Bytes = Command::from(self.held.granted.renewal()).encode().into();
        let mut backoff = Backoff::new();
        loop {
            let sent_at = Instant::now();
            let share = sent_at + (ttl / 6).max(SHORTEST_RENEWAL);
            let options = ExecuteOptions {
                deadline: share.min(self.held.deadline()),
                trace: None,
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
            sleep(backoff.next_delay().min(ttl / 10)).await;
        }
    }

    fn put_up_with(&self, error: &NodeError) {
        let key = self.held.granted.key();
        tracing::debug!(%key, %error, "a renewal was not confirmed, trying again");
    }

    async fn release(&self, deadline: Instant) -> Result<Response, ClientError> {
        let release: Action = self.held.granted.release().into();
        let command = Command::from(release);
        let (_, response) = self.client.execute_command_by(command, deadline).await?;
        Ok(response)
    }

    /// After its deadline a lease is left to end by itself. Others wait for a lock, so that its
    /// release goes on until the cluster has heard it: without a quorum its time would stand still.
    async fn release_in_background(&self, before: &LeaseState) {
        let granted = &self.held.granted;
        match before {
            LeaseState::Lost(LostReason::Refused(_)) => {}
            _ if G::WAITED_FOR => {
                let release: Action = granted.release().into();
                release_until_heard(&self.client, granted.key(), release).await;
            }
            LeaseState::Lost(_) => {}
            LeaseState::Safe | LeaseState::Jeopardy => {
                if let Err(error) = self.release(self.held.deadline()).await {
                    let key = granted.key();
                    tracing::debug!(%key, %error, "a dropped lease is left to expire");
                }
            }
        }
    }
}

/// How long a release in the background goes on: what the cluster forgets an acquisition's end
/// after.
const HEARD_WITHIN: Duration = Duration::from_millis(REQUEST_RETENTION_MS);

/// Releases an acquisition of the lock `key` that nobody waits for any more.
pub(crate) async fn release_until_heard(client: &Client, key: &Name, release: Action) {
    let command = Command::from(release);
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
