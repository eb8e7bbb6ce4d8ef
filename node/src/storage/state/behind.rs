//! Writes changed rows to the database behind those who change them.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use bytes::Bytes;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::watch;

use super::Shared;
use super::view::Overlay;
use crate::storage::error::StorageError;

/// What an entry of the overlay costs beside its bytes.
const OVERHEAD_BYTES: usize = 64;

/// Rows that are not yet in the database.
#[derive(Default)]
pub(super) struct Pending {
    newer: Overlay,
    bytes: usize,
    /// On their way into the database.
    writing: Arc<Overlay>,
}

impl Pending {
    /// Takes in a row that has changed.
    pub fn add(&mut self, key: Vec<u8>, value: Option<Bytes>) {
        let key_bytes = key.len() + OVERHEAD_BYTES;
        self.bytes += value.as_ref().map_or(0, Bytes::len);
        match self.newer.insert(key, value) {
            Some(old) => self.bytes -= old.map_or(0, |old| old.len()),
            None => self.bytes += key_bytes,
        }
    }

    /// Bytes that wait, without those under way.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What covers the database, newest first.
    pub fn layers(&self) -> [&Overlay; 2] {
        [&self.newer, &self.writing]
    }

    /// What waits is under way from here on.
    pub fn begin(&mut self) -> Arc<Overlay> {
        debug_assert!(self.writing.is_empty(), "one write at a time");
        self.bytes = 0;
        self.writing = Arc::new(std::mem::take(&mut self.newer));
        Arc::clone(&self.writing)
    }

    /// It is in the database.
    pub fn finish(&mut self, written: &Arc<Overlay>) {
        // A snapshot may have taken the place of the state meanwhile.
        if Arc::ptr_eq(&self.writing, written) {
            self.writing = Arc::default();
        }
    }
}

/// The thread that writes, as others see it. It ends when this is dropped.
pub(super) struct Behind {
    wake: Sender<()>,
    /// Held by whoever writes.
    turn: Mutex<()>,
    /// Why nothing can be written any more.
    failure: watch::Sender<Option<String>>,
}

impl Behind {
    pub fn new() -> (Self, Receiver<()>) {
        let (wake, woken) = mpsc::channel(1);
        let behind = Self {
            wake,
            turn: Mutex::new(()),
            failure: watch::Sender::new(None),
        };
        (behind, woken)
    }

    /// Asks the thread to write what waits.
    pub fn wake(&self) {
        // Full: it was asked already. Closed: it has failed, which `check` tells.
        let _ = self.wake.try_send(());
    }

    /// Nothing may be applied or written any more. The first problem is the one that counts.
    pub fn fail(&self, problem: &str) {
        self.failure.send_if_modified(|failure| {
            let first = failure.is_none();
            if first {
                *failure = Some(problem.to_owned());
            }
            first
        });
    }

    /// Tells when that is so, and why.
    pub fn failure(&self) -> watch::Receiver<Option<String>> {
        self.failure.subscribe()
    }

    /// An error once a write has failed: what is on disk then is unknown, so the node must stop.
    pub fn check(&self) -> Result<(), StorageError> {
        match &*self.failure.borrow() {
            None => Ok(()),
            Some(problem) => Err(StorageError::Stopped(problem.clone())),
        }
    }
}

/// Starts the thread.
pub(super) fn start(shared: &Arc<Shared>, mut woken: Receiver<()>) -> io::Result<()> {
    #[cfg(feature = "simulation")]
    let simulated = crate::storage::disk::simulated::is_simulated(&shared.dir);
    let shared = Arc::downgrade(shared);
    // One turn; whether it goes on.
    let turn = move || match shared.upgrade() {
        Some(shared) => shared.write_pending().is_ok(),
        None => false,
    };
    #[cfg(feature = "simulation")]
    if simulated {
        tokio::spawn(async move { while woken.recv().await.is_some() && turn() {} });
        return Ok(());
    }
    let run = move || while woken.blocking_recv().is_some() && turn() {};
    thread::Builder::new()
        .name("quorate-state".to_owned())
        .spawn(run)
        .map(drop)
}

impl Shared {
    /// Writes all rows that wait, with the applied log id and the membership of the same moment, in
    /// one batch.
    pub(super) fn write_pending(&self) -> Result<(), StorageError> {
        let behind = &self.behind;
        let _turn = behind.turn.lock().unwrap_or_else(PoisonError::into_inner);
        behind.check()?;
        let (database, rows, applied, membership) = {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            let rows = state.pending.begin();
            let membership = state.membership.clone();
            (state.database.clone(), rows, state.applied, membership)
        };
        let written = database.write(&rows, applied.as_ref(), &membership);
        if let Err(error) = &written {
            behind.fail(&error.to_string());
            return written;
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.pending.finish(&rows);
        Ok(())
    }
}
