//! An open file of a simulated disk.

use std::fs::TryLockError;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicBool, Ordering};

use super::tree::Node;
use super::{Disk, Inner, gone};

/// A file or a directory that is open. It is dead once its disk was started again.
#[derive(Debug)]
pub struct Handle {
    disk: Disk,
    path: PathBuf,
    node: Node,
    boot: u64,
    /// Where the next read or write without an offset is.
    at: u64,
    /// Whether it has the lock of its file.
    locked: AtomicBool,
}

impl Handle {
    pub(super) fn new(disk: Disk, path: &Path, node: Node, boot: u64) -> Self {
        Self {
            disk,
            path: path.to_owned(),
            node,
            boot,
            at: 0,
            locked: AtomicBool::new(false),
        }
    }

    fn alive(&self) -> io::Result<MutexGuard<'_, Inner>> {
        let inner = self.disk.inner();
        match inner.on && inner.boot == self.boot {
            true => Ok(inner),
            false => Err(gone()),
        }
    }

    fn file(&self) -> io::Result<u64> {
        match self.node {
            Node::File(file) => Ok(file),
            Node::Directory => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    pub fn sync(&self) -> io::Result<()> {
        self.alive()?.sync(&self.path, self.node)
    }

    /// Fails while another handle of the same process has locked it, as `flock` does.
    pub fn try_lock(&self) -> Result<(), TryLockError> {
        let mut inner = self.alive().map_err(TryLockError::Error)?;
        if !inner.locks.insert(self.path.clone()) {
            return Err(TryLockError::WouldBlock);
        }
        self.locked.store(true, Ordering::Relaxed);
        Ok(())
    }

    pub fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let inner = self.alive()?;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let found = inner.tree.bytes(self.file()?);
        let found = found.get(start..start.saturating_add(bytes.len()));
        bytes.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    pub fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let file = self.file()?;
        let mut inner = self.alive()?;
        let grows_by =
            (offset + bytes.len() as u64).saturating_sub(inner.tree.bytes(file).len() as u64);
        inner.begin_change(grows_by)?;
        inner.tree.write(file, offset, bytes);
        Ok(())
    }

    pub fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let length = {
            let inner = self.alive()?;
            let start = usize::try_from(self.at).map_err(io::Error::other)?;
            let found = inner.tree.bytes(self.file()?);
            let rest = found.get(start..).unwrap_or_default();
            let length = rest.len().min(bytes.len());
            bytes[..length].copy_from_slice(&rest[..length]);
            length
        };
        self.at += length as u64;
        Ok(length)
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
        Ok(())
    }
}

impl Drop for Handle {
    /// A lock ends with the handle that has it.
    fn drop(&mut self) {
        if self.locked.load(Ordering::Relaxed)
            && let Ok(mut inner) = self.alive()
        {
            inner.locks.remove(&self.path);
        }
    }
}
