//! Rows of leases and of their history.

use super::{Key, PREFIX_BYTES, Table};
use crate::fencing::FencingToken;
use crate::id::Name;
use crate::lease::{Ended, HistoryRow, Lease};

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

/// Which grants of each key have ended lately.
pub struct LeaseHistory;

impl Table for LeaseHistory {
    const TAG: u8 = 0x11;
    const NAME: &'static str = "lease_history";
    type Row = HistoryRow;
}

/// Key of a lease's history.
#[must_use]
pub fn history_key(name: &Name) -> Key<LeaseHistory> {
    Key::first().text(name.as_str())
}

/// The grants that have ended lately, by key and fencing token.
pub struct LeaseEnded;

impl Table for LeaseEnded {
    const TAG: u8 = 0x12;
    const NAME: &'static str = "lease_ended";
    type Row = Ended;
}

/// Key of an ended grant.
#[must_use]
pub fn ended_key(name: &Name, token: FencingToken) -> Key<LeaseEnded> {
    Key::first().name(name).number(token)
}
