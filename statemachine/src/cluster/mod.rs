//! The cluster itself: time without other work, digests to compare, ids of members.

use serde::{Deserialize, Serialize};

use crate::command::{Validate, operations};
use crate::refusal::{Failure, Refusal, Subject};
use crate::tables::MetaRow;

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

operations! {
    Cluster {
        0x0401 "cluster.tick" Tick => ();
        0x0402 "cluster.record_digest" RecordDigest => ();
        0x0403 "cluster.found" Found => ();
        0x0404 "cluster.allocate_node_id" AllocateNodeId => u64;
    }
}

impl Validate for Tick {}
impl Validate for RecordDigest {}
impl Validate for Found {}
impl Validate for AllocateNodeId {}

pub(crate) fn apply(meta: &mut MetaRow, command: &Command) -> Result<Response, Failure> {
    match command {
        Command::Tick(_) => Ok(Response::Tick(())),
        Command::RecordDigest(_) => Ok(Response::RecordDigest(())),
        Command::Found(command) => found(meta, command).map(Response::Found),
        Command::AllocateNodeId(_) => {
            meta.last_node_id += 1;
            Ok(Response::AllocateNodeId(meta.last_node_id))
        }
    }
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
