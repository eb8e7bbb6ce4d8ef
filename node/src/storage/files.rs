//! Files that must be whole after a crash.

use std::io::Write;
use std::path::Path;

use super::disk::fs::{self, File};
use super::error::StorageError;

/// Puts `bytes` under `path`, so that after a crash there is the old content or the new.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
    let fresh = path.with_extension("tmp");
    let mut file = File::create(&fresh).map_err(StorageError::io("create", &fresh))?;
    file.write_all(bytes)
        .map_err(StorageError::io("write", &fresh))?;
    file.sync_all().map_err(StorageError::io("sync", &fresh))?;
    rename(&fresh, path)
}

/// Renames and makes the new name durable.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), StorageError> {
    fs::rename(from, to).map_err(StorageError::io("rename", from))?;
    match to.parent() {
        Some(parent) => sync_dir(parent),
        None => Ok(()),
    }
}

/// Makes names in a directory durable. The parent of a name without a folder is "", where it is.
pub(super) fn sync_dir(path: &Path) -> Result<(), StorageError> {
    let path = match path.as_os_str().is_empty() {
        true => Path::new("."),
        false => path,
    };
    let dir = File::open(path).map_err(StorageError::io("open", path))?;
    dir.sync_all().map_err(StorageError::io("sync", path))
}

/// Creates a directory and makes its name durable; nothing happens if it is there.
pub(super) fn create_dir(path: &Path) -> Result<(), StorageError> {
    fs::create_dir_all(path).map_err(StorageError::io("create", path))?;
    match path.parent() {
        Some(parent) => sync_dir(parent),
        None => Ok(()),
    }
}

/// Removes a directory with all in it; nothing happens if it is not there.
pub(super) fn remove_dir(path: &Path) -> Result<(), StorageError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StorageError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Removes a file and makes that durable; nothing happens if it is not there.
pub(super) fn remove(path: &Path) -> Result<(), StorageError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(StorageError::io("remove", path)(error)),
        Ok(()) => {}
    }
    match path.parent() {
        Some(parent) => sync_dir(parent),
        None => Ok(()),
    }
}

/// Whether there is a file or a directory at `path`, as far as one can see.
pub(super) fn exists(path: &Path) -> bool {
    fs::metadata(path).is_ok()
}

/// Names of what is in a directory.
pub(super) fn names(path: &Path) -> Result<Vec<String>, StorageError> {
    let entries = fs::read_dir(path).map_err(StorageError::io("list", path))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(StorageError::io("list", path))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// The content of a file, or `None` if there is none.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, StorageError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StorageError::io("read", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_of_a_name_without_a_folder_is_synced() {
        let parent = Path::new("quorate-data").parent().expect("an empty one");
        assert!(sync_dir(parent).is_ok());
    }
}
