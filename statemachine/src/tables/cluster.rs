//! Rows of the whole cluster: the meta row, the due index, and answered requests.

use serde::{Deserialize, Serialize};

use super::{Key, PREFIX_BYTES, Table, split_name};
use crate::digest::Digest;
use crate::id::Name;
use crate::queue::ItemId;
use crate::refusal::Broken;
use crate::time::Timestamp;

/// The one row of counters and marks, written by every command.
pub struct Meta;

/// What the meta row holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MetaRow {
    /// Cluster time of the last command.
    pub now: Timestamp,
    /// Log index of the last command.
    pub last_index: u64,
    /// Added to the log index to make a fencing token; raised by a restore, never lowered.
    pub fence_base: u64,
    /// Digest of all other rows.
    pub digest: Digest,
    /// The cluster's id, minted once when the cluster is made.
    pub cluster_id: String,
    /// Highest node id handed out; ids are never used again.
    pub last_node_id: u64,
    /// Answers of requests at or below this log index may have been dropped.
    pub requests_floor: u64,
    /// Remembered answers.
    pub requests: u64,
    /// Bytes of the remembered answers.
    pub request_bytes: u64,
    /// Live or not yet swept leases.
    pub leases: u64,
    /// Queues that have a row.
    pub queues: u64,
    /// Process records.
    pub processes: u64,
    /// Holders and waiters of all locks, live or not yet swept.
    pub lock_members: u64,
    /// Sessions.
    pub sessions: u64,
    /// Cluster time at which the oldest remembered answer was given.
    pub oldest_request_at: Timestamp,
}

impl Table for Meta {
    const TAG: u8 = 0x01;
    const NAME: &'static str = "meta";
    type Row = MetaRow;
}

/// Key of the one meta row.
#[must_use]
pub fn meta_key() -> Key<Meta> {
    Key::first()
}

/// What may be due: the sweep reads this table from the front.
///
/// An entry's instant is never later than the true one. Whoever moves a deadline out leaves the
/// entry where it is; the sweep files it again when it comes by. A renewal so costs one row.
pub struct Due;

impl Table for Due {
    const TAG: u8 = 0x02;
    const NAME: &'static str = "due";
    type Row = ();
}

/// What a due entry is about. The numbers are persisted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum DueKind {
    /// A lease's TTL; subject: the lease key.
    Lease = 1,
    /// The history of an idle lease key; subject: the lease key.
    LeaseHistory = 2,
    /// A claim's visibility TTL; subject: queue, zero, item id.
    QueueClaim = 3,
    /// A delayed item; subject: queue, zero, item id.
    QueueDelay = 4,
    /// A remembered dedupe key; subject: queue, zero, dedupe key.
    QueueDedupe = 5,
    /// An idle queue row; subject: queue.
    QueueIdle = 6,
    /// A hold or a wait of a lock; subject: lock key, zero, acquisition.
    LockMember = 7,
    /// The queue of a lock; subject: lock key.
    LockHandOver = 8,
    /// A blob that nothing refers to; subject: session, zero, id, hash.
    SessionBlob = 9,
    /// Delayed work of a session; subject: session, zero, id, number, lane.
    SessionWork = 10,
    /// A graph that is staged; subject: session, zero, id, graph.
    SessionGraph = 11,
    /// What is left of a session or graph; subject: session, zero, id, graph.
    SessionGarbage = 12,
    /// A token that has an end; subject: its id.
    Token = 13,
}

impl DueKind {
    fn from_byte(byte: u8) -> Option<Self> {
        [
            Self::Lease,
            Self::LeaseHistory,
            Self::QueueClaim,
            Self::QueueDelay,
            Self::QueueDedupe,
            Self::QueueIdle,
            Self::LockMember,
            Self::LockHandOver,
            Self::SessionBlob,
            Self::SessionWork,
            Self::SessionGraph,
            Self::SessionGarbage,
            Self::Token,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

/// Key of a due entry.
#[must_use]
pub fn due_key(at: Timestamp, kind: DueKind, subject: &[u8]) -> Key<Due> {
    Key::first().number(at.0).byte(kind as u8).raw(subject)
}

/// Instant, kind and subject of a due entry's key.
#[must_use]
pub fn parse_due_key(key: &[u8]) -> Option<(Timestamp, DueKind, &[u8])> {
    let own = key.get(PREFIX_BYTES..)?;
    let (at, rest) = own.split_first_chunk::<8>()?;
    let (kind, subject) = rest.split_first()?;
    let at = Timestamp(u64::from_be_bytes(*at));
    Some((at, DueKind::from_byte(*kind)?, subject))
}

/// Remembered answers by request id.
pub struct Requests;

/// A remembered answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestRow {
    /// Log index of the entry that was executed.
    pub index: u64,
    /// Cluster time of it.
    pub at: Timestamp,
    /// The encoded [`crate::Reply`].
    pub reply: Vec<u8>,
}

impl Table for Requests {
    const TAG: u8 = 0x03;
    const NAME: &'static str = "requests";
    type Row = RequestRow;
}

/// Key of a remembered answer.
#[must_use]
pub fn request_key(id: [u8; 16]) -> Key<Requests> {
    Key::first().raw(&id)
}

/// Remembered answers in the order in which they are dropped.
pub struct RequestsByAge;

impl Table for RequestsByAge {
    const TAG: u8 = 0x04;
    const NAME: &'static str = "requests_by_age";
    /// Cluster time and bytes of the answer.
    type Row = (Timestamp, u64);
}

/// Key of a remembered answer by age: one entry may settle several requests.
#[must_use]
pub fn request_age_key(index: u64, id: [u8; 16]) -> Key<RequestsByAge> {
    Key::first().number(index).raw(&id)
}

/// Subject of a due entry: a name, and for some kinds an id or a second name behind it.
pub struct DueSubject<'a> {
    /// Lease key, queue, lock key or session.
    pub name: Name,
    rest: &'a [u8],
}

impl DueSubject<'_> {
    /// The item id behind the queue's name.
    pub fn item(&self) -> Result<ItemId, Broken> {
        let bytes = <[u8; 8]>::try_from(self.rest)
            .map_err(|_| Broken("a due entry of an item has no item id".to_owned()))?;
        Ok(ItemId(u64::from_be_bytes(bytes)))
    }

    /// The acquisition behind the lock's key.
    pub fn acquisition(&self) -> Result<[u8; 16], Broken> {
        <[u8; 16]>::try_from(self.rest)
            .map_err(|_| Broken("a due entry of a lock's member has no acquisition".to_owned()))
    }

    /// What is behind the name of a session.
    pub(crate) fn rest(&self) -> &[u8] {
        self.rest
    }

    /// The dedupe key behind the queue's name.
    pub fn key(&self) -> Result<Name, Broken> {
        Name::parse_bytes("dedupe_key", self.rest).map_err(|error| Broken(error.to_string()))
    }
}

/// Splits the subject of a due entry.
pub fn read_due_subject(kind: DueKind, subject: &[u8]) -> Result<DueSubject<'_>, Broken> {
    let (name, rest) = match kind {
        DueKind::Lease
        | DueKind::LeaseHistory
        | DueKind::QueueIdle
        | DueKind::LockHandOver
        | DueKind::Token => (subject, &[][..]),
        DueKind::QueueClaim
        | DueKind::QueueDelay
        | DueKind::QueueDedupe
        | DueKind::LockMember
        | DueKind::SessionBlob
        | DueKind::SessionWork
        | DueKind::SessionGraph
        | DueKind::SessionGarbage => split_name(subject)
            .ok_or_else(|| Broken(format!("due entry {} has no item", subject.escape_ascii())))?,
    };
    let name = Name::parse_bytes("name", name).map_err(|error| Broken(error.to_string()))?;
    Ok(DueSubject { name, rest })
}
