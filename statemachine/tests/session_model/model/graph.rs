//! Graphs: staged, hidden and vacuumed nodes.

use quorate_statemachine::limits::REMOVALS_MAX;
use quorate_statemachine::session::{
    GraphId, NewNode, Node, NodesStaged, SessionRef, StageNodes, Tombstone, Tombstoned, Vacuum,
    Vacuumed,
};
use quorate_statemachine::{Refusal, Subject};

use super::{Model, ModelGraph, ModelSession, Outcome};

/// The graph is not staged, or not any more.
pub(super) fn not_staged(session: &SessionRef, graph: GraphId) -> Refusal {
    Refusal::NotFound {
        subject: Subject::Graph,
        name: format!("{}#{}", session.name, graph.0),
    }
}

impl ModelGraph {
    pub(super) fn empty(id: u64, index: u64) -> Self {
        Self {
            id: GraphId(id),
            nodes: Vec::new(),
            next: 0,
            staged_at: None,
            rewritten: index,
        }
    }
}

impl ModelSession {
    /// Adds nodes to a graph that was taken out. One that is there already takes the old one's
    /// place.
    pub(super) fn append(
        &mut self,
        index: u64,
        graph: &mut ModelGraph,
        nodes: &[NewNode],
    ) -> Outcome<()> {
        for new in nodes {
            self.refer_content(&new.body)?;
            let node = Node {
                id: new.id.clone(),
                parent: new.parent.clone(),
                body: new.body.clone(),
                tombstone: false,
            };
            let known = graph.nodes.iter_mut().find(|(_, n)| n.id == new.id);
            if let Some((_, old)) = known {
                *old = node;
                graph.rewritten = index;
            } else {
                graph.nodes.push((graph.next, node));
                graph.next += 1;
            }
        }
        Ok(())
    }

    /// Takes a graph out, to change it and put it back.
    pub(super) fn take_graph(&mut self, id: GraphId) -> Option<ModelGraph> {
        let at = self.graphs.iter().position(|graph| graph.id == id)?;
        Some(self.graphs.remove(at))
    }

    fn own_graph_mut(&mut self) -> Option<&mut ModelGraph> {
        let id = self.head.as_ref()?.graph;
        self.graphs.iter_mut().find(|graph| graph.id == id)
    }
}

impl Model {
    pub(super) fn stage_nodes(&mut self, number: u64, stage: &StageNodes) -> Outcome<NodesStaged> {
        let at = self.require(&stage.session)?;
        let (now, index) = (self.now, self.index);
        let session = &mut self.sessions[at];
        let mut graph = match stage.graph {
            None => ModelGraph::empty(number, index),
            Some(id) => {
                let taken = session.take_graph(id).filter(|g| g.staged_at.is_some());
                taken.ok_or_else(|| not_staged(&stage.session, id))?
            }
        };
        session.append(index, &mut graph, &stage.nodes)?;
        graph.staged_at = Some(now);
        let staged = NodesStaged {
            graph: graph.id,
            nodes: graph.nodes.len() as u64,
        };
        session.graphs.push(graph);
        Ok(staged)
    }

    pub(super) fn tombstone(&mut self, tombstone: &Tombstone) -> Outcome<Tombstoned> {
        let (at, index) = (self.require(&tombstone.session)?, self.index);
        let mut hidden = 0;
        if let Some(graph) = self.sessions[at].own_graph_mut() {
            for (_, node) in &mut graph.nodes {
                if tombstone.nodes.contains(&node.id) && !node.tombstone {
                    node.tombstone = true;
                    graph.rewritten = index;
                    hidden += 1;
                }
            }
        }
        Ok(Tombstoned { nodes: hidden })
    }

    pub(super) fn vacuum(&mut self, vacuum: &Vacuum) -> Outcome<Vacuumed> {
        let (at, index) = (self.require(&vacuum.session)?, self.index);
        let session = &mut self.sessions[at];
        let (mut nodes, mut inputs) = (0, 0);
        if let Some(graph) = session.own_graph_mut() {
            graph.nodes.retain(|(_, node)| {
                let goes = node.tombstone && nodes < REMOVALS_MAX;
                nodes += usize::from(goes);
                !goes
            });
            if nodes > 0 {
                graph.rewritten = index;
            }
        }
        let mut order: Vec<_> = session.inputs.iter().map(|view| &view.input).collect();
        order.retain(|input| input.state.is_ended());
        order.sort_by_key(|input| (input.lane.clone(), input.number));
        let gone: Vec<u64> = order.iter().map(|input| input.number).collect();
        let gone = &gone[..gone.len().min(REMOVALS_MAX - nodes)];
        inputs += gone.len();
        session
            .inputs
            .retain(|view| !gone.contains(&view.input.number));
        let hidden = session.own_graph().map_or(0, |g| g.counters().tombstones);
        let ended = session.counters().ended_inputs;
        Ok(Vacuumed {
            nodes: nodes as u64,
            inputs: inputs as u64,
            more: hidden > 0 || ended > 0,
        })
    }
}
