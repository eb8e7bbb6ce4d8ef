//! The cluster itself: time without other work, digests to compare, ids of members, its version.

use serde::{Deserialize, Serialize};

use crate::command::{Validate, operations};
use crate::limits::NOTE_BYTES_MAX;
use crate::refusal::{Failure, InvalidArgument, Refusal, Subject};
use crate::tables::MetaRow;
use crate::transaction::Transaction;
use crate::version;

/// Lets time pass: the leader proposes it when something is due and nobody writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tick {}

/// Marks a place in the log at which every node keeps its digest for comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordDigest {}

/// Gives the cluster its id: the first command of a new cluster. A retry with the same id changes
/// nothing; another id is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Minted by the founder, usually a UUID.
    pub cluster_id: crate::id::Name,
    /// The founder's own node id: ids handed out later are higher.
    pub node_id: u64,
}

/// Hands out a node id that was never used before and never will be again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocateNodeId {}

/// Lets the cluster use the commands of a higher [version]. Only a leader that has
/// asked every member proposes it. Answers the version afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetVersion {
    /// The highest version that every member knows.
    pub version: u32,
}

/// Keeps the cluster's version as it is although every member knows a higher one, or no longer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldVersion {
    /// Whether to keep it.
    pub held: bool,
}

/// Notes in the log what its principal does by other means than a command: a change of membership,
/// a snapshot. Changes nothing. Its principal needs the right to administer the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoteAction {
    /// What is done, in words.
    pub action: String,
}

operations! {
    Cluster {
        0x0401 "cluster.tick" Tick => (), upkeep;
        0x0402 "cluster.record_digest" RecordDigest => (), upkeep;
        0x0403 "cluster.found" Found => (), upkeep;
        0x0404 "cluster.allocate_node_id" AllocateNodeId => u64, upkeep;
        0x0410 "cluster.set_version" [since 2] SetVersion => u32, upkeep;
        0x0411 "cluster.hold_version" [since 2] HoldVersion => (), upkeep;
        0x0420 "cluster.note_action" [since 2] NoteAction => (), upkeep;
    }
}

impl Validate for Tick {}
impl Validate for RecordDigest {}
impl Validate for Found {}
impl Validate for AllocateNodeId {}
impl Validate for SetVersion {}
impl Validate for HoldVersion {}

impl Validate for NoteAction {
    fn validate(&self) -> Result<(), InvalidArgument> {
        InvalidArgument::check_bytes("action", self.action.len(), NOTE_BYTES_MAX)
    }
}

pub(crate) fn apply(
    tx: &mut Transaction<'_>,
    meta: &mut MetaRow,
    command: &Command,
) -> Result<Response, Failure> {
    match command {
        Command::Tick(_) => Ok(Response::Tick(())),
        Command::RecordDigest(_) => Ok(Response::RecordDigest(())),
        Command::Found(command) => found(meta, command).map(Response::Found),
        Command::AllocateNodeId(_) => allocate(meta).map(Response::AllocateNodeId),
        Command::SetVersion(command) => {
            let version = version::raise(tx, command.version)?;
            Ok(Response::SetVersion(version))
        }
        Command::HoldVersion(command) => {
            version::hold(tx, command.held)?;
            Ok(Response::HoldVersion(()))
        }
        Command::NoteAction(_) => Ok(Response::NoteAction(())),
    }
}

/// No id is handed out twice: behind the last there is none.
fn allocate(meta: &mut MetaRow) -> Result<u64, Failure> {
    let Some(id) = meta.last_node_id.checked_add(1) else {
        return Err(Failure::Refused(Refusal::Exhausted {
            what: "node ids".to_owned(),
            limit: u64::MAX,
            actual: u64::MAX,
        }));
    };
    meta.last_node_id = id;
    Ok(id)
}

fn found(meta: &mut MetaRow, command: &Found) -> Result<(), Failure> {
    let cluster_id = command.cluster_id.as_str();
    if !meta.cluster_id.is_empty() && meta.cluster_id != cluster_id {
        return Err(Failure::Refused(Refusal::Conflict {
            subject: Subject::Member,
            name: cluster_id.to_owned(),
            problem: format!("this cluster has the id {} already", meta.cluster_id),
        }));
    }
    meta.cluster_id = cluster_id.to_owned();
    meta.last_node_id = meta.last_node_id.max(command.node_id);
    Ok(())
}
