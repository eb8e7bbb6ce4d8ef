//! Rows of leases and of their history.

use super::{Key, PREFIX_BYTES, Table};
use crate::id::Name;
use crate::lease::{History, Lease};

/// Live leases (and due ones that the sweep has not reached) by key.
pub struct Leases;

impl Table for Leases {
    const TAG: u8 = 0x10;
    const NAME: &'static str = "leases";
    type Row = Lease;
}

/// Key of a lease.
#[must_use]
pub fn lease_key(name: &Name) -> Key<Leases> {
    Key::first().text(name.as_str())
}

/// The lease key inside a table key.
#[must_use]
pub fn lease_name_of(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key.get(PREFIX_BYTES..)?).ok()
}

/// The last ended grants of each key.
pub struct LeaseHistory;

impl Table for LeaseHistory {
    const TAG: u8 = 0x11;
    const NAME: &'static str = "lease_history";
    type Row = History;
}

/// Key of a lease's history.
#[must_use]
pub fn history_key(name: &Name) -> Key<LeaseHistory> {
    Key::first().text(name.as_str())
}
