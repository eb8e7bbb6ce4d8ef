//! The state machine's view of the rows: memory over what waits to be written over the disk.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;
use quorate_statemachine::digest::Digest;
use quorate_statemachine::{Broken, tables, view};

use super::Rows;
use super::database::{Database, KEYS_END};
use super::totals::Totals;
use crate::storage::error::StorageError;

/// Rows that are put (`Some`) or removed (`None`) over what lies below.
pub(super) type Overlay = BTreeMap<Vec<u8>, Option<Bytes>>;

/// The tables that are held in memory.
#[derive(Default)]
pub(super) struct Tables {
    by_tag: BTreeMap<u8, Rows>,
    bytes: usize,
    totals: Totals,
}

impl Tables {
    /// Takes in a table that was loaded.
    pub fn add(&mut self, tag: u8, rows: Rows) {
        self.bytes += rows
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum::<usize>();
        for row in rows.values() {
            self.totals.replace(tag, None, Some(row));
        }
        self.by_tag.insert(tag, rows);
    }

    fn table(&self, key: &[u8]) -> Option<&Rows> {
        self.by_tag.get(&tables::tag_of(key)?)
    }

    pub fn get(&self, key: &[u8]) -> Option<&Bytes> {
        self.table(key)?.get(key)
    }

    /// Puts a changed row in place if it belongs to one of these tables.
    pub fn change(&mut self, key: &[u8], value: Option<&Bytes>) {
        let Some(tag) = tables::tag_of(key) else {
            return;
        };
        let Some(table) = self.by_tag.get_mut(&tag) else {
            return;
        };
        let old = match value {
            Some(value) => {
                self.bytes += key.len() + value.len();
                match table.get_mut(key) {
                    Some(present) => Some(std::mem::replace(present, value.clone())),
                    None => table.insert(key.to_vec(), value.clone()),
                }
            }
            None => table.remove(key),
        };
        let (old, new) = (old.as_deref(), value.map(|value| &**value));
        self.totals.replace(tag, old, new);
        self.bytes -= old.map_or(0, |old| key.len() + old.len());
    }

    /// Sums over the rows of queues and locks.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// The table that holds all of `from..to`, if one of these does.
    fn table_of_range(&self, from: &[u8], to: &[u8]) -> Option<&Rows> {
        let prefix = from.get(..tables::PREFIX_BYTES)?;
        let (tag, namespace) = prefix.split_last()?;
        let inside =
            to.starts_with(prefix) || to.split_last() == Some((&tag.checked_add(1)?, namespace));
        if inside { self.table(from) } else { None }
    }

    /// Rows and their bytes.
    pub fn sizes(&self) -> (usize, usize) {
        (self.by_tag.values().map(BTreeMap::len).sum(), self.bytes)
    }
}

/// What `apply` and queries read.
pub(super) struct View<'a> {
    pub tables: &'a Tables,
    pub stored: Stored<'a>,
}

/// All rows that are in place: on disk, or on their way there.
pub(super) struct Stored<'a> {
    /// Newest first.
    pub layers: [&'a Overlay; 2],
    pub database: &'a Database,
}

type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

impl view::View for View<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Broken> {
        match self.tables.table(key) {
            Some(table) => Ok(table.get(key).cloned()),
            None => self.stored.get(key).map_err(broken),
        }
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<(), Broken> {
        if from >= to {
            return Ok(());
        }
        if let Some(table) = self.tables.table_of_range(from, to) {
            for (key, value) in table.range::<[u8], _>(range(from, to)) {
                if visit(key, value).is_break() {
                    break;
                }
            }
            return Ok(());
        }
        self.stored.scan(from, to, visit).map_err(broken)
    }
}

impl Stored<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        for layer in self.layers {
            if let Some(changed) = layer.get(key) {
                return Ok(changed.clone());
            }
        }
        self.database.get(key)
    }

    /// Rows of `from..to` in ascending order, until `visit` breaks.
    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<(), StorageError> {
        let [newer, older] = self.layers;
        merge(newer, from, to, visit, |visit| {
            merge(older, from, to, visit, |visit| {
                let mut go_on = |key: &[u8], value: &[u8]| visit(key, value).is_continue();
                self.database.scan(from, to, &mut go_on)
            })
        })
    }

    /// The digest of all rows but the meta row, from the rows themselves.
    pub fn digest(&self) -> Result<Digest, StorageError> {
        let mut digest = Digest::default();
        let meta = tables::meta_key();
        self.scan(&[], &KEYS_END, &mut |key, value| {
            if key != meta.bytes() {
                digest.replace(key, None, Some(value));
            }
            ControlFlow::Continue(())
        })?;
        Ok(digest)
    }

    /// Whether `tables` have exactly the rows that are stored.
    pub fn agrees_with(&self, tables: &Tables) -> Result<bool, StorageError> {
        let mut agrees = true;
        for (tag, rows) in &tables.by_tag {
            let mut rows = rows.iter();
            let [high, low] = tables::NAMESPACE.to_be_bytes();
            self.scan(
                &[high, low, *tag],
                &[high, low, *tag + 1],
                &mut |key, value| {
                    agrees &= rows
                        .next()
                        .is_some_and(|row| row.0 == key && row.1 == value);
                    ControlFlow::Continue(())
                },
            )?;
            agrees &= rows.next().is_none();
        }
        Ok(agrees)
    }
}

fn broken(error: StorageError) -> Broken {
    Broken(error.to_string())
}

/// Rows of `overlay` and of what `scan_below` scans, in ascending order; the overlay's win.
fn merge<E>(
    overlay: &Overlay,
    from: &[u8],
    to: &[u8],
    visit: Visit<'_>,
    scan_below: impl FnOnce(Visit<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let mut changed = overlay.range::<[u8], _>(range(from, to)).peekable();
    if changed.peek().is_none() {
        return scan_below(visit);
    }
    let mut flow = ControlFlow::Continue(());
    scan_below(&mut |key, value| {
        while let Some((own, new)) = changed.next_if(|(own, _)| own.as_slice() < key) {
            flow = visit_changed(own, new.as_ref(), visit);
            if flow.is_break() {
                return flow;
            }
        }
        flow = match changed.next_if(|(own, _)| own.as_slice() == key) {
            Some((own, new)) => visit_changed(own, new.as_ref(), visit),
            None => visit(key, value),
        };
        flow
    })?;
    for (own, new) in changed {
        if flow.is_break() {
            break;
        }
        flow = visit_changed(own, new.as_ref(), visit);
    }
    Ok(())
}

fn visit_changed(key: &[u8], new: Option<&Bytes>, visit: Visit<'_>) -> ControlFlow<()> {
    match new {
        Some(new) => visit(key, new),
        None => ControlFlow::Continue(()),
    }
}

fn range<'a>(from: &'a [u8], to: &'a [u8]) -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
    (Bound::Included(from), Bound::Excluded(to))
}
