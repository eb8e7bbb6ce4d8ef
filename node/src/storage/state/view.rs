//! The state machine's view of the rows: changes of the present chunk over memory over disk.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;
use quorate_statemachine::{Broken, tables, view};

use super::Rows;
use super::database::Database;

/// Rows that are put (`Some`) or removed (`None`) by entries not yet in place.
pub(super) type Overlay = BTreeMap<Vec<u8>, Option<Bytes>>;

/// The tables that are held in memory.
#[derive(Default)]
pub(super) struct Tables {
    by_tag: BTreeMap<u8, Rows>,
    bytes: usize,
}

impl Tables {
    /// Takes in a table that was loaded.
    pub fn add(&mut self, tag: u8, rows: Rows) {
        self.bytes += rows
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum::<usize>();
        self.by_tag.insert(tag, rows);
    }

    fn table(&self, key: &[u8]) -> Option<&Rows> {
        self.by_tag.get(&tables::tag_of(key)?)
    }

    pub fn get(&self, key: &[u8]) -> Option<&Bytes> {
        self.table(key)?.get(key)
    }

    /// Puts the changes in place that belong to these tables.
    pub fn change(&mut self, changes: Overlay) {
        for (key, value) in changes {
            let table = tables::tag_of(&key).and_then(|tag| self.by_tag.get_mut(&tag));
            let Some(table) = table else {
                continue;
            };
            let length = key.len();
            let old = match value {
                Some(value) => {
                    self.bytes += length + value.len();
                    table.insert(key, value)
                }
                None => table.remove(&key),
            };
            self.bytes -= old.map_or(0, |old| length + old.len());
        }
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

    /// All rows, in key order within a table.
    pub fn rows(&self) -> impl Iterator<Item = (&Vec<u8>, &Bytes)> {
        self.by_tag.values().flatten()
    }
}

/// What `apply` and queries read.
pub(super) struct View<'a> {
    pub overlay: Option<&'a Overlay>,
    pub tables: &'a Tables,
    pub database: &'a Database,
}

type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

impl view::View for View<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Broken> {
        if let Some(changed) = self.overlay.and_then(|overlay| overlay.get(key)) {
            return Ok(changed.clone());
        }
        match self.tables.table(key) {
            Some(table) => Ok(table.get(key).cloned()),
            None => self
                .database
                .get(key)
                .map_err(|error| Broken(error.to_string())),
        }
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<(), Broken> {
        if from >= to {
            return Ok(());
        }
        match self.overlay {
            Some(overlay) if !overlay.is_empty() => self.scan_merged(overlay, from, to, visit),
            _ => self.scan_in_place(from, to, visit),
        }
    }
}

impl View<'_> {
    /// Rows that are in place: from memory if one table there has them all, else from disk, which
    /// has every row.
    fn scan_in_place(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<(), Broken> {
        if let Some(table) = self.tables.table_of_range(from, to) {
            for (key, value) in table.range::<[u8], _>(range(from, to)) {
                if visit(key, value).is_break() {
                    break;
                }
            }
            return Ok(());
        }
        self.database
            .scan(from, to, &mut |key, value| visit(key, value).is_continue())
            .map_err(|error| Broken(error.to_string()))
    }

    fn scan_merged(
        &self,
        overlay: &Overlay,
        from: &[u8],
        to: &[u8],
        visit: Visit<'_>,
    ) -> Result<(), Broken> {
        let mut changed = overlay.range::<[u8], _>(range(from, to)).peekable();
        let mut flow = ControlFlow::Continue(());
        self.scan_in_place(from, to, &mut |key, value| {
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
