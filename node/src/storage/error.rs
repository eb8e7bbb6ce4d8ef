//! What can be wrong with a data directory, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::disk::DatabaseError;

/// Why a store cannot be opened, or has stopped.
#[derive(Debug, Error)]
pub enum StorageError {
    /// The operating system refused something.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// With which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A database refused something.
    #[error("cannot {doing} {}: {source}", path.display())]
    Database {
        /// What was being done.
        doing: &'static str,
        /// Which database.
        path: PathBuf,
        /// What it said.
        source: DatabaseError,
    },
    /// Another process works on the directory.
    #[error(
        "{} is in use by another process; stop that one, or give this node a directory of its own",
        path.display()
    )]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The directory holds something else.
    #[error(
        "{} is not a data directory of Quorate: it holds {found:?}; give the node an empty \
         directory",
        path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// A name found in it.
        found: String,
    },
    /// A new cluster is made in an empty directory.
    #[error(
        "{} is not empty: it holds {found:?}, and nothing was changed; give an empty directory, or \
         one that does not exist",
        path.display()
    )]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// A name found in it.
        found: String,
    },
    /// A newer build wrote the directory.
    #[error(
        "{} has format version {found}, this build reads up to {supported}; start the build that \
         wrote it, or a newer one",
        path.display()
    )]
    NewerFormat {
        /// The file that says so.
        path: PathBuf,
        /// Its version.
        found: u8,
        /// The newest version that this build reads.
        supported: u8,
    },
    /// The directory belongs to another node.
    #[error(
        "{} belongs to {existing}, not to {wanted}; a directory never changes its node, give the \
         new one an empty directory",
        path.display()
    )]
    OtherIdentity {
        /// The identity file.
        path: PathBuf,
        /// Who is in it.
        existing: String,
        /// Who was to be written.
        wanted: String,
    },
    /// The directory is of a node of another name than the configured one.
    #[error(
        "{} belongs to {existing}, but node.name is {configured:?}; give this node its own \
         directory, or start it under the name that the directory has",
        path.display()
    )]
    OtherName {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        existing: String,
        /// The configured name.
        configured: String,
    },
    /// Stores were to be opened in a directory that has no identity yet.
    #[error("{} has no identity yet; found or join a cluster first", path.display())]
    NoIdentity {
        /// The directory.
        path: PathBuf,
    },
    /// What is on the disk is not what was written.
    #[error(
        "{}: {problem}; what is on this disk is damaged, so this node must not vote with it: \
         remove this member and add it again with an empty directory (`quorate member replace` \
         does both)",
        path.display()
    )]
    Damaged {
        /// The file or database.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The store has failed before, and what it was doing then may or may not be on disk.
    #[error("the store has stopped: {0}; correct the cause and start the node again")]
    Stopped(String),
}

impl StorageError {
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            doing,
            path,
            source,
        }
    }

    pub(super) fn database(doing: &'static str, path: &Path) -> impl FnOnce(DatabaseError) -> Self {
        let path = path.to_owned();
        move |source| match source.damaged {
            true => Self::Damaged {
                path,
                problem: source.message,
            },
            false => Self::Database {
                doing,
                path,
                source,
            },
        }
    }

    pub(super) fn damaged(path: &Path, problem: impl Into<String>) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            problem: problem.into(),
        }
    }
}

impl From<StorageError> for io::Error {
    fn from(error: StorageError) -> Self {
        Self::other(error)
    }
}
