//! Snapshots: checkpoints of the state database, how they are sent, and how they are received.
//!
//! A snapshot is a directory of RocksDB files (hard links, so building one costs little space) with a
//! `manifest` that names every file with its size and checksum. The manifest is written last and the
//! directory renamed into place after it, so a directory with a good name is a whole snapshot.
//!
//! A receiver writes into a directory of its own, takes up where it stopped (also after a restart of
//! the process), and gives the snapshot out only after every size and checksum was verified.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use quorate_statemachine::codec::{self as rows, BadBytes};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::codec::{FORMAT_VERSION, decode_snapshot_meta, encode_snapshot_meta, take_version};
use super::error::StorageError;
use super::files;
use crate::raft::SnapshotMeta;

const MANIFEST: &str = "manifest";
const MAKING_PREFIX: &str = "making-";
const RECEIVING_PREFIX: &str = "receiving-";

/// Most bytes of a chunk.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;

/// Most files of a snapshot: tables have tens of megabytes, so this is terabytes.
const FILES_MAX: usize = 1 << 17;

/// What a snapshot covers, and which files it consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// What it covers.
    pub meta: SnapshotMeta,
    /// Its files, by name.
    pub files: Vec<FileEntry>,
}

/// One file of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its name in the directory.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// xxh3-64 of its content.
    pub checksum: u64,
}

impl Manifest {
    /// Lists and hashes the files of a fresh checkpoint.
    pub(super) fn of_checkpoint(dir: &Path, meta: SnapshotMeta) -> Result<Self, StorageError> {
        let mut listed = Vec::new();
        for name in files::names(dir)? {
            let path = dir.join(&name);
            if !belongs(&name) {
                fs::remove_file(&path).map_err(StorageError::io("remove", &path))?;
                continue;
            }
            let (size, checksum) = hash_file(&path).map_err(StorageError::io("read", &path))?;
            if !name.ends_with(".sst") {
                sync_file(&path)?;
            }
            listed.push(FileEntry {
                name,
                size,
                checksum,
            });
        }
        Ok(Self {
            meta,
            files: listed,
        })
    }

    /// Bytes for the disk and the wire.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT_VERSION];
        rows::put(&mut out, &(encode_snapshot_meta(&self.meta), &self.files));
        let checksum = xxh3_64(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out
    }

    /// Reads a manifest and checks that it can only name files of its own directory.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadBytes> {
        let (mut body, checksum) = bytes
            .split_last_chunk::<8>()
            .ok_or(BadBytes::Short(bytes.len()))?;
        if xxh3_64(body) != u64::from_le_bytes(*checksum) {
            return Err(BadBytes::Body(
                "the manifest's checksum does not hold".to_owned(),
            ));
        }
        take_version(&mut body)?;
        let (meta, files): (Vec<u8>, Vec<FileEntry>) = rows::take_last(body)?;
        check_names(&files)?;
        Ok(Self {
            meta: decode_snapshot_meta(&meta)?,
            files,
        })
    }

    /// Bytes of all files together.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}

/// Which files of a checkpoint make the database; its information log does not.
fn belongs(name: &str) -> bool {
    name == "CURRENT"
        || name.ends_with(".sst")
        || name.starts_with("MANIFEST-")
        || name.starts_with("OPTIONS-")
}

fn check_names(files: &[FileEntry]) -> Result<(), BadBytes> {
    if files.len() > FILES_MAX {
        let count = files.len();
        return Err(BadBytes::Body(format!(
            "{count} files, the limit is {FILES_MAX}"
        )));
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let mut names = BTreeSet::new();
    for file in files {
        let good = belongs(&file.name) && file.name.len() <= 64 && file.name.bytes().all(plain);
        if !good || !names.insert(&file.name) {
            return Err(BadBytes::Body(format!(
                "{:?} is no file of a snapshot",
                file.name
            )));
        }
    }
    Ok(())
}

fn hash_file(path: &Path) -> io::Result<(u64, u64)> {
    let mut file = File::open(path)?;
    let (mut hasher, mut size) = (Xxh3::new(), 0);
    let mut buffer = vec![0; CHUNK_BYTES_MAX];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok((size, hasher.digest()));
        }
        hasher.update(&buffer[..count]);
        size += count as u64;
    }
}

/// A part of a file, with the checksum that its receiver checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The bytes; empty at the end of the file.
    pub bytes: Bytes,
    /// crc32c of the bytes.
    pub crc: u32,
}

/// A snapshot on this disk. While one copy of it lives, its files stay, also when a newer snapshot has
/// taken its place.
#[derive(Debug, Clone)]
pub struct SnapshotData {
    dir: Arc<SnapshotDir>,
}

#[derive(Debug)]
struct SnapshotDir {
    path: PathBuf,
    manifest: Manifest,
    /// Whether the directory goes away with the last copy.
    doomed: AtomicBool,
}

impl Drop for SnapshotDir {
    fn drop(&mut self) {
        if self.doomed.load(Ordering::Acquire)
            && let Err(error) = files::remove_dir(&self.path)
        {
            tracing::warn!(%error, "an old snapshot stays on disk until the next start");
        }
    }
}

impl SnapshotData {
    fn new(path: PathBuf, manifest: Manifest) -> Self {
        let doomed = AtomicBool::new(false);
        let dir = Arc::new(SnapshotDir {
            path,
            manifest,
            doomed,
        });
        Self { dir }
    }

    /// What it covers and consists of.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.dir.manifest
    }

    /// Reads up to `max` bytes (and up to [`CHUNK_BYTES_MAX`]) of a file from `offset` on.
    pub fn read_chunk(&self, file: &str, offset: u64, max: usize) -> io::Result<Chunk> {
        let size = match self
            .manifest()
            .files
            .iter()
            .find(|entry| entry.name == file)
        {
            Some(entry) => entry.size,
            None => {
                return Err(io::Error::other(format!(
                    "{file:?} is no file of the snapshot"
                )));
            }
        };
        let room = size.saturating_sub(offset).min(CHUNK_BYTES_MAX as u64) as usize;
        let mut bytes = vec![0; room.min(max)];
        File::open(self.path().join(file))?.read_exact_at(&mut bytes, offset)?;
        let crc = crc32c::crc32c(&bytes);
        Ok(Chunk {
            bytes: bytes.into(),
            crc,
        })
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.dir.path
    }

    /// Lets the files go with the last copy.
    pub(super) fn doom(&self) {
        self.dir.doomed.store(true, Ordering::Release);
    }

    /// Makes another directory with the same content: links for tables, which RocksDB never changes,
    /// copies for the few small files that it does.
    pub(super) fn link_to(&self, to: &Path) -> Result<(), StorageError> {
        files::remove_dir(to)?;
        files::create_dir(to)?;
        for file in &self.manifest().files {
            let (from, to) = (self.path().join(&file.name), to.join(&file.name));
            let linked = file.name.ends_with(".sst") && fs::hard_link(&from, &to).is_ok();
            if !linked {
                fs::copy(&from, &to).map_err(StorageError::io("copy", &from))?;
                sync_file(&to)?;
            }
        }
        files::sync_dir(to)
    }
}

fn sync_file(path: &Path) -> Result<(), StorageError> {
    let file = File::open(path).map_err(StorageError::io("open", path))?;
    file.sync_all().map_err(StorageError::io("sync", path))
}

/// The directory of snapshots, with the newest one.
#[derive(Debug)]
pub(super) struct Snapshots {
    dir: PathBuf,
    newest: Option<SnapshotData>,
    built: u64,
}

impl Snapshots {
    /// Finds the newest whole snapshot and removes what a crash has left.
    pub fn open(dir: PathBuf) -> Result<Self, StorageError> {
        files::create_dir(&dir)?;
        let mut found: Vec<SnapshotData> = Vec::new();
        for name in files::names(&dir)? {
            if name.starts_with(RECEIVING_PREFIX) {
                continue;
            }
            match load(&dir.join(&name)) {
                Some(data) if !name.starts_with(MAKING_PREFIX) => found.push(data),
                _ => files::remove_dir(&dir.join(&name))?,
            }
        }
        found.sort_by_key(|data| data.manifest().meta.last_log_id);
        let newest = found.pop();
        found.iter().for_each(SnapshotData::doom);
        Ok(Self {
            dir,
            newest,
            built: 0,
        })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn newest(&self) -> Option<&SnapshotData> {
        self.newest.as_ref()
    }

    /// A name for a snapshot that is being made.
    pub fn fresh_path(&mut self) -> PathBuf {
        self.built += 1;
        self.dir.join(format!("{MAKING_PREFIX}{}", self.built))
    }

    /// Forgets the newest, so that another is built when one is needed.
    pub fn discard_newest(&mut self) {
        if let Some(newest) = self.newest.take() {
            newest.doom();
        }
    }

    /// Gives a directory that is complete but for its manifest its place and name. The older of it and
    /// the newest so far goes.
    pub fn publish(
        &mut self,
        making: &Path,
        manifest: Manifest,
    ) -> Result<SnapshotData, StorageError> {
        let covers = manifest.meta.last_log_id;
        if let Some(newest) = &self.newest
            && newest.manifest().meta.last_log_id >= covers
        {
            let newest = newest.clone();
            files::remove_dir(making)?;
            return Ok(newest);
        }
        files::replace(&making.join(MANIFEST), &manifest.encode())?;
        let (index, term) = covers.map_or((0, 0), |id| (id.index, id.leader_id.term));
        let mut path = self.dir.join(format!("{index}-{term}"));
        // An older one under this name may still be sent, and takes its directory with it.
        while path.exists() {
            self.built += 1;
            path = self.dir.join(format!("{index}-{term}-{}", self.built));
        }
        files::rename(making, &path)?;
        let data = SnapshotData::new(path, manifest);
        if let Some(old) = self.newest.replace(data.clone()) {
            old.doom();
        }
        Ok(data)
    }
}

/// A whole snapshot, judged by its manifest and its files' sizes; checksums are checked by whoever
/// receives it.
fn load(path: &Path) -> Option<SnapshotData> {
    let bytes = files::read(&path.join(MANIFEST)).ok()??;
    let manifest = Manifest::decode(&bytes).ok()?;
    let whole = |file: &FileEntry| {
        fs::metadata(path.join(&file.name)).is_ok_and(|found| found.len() == file.size)
    };
    let complete = manifest.files.iter().all(whole);
    complete.then(|| SnapshotData::new(path.to_owned(), manifest))
}

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

    /// Verifies every size and checksum, and makes all of it durable. After an error the receiver can
    /// go on with [`Self::next`].
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
        let data = SnapshotData::new(self.path.clone(), self.manifest.clone());
        // Installing makes a directory of its own, so this one goes with its last user.
        data.doom();
        Ok(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> FileEntry {
        FileEntry {
            name: name.to_owned(),
            size: 3,
            checksum: 9,
        }
    }

    fn manifest(names: &[&str]) -> Manifest {
        Manifest {
            meta: SnapshotMeta::default(),
            files: names.iter().map(|name| file(name)).collect(),
        }
    }

    #[test]
    fn a_manifest_is_read_back_and_its_bytes_are_pinned() {
        let good = manifest(&["000012.sst", "CURRENT"]);
        let bytes = good.encode();
        assert_eq!(Manifest::decode(&bytes), Ok(good.clone()));
        assert_eq!(good.total_bytes(), 6);
        let meta = encode_snapshot_meta(&SnapshotMeta::default());
        let length = u8::try_from(meta.len()).expect("short");
        let body = b"\x02\x0a000012.sst\x03\x09\x07CURRENT\x03\x09";
        let pinned = [&[1, length], &meta[..], &body[..]].concat();
        assert_eq!(bytes[..bytes.len() - 8], pinned);
    }

    #[test]
    fn a_manifest_cannot_name_files_elsewhere() {
        for names in [
            &["../../etc/x.sst"][..],
            &["a/b.sst"],
            &["LOCK"],
            &["manifest"],
            &["1.sst", "1.sst"],
        ] {
            let bytes = manifest(names).encode();
            assert!(Manifest::decode(&bytes).is_err(), "{names:?}");
        }
        let mut bytes = manifest(&["1.sst"]).encode();
        bytes[4] ^= 1;
        assert!(Manifest::decode(&bytes).is_err());
    }

    #[test]
    fn chunks_must_follow_each_other_and_be_whole() {
        let temp = tempfile::tempdir().expect("a directory");
        let content = b"abc";
        let mut wanted = manifest(&["1.sst"]);
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
        let path = receiver.path.clone();
        let data = receiver.finish().expect("whole");
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
        let mut receiver = Receiver::new(temp.path(), manifest(&["1.sst"])).expect("made");
        receiver
            .write_chunk("1.sst", 0, b"abc", crc32c::crc32c(b"abc"))
            .expect("taken");
        let Err(ReceiveError::Corrupt { file }) = receiver.finish() else {
            panic!("a wrong file was taken");
        };
        assert_eq!(file, "1.sst");
        assert_eq!(receiver.next(), Some(("1.sst", 0)));
        let other = Receiver::new(temp.path(), manifest(&["2.sst"])).expect("made");
        assert!(!receiver.path.exists() && other.path.exists());
    }
}
