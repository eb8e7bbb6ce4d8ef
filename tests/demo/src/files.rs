//! The files to hash, and their digests by another program.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use quorate_client::statemachine::Name;
use tokio::process::Command;

/// Paths given to one `sha256sum`: far below the longest command line (2 MiB) at 4 KiB a path.
const PATHS_PER_COMMAND: usize = 256;

/// A file as it was when it was listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    bytes: u64,
    modified: Option<SystemTime>,
}

/// The files of a tree.
#[derive(Debug, Default)]
pub struct Tree {
    /// By path.
    pub files: BTreeMap<String, Found>,
    /// Symbolic links, not followed.
    pub symlinks: usize,
    /// Files and directories that this user may not read.
    pub unreadable: usize,
    /// Neither file nor directory, or a path that is no name for the cluster.
    pub other: usize,
}

/// Lists the files below `dir`, at most `limit`; 0 for all.
pub fn list(dir: &Path, limit: usize) -> Result<Tree> {
    let dir = dir
        .canonicalize()
        .with_context(|| format!("DIR {}", dir.display()))?;
    let mut tree = Tree::default();
    let mut left = vec![dir];
    while let Some(dir) = left.pop() {
        let Ok(entries) = fs::read_dir(&dir) else {
            tree.unreadable += 1;
            continue;
        };
        for entry in entries.flatten() {
            if limit != 0 && tree.files.len() >= limit {
                return Ok(tree);
            }
            tree.add(entry.path(), &mut left);
        }
    }
    Ok(tree)
}

impl Tree {
    /// What was not put into the queue.
    pub fn skipped(&self) -> usize {
        self.symlinks + self.unreadable + self.other
    }

    fn add(&mut self, path: PathBuf, left: &mut Vec<PathBuf>) {
        let Ok(facts) = fs::symlink_metadata(&path) else {
            self.unreadable += 1;
            return;
        };
        if facts.is_dir() {
            return left.push(path);
        }
        if facts.is_symlink() {
            self.symlinks += 1;
        } else if !facts.is_file() {
            self.other += 1;
        } else if File::open(&path).is_err() {
            self.unreadable += 1;
        } else if let Some(name) = as_name(&path) {
            self.files.insert(name, Found::from(&facts));
        } else {
            self.other += 1;
        }
    }
}

/// A path is its item's dedupe key, which must be text without control characters, 512 bytes at
/// most.
fn as_name(path: &Path) -> Option<String> {
    let name = Name::parse("dedupe_key", path.to_str()?).ok()?;
    Some(name.into())
}

impl Found {
    /// Whether the file at `path` is not as it was any more.
    pub fn has_changed(&self, path: &str) -> bool {
        !fs::symlink_metadata(path).is_ok_and(|facts| Self::from(&facts) == *self)
    }
}

impl From<&Metadata> for Found {
    fn from(facts: &Metadata) -> Self {
        Self {
            bytes: facts.len(),
            modified: facts.modified().ok(),
        }
    }
}

/// The digests of `paths` by `sha256sum`, which shares no code with the workers. What it cannot
/// read is missing.
pub async fn sha256sum(paths: &[&String]) -> Result<BTreeMap<String, String>> {
    let mut digests = BTreeMap::new();
    for some in paths.chunks(PATHS_PER_COMMAND) {
        let output = Command::new("sha256sum")
            .arg("--zero")
            .arg("--")
            .args(some)
            .output();
        let output = output.await.context("sha256sum (of coreutils)")?;
        let text = String::from_utf8(output.stdout).context("what sha256sum says")?;
        for line in text.split_terminator('\0') {
            // Digest, a space, the mode, the path.
            let Some((digest, path)) = line.split_at_checked(64) else {
                bail!("sha256sum says {line:?}, and not a digest and a path");
            };
            let path = path.get(2..).unwrap_or_default();
            digests.insert(path.to_owned(), digest.to_owned());
        }
    }
    Ok(digests)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_names_that_are_no_text_are_counted_and_not_listed() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("sub")).expect("a directory");
        fs::write(at("sub/a b"), "1").expect("a file");
        fs::write(at("new\nline"), "2").expect("a file");
        std::os::unix::fs::symlink(at("sub/a b"), at("link")).expect("a link");
        let tree = list(dir.path(), 0).expect("listed");
        assert_eq!(tree.files.len(), 1);
        assert_eq!((tree.symlinks, tree.unreadable, tree.other), (1, 0, 1));
        assert_eq!(tree.skipped(), 2);
    }

    #[test]
    fn a_file_that_was_written_has_changed() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a");
        fs::write(&path, "1").expect("a file");
        let tree = list(dir.path(), 0).expect("listed");
        let (name, found) = tree.files.first_key_value().expect("one file");
        assert!(!found.has_changed(name));
        fs::write(&path, "12").expect("written");
        assert!(found.has_changed(name));
        fs::remove_file(&path).expect("removed");
        assert!(found.has_changed(name));
    }

    #[tokio::test]
    async fn the_digests_are_those_of_the_standard_and_missing_files_are_missing() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a 'b'").to_string_lossy().into_owned();
        fs::write(&path, "abc").expect("a file");
        let gone = dir.path().join("gone").to_string_lossy().into_owned();
        let digests = sha256sum(&[&path, &gone]).await.expect("sha256sum");
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digests.get(&path).map(String::as_str), Some(abc));
        assert_eq!(digests.len(), 1);
    }
}
