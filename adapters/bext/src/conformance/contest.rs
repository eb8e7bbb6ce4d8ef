//! Threads of two hosts that lock, renew and release a few keys, and account for every moment in
//! which they could be sure to hold one.
//!
//! A holder is sure from the answer of its `try_lock` until it asks for the release, but no longer
//! than a TTL (less a tenth) after it last *asked* for something that was granted. All on one
//! monotonic clock, so that two such times of one key must never overlap, whatever happens to the
//! backend meanwhile.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bext_plugin_api::locking::{LockHandle, LockingPlugin};

use super::bench::{Bench, at_least, ensure, ms};

const KEYS: usize = 2;

/// Renewals of each hold.
const RENEWALS: usize = 2;

/// Between two calls of a thread that did not get the lock, and between two of one that holds it: a
/// plugin without a backend answers so fast that the others would never find a lock held.
const PAUSE: Duration = Duration::from_millis(1);

/// Error texts that are kept.
const ERRORS_MAX: usize = 20;

pub(super) struct Contest<'a> {
    bench: &'a Bench<'a>,
    ttl: Duration,
    keys: Vec<Contested>,
    over: AtomicBool,
    errors: Mutex<Vec<String>>,
    wrong: Mutex<Option<String>>,
}

/// One key.
struct Contested {
    key: String,
    grants: AtomicUsize,
    sure: Mutex<Vec<Sure>>,
    /// What the lock protects: takes a token only if it is not lower than the highest so far.
    register: Mutex<u64>,
}

/// A time in which a thread was sure to hold the key.
#[derive(Debug, Clone, Copy)]
struct Sure {
    from: Instant,
    until: Instant,
    token: Option<u64>,
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Contest<'a> {
    pub(super) fn new(bench: &'a Bench<'a>, ttl: Duration) -> Self {
        let contested = |_| Contested {
            key: bench.key("contested"),
            grants: AtomicUsize::new(0),
            sure: Mutex::new(Vec::new()),
            register: Mutex::new(0),
        };
        Self {
            bench,
            ttl,
            keys: (0..KEYS).map(contested).collect(),
            over: AtomicBool::new(false),
            errors: Mutex::new(Vec::new()),
            wrong: Mutex::new(None),
        }
    }

    /// The first calls that failed.
    pub(super) fn errors(&self) -> Vec<String> {
        guard(&self.errors).clone()
    }

    /// Lets the threads contest until each key was granted so often, disturbs them, and waits until
    /// it was granted as often again.
    pub(super) fn run(&self, grants: usize, disturb: impl Fn()) -> Result<(), String> {
        let waited = thread::scope(|scope| {
            for number in 0..self.bench.threads {
                scope.spawn(move || self.compete(number));
            }
            // Also if the disturbance panics: the threads are waited for in any case.
            let _over = Over(&self.over);
            self.until_granted(grants)?;
            disturb();
            self.until_granted(grants)
        });
        if let Some(wrong) = guard(&self.wrong).take() {
            return Err(wrong);
        }
        waited.map_err(|problem| {
            let errors = self.errors();
            let last = errors.last().map_or("none", String::as_str);
            format!("{problem}; the last error of a call: {last}")
        })?;
        self.keys.iter().try_for_each(Contested::check)
    }

    fn until_granted(&self, more: usize) -> Result<(), String> {
        let now = |contested: &Contested| contested.grants.load(Ordering::Relaxed);
        let wanted: Vec<usize> = self.keys.iter().map(|it| now(it) + more).collect();
        let what = format!("{more} more grants of each of {KEYS} keys");
        self.bench.until(what, || {
            let mut both = self.keys.iter().zip(&wanted);
            let enough = both.all(|(contested, wanted)| now(contested) >= *wanted);
            let stop = guard(&self.wrong).is_some();
            Ok((enough || stop).then_some(()))
        })
    }

    fn compete(&self, number: usize) {
        let plugins = [&self.bench.ours, &self.bench.theirs];
        let plugin = &**plugins[number % 2];
        let mut round = number;
        while !self.over.load(Ordering::Relaxed) {
            round += 1;
            let contested = &self.keys[round % KEYS];
            let asked_at = Instant::now();
            match plugin.try_lock(&contested.key, ms(self.ttl)) {
                Ok(Some(handle)) => self.hold(plugin, contested, handle, asked_at),
                Ok(None) => thread::sleep(PAUSE),
                Err(words) => {
                    self.note(words);
                    thread::sleep(PAUSE);
                }
            }
        }
    }

    fn note(&self, words: String) {
        let mut errors = guard(&self.errors);
        if errors.len() < ERRORS_MAX {
            errors.push(words);
        }
    }

    fn hold(
        &self,
        plugin: &dyn LockingPlugin,
        contested: &Contested,
        handle: LockHandle,
        asked_at: Instant,
    ) {
        let from = Instant::now();
        let token = self.bench.token(&handle);
        let mut sure_until = asked_at + at_least(self.ttl);
        for _ in 0..RENEWALS {
            self.write(contested, token, sure_until);
            thread::sleep(PAUSE);
            let asked_at = Instant::now();
            match plugin.renew(&handle) {
                Ok(()) => sure_until = sure_until.max(asked_at + at_least(self.ttl)),
                Err(words) => {
                    self.note(words);
                    break;
                }
            }
        }
        self.write(contested, token, sure_until);
        let until = sure_until.min(Instant::now());
        if from < until {
            guard(&contested.sure).push(Sure { from, until, token });
        }
        contested.grants.fetch_add(1, Ordering::Relaxed);
        if let Err(words) = plugin.release(handle) {
            self.note(words);
        }
    }

    /// Writes under the token. One who is sure to hold the lock must not be refused.
    fn write(&self, contested: &Contested, token: Option<u64>, sure_until: Instant) {
        let Some(token) = token else { return };
        let mut highest = guard(&contested.register);
        let refused = token < *highest;
        if refused && Instant::now() < sure_until {
            let words = format!(
                "a write under token {token} came after one under {highest}, while its lock was \
                 held"
            );
            guard(&self.wrong).get_or_insert(words);
        }
        *highest = token.max(*highest);
    }
}

/// Ends the contest when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Contested {
    /// No two times overlap, and tokens grow from one to the next.
    fn check(&self) -> Result<(), String> {
        let mut times = guard(&self.sure).clone();
        times.sort_by_key(|sure| sure.from);
        for pair in times.windows(2) {
            let [one, next] = pair else { continue };
            ensure!(
                one.until <= next.from,
                "two held {:?} at once, for {:?}: {one:?} and {next:?}",
                self.key,
                one.until.min(next.until) - next.from
            );
            ensure!(
                one.token.is_none() || one.token < next.token,
                "{:?} was granted under token {:?} and then under {:?}",
                self.key,
                one.token,
                next.token
            );
        }
        Ok(())
    }
}
