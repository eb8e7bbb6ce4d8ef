//! The packs that this process holds: who acquired them, and which are being given back.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use quorate_client::statemachine::Name;
use tokio_util::sync::CancellationToken;

use crate::caller::{Caller, Holder, Reentry};

/// By the lock's name, whatever the cluster: a chain is more likely to re-enter a pack than to lock
/// two of one name in two clusters.
static HOLDS: Mutex<BTreeMap<Name, Vec<Entry>>> = Mutex::new(BTreeMap::new());

#[derive(Debug)]
struct Entry {
    number: u64,
    holder: Holder,
    /// Is cancelled when the cluster may grant the pack to others.
    lost: CancellationToken,
    /// Whether its holder has let go.
    releasing: bool,
    /// Is cancelled when the cluster has heard that it is.
    gone: CancellationToken,
}

impl Entry {
    fn is_held(&self) -> bool {
        !self.releasing && !self.lost.is_cancelled()
    }
}

fn holds() -> MutexGuard<'static, BTreeMap<Name, Vec<Entry>>> {
    HOLDS
        .lock()
        .expect("nothing panics while it holds the lock")
}

/// Keeps a hold in the registry until it is dropped.
#[derive(Debug)]
pub(crate) struct Registration {
    key: Name,
    number: u64,
}

impl Registration {
    /// Registers a hold of `key` that is over when `lost` is cancelled.
    pub(crate) fn new(key: Name, caller: &Caller, lost: CancellationToken) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let entry = Entry {
            number,
            holder: caller.as_holder(),
            lost,
            releasing: false,
            gone: CancellationToken::new(),
        };
        holds().entry(key.clone()).or_default().push(entry);
        Self { key, number }
    }

    /// The holder has let go; the cluster has yet to hear it.
    pub(crate) fn begin_release(&self) {
        let mut holds = holds();
        let entries = holds.get_mut(&self.key).into_iter().flatten();
        for entry in entries.filter(|entry| entry.number == self.number) {
            entry.releasing = true;
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut holds = holds();
        let Some(entries) = holds.get_mut(&self.key) else {
            return;
        };
        for entry in entries.extract_if(.., |entry| entry.number == self.number) {
            entry.gone.cancel();
        }
        if entries.is_empty() {
            holds.remove(&self.key);
        }
    }
}

/// Whether `caller` would wait for its own call chain.
pub(crate) fn reentry(key: &Name, caller: &Caller) -> Reentry {
    let holds = holds();
    let held = holds.get(key).into_iter().flatten();
    let held = held.filter(|entry| entry.is_held());
    let reentries = held.map(|entry| caller.reenters(&entry.holder));
    reentries.max().unwrap_or(Reentry::No)
}

/// Whether `caller`, which blocks its thread, would keep the holder from ever letting go.
pub(crate) fn blocks(key: &Name, caller: &Caller) -> bool {
    let holds = holds();
    let mut held = holds.get(key).into_iter().flatten();
    held.any(|entry| entry.is_held() && caller.blocks(&entry.holder))
}

/// The holds of `key` that were given up here, perhaps unheard by the cluster.
pub(crate) fn releases(key: &Name) -> Vec<CancellationToken> {
    let holds = holds();
    let over = holds.get(key).into_iter().flatten();
    let over = over.filter(|entry| entry.releasing);
    over.map(|entry| entry.gone.clone()).collect()
}
