//! Kill -9 at any moment: everything acknowledged is there, and the state fits the log.
//!
//! This test binary starts itself again as a child ([`child`]), which appends, applies,
//! truncates, snapshots and purges as fast as it can and says what is durable. The parent kills it
//! at some entry, opens its directory, and compares with a model. Kill keeps the page cache, so
//! this shows the order of writes, not the reach of a sync; for that, [`power`] cuts the disk off.
//!
//! `QUORATE_CRASH_ROUNDS=100` makes it long, `QUORATE_CRASH_SEED` repeats a run.
#![allow(clippy::unwrap_used)]

use std::process::Command as Process;

use openraft::storage::RaftLogReader;

use parent::{Model, check, kill, number, run_child, seed};
use store::{is_right, open};

mod child;
mod parent;
mod power;
mod store;

const DIR: &str = "QUORATE_CRASH_DIR";
const MODE: &str = "QUORATE_CRASH_MODE";

#[tokio::test]
async fn a_killed_node_has_everything_that_it_acknowledged() {
    if std::env::var(DIR).is_ok() {
        return;
    }
    let mut random = seed();
    let temp = tempfile::tempdir().unwrap();
    let mut model = Model::default();
    for round in 0..number("QUORATE_CRASH_ROUNDS", 10) {
        let process = Process::new(std::env::current_exe().unwrap());
        let (mode, lines) = (
            random.below(u64::MAX >> 34).to_string(),
            1 + random.below(400),
        );
        let heard = run_child(process, temp.path(), &mode, lines, kill);
        assert!(
            heard.lines >= lines,
            "round {round}: the child ended by itself, {heard:?}"
        );
        check(temp.path(), &heard, &mut model).await;
    }
}

/// A process in which no file may grow beyond so many KiB. The signal that says so is ignored:
/// writes fail.
fn limited(kib: u32) -> Process {
    let mut process = Process::new("bash");
    let script = format!("trap '' XFSZ; ulimit -f {kib}; exec \"$0\" \"$@\"");
    process
        .args(["-c", &script])
        .arg(std::env::current_exe().unwrap());
    process
}

#[tokio::test]
async fn rows_that_cannot_be_written_stop_the_store_and_leave_an_older_state_whole() {
    if std::env::var(DIR).is_ok() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let heard = run_child(limited(32), temp.path(), "state limit", u64::MAX, kill);
    let failed = heard.failed.as_ref().expect("the child reached the limit");
    // The entry that met the failure is told of it; one that came later, that there was one.
    let told = ["cannot write to", "the store has stopped"];
    assert!(told.iter().any(|words| failed.contains(words)), "{failed}");
    let (_dir, storage) = open(temp.path());
    storage.state.reader().verify().unwrap();
}

#[tokio::test]
async fn a_write_that_fails_stops_the_store_and_loses_nothing_acknowledged() {
    if std::env::var(DIR).is_ok() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let heard = run_child(limited(1024), temp.path(), "limit", u64::MAX, kill);
    let failed = heard.failed.as_ref().expect("the child reached the limit");
    assert!(failed.contains("the store has stopped"), "{failed}");
    assert!(heard.acked > 100, "{heard:?}");
    let (_dir, storage) = open(temp.path());
    let all = storage
        .log
        .reader()
        .try_get_log_entries(1..heard.acked + 1)
        .await
        .unwrap();
    assert_eq!(all.len() as u64, heard.acked);
    assert!(all.iter().all(is_right));
}
