//! A word that a data directory keeps over restarts: its state is not to be trusted, and why.

use std::path::PathBuf;

use super::error::StorageError;
use super::files;

/// The file of it. It is there or not; what is in it is for people.
#[derive(Debug, Clone)]
pub struct QuarantineMark {
    path: PathBuf,
}

impl QuarantineMark {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Why the state is not to be trusted; `None` if it is.
    pub fn read(&self) -> Result<Option<String>, StorageError> {
        let bytes = files::read(&self.path)?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// From here on, also after a crash, the state is not trusted.
    pub fn set(&self, why: &str) -> Result<(), StorageError> {
        files::replace(&self.path, why.as_bytes())
    }

    /// The state is trusted again.
    pub fn clear(&self) -> Result<(), StorageError> {
        files::remove(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_there_until_it_is_cleared() {
        let temp = tempfile::tempdir().expect("a directory");
        let mark = QuarantineMark::new(temp.path().join("quarantine"));
        assert!(matches!(mark.read(), Ok(None)));
        mark.set("one").expect("written");
        mark.set("two").expect("written");
        let again = QuarantineMark::new(temp.path().join("quarantine"));
        assert_eq!(again.read().expect("read").as_deref(), Some("two"));
        again.clear().expect("removed");
        again.clear().expect("nothing to remove");
        assert!(matches!(mark.read(), Ok(None)));
    }
}
