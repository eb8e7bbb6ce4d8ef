//! The process that is killed, or whose disk is: it works as fast as it can, and says what is
//! durable.

use std::io::Write;
use std::path::Path;

use openraft::RaftSnapshotBuilder;
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftStateMachine};
use quorate_node::raft::{Vote, log_id};
use quorate_node::storage::Storage;
use quorate_statemachine::Command;

use crate::store::{Random, append, apply, claim, entries, entry, open, recover};
use crate::{DIR, MODE};

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

/// The child: runs only when the parent has named a directory.
#[tokio::test]
async fn process() {
    let Ok(path) = std::env::var(DIR) else {
        return;
    };
    let (_dir, mut storage) = open(Path::new(&path));
    match std::env::var(MODE).unwrap().as_str() {
        "limit" => write_to_the_limit(&mut storage).await,
        "state limit" => apply_to_the_limit(&mut storage).await,
        seed => work(&mut storage, Random(seed.parse().unwrap())).await,
    }
}

async fn work(storage: &mut Storage, mut random: Random) -> ! {
    let mut next = recover(storage).await;
    let last_term = storage
        .log
        .last_log_id()
        .map_or(1, |last| last.leader_id.term);
    let mut term = last_term + 1;
    if next == 1 {
        append(storage, vec![entry(0, 0, b"")]).await.unwrap();
    }
    loop {
        let upto = next + 1 + random.below(64);
        append(storage, entries(term, next..upto)).await.unwrap();
        say(&format!("acked {}", upto - 1));
        let last = log_id(term, upto - 1);
        storage.log.save_committed(Some(last)).await.unwrap();
        apply(storage, entries(term, next..upto)).await;
        next = upto;
        match random.below(40) {
            0 => {
                term += 1;
                storage.log.save_vote(&Vote::new(term, 1)).await.unwrap();
                say(&format!("vote {term}"));
            }
            1 => {
                let wrong = (next..next + 20).map(|index| entry(term, index, b"wrong"));
                append(storage, wrong.collect()).await.unwrap();
                storage.log.truncate_after(Some(last)).await.unwrap();
                term += 1;
            }
            2 => {
                let mut builder = storage.state.get_snapshot_builder().await;
                let meta = builder.build_snapshot().await.unwrap().meta;
                let covered = meta.last_log_id.unwrap();
                let upto = covered.index.saturating_sub(100);
                let kept = storage
                    .log
                    .reader()
                    .try_get_log_entries(upto..upto + 1)
                    .await
                    .unwrap();
                if let Some(entry) = kept.first() {
                    storage.log.purge(entry.log_id).await.unwrap();
                }
            }
            _ => {}
        }
    }
}
/// Appends until the disk takes no more, then checks that the store refuses everything.
async fn write_to_the_limit(storage: &mut Storage) {
    let failure = storage.log.failure();
    append(storage, vec![entry(0, 0, b"")]).await.unwrap();
    for index in 1..100_000 {
        let Err(error) = append(storage, entries(1, index..index + 1)).await else {
            say(&format!("acked {index}"));
            continue;
        };
        assert!(failure.borrow().is_some());
        append(storage, entries(1, index + 1..index + 2))
            .await
            .unwrap_err();
        storage.log.save_vote(&Vote::new(2, 1)).await.unwrap_err();
        storage.log.truncate_after(None).await.unwrap_err();
        storage.log.purge(log_id(1, 1)).await.unwrap_err();
        say(&format!("failed {error}"));
        return;
    }
    panic!("the limit was never reached");
}

/// The state alone, with rows that cannot be compressed below the limit.
async fn apply_to_the_limit(storage: &mut Storage) {
    let mut random = Random(1);
    for index in 1..100_000 {
        let mut claim = claim(index);
        claim.metadata = (0..200).map(|_| random.below(256) as u8).collect();
        let entry = entry(1, index, &Command::from(claim).encode());
        let items = futures::stream::iter([Ok((entry, None))]);
        if let Err(error) = storage.state.apply(items).await {
            let again = futures::stream::iter([Ok((self::entry(1, index + 1, b""), None))]);
            storage.state.apply(again).await.unwrap_err();
            say(&format!("failed {error}"));
            return;
        }
    }
    panic!("the limit was never reached");
}
