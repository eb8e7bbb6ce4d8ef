//! How a node applies an entry that has a bug of `crate::simulation`.

use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;
use quorate_statemachine::tables::{Meta, MetaRow, Table, meta_key};
use quorate_statemachine::view::{View, Visit};
use quorate_statemachine::{Applied, Broken, Entry, Timestamp, codec};

use crate::simulation::{Bug, has};

/// The state machine's `apply`, with the bug.
pub(super) fn apply(view: &dyn View, mut entry: Entry<'_>) -> Result<Applied, Broken> {
    if has(Bug::HashOrder) {
        entry.proposed_at.0 += RandomState::new().hash_one(entry.index) % 2;
    }
    if has(Bug::Unclamped) {
        let now = entry.proposed_at;
        return quorate_statemachine::apply(&Unclamped { view, now }, entry);
    }
    quorate_statemachine::apply(view, entry)
}

/// A state whose last time is that of the entry, whatever it was: time goes back with the entries.
struct Unclamped<'a> {
    view: &'a dyn View,
    now: Timestamp,
}

impl View for Unclamped<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Broken> {
        let row = self.view.get(key)?;
        let Some(row) = row.filter(|_| key == meta_key().bytes()) else {
            return self.view.get(key);
        };
        let broken = |error: codec::BadBytes| Broken(error.to_string());
        let mut meta: MetaRow = codec::decode(Meta::TAG.into(), &row).map_err(broken)?;
        meta.now = self.now;
        Ok(Some(codec::encode(Meta::TAG.into(), &meta).into()))
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<(), Broken> {
        self.view.scan(from, to, visit)
    }
}
