//! [`QuorateLocks`]: the plugin.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bext_plugin_api::locking::{LockHandle, LockingPlugin};
use futures::{StreamExt, stream};
use quorate_client::statemachine::lock::Kept;
use quorate_client::statemachine::{InvalidArgument, Name, Refusal, limits::TTL_MS_MAX};
use quorate_client::{AcquireError, Client, ClientError, Hold, LockBuilder};

use crate::builder::{Builder, Cluster};
use crate::engine::Engine;
use crate::holds::Holds;
use crate::lock_id::LockId;

/// What a call may take beyond the client's own timeout, which bounds each of its steps.
const SLACK: Duration = Duration::from_millis(500);

/// Releases that `cleanup` has in flight: a node takes thousands.
const CLEANUP_AT_ONCE: usize = 256;

/// A `LockingPlugin` on a Quorate cluster.
///
/// Each grant is an acquisition of its own: a second `try_lock` for a key that this very plugin
/// holds is contention. Dropping the plugin frees no lock, [`LockingPlugin::cleanup`] does; what
/// is not freed ends with its TTL.
pub struct QuorateLocks {
    name: String,
    prefix: String,
    owner: String,
    timeout: Duration,
    cluster: Cluster,
    /// Started by the first call, and again by the first call after a cleanup.
    engine: Mutex<Option<Arc<Engine>>>,
    holds: Mutex<Holds>,
}

impl std::fmt::Debug for QuorateLocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QuorateLocks")
            .field("name", &self.name)
            .field("prefix", &self.prefix)
            .field("owner", &self.owner)
            .field("timeout", &self.timeout)
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

impl QuorateLocks {
    /// Locks of the cluster that has nodes at `endpoints` (`host:port`).
    pub fn connect<E: Into<String>>(endpoints: impl IntoIterator<Item = E>) -> Builder {
        let endpoints = endpoints.into_iter().map(Into::into).collect();
        Builder::new(Cluster::Endpoints(endpoints))
    }

    /// Locks behind a client that the host made, such as that of an embedded node.
    ///
    /// What answers the client must be able to run while the caller waits. A node on a
    /// multi-threaded runtime does. A node on a current-thread runtime does not if the call comes
    /// from that runtime's thread, and the call fails after its timeout: start the node on a
    /// runtime of its own, or call from `spawn_blocking`. For a cluster that is reached over
    /// sockets prefer [`Self::connect`], whose connections live on the plugin's own thread.
    pub fn over(client: Client) -> Builder {
        Builder::new(Cluster::Client(client))
    }

    pub(crate) fn new(builder: Builder) -> Self {
        Self {
            name: builder.name,
            prefix: builder.prefix,
            owner: builder.owner,
            timeout: builder.timeout,
            cluster: builder.cluster,
            engine: Mutex::new(None),
            holds: Mutex::new(Holds::new()),
        }
    }

    fn holds(&self) -> MutexGuard<'_, Holds> {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn engine(&self) -> Result<Arc<Engine>, String> {
        let mut engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = engine.as_ref() {
            return Ok(Arc::clone(engine));
        }
        let client = self.cluster.client(self.timeout);
        let client = client.map_err(|error| format!("{}: {error}", self.name))?;
        let started = Engine::start(client, self.timeout);
        let started = started.map_err(|error| {
            format!(
                "{}: the plugin's thread cannot be started: {error}; look at the limits on threads \
                 and open files of this process",
                self.name
            )
        })?;
        Ok(Arc::clone(engine.insert(Arc::new(started))))
    }

    /// Does `work` on the plugin's thread; the outer error is a call that was cut short.
    fn run<T: Send + 'static>(
        &self,
        engine: &Engine,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, String> {
        let limit = self.timeout + SLACK;
        let done = engine.run(async move { tokio::time::timeout(limit, work).await });
        match done {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(_)) => Err(format!(
                "no answer within {limit:?}; whether it was done is unknown"
            )),
            Err(_) => Err("the call panicked, see the standard error of this process".to_owned()),
        }
    }

    /// The lock's name in the cluster.
    fn lock_name(&self, key: &str) -> Result<Name, InvalidArgument> {
        // An empty key with a prefix would be the prefix.
        if key.is_empty() {
            return Name::parse("key", key);
        }
        Name::parse("key", format!("{}{key}", self.prefix))
    }

    fn refused(&self, what: &str, problem: impl std::fmt::Display) -> String {
        format!("{}: {what}: {problem}", self.name)
    }

    /// An error of the cluster, with what an operator can do about it.
    fn failed(&self, what: &str, error: &ClientError) -> String {
        let advice = match error {
            ClientError::Node(error) if error.is_passing() => format!(
                "; look whether a majority of the cluster's nodes run and lead ({})",
                self.cluster.place()
            ),
            ClientError::Node(_) => format!("; look at the cluster ({})", self.cluster.place()),
            ClientError::Refused(Refusal::Exhausted { .. }) => {
                "; look who holds locks and does not release them".to_owned()
            }
            ClientError::Refused(_) | ClientError::Protocol(_) => String::new(),
        };
        self.refused(what, format!("{error}{advice}"))
    }

    fn acquired(
        &self,
        key: &str,
        acquired: Result<Hold, AcquireError>,
        asked_at: Instant,
        engine: &Engine,
    ) -> Result<Option<LockHandle>, String> {
        let hold = match acquired {
            Ok(hold) => hold,
            // Taken; or granted, and over again before the answer was here.
            Err(
                AcquireError::Busy { .. }
                | AcquireError::TimedOut { .. }
                | AcquireError::Cancelled { .. },
            ) => return Ok(None),
            Err(AcquireError::Client(error)) => {
                if error.may_have_happened() {
                    engine.doubt();
                }
                return Err(self.failed(&format!("try_lock {key:?}"), &error));
            }
            Err(error @ AcquireError::Deadlock { .. }) => {
                return Err(self.refused("try_lock", error));
            }
        };
        let lock_id = LockId {
            id: hold.id,
            fencing_token: hold.fencing_token,
        };
        let handle = LockHandle {
            key: key.to_owned(),
            lock_id: lock_id.to_string(),
            ttl_ms: u64::try_from(hold.ttl.as_millis()).unwrap_or(TTL_MS_MAX),
        };
        self.holds().add(hold, asked_at);
        Ok(Some(handle))
    }

    fn attempt(&self, engine: &Engine, name: &Name, ttl_ms: u64) -> LockBuilder {
        let lock = engine.client().lock(name.as_str());
        lock.owner(self.owner.as_str())
            .ttl(Duration::from_millis(ttl_ms))
            .wait(Duration::ZERO)
    }

    /// The renewal was answered with `kept`: is it what the handle says?
    fn kept(&self, handle: &LockHandle, lock_id: LockId, kept: Kept) -> Result<(), String> {
        match kept {
            Kept::Holding { fencing_token, .. } if fencing_token == lock_id.fencing_token => Ok(()),
            Kept::Holding { fencing_token, .. } => Err(self.refused(
                &format!("renew {:?}", handle.key),
                format!(
                    "the handle's fencing token is {}, the grant's is {fencing_token}; take the \
                     lock again",
                    lock_id.fencing_token
                ),
            )),
            Kept::Waiting { .. } => Err(self.refused(
                &format!("renew {:?}", handle.key),
                "the handle names a waiter, not a hold; take the lock again",
            )),
        }
    }

    fn renew_by(&self, handle: &LockHandle, lock_id: LockId) -> Result<(), String> {
        let what = format!("renew {:?}", handle.key);
        let name = self.lock_name(&handle.key);
        let name = name.map_err(|error| self.refused("renew", error))?;
        check_ttl(handle.ttl_ms).map_err(|error| self.refused(&what, error))?;
        let ttl = Duration::from_millis(handle.ttl_ms);
        let engine = self.engine()?;
        let client = engine.client().clone();
        let asked_at = Instant::now();
        let renewed = self.run(&engine, async move {
            client.lock_renew(&name, lock_id.id, Some(ttl)).await
        });
        match renewed.map_err(|error| self.refused(&what, error))? {
            Ok(kept) => {
                self.kept(handle, lock_id, kept)?;
                self.holds().renewed(lock_id.id, asked_at, ttl);
                Ok(())
            }
            Err(error) => {
                if error.refusal().is_some() {
                    self.holds().remove(lock_id.id);
                }
                Err(self.failed(&what, &error))
            }
        }
    }

    fn release_by(&self, engine: &Engine, name: Name, id: [u8; 16]) -> Result<(), String> {
        let what = format!("release {:?}", name.as_str());
        let client = engine.client().clone();
        let released = self.run(engine, async move { client.lock_release(&name, id).await });
        match released.map_err(|error| self.refused(&what, error))? {
            Ok(_) => {
                self.holds().remove(id);
                Ok(())
            }
            // Such an id was never granted, so there is nothing to release.
            Err(ClientError::Refused(refusal)) => {
                tracing::debug!(key = what, %refusal, "a release of what is not held");
                self.holds().remove(id);
                Ok(())
            }
            Err(error) => Err(self.failed(&what, &error)),
        }
    }

    /// Releases `holds`; answers those that are over now, and why the first of the others is not.
    fn release_all(
        &self,
        engine: &Engine,
        holds: Vec<(Name, [u8; 16])>,
    ) -> Result<(Vec<[u8; 16]>, Option<String>), String> {
        let client = engine.client().clone();
        let deadline = tokio::time::Instant::now() + self.timeout;
        self.run(engine, async move {
            let mut releases = stream::iter(holds)
                .map(|(name, id)| {
                    let client = client.clone();
                    async move {
                        let release = client.lock_release(&name, id);
                        let released = tokio::time::timeout_at(deadline, release).await;
                        (name, id, released)
                    }
                })
                .buffer_unordered(CLEANUP_AT_ONCE);
            let (mut over, mut problem) = (Vec::new(), None);
            while let Some((name, id, released)) = releases.next().await {
                match released {
                    Ok(Ok(_) | Err(ClientError::Refused(_))) => over.push(id),
                    Ok(Err(error)) => {
                        problem.get_or_insert_with(|| format!("{name:?}: {error}"));
                    }
                    Err(_) => {
                        problem.get_or_insert_with(|| format!("{name:?}: no answer in time"));
                    }
                }
            }
            (over, problem)
        })
    }
}

impl LockingPlugin for QuorateLocks {
    fn name(&self) -> &str {
        &self.name
    }

    fn try_lock(&self, key: &str, ttl_ms: u64) -> Result<Option<LockHandle>, String> {
        let name = self.lock_name(key);
        let name = name.map_err(|error| self.refused("try_lock", error))?;
        let what = || format!("try_lock {key:?}");
        check_ttl(ttl_ms).map_err(|error| self.refused(&what(), error))?;
        let asked_at = Instant::now();
        let room = self.holds().make_room(asked_at);
        room.map_err(|error| self.refused(&what(), error))?;
        let engine = self.engine()?;
        let attempt = self.attempt(&engine, &name, ttl_ms);
        let tried = self.run(&engine, async move { attempt.acquire_hold().await });
        match tried {
            Ok(acquired) => {
                let acquired = acquired.map(|(hold, _)| hold);
                self.acquired(key, acquired, asked_at, &engine)
            }
            Err(error) => {
                engine.doubt();
                let place = self.cluster.place();
                let problem = format!(
                    "{error}, and it is undone in the background; look whether a majority of the \
                     cluster's nodes run and lead ({place})"
                );
                Err(self.refused(&what(), problem))
            }
        }
    }

    fn renew(&self, handle: &LockHandle) -> Result<(), String> {
        match LockId::of(handle) {
            Ok(lock_id) => self.renew_by(handle, lock_id),
            Err(bad) => Err(self.refused(&format!("renew {:?}", handle.key), bad)),
        }
    }

    fn release(&self, handle: LockHandle) -> Result<(), String> {
        let parsed = LockId::of(&handle).map_err(|bad| bad.to_string());
        let named = self.lock_name(&handle.key).map_err(|bad| bad.to_string());
        match (parsed, named) {
            (Ok(lock_id), Ok(name)) => {
                let engine = self.engine()?;
                self.release_by(&engine, name, lock_id.id)
            }
            (Err(bad), _) | (_, Err(bad)) => {
                tracing::debug!(
                    plugin = self.name,
                    bad,
                    "a release of what was never granted"
                );
                Ok(())
            }
        }
    }

    /// Releases everything that this plugin granted and has not seen released, then closes its
    /// connections and ends its thread. What is granted meanwhile is not freed. The plugin can be
    /// used again.
    fn cleanup(&self) -> Result<(), String> {
        let holds = self.holds().all();
        if !holds.is_empty() {
            let count = holds.len();
            let engine = self.engine()?;
            let released = self.release_all(&engine, holds);
            let (over, problem) = released.map_err(|error| self.refused("cleanup", error))?;
            let freed = over.len();
            over.into_iter().for_each(|id| self.holds().remove(id));
            if let Some(problem) = problem {
                return Err(self.refused(
                    "cleanup",
                    format!(
                        "{} of {count} locks were not released and end with their TTL, unless \
                         cleanup is called again; {problem} ({})",
                        count - freed,
                        self.cluster.place()
                    ),
                ));
            }
        }
        let mut engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        drop(engine.take());
        Ok(())
    }
}

/// Refuses 0 and more than the limit. Here, and not by the client, which asks the cluster first.
fn check_ttl(ttl_ms: u64) -> Result<(), InvalidArgument> {
    if ttl_ms == 0 {
        let limit = format!("1 to {TTL_MS_MAX} ms");
        return Err(InvalidArgument::new(
            "ttl_ms",
            "is out of range",
            limit,
            "0 ms",
        ));
    }
    InvalidArgument::check_ttl(ttl_ms)
}
