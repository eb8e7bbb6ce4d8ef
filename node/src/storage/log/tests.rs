//! The log: what it keeps, and what damage it notices.
#![allow(clippy::unwrap_used, reason = "here it fails the test")]

use std::fs;
use std::path::{Path, PathBuf};

use openraft::EntryPayload;
use openraft::type_config::TypeConfigExt;
use quorate_statemachine::Timestamp;
use tempfile::TempDir;

use super::*;
use crate::origin::Caller;
use crate::raft::{Proposal, log_id};
use crate::storage::disk::{Batch, Durability};

struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn log(&self) -> PathBuf {
        self.0.path().join("log")
    }

    fn acked(&self) -> PathBuf {
        self.0.path().join("acked")
    }

    fn open(&self) -> LogStore {
        self.try_open().unwrap()
    }

    fn try_open(&self) -> Result<LogStore, StorageError> {
        self.open_with(&LogOptions::default())
    }

    fn open_with(&self, options: &LogOptions) -> Result<LogStore, StorageError> {
        LogStore::open(&self.log(), &self.acked(), options)
    }

    fn refusal(&self) -> String {
        let Err(error) = self.try_open() else {
            panic!("a damaged log was opened");
        };
        let text = error.to_string();
        assert!(
            text.contains("remove this member and add it again with an empty directory"),
            "{text}"
        );
        text
    }

    /// Changes rows behind the back of the log, which must be closed.
    fn change_rows(&self, change: impl FnOnce(&mut Batch)) {
        let db = KeyValue::open(&self.log(), LogOptions::default().tuning()).unwrap();
        let mut batch = db.batch();
        change(&mut batch);
        db.write(batch, Durability::Logged).unwrap();
    }

    /// The write-ahead logs, oldest first.
    fn wals(&self) -> Vec<PathBuf> {
        let mut wals: Vec<PathBuf> = fs::read_dir(self.log())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
            .collect();
        wals.sort();
        wals
    }
}

fn entry(term: u64, index: u64, command: &str) -> Entry {
    Entry {
        log_id: log_id(term, index),
        payload: EntryPayload::Normal(Proposal::new(
            Timestamp(index),
            &Caller::Anonymous.into(),
            command.as_bytes(),
        )),
    }
}

fn entries(term: u64, range: std::ops::Range<u64>) -> Vec<Entry> {
    let command = |index| format!("command {term}/{index}");
    range
        .map(|index| entry(term, index, &command(index)))
        .collect()
}

async fn append(log: &mut LogStore, entries: Vec<Entry>) {
    try_append(log, entries).await.unwrap();
}

async fn try_append(log: &mut LogStore, entries: Vec<Entry>) -> io::Result<()> {
    let (done, wait) = TypeConfig::oneshot();
    log.append(entries, Flushed::signal(done)).await?;
    wait.await.unwrap()
}

async fn read(log: &LogStore, range: std::ops::Range<u64>) -> Vec<Entry> {
    log.reader().try_get_log_entries(range).await.unwrap()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

fn position(path: &Path, needle: &str) -> usize {
    let bytes = fs::read(path).unwrap();
    let windows = bytes.windows(needle.len());
    windows
        .zip(0..)
        .find(|(window, _)| *window == needle.as_bytes())
        .unwrap()
        .1
}

#[tokio::test]
async fn what_was_appended_is_there_after_reopening() {
    let home = Home::new();
    let mut log = home.open();
    append(&mut log, entries(1, 0..5)).await;
    append(&mut log, entries(2, 5..9)).await;
    let vote = Vote::new_committed(2, 7);
    log.save_vote(&vote).await.unwrap();
    log.save_committed(Some(log_id(1, 4))).await.unwrap();
    drop(log);
    let mut log = home.open();
    assert_eq!(
        read(&log, 0..100).await,
        [entries(1, 0..5), entries(2, 5..9)].concat()
    );
    assert_eq!(
        read(&log, 4..6).await,
        [entries(1, 4..5), entries(2, 5..6)].concat()
    );
    assert_eq!(log.last_log_id(), Some(log_id(2, 8)));
    assert_eq!(log.reader().read_vote().await.unwrap(), Some(vote));
    assert_eq!(log.read_committed().await.unwrap(), Some(log_id(1, 4)));
    append(&mut log, entries(2, 9..10)).await;
    assert_eq!(read(&log, 8..100).await, entries(2, 8..10));
}

#[tokio::test]
async fn truncated_entries_are_gone_and_others_take_their_place() {
    let home = Home::new();
    let mut log = home.open();
    append(&mut log, entries(1, 0..10)).await;
    log.truncate_after(Some(log_id(1, 3))).await.unwrap();
    drop(log);
    let mut log = home.open();
    assert_eq!(log.last_log_id(), Some(log_id(1, 3)));
    append(&mut log, entries(2, 4..6)).await;
    drop(log);
    let mut log = home.open();
    let all = [entries(1, 0..4), entries(2, 4..6)].concat();
    assert_eq!(read(&log, 0..100).await, all);
    log.truncate_after(None).await.unwrap();
    drop(log);
    let log = home.open();
    assert_eq!(log.last_log_id(), None);
    assert_eq!(read(&log, 0..100).await, []);
}

#[tokio::test]
async fn purged_entries_are_gone_and_the_rest_is_still_verified() {
    let home = Home::new();
    let mut log = home.open();
    append(&mut log, entries(1, 0..100)).await;
    log.core.db.flush().unwrap();
    log.purge(log_id(1, 59)).await.unwrap();
    log.purge(log_id(1, 9)).await.unwrap();
    drop(log);
    let mut log = home.open();
    assert_eq!(log.purged(), Some(log_id(1, 59)));
    assert_eq!(read(&log, 0..100).await, entries(1, 60..100));
    log.purge(log_id(1, 99)).await.unwrap();
    append(&mut log, entries(1, 100..101)).await;
    drop(log);
    let mut log = home.open();
    assert_eq!(read(&log, 0..200).await, entries(1, 100..101));
    // What a snapshot brings: the log goes on behind entries that it never had.
    log.purge(log_id(3, 500)).await.unwrap();
    append(&mut log, entries(3, 501..503)).await;
    drop(log);
    let log = home.open();
    assert_eq!(log.purged(), Some(log_id(3, 500)));
    assert_eq!(read(&log, 0..600).await, entries(3, 501..503));
}

#[tokio::test]
async fn entries_that_left_the_cache_are_read_from_disk() {
    let home = Home::new();
    let options = LogOptions {
        cache_bytes: 2000,
        ..LogOptions::default()
    };
    let mut log = home.open_with(&options).unwrap();
    for index in 0..100 {
        append(&mut log, entries(1, index..index + 1)).await;
    }
    let cached_from = log.core.cache().cached_from();
    assert!((80..99).contains(&cached_from), "{cached_from}");
    assert_eq!(read(&log, 0..100).await, entries(1, 0..100));
    assert_eq!(read(&log, 10..20).await, entries(1, 10..20));
    let mut reader = log.reader();
    let stream = reader.entries_stream(5..97).await;
    let streamed: Vec<Entry> = futures::TryStreamExt::try_collect(stream).await.unwrap();
    assert_eq!(streamed, entries(1, 5..97));
    log.truncate_after(Some(log_id(1, 50))).await.unwrap();
    append(&mut log, entries(2, 51..60)).await;
    let all = [entries(1, 0..51), entries(2, 51..60)].concat();
    assert_eq!(read(&log, 0..100).await, all);
}

#[tokio::test]
async fn a_limited_read_gives_at_least_one_entry() {
    let home = Home::new();
    let mut log = home.open();
    let large = "x".repeat(READ_BYTES_MAX);
    append(
        &mut log,
        (0..3).map(|index| entry(1, index, &large)).collect(),
    )
    .await;
    let step = log.reader().limited_get_log_entries(0, 3).await.unwrap();
    assert_eq!(step.len(), 1);
    drop(log);
    let log = home.open();
    let step = log.reader().limited_get_log_entries(1, 3).await.unwrap();
    assert_eq!((step.len(), step[0].log_id), (1, log_id(1, 1)));
    assert_eq!(read(&log, 0..3).await.len(), 3);
}

#[tokio::test]
async fn a_hole_is_refused_and_stops_the_store() {
    let home = Home::new();
    let mut log = home.open();
    append(&mut log, entries(1, 0..2)).await;
    let failure = log.failure();
    let error = try_append(&mut log, entries(1, 3..4))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("entry 3 was to be appended behind entry 1"),
        "{error}"
    );
    assert!(failure.borrow().is_some());
    try_append(&mut log, entries(1, 2..3)).await.unwrap_err();
    log.save_vote(&Vote::new(9, 9)).await.unwrap_err();
    drop(log);
    assert_eq!(home.open().last_log_id(), Some(log_id(1, 1)));
}

#[tokio::test]
async fn a_byte_flipped_in_the_middle_of_the_write_ahead_log_is_noticed() {
    let home = Home::new();
    let mut log = home.open();
    for index in 0..100 {
        append(&mut log, entries(1, index..index + 1)).await;
    }
    drop(log);
    let wal = home.wals().pop().unwrap();
    flip(&wal, position(&wal, "command 1/36"));
    let text = home.refusal();
    assert!(
        text.contains("ends before entry 36") && text.contains("up to 99"),
        "{text}"
    );
}

#[tokio::test]
async fn a_deleted_or_cut_write_ahead_log_is_noticed() {
    let home = Home::new();
    let mut log = home.open();
    for index in 0..50 {
        append(&mut log, entries(1, index..index + 1)).await;
    }
    drop(log);
    let wal = home.wals().pop().unwrap();
    let whole = fs::read(&wal).unwrap();
    fs::write(&wal, &whole[..position(&wal, "command 1/20")]).unwrap();
    assert!(home.refusal().contains("ends before entry 20"));
    for wal in home.wals() {
        fs::remove_file(wal).unwrap();
    }
    assert!(
        home.refusal()
            .contains("entries up to 49 were acknowledged")
    );
}

#[tokio::test]
async fn damage_inside_a_table_file_is_noticed() {
    let home = Home::new();
    let mut log = home.open();
    append(&mut log, entries(1, 0..50)).await;
    log.core.db.flush().unwrap();
    drop(log);
    let tables = fs::read_dir(home.log())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let table = tables
        .into_iter()
        .find(|path| path.extension().is_some_and(|e| e == "sst"))
        .unwrap();
    flip(&table, position(&table, "command 1/7"));
    assert!(home.refusal().contains("orruption"));
}

#[tokio::test]
async fn rows_that_rocksdb_finds_good_are_still_verified() {
    let home = Home::new();
    let mut log = home.open();
    append(&mut log, entries(1, 0..10)).await;
    let good = log.core.db.get(&4u64.to_be_bytes()).unwrap().unwrap();
    drop(log);
    let tamper = |change: &dyn Fn(&mut Batch)| {
        home.change_rows(change);
        home.refusal()
    };
    let mut bad = good.to_vec();
    bad[30] ^= 1;
    let text = tamper(&|rows| rows.put(4u64.to_be_bytes(), &bad));
    assert!(text.contains("log entry 4: its checksum"), "{text}");
    let other = encode_entry(&entry(1, 4, "another command"));
    let mut row = Vec::new();
    put_row(&mut row, 1, &other);
    let text = tamper(&|rows| rows.put(4u64.to_be_bytes(), &row));
    assert!(text.contains("log entry 4: it does not follow"), "{text}");
    let text = tamper(&|rows| rows.delete(4u64.to_be_bytes()));
    assert!(text.contains("log entry 4: the entry is missing"), "{text}");
    let text = tamper(&|rows| {
        rows.put(4u64.to_be_bytes(), &good);
        rows.delete(9u64.to_be_bytes());
    });
    assert!(text.contains("ends before entry 9"), "{text}");
}

#[tokio::test]
async fn another_tail_than_the_acknowledged_one_is_noticed() {
    let home = Home::new();
    let mut log = home.open();
    append(&mut log, entries(1, 0..10)).await;
    let acked = fs::read(home.acked()).unwrap();
    log.truncate_after(Some(log_id(1, 8))).await.unwrap();
    append(&mut log, entries(2, 9..12)).await;
    drop(log);
    fs::write(home.acked(), acked).unwrap();
    let text = home.refusal();
    assert!(
        text.contains("log entry 9: it is not the entry that was acknowledged"),
        "{text}"
    );
}

#[tokio::test]
async fn a_lost_vote_or_guard_is_noticed() {
    let home = Home::new();
    let mut log = home.open();
    log.save_vote(&Vote::new(3, 1)).await.unwrap();
    drop(log);
    let acked = fs::read(home.acked()).unwrap();
    home.change_rows(|rows| rows.delete(KEY_VOTE));
    let text = home.refusal();
    assert!(
        text.contains("no vote") && text.contains("was given"),
        "{text}"
    );
    fs::remove_file(home.acked()).unwrap();
    assert!(home.refusal().contains("acked: the file is missing"));
    fs::write(home.acked(), acked).unwrap();
    fs::remove_dir_all(home.log()).unwrap();
    assert!(home.refusal().contains("the log is missing"));
}

#[tokio::test]
async fn a_log_that_vanished_as_a_whole_is_noticed() {
    let home = Home::new();
    let mut log = home.open();
    append(&mut log, entries(1, 0..3)).await;
    drop(log);
    fs::remove_dir_all(home.log()).unwrap();
    let text = home.refusal();
    assert!(
        text.contains("the log is missing, but votes and entries before 3 were acknowledged"),
        "{text}"
    );
}

#[tokio::test]
async fn many_appends_at_once_are_written_together_and_in_order() {
    let home = Home::new();
    let mut log = home.open();
    let mut waits = Vec::new();
    for index in 0..2000 {
        let (done, wait) = TypeConfig::oneshot();
        log.append(entries(1, index..index + 1), Flushed::signal(done))
            .await
            .unwrap();
        waits.push(wait);
    }
    assert_eq!(
        read(&log, 0..2000).await.len(),
        2000,
        "readable before they are durable"
    );
    for wait in waits {
        wait.await.unwrap().unwrap();
    }
    drop(log);
    assert_eq!(read(&home.open(), 0..2000).await, entries(1, 0..2000));
}

/// A measurement: `cargo test --release -- --ignored million`.
#[tokio::test]
#[ignore = "takes half a minute"]
async fn a_million_entries_are_verified_on_open() {
    let home = Home::new();
    let mut log = home.open();
    let command = "x".repeat(128);
    let mut waits = std::collections::VecDeque::new();
    let start = std::time::Instant::now();
    for part in 0..10_000 {
        let batch = (0..100).map(|step| entry(1, part * 100 + step, &command));
        let (done, wait) = TypeConfig::oneshot();
        log.append(batch.collect::<Vec<_>>(), Flushed::signal(done))
            .await
            .unwrap();
        waits.push_back(wait);
        if waits.len() > 10 {
            waits.pop_front().unwrap().await.unwrap().unwrap();
        }
    }
    for wait in waits {
        wait.await.unwrap().unwrap();
    }
    println!("appended in {:?}", start.elapsed());
    drop(log);
    let start = std::time::Instant::now();
    let log = home.open();
    println!("opened in {:?}", start.elapsed());
    assert_eq!(log.last_log_id(), Some(log_id(1, 999_999)));
}
