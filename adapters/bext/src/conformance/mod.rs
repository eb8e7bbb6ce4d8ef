//! What every `LockingPlugin` has to do, as a suite that any implementer can run.
//!
//! ```no_run
//! use std::sync::Arc;
//! use bext_plugin_api::LockingPlugin;
//! use quorate_bext::conformance;
//!
//! # fn connect_to_my_backend() -> Arc<dyn LockingPlugin> { unimplemented!() }
//! #[test]
//! fn my_plugin_conforms() {
//!     conformance::run(connect_to_my_backend);
//! }
//! ```
//!
//! The function that makes a plugin is called several times: each call stands for another host of
//! the same backend. A backend that lives in the plugin may hand out the same one each time.
//!
//! Some situations wait for a TTL to pass on the backend's own clock; that takes a few seconds
//! with the default options. Keys begin with `conformance/` and a text that is new in each run, and
//! whatever was locked is released again, so that a backend in use may be tried too.
//!
//! # What is asked for
//!
//! What the trait's documentation says, and that `cleanup` frees what its plugin holds. A TTL may
//! be measured by a clock that runs up to a tenth fast; no lock may end earlier than that. With
//! [`Conformance::fencing_token`] tokens must grow with every grant of a key. With
//! [`Conformance::disturbance`] the promises are also watched while the backend is hurt.

mod arguments;
mod bench;
mod contest;
mod expiry;
mod holding;
mod runtimes;
mod threads;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bext_plugin_api::locking::{LockHandle, LockingPlugin};

use bench::Bench;

/// Runs the suite with its default options.
///
/// # Panics
///
/// If the plugin fails in a situation; the message names each of them and says what was seen.
pub fn run(make: impl Fn() -> Arc<dyn LockingPlugin> + Send + Sync + 'static) {
    Conformance::new(make).run();
}

/// Makes a plugin.
pub(crate) type Make = Box<dyn Fn() -> Arc<dyn LockingPlugin> + Send + Sync>;

/// Reads the fencing token of a handle.
pub(crate) type TokenOf = Box<dyn Fn(&LockHandle) -> Option<u64> + Send + Sync>;

/// The suite with its options.
pub struct Conformance {
    make: Make,
    token: Option<TokenOf>,
    disturbance: Option<Box<dyn Fn()>>,
    ttl: Duration,
    patience: Duration,
    threads: usize,
}

/// How the plugin did in one situation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The situation.
    pub situation: &'static str,
    /// Nothing, or what was seen that should not have been.
    pub result: Result<(), String>,
}

impl Conformance {
    /// The suite for plugins that `make` makes: one host of the same backend with each call.
    #[must_use]
    pub fn new(make: impl Fn() -> Arc<dyn LockingPlugin> + Send + Sync + 'static) -> Self {
        Self {
            make: Box::new(make),
            token: None,
            disturbance: None,
            ttl: Duration::from_secs(1),
            patience: Duration::from_secs(60),
            threads: 8,
        }
    }

    /// Where a handle has its fencing token, for backends that have one.
    #[must_use]
    pub fn fencing_token(
        mut self,
        of: impl Fn(&LockHandle) -> Option<u64> + Send + Sync + 'static,
    ) -> Self {
        self.token = Some(Box::new(of));
        self
    }

    /// Hurts the backend, and returns when it can work again: kills its leader, cuts a connection.
    /// Called once, while threads lock, renew and release. Until it returns calls may fail; what
    /// they may never do is to let two in at once.
    #[must_use]
    pub fn disturbance(mut self, hurt: impl Fn() + 'static) -> Self {
        self.disturbance = Some(Box::new(hurt));
        self
    }

    /// TTL of locks that are to expire; 1 s if not given. Shorter is faster, and asks for a machine
    /// that does not stand still for so long.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// How long to wait at most for what has to come; 60 s if not given.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// How many threads call at once; 8 if not given.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(2);
        self
    }

    /// Runs all situations.
    ///
    /// # Panics
    ///
    /// If the plugin fails in a situation; the message names each of them and says what was seen.
    pub fn run(&self) {
        let failed: Vec<String> = self
            .outcomes()
            .into_iter()
            .filter_map(|outcome| {
                let problem = outcome.result.err()?;
                Some(format!("{}: {problem}", outcome.situation))
            })
            .collect();
        assert!(
            failed.is_empty(),
            "the plugin fails in {} situations:\n{}",
            failed.len(),
            failed.join("\n")
        );
    }

    /// Runs all situations and says how the plugin did in each.
    #[must_use]
    pub fn outcomes(&self) -> Vec<Outcome> {
        let bench = Bench::new(self);
        let checks = [
            holding::CHECKS,
            expiry::CHECKS,
            arguments::CHECKS,
            threads::CHECKS,
            runtimes::CHECKS,
        ];
        let checks = checks.into_iter().flatten();
        let mut outcomes: Vec<Outcome> = checks
            .map(|(situation, check)| outcome(situation, || bench.check(*check)))
            .collect();
        if let Some(hurt) = &self.disturbance {
            let situation = "a_backend_that_is_hurt_never_lets_two_in_and_recovers";
            outcomes.push(outcome(situation, || threads::disturbed(&bench, hurt)));
        }
        outcomes
    }
}

/// A check that panics has failed: a plugin must not.
fn outcome(situation: &'static str, check: impl FnOnce() -> Result<(), String>) -> Outcome {
    let result = catch_unwind(AssertUnwindSafe(check)).unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().map(String::as_str);
        let words = words.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("panicked: {}", words.unwrap_or("without words")))
    });
    Outcome { situation, result }
}
