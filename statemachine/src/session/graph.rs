//! Graphs: nodes in the order in which they came, found by id.

use serde::{Deserialize, Serialize};

use super::content::Content;
use super::due::file;
use super::{Graph, GraphId, Node, Session, SessionId, blobs, garbage};
use crate::context::Context;
use crate::id::Name;
use crate::limits::{GRAPH_NODES_MAX, NODES_PER_COMMAND_MAX, STAGED_GRAPH_RETENTION_MS};
use crate::refusal::{Broken, Failure, InvalidArgument, Refusal};
use crate::tables::{
    DueKind, SessionGraphs, SessionNodes, SessionTombstones, graph_key, node_id_key, node_key,
};
use crate::transaction::Transaction;

/// A node as a caller gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewNode {
    /// Unique in its graph.
    pub id: Name,
    /// The node before it; need not exist.
    pub parent: Option<Name>,
    /// Opaque.
    pub body: Content,
}

pub(super) fn validate(nodes: &[NewNode]) -> Result<(), InvalidArgument> {
    let (count, max) = (nodes.len() as u64, NODES_PER_COMMAND_MAX as u64);
    InvalidArgument::check_count("nodes", count, 0, max)?;
    nodes.iter().try_for_each(|node| node.body.validate("node"))
}

/// An empty graph, named after the step that makes it.
pub(super) fn begin(ctx: &Context) -> (GraphId, Graph) {
    let graph = Graph {
        next: 0,
        nodes: 0,
        tombstones: 0,
        staged_at: None,
        rewritten: ctx.index,
    };
    (GraphId(ctx.number()), graph)
}

/// The graph of a head.
pub(super) fn of_head(
    tx: &mut Transaction<'_>,
    session: &Session,
    graph: GraphId,
) -> Result<Graph, Broken> {
    tx.get(&graph_key::<SessionGraphs>(session.id, graph))?
        .ok_or_else(|| {
            let name = &session.name;
            Broken(format!(
                "session {name} has graph {} and no row of it",
                graph.0
            ))
        })
}

pub(super) fn store(
    tx: &mut Transaction<'_>,
    id: SessionId,
    graph: GraphId,
    row: &Graph,
) -> Result<(), Broken> {
    tx.put(&graph_key::<SessionGraphs>(id, graph), row)
}

/// Adds nodes at the end. One whose id is there already takes the place of the old one, and is no
/// tombstone any more. The graph's row is left to the caller.
pub(super) fn append(
    tx: &mut Transaction<'_>,
    ctx: &Context,
    session: &mut Session,
    (id, graph): (GraphId, &mut Graph),
    nodes: &[NewNode],
) -> Result<(), Failure> {
    for new in nodes {
        blobs::refer_content(tx, session, &new.body)?;
        let node = Node {
            id: new.id.clone(),
            parent: new.parent.clone(),
            body: new.body.clone(),
            tombstone: false,
        };
        let id_key = node_id_key(session.id, id, &new.id);
        if let Some(number) = tx.get(&id_key)? {
            replace(tx, ctx, session, (id, graph), number)?;
            tx.put(&node_key::<SessionNodes>(session.id, id, number), &node)?;
            continue;
        }
        let nodes = || format!("nodes of the graph of session {}", session.name);
        Refusal::check_room(nodes, graph.nodes, GRAPH_NODES_MAX)?;
        tx.put_new(&id_key, &graph.next)?;
        tx.put_new(&node_key::<SessionNodes>(session.id, id, graph.next), &node)?;
        graph.next += 1;
        graph.nodes += 1;
    }
    Ok(())
}

/// Takes back what the old node had.
fn replace(
    tx: &mut Transaction<'_>,
    ctx: &Context,
    session: &mut Session,
    (id, graph): (GraphId, &mut Graph),
    number: u64,
) -> Result<(), Broken> {
    let old = require(tx, session, id, number)?;
    blobs::release(tx, ctx.now, session, old.body.blobs())?;
    if old.tombstone {
        tx.delete(&node_key::<SessionTombstones>(session.id, id, number))?;
        graph.tombstones = graph
            .tombstones
            .checked_sub(1)
            .ok_or_else(|| session.miscounted())?;
    }
    graph.rewritten = ctx.index;
    Ok(())
}

/// A node that an index names.
pub(super) fn require(
    tx: &mut Transaction<'_>,
    session: &Session,
    graph: GraphId,
    number: u64,
) -> Result<Node, Broken> {
    tx.get(&node_key::<SessionNodes>(session.id, graph, number))?
        .ok_or_else(|| {
            let name = &session.name;
            Broken(format!(
                "node {number} of session {name} is indexed and has no row"
            ))
        })
}

/// Removes a node and all that finds it. The graph's counters are left to the caller.
pub(super) fn remove_node(
    tx: &mut Transaction<'_>,
    ctx: &Context,
    session: &mut Session,
    graph: GraphId,
    number: u64,
) -> Result<usize, Broken> {
    let node = require(tx, session, graph, number)?;
    blobs::release(tx, ctx.now, session, node.body.blobs())?;
    tx.delete(&node_key::<SessionNodes>(session.id, graph, number))?;
    tx.delete(&node_key::<SessionTombstones>(session.id, graph, number))?;
    tx.delete(&node_id_key(session.id, graph, &node.id))?;
    Ok(node.body.inline_bytes())
}

/// Notes that a graph is staged now, and when to look whether it was left.
pub(super) fn stage(
    tx: &mut Transaction<'_>,
    ctx: &Context,
    session: &Session,
    (id, graph): (GraphId, &mut Graph),
) -> Result<(), Broken> {
    if graph.staged_at.is_none() {
        let at = ctx.now.plus(STAGED_GRAPH_RETENTION_MS);
        file(tx, session, DueKind::SessionGraph, &id.0.to_be_bytes(), at)?;
    }
    graph.staged_at = Some(ctx.now);
    store(tx, session.id, id, graph)
}

/// The due entry of a staged graph came by: it is in use, or staged still, or was left.
pub(super) fn look(
    tx: &mut Transaction<'_>,
    ctx: &Context,
    session: &Session,
    id: GraphId,
) -> Result<(), Broken> {
    let graph = tx.get(&graph_key::<SessionGraphs>(session.id, id))?;
    let Some(staged_at) = graph.and_then(|graph| graph.staged_at) else {
        return Ok(());
    };
    let over = staged_at.plus(STAGED_GRAPH_RETENTION_MS);
    if over > ctx.now {
        return file(
            tx,
            session,
            DueKind::SessionGraph,
            &id.0.to_be_bytes(),
            over,
        );
    }
    garbage::leave_graph(tx, ctx, session, id)
}
