//! Locking, contention, release and cleanup, without any time passing.

use std::sync::Arc;

use bext_plugin_api::locking::LockHandle;

use super::bench::{
    Bench, Check, LONG, ensure, ensure_not_renewed, ensure_taken, lock, ms, release, renew,
};

pub(super) const CHECKS: &[(&str, Check)] = &[
    ("a_free_lock_is_granted_and_its_handle_says_what", free),
    ("a_taken_lock_is_contention_and_no_error", taken),
    ("a_released_lock_is_free_at_once", released),
    ("a_released_lock_cannot_be_renewed", released_is_lost),
    ("a_repeated_release_is_a_silent_no_op", repeated_release),
    ("a_made_up_lock_id_renews_and_frees_nothing", made_up_id),
    ("a_lock_id_is_good_for_its_own_key_only", id_of_another_key),
    ("a_handle_survives_json", json),
    ("tokens_grow_from_grant_to_grant", tokens),
    ("cleanup_frees_everything_that_the_plugin_holds", cleanup),
];

fn free(bench: &Bench) -> Result<(), String> {
    ensure!(!bench.ours.name().is_empty(), "the plugin has no name");
    let key = bench.key("free");
    let handle = lock(&*bench.ours, &key, LONG)?;
    ensure!(handle.key == key, "the handle's key is {:?}", handle.key);
    ensure!(
        handle.ttl_ms == ms(LONG),
        "the handle's TTL is {} ms, asked for {}",
        handle.ttl_ms,
        ms(LONG)
    );
    ensure!(!handle.lock_id.is_empty(), "the handle has no lock id");
    let first = handle.lock_id.clone();
    release(&*bench.ours, handle)?;
    let handle = lock(&*bench.ours, &key, LONG)?;
    ensure!(handle.lock_id != first, "two grants have one lock id");
    release(&*bench.ours, handle)
}

fn taken(bench: &Bench) -> Result<(), String> {
    let key = bench.key("taken");
    let handle = lock(&*bench.ours, &key, LONG)?;
    ensure_taken(&*bench.theirs, &key)?;
    // The host's threads share one plugin: they exclude each other as two hosts do.
    ensure_taken(&*bench.ours, &key)?;
    renew(&*bench.ours, &handle)?;
    ensure_taken(&*bench.theirs, &key)?;
    release(&*bench.ours, handle)
}

fn released(bench: &Bench) -> Result<(), String> {
    let key = bench.key("released");
    for _ in 0..10 {
        for plugin in [&bench.ours, &bench.theirs] {
            let handle = lock(&**plugin, &key, LONG)?;
            release(&**plugin, handle)?;
        }
    }
    Ok(())
}

fn released_is_lost(bench: &Bench) -> Result<(), String> {
    let key = bench.key("released-is-lost");
    let old = lock(&*bench.ours, &key, LONG)?;
    release(&*bench.ours, old.clone())?;
    ensure_not_renewed(&*bench.ours, &old, "was released")?;
    let new = lock(&*bench.theirs, &key, LONG)?;
    ensure_not_renewed(&*bench.ours, &old, "was released and taken by another")?;
    renew(&*bench.theirs, &new)?;
    release(&*bench.theirs, new)
}

fn repeated_release(bench: &Bench) -> Result<(), String> {
    let key = bench.key("repeated-release");
    let old = lock(&*bench.ours, &key, LONG)?;
    release(&*bench.ours, old.clone())?;
    release(&*bench.ours, old.clone())?;
    let new = lock(&*bench.theirs, &key, LONG)?;
    release(&*bench.ours, old.clone())?;
    ensure_taken(&*bench.ours, &key)?;
    renew(&*bench.theirs, &new)?;
    release(&*bench.theirs, new)?;
    release(&*bench.ours, old)
}

fn made_up_id(bench: &Bench) -> Result<(), String> {
    let key = bench.key("made-up");
    let handle = lock(&*bench.ours, &key, LONG)?;
    for lock_id in ["", "no-lock-id", "00000000-0000-4000-8000-000000000000"] {
        let forged = LockHandle {
            lock_id: lock_id.to_owned(),
            ..handle.clone()
        };
        ensure_not_renewed(&*bench.theirs, &forged, "nobody was ever granted")?;
        release(&*bench.theirs, forged)?;
    }
    ensure_taken(&*bench.theirs, &key)?;
    renew(&*bench.ours, &handle)?;
    release(&*bench.ours, handle)
}

fn id_of_another_key(bench: &Bench) -> Result<(), String> {
    let (one, two) = (bench.key("one"), bench.key("two"));
    let first = lock(&*bench.ours, &one, LONG)?;
    let second = lock(&*bench.theirs, &two, LONG)?;
    let crossed = LockHandle {
        key: two.clone(),
        ..first.clone()
    };
    ensure_not_renewed(&*bench.ours, &crossed, "has another key")?;
    release(&*bench.ours, crossed)?;
    ensure_taken(&*bench.ours, &two)?;
    ensure_taken(&*bench.theirs, &one)?;
    renew(&*bench.theirs, &second)?;
    release(&*bench.theirs, second)?;
    release(&*bench.ours, first)
}

fn json(bench: &Bench) -> Result<(), String> {
    let key = bench.key("json-\"quoted\"-ключ");
    let handle = lock(&*bench.ours, &key, LONG)?;
    let text = serde_json::to_string(&handle).map_err(|error| error.to_string())?;
    let read: LockHandle = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    ensure!(read == handle, "{read:?} was read from {text}");
    renew(&*bench.ours, &read)?;
    release(&*bench.ours, read)?;
    let handle = lock(&*bench.theirs, &key, LONG)?;
    release(&*bench.theirs, handle)
}

/// Nothing to see for a plugin that has no tokens.
fn tokens(bench: &Bench) -> Result<(), String> {
    let key = bench.key("tokens");
    let mut last = None;
    for plugin in [&bench.ours, &bench.theirs, &bench.ours] {
        let handle = lock(&**plugin, &key, LONG)?;
        let token = bench.token(&handle);
        ensure!(
            last.is_none() || token > last,
            "token {token:?} was granted after {last:?}"
        );
        renew(&**plugin, &handle)?;
        release(&**plugin, handle)?;
        last = token;
    }
    Ok(())
}

fn cleanup(bench: &Bench) -> Result<(), String> {
    let plugin = bench.another();
    let keys: Vec<String> = (0..20).map(|_| bench.key("cleanup")).collect();
    let mut handles = Vec::new();
    for key in &keys {
        handles.push(lock(&*plugin, key, LONG)?);
    }
    if let Some(handle) = handles.pop() {
        release(&*plugin, handle)?;
    }
    let other = bench.key("cleanup-of-another");
    let others = lock(&*bench.theirs, &other, LONG)?;
    let cleaned = plugin.cleanup();
    cleaned.map_err(|error| format!("cleanup failed: {error}"))?;
    for key in &keys {
        let handle = lock(&*bench.ours, key, LONG)?;
        release(&*bench.ours, handle)?;
    }
    if !Arc::ptr_eq(&plugin, &bench.theirs) {
        ensure_taken(&*bench.ours, &other)?;
    }
    release(&*bench.theirs, others)?;
    let again = plugin.cleanup();
    again.map_err(|error| format!("a repeated cleanup failed: {error}"))
}
