//! Seeds that have found something. What clients do may have changed since: then a seed shows less
//! than it once did, and still has to pass.
#![allow(clippy::unwrap_used, reason = "here it fails the test")]

use std::process::Command;

fn passes(seed: &str) {
    let mut sim = Command::new(env!("CARGO_BIN_EXE_quorate-sim"));
    let ran = sim.args(["--seed", seed]).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{said}");
}

#[test]
fn a_state_ahead_of_its_log_has_a_snapshot() {
    passes("9");
    passes("29");
}

#[test]
fn a_refused_snapshot_is_looked_over_on_the_disk_that_it_is_on() {
    passes("16");
}

#[test]
fn an_invitation_that_was_given_up_is_followed() {
    passes("18");
}

#[test]
fn a_claim_that_nobody_knows_of_is_no_riddle() {
    for seed in ["5", "47", "54", "65", "181"] {
        passes(seed);
    }
}

#[test]
fn a_node_whose_disk_fails_while_it_becomes_a_member_stops() {
    passes("505");
    passes("785");
}
