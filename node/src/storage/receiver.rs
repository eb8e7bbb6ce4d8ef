//! Receiving a snapshot: chunk by chunk, resumable, verified before anybody sees it.
//!
//! A receiver writes into a directory of its own, takes up where it stopped (also after a restart
//! of the process), and gives the snapshot out only after every size and checksum was verified.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

use super::disk::fs::{self, File, FileExt, OpenOptions};
use super::error::StorageError;
use super::files;
use super::snapshot::{
    MAKING_PREFIX, Manifest, RECEIVING_PREFIX, SnapshotData, hash_file, sync_file,
};

/// Why a chunk or a snapshot was not taken.
#[derive(Debug, Error)]
pub enum ReceiveError {
    /// The manifest has no such file.
    #[error("the snapshot has no file {0:?}")]
    UnknownFile(String),
    /// The chunk does not follow from what is there: go on from `have`.
    #[error("{file} is received up to byte {have}, the chunk starts at {offset}; go on from there")]
    Offset {
        /// The file.
        file: String,
        /// Bytes received so far.
        have: u64,
        /// Where the chunk starts.
        offset: u64,
    },
    /// The chunk was damaged on its way, or reaches past the end of the file: send it again.
    #[error("the chunk of {file} at byte {offset} is damaged; send it again")]
    Chunk {
        /// The file.
        file: String,
        /// Where the chunk starts.
        offset: u64,
    },
    /// A file is not complete.
    #[error("{file} has {have} of {size} bytes; send the rest")]
    Incomplete {
        /// The file.
        file: String,
        /// Bytes received so far.
        have: u64,
        /// Bytes it must have.
        size: u64,
    },
    /// A complete file is not the one of the manifest; it was dropped, send it again.
    #[error("{file} does not match its checksum and was dropped; send it again from its start")]
    Corrupt {
        /// The file.
        file: String,
    },
    /// The disk.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Takes a snapshot in, chunk by chunk. Its functions block on the disk.
#[derive(Debug)]
pub struct Receiver {
    path: PathBuf,
    manifest: Manifest,
    /// Bytes that are there of each file of the manifest.
    have: Vec<u64>,
}

impl Receiver {
    /// Starts, or goes on with what an earlier receiver of the same snapshot has. Anything half
    /// received of another snapshot is removed: there is one sender at a time.
    pub fn new(snapshots: &Path, manifest: Manifest) -> Result<Self, StorageError> {
        let name = format!("{RECEIVING_PREFIX}{:016x}", xxh3_64(&manifest.encode()));
        files::create_dir(snapshots)?;
        for other in files::names(snapshots)? {
            if other.starts_with(RECEIVING_PREFIX) && other != name {
                files::remove_dir(&snapshots.join(other))?;
            }
        }
        let path = snapshots.join(name);
        files::create_dir(&path)?;
        let mut have = Vec::with_capacity(manifest.files.len());
        for file in &manifest.files {
            let length = fs::metadata(path.join(&file.name)).map_or(0, |found| found.len());
            have.push(length.min(file.size));
        }
        Ok(Self {
            path,
            manifest,
            have,
        })
    }

    /// The file and the offset to go on with; `None` when all is there.
    #[must_use]
    pub fn next(&self) -> Option<(&str, u64)> {
        let files = self.manifest.files.iter().zip(&self.have);
        let mut missing = files.filter(|(file, have)| **have < file.size);
        missing
            .next()
            .map(|(file, have)| (file.name.as_str(), *have))
    }

    /// Bytes received so far.
    #[must_use]
    pub fn received_bytes(&self) -> u64 {
        self.have.iter().sum()
    }

    /// Takes one chunk. What is there already is taken again without harm.
    pub fn write_chunk(
        &mut self,
        file: &str,
        offset: u64,
        bytes: &[u8],
        crc: u32,
    ) -> Result<(), ReceiveError> {
        let found = self
            .manifest
            .files
            .iter()
            .position(|entry| entry.name == file);
        let number = found.ok_or_else(|| ReceiveError::UnknownFile(file.to_owned()))?;
        let (have, size) = (self.have[number], self.manifest.files[number].size);
        let file = file.to_owned();
        if offset > have {
            return Err(ReceiveError::Offset { file, have, offset });
        }
        let end = offset.saturating_add(bytes.len() as u64);
        if crc32c::crc32c(bytes) != crc || end > size {
            return Err(ReceiveError::Chunk { file, offset });
        }
        let path = self.path.join(&file);
        let writer = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(StorageError::io("write to", &path))?;
        writer
            .write_all_at(bytes, offset)
            .map_err(StorageError::io("write to", &path))?;
        self.have[number] = have.max(end);
        Ok(())
    }

    /// Verifies every size and checksum, and makes all of it durable. After an error the receiver
    /// can go on with [`Self::next`].
    pub fn finish(&mut self) -> Result<SnapshotData, ReceiveError> {
        for (number, file) in self.manifest.files.iter().enumerate() {
            let path = self.path.join(&file.name);
            let (name, have, size) = (file.name.clone(), self.have[number], file.size);
            if have != size {
                return Err(ReceiveError::Incomplete {
                    file: name,
                    have,
                    size,
                });
            }
            if size == 0 {
                File::create(&path).map_err(StorageError::io("create", &path))?;
            }
            let hashed = hash_file(&path).map_err(StorageError::io("read", &path))?;
            if hashed != (size, file.checksum) {
                self.have[number] = 0;
                fs::remove_file(&path).map_err(StorageError::io("remove", &path))?;
                return Err(ReceiveError::Corrupt { file: name });
            }
            sync_file(&path)?;
        }
        files::sync_dir(&self.path)?;
        // Under a name of its own, so that the same snapshot, sent again while this one is still in
        // use, does not share its directory.
        let path = free_path(&self.path);
        files::rename(&self.path, &path)?;
        let data = SnapshotData::new(path, self.manifest.clone());
        // Installing makes a directory of its own, so this one goes with its last user.
        data.doom();
        Ok(data)
    }
}

/// A name that no other finished snapshot has; none outlives the process.
fn free_path(receiving: &Path) -> PathBuf {
    static FINISHED: AtomicU64 = AtomicU64::new(0);
    let number = FINISHED.fetch_add(1, Ordering::Relaxed);
    receiving.with_file_name(format!("{MAKING_PREFIX}received-{number}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::SnapshotMeta;
    use crate::storage::FileEntry;

    fn manifest(name: &str) -> Manifest {
        Manifest {
            meta: SnapshotMeta::default(),
            files: vec![FileEntry {
                name: name.to_owned(),
                size: 3,
                checksum: 9,
            }],
        }
    }

    #[test]
    fn chunks_must_follow_each_other_and_be_whole() {
        let temp = tempfile::tempdir().expect("a directory");
        let content = b"abc";
        let mut wanted = manifest("1.sst");
        wanted.files[0].checksum = xxh3_64(content);
        let mut receiver = Receiver::new(temp.path(), wanted.clone()).expect("made");
        assert_eq!(receiver.next(), Some(("1.sst", 0)));
        let crc = crc32c::crc32c;
        let gap = receiver.write_chunk("1.sst", 2, b"c", crc(b"c"));
        assert!(matches!(gap, Err(ReceiveError::Offset { have: 0, .. })));
        let damaged = receiver.write_chunk("1.sst", 0, b"aX", crc(b"ab"));
        assert!(matches!(damaged, Err(ReceiveError::Chunk { .. })));
        let long = receiver.write_chunk("1.sst", 0, b"abcd", crc(b"abcd"));
        assert!(matches!(long, Err(ReceiveError::Chunk { .. })));
        let unknown = receiver.write_chunk("2.sst", 0, b"", 0);
        assert!(matches!(unknown, Err(ReceiveError::UnknownFile(_))));
        receiver
            .write_chunk("1.sst", 0, b"ab", crc(b"ab"))
            .expect("taken");
        receiver
            .write_chunk("1.sst", 0, b"ab", crc(b"ab"))
            .expect("again");
        assert!(matches!(
            receiver.finish(),
            Err(ReceiveError::Incomplete { have: 2, .. })
        ));
        drop(receiver);
        let mut receiver = Receiver::new(temp.path(), wanted).expect("resumed");
        assert_eq!(receiver.next(), Some(("1.sst", 2)));
        receiver
            .write_chunk("1.sst", 2, b"c", crc(b"c"))
            .expect("taken");
        assert_eq!((receiver.next(), receiver.received_bytes()), (None, 3));
        let data = receiver.finish().expect("whole");
        let path = data.path().to_owned();
        let again = Receiver::new(temp.path(), receiver.manifest.clone()).expect("made");
        assert_eq!(
            again.received_bytes(),
            0,
            "a finished directory is not written to again"
        );
        assert_eq!(data.read_chunk("1.sst", 1, 9).expect("read").bytes, "bc");
        drop(data);
        assert!(
            !path.exists(),
            "a received directory goes with its last user"
        );
    }

    #[test]
    fn a_file_that_is_complete_but_wrong_is_dropped() {
        let temp = tempfile::tempdir().expect("a directory");
        let mut receiver = Receiver::new(temp.path(), manifest("1.sst")).expect("made");
        receiver
            .write_chunk("1.sst", 0, b"abc", crc32c::crc32c(b"abc"))
            .expect("taken");
        let Err(ReceiveError::Corrupt { file }) = receiver.finish() else {
            panic!("a wrong file was taken");
        };
        assert_eq!(file, "1.sst");
        assert_eq!(receiver.next(), Some(("1.sst", 0)));
        let other = Receiver::new(temp.path(), manifest("2.sst")).expect("made");
        assert!(!receiver.path.exists() && other.path.exists());
    }
}
