//! Which of the state directories holds.

use std::path::Path;

use crate::storage::codec;
use crate::storage::error::StorageError;
use crate::storage::{files, open};

/// `[version u8][number u64][crc32c u32]`
pub(super) fn write_current(dir: &Path, number: u64) -> Result<(), StorageError> {
    let mut bytes = vec![codec::FORMAT_VERSION];
    bytes.extend_from_slice(&number.to_le_bytes());
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    files::replace(&open::current_of(dir), &bytes)
}

/// The number of the state directory that holds; a new node's is 1. The file is written before the
/// first state is made, so without it there is none.
pub(super) fn current_number(dir: &Path) -> Result<u64, StorageError> {
    if let Some(number) = read_current(dir)? {
        return Ok(number);
    }
    let names = files::names(dir)?;
    if let Some(state) = names.iter().find(|name| open::state_number(name).is_some()) {
        let problem = format!("the file is missing, but there is {state} beside it");
        return Err(StorageError::damaged(&open::current_of(dir), problem));
    }
    write_current(dir, 1).map(|()| 1)
}

pub(super) fn read_current(dir: &Path) -> Result<Option<u64>, StorageError> {
    let path = open::current_of(dir);
    let Some(bytes) = files::read(&path)? else {
        return Ok(None);
    };
    let number = bytes.split_last_chunk::<4>().and_then(|(mut body, crc)| {
        if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
            return None;
        }
        codec::take_version(&mut body).ok()?;
        codec::take_u64(&mut body).ok()
    });
    match number {
        Some(number) => Ok(Some(number)),
        None => Err(StorageError::damaged(
            &path,
            "it does not match its checksum",
        )),
    }
}

pub(super) fn remove_other_states(dir: &Path, number: u64) -> Result<(), StorageError> {
    for name in files::names(dir)? {
        if open::state_number(&name).is_some_and(|other| other != number) {
            files::remove_dir(&dir.join(name))?;
        }
    }
    Ok(())
}
