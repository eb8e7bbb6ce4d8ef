//! How far the log was on disk when it was last acknowledged: the file `acked`.
//!
//! RocksDB opens silently after damage: a flipped byte, a cut or a deleted write-ahead log gives a
//! database that ends early. So the log writes down elsewhere where it ended: index, chain and vote
//! of the last synced batch. On open the log must reach at least this far ([`Mark`]); otherwise
//! something acknowledged is gone, and the node must not vote.
//!
//! # What it costs and what it cannot see
//!
//! A mark is written (without a sync) after the batch was synced and before it is acknowledged, so
//! it is never ahead of the log. The death of the process loses no mark: the page cache outlives
//! it. A power cut loses marks that were not synced, so damage that comes together with a power cut
//! goes unseen where it hits entries of the last [`SYNC_EVERY`]. A sync of the mark on every batch
//! would close this window and halve the throughput; marks are synced at most [`SYNC_EVERY`] late,
//! and at once with every vote and truncation, which are rare.
//!
//! A truncation lowers the mark durably *before* it touches the log, so that a crash between the
//! two never leaves a mark above a healthy log.
//!
//! # Format
//!
//! Two slots, a page apart. Only one is written until a sync has made it durable; then the other.
//! So a torn write leaves the older one whole.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::codec::{decode_vote, encode_vote, take_u8, take_u64};
use super::disk::fs::{File, FileExt, OpenOptions};
use super::error::StorageError;
use super::files;
use crate::raft::Vote;

/// A mark is on disk at most this long after it was written.
pub(super) const SYNC_EVERY: Duration = Duration::from_millis(250);

const SLOT_BYTES: usize = 64;
const SLOT_STRIDE: u64 = 4096;
const VERSION: u8 = 1;

/// Where the log ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Mark {
    /// Index behind the last entry; 0 if there was none.
    pub end: u64,
    /// Chain at the last entry.
    pub chain: u64,
    /// The vote.
    pub vote: Option<Vote>,
}

/// The file, open for writing.
#[derive(Debug)]
pub(super) struct Guard {
    file: File,
    path: PathBuf,
    sequence: u64,
    slot: u64,
    mark: Mark,
    /// When the oldest mark that is not yet synced was written.
    unsynced_since: Option<Instant>,
}

impl Guard {
    /// Creates the file of a new log.
    pub fn create(path: &Path) -> Result<Self, StorageError> {
        let mut bytes = vec![0; SLOT_STRIDE as usize + SLOT_BYTES];
        let slot = encode(0, &Mark::default());
        bytes[..SLOT_BYTES].copy_from_slice(&slot);
        bytes[SLOT_STRIDE as usize..].copy_from_slice(&slot);
        files::replace(path, &bytes)?;
        Self::open(path)?.ok_or_else(|| StorageError::damaged(path, "the file vanished"))
    }

    /// Opens the file; `None` if there is none.
    pub fn open(path: &Path) -> Result<Option<Self>, StorageError> {
        let Some(bytes) = files::read(path)? else {
            return Ok(None);
        };
        let slots = [0, SLOT_STRIDE as usize].map(|at| bytes.get(at..).and_then(decode));
        let newest = slots
            .into_iter()
            .zip(0..)
            .filter_map(|(slot, number)| slot.map(|(sequence, mark)| (sequence, number, mark)))
            .max_by_key(|(sequence, ..)| *sequence);
        let Some((sequence, number, mark)) = newest else {
            return Err(StorageError::damaged(
                path,
                "neither of its two slots can be read",
            ));
        };
        let file = OpenOptions::new()
            .write(true)
            .open(path)
            .map_err(StorageError::io("write to", path))?;
        // A process that died may have left the newest slot in the page cache only.
        file.sync_data().map_err(StorageError::io("sync", path))?;
        Ok(Some(Self {
            file,
            path: path.to_owned(),
            sequence,
            slot: 1 - number,
            mark,
            unsynced_since: None,
        }))
    }

    /// The newest mark.
    pub fn mark(&self) -> Mark {
        self.mark
    }

    /// Writes a mark that the log has reached durably.
    pub fn write(&mut self, mark: Mark) -> Result<(), StorageError> {
        if mark == self.mark {
            return Ok(());
        }
        self.sequence += 1;
        self.file
            .write_all_at(&encode(self.sequence, &mark), self.slot * SLOT_STRIDE)
            .map_err(StorageError::io("write", &self.path))?;
        self.mark = mark;
        self.unsynced_since.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// Makes the newest mark durable.
    pub fn sync(&mut self) -> Result<(), StorageError> {
        if self.unsynced_since.is_none() {
            return Ok(());
        }
        self.file
            .sync_data()
            .map_err(StorageError::io("sync", &self.path))?;
        self.slot = 1 - self.slot;
        self.unsynced_since = None;
        Ok(())
    }

    /// When the newest mark must be made durable; `None` if it is.
    pub fn deadline(&self) -> Option<Instant> {
        self.unsynced_since.map(|since| since + SYNC_EVERY)
    }
}

/// `[version][sequence u64][end u64][chain u64][vote present u8][vote][zeroes][crc32c u32]`
fn encode(sequence: u64, mark: &Mark) -> [u8; SLOT_BYTES] {
    let mut body = vec![VERSION];
    for number in [sequence, mark.end, mark.chain] {
        body.extend_from_slice(&number.to_le_bytes());
    }
    body.push(mark.vote.is_some().into());
    body.extend(mark.vote.iter().flat_map(encode_vote));
    let mut out = [0; SLOT_BYTES];
    out[..body.len()].copy_from_slice(&body);
    let crc = crc32c::crc32c(&out[..SLOT_BYTES - 4]);
    out[SLOT_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    out
}

fn decode(bytes: &[u8]) -> Option<(u64, Mark)> {
    let slot = bytes.first_chunk::<SLOT_BYTES>()?;
    let (body, crc) = slot.split_last_chunk::<4>()?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return None;
    }
    let input = &mut &body[..];
    if take_u8(input).ok()? != VERSION {
        return None;
    }
    let sequence = take_u64(input).ok()?;
    let (end, chain) = (take_u64(input).ok()?, take_u64(input).ok()?);
    let vote = match take_u8(input).ok()? {
        0 => None,
        _ => Some(decode_vote(input.get(..VOTE_BYTES)?).ok()?),
    };
    Some((sequence, Mark { end, chain, vote }))
}

const VOTE_BYTES: usize = 18;

const _: () = assert!(1 + 3 * 8 + 1 + VOTE_BYTES + 4 <= SLOT_BYTES);

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn mark(end: u64) -> Mark {
        Mark {
            end,
            chain: end * 31,
            vote: Some(Vote::new(end, 2)),
        }
    }

    #[test]
    fn the_newest_mark_is_found_again() {
        let temp = tempfile::tempdir().expect("a directory");
        let path = temp.path().join("acked");
        assert!(Guard::open(&path).expect("readable").is_none());
        let mut guard = Guard::create(&path).expect("created");
        assert_eq!(guard.mark(), Mark::default());
        for end in 1..8 {
            guard.write(mark(end)).expect("written");
            if end % 3 == 0 {
                guard.sync().expect("synced");
            }
            let again = Guard::open(&path).expect("readable").expect("there");
            assert_eq!(again.mark(), mark(end));
        }
    }

    #[test]
    fn a_torn_slot_leaves_the_last_synced_mark() {
        let temp = tempfile::tempdir().expect("a directory");
        let path = temp.path().join("acked");
        let mut guard = Guard::create(&path).expect("created");
        guard.write(mark(1)).expect("written");
        guard.sync().expect("synced");
        let torn_at = guard.slot * SLOT_STRIDE + 9;
        guard.write(mark(2)).expect("written");
        let mut bytes = fs::read(&path).expect("read");
        bytes[torn_at as usize] ^= 1;
        fs::write(&path, &bytes).expect("written");
        assert_eq!(
            Guard::open(&path).expect("readable").expect("there").mark(),
            mark(1)
        );
        bytes[(SLOT_STRIDE - torn_at / SLOT_STRIDE * SLOT_STRIDE) as usize] ^= 1;
        fs::write(&path, &bytes).expect("written");
        let text = Guard::open(&path).expect_err("damaged").to_string();
        assert!(text.contains("neither of its two slots"), "{text}");
    }

    #[test]
    fn bytes_of_a_slot_are_pinned() {
        let bytes = encode(5, &mark(1));
        let start = [
            1, 5, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 31, 0, 0, 0,
        ];
        assert_eq!(bytes[..21], start);
        assert_eq!(bytes[25..36], [1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 2]);
        assert_eq!(decode(&bytes), Some((5, mark(1))));
    }
}
