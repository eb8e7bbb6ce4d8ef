//! What a TTL does, on the backend's own clock.

use std::thread;
use std::time::Instant;

use super::bench::{
    Bench, Check, LONG, at_least, ensure, ensure_not_renewed, ensure_taken, lock, release, renew,
    try_lock,
};

pub(super) const CHECKS: &[(&str, Check)] = &[
    ("a_lock_ends_with_its_ttl_and_not_before", ends),
    ("a_renewal_starts_the_ttl_anew", renewed),
    ("an_expired_lock_cannot_be_renewed", expired_is_lost),
    ("a_lost_lock_is_not_taken_back_by_a_renewal", no_taking_back),
    (
        "a_stale_release_leaves_the_newer_holder_alone",
        stale_release,
    ),
];

/// Tries of a check that a machine which stands still for a TTL spoils.
const TRIES: u32 = 10;

fn ends(bench: &Bench) -> Result<(), String> {
    let key = bench.key("ends");
    let asked_at = Instant::now();
    let _lost = lock(&*bench.ours, &key, bench.ttl)?;
    let next = bench.until_locked(&*bench.theirs, &key, LONG)?;
    let after = asked_at.elapsed();
    ensure!(
        after >= at_least(bench.ttl),
        "a lock with a TTL of {:?} was given to another after {after:?}",
        bench.ttl
    );
    release(&*bench.theirs, next)
}

fn renewed(bench: &Bench) -> Result<(), String> {
    for _ in 0..TRIES {
        if renewed_in_time(bench)? {
            return Ok(());
        }
    }
    Err(format!(
        "the machine stood still for {:?} in each of {TRIES} tries, so nothing is known; use a \
         longer TTL",
        bench.ttl
    ))
}

/// Keeps a lock for three TTLs. False if this thread was held up, so that the lock may have ended.
fn renewed_in_time(bench: &Bench) -> Result<bool, String> {
    let key = bench.key("renewed");
    let began = Instant::now();
    let handle = lock(&*bench.ours, &key, bench.ttl)?;
    let mut kept_at = began;
    while began.elapsed() < bench.ttl * 3 {
        thread::sleep(bench.ttl / 20);
        let contended = try_lock(&*bench.theirs, &key, LONG)?;
        if kept_at.elapsed() >= at_least(bench.ttl) {
            return Ok(false);
        }
        ensure!(
            contended.is_none(),
            "a lock that is kept was given to another"
        );
        let asked_at = Instant::now();
        let renewed = renew(&*bench.ours, &handle);
        if kept_at.elapsed() >= at_least(bench.ttl) {
            return Ok(false);
        }
        renewed?;
        kept_at = asked_at;
    }
    let next = bench.until_locked(&*bench.theirs, &key, LONG)?;
    let after = kept_at.elapsed();
    ensure!(
        after >= at_least(bench.ttl),
        "a lock with a TTL of {:?} was given to another {after:?} after its renewal",
        bench.ttl
    );
    release(&*bench.theirs, next)?;
    Ok(true)
}

fn expired_is_lost(bench: &Bench) -> Result<(), String> {
    let key = bench.key("expired");
    let handle = lock(&*bench.ours, &key, bench.ttl)?;
    // Free, and nobody has it now: a renewal must not bring it back.
    let next = bench.until_locked(&*bench.theirs, &key, LONG)?;
    release(&*bench.theirs, next)?;
    ensure_not_renewed(&*bench.ours, &handle, "has expired")?;
    let next = lock(&*bench.theirs, &key, LONG)?;
    release(&*bench.theirs, next)?;
    release(&*bench.ours, handle)
}

fn no_taking_back(bench: &Bench) -> Result<(), String> {
    let key = bench.key("taken-over");
    let old = lock(&*bench.ours, &key, bench.ttl)?;
    let new = bench.until_locked(&*bench.theirs, &key, LONG)?;
    ensure_not_renewed(&*bench.ours, &old, "another has by now")?;
    ensure_taken(&*bench.ours, &key)?;
    renew(&*bench.theirs, &new)?;
    release(&*bench.theirs, new)
}

fn stale_release(bench: &Bench) -> Result<(), String> {
    let key = bench.key("stale-release");
    let old = lock(&*bench.ours, &key, bench.ttl)?;
    let new = bench.until_locked(&*bench.theirs, &key, LONG)?;
    release(&*bench.ours, old)?;
    ensure_taken(&*bench.ours, &key)?;
    renew(&*bench.theirs, &new)?;
    release(&*bench.theirs, new)
}
