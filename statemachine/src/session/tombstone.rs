//! Tombstone: hide nodes of a session's graph.

use serde::{Deserialize, Serialize};

use super::{SessionRef, graph};
use crate::command::Validate;
use crate::context::Context;
use crate::id::Name;
use crate::limits::NODES_PER_COMMAND_MAX;
use crate::refusal::{Failure, InvalidArgument};
use crate::tables::{
    SessionHeads, SessionNodes, SessionTombstones, node_id_key, node_key, session_one_key,
};
use crate::transaction::Transaction;

/// Hides nodes; the next [`super::Vacuum`] removes them.
///
/// Promises that no read shows them when it answers. Nodes that there are not are ignored, and so
/// is a session without a head. It asks for no lease and moves no revision. Refuses with
/// `NotFound`. A commit that adds a node of the same id brings it back, so give this a request id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// Whose.
    pub session: SessionRef,
    /// Which.
    pub nodes: Vec<Name>,
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstoned {
    /// How many were shown until now.
    pub nodes: u64,
}

impl Validate for Tombstone {
    fn validate(&self) -> Result<(), InvalidArgument> {
        self.session.validate()?;
        let (count, max) = (self.nodes.len() as u64, NODES_PER_COMMAND_MAX as u64);
        InvalidArgument::check_count("nodes", count, 1, max)
    }
}

impl Tombstone {
    pub(super) fn apply(
        &self,
        tx: &mut Transaction<'_>,
        ctx: &Context,
    ) -> Result<Tombstoned, Failure> {
        let session = self.session.require(tx)?;
        let Some(head) = tx.get(&session_one_key::<SessionHeads>(session.id))? else {
            return Ok(Tombstoned { nodes: 0 });
        };
        let mut row = graph::of_head(tx, &session, head.graph)?;
        let before = row.tombstones;
        for id in &self.nodes {
            let Some(number) = tx.get(&node_id_key(session.id, head.graph, id))? else {
                continue;
            };
            let mut node = graph::require(tx, &session, head.graph, number)?;
            if std::mem::replace(&mut node.tombstone, true) {
                continue;
            }
            let key = node_key::<SessionNodes>(session.id, head.graph, number);
            tx.put(&key, &node)?;
            let key = node_key::<SessionTombstones>(session.id, head.graph, number);
            tx.put(&key, &())?;
            row.tombstones += 1;
            row.rewritten = ctx.index;
        }
        graph::store(tx, session.id, head.graph, &row)?;
        Ok(Tombstoned {
            nodes: row.tombstones - before,
        })
    }
}
