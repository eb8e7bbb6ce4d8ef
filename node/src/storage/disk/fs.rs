//! Files on the machine's disk or on a simulated one, told apart by their paths. Names and meaning
//! are those of the standard library; there is only what the stores use.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::Path;

pub use std::fs::TryLockError;

use super::simulated::{Handle, disk_of};

/// A file or a directory that is open.
#[derive(Debug)]
pub enum File {
    /// On the machine's disk.
    Machine(std::fs::File),
    /// On a simulated one.
    Simulated(Handle),
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenOptions {
    create: bool,
    truncate: bool,
    write: bool,
}

/// What is known of a file.
#[derive(Debug, Clone, Copy)]
pub struct Metadata {
    len: u64,
}

/// A name in a directory.
pub struct DirEntry(OsString);

/// Names in a directory.
pub type ReadDir = Box<dyn Iterator<Item = io::Result<DirEntry>>>;

/// Reading and writing at a place.
pub trait FileExt {
    /// Fills `bytes` from `offset` on.
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes `bytes` from `offset` on.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
}

impl Metadata {
    pub fn len(&self) -> u64 {
        self.len
    }
}

impl DirEntry {
    pub fn file_name(&self) -> OsString {
        self.0.clone()
    }
}

impl OpenOptions {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn create(&mut self, create: bool) -> &mut Self {
        self.create = create;
        self
    }

    pub fn truncate(&mut self, truncate: bool) -> &mut Self {
        self.truncate = truncate;
        self
    }

    pub fn write(&mut self, write: bool) -> &mut Self {
        self.write = write;
        self
    }

    pub fn open(&self, path: impl AsRef<Path>) -> io::Result<File> {
        let path = path.as_ref();
        if let Some(disk) = disk_of(path) {
            let opened = disk.open(path, self.create, self.truncate);
            return opened.map(File::Simulated);
        }
        let mut options = std::fs::OpenOptions::new();
        options.create(self.create).truncate(self.truncate);
        options.write(self.write).read(!self.write);
        options.open(path).map(File::Machine)
    }
}

impl File {
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        OpenOptions::new().open(path)
    }

    pub fn create(path: impl AsRef<Path>) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.create(true).truncate(true).write(true).open(path)
    }

    pub fn sync_all(&self) -> io::Result<()> {
        match self {
            Self::Machine(file) => file.sync_all(),
            Self::Simulated(file) => file.sync(),
        }
    }

    pub fn sync_data(&self) -> io::Result<()> {
        match self {
            Self::Machine(file) => file.sync_data(),
            Self::Simulated(file) => file.sync(),
        }
    }

    pub fn try_lock(&self) -> Result<(), TryLockError> {
        match self {
            Self::Machine(file) => file.try_lock(),
            Self::Simulated(file) => file.try_lock(),
        }
    }
}

impl FileExt for File {
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Self::Machine(file) => std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset),
            Self::Simulated(file) => file.read_exact_at(bytes, offset),
        }
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match self {
            Self::Machine(file) => std::os::unix::fs::FileExt::write_all_at(file, bytes, offset),
            Self::Simulated(file) => file.write_at(bytes, offset),
        }
    }
}

impl Read for File {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Machine(file) => file.read(bytes),
            Self::Simulated(file) => file.read(bytes),
        }
    }
}

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Machine(file) => file.write(bytes),
            Self::Simulated(file) => file.write(bytes).map(|()| bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    match disk_of(path.as_ref()) {
        Some(disk) => disk.read(path.as_ref()),
        None => std::fs::read(path),
    }
}

pub fn metadata(path: impl AsRef<Path>) -> io::Result<Metadata> {
    let len = match disk_of(path.as_ref()) {
        Some(disk) => disk.len(path.as_ref())?,
        None => std::fs::metadata(path)?.len(),
    };
    Ok(Metadata { len })
}

pub fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
    match disk_of(from.as_ref()) {
        Some(disk) => disk.rename(from.as_ref(), to.as_ref()),
        None => std::fs::rename(from, to),
    }
}

pub fn hard_link(from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
    match disk_of(from.as_ref()) {
        Some(disk) => disk.hard_link(from.as_ref(), to.as_ref()),
        None => std::fs::hard_link(from, to),
    }
}

pub fn copy(from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<u64> {
    match disk_of(from.as_ref()) {
        Some(disk) => disk.copy(from.as_ref(), to.as_ref()),
        None => std::fs::copy(from, to),
    }
}

pub fn create_dir_all(path: impl AsRef<Path>) -> io::Result<()> {
    match disk_of(path.as_ref()) {
        Some(disk) => disk.create_dir_all(path.as_ref()),
        None => std::fs::create_dir_all(path),
    }
}

pub fn remove_dir_all(path: impl AsRef<Path>) -> io::Result<()> {
    match disk_of(path.as_ref()) {
        Some(disk) => disk.remove_dir_all(path.as_ref()),
        None => std::fs::remove_dir_all(path),
    }
}

pub fn remove_file(path: impl AsRef<Path>) -> io::Result<()> {
    match disk_of(path.as_ref()) {
        Some(disk) => disk.remove_file(path.as_ref()),
        None => std::fs::remove_file(path),
    }
}

pub fn read_dir(path: impl AsRef<Path>) -> io::Result<ReadDir> {
    if let Some(disk) = disk_of(path.as_ref()) {
        let names = disk.names(path.as_ref())?.into_iter();
        return Ok(Box::new(names.map(|name| Ok(DirEntry(name)))));
    }
    let entries = std::fs::read_dir(path)?;
    Ok(Box::new(entries.map(|entry| {
        entry.map(|entry| DirEntry(entry.file_name()))
    })))
}
