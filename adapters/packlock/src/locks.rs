//! [`PackLocks`]: what the locks of a program's packs have in common.

use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_client::statemachine::limits::LOCK_METADATA_BYTES_MAX;
use quorate_client::statemachine::{InvalidArgument, Name};
use quorate_client::{Client, DEFAULT_TTL, LockBuilder};

use crate::caller::Caller;
use crate::error::PackLockError;
use crate::lock::PackLock;
use crate::name;

/// A namespace is at most a quarter of a lock's name, so that most paths are readable beside it.
pub const NAMESPACE_BYTES_MAX: usize = 128;

/// How long an acquisition waits for a hold of its own task, unless told otherwise.
pub const DEFAULT_REENTRY_WAIT: Duration = Duration::from_secs(1);

/// Opens pack locks: the cluster, what packs are called there, and how long things take. Cheap to
/// clone.
#[derive(Debug, Clone)]
pub struct PackLocks {
    client: Client,
    namespace: String,
    root: Option<PathBuf>,
    owner_id: Option<String>,
    ttl: Duration,
    wait: Option<Duration>,
    reentry_wait: Duration,
}

impl PackLocks {
    /// Locks of the packs in `namespace`. Hosts that use one namespace mean the same pack by the
    /// same path; those whose files have nothing to do with each other use a namespace each.
    pub fn new(client: Client, namespace: impl Into<String>) -> Result<Self, InvalidArgument> {
        let namespace = namespace.into();
        check_namespace(&namespace)?;
        Ok(Self {
            client,
            namespace,
            root: None,
            owner_id: None,
            ttl: DEFAULT_TTL,
            wait: None,
            reentry_wait: DEFAULT_REENTRY_WAIT,
        })
    }

    /// Where the packs are on this host: only the path below it names a pack, so that hosts which
    /// have the same checkout in different places exclude each other. A pack that is not below it
    /// is refused. The root need not exist yet.
    pub fn root(mut self, root: impl AsRef<Path>) -> Result<Self, PackLockError> {
        let root = root.as_ref();
        let canonical =
            name::canonical(root).map_err(|source| PackLockError::io(root.to_owned(), source))?;
        self.root = Some(canonical);
        Ok(self)
    }

    /// The name by which others see who holds a pack; this process's incarnation if not given.
    #[must_use]
    pub fn owner(mut self, owner_id: impl Into<String>) -> Self {
        self.owner_id = Some(owner_id.into());
        self
    }

    /// How long a hold outlives its process; 10 s if not given. It is renewed at a third.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// How long an acquisition waits for the pack; as long as it takes if not given.
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = Some(wait);
        self
    }

    /// How long an acquisition outside a [`call_chain`](crate::call_chain) waits for a pack that
    /// its own task holds, before it is [`PackLockError::Busy`]; 1 s if not given. Zero suits tasks
    /// that are one flow of control, more those that join branches which hold one pack for long.
    #[must_use]
    pub fn reentry_wait(mut self, wait: Duration) -> Self {
        self.reentry_wait = wait;
        self
    }

    /// The lock of the pack at `pack_path`. Acquires nothing, asks nobody and creates nothing: the
    /// directory need not exist yet. Refuses what is no directory, and a path that cannot be
    /// resolved.
    pub fn open(&self, pack_path: &Path) -> Result<PackLock, PackLockError> {
        let sidecar = pack_path.join(crate::PACK_LOCK_REL_PATH);
        let io = |source| PackLockError::io(sidecar.clone(), source);
        let canonical = name::canonical(pack_path).map_err(io)?;
        let named = name::below(&canonical, self.root.as_deref()).map_err(io)?;
        let key = name::key(&self.namespace, &named);
        Ok(PackLock::new(self.clone(), sidecar, canonical, key))
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn max_wait(&self) -> Option<Duration> {
        self.wait
    }

    pub(crate) fn max_reentry_wait(&self) -> Duration {
        self.reentry_wait
    }

    /// An acquisition of `key` by `caller`. The note tells an operator which directory it is here.
    pub(crate) fn acquisition(
        &self,
        key: &Name,
        canonical: &Path,
        caller: &Caller,
    ) -> Result<LockBuilder, InvalidArgument> {
        let path = canonical.as_os_str().as_encoded_bytes();
        let note = &path[..path.len().min(LOCK_METADATA_BYTES_MAX)];
        let builder = self.client.lock(key.as_str()).ttl(self.ttl).metadata(note);
        let owner_id = self.owner_id.as_deref();
        let builder = match caller.owner(owner_id)? {
            Some(chain) => builder.holder(chain),
            None => match owner_id {
                Some(owner_id) => builder.owner(owner_id),
                None => builder,
            },
        };
        Ok(builder)
    }
}

/// A name may hold what a lock's name may, but no slash: where it ends must be seen.
fn check_namespace(namespace: &str) -> Result<(), InvalidArgument> {
    Name::parse("namespace", namespace)?;
    InvalidArgument::check_bytes("namespace", namespace.len(), NAMESPACE_BYTES_MAX)?;
    match namespace.find('/') {
        Some(at) => Err(InvalidArgument::new(
            "namespace",
            "must not hold a slash",
            "a name without '/'",
            format!("{namespace:?} with one at byte {at}"),
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::check_namespace;

    #[test]
    fn a_namespace_whose_end_could_not_be_seen_is_refused() {
        for wrong in ["", "a/b", "/", "line\nbreak", &"n".repeat(129)] {
            let refused = check_namespace(wrong).expect_err(wrong);
            assert!(refused.to_string().contains("namespace"), "{refused}");
        }
        for right in ["dotfiles", "übung 100%", &"n".repeat(128)] {
            check_namespace(right).expect(right);
        }
    }
}
