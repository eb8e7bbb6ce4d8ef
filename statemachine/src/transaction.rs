//! Reads that see one's own writes, over a [`View`]; yields [`Changes`].
//!
//! One transaction carries one entry: the sweep, then the command. A refused command is rolled back
//! to the savepoint behind the sweep, so a refusal has written nothing. The transaction remembers
//! the old value of each row it writes: the digest needs it.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::codec;
use crate::digest::Digest;
use crate::figure::Figure;
use crate::notice::Notice;
use crate::refusal::Broken;
use crate::tables::{Key, Table};
use crate::view::{View, Visit};

/// Called with each row's key and what the row holds; breaks when it has seen enough.
pub type VisitRow<'a, T> = &'a mut dyn FnMut(&[u8], <T as Table>::Row) -> ControlFlow<()>;

/// Rows to put (`Some`) and to remove (`None`), in key order, each key once.
pub type Changes = Vec<(Vec<u8>, Option<Bytes>)>;

/// A row as the transaction knows it.
#[derive(Debug, Clone)]
struct Cell {
    /// What the view has.
    old: Option<Bytes>,
    /// What the transaction has.
    new: Option<Bytes>,
    /// Whether `new` was written here, rather than only read.
    written: bool,
    /// What `new` and `written` were at the savepoint, if it was written since.
    before: Option<(Option<Bytes>, bool)>,
}

/// The overlay of one entry.
pub struct Transaction<'a> {
    view: &'a dyn View,
    cells: BTreeMap<Vec<u8>, Cell>,
    notices: Vec<Notice>,
    figures: Vec<Figure>,
    /// How many notices and figures there were at the savepoint.
    told_before: Option<(usize, usize)>,
}

/// What a transaction did.
pub struct Finished {
    /// The rows that differ from the view.
    pub changes: Changes,
    /// The digest with these changes.
    pub digest: Digest,
    /// For those who wait or watch.
    pub notices: Vec<Notice>,
    /// For metrics.
    pub figures: Vec<Figure>,
}

impl<'a> Transaction<'a> {
    /// An empty overlay.
    pub fn new(view: &'a dyn View) -> Self {
        Self {
            view,
            cells: BTreeMap::new(),
            notices: Vec::new(),
            figures: Vec::new(),
            told_before: None,
        }
    }

    fn cell(&mut self, key: &[u8]) -> Result<&mut Cell, Broken> {
        if !self.cells.contains_key(key) {
            self.add(key, self.view.get(key)?);
        }
        Ok(self.cells.get_mut(key).expect("added above"))
    }

    fn add(&mut self, key: &[u8], old: Option<Bytes>) {
        let cell = Cell {
            new: old.clone(),
            old,
            written: false,
            before: None,
        };
        self.cells.insert(key.to_vec(), cell);
    }

    /// The row under `key`, with this transaction's writes.
    pub fn get<T: Table>(&mut self, key: &Key<T>) -> Result<Option<T::Row>, Broken> {
        match &self.cell(key.bytes())?.new {
            Some(bytes) => decode_row::<T>(key.bytes(), bytes).map(Some),
            None => Ok(None),
        }
    }

    /// Whether there is a row under `key`; cheaper than [`Self::get`].
    pub fn exists<T: Table>(&mut self, key: &Key<T>) -> Result<bool, Broken> {
        Ok(self.cell(key.bytes())?.new.is_some())
    }

    /// Writes a row.
    pub fn put<T: Table>(&mut self, key: &Key<T>, row: &T::Row) -> Result<(), Broken> {
        let bytes = Bytes::from(codec::encode(T::TAG.into(), row));
        self.write(key.bytes(), Some(bytes))
    }

    /// Writes a row under a key that was never used, as its maker guarantees: nobody looks.
    pub fn put_new<T: Table>(&mut self, key: &Key<T>, row: &T::Row) -> Result<(), Broken> {
        if !self.cells.contains_key(key.bytes()) {
            debug_assert_eq!(self.view.get(key.bytes())?, None, "it is a new key");
            self.add(key.bytes(), None);
        }
        self.put(key, row)
    }

    /// Removes a row; nothing happens if there is none.
    pub fn delete<T: Table>(&mut self, key: &Key<T>) -> Result<(), Broken> {
        self.write(key.bytes(), None)
    }

    fn write(&mut self, key: &[u8], value: Option<Bytes>) -> Result<(), Broken> {
        let saved = self.told_before.is_some();
        let cell = self.cell(key)?;
        let replaced = std::mem::replace(&mut cell.new, value);
        if saved && cell.before.is_none() {
            cell.before = Some((replaced, cell.written));
        }
        cell.written = true;
        Ok(())
    }

    /// Rows of `from..to` in ascending order, this transaction's writes included, until `visit`
    /// breaks.
    pub fn scan<T: Table>(
        &self,
        from: &Key<T>,
        to: &Key<T>,
        visit: VisitRow<'_, T>,
    ) -> Result<(), Broken> {
        let mut broken = None;
        let mut decoded = |key: &[u8], value: &[u8]| match decode_row::<T>(key, value) {
            Ok(row) => visit(key, row),
            Err(error) => {
                broken = Some(error);
                ControlFlow::Break(())
            }
        };
        self.scan_merged(from.bytes(), to.bytes(), &mut decoded)?;
        broken.map_or(Ok(()), Err)
    }

    /// Like [`Self::scan`], without reading what the rows hold.
    pub(crate) fn scan_raw<T: Table>(
        &self,
        from: &Key<T>,
        to: &Key<T>,
        visit: Visit<'_>,
    ) -> Result<(), Broken> {
        self.scan_merged(from.bytes(), to.bytes(), visit)
    }

    fn scan_merged(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<(), Broken> {
        if from >= to {
            return Ok(());
        }
        let range = (Bound::Included(from), Bound::Excluded(to));
        let mut own = self
            .cells
            .range::<[u8], _>(range)
            .filter(|(_, cell)| cell.written)
            .peekable();
        let mut stopped = false;
        self.view.scan(from, to, &mut |key, value| {
            while let Some((own_key, cell)) = own.next_if(|(k, _)| k.as_slice() < key) {
                if let Some(new) = &cell.new
                    && visit(own_key, new).is_break()
                {
                    stopped = true;
                    return ControlFlow::Break(());
                }
            }
            let flow = match own.next_if(|(k, _)| k.as_slice() == key) {
                Some((_, cell)) => match &cell.new {
                    Some(new) => visit(key, new),
                    None => ControlFlow::Continue(()),
                },
                None => visit(key, value),
            };
            stopped = flow.is_break();
            flow
        })?;
        if stopped {
            return Ok(());
        }
        for (own_key, cell) in own {
            if let Some(new) = &cell.new
                && visit(own_key, new).is_break()
            {
                break;
            }
        }
        Ok(())
    }

    /// Tells those who wait or watch.
    pub fn notify(&mut self, notice: Notice) {
        self.notices.push(notice);
    }

    /// Tells metrics.
    pub fn count(&mut self, figure: Figure) {
        self.figures.push(figure);
    }

    /// Marks the one place to roll back to.
    pub fn save(&mut self) {
        assert!(self.told_before.is_none(), "there is one savepoint");
        self.told_before = Some((self.notices.len(), self.figures.len()));
    }

    /// Undoes all writes since the savepoint, and what was told.
    pub fn roll_back(&mut self) {
        let (notices, figures) = self.told_before.expect("there is a savepoint");
        self.notices.truncate(notices);
        self.figures.truncate(figures);
        for cell in self.cells.values_mut() {
            if let Some((new, written)) = cell.before.take() {
                cell.new = new;
                cell.written = written;
            }
        }
    }

    /// All that it did, to a state that has this digest.
    #[must_use]
    pub fn finish(self, mut digest: Digest) -> Finished {
        let mut changes = Changes::new();
        for (key, cell) in self.cells {
            if !cell.written || cell.old == cell.new {
                continue;
            }
            digest.replace(&key, cell.old.as_deref(), cell.new.as_deref());
            changes.push((key, cell.new));
        }
        Finished {
            changes,
            digest,
            notices: self.notices,
            figures: self.figures,
        }
    }
}

/// Reads one row of a view without a transaction.
pub fn read<T: Table>(view: &dyn View, key: &Key<T>) -> Result<Option<T::Row>, Broken> {
    match view.get(key.bytes())? {
        Some(bytes) => decode_row::<T>(key.bytes(), &bytes).map(Some),
        None => Ok(None),
    }
}

/// Reads rows of a view without a transaction.
pub fn read_range<T: Table>(
    view: &dyn View,
    from: &Key<T>,
    to: &Key<T>,
    visit: VisitRow<'_, T>,
) -> Result<(), Broken> {
    Transaction::new(view).scan(from, to, visit)
}

fn decode_row<T: Table>(key: &[u8], bytes: &[u8]) -> Result<T::Row, Broken>
where
    T::Row: DeserializeOwned,
{
    codec::decode(T::TAG.into(), bytes).map_err(|error| {
        Broken(format!(
            "row {} of table {} cannot be read: {error}; the state on this disk is damaged, \
             remove this member and add it again with an empty directory",
            key.escape_ascii(),
            T::NAME
        ))
    })
}
