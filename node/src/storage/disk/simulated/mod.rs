//! A disk in memory, for simulations: what was not synced is lost at a crash as its seed says.
//!
//! A disk holds all paths under its root while it is [attached](attach) to this thread; a
//! simulation runs in one. What it does worse than a good disk is told by [`Faults`].
//!
//! - [`Disk::kill`]: the process dies. The system goes on and writes everything, so nothing that
//!   was written is lost; only what the process held in memory is.
//! - [`Disk::cut`]: the power goes. Of what was not synced a first part is there, of each file for
//!   itself, and of the write behind it a first part of its bytes.
//!
//! In both cases everything fails from there on, so that a process that is still being taken down
//! changes nothing, until [`Disk::start`].

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

mod handle;
mod random;
mod rows;
mod tree;

pub use handle::Handle;
pub use random::Random;
pub use rows::{Batch, KeyValue, Rows};

use tree::{Node, Tree};

thread_local! {
    static ATTACHED: RefCell<BTreeMap<PathBuf, Disk>> = const { RefCell::new(BTreeMap::new()) };
}

/// Puts a disk in the place of the machine's for all paths under its root, on this thread.
pub fn attach(disk: &Disk) {
    ATTACHED.with_borrow_mut(|disks| disks.insert(disk.root.to_path_buf(), disk.clone()));
}

/// Takes all disks away from this thread.
pub fn detach_all() {
    ATTACHED.with_borrow_mut(BTreeMap::clear);
}

/// The simulated disk that a path is on.
pub fn disk_of(path: &Path) -> Option<Disk> {
    ATTACHED.with_borrow(|disks| {
        let mut below = disks.iter();
        below
            .find(|(root, _)| path.starts_with(root))
            .map(|(_, disk)| disk.clone())
    })
}

/// Whether a path is on a simulated disk.
pub fn is_simulated(path: &Path) -> bool {
    disk_of(path).is_some()
}

/// How long the disk under `path` takes for a sync; nothing on the machine's own, which takes the
/// time by itself.
pub fn sync_time(path: &Path) -> Duration {
    disk_of(path).map_or(Duration::ZERO, |disk| disk.sync_time())
}

/// What a disk does worse than a good one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// A sync takes up to so long.
    pub sync_time_max: Duration,
    /// Nothing more can be written once so many bytes are.
    pub capacity_bytes: Option<u64>,
    /// One in so many syncs of files fails.
    pub failing_syncs: Option<u64>,
    /// It says yes to every sync and does nothing.
    pub lying_syncs: bool,
    /// The power goes at the operation that many operations from now.
    pub cut_after: Option<u64>,
}

/// A simulated disk; copies are the same disk.
#[derive(Debug, Clone)]
pub struct Disk {
    root: Arc<Path>,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    tree: Tree,
    random: Random,
    faults: Faults,
    locks: BTreeSet<PathBuf>,
    /// How often it was started. A handle of an earlier start is dead.
    boot: u64,
    on: bool,
    /// What it has done, for reports.
    counts: Counts,
}

/// What a disk has done and suffered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Operations that change something.
    pub changes: u64,
    /// Syncs of files and directories that went well.
    pub syncs: u64,
    /// Syncs that failed.
    pub failed_syncs: u64,
    /// Writes that found no room.
    pub full: u64,
    /// Deaths of the process.
    pub kills: u64,
    /// Power cuts.
    pub cuts: u64,
}

fn gone() -> io::Error {
    io::Error::other("simulated: the process that had this disk is dead")
}

fn missing(path: &Path) -> io::Error {
    let text = format!("simulated: {} is not there", path.display());
    io::Error::new(ErrorKind::NotFound, text)
}

impl Disk {
    /// An empty disk that holds what is under `root`.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>, seed: u64) -> Self {
        let root: PathBuf = root.into();
        let inner = Inner {
            tree: Tree::new(&root),
            random: Random::new(seed),
            faults: Faults::default(),
            locks: BTreeSet::new(),
            boot: 0,
            on: true,
            counts: Counts::default(),
        };
        Self {
            root: root.into(),
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it is.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.inner().faults
    }

    /// How it is from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.inner().faults = faults;
    }

    /// What it has done.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.inner().counts
    }

    /// Whether it works. One whose power has gone by [`Faults::cut_after`] does not.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.inner().on
    }

    /// The process dies.
    pub fn kill(&self) {
        let mut inner = self.inner();
        inner.counts.kills += u64::from(inner.on);
        inner.on = false;
    }

    /// The power goes.
    pub fn cut(&self) {
        self.inner().cut();
    }

    /// Another process may use it.
    pub fn start(&self) {
        let mut inner = self.inner();
        inner.locks.clear();
        inner.boot += 1;
        inner.on = true;
    }

    /// All that was on it is gone: another disk is in its place.
    pub fn wipe(&self) {
        self.inner().tree = Tree::new(&self.root);
    }

    /// Whether there is a file or directory of which the name begins so.
    #[must_use]
    pub fn has_name(&self, begin: &str) -> bool {
        self.inner().tree.has_name(begin)
    }

    fn sync_time(&self) -> Duration {
        let mut inner = self.inner();
        match u64::try_from(inner.faults.sync_time_max.as_micros()) {
            Ok(max) if max > 0 => Duration::from_micros(inner.random.below(max)),
            _ => Duration::ZERO,
        }
    }

    /// One time in `of`, by the disk's seed.
    fn one_in(&self, of: u64) -> bool {
        self.inner().random.chance(1, of)
    }

    pub(super) fn open(&self, path: &Path, create: bool, truncate: bool) -> io::Result<Handle> {
        let mut inner = self.inner();
        inner.check()?;
        let node = match inner.tree.find(path) {
            Some(Node::File(file)) if truncate && !inner.tree.bytes(file).is_empty() => {
                inner.begin_change(0)?;
                inner.tree.truncate(file, 0);
                Node::File(file)
            }
            Some(node) => node,
            None if create => {
                inner.has_parent(path)?;
                inner.begin_change(0)?;
                Node::File(inner.tree.add_file(path))
            }
            None => return Err(missing(path)),
        };
        Ok(Handle::new(self.clone(), path, node, inner.boot))
    }

    pub(super) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let inner = self.inner();
        inner.check()?;
        match inner.tree.find(path) {
            Some(Node::File(file)) => Ok(inner.tree.bytes(file).to_vec()),
            _ => Err(missing(path)),
        }
    }

    pub(super) fn len(&self, path: &Path) -> io::Result<u64> {
        let inner = self.inner();
        inner.check()?;
        match inner.tree.find(path) {
            Some(Node::File(file)) => Ok(inner.tree.bytes(file).len() as u64),
            Some(Node::Directory) => Ok(0),
            None => Err(missing(path)),
        }
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.check()?;
        inner.tree.find(from).ok_or_else(|| missing(from))?;
        inner.has_parent(to)?;
        inner.begin_change(0)?;
        inner.tree.rename(from, to);
        Ok(())
    }

    pub(super) fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.check()?;
        let Some(Node::File(file)) = inner.tree.find(from) else {
            return Err(missing(from));
        };
        if inner.tree.find(to).is_some() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        inner.has_parent(to)?;
        inner.begin_change(0)?;
        inner.tree.add_link(to, file);
        Ok(())
    }

    pub(super) fn copy(&self, from: &Path, to: &Path) -> io::Result<u64> {
        let bytes = self.read(from)?;
        self.open(to, true, true)?.write_at(&bytes, 0)?;
        Ok(bytes.len() as u64)
    }

    pub(super) fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.check()?;
        let mut wanted: Vec<&Path> = path.ancestors().collect();
        wanted.retain(|path| path.starts_with(&self.root));
        for path in wanted.into_iter().rev() {
            match inner.tree.find(path) {
                Some(Node::Directory) => {}
                Some(Node::File(_)) => return Err(ErrorKind::AlreadyExists.into()),
                None => {
                    inner.begin_change(0)?;
                    inner.tree.add_directory(path);
                }
            }
        }
        Ok(())
    }

    pub(super) fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.check()?;
        inner.tree.find(path).ok_or_else(|| missing(path))?;
        inner.begin_change(0)?;
        inner.tree.remove(path);
        Ok(())
    }

    pub(super) fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.remove_dir_all(path)
    }

    pub(super) fn names(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let inner = self.inner();
        inner.check()?;
        inner.tree.find(path).ok_or_else(|| missing(path))?;
        let children = inner.tree.children(path);
        let names = children.filter_map(|child| child.file_name());
        Ok(names.map(OsString::from).collect())
    }
}

impl Inner {
    fn check(&self) -> io::Result<()> {
        match self.on {
            true => Ok(()),
            false => Err(gone()),
        }
    }

    fn has_parent(&self, path: &Path) -> io::Result<()> {
        let parent = path.parent().unwrap_or(path);
        match self.tree.find(parent) {
            Some(Node::Directory) => Ok(()),
            _ => Err(missing(parent)),
        }
    }

    /// Before every change: there may be no room, and the power may go.
    fn begin_change(&mut self, grows_by: u64) -> io::Result<()> {
        self.check()?;
        if let Some(left) = &mut self.faults.cut_after {
            match left.checked_sub(1) {
                Some(fewer) => *left = fewer,
                None => {
                    self.faults.cut_after = None;
                    self.cut();
                    return Err(gone());
                }
            }
        }
        if let Some(capacity) = self.faults.capacity_bytes
            && self.tree.used_bytes() + grows_by > capacity
        {
            self.counts.full += 1;
            return Err(io::Error::new(
                ErrorKind::StorageFull,
                "simulated: no space left on device",
            ));
        }
        self.counts.changes += 1;
        Ok(())
    }

    fn cut(&mut self) {
        self.counts.cuts += 1;
        self.on = false;
        self.tree.cut(&mut self.random);
    }

    fn sync(&mut self, path: &Path, node: Node) -> io::Result<()> {
        self.begin_change(0)?;
        if self.faults.lying_syncs {
            return Ok(());
        }
        let Node::File(file) = node else {
            self.counts.syncs += 1;
            self.tree.sync_directory(path);
            return Ok(());
        };
        if let Some(of) = self.faults.failing_syncs
            && self.random.chance(1, of)
        {
            self.counts.failed_syncs += 1;
            self.tree.fail_sync_of_file(file, &mut self.random);
            return Err(io::Error::other("simulated: input/output error of a sync"));
        }
        self.counts.syncs += 1;
        self.tree.sync_file(file);
        Ok(())
    }
}
