//! The only way to read the state: ordered rows under byte keys.
//!
//! The node implements [`View`] over RocksDB and memory, tests over a map. Everything above works
//! on keys in byte order and never learns where the rows are.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;

use crate::refusal::Broken;
use crate::transaction::Changes;

/// Called with each row's key and value; breaks when it has seen enough.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// Read access to all rows at one point in the log.
pub trait View {
    /// The row under `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Broken>;

    /// Calls `visit` with the rows of `from..to` in ascending order until it breaks.
    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<(), Broken>;
}

/// All rows in one ordered map: for tests, tools and models.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryView {
    rows: BTreeMap<Vec<u8>, Bytes>,
}

impl MemoryView {
    /// Puts the changes of an entry in place.
    pub fn commit(&mut self, changes: Changes) {
        for (key, value) in changes {
            match value {
                Some(value) => self.rows.insert(key, value),
                None => self.rows.remove(&key),
            };
        }
    }

    /// Every row, in key order.
    pub fn rows(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.rows.iter().map(|(k, v)| (k.as_slice(), v.as_ref()))
    }
}

impl View for MemoryView {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Broken> {
        Ok(self.rows.get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<(), Broken> {
        if from >= to {
            return Ok(());
        }
        let range = (Bound::Included(from), Bound::Excluded(to));
        for (key, value) in self.rows.range::<[u8], _>(range) {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
}
