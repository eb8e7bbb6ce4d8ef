//! [`LeaseGuard`] and [`LockGuard`]: keep what was granted until they are dropped, and know before
//! the cluster does when they may have lost it. How they do it is in [`crate::keeper`].

use std::fmt::Debug;
use std::time::Duration;

use quorate_statemachine::lease::{self, Lease};
use quorate_statemachine::{
    Action, FencingToken, LeaseToken, Name, Operation, Precondition, Refusal, lock,
};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::client::{self, Client};
use crate::error::ClientError;
use crate::keeper::Keep;
use crate::lock::Hold;

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

/// What a [`Guard`] keeps: a [`Lease`] or the [`Hold`] of a lock. Nothing else can be kept.
pub trait Granted: sealed::Sealed + Debug + Send + Sync + 'static {
    /// The operation that gives it back. Its reply is what [`Guard::release`] answers.
    type Release: Operation;

    /// Whether others may wait in line for its end. The release by a dropped guard is then repeated
    /// until the cluster has heard it; else it is tried while the grant may live, no longer.
    const WAITED_FOR: bool;

    /// The key.
    fn key(&self) -> &Name;

    /// The fencing token.
    fn fencing_token(&self) -> FencingToken;

    /// Time to live from each renewal.
    fn ttl(&self) -> Duration;

    /// Is met while this grant is live.
    fn precondition(&self) -> Precondition;

    /// The command that starts the TTL anew.
    fn renewal(&self) -> Action;

    /// The command that gives it back.
    fn release(&self) -> Self::Release;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Lease {}
    impl Sealed for super::Hold {}
}

impl Granted for Lease {
    type Release = lease::Release;

    const WAITED_FOR: bool = false;

    fn key(&self) -> &Name {
        &self.key
    }

    fn fencing_token(&self) -> FencingToken {
        self.fencing_token
    }

    fn ttl(&self) -> Duration {
        Duration::from_millis(self.ttl_ms)
    }

    fn precondition(&self) -> Precondition {
        Precondition::Lease {
            key: self.key.clone(),
            token: self.fencing_token,
        }
    }

    fn renewal(&self) -> Action {
        lease::Renew {
            key: self.key.clone(),
            lease_token: self.lease_token.clone(),
            fencing_token: self.fencing_token,
            ttl_ms: self.ttl_ms,
        }
        .into()
    }

    fn release(&self) -> lease::Release {
        lease::Release {
            key: self.key.clone(),
            lease_token: self.lease_token.clone(),
            fencing_token: self.fencing_token,
        }
    }
}

impl Granted for Hold {
    type Release = lock::Release;

    const WAITED_FOR: bool = true;

    fn key(&self) -> &Name {
        &self.key
    }

    fn fencing_token(&self) -> FencingToken {
        self.fencing_token
    }

    fn ttl(&self) -> Duration {
        self.ttl
    }

    fn precondition(&self) -> Precondition {
        Precondition::Lock {
            key: self.key.clone(),
            token: self.fencing_token,
        }
    }

    fn renewal(&self) -> Action {
        lock::Renew {
            key: self.key.clone(),
            id: self.id,
            ttl_ms: None,
        }
        .into()
    }

    fn release(&self) -> lock::Release {
        lock::Release {
            key: self.key.clone(),
            id: self.id,
        }
    }
}

/// A held lease. Renews itself in the background at a third of its TTL; releases itself in the
/// background when it is dropped. [`Guard::release`] answers [`lease::Released`].
pub type LeaseGuard = Guard<Lease>;

/// A held lock. Renews itself in the background at a third of its TTL; releases itself in the
/// background when it is dropped, and goes on trying until the cluster has heard it.
/// [`Guard::release`] answers [`lock::Released`].
pub type LockGuard = Guard<Hold>;

/// Keeps what was granted: a [`LeaseGuard`] or a [`LockGuard`].
#[derive(Debug)]
#[must_use = "a dropped guard releases what it keeps"]
pub struct Guard<G: Granted> {
    keep: Keep<G>,
}

impl<G: Granted> Guard<G> {
    /// Begins to keep what was not granted before `since`.
    pub(crate) fn new(client: Client, granted: G, since: Instant) -> Self {
        let keep = Keep::begin(client, granted, since);
        Self { keep }
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &Name {
        self.granted().key()
    }

    /// The fencing token: send it along with every write, to the cluster or elsewhere.
    #[must_use]
    pub fn token(&self) -> FencingToken {
        self.granted().fencing_token()
    }

    /// How long the grant certainly lives yet; zero when it is lost.
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
        self.keep.held.watch()
    }

    /// Is cancelled when the grant is lost or released: hand it to the work that the grant
    /// protects.
    #[must_use]
    pub fn lost(&self) -> CancellationToken {
        self.keep.held.lost()
    }

    /// Makes a command be refused unless this grant is live at the command's instant.
    #[must_use]
    pub fn precondition(&self) -> Precondition {
        self.granted().precondition()
    }

    /// Gives the grant back and waits for the answer, until the client's timeout. After an error it
    /// may be held yet: nothing renews it, and it expires with its TTL.
    pub async fn release(self) -> Result<<G::Release as Operation>::Reply, ClientError> {
        client::typed::<G::Release>(self.keep.release().await?)
    }

    fn granted(&self) -> &G {
        self.keep.held.granted()
    }
}

impl Guard<Lease> {
    /// The lease as it was granted.
    #[must_use]
    pub fn lease(&self) -> &Lease {
        self.granted()
    }

    /// The holder's proof.
    #[must_use]
    pub fn lease_token(&self) -> &LeaseToken {
        &self.lease().lease_token
    }
}

impl Guard<Hold> {
    /// The hold as it was granted.
    #[must_use]
    pub fn hold(&self) -> &Hold {
        self.granted()
    }
}
