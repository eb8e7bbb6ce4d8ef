//! Snapshots: checkpoints of the state database, and how they are read for sending.
//!
//! A snapshot is a directory of RocksDB files (hard links, so building one costs little space) with
//! a `manifest` that names every file with its size and checksum. The manifest is written last and
//! the directory renamed into place after it, so a directory with a good name is a whole snapshot.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use quorate_statemachine::codec::{self as rows, BadBytes};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::codec::{FORMAT_VERSION, decode_snapshot_meta, encode_snapshot_meta, take_version};
use super::disk::fs::{self, File, FileExt};
use super::error::StorageError;
use super::files;
use super::state::offline::Rows;
use crate::raft::SnapshotMeta;

const MANIFEST: &str = "manifest";
pub(super) const MAKING_PREFIX: &str = "making-";
pub const RECEIVING_PREFIX: &str = "receiving-";

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
    let (mut names, mut bytes) = (BTreeSet::new(), 0u64);
    for file in files {
        let good = belongs(&file.name) && file.name.len() <= 64 && file.name.bytes().all(plain);
        if !good || !names.insert(&file.name) {
            return Err(BadBytes::Body(format!(
                "{:?} is no file of a snapshot",
                file.name
            )));
        }
        bytes = bytes
            .checked_add(file.size)
            .ok_or_else(|| BadBytes::Body("files of more bytes than can be counted".to_owned()))?;
    }
    Ok(())
}

/// Size and checksum of a file.
pub(super) fn hash_file(path: &Path) -> io::Result<(u64, u64)> {
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

/// A snapshot on this disk. While one copy of it lives, its files stay, also when a newer snapshot
/// has taken its place.
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
    /// Whether all of its rows were read and found right.
    sound: AtomicBool,
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
    pub(super) fn new(path: PathBuf, manifest: Manifest) -> Self {
        let dir = Arc::new(SnapshotDir {
            path,
            manifest,
            doomed: AtomicBool::new(false),
            sound: AtomicBool::new(false),
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

    /// The first file whose content is not what the manifest says.
    pub(super) fn check_files(&self) -> Result<(), StorageError> {
        for file in &self.manifest().files {
            let path = self.path().join(&file.name);
            let found = hash_file(&path).map_err(StorageError::io("read", &path))?;
            if found != (file.size, file.checksum) {
                let problem = "its content is not the one that the snapshot's manifest names";
                return Err(StorageError::damaged(&path, problem));
            }
        }
        Ok(())
    }

    /// Reads all rows. Whoever made the snapshot hashed its files as they were: if a table was
    /// damaged by then, they match the manifest and are damaged.
    pub fn check_rows(&self) -> Result<(), StorageError> {
        let facts = Rows::of_snapshot(self)?.facts()?;
        let meta = &self.manifest().meta;
        if facts.applied != meta.last_log_id || facts.membership != meta.last_membership {
            let problem = "it covers something else than its manifest says";
            return Err(StorageError::damaged(self.path(), problem));
        }
        facts.check(self.path())?;
        self.dir.sound.store(true, Ordering::Release);
        Ok(())
    }

    /// Whether [`Self::check_rows`] found them right.
    pub(super) fn is_sound(&self) -> bool {
        self.dir.sound.load(Ordering::Acquire)
    }

    /// Lets the files go with the last copy.
    pub(super) fn doom(&self) {
        self.dir.doomed.store(true, Ordering::Release);
    }

    /// Makes another directory with the same content: links for tables, which RocksDB never
    /// changes, copies for the few small files that it does.
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

/// Makes the content of a file durable.
pub(super) fn sync_file(path: &Path) -> Result<(), StorageError> {
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

    /// Removes the newest at once, also if it is being sent: what it holds is wrong.
    pub fn remove_newest(&mut self) -> Result<(), StorageError> {
        match self.newest.take() {
            Some(newest) => files::remove_dir(newest.path()),
            None => Ok(()),
        }
    }

    /// Gives a directory that is complete but for its manifest its place and name. The older of it
    /// and the newest so far goes.
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
        while files::exists(&path) {
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

/// The whole snapshots of a directory that no node works on, oldest first. Changes nothing.
pub(super) fn list(dir: &Path) -> Result<Vec<SnapshotData>, StorageError> {
    let mut found: Vec<SnapshotData> = published(dir)?.iter().filter_map(|at| load(at)).collect();
    found.sort_by_key(|data| data.manifest().meta.last_log_id);
    Ok(found)
}

/// Fails with the first snapshot of a directory that is not whole.
pub(super) fn check_all_whole(dir: &Path) -> Result<(), StorageError> {
    for path in published(dir)? {
        if load(&path).is_none() {
            let problem = "its manifest cannot be read, or a file is missing or of another size";
            return Err(StorageError::damaged(&path, problem));
        }
    }
    Ok(())
}

/// Where snapshots are that were once whole.
fn published(dir: &Path) -> Result<Vec<PathBuf>, StorageError> {
    if !files::exists(dir) {
        return Ok(Vec::new());
    }
    let unfinished =
        |name: &str| name.starts_with(RECEIVING_PREFIX) || name.starts_with(MAKING_PREFIX);
    let names = files::names(dir)?.into_iter();
    let names = names.filter(|name| !unfinished(name));
    Ok(names.map(|name| dir.join(name)).collect())
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
        let mut huge = manifest(&["1.sst", "2.sst"]);
        huge.files[0].size = u64::MAX;
        assert!(Manifest::decode(&huge.encode()).is_err());
    }
}
