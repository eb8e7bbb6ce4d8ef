//! The data directory: whose it is, which build may read it, and that one process works on it.
//!
//! ```text
//! LOCK        held by the running process
//! identity    format version, cluster id, node id, name
//! log/        RocksDB: entries, vote, purge mark
//! acked       how far the log was on disk when it was last acknowledged
//! current     which state directory holds
//! state-<n>/  RocksDB: the rows of the state machine and the applied index
//! snapshots/  checkpoints of the state, and one that is being received
//! quarantine  only while the state is not to be trusted: why
//! ```

use std::path::{Path, PathBuf};

use quorate_statemachine::codec as rows;
use serde::{Deserialize, Serialize};

use super::codec::take_u8;
use super::disk::fs::{File, OpenOptions, TryLockError};
use super::error::StorageError;
use super::files;
use super::mark::QuarantineMark;

/// The directory format that this build writes, and the newest it reads.
pub const FORMAT_VERSION: u8 = 1;

const LOCK: &str = "LOCK";
const IDENTITY: &str = "identity";
const LOG: &str = "log";
const ACKED: &str = "acked";
const CURRENT: &str = "current";
const STATE_PREFIX: &str = "state-";
const SNAPSHOTS: &str = "snapshots";
const QUARANTINE: &str = "quarantine";

/// Which node a directory belongs to. Written once, never changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The cluster.
    pub cluster_id: String,
    /// The node in it; ids are never used again.
    pub node_id: u64,
    /// The node's name, for people.
    pub name: String,
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            cluster_id,
            node_id,
            name,
        } = self;
        write!(f, "node {node_id} ({name}) of cluster {cluster_id}")
    }
}

/// A data directory that this process holds, until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    identity: Option<Identity>,
    /// The lock ends when the file is closed, also by a crash.
    _lock: File,
}

impl DataDir {
    /// Opens or creates the directory and locks it.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StorageError> {
        let path = path.into();
        files::create_dir(&path)?;
        refuse_foreign(&path)?;
        let lock = lock(&path)?;
        let identity = read_identity(&path.join(IDENTITY))?;
        if identity.is_none()
            && (files::exists(&path.join(LOG)) || files::exists(&path.join(ACKED)))
        {
            let problem = "the file is missing, but there is a log beside it";
            return Err(StorageError::damaged(&path.join(IDENTITY), problem));
        }
        Ok(Self {
            path,
            identity,
            _lock: lock,
        })
    }

    /// Opens the directory of a member that is stopped, and locks it. Makes nothing.
    pub(super) fn open_existing(path: &Path) -> Result<(Self, Identity), StorageError> {
        let identity = path.join(IDENTITY);
        if !files::exists(&identity) {
            let source = std::io::Error::from(std::io::ErrorKind::NotFound);
            return Err(StorageError::io("find", &identity)(source));
        }
        let dir = Self::open(path)?;
        match dir.identity().cloned() {
            Some(identity) => Ok((dir, identity)),
            None => Err(StorageError::NoIdentity {
                path: path.to_owned(),
            }),
        }
    }

    /// Whose directory it is; `None` for a new one.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Refuses the directory of a node of another name than `configured`; empty is any name.
    pub fn check_name(&self, configured: &str) -> Result<(), StorageError> {
        match &self.identity {
            Some(existing) if !configured.is_empty() && existing.name != configured => {
                Err(StorageError::OtherName {
                    path: self.path.clone(),
                    existing: existing.to_string(),
                    configured: configured.to_owned(),
                })
            }
            _ => Ok(()),
        }
    }

    /// Makes a new directory this node's. Again with the same identity changes nothing; with
    /// another it is refused.
    pub fn set_identity(&mut self, identity: Identity) -> Result<(), StorageError> {
        let path = self.path.join(IDENTITY);
        match &self.identity {
            Some(existing) if *existing == identity => return Ok(()),
            Some(existing) => {
                return Err(StorageError::OtherIdentity {
                    path,
                    existing: existing.to_string(),
                    wanted: identity.to_string(),
                });
            }
            None => {}
        }
        files::replace(&path, &encode_identity(&identity))?;
        self.identity = Some(identity);
        Ok(())
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where its snapshots are.
    #[must_use]
    pub fn snapshots(&self) -> PathBuf {
        snapshots_of(&self.path)
    }

    /// Where it stands that its state is not to be trusted.
    #[must_use]
    pub fn quarantine(&self) -> QuarantineMark {
        QuarantineMark::new(self.path.join(QUARANTINE))
    }

    pub(super) fn log(&self) -> PathBuf {
        self.path.join(LOG)
    }

    pub(super) fn acked(&self) -> PathBuf {
        self.path.join(ACKED)
    }
}

pub(super) fn current_of(dir: &Path) -> PathBuf {
    dir.join(CURRENT)
}

pub(super) fn state_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{STATE_PREFIX}{number}"))
}

/// The number of a state directory, if the name is one's.
pub(super) fn state_number(name: &str) -> Option<u64> {
    name.strip_prefix(STATE_PREFIX)?.parse().ok()
}

pub(super) fn snapshots_of(dir: &Path) -> PathBuf {
    dir.join(SNAPSHOTS)
}

/// A directory without identity may hold only what a crash of ours can have left there.
fn refuse_foreign(path: &Path) -> Result<(), StorageError> {
    let names = files::names(path)?;
    if names.iter().any(|name| name == IDENTITY) {
        return Ok(());
    }
    let ours = [
        LOCK,
        LOG,
        ACKED,
        CURRENT,
        SNAPSHOTS,
        "identity.tmp",
        "lost+found",
    ];
    let known = |name: &str| ours.contains(&name) || state_number(name).is_some();
    match names.into_iter().find(|name| !known(name)) {
        None => Ok(()),
        Some(found) => Err(StorageError::Foreign {
            path: path.to_owned(),
            found,
        }),
    }
}

fn lock(dir: &Path) -> Result<File, StorageError> {
    let path = dir.join(LOCK);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(StorageError::io("write to", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StorageError::Locked {
            path: dir.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(StorageError::io("lock", &path)(error)),
    }
}

/// `[format version u8][identity][crc32c u32]`: the version comes first and outside of everything,
/// so that any build can read it.
fn encode_identity(identity: &Identity) -> Vec<u8> {
    let mut out = vec![FORMAT_VERSION];
    rows::put(&mut out, identity);
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

fn read_identity(path: &Path) -> Result<Option<Identity>, StorageError> {
    let Some(bytes) = files::read(path)? else {
        return Ok(None);
    };
    let found = take_u8(&mut &bytes[..]).unwrap_or_default();
    if found > FORMAT_VERSION {
        return Err(StorageError::NewerFormat {
            path: path.to_owned(),
            found,
            supported: FORMAT_VERSION,
        });
    }
    let identity = check_identity(&bytes)
        .ok_or_else(|| StorageError::damaged(path, "the identity does not match its checksum"))?;
    Ok(Some(identity))
}

fn check_identity(bytes: &[u8]) -> Option<Identity> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return None;
    }
    rows::take_last(body.get(1..)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn identity() -> Identity {
        Identity {
            cluster_id: "c".to_owned(),
            node_id: 7,
            name: "n7".to_owned(),
        }
    }

    fn message(result: Result<DataDir, StorageError>) -> String {
        result.expect_err("refused").to_string()
    }

    #[test]
    fn the_identity_outlives_the_process_and_never_changes() {
        let temp = tempfile::tempdir().expect("a directory");
        let mut dir = DataDir::open(temp.path().join("a/b")).expect("created");
        assert_eq!(dir.identity(), None);
        dir.set_identity(identity()).expect("written");
        dir.set_identity(identity()).expect("the same again");
        let other = Identity {
            node_id: 8,
            ..identity()
        };
        let refused = dir.set_identity(other).expect_err("another").to_string();
        assert!(
            refused.contains("node 7 (n7) of cluster c, not to node 8"),
            "{refused}"
        );
        drop(dir);
        let dir = DataDir::open(temp.path().join("a/b")).expect("opened");
        assert_eq!(dir.identity(), Some(&identity()));
    }

    #[test]
    fn bytes_of_the_identity_are_pinned() {
        let bytes = encode_identity(&identity());
        assert_eq!(bytes[..7], [1, 1, b'c', 7, 2, b'n', b'7']);
        assert_eq!(bytes[7..], crc32c::crc32c(&bytes[..7]).to_le_bytes());
    }

    #[test]
    fn a_second_opener_is_refused() {
        let temp = tempfile::tempdir().expect("a directory");
        let first = DataDir::open(temp.path()).expect("opened");
        assert!(message(DataDir::open(temp.path())).contains("in use by another process"));
        drop(first);
        DataDir::open(temp.path()).expect("free again");
    }

    #[test]
    fn a_foreign_directory_is_refused_and_left_alone() {
        let temp = tempfile::tempdir().expect("a directory");
        fs::write(temp.path().join("thesis.txt"), b"years of work").expect("written");
        let text = message(DataDir::open(temp.path()));
        assert!(
            text.contains("thesis.txt") && text.contains("empty directory"),
            "{text}"
        );
        assert_eq!(files::names(temp.path()).expect("listed"), ["thesis.txt"]);
    }

    #[test]
    fn a_newer_format_says_both_versions() {
        let temp = tempfile::tempdir().expect("a directory");
        fs::write(temp.path().join(IDENTITY), [9, 1, 2, 3]).expect("written");
        let text = message(DataDir::open(temp.path()));
        assert!(
            text.contains("format version 9") && text.contains("up to 1"),
            "{text}"
        );
    }

    #[test]
    fn a_damaged_or_missing_identity_is_refused() {
        let temp = tempfile::tempdir().expect("a directory");
        let mut bytes = encode_identity(&identity());
        bytes[3] ^= 1;
        fs::write(temp.path().join(IDENTITY), &bytes).expect("written");
        assert!(message(DataDir::open(temp.path())).contains("checksum"));
        fs::remove_file(temp.path().join(IDENTITY)).expect("removed");
        fs::create_dir(temp.path().join(LOG)).expect("created");
        assert!(message(DataDir::open(temp.path())).contains("identity: the file is missing"));
    }

    #[test]
    fn a_path_that_cannot_be_a_directory_is_named() {
        let temp = tempfile::tempdir().expect("a directory");
        let path = temp.path().join("file");
        fs::write(&path, b"").expect("written");
        let text = message(DataDir::open(path.join("data")));
        assert!(
            text.contains("cannot create") && text.contains("file/data"),
            "{text}"
        );
    }
}
