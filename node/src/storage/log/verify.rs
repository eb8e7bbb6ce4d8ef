//! Is the log on disk the one that was written? Checked whenever it is opened.

use std::path::Path;

use bytes::Bytes;

use super::{KEY_COMMITTED, KEY_PURGED, KEY_VOTE, chain, split_row};
use crate::raft::{LogId, Vote};
use crate::storage::codec::{decode_log_id, decode_vote, encode_log_id, entry_log_id, take_u64};
use crate::storage::disk::KeyValue;
use crate::storage::error::StorageError;
use crate::storage::guard::Mark;

/// All of the log is read in one go.
const READAHEAD_BYTES: usize = 4 << 20;

/// What the log holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Verified {
    pub purged: Option<LogId>,
    pub purged_chain: u64,
    pub last: Option<LogId>,
    pub last_chain: u64,
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
}

/// Reads all of the log: no hole, every checksum holds, every entry follows from the one before.
pub(super) fn verify(db: &KeyValue, path: &Path) -> Result<Verified, StorageError> {
    let mut found = read_marks(db, path)?;
    // Never from 0: what is purged may still lie there as tombstones.
    let start = found.purged.map_or(0, |purged| purged.index + 1);
    let key = start.to_be_bytes();
    let rows = db.rows(&key, Some(&[0xff]), READAHEAD_BYTES);
    for (index, row) in (start..).zip(rows) {
        let (key, row) = row.map_err(|error| damaged(path, index, &error.message))?;
        if *key != index.to_be_bytes() {
            return Err(damaged(
                path,
                index,
                "the entry is missing, but later ones are there",
            ));
        }
        check_entry(&mut found, index, &row).map_err(|problem| damaged(path, index, &problem))?;
    }
    check_committed(&found, path)?;
    Ok(found)
}

fn check_entry(found: &mut Verified, index: u64, row: &[u8]) -> Result<(), String> {
    let (stored, entry) = split_row(row).ok_or("its checksum does not hold")?;
    let expected = chain(found.last_chain, entry);
    if stored != expected {
        return Err("it does not follow from the entry before it".to_owned());
    }
    let id = entry_log_id(entry).map_err(|error| error.to_string())?;
    if id.index != index {
        return Err(format!("it holds entry {} instead", id.index));
    }
    if found.last.is_some_and(|last| last.leader_id > id.leader_id) {
        return Err("its term is lower than the one before it".to_owned());
    }
    found.last = Some(id);
    found.last_chain = stored;
    Ok(())
}

fn damaged(path: &Path, index: u64, problem: &str) -> StorageError {
    StorageError::damaged(path, format!("log entry {index}: {problem}"))
}

fn read_marks(db: &KeyValue, path: &Path) -> Result<Verified, StorageError> {
    let mut found = Verified::default();
    if let Some(bytes) = get(db, path, &KEY_VOTE)? {
        found.vote = Some(decode_vote(&bytes).map_err(bad(path, "vote"))?);
    }
    if let Some(bytes) = get(db, path, &KEY_PURGED)? {
        let (id, purged_chain) = decode_purged(&bytes).map_err(bad(path, "purge mark"))?;
        found.purged = Some(id);
        found.purged_chain = purged_chain;
        found.last = found.purged;
        found.last_chain = purged_chain;
    }
    if let Some(bytes) = get(db, path, &KEY_COMMITTED)? {
        found.committed = Some(decode_log_id(&bytes).map_err(bad(path, "committed log id"))?);
    }
    Ok(found)
}

fn get(db: &KeyValue, path: &Path, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
    db.get(key).map_err(StorageError::database("read", path))
}

fn bad<E: std::fmt::Display>(path: &Path, what: &str) -> impl FnOnce(E) -> StorageError {
    move |error| StorageError::damaged(path, format!("the {what} cannot be read: {error}"))
}

/// Bytes of the purge mark: its log id, then the chain there.
pub(super) fn encode_purged(id: &LogId, chain: u64) -> Vec<u8> {
    let mut out = chain.to_le_bytes().to_vec();
    out.extend_from_slice(&encode_log_id(id));
    out
}

fn decode_purged(mut bytes: &[u8]) -> Result<(LogId, u64), quorate_statemachine::codec::BadBytes> {
    let chain = take_u64(&mut bytes)?;
    Ok((decode_log_id(bytes)?, chain))
}

/// The committed id is written after the entry it names, so the entry must be there.
fn check_committed(found: &Verified, path: &Path) -> Result<(), StorageError> {
    match (found.committed, found.last) {
        (Some(committed), last) if last.is_none_or(|last| last.index < committed.index) => {
            let last = last.map_or("nothing".to_owned(), |last| format!("entry {}", last.index));
            let problem = format!(
                "it ends with {last}, but entry {} is committed",
                committed.index
            );
            Err(StorageError::damaged(path, problem))
        }
        _ => Ok(()),
    }
}

/// The log must reach as far as the guard says it was acknowledged.
pub(super) fn check_guard(
    db: &KeyValue,
    mark: &Mark,
    found: &Verified,
    path: &Path,
    acked: &Path,
) -> Result<(), StorageError> {
    let end = found.last.map_or(0, |last| last.index + 1);
    if end < mark.end {
        let problem = format!(
            "it ends before entry {end}, but {} says that entries up to {} were acknowledged",
            acked.display(),
            mark.end - 1
        );
        return Err(StorageError::damaged(path, problem));
    }
    check_chain(db, mark, found, path)?;
    check_vote(mark, found, path)
}

/// The entry at the mark must be the one that was there.
fn check_chain(
    db: &KeyValue,
    mark: &Mark,
    found: &Verified,
    path: &Path,
) -> Result<(), StorageError> {
    let Some(index) = mark.end.checked_sub(1) else {
        return Ok(());
    };
    if found.purged.is_some_and(|purged| index <= purged.index) {
        return Ok(());
    }
    let row = get(db, path, &index.to_be_bytes())?.unwrap_or_default();
    match split_row(&row) {
        Some((chain, _)) if chain == mark.chain => Ok(()),
        _ => Err(damaged(
            path,
            index,
            "it is not the entry that was acknowledged",
        )),
    }
}

fn check_vote(mark: &Mark, found: &Verified, path: &Path) -> Result<(), StorageError> {
    match (mark.vote, found.vote) {
        (None, _) => Ok(()),
        (Some(acked), Some(vote)) if vote >= acked => Ok(()),
        (Some(acked), vote) => {
            let vote = vote.map_or("no vote".to_owned(), |vote| vote.to_string());
            let problem = format!("it holds {vote}, but the vote {acked} was given");
            Err(StorageError::damaged(path, problem))
        }
    }
}
