//! Registry of tables: the tag of each is persisted, keep it stable.
//!
//! A key is `[namespace u16][table tag u8][the table's own key]`, big endian, so that rows sort by
//! namespace, table and key. There is one namespace so far; it stands first so that a namespace can
//! move to a group of its own one day by moving one range. Names inside keys end with a zero byte,
//! which no name holds ([`crate::Name`]), so that byte order is name order.

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use crate::version::{ClusterVersion, VersionRow};

/// The one namespace so far.
pub const NAMESPACE: u16 = 0;

/// Bytes before the table's own key.
pub const PREFIX_BYTES: usize = 3;

/// A table: its tag in keys and rows, and what a row is.
pub trait Table {
    /// Persisted in every key and row; never reused.
    const TAG: u8;
    /// For people: dumps, errors, `docs/DATA.md`.
    const NAME: &'static str;
    /// What a row holds.
    type Row: Serialize + DeserializeOwned;
}

/// All table tags with their names, in tag order.
pub const REGISTRY: &[(u8, &str)] = &[
    (Meta::TAG, Meta::NAME),
    (Due::TAG, Due::NAME),
    (Requests::TAG, Requests::NAME),
    (RequestsByAge::TAG, RequestsByAge::NAME),
    (ClusterVersion::TAG, ClusterVersion::NAME),
    (Leases::TAG, Leases::NAME),
    (LeaseHistory::TAG, LeaseHistory::NAME),
    (LeaseEnded::TAG, LeaseEnded::NAME),
    (Queues::TAG, Queues::NAME),
    (QueueItems::TAG, QueueItems::NAME),
    (QueuePayloads::TAG, QueuePayloads::NAME),
    (QueueReady::TAG, QueueReady::NAME),
    (QueueDedupe::TAG, QueueDedupe::NAME),
    (QueueDead::TAG, QueueDead::NAME),
    (Processes::TAG, Processes::NAME),
    (ProcessEvents::TAG, ProcessEvents::NAME),
    (ProcessEventKeys::TAG, ProcessEventKeys::NAME),
    (ProcessesByState::TAG, ProcessesByState::NAME),
    (ProcessDefinitions::TAG, ProcessDefinitions::NAME),
    (EventsByType::TAG, EventsByType::NAME),
    (PendingWakes::TAG, PendingWakes::NAME),
    (Grants::TAG, Grants::NAME),
    (GrantsByProcess::TAG, GrantsByProcess::NAME),
    (GrantsBySession::TAG, GrantsBySession::NAME),
    (WakeTargets::TAG, WakeTargets::NAME),
    (ProcessSessions::TAG, ProcessSessions::NAME),
    (Locks::TAG, Locks::NAME),
    (LockMembers::TAG, LockMembers::NAME),
    (LockOrder::TAG, LockOrder::NAME),
    (LockOwners::TAG, LockOwners::NAME),
    (Sessions::TAG, Sessions::NAME),
    (SessionHeads::TAG, SessionHeads::NAME),
    (SessionNotes::TAG, SessionNotes::NAME),
    (SessionGraphs::TAG, SessionGraphs::NAME),
    (SessionNodes::TAG, SessionNodes::NAME),
    (SessionNodeIds::TAG, SessionNodeIds::NAME),
    (SessionTombstones::TAG, SessionTombstones::NAME),
    (SessionUsage::TAG, SessionUsage::NAME),
    (SessionTurns::TAG, SessionTurns::NAME),
    (SessionBlobs::TAG, SessionBlobs::NAME),
    (SessionBlobBytes::TAG, SessionBlobBytes::NAME),
    (SessionLooseBlobs::TAG, SessionLooseBlobs::NAME),
    (SessionWork::TAG, SessionWork::NAME),
    (SessionDelayedWork::TAG, SessionDelayedWork::NAME),
    (SessionWorkSources::TAG, SessionWorkSources::NAME),
    (SessionInputs::TAG, SessionInputs::NAME),
    (SessionEndedInputs::TAG, SessionEndedInputs::NAME),
    (SessionInputIds::TAG, SessionInputIds::NAME),
    (SessionInputSources::TAG, SessionInputSources::NAME),
    (SessionBodies::TAG, SessionBodies::NAME),
    (SessionAttachments::TAG, SessionAttachments::NAME),
    (SessionIntents::TAG, SessionIntents::NAME),
    (SessionGarbage::TAG, SessionGarbage::NAME),
    (Access::TAG, Access::NAME),
    (Users::TAG, Users::NAME),
    (Roles::TAG, Roles::NAME),
    (Tokens::TAG, Tokens::NAME),
    (TokensByUser::TAG, TokensByUser::NAME),
];

/// Whether rows of this table are small, hot and scanned from the front, so that a store keeps them
/// in memory beside the disk. A hint to the store: it changes no result.
#[must_use]
pub fn resident(tag: u8) -> bool {
    matches!(
        tag,
        Meta::TAG
            | Due::TAG
            | ClusterVersion::TAG
            | Leases::TAG
            | Queues::TAG
            | QueueReady::TAG
            | Locks::TAG
            | LockMembers::TAG
            | LockOrder::TAG
            | LockOwners::TAG
            | Access::TAG
            | Users::TAG
            | Roles::TAG
    )
}

/// The table tag of a key, if the key is long enough to have one.
#[must_use]
pub fn tag_of(key: &[u8]) -> Option<u8> {
    key.get(PREFIX_BYTES - 1).copied()
}

/// A key of table `T`.
pub struct Key<T> {
    bytes: Vec<u8>,
    table: PhantomData<T>,
}

impl<T> Clone for Key<T> {
    fn clone(&self) -> Self {
        Self {
            bytes: self.bytes.clone(),
            table: PhantomData,
        }
    }
}

impl<T: Table> Key<T> {
    /// The table's prefix: also the lower end of a scan over all of it.
    #[must_use]
    pub fn first() -> Self {
        let mut bytes = Vec::with_capacity(48);
        bytes.extend_from_slice(&NAMESPACE.to_be_bytes());
        bytes.push(T::TAG);
        Self {
            bytes,
            table: PhantomData,
        }
    }

    /// The upper end (exclusive) of a scan over all keys that start with this one.
    #[must_use]
    pub fn end(mut self) -> Self {
        while let Some(last) = self.bytes.last_mut() {
            if *last < u8::MAX {
                *last += 1;
                return self;
            }
            self.bytes.pop();
        }
        unreachable!("the namespace is below u16::MAX, so some byte can grow")
    }

    /// The least key above this one: where a listing goes on after it.
    #[must_use]
    pub fn next(mut self) -> Self {
        self.bytes.push(0);
        self
    }

    /// The least key behind `after`, or `first` if there was none yet.
    pub(crate) fn behind(first: &Self, after: &[u8]) -> Self {
        if after.is_empty() {
            return first.clone();
        }
        Self::from_bytes(after.to_vec()).next()
    }

    /// A key as a scan gave it.
    pub(crate) fn from_bytes(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            table: PhantomData,
        }
    }

    /// Appends a name that is the last part of the key, or a prefix of one.
    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        self.bytes.extend_from_slice(text.as_bytes());
        self
    }

    /// Appends a name that is followed by more.
    #[must_use]
    pub fn name(mut self, name: &crate::id::Name) -> Self {
        self.bytes.extend_from_slice(name.as_str().as_bytes());
        self.bytes.push(0);
        self
    }

    /// Appends a number that sorts ascending.
    #[must_use]
    pub fn number(mut self, number: u64) -> Self {
        self.bytes.extend_from_slice(&number.to_be_bytes());
        self
    }

    /// Appends one byte.
    #[must_use]
    pub fn byte(mut self, byte: u8) -> Self {
        self.bytes.push(byte);
        self
    }

    /// Appends raw bytes that are the last part of the key.
    #[must_use]
    pub fn raw(mut self, raw: &[u8]) -> Self {
        self.bytes.extend_from_slice(raw);
        self
    }

    /// The whole key.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Splits a key's own part at its first zero byte: name and rest.
#[must_use]
pub fn split_name(own: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = own.iter().position(|byte| *byte == 0)?;
    Some((&own[..end], &own[end + 1..]))
}

mod access;
mod cluster;
mod leases;
mod locks;
mod processes;
mod queues;
mod sessions;

pub use access::{
    Access, AccessRow, Roles, Tokens, TokensByUser, Users, access_key, role_key, token_id_of,
    token_key, token_of_user_key, tokens_of, user_key,
};
pub use cluster::{
    Due, DueKind, DueSubject, Meta, MetaRow, RequestRow, Requests, RequestsByAge, due_key,
    meta_key, parse_due_key, read_due_subject, request_age_key, request_key,
};
pub use leases::{
    LeaseEnded, LeaseHistory, Leases, ended_key, history_key, lease_key, lease_name_of,
};
pub use locks::{
    LockMembers, LockOrder, LockOwners, Locks, lock_key, lock_member_key, lock_order_id,
    lock_order_key, lock_owner_key, lock_owner_prefix, lock_owner_subject, lock_queue,
    lock_queue_after, lock_queue_before, lock_subject, lock_tokens, lock_tokens_of,
};
pub use processes::{
    EventsByType, Grants, GrantsByProcess, GrantsBySession, PendingWakes, ProcessDefinitions,
    ProcessEventKeys, ProcessEvents, ProcessSessions, Processes, ProcessesByState, WakeTargets,
    definition_key, event_key, event_range_end, event_type_end, event_type_key, event_unique_key,
    grant_key, grant_names, grant_of_process_key, grant_of_session_key, grants_of_process,
    grants_of_scope, grants_of_session, process_id_of_state_key, process_key, process_state_key,
    sequence_of, session_key, wake_key, wake_target_key, wake_target_of, wake_targets_of,
    wakes_end,
};
pub use queues::{
    DedupeRow, QueueDead, QueueDedupe, QueueItems, QueuePayloads, QueueReady, Queues, dead_key,
    dedupe_key, item_key, payload_key, queue_key, ready_key,
};
pub use sessions::{
    Range, SessionAttachments, SessionBlobBytes, SessionBlobs, SessionBodies, SessionDelayedWork,
    SessionEndedInputs, SessionGarbage, SessionGraphs, SessionHeads, SessionInputIds,
    SessionInputSources, SessionInputs, SessionIntents, SessionLooseBlobs, SessionNodeIds,
    SessionNodes, SessionNotes, SessionTombstones, SessionTurns, SessionUsage, SessionWork,
    SessionWorkSources, Sessions, attachment_key, blob_key, blob_of, body_key, graph_key,
    intent_key, intent_of, intents_after, lane_key, lane_name_key, lane_range, node_id_key,
    node_key, number_of, session_one_key, session_range, session_row_key, turn_key, usage_key,
    usage_name_of,
};
