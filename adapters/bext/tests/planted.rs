//! The suite on a plugin in memory: it passes when it is right, and with each planted mistake it
//! fails in the situation that is there to find it. A suite counts only after that.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use bext_plugin_api::locking::{LockHandle, LockingPlugin};
use quorate_bext::conformance::{Conformance, Outcome};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mistake {
    None,
    LetsASecondIn,
    LooksThenTakes,
    ContentionIsAnError,
    NeverExpires,
    ExpiresEarly,
    RenewalDoesNothing,
    RenewalOfTheLostSucceeds,
    RenewalTakesBack,
    ReleaseDoesNotCheck,
    SecondReleaseFails,
    FoldsCase,
    CleanupForgets,
    FailsWithoutAWord,
    Panics,
    BlocksOnItsRuntime,
    TokensGoBack,
    HurtsWhenDisturbed,
}

/// What the hosts share.
struct Backend {
    mistake: Mistake,
    held: Mutex<HashMap<String, Held>>,
    grants: AtomicU64,
    is_disturbed: Mutex<bool>,
}

#[derive(Clone)]
struct Held {
    lock_id: String,
    host: u64,
    until: Instant,
}

struct Memory {
    backend: Arc<Backend>,
    host: u64,
}

impl Memory {
    fn has(&self, mistake: Mistake) -> bool {
        self.backend.mistake == mistake
    }

    fn held(&self) -> MutexGuard<'_, HashMap<String, Held>> {
        self.backend
            .held
            .lock()
            .expect("nothing panics while it holds it")
    }

    fn name_of(&self, key: &str) -> String {
        match self.has(Mistake::FoldsCase) {
            true => key.to_lowercase(),
            false => key.to_owned(),
        }
    }

    fn until(&self, ttl_ms: u64) -> Instant {
        let ttl = Duration::from_millis(ttl_ms.min(86_400_000));
        let ttl = match self.backend.mistake {
            Mistake::NeverExpires => Duration::from_secs(86_400),
            Mistake::ExpiresEarly => ttl / 2,
            _ => ttl,
        };
        Instant::now() + ttl
    }

    fn token(&self) -> u64 {
        let grant = self.backend.grants.fetch_add(1, Ordering::Relaxed) + 1;
        match self.has(Mistake::TokensGoBack) {
            true => u64::MAX - grant,
            false => grant,
        }
    }

    fn is_taken(&self, held: &HashMap<String, Held>, name: &str) -> bool {
        let live = |held: &Held| Instant::now() < held.until;
        let second = self.has(Mistake::LetsASecondIn)
            || self.has(Mistake::HurtsWhenDisturbed)
                && *self.backend.is_disturbed.lock().expect("no panic");
        !second && held.get(name).is_some_and(live)
    }
}

impl LockingPlugin for Memory {
    fn name(&self) -> &str {
        "memory"
    }

    fn try_lock(&self, key: &str, ttl_ms: u64) -> Result<Option<LockHandle>, String> {
        match self.backend.mistake {
            Mistake::BlocksOnItsRuntime => {
                let runtime = tokio::runtime::Builder::new_current_thread().build();
                runtime.expect("a runtime").block_on(async {});
            }
            Mistake::Panics if key.is_empty() => panic!("the key is empty"),
            Mistake::FailsWithoutAWord if ttl_ms == 0 => return Err(String::new()),
            _ => {}
        }
        let name = self.name_of(key);
        let mut held = self.held();
        if self.is_taken(&held, &name) {
            return match self.has(Mistake::ContentionIsAnError) {
                true => Err("taken".to_owned()),
                false => Ok(None),
            };
        }
        if self.has(Mistake::LooksThenTakes) {
            drop(held);
            // As long as a round trip to a backend takes.
            thread::sleep(Duration::from_millis(1));
            held = self.held();
        }
        let lock_id = format!("{}-{}", self.host, self.token());
        let new = Held {
            lock_id: lock_id.clone(),
            host: self.host,
            until: self.until(ttl_ms),
        };
        held.insert(name, new);
        Ok(Some(LockHandle {
            key: key.to_owned(),
            lock_id,
            ttl_ms,
        }))
    }

    fn renew(&self, handle: &LockHandle) -> Result<(), String> {
        let until = self.until(handle.ttl_ms);
        let mut held = self.held();
        let lost = match held.get_mut(&self.name_of(&handle.key)) {
            Some(held) if held.lock_id == handle.lock_id && Instant::now() < held.until => {
                if !self.has(Mistake::RenewalDoesNothing) {
                    held.until = until;
                }
                return Ok(());
            }
            Some(held) => held,
            None if self.has(Mistake::RenewalOfTheLostSucceeds) => return Ok(()),
            None => return Err("nobody holds it".to_owned()),
        };
        match self.backend.mistake {
            Mistake::RenewalOfTheLostSucceeds => Ok(()),
            Mistake::RenewalTakesBack => {
                lost.lock_id.clone_from(&handle.lock_id);
                lost.until = until;
                Err("it was lost".to_owned())
            }
            _ => Err("it was lost".to_owned()),
        }
    }

    fn release(&self, handle: LockHandle) -> Result<(), String> {
        let name = self.name_of(&handle.key);
        let mut held = self.held();
        let own = |held: &Held| held.lock_id == handle.lock_id;
        if held.get(&name).is_some_and(own) || self.has(Mistake::ReleaseDoesNotCheck) {
            held.remove(&name);
        } else if self.has(Mistake::SecondReleaseFails) {
            return Err("it is not held".to_owned());
        }
        Ok(())
    }

    fn cleanup(&self) -> Result<(), String> {
        if !self.has(Mistake::CleanupForgets) {
            self.held().retain(|_, held| held.host != self.host);
        }
        Ok(())
    }
}

fn token(handle: &LockHandle) -> Option<u64> {
    handle.lock_id.split_once('-')?.1.parse().ok()
}

fn suite(mistake: Mistake) -> Conformance {
    let backend = Arc::new(Backend {
        mistake,
        held: Mutex::default(),
        grants: AtomicU64::new(0),
        is_disturbed: Mutex::new(false),
    });
    let (hosts, hurt) = (AtomicU64::new(0), Arc::clone(&backend));
    let make = move || -> Arc<dyn LockingPlugin> {
        Arc::new(Memory {
            backend: Arc::clone(&backend),
            host: hosts.fetch_add(1, Ordering::Relaxed),
        })
    };
    Conformance::new(make)
        .fencing_token(token)
        .disturbance(move || *hurt.is_disturbed.lock().expect("no panic") = true)
        .threads(4)
        .ttl(Duration::from_millis(200))
}

fn failures(mistake: Mistake) -> Vec<Outcome> {
    let outcomes = suite(mistake).patience(Duration::from_secs(3)).outcomes();
    assert!(outcomes.len() > 20, "{outcomes:?}");
    let failed = outcomes.into_iter().filter(|it| it.result.is_err());
    failed.collect()
}

#[test]
fn a_right_plugin_passes() {
    suite(Mistake::None).run();
}

#[test]
#[should_panic(expected = "a_taken_lock_is_contention_and_no_error")]
fn a_wrong_plugin_is_told_the_situation() {
    suite(Mistake::LetsASecondIn)
        .patience(Duration::from_secs(3))
        .run();
}

/// Asserts that each situation is among those in which the suite fails.
fn caught(mistake: Mistake, by: &[&str]) {
    let failed = failures(mistake);
    for situation in by {
        assert!(
            failed.iter().any(|outcome| outcome.situation == *situation),
            "{mistake:?} was not caught by {situation}: {failed:#?}"
        );
    }
}

#[test]
fn two_holders_at_once_are_caught() {
    let together = "threads_never_hold_a_lock_together";
    caught(
        Mistake::LetsASecondIn,
        &[together, "one_of_many_threads_wins_a_race"],
    );
    caught(Mistake::LooksThenTakes, &[together]);
    let hurt = "a_backend_that_is_hurt_never_lets_two_in_and_recovers";
    caught(Mistake::HurtsWhenDisturbed, &[hurt]);
}

#[test]
fn wrong_answers_are_caught() {
    caught(
        Mistake::ContentionIsAnError,
        &["a_taken_lock_is_contention_and_no_error"],
    );
    caught(
        Mistake::SecondReleaseFails,
        &["a_repeated_release_is_a_silent_no_op"],
    );
    let nonsense = "arguments_that_make_no_sense_are_survived";
    caught(Mistake::FailsWithoutAWord, &[nonsense]);
    caught(Mistake::Panics, &[nonsense]);
    caught(Mistake::TokensGoBack, &["tokens_grow_from_grant_to_grant"]);
}

#[test]
fn wrong_times_are_caught() {
    let ends = "a_lock_ends_with_its_ttl_and_not_before";
    caught(Mistake::NeverExpires, &[ends]);
    caught(Mistake::ExpiresEarly, &[ends]);
    caught(
        Mistake::RenewalDoesNothing,
        &["a_renewal_starts_the_ttl_anew"],
    );
}

#[test]
fn stale_callers_that_do_harm_are_caught() {
    let lost = [
        "an_expired_lock_cannot_be_renewed",
        "a_released_lock_cannot_be_renewed",
    ];
    caught(Mistake::RenewalOfTheLostSucceeds, &lost);
    let taken_back = "a_lost_lock_is_not_taken_back_by_a_renewal";
    caught(Mistake::RenewalTakesBack, &[taken_back]);
    let stale = ["a_stale_release_leaves_the_newer_holder_alone"];
    caught(Mistake::ReleaseDoesNotCheck, &stale);
}

#[test]
fn other_mistakes_are_caught() {
    caught(
        Mistake::FoldsCase,
        &["keys_that_look_alike_are_different_locks"],
    );
    caught(
        Mistake::CleanupForgets,
        &["cleanup_frees_everything_that_the_plugin_holds"],
    );
    caught(
        Mistake::BlocksOnItsRuntime,
        &[
            "a_current_thread_runtime_may_call",
            "a_local_task_may_call",
            "a_multi_threaded_runtime_may_call_from_more_tasks_than_workers",
            "a_plugin_may_be_made_and_dropped_inside_a_runtime",
        ],
    );
}
