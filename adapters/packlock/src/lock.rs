//! [`PackLock`]: the lock of one pack.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_client::statemachine::Name;
use quorate_client::{AcquireError, LockBuilder, LockGuard};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::background;
use crate::caller::{Caller, Reentry};
use crate::error::{PackLockError, PackLockErrorOrCancelled};
use crate::hold::{Held, PackLockGuard, PackLockHold};
use crate::locks::PackLocks;
use crate::registry;

/// Name of the file with which grex-core locks a pack on one machine. It is not made here.
pub const PACK_LOCK_FILE_NAME: &str = ".grex-lock";

/// Where grex-core 1.4.0 has that file in a pack.
pub const PACK_LOCK_REL_PATH: &str = ".grex/.grex-lock";

/// The lock of one pack, from [`PackLocks::open`]. Holds nothing until it is acquired.
pub struct PackLock {
    locks: PackLocks,
    path: PathBuf,
    canonical: PathBuf,
    key: Name,
}

impl fmt::Debug for PackLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("PackLock");
        shown.field("path", &self.path).field("key", &self.key);
        shown.finish()
    }
}

impl PackLock {
    pub(crate) fn new(locks: PackLocks, path: PathBuf, canonical: PathBuf, key: Name) -> Self {
        Self {
            locks,
            path,
            canonical,
            key,
        }
    }

    /// Waits for the pack. Who asked first, on whichever host, is granted first.
    ///
    /// Blocks no thread and works on any executor. A caller that would wait for its own call chain
    /// gets [`PackLockError::Busy`]; see [`call_chain`](crate::call_chain). Dropping the future
    /// ends the wait everywhere: neither a waiter nor a hold stays behind.
    pub async fn acquire_async(self) -> Result<PackLockHold, PackLockError> {
        let held = self.granted().await?;
        Ok(PackLockHold::new(held, self.path))
    }

    /// Like [`Self::acquire_async`], until `cancel` is cancelled. A token that is cancelled already
    /// makes it ask for nothing, and one that is cancelled while it waits is answered at once,
    /// whatever the cluster does: the wait ends there in the background, and a grant that had
    /// crossed it is given back.
    pub async fn acquire_cancellable(
        self,
        cancel: &CancellationToken,
    ) -> Result<PackLockHold, PackLockErrorOrCancelled> {
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(PackLockErrorOrCancelled::Cancelled),
            acquired = self.acquire_async() => Ok(acquired?),
        }
    }

    /// Waits for the pack, blocking the thread. Not for async code, though it panics nowhere: it
    /// keeps the other tasks of its thread from running, and on the thread of an embedded node's
    /// runtime the node itself.
    ///
    /// [`PackLockError::Busy`] at once if the pack is held by this task, by this thread, or by a
    /// task that only this thread can run.
    pub fn acquire(&mut self) -> Result<PackLockGuard<'_>, PackLockError> {
        let caller = Caller::current();
        if registry::blocks(&self.key, &caller) {
            return Err(PackLockError::reentry(self.path.clone()));
        }
        let asked = self.ask(&caller)?.waiting(self.locks.max_wait());
        self.block_on(&caller, asked)
    }

    /// Acquires the pack if it is free, and is [`PackLockError::Busy`] at once if it is not.
    /// Blocks the thread for as long as it takes to ask.
    pub fn try_acquire(&mut self) -> Result<PackLockGuard<'_>, PackLockError> {
        let caller = Caller::current();
        let mut asked = self.ask(&caller)?.waiting(Some(Duration::ZERO));
        asked.after = registry::releases(&self.key);
        self.block_on(&caller, asked)
    }

    /// `<pack_path>/.grex/.grex-lock`, as in the original, where it is the file that is locked.
    /// Here it only names the pack in messages; there need be no such file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The pack's directory with symlinks and `..` resolved.
    #[must_use]
    pub fn canonical_path(&self) -> &Path {
        &self.canonical
    }

    /// The name of the lock in the cluster, for operators and for [`quorate_client::Client`].
    #[must_use]
    pub fn key(&self) -> &Name {
        &self.key
    }

    async fn granted(&self) -> Result<Held, PackLockError> {
        let caller = Caller::current();
        let mut asked = self.ask(&caller)?.waiting(self.locks.max_wait());
        match registry::reentry(&self.key, &caller) {
            Reentry::No => {}
            Reentry::Perhaps => asked.reentry_wait = Some(self.locks.max_reentry_wait()),
            Reentry::Yes => return Err(PackLockError::reentry(self.path.clone())),
        }
        let runtime = self.runtime()?;
        let outcome = asked.spawn(&runtime).await;
        self.held(&caller, runtime, outcome.ok())
    }

    fn block_on(&self, caller: &Caller, asked: Asked) -> Result<PackLockGuard<'_>, PackLockError> {
        let runtime = self.runtime()?;
        let outcome = background::block_on(&runtime, asked.outcome());
        let held = self.held(caller, runtime, outcome)?;
        Ok(PackLockGuard::new(held, &self.path))
    }

    fn runtime(&self) -> Result<Handle, PackLockError> {
        background::runtime().map_err(|source| self.io(source))
    }

    fn ask(&self, caller: &Caller) -> Result<Asked, PackLockError> {
        let builder = self.locks.acquisition(&self.key, &self.canonical, caller);
        let builder = builder.map_err(|invalid| {
            PackLockError::client(
                self.path.clone(),
                quorate_client::ClientError::from(invalid),
            )
        })?;
        Ok(Asked {
            builder,
            reentry_wait: None,
            after: Vec::new(),
            give_up_at: self.locks.client().deadline(),
        })
    }

    fn held(
        &self,
        caller: &Caller,
        runtime: Handle,
        outcome: Option<Outcome>,
    ) -> Result<Held, PackLockError> {
        match outcome {
            Some(Outcome::Granted(guard)) => {
                let client = self.locks.client().clone();
                Ok(Held::new(guard, caller, client, runtime))
            }
            Some(Outcome::Reentry) => Err(PackLockError::reentry(self.path.clone())),
            Some(Outcome::Not(error)) => Err(PackLockError::acquire(self.path.clone(), error)),
            None => Err(self.io(background::ended())),
        }
    }

    fn io(&self, source: io::Error) -> PackLockError {
        PackLockError::io(self.path.clone(), source)
    }
}

/// An acquisition on its way to the cluster.
struct Asked {
    builder: LockBuilder,
    /// For how long its own task may hold the pack before it is a re-entry.
    reentry_wait: Option<Duration>,
    /// Releases by this process that must be heard first, so that a program which dropped a hold
    /// finds the pack free, as it would with a file lock.
    after: Vec<CancellationToken>,
    /// Until when they are waited for.
    give_up_at: Instant,
}

enum Outcome {
    Granted(LockGuard),
    Reentry,
    Not(AcquireError),
}

impl Asked {
    fn waiting(mut self, wait: Option<Duration>) -> Self {
        if let Some(wait) = wait {
            self.builder = self.builder.wait(wait);
        }
        self
    }

    /// Goes on until there is an outcome or nobody waits for it.
    fn spawn(self, runtime: &Handle) -> oneshot::Receiver<Outcome> {
        let (mut answer, outcome) = oneshot::channel();
        runtime.spawn(async move {
            let outcome = tokio::select! {
                biased;
                () = answer.closed() => return,
                outcome = self.outcome() => outcome,
            };
            // A grant that nobody takes is dropped, and so released.
            drop(answer.send(outcome));
        });
        outcome
    }

    async fn outcome(self) -> Outcome {
        for gone in self.after {
            // What has not been heard by then makes the lock busy, as it is.
            let _ = timeout_at(self.give_up_at, gone.cancelled()).await;
        }
        let acquire = self.builder.acquire();
        let acquired = match self.reentry_wait {
            None => acquire.await,
            Some(wait) => match timeout(wait, acquire).await {
                Ok(acquired) => acquired,
                Err(_) => return Outcome::Reentry,
            },
        };
        acquired.map_or_else(Outcome::Not, Outcome::Granted)
    }
}
