//! What happened, for those who wait or watch.
//!
//! Notices are the same on every node, since every node applies every entry, but they are not
//! stored: who missed them reads the state.

use serde::{Deserialize, Serialize};

use crate::codec::{self, BadBytes};
use crate::digest::Digest;
use crate::id::Name;
use crate::lease::EndReason;
use crate::lock::End;
use crate::queue::ItemId;

/// One thing that an entry did. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notice {
    /// A lease was granted or reclaimed.
    LeaseGranted {
        /// The lease key.
        key: Name,
        /// Its new holder.
        owner_id: Name,
        /// The token of the grant.
        fencing_token: u64,
    },
    /// A grant ended.
    LeaseEnded {
        /// The lease key.
        key: Name,
        /// Who held it.
        owner_id: Name,
        /// The token of the grant that ended.
        fencing_token: u64,
        /// Why.
        reason: EndReason,
    },
    /// A queue has an item that can be claimed, which it had not before.
    QueueReady {
        /// The queue.
        queue: Name,
    },
    /// An item left the queue: done, dead or cancelled.
    ItemSettled {
        /// The queue.
        queue: Name,
        /// The item.
        item_id: ItemId,
    },
    /// An event was appended.
    EventAppended {
        /// The process.
        process_id: Name,
        /// The event's sequence number.
        sequence: u64,
    },
    /// A process record changed its state; registered is the first.
    ProcessChanged {
        /// The process.
        process_id: Name,
        /// Whether it has ended.
        ended: bool,
    },
    /// The digest of the state at this entry, for comparison between nodes.
    DigestRecorded {
        /// The digest after the entry.
        digest: Digest,
    },
    /// A lock was granted.
    LockGranted {
        /// The lock.
        key: Name,
        /// The acquisition.
        id: [u8; 16],
        /// Whose it is.
        owner_id: Name,
        /// The token of the grant.
        fencing_token: u64,
    },
    /// An acquisition of a lock is over: its hold, or its wait.
    LockLeft {
        /// The lock.
        key: Name,
        /// The acquisition.
        id: [u8; 16],
        /// Whose it was.
        owner_id: Name,
        /// Why.
        end: End,
    },
    /// The holder of a lock put another note on its hold.
    LockProclaimed {
        /// The lock.
        key: Name,
        /// The token of the hold.
        fencing_token: u64,
    },
}

const TAG: u16 = 0x7f04;

/// Bytes of an entry's notices, for the wire.
#[must_use]
pub fn encode_notices(notices: &[Notice]) -> Vec<u8> {
    codec::encode(TAG, &notices)
}

/// An entry's notices from the wire.
pub fn decode_notices(bytes: &[u8]) -> Result<Vec<Notice>, BadBytes> {
    codec::decode(TAG, bytes)
}
