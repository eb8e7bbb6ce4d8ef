//! A commit's graph: only what the cluster has not yet is sent.
//!
//! lash gives the whole graph with the last commit of every turn. When it begins with the nodes
//! that this handle has read or written last, only those behind them are sent; the cluster checks
//! that the graph still is that one. A graph that must be replaced and is too large for one command
//! is staged before the commit.

use lash_core::SessionNodeRecord;
use lash_core::StoreError;
use lash_core::store::GraphCommitDelta;
use quorate_statemachine::limits::NODES_PER_COMMAND_MAX;
use quorate_statemachine::session::{
    BlobHash, Graph, GraphDelta, GraphId, NewNode, SessionRef, StageNodes,
};

use super::QuorateSession;
use super::bodies::{Bodies, hash};
use super::error::{Result, backend, name};
use super::known::KnownGraph;

/// Bytes of nodes that one command stages.
const STAGED_BYTES: usize = 1 << 20;

/// What becomes of the graph, and what is known of it if the commit is done.
pub(super) struct Plan {
    pub(super) delta: GraphDelta,
    pub(super) result: Planned,
}

/// What the graph is after the commit, as far as this handle knows it.
pub(super) struct Planned {
    /// Hashes of all nodes, if all are known.
    nodes: Option<Vec<BlobHash>>,
    /// The graph that these hashes build on, and its rewriting: nobody but the cluster knows
    /// whether nodes that are appended come behind those. None if the commit itself makes sure.
    on: Option<(GraphId, u64)>,
}

impl Planned {
    fn whole(nodes: Vec<BlobHash>) -> Self {
        Self {
            nodes: Some(nodes),
            on: None,
        }
    }
}

/// A node as it is stored.
struct Encoded {
    bytes: Vec<u8>,
    hash: BlobHash,
}

fn encode(node: &SessionNodeRecord) -> Result<Encoded> {
    let bytes = serde_json::to_vec(node)
        .map_err(|error| StoreError::Backend(format!("node `{}`: {error}", node.node_id)))?;
    Ok(Encoded {
        hash: hash(&bytes),
        bytes,
    })
}

fn new_node(node: &SessionNodeRecord, body: Vec<u8>, bodies: &mut Bodies) -> Result<NewNode> {
    let parent = node.parent_node_id.as_deref();
    let what = format!("node `{}`", node.node_id);
    Ok(NewNode {
        id: name("node id", &node.node_id)?,
        parent: parent.map(|id| name("parent node id", id)).transpose()?,
        body: bodies.content(&what, body)?,
    })
}

impl QuorateSession {
    /// What to tell the cluster of a commit's graph. With `whole` nothing is taken as known.
    pub(super) async fn planned(
        &self,
        session: &SessionRef,
        graph: &GraphCommitDelta,
        whole: bool,
        bodies: &mut Bodies,
    ) -> Result<Plan> {
        match graph {
            GraphCommitDelta::Unchanged { .. } => self.appended(&[], bodies),
            GraphCommitDelta::Append { nodes, .. } => self.appended(nodes, bodies),
            GraphCommitDelta::ReplaceFull(graph) => {
                if !whole && let Some(plan) = self.extended(&graph.nodes, bodies)? {
                    return Ok(plan);
                }
                self.replaced(session, &graph.nodes, bodies).await
            }
        }
    }

    fn appended(&self, nodes: &[SessionNodeRecord], bodies: &mut Bodies) -> Result<Plan> {
        check_count(nodes.len())?;
        let known = self.known(|known| {
            let graph = known.graph.as_ref()?;
            Some((graph.nodes.clone(), (graph.id, graph.rewritten)))
        });
        let (mut known, on) = known.unzip();
        let mut new = Vec::with_capacity(nodes.len());
        for node in nodes {
            let Encoded { bytes, hash } = encode(node)?;
            new.push(new_node(node, bytes, bodies)?);
            if let Some(known) = &mut known {
                known.push(hash);
            }
        }
        Ok(Plan {
            delta: GraphDelta::Append(new),
            result: Planned { nodes: known, on },
        })
    }

    /// Only what is behind the known nodes, if the graph begins with them.
    fn extended(&self, nodes: &[SessionNodeRecord], bodies: &mut Bodies) -> Result<Option<Plan>> {
        let Some((graph, rewritten, known)) = self.known(|known| {
            let graph = known.graph.as_ref()?;
            Some((graph.id, graph.rewritten, graph.nodes.clone()))
        }) else {
            return Ok(None);
        };
        let from = known.len();
        if nodes.len() < from || nodes.len() - from > NODES_PER_COMMAND_MAX {
            return Ok(None);
        }
        for (node, known) in nodes.iter().zip(&known) {
            if encode(node)?.hash != *known {
                return Ok(None);
            }
        }
        let mut hashes = known;
        let mut new = Vec::with_capacity(nodes.len() - from);
        for node in &nodes[from..] {
            let Encoded { bytes, hash } = encode(node)?;
            new.push(new_node(node, bytes, bodies)?);
            hashes.push(hash);
        }
        Ok(Some(Plan {
            delta: GraphDelta::Extend {
                graph,
                rewritten,
                from: from as u64,
                nodes: new,
            },
            result: Planned::whole(hashes),
        }))
    }

    /// All nodes: with the commit if it has room for them, and staged before it otherwise.
    async fn replaced(
        &self,
        session: &SessionRef,
        nodes: &[SessionNodeRecord],
        bodies: &mut Bodies,
    ) -> Result<Plan> {
        check_names(nodes)?;
        let staged = !fit(nodes, bodies.room() / 2)?;
        let mut staging = Staging::new(self, session);
        let mut hashes = Vec::with_capacity(nodes.len());
        let mut new = Vec::new();
        for node in nodes {
            let Encoded { bytes, hash } = encode(node)?;
            hashes.push(hash);
            if staged {
                staging.add(node, bytes).await?;
            } else {
                new.push(new_node(node, bytes, bodies)?);
            }
        }
        let staged = staging.finish().await?;
        Ok(Plan {
            delta: GraphDelta::Replace { staged, nodes: new },
            result: Planned::whole(hashes),
        })
    }

    /// Remembers the graph that a commit has made.
    pub(super) fn keep_graph(&self, planned: Planned, graph: Option<(GraphId, Graph)>) {
        let whole = |(id, row): (GraphId, Graph)| {
            let nodes = planned.nodes?;
            let built_on = planned.on.is_none_or(|on| on == (id, row.rewritten));
            let same = built_on && row.tombstones == 0 && row.nodes == nodes.len() as u64;
            same.then_some(KnownGraph {
                id,
                rewritten: row.rewritten,
                nodes,
            })
        };
        let graph = graph.and_then(whole);
        self.known(|known| match graph {
            Some(graph) => known.keep_graph(graph),
            None => known.graph = None,
        });
    }
}

/// Refuses what is no name before a part of the graph is stored.
fn check_names(nodes: &[SessionNodeRecord]) -> Result<()> {
    for node in nodes {
        name("node id", &node.node_id)?;
        let parent = node.parent_node_id.as_deref();
        parent.map(|id| name("parent node id", id)).transpose()?;
    }
    Ok(())
}

/// Whether so many nodes of that size go into one command.
fn fit(nodes: &[SessionNodeRecord], room: usize) -> Result<bool> {
    let mut bytes = 0;
    for (count, node) in nodes.iter().enumerate() {
        bytes += encode(node)?.bytes.len();
        if bytes > room || count >= NODES_PER_COMMAND_MAX {
            return Ok(false);
        }
    }
    Ok(true)
}

fn check_count(nodes: usize) -> Result<()> {
    if nodes <= NODES_PER_COMMAND_MAX {
        return Ok(());
    }
    Err(StoreError::Backend(format!(
        "nodes of one append: limit {NODES_PER_COMMAND_MAX}, actual {nodes}; replace the graph \
         instead"
    )))
}

/// A graph on its way, part by part.
struct Staging<'a> {
    store: &'a QuorateSession,
    session: &'a SessionRef,
    graph: Option<GraphId>,
    part: Vec<NewNode>,
    bodies: Bodies,
    bytes: usize,
}

impl<'a> Staging<'a> {
    fn new(store: &'a QuorateSession, session: &'a SessionRef) -> Self {
        Self {
            store,
            session,
            graph: None,
            part: Vec::new(),
            bodies: Bodies::new(),
            bytes: 0,
        }
    }

    async fn add(&mut self, node: &SessionNodeRecord, body: Vec<u8>) -> Result<()> {
        self.bytes += body.len();
        let node = new_node(node, body, &mut self.bodies)?;
        self.part.push(node);
        if self.bytes >= STAGED_BYTES || self.part.len() == NODES_PER_COMMAND_MAX {
            self.send().await?;
        }
        Ok(())
    }

    async fn send(&mut self) -> Result<()> {
        let bodies = std::mem::replace(&mut self.bodies, Bodies::new());
        let stage = StageNodes {
            session: self.session.clone(),
            graph: self.graph,
            nodes: std::mem::take(&mut self.part),
        };
        let staged = self.store.with_bodies(self.session, &bodies, stage).await;
        let staged = staged.map_err(|error| backend("staging the graph", &error))?;
        self.graph = Some(staged.graph);
        self.bytes = 0;
        Ok(())
    }

    async fn finish(mut self) -> Result<Option<GraphId>> {
        if !self.part.is_empty() {
            self.send().await?;
        }
        Ok(self.graph)
    }
}
