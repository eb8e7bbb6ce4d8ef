//! A wrong state is built anew of another member's snapshot and this node's own log.

use openraft::type_config::TypeConfigExt;

use super::snapshots::transfer;
use super::*;
use crate::raft::Flushed;
use crate::storage::log::{LogOptions, LogStore};

/// A log with these entries.
async fn log_of(temp: &TempDir, entries: Vec<Entry>) -> LogStore {
    let (dir, acked) = (temp.path().join("log"), temp.path().join("acked"));
    let mut log = LogStore::open(&dir, &acked, &LogOptions::default()).unwrap();
    let (done, wait) = TypeConfig::oneshot();
    log.append(entries, Flushed::signal(done)).await.unwrap();
    wait.await.unwrap().unwrap();
    log
}

/// Entries up to 199; at 190 a digest is recorded.
fn history() -> Vec<Entry> {
    let mut all = claims(1..200);
    all[189] = entry_of(190, &cluster::RecordDigest {}.into());
    all
}

/// The same with another command at 100.
fn history_with_a_fault() -> Vec<Entry> {
    let mut all = history();
    all[99] = entry_of(100, &claim(777));
    all
}

#[tokio::test]
async fn it_is_what_the_log_leads_to_and_no_snapshot_of_the_wrong_one_is_left() {
    let (right, wrong, log_home) = (Home::new(), Home::new(), TempDir::new().unwrap());
    let mut source = right.open();
    apply(&mut source, history()[..150].to_vec()).await;
    let snapshot = build(&mut source).await.snapshot;
    apply(&mut source, history()[150..].to_vec()).await;

    let mut target = wrong.open();
    apply(&mut target, history_with_a_fault()).await;
    build(&mut target).await;
    assert_ne!(rows(&target), rows(&source));
    assert_ne!(target.reader().digests(), source.reader().digests());

    let log = log_of(&log_home, history()).await;
    let received = transfer(&snapshot, &target);
    let reached = target.reader().rebuild(&received, &log.reader()).unwrap();
    drop(received);
    assert_eq!(reached, 199);
    assert_like_model(&target, &history());
    assert_eq!(target.reader().digests(), source.reader().digests());
    assert_eq!(wrong.names("snapshots"), ["199-1"]);

    // Raft goes on as if nothing had been.
    apply(&mut target, claims(200..250)).await;
    let all = [history(), claims(200..250)].concat();
    assert_like_model(&target, &all);
    drop(target);
    assert_like_model(&wrong.open(), &all);
    assert_eq!(wrong.names("."), ["current", "snapshots", "state-2"]);
    let made = wrong.open().reader().snapshot().unwrap();
    let rows_of_it = offline::Rows::of_snapshot(&made).unwrap();
    rows_of_it.facts().unwrap().check(made.path()).unwrap();
}

#[tokio::test]
async fn without_the_entries_between_snapshot_and_state_all_stays_as_it_was() {
    let (right, wrong, log_home) = (Home::new(), Home::new(), TempDir::new().unwrap());
    let mut source = right.open();
    apply(&mut source, history()[..150].to_vec()).await;
    let snapshot = build(&mut source).await.snapshot;

    let mut target = wrong.open();
    apply(&mut target, history_with_a_fault()).await;
    build(&mut target).await;
    let before = rows(&target);
    let log = log_of(&log_home, history()[..180].to_vec()).await;
    let received = transfer(&snapshot, &target);
    let error = target.reader().rebuild(&received, &log.reader());
    let error = error.unwrap_err().to_string();
    assert!(error.contains("no longer has entry 181"), "{error}");
    drop(received);
    assert_eq!(rows(&target), before);
    assert_eq!(wrong.names("snapshots"), ["199-1"]);
    assert_eq!(wrong.names("."), ["current", "snapshots", "state-1"]);
}
