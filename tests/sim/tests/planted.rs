//! The harness proves itself: a bug that is planted is caught, and a seed gives one trace.
#![allow(clippy::unwrap_used, reason = "here it fails the test")]

use std::process::Command;

/// A bug must be found within so many seeds.
const SEEDS: u64 = 12;

fn sim(args: &[&str]) -> (bool, String) {
    let ran = Command::new(env!("CARGO_BIN_EXE_quorate-sim"))
        .args(args)
        .output()
        .unwrap();
    (
        ran.status.success(),
        String::from_utf8_lossy(&ran.stdout).into_owned(),
    )
}

fn caught(planted: &str, words: &str) {
    for seed in 1..=SEEDS {
        let (good, said) = sim(&["--seed", &seed.to_string(), "--planted", planted]);
        if !good && said.contains("VIOLATED") && said.contains(words) {
            return;
        }
    }
    panic!("{planted} was not found in {SEEDS} seeds");
}

#[test]
fn an_answer_before_the_sync_is_caught() {
    // The log's own guard may see it at the next start, or what was acknowledged is gone.
    caught("ack-before-sync", "");
}

#[test]
fn a_resource_without_a_fence_is_caught() {
    caught("no-fence", "behind token");
}

#[test]
fn a_client_that_believes_too_long_is_caught() {
    caught("late-deadline", "was turned away");
}

#[test]
fn a_lease_that_is_gone_is_caught() {
    caught("lost-key", "lost: ");
}

#[test]
fn tokens_that_begin_again_are_caught() {
    caught("token-reuse", "was asked for after");
}

#[test]
fn a_cancel_that_is_lost_is_caught() {
    caught("lost-cancel", "was leaked");
}

#[test]
fn a_read_of_any_node_is_caught() {
    caught("stale-read", "Read {");
}

#[test]
fn a_push_that_is_taken_for_done_is_caught() {
    caught("ack-unknown", "is lost");
}

#[test]
fn a_settlement_that_was_refused_is_caught() {
    caught("settle-believed", "settled");
}

#[test]
fn a_retry_without_a_key_is_caught() {
    caught("unkeyed-retry", "stored twice");
}

#[test]
fn time_by_a_local_clock_is_caught() {
    caught("local-clock", "ended early");
}

#[test]
fn time_that_is_not_held_back_is_caught() {
    // Clocks are only set back here: what ends early ends because time has come back to normal.
    caught("unclamped", "ended early");
}

#[test]
fn a_read_ahead_of_entries_on_their_way_is_caught() {
    caught("reads-by-clock", "leases: ");
}

#[test]
fn an_apply_that_reads_hash_order_is_caught() {
    caught("hash-order", "has digest");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let (good, said) = sim(&["--seed", "3", "--twice"]);
    assert!(good && said.contains("the same twice"), "{said}");
}
