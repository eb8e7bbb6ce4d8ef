//! Why a pack is not held.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use quorate_client::{AcquireError, ClientError, NodeError};
use thiserror::Error;

/// Why a pack lock was not opened, acquired or released. `path` is [`PackLock::path`] everywhere.
///
/// [`PackLock::path`]: crate::PackLock::path
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum PackLockError {
    /// The path cannot be resolved, the cluster refused, or it was not reached in time.
    /// [`io::Error::get_ref`] has the client's error, if it was the cluster.
    #[error("pack lock i/o on `{}`: {source}", path.display())]
    Io {
        /// The pack's lock.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// Somebody holds the pack and the caller would not wait, or the caller itself holds it.
    #[non_exhaustive]
    #[error("pack lock `{}` is busy{}", path.display(), held(holder.as_deref()))]
    Busy {
        /// The pack's lock.
        path: PathBuf,
        /// The owner who holds the pack; none if the caller's own call chain does, or if the pack
        /// was just handed on.
        holder: Option<String>,
    },
    /// The pack was not granted within [`PackLocks::wait`](crate::PackLocks::wait).
    #[error("pack lock `{}` was not granted within {waited:?}", path.display())]
    TimedOut {
        /// The pack's lock.
        path: PathBuf,
        /// How long the call waited.
        waited: Duration,
    },
    /// Call chains wait for each other in a circle; this one must give up what it holds.
    #[error("pack lock `{}`: {source}", path.display())]
    Deadlock {
        /// The pack's lock.
        path: PathBuf,
        /// Who waits for what.
        #[source]
        source: Box<AcquireError>,
    },
}

/// What [`PackLock::acquire_cancellable`](crate::PackLock::acquire_cancellable) answers instead of
/// a hold.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum PackLockErrorOrCancelled {
    /// The token was cancelled first. Nothing is held, and nothing will be.
    #[error("pack lock acquire cancelled")]
    Cancelled,
    /// The pack was not acquired for another reason.
    #[error(transparent)]
    Lock(#[from] PackLockError),
}

fn held(holder: Option<&str>) -> String {
    holder.map_or(String::new(), |holder| format!(": {holder} holds it"))
}

impl PackLockError {
    /// The pack's lock; see [`PackLock::path`](crate::PackLock::path).
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        match self {
            Self::Io { path, .. }
            | Self::Busy { path, .. }
            | Self::TimedOut { path, .. }
            | Self::Deadlock { path, .. } => path,
        }
    }

    pub(crate) fn io(path: PathBuf, source: io::Error) -> Self {
        Self::Io { path, source }
    }

    /// The caller's own chain holds the pack.
    pub(crate) fn reentry(path: PathBuf) -> Self {
        Self::Busy { path, holder: None }
    }

    pub(crate) fn acquire(path: PathBuf, error: AcquireError) -> Self {
        match error {
            AcquireError::Busy { holders, .. } => {
                let holder = holders.first();
                let holder = holder.map(|holder| holder.owner.owner_id.to_string());
                Self::Busy { path, holder }
            }
            AcquireError::TimedOut { waited, .. } => Self::TimedOut { path, waited },
            AcquireError::Deadlock { .. } => Self::Deadlock {
                path,
                source: Box::new(error),
            },
            AcquireError::Cancelled { .. } => Self::io(
                path,
                io::Error::new(io::ErrorKind::ConnectionAborted, error),
            ),
            AcquireError::Client(error) => Self::client(path, error),
        }
    }

    pub(crate) fn client(path: PathBuf, error: ClientError) -> Self {
        Self::io(path, io::Error::new(kind(&error), error))
    }
}

/// The nearest word that callers of file locks know.
fn kind(error: &ClientError) -> io::ErrorKind {
    match error {
        ClientError::Refused(refusal) => match refusal.root() {
            quorate_client::statemachine::Refusal::Invalid(_) => io::ErrorKind::InvalidInput,
            _ => io::ErrorKind::Other,
        },
        ClientError::Node(NodeError::DeadlineExceeded { .. }) => io::ErrorKind::TimedOut,
        ClientError::Node(error) if error.is_passing() => io::ErrorKind::NotConnected,
        ClientError::Node(_) | ClientError::Protocol(_) => io::ErrorKind::Other,
    }
}
