//! Names and contents of files, and what of them is durable.
//!
//! A name and a content become durable apart: the content by a sync of the file, the name by a sync
//! of its directory. No more is promised by POSIX, and no more is kept here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::random::Random;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    Directory,
    /// The number of a content: names that are hard links have the same.
    File(u64),
}

/// A change of names that is not durable yet.
#[derive(Debug, Clone)]
enum Change {
    Add(PathBuf, Node),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

impl Change {
    /// The directory whose sync makes it durable.
    fn directory(&self) -> Option<&Path> {
        match self {
            Self::Add(path, _) | Self::Remove(path) | Self::Rename(_, path) => path.parent(),
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        match self {
            Self::Add(path, node) => {
                names.insert(path.clone(), *node);
            }
            Self::Remove(path) => names.retain(|name, _| !name.starts_with(path)),
            Self::Rename(from, to) => {
                let moved: Vec<_> = names
                    .iter()
                    .filter(|(name, _)| name.starts_with(from))
                    .map(|(name, node)| (name.clone(), *node))
                    .collect();
                for (name, node) in moved {
                    names.remove(&name);
                    let rest = name
                        .strip_prefix(from)
                        .expect("it was found by this prefix");
                    let fresh = match rest.as_os_str().is_empty() {
                        true => to.clone(),
                        false => to.join(rest),
                    };
                    names.insert(fresh, node);
                }
            }
        }
    }
}

/// A change of a content that is not durable yet.
#[derive(Debug, Clone)]
enum Write {
    At(usize, Vec<u8>),
    Truncate(usize),
}

impl Write {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::At(offset, written) => put(bytes, *offset, written),
            Self::Truncate(length) => bytes.truncate(*length),
        }
    }

    /// A first part of it, as a power cut in the middle leaves it.
    fn torn(self, random: &mut Random) -> Self {
        match self {
            Self::At(offset, mut written) => {
                written.truncate(random.below(written.len() as u64 + 1) as usize);
                Self::At(offset, written)
            }
            truncate @ Self::Truncate(_) => truncate,
        }
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, written: &[u8]) {
    let end = offset + written.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(written);
}

/// The content of a file.
#[derive(Debug, Default)]
struct Content {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// What leads from the durable content to the live one.
    writes: Vec<Write>,
}

impl Content {
    fn change(&mut self, write: Write) {
        write.apply(&mut self.live);
        self.writes.push(write);
    }

    fn sync(&mut self) {
        for write in self.writes.drain(..) {
            write.apply(&mut self.durable);
        }
    }

    /// A sync that failed: each write is on the disk or not, and the system takes all for written,
    /// so that no later sync writes them (Rebello et al., 2020).
    fn fail_sync(&mut self, random: &mut Random) {
        for write in self.writes.drain(..) {
            if random.chance(1, 2) {
                write.apply(&mut self.durable);
            }
        }
    }

    /// The power goes: a first part of what was not synced is there, and the last of it is torn.
    fn cut(&mut self, random: &mut Random) {
        let kept = random.below(self.writes.len() as u64 + 1) as usize;
        let mut writes = std::mem::take(&mut self.writes).into_iter();
        for write in writes.by_ref().take(kept) {
            write.apply(&mut self.durable);
        }
        if let Some(next) = writes.next() {
            next.torn(random).apply(&mut self.durable);
        }
        self.live = self.durable.clone();
    }
}

/// All files of a disk.
#[derive(Debug, Default)]
pub struct Tree {
    live: BTreeMap<PathBuf, Node>,
    durable: BTreeMap<PathBuf, Node>,
    /// What leads from the durable names to the live ones, in order.
    changes: Vec<Change>,
    contents: BTreeMap<u64, Content>,
    made: u64,
}

impl Tree {
    /// A disk with one directory, which is durable.
    pub fn new(root: &Path) -> Self {
        let mut tree = Self::default();
        tree.live.insert(root.to_owned(), Node::Directory);
        tree.durable = tree.live.clone();
        tree
    }

    pub fn find(&self, path: &Path) -> Option<Node> {
        self.live.get(path).copied()
    }

    /// Names directly in a directory.
    pub fn children<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = &'a Path> + 'a {
        let below = self.live.range(path.to_owned()..);
        below
            .map(|(name, _)| name.as_path())
            .take_while(move |name| name.starts_with(path))
            .filter(move |name| name.parent() == Some(path))
    }

    /// Whether some name in some directory begins so.
    pub fn has_name(&self, begin: &str) -> bool {
        let mut names = self.live.keys().filter_map(|path| path.file_name());
        names.any(|name| name.as_encoded_bytes().starts_with(begin.as_bytes()))
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.live);
        self.changes.push(change);
    }

    pub fn add_directory(&mut self, path: &Path) {
        self.change(Change::Add(path.to_owned(), Node::Directory));
    }

    /// A new file, empty.
    pub fn add_file(&mut self, path: &Path) -> u64 {
        self.made += 1;
        self.contents.insert(self.made, Content::default());
        self.add_link(path, self.made);
        self.made
    }

    pub fn add_link(&mut self, path: &Path, file: u64) {
        self.change(Change::Add(path.to_owned(), Node::File(file)));
    }

    pub fn remove(&mut self, path: &Path) {
        self.change(Change::Remove(path.to_owned()));
    }

    pub fn rename(&mut self, from: &Path, to: &Path) {
        self.change(Change::Rename(from.to_owned(), to.to_owned()));
    }

    pub fn bytes(&self, file: u64) -> &[u8] {
        self.contents
            .get(&file)
            .map_or(&[], |content| &content.live)
    }

    fn content(&mut self, file: u64) -> &mut Content {
        self.contents.entry(file).or_default()
    }

    pub fn write(&mut self, file: u64, offset: u64, bytes: &[u8]) {
        let offset = usize::try_from(offset).expect("a simulated file is in memory");
        self.content(file).change(Write::At(offset, bytes.to_vec()));
    }

    pub fn truncate(&mut self, file: u64, length: usize) {
        self.content(file).change(Write::Truncate(length));
    }

    pub fn sync_file(&mut self, file: u64) {
        self.content(file).sync();
    }

    pub fn fail_sync_of_file(&mut self, file: u64, random: &mut Random) {
        self.content(file).fail_sync(random);
    }

    pub fn sync_directory(&mut self, path: &Path) {
        let (synced, rest) = std::mem::take(&mut self.changes)
            .into_iter()
            .partition(|change| change.directory() == Some(path));
        self.changes = rest;
        let synced: Vec<Change> = synced;
        for change in &synced {
            change.apply(&mut self.durable);
        }
    }

    /// The power goes: of what was not synced a first part is there.
    pub fn cut(&mut self, random: &mut Random) {
        let kept = random.below(self.changes.len() as u64 + 1) as usize;
        for change in std::mem::take(&mut self.changes).iter().take(kept) {
            change.apply(&mut self.durable);
        }
        self.live = self.durable.clone();
        // A name whose directory is not there cannot be found.
        let known = self.live.clone();
        let root = known.keys().next().cloned();
        self.live.retain(|name, _| {
            Some(name) == root.as_ref()
                || name
                    .ancestors()
                    .skip(1)
                    .take_while(|up| Some(*up) != root.as_deref())
                    .all(|up| known.contains_key(up))
        });
        self.durable = self.live.clone();
        let used: Vec<u64> = self.live.values().filter_map(file_of).collect();
        self.contents.retain(|file, _| used.contains(file));
        for content in self.contents.values_mut() {
            content.cut(random);
        }
    }

    /// Bytes of all files.
    pub fn used_bytes(&self) -> u64 {
        let sizes = self
            .contents
            .values()
            .map(|content| content.live.len() as u64);
        sizes.sum()
    }
}

fn file_of(node: &Node) -> Option<u64> {
    match node {
        Node::File(file) => Some(*file),
        Node::Directory => None,
    }
}
