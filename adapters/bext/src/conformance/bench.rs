//! What a check works with: two hosts, keys of its own, and waiting with a limit.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bext_plugin_api::locking::{LockHandle, LockingPlugin};

use super::{Conformance, Make, TokenOf};

/// One situation.
pub(super) type Check = fn(&Bench) -> Result<(), String>;

/// TTL of locks that must not end by themselves while a check runs.
pub(super) const LONG: Duration = Duration::from_secs(600);

/// Between two looks.
const POLL: Duration = Duration::from_millis(2);

/// Fails the check unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($words:tt)+) => {
        if !$condition {
            return Err(format!($($words)+));
        }
    };
}
pub(super) use ensure;

/// What a check works with.
pub(super) struct Bench<'a> {
    make: &'a Make,
    token: Option<&'a TokenOf>,
    /// One host.
    pub(super) ours: Arc<dyn LockingPlugin>,
    /// Another host of the same backend.
    pub(super) theirs: Arc<dyn LockingPlugin>,
    /// TTL of locks that are to expire.
    pub(super) ttl: Duration,
    /// How long to wait at most.
    pub(super) patience: Duration,
    /// How many threads call at once.
    pub(super) threads: usize,
    run: String,
    keys: AtomicU64,
}

impl<'a> Bench<'a> {
    pub(super) fn new(suite: &'a Conformance) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let nanos = since.unwrap_or_default().as_nanos();
        Self {
            make: &suite.make,
            token: suite.token.as_ref(),
            ours: (suite.make)(),
            theirs: (suite.make)(),
            ttl: suite.ttl,
            patience: suite.patience,
            threads: suite.threads,
            run: format!("{nanos:x}-{:x}", std::process::id()),
            keys: AtomicU64::new(0),
        }
    }

    pub(super) fn check(&self, check: Check) -> Result<(), String> {
        check(self)
    }

    /// Another host.
    pub(super) fn another(&self) -> Arc<dyn LockingPlugin> {
        (self.make)()
    }

    /// The fencing token of a handle, if there is one.
    pub(super) fn token(&self, handle: &LockHandle) -> Option<u64> {
        self.token.and_then(|token| token(handle))
    }

    /// A key that nobody has used.
    pub(super) fn key(&self, what: &str) -> String {
        let number = self.keys.fetch_add(1, Ordering::Relaxed);
        format!("conformance/{}/{number}/{what}", self.run)
    }

    /// Asks again and again until there is an answer.
    pub(super) fn until<T>(
        &self,
        what: impl Display,
        mut look: impl FnMut() -> Result<Option<T>, String>,
    ) -> Result<T, String> {
        let deadline = Instant::now() + self.patience;
        loop {
            if let Some(found) = look()? {
                return Ok(found);
            }
            if Instant::now() >= deadline {
                return Err(format!("waited {:?} for {what}", self.patience));
            }
            thread::sleep(POLL);
        }
    }

    /// Waits until `plugin` gets `key`.
    pub(super) fn until_locked(
        &self,
        plugin: &dyn LockingPlugin,
        key: &str,
        ttl: Duration,
    ) -> Result<LockHandle, String> {
        let what = format!("{key} to be free");
        self.until(what, || try_lock(plugin, key, ttl))
    }
}

pub(super) fn ms(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)
}

/// For how long a TTL lasts at least: the backend's clock may run a tenth fast.
pub(super) fn at_least(ttl: Duration) -> Duration {
    ttl - ttl / 10
}

/// Tries, and fails the check if the backend does.
pub(super) fn try_lock(
    plugin: &dyn LockingPlugin,
    key: &str,
    ttl: Duration,
) -> Result<Option<LockHandle>, String> {
    let tried = plugin.try_lock(key, ms(ttl));
    tried.map_err(|error| format!("try_lock of {key:?} failed: {error}"))
}

/// Locks what must be free.
pub(super) fn lock(
    plugin: &dyn LockingPlugin,
    key: &str,
    ttl: Duration,
) -> Result<LockHandle, String> {
    let handle = try_lock(plugin, key, ttl)?;
    handle.ok_or_else(|| format!("{key:?} should be free, but try_lock answered Ok(None)"))
}

/// Fails if what must be taken is not.
pub(super) fn ensure_taken(plugin: &dyn LockingPlugin, key: &str) -> Result<(), String> {
    let got = try_lock(plugin, key, LONG)?;
    ensure!(
        got.is_none(),
        "{key:?} is held, and try_lock let another in"
    );
    Ok(())
}

pub(super) fn renew(plugin: &dyn LockingPlugin, handle: &LockHandle) -> Result<(), String> {
    let renewed = plugin.renew(handle);
    renewed.map_err(|error| format!("renew of {:?} failed: {error}", handle.key))
}

/// Fails if a renewal that must fail does not, or fails without a word.
pub(super) fn ensure_not_renewed(
    plugin: &dyn LockingPlugin,
    handle: &LockHandle,
    why: &str,
) -> Result<(), String> {
    match plugin.renew(handle) {
        Ok(()) => Err(format!("renew of a lock that {why} answered Ok(())")),
        Err(words) => {
            ensure!(!words.is_empty(), "renew failed without a word");
            Ok(())
        }
    }
}

pub(super) fn release(plugin: &dyn LockingPlugin, handle: LockHandle) -> Result<(), String> {
    let key = handle.key.clone();
    let released = plugin.release(handle);
    released.map_err(|error| format!("release of {key:?} failed: {error}"))
}
