//! The rows that one transaction has touched: mostly a handful, sometimes a thousand.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

/// Rows that are kept in a list; with more of them, all are kept in a tree.
const FEW: usize = 24;

/// A row as the transaction knows it.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    /// What the view has.
    pub old: Option<Bytes>,
    /// What the transaction has.
    pub new: Option<Bytes>,
    /// Whether `new` was written here, rather than only read.
    pub written: bool,
    /// What `new` and `written` were at the savepoint, if it was written since.
    pub before: Option<(Option<Bytes>, bool)>,
}

/// Cells by key.
#[derive(Default)]
pub(crate) struct Cells {
    /// In the order of their first use.
    few: Vec<(Vec<u8>, Cell)>,
    many: BTreeMap<Vec<u8>, Cell>,
}

impl Cells {
    pub fn get_mut(&mut self, key: &[u8]) -> Option<&mut Cell> {
        if self.many.is_empty() {
            let found = self.few.iter_mut().find(|(own, _)| own == key);
            return found.map(|(_, cell)| cell);
        }
        self.many.get_mut(key)
    }

    /// Adds a cell under a key that has none, and returns it.
    pub fn add(&mut self, key: &[u8], cell: Cell) -> &mut Cell {
        if self.many.is_empty() && self.few.len() < FEW {
            self.few.push((key.to_vec(), cell));
            let (_, cell) = self.few.last_mut().expect("pushed above");
            return cell;
        }
        self.many.extend(self.few.drain(..));
        self.many.entry(key.to_vec()).or_insert(cell)
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut Cell> {
        let few = self.few.iter_mut().map(|(_, cell)| cell);
        few.chain(self.many.values_mut())
    }

    /// Written cells of `from..to`, in key order.
    pub fn written(&self, from: &[u8], to: &[u8]) -> Vec<(&[u8], &Cell)> {
        let within = |key: &[u8]| from <= key && key < to;
        let few = self.few.iter().filter(|(key, _)| within(key));
        let range = (Bound::Included(from), Bound::Excluded(to));
        let many = self.many.range::<[u8], _>(range);
        let all = few.map(|(key, cell)| (key, cell)).chain(many);
        let written = all.filter(|(_, cell)| cell.written);
        let mut written: Vec<_> = written.map(|(key, cell)| (key.as_slice(), cell)).collect();
        written.sort_unstable_by_key(|(key, _)| *key);
        written
    }

    /// All cells, in key order.
    pub fn into_sorted(mut self) -> impl Iterator<Item = (Vec<u8>, Cell)> {
        self.few.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        self.few.into_iter().chain(self.many)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(written: bool) -> Cell {
        Cell {
            old: None,
            new: None,
            written,
            before: None,
        }
    }

    #[test]
    fn few_and_many_cells_are_found_and_sorted_alike() {
        for count in [1, FEW, FEW + 1, 3 * FEW] {
            let mut cells = Cells::default();
            // 7 has no factor in common with the counts, so each key comes once, out of order.
            let keys: Vec<[u8; 2]> = (0..count)
                .map(|n| ((n * 7 % count) as u16).to_be_bytes())
                .collect();
            for key in &keys {
                assert!(cells.get_mut(key).is_none());
                cells.add(key, cell(key[1] % 2 == 0)).new = Some(key.to_vec().into());
            }
            for key in &keys {
                let found = cells.get_mut(key).and_then(|cell| cell.new.clone());
                assert_eq!(found.as_deref(), Some(&key[..]));
            }
            let (from, to) = ([0, 2], [0, 9]);
            let written: Vec<u8> = cells
                .written(&from, &to)
                .iter()
                .map(|(k, _)| k[1])
                .collect();
            let expected: Vec<u8> = (2..9)
                .filter(|n| n % 2 == 0 && usize::from(*n) < count)
                .collect();
            assert_eq!(written, expected, "of {count}");
            let mut sorted = keys.clone();
            sorted.sort_unstable();
            let all: Vec<Vec<u8>> = cells.into_sorted().map(|(key, _)| key).collect();
            assert_eq!(all, sorted);
        }
    }
}
