//! Reading a session: its head at one point of the log, and the graph as it was there.

use bytes::Bytes;
use lash_core::store::{GcReport, PersistedSessionRead};
use lash_core::{
    SessionGraph, SessionNodeRecord, SessionReadScope, StoreError, TokenLedgerEntry, TokenUsage,
    VacuumReport,
};
use quorate_statemachine::limits::NODES_PER_COMMAND_MAX;
use quorate_statemachine::session::{
    BlobHash, Collect, Content, Graph, GraphId, Head, Node, NodeOf, Nodes, Path, SessionRef,
    SessionView, Tombstone, Usage, Vacuum,
};
use quorate_statemachine::{Name, Operation};

use super::QuorateSession;
use super::bodies::{from_bytes, hash};
use super::checkpoint::State;
use super::error::{Result, backend, name};
use super::known::KnownGraph;

/// How often a session is read whose graph is rewritten under the reader's hands. Nodes that are
/// only added disturb no reader.
const TRIES: u32 = 16;

impl QuorateSession {
    pub(super) async fn load(
        &self,
        scope: SessionReadScope,
    ) -> Result<Option<PersistedSessionRead>> {
        for _ in 0..TRIES {
            let Some(view) = self.view().await? else {
                return Ok(None);
            };
            let Some((head, graph)) = view.head.clone() else {
                return Ok(None);
            };
            if let Some(read) = self.read(&scope, view, head, graph).await? {
                return Ok(Some(read));
            }
        }
        Err(StoreError::Backend(format!(
            "session `{}` was rewritten {TRIES} times while it was read; read it again",
            self.name()
        )))
    }

    /// None if the session moved on so that the rest of it is gone.
    async fn read(
        &self,
        scope: &SessionReadScope,
        view: SessionView,
        head: Head,
        graph: Graph,
    ) -> Result<Option<PersistedSessionRead>> {
        let session = &self.reference(view.session.id);
        let Some(state) = self.bytes_of(session, &head.state).await? else {
            return Ok(None);
        };
        let state: State = from_bytes("session state", &state)?;
        let checkpoint_ref = state.checkpoint.reference.clone();
        let nodes = async {
            match scope {
                SessionReadScope::FullGraph => self.full_graph(session, &head, graph).await,
                SessionReadScope::ActivePath { leaf_node_id } => {
                    let leaf = leaf_node_id.as_deref().map(|id| name("leaf node id", id));
                    let leaf = leaf.transpose()?.or_else(|| head.leaf.clone());
                    self.path_to(session, &head, graph, leaf).await
                }
            }
        };
        let (nodes, checkpoint) =
            tokio::try_join!(nodes, self.hydrated(session, state.checkpoint))?;
        let (Some(graph), Some(checkpoint)) = (nodes, checkpoint) else {
            return Ok(None);
        };
        Ok(Some(PersistedSessionRead {
            session_id: head.lane.to_string(),
            head_revision: head.revision,
            config: state.config,
            agent_frames: state.agent_frames,
            current_agent_frame_id: state.current_agent_frame_id,
            graph,
            checkpoint_ref: Some(checkpoint_ref),
            checkpoint: Some(checkpoint),
            token_ledger: ledger(&view.usage)?,
        }))
    }

    /// The nodes that the head has: those that were added since come behind them.
    async fn full_graph(
        &self,
        session: &SessionRef,
        head: &Head,
        graph: Graph,
    ) -> Result<Option<SessionGraph>> {
        let shown = (graph.nodes - graph.tombstones) as usize;
        let (mut nodes, mut hashes) = (Vec::with_capacity(shown), Vec::with_capacity(shown));
        let mut from = Some(0);
        while let Some(next) = from.filter(|_| nodes.len() < shown) {
            let asked = Nodes {
                session: session.clone(),
                graph: head.graph,
                from: next,
                limit: 0,
            };
            let page = self.client().session_nodes(asked).await;
            let page = page.map_err(|error| backend("reading the graph", &error))?;
            let Some(page) = page.filter(|page| page.graph.rewritten == graph.rewritten) else {
                return Ok(None);
            };
            let some = page.nodes.len().min(shown - nodes.len());
            let Some(decoded) = self.decoded(session, &page.nodes[..some]).await? else {
                return Ok(None);
            };
            for (node, hash) in decoded {
                nodes.push(node);
                hashes.push(hash);
            }
            from = page.next;
        }
        if graph.tombstones == 0 {
            self.keep(head.graph, graph.rewritten, hashes);
        }
        let leaf = head.leaf.as_ref().map(Name::to_string);
        Ok(Some(SessionGraph::from_nodes(nodes, leaf)))
    }

    fn keep(&self, id: GraphId, rewritten: u64, nodes: Vec<BlobHash>) {
        let graph = KnownGraph {
            id,
            rewritten,
            nodes,
        };
        self.known(|known| known.keep_graph(graph));
    }

    /// A node and those before it, from the first to the last.
    async fn path_to(
        &self,
        session: &SessionRef,
        head: &Head,
        graph: Graph,
        leaf: Option<Name>,
    ) -> Result<Option<SessionGraph>> {
        let leaf_node_id = leaf.as_ref().map(Name::to_string);
        let (mut nodes, mut next) = (Vec::new(), leaf);
        while let Some(leaf) = next {
            let asked = Path {
                session: session.clone(),
                graph: head.graph,
                leaf,
                limit: 0,
            };
            let page = self.client().session_path(asked).await;
            let page = page.map_err(|error| backend("reading the active path", &error))?;
            let Some(page) = page.filter(|page| page.graph.rewritten == graph.rewritten) else {
                return Ok(None);
            };
            let Some(decoded) = self.decoded(session, &page.nodes).await? else {
                return Ok(None);
            };
            nodes.extend(decoded.into_iter().map(|(node, _)| node));
            if nodes.len() as u64 > page.graph.nodes {
                return Err(StoreError::Backend(format!(
                    "the nodes before `{}` form a circle",
                    leaf_node_id.unwrap_or_default()
                )));
            }
            next = page.next;
        }
        nodes.reverse();
        Ok(Some(SessionGraph::from_nodes(nodes, leaf_node_id)))
    }

    /// Nodes with the hashes of their bytes; none if some of these went meanwhile.
    async fn decoded(
        &self,
        session: &SessionRef,
        nodes: &[Node],
    ) -> Result<Option<Vec<(SessionNodeRecord, BlobHash)>>> {
        let hashes: Vec<BlobHash> = nodes
            .iter()
            .flat_map(|node| node.body.blobs())
            .copied()
            .collect();
        let blobs = self.client().session_all_blobs(session, &hashes).await;
        let blobs = blobs.map_err(|error| backend("reading nodes", &error))?;
        let Some(blobs) = blobs else {
            return Ok(None);
        };
        let mut blobs = blobs.into_iter();
        let decode = |node: &Node| {
            let bytes = match &node.body {
                Content::Inline(bytes) => bytes.to_vec(),
                Content::Blobs { hashes, .. } => {
                    let parts: Vec<Bytes> = blobs.by_ref().take(hashes.len()).collect();
                    parts.concat()
                }
            };
            let record = from_bytes(&format!("node `{}`", node.id), &bytes)?;
            Ok((record, hash(&bytes)))
        };
        nodes.iter().map(decode).collect::<Result<_>>().map(Some)
    }

    pub(super) async fn node(&self, node_id: &str) -> Result<Option<SessionNodeRecord>> {
        let Some(session) = self.found().await? else {
            return Ok(None);
        };
        // One that is replaced between the two reads is read again.
        for _ in 0..TRIES {
            let asked = NodeOf {
                session: session.clone(),
                node: name("node id", node_id)?,
            };
            let node = self.client().session_node(asked).await;
            let node = node.map_err(|error| backend("reading a node", &error))?;
            let Some(node) = node else {
                return Ok(None);
            };
            if let Some(decoded) = self.decoded(session, &[node]).await? {
                return Ok(decoded.into_iter().next().map(|(record, _)| record));
            }
        }
        Err(StoreError::Backend(format!(
            "node `{node_id}` was replaced {TRIES} times while it was read; read it again"
        )))
    }

    pub(super) async fn tombstone(&self, ids: &[String]) -> Result<()> {
        let Some(session) = self.found().await? else {
            return Ok(());
        };
        for ids in ids.chunks(NODES_PER_COMMAND_MAX) {
            let nodes = ids.iter().map(|id| name("node id", id));
            let tombstone = Tombstone {
                session: session.clone(),
                nodes: nodes.collect::<Result<_>>()?,
            };
            self.executed("hiding nodes", tombstone).await?;
        }
        self.known(|known| known.graph = None);
        Ok(())
    }

    pub(super) async fn vacuumed(&self) -> Result<VacuumReport> {
        let mut report = VacuumReport::default();
        let Some(session) = self.found().await? else {
            return Ok(report);
        };
        loop {
            let vacuum = Vacuum {
                session: session.clone(),
            };
            let done = self.executed("vacuum", vacuum).await?;
            report.removed_node_count += done.nodes as usize;
            report.removed_pending_turn_input_tombstone_count += done.inputs as usize;
            if !done.more {
                return Ok(report);
            }
        }
    }

    /// A session has one root, its head's checkpoint, once it was committed to.
    pub(super) async fn collected(&self) -> Result<GcReport> {
        let mut report = GcReport::default();
        let Some(view) = self.view().await? else {
            return Ok(report);
        };
        report.root_count = usize::from(view.head.is_some());
        let session = self.reference(view.session.id);
        self.known(|known| known.blobs.clear());
        loop {
            let collect = Collect {
                session: session.clone(),
            };
            let done = self.executed("collecting blobs", collect).await?;
            report.deleted_blob_count += done.removed as usize;
            report.retained_blob_count = done.retained as usize;
            if !done.more {
                return Ok(report);
            }
        }
    }

    /// Executes a command whose refusals have no kind of lash's.
    pub(super) async fn executed<O: Operation>(
        &self,
        what: &str,
        operation: O,
    ) -> Result<O::Reply> {
        let done = self.client().execute(operation).await;
        done.map_err(|error| backend(what, &error))
    }
}

/// The sums of what was used, in the order of first use.
fn ledger(usage: &[(Vec<u8>, Usage)]) -> Result<Vec<TokenLedgerEntry>> {
    let entry = |(counter, usage): &(Vec<u8>, Usage)| {
        let (source, model) = from_bytes("usage", counter)?;
        let number = |at: usize| usage.numbers.get(at).copied().unwrap_or_default();
        Ok(TokenLedgerEntry {
            source,
            model,
            usage: TokenUsage {
                input_tokens: number(0),
                output_tokens: number(1),
                cache_read_input_tokens: number(2),
                cache_write_input_tokens: number(3),
                reasoning_output_tokens: number(4),
            },
        })
    };
    usage.iter().map(entry).collect()
}
