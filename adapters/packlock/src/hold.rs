//! What an acquired pack is held by.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_client::statemachine::limits::REQUEST_RETENTION_MS;
use quorate_client::statemachine::lock::Released;
use quorate_client::statemachine::{FencingToken, Precondition};
use quorate_client::{Client, ClientError, LeaseState, LockGuard};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::background;
use crate::caller::Caller;
use crate::error::PackLockError;
use crate::registry::Registration;

/// A release that was not heard is tried again for as long as the cluster remembers how an
/// acquisition ended, with pauses of its own if the client's tries are short.
const HEARD_WITHIN: Duration = Duration::from_millis(REQUEST_RETENTION_MS);
const PAUSE: Duration = Duration::from_millis(200);

/// A pack that is held: renewed in the background, released when it is dropped.
#[derive(Debug)]
pub struct Held {
    /// None once the release has begun.
    granted: Option<(LockGuard, Registration)>,
    client: Client,
    runtime: Handle,
}

impl Held {
    pub(crate) fn new(guard: LockGuard, caller: &Caller, client: Client, runtime: Handle) -> Self {
        let registration = Registration::new(guard.key().clone(), caller, guard.lost());
        Self {
            granted: Some((guard, registration)),
            client,
            runtime,
        }
    }

    fn guard(&self) -> &LockGuard {
        let granted = self.granted.as_ref();
        &granted.expect("a release takes the hold from its owner").0
    }

    /// The fencing token: send it along with what the pack's lock protects, so that what comes from
    /// a holder that lost it is refused.
    #[must_use]
    pub fn token(&self) -> FencingToken {
        self.guard().token()
    }

    /// Is cancelled when the pack is lost or released: hand it to the work on the pack.
    #[must_use]
    pub fn lost(&self) -> CancellationToken {
        self.guard().lost()
    }

    /// How sure the holder can be right now.
    #[must_use]
    pub fn state(&self) -> LeaseState {
        self.guard().state()
    }

    /// How long the pack is certainly held yet, should no renewal be heard; zero when it is lost.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.guard().remaining()
    }

    /// Makes a command to the cluster be refused unless the pack is held at its instant.
    #[must_use]
    pub fn precondition(&self) -> Precondition {
        self.guard().precondition()
    }

    /// From here on the hold is over for this process; the answer comes when the cluster has heard
    /// it, or could not be reached in time.
    fn begin_release(&mut self) -> oneshot::Receiver<Result<Released, ClientError>> {
        let (answer, heard) = oneshot::channel();
        if let Some((guard, registration)) = self.granted.take() {
            registration.begin_release();
            let client = self.client.clone();
            self.runtime
                .spawn(release(client, guard, registration, answer));
        }
        heard
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.begin_release());
    }
}

async fn release(
    client: Client,
    guard: LockGuard,
    registration: Registration,
    answer: oneshot::Sender<Result<Released, ClientError>>,
) {
    let (key, id) = (guard.key().clone(), guard.hold().id);
    let first = guard.release().await;
    let mut unheard = first.as_ref().is_err_and(may_pass);
    // Nobody waits to hear it if the hold was dropped.
    let _ = answer.send(first);
    let deadline = Instant::now() + HEARD_WITHIN;
    while unheard && Instant::now() < deadline {
        sleep(PAUSE).await;
        unheard = client
            .lock_release(&key, id)
            .await
            .as_ref()
            .is_err_and(may_pass);
    }
    if unheard {
        tracing::warn!(%key, "a pack lock is left to expire: the cluster was not heard");
    }
    drop(registration);
}

fn may_pass(error: &ClientError) -> bool {
    error.is_passing() || error.may_have_happened()
}

fn released(
    path: PathBuf,
    answer: Option<Result<Released, ClientError>>,
) -> Result<Released, PackLockError> {
    match answer {
        Some(answer) => answer.map_err(|error| PackLockError::client(path, error)),
        None => Err(PackLockError::io(path, background::ended())),
    }
}

/// A held pack, from [`PackLock::acquire_async`](crate::PackLock::acquire_async) and
/// [`PackLock::acquire_cancellable`](crate::PackLock::acquire_cancellable).
#[derive(Debug)]
#[must_use = "a dropped hold releases its pack"]
pub struct PackLockHold {
    held: Held,
    path: PathBuf,
}

impl PackLockHold {
    pub(crate) fn new(held: Held, path: PathBuf) -> Self {
        Self { held, path }
    }

    /// [`PackLock::path`](crate::PackLock::path) of the lock.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the pack back and waits until the cluster has heard it. The answer says whether it was
    /// still held. After an error, which says that it was not heard in time, the release goes on in
    /// the background.
    pub async fn release(mut self) -> Result<Released, PackLockError> {
        let heard = self.held.begin_release();
        released(self.path.clone(), heard.await.ok())
    }
}

impl Deref for PackLockHold {
    type Target = Held;
    fn deref(&self) -> &Held {
        &self.held
    }
}

/// A held pack, from [`PackLock::acquire`](crate::PackLock::acquire) and
/// [`PackLock::try_acquire`](crate::PackLock::try_acquire).
#[derive(Debug)]
#[must_use = "a dropped guard releases its pack"]
pub struct PackLockGuard<'lock> {
    held: Held,
    path: &'lock Path,
}

impl<'lock> PackLockGuard<'lock> {
    pub(crate) fn new(held: Held, path: &'lock Path) -> Self {
        Self { held, path }
    }

    /// Like [`PackLockHold::release`], blocking the thread.
    pub fn release(mut self) -> Result<Released, PackLockError> {
        let heard = self.held.begin_release();
        let heard = background::block_on(&self.held.runtime, heard);
        released(self.path.to_owned(), heard.and_then(Result::ok))
    }
}

impl Deref for PackLockGuard<'_> {
    type Target = Held;
    fn deref(&self) -> &Held {
        &self.held
    }
}
