//! Target `codec`: bytes of everything that is stored or sent. What can be read is written back in
//! one form, and a command that can be read breaks nothing.

use std::fmt::Debug;
use std::sync::LazyLock;

use quorate_statemachine::tables::{
    Access, ClusterVersion, Due, EventsByType, Grants, GrantsByProcess, GrantsBySession,
    LeaseEnded, LeaseHistory, Leases, LockMembers, LockOrder, LockOwners, Locks, Meta,
    PendingWakes, ProcessDefinitions, ProcessEventKeys, ProcessEvents, ProcessSessions, Processes,
    ProcessesByState, QueueDead, QueueDedupe, QueueItems, QueuePayloads, QueueReady, Queues,
    Requests, RequestsByAge, Roles, SessionAttachments, SessionBlobBytes, SessionBlobs,
    SessionBodies, SessionDelayedWork, SessionEndedInputs, SessionGarbage, SessionGraphs,
    SessionHeads, SessionInputIds, SessionInputSources, SessionInputs, SessionIntents,
    SessionLooseBlobs, SessionNodeIds, SessionNodes, SessionNotes, SessionTombstones, SessionTurns,
    SessionUsage, SessionWork, SessionWorkSources, Sessions, Table, Tokens, TokensByUser, Users,
    WakeTargets,
};
use quorate_statemachine::{Answer, Command, InvalidArgument, Principal, Query, Reply, codec};

use super::twins::{Twins, is_proposed};

#[path = "../../../../statemachine/tests/workload/mod.rs"]
mod workload;

/// Entries of the state that commands meet.
const ENTRIES: usize = 300;

/// A state with something of everything in it.
static STATE: LazyLock<Twins> = LazyLock::new(|| {
    let mut twins = Twins::default();
    for logged in workload::log(1, ENTRIES) {
        let entry = logged.entry();
        twins.index = entry.index - 1;
        twins.clock = entry.proposed_at.0;
        twins.apply(entry.command, entry.principal);
    }
    twins
});

/// Runs one input.
pub fn run(bytes: &[u8]) {
    let _ = Command::is_upkeep(bytes);
    if let Ok((tag, _)) = codec::open(bytes) {
        row(tag, bytes);
    }
    if let Ok(reply) = Reply::decode(bytes) {
        written_back(bytes, &reply, Reply::encode, |bytes| {
            Reply::decode(bytes).ok()
        });
    }
    if let Ok(answer) = Answer::decode(bytes) {
        written_back(bytes, &answer, Answer::encode, |bytes| {
            Answer::decode(bytes).ok()
        });
    }
    if let Some(query) = taken(Query::decode(bytes)) {
        written_back(bytes, &query, Query::encode, |bytes| {
            Query::decode(bytes).ok()
        });
        STATE.ask(&query);
    }
    if let Some(command) = taken(Command::decode(bytes)) {
        written_back(bytes, &command, Command::encode, |bytes| {
            Command::decode(bytes).ok()
        });
        if is_proposed(&command) {
            applied(bytes);
        }
    }
}

/// What is refused is refused with all that its caller must know.
fn taken<T>(decoded: Result<T, InvalidArgument>) -> Option<T> {
    let refused = match decoded {
        Ok(value) => return Some(value),
        Err(refused) => refused,
    };
    for part in [
        &refused.field,
        &refused.problem,
        &refused.limit,
        &refused.actual,
    ] {
        assert!(!part.is_empty(), "{refused:?}");
    }
    None
}

/// A value has one form that is written, no longer than any form that is read.
fn written_back<T: PartialEq + Debug>(
    bytes: &[u8],
    value: &T,
    encode: impl Fn(&T) -> Vec<u8>,
    decode: impl Fn(&[u8]) -> Option<T>,
) {
    let written = encode(value);
    assert!(written.len() <= bytes.len(), "{value:?} has grown");
    let read = decode(&written);
    assert_eq!(read.as_ref(), Some(value));
    assert_eq!(read.as_ref().map(encode), Some(written));
}

/// A command is applied, and all that it began comes to its end.
fn applied(command: &[u8]) {
    let mut twins = STATE.clone();
    twins.apply(command, Principal::Cluster);
    twins.check();
    twins.apply(command, Principal::Anonymous);
    twins.end_all();
}

macro_rules! tables {
    ($($table:ident)*) => {
        /// Tables whose rows are read here.
        pub const TABLES: &[(u8, &str)] = &[$(($table::TAG, $table::NAME)),*];

        /// A row that is damaged on a disk is refused, or is read as what it then is.
        fn row(tag: u16, bytes: &[u8]) {
            $(if tag == $table::TAG.into() {
                row_of::<$table>(bytes);
            })*
        }
    };
}

tables! {
    Meta Due Requests RequestsByAge ClusterVersion Leases LeaseHistory LeaseEnded Queues QueueItems
    QueuePayloads QueueReady QueueDedupe QueueDead Processes ProcessEvents ProcessEventKeys
    ProcessesByState ProcessDefinitions EventsByType PendingWakes Grants GrantsByProcess
    GrantsBySession WakeTargets ProcessSessions Locks LockMembers LockOrder LockOwners Sessions
    SessionHeads SessionNotes SessionGraphs SessionNodes SessionNodeIds SessionTombstones
    SessionUsage SessionTurns SessionBlobs SessionBlobBytes SessionLooseBlobs SessionWork
    SessionDelayedWork SessionWorkSources SessionInputs SessionEndedInputs SessionInputIds
    SessionInputSources SessionBodies SessionAttachments SessionIntents SessionGarbage Access Users
    Roles Tokens TokensByUser
}

fn row_of<T: Table>(bytes: &[u8]) {
    let read = |bytes: &[u8]| codec::decode::<T::Row>(T::TAG.into(), bytes).ok();
    if let Some(row) = read(bytes) {
        let written = codec::encode(T::TAG.into(), &row);
        assert!(
            written.len() <= bytes.len(),
            "a row of {} has grown",
            T::NAME
        );
        let again = read(&written).map(|row| codec::encode(T::TAG.into(), &row));
        assert_eq!(again, Some(written), "a row of {}", T::NAME);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_every_table_are_read() {
        assert_eq!(
            TABLES,
            quorate_statemachine::tables::REGISTRY,
            "list the new table above"
        );
    }
}
