//! How much room a disk has.

use std::io;
use std::path::Path;

/// The disk that a directory is on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk {
    /// What those who are not root can still write.
    pub free_bytes: u64,
    /// All of it.
    pub size_bytes: u64,
}

/// The disk of `dir`.
pub fn of(dir: &Path) -> io::Result<Disk> {
    let disk = rustix::fs::statvfs(dir)?;
    Ok(Disk {
        free_bytes: disk.f_bavail.saturating_mul(disk.f_frsize),
        size_bytes: disk.f_blocks.saturating_mul(disk.f_frsize),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_a_disk_and_a_path_that_is_not_there_is_an_error() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let disk = of(dir.path()).expect("the system says");
        assert!(
            disk.size_bytes > 0 && disk.free_bytes <= disk.size_bytes,
            "{disk:?}"
        );
        assert!(of(&dir.path().join("none")).is_err());
    }
}
