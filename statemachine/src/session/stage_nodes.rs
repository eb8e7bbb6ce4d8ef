//! Stage nodes: build a graph that is too large for the commit that takes it.

use serde::{Deserialize, Serialize};

use super::graph::{self, NewNode};
use super::{GraphId, SessionRef};
use crate::command::Validate;
use crate::context::Context;
use crate::refusal::{Failure, InvalidArgument, Refusal, Subject};
use crate::tables::{SessionGraphs, graph_key};
use crate::transaction::Transaction;

/// Adds nodes to a graph that no head has, beginning a new one if `graph` is none.
///
/// Promises that they are there in the order in which they were staged, unseen until a commit takes
/// the graph ([`super::GraphDelta::Replace`]); it is removed when nothing was staged for
/// [`crate::limits::STAGED_GRAPH_RETENTION_MS`]. Refuses with `NotFound` for a graph that is not
/// staged (any more), and with `Exhausted` at the limit of nodes. Give it a request id: a retry
/// would begin another graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageNodes {
    /// Whose.
    pub session: SessionRef,
    /// The graph, as the first command answered.
    pub graph: Option<GraphId>,
    /// In order.
    pub nodes: Vec<NewNode>,
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodesStaged {
    /// The graph.
    pub graph: GraphId,
    /// How many nodes it has.
    pub nodes: u64,
}

impl Validate for StageNodes {
    fn validate(&self) -> Result<(), InvalidArgument> {
        self.session.validate()?;
        graph::validate(&self.nodes)
    }
}

impl StageNodes {
    pub(super) fn apply(
        &self,
        tx: &mut Transaction<'_>,
        ctx: &Context,
    ) -> Result<NodesStaged, Failure> {
        let mut session = self.session.require(tx)?;
        let (id, mut row) = match self.graph {
            None => graph::begin(ctx),
            Some(id) => {
                let row = tx.get(&graph_key::<SessionGraphs>(session.id, id))?;
                let staged = row.filter(|row| row.staged_at.is_some());
                (id, staged.ok_or_else(|| not_staged(&self.session, id))?)
            }
        };
        graph::append(tx, ctx, &mut session, (id, &mut row), &self.nodes)?;
        graph::stage(tx, ctx, &session, (id, &mut row))?;
        session.store(tx)?;
        Ok(NodesStaged {
            graph: id,
            nodes: row.nodes,
        })
    }
}

/// The graph is not staged: never, no longer, or it is a head's already.
pub(super) fn not_staged(session: &SessionRef, graph: GraphId) -> Failure {
    Failure::Refused(Refusal::NotFound {
        subject: Subject::Graph,
        name: format!("{}#{}", session.name, graph.0),
    })
}
