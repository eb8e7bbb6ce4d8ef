//! The waits for locks: acquisitions of one client share the first half of their ids, and one
//! stream brings the notices of all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quorate_statemachine::FencingToken;
use quorate_statemachine::lock::End;
use quorate_statemachine::notice::Notice;

use crate::transport::WatchWhat;
use crate::waits::{Call, Topic, Waits};

/// The acquisitions of one client.
pub(crate) struct Acquisitions {
    session: [u8; 8],
    next: AtomicU64,
}

/// What happened to an acquisition.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// It holds the lock.
    Granted(FencingToken),
    /// It is over.
    Over(End),
}

impl Topic for Acquisitions {
    type Key = [u8; 16];
    type Event = Event;

    fn watch(&self) -> WatchWhat {
        WatchWhat::LockAcquisitions(self.session)
    }

    fn read(notice: Notice) -> Option<([u8; 16], Event)> {
        match notice {
            Notice::LockGranted {
                id, fencing_token, ..
            } => Some((id, Event::Granted(fencing_token))),
            Notice::LockLeft { id, end, .. } => Some((id, Event::Over(end))),
            _ => None,
        }
    }
}

impl Acquisitions {
    pub(crate) fn new() -> Self {
        Self {
            session: fastrand::u64(..).to_be_bytes(),
            next: AtomicU64::new(fastrand::u64(..)),
        }
    }

    /// An id that was never used.
    fn mint(&self) -> [u8; 16] {
        let number = self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.session);
        id[8..].copy_from_slice(&number);
        id
    }
}

/// Enters a new acquisition.
pub(super) fn enter(waits: &Arc<Waits<Acquisitions>>) -> Call<Acquisitions> {
    waits.enter(waits.topic().mint())
}
