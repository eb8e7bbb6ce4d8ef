//! Reading sessions, their graphs, blobs, work, inputs and attachments.
//!
//! A graph may be larger than an answer: it is read page by page. Each page tells the graph's
//! counters, by which the reader knows whether what it has read is still of one piece: nodes that
//! are added come behind all others, and [`Graph::rewritten`] moves with every other change.

mod lanes;

use std::ops::ControlFlow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::attachment::Attachment;
use super::content::BlobHash;
use super::input::InputView;
use super::usage::Usage;
use super::work::WorkView;
use super::{Graph, GraphId, Head, Node, Session, SessionId, SessionRef};
use crate::id::Name;
use crate::limits::BLOBS_PER_COMMAND_MAX;
use crate::query::{Page, PageLimit, check_prefix, listed};
use crate::refusal::{Broken, InvalidArgument};
use crate::tables::{
    Key, SessionBlobBytes, SessionGraphs, SessionHeads, SessionIntents, SessionNodes, SessionNotes,
    SessionUsage, Sessions, attachment_key, blob_key, graph_key, intent_of, intents_after,
    node_id_key, node_key, number_of, session_one_key, session_range, session_row_key,
    usage_name_of,
};
use crate::time::Timestamp;
use crate::transaction::{read, read_range};
use crate::view::View;

use lanes::{inputs_page, work_page};

/// One session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Get {
    /// Its name.
    pub name: Name,
}

/// Sessions in order of their names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// Only names that start with this; empty for all.
    pub prefix: String,
    /// Only names after this one.
    pub after: Option<Name>,
    /// Rows at most; 0 for the limit.
    pub limit: u32,
}

/// Nodes of a graph in the order in which they came, without tombstones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nodes {
    /// Whose.
    pub session: SessionRef,
    /// The graph, as the head names it.
    pub graph: GraphId,
    /// From this number on.
    pub from: u64,
    /// Rows at most; 0 for the limit.
    pub limit: u32,
}

/// A node of a graph and those before it, up to one that is not there or is a tombstone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Path {
    /// Whose.
    pub session: SessionRef,
    /// The graph, as the head names it.
    pub graph: GraphId,
    /// The node to begin with.
    pub leaf: Name,
    /// Rows at most; 0 for the limit.
    pub limit: u32,
}

/// One node of the session's graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeOf {
    /// Whose.
    pub session: SessionRef,
    /// Its id.
    pub node: Name,
}

/// Bytes of blobs, as many of the first ones as an answer holds, one at least.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blobs {
    /// Whose.
    pub session: SessionRef,
    /// Which, 1 to [`BLOBS_PER_COMMAND_MAX`].
    pub hashes: Vec<BlobHash>,
}

/// Queued work, in order of lane and number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkList {
    /// Whose.
    pub session: SessionRef,
    /// Only of this lane.
    pub lane: Option<Name>,
    /// Only what no live claim has.
    pub unclaimed: bool,
    /// Only what comes after this lane and number.
    pub after: Option<(Name, u64)>,
    /// Rows at most; 0 for the limit.
    pub limit: u32,
}

/// Inputs, in order of lane and number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inputs {
    /// Whose.
    pub session: SessionRef,
    /// Only of this lane.
    pub lane: Option<Name>,
    /// Also those that are completed or cancelled.
    pub ended: bool,
    /// Only what no live claim has.
    pub unclaimed: bool,
    /// Only what comes after this lane and number.
    pub after: Option<(Name, u64)>,
    /// Rows at most; 0 for the limit.
    pub limit: u32,
}

/// Attachments that no commit has stamped, in order of their intents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachments {
    /// Whose.
    pub session: SessionRef,
    /// Only those whose intent is not after this.
    pub until: Timestamp,
    /// Only those after this intent and id.
    pub after: Option<(Timestamp, Name)>,
    /// Rows at most; 0 for the limit.
    pub limit: u32,
}

/// What to read. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// See [`Get`].
    Get(Get),
    /// See [`List`].
    List(List),
    /// See [`Nodes`].
    Nodes(Nodes),
    /// See [`Path`].
    Path(Path),
    /// See [`NodeOf`].
    Node(NodeOf),
    /// See [`Blobs`].
    Blobs(Blobs),
    /// See [`WorkList`].
    Work(WorkList),
    /// See [`Inputs`].
    Inputs(Inputs),
    /// See [`Attachments`].
    Attachments(Attachments),
}

/// A session with its head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionView {
    /// Its counters.
    pub session: Session,
    /// What is noted at it.
    pub note: Option<Bytes>,
    /// Its head and the counters of its graph; none before the first commit.
    pub head: Option<(Head, Graph)>,
    /// Its usage counters with their names, in the order in which they were used first.
    pub usage: Vec<(Vec<u8>, Usage)>,
}

/// A session in a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionSummary {
    /// Its counters.
    pub session: Session,
    /// The lane that its head is bound to; none before the first commit.
    pub lane: Option<Name>,
    /// Commits so far.
    pub revision: u64,
    /// When the last one was.
    pub committed_at: Option<Timestamp>,
    /// Nodes of its graph that are no tombstones.
    pub nodes: u64,
}

/// Some nodes of a graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GraphPage<N> {
    /// The graph's counters.
    pub graph: Graph,
    /// In the order that was asked for.
    pub nodes: Vec<Node>,
    /// Where the next page begins; none when this is the last.
    pub next: Option<N>,
}

/// What was read: none when there is no such session, or graph. Variants are only ever appended.
#[allow(
    clippy::large_enum_variant,
    reason = "an answer lives once, on its way out"
)]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Of [`Get`].
    Get(Option<SessionView>),
    /// Of [`List`].
    List(Page<SessionSummary>),
    /// Of [`Nodes`].
    Nodes(Option<GraphPage<u64>>),
    /// Of [`Path`].
    Path(Option<GraphPage<Name>>),
    /// Of [`NodeOf`]: none for a tombstone too.
    Node(Option<Node>),
    /// Of [`Blobs`]: none for one that is not there.
    Blobs(Option<Vec<Option<Bytes>>>),
    /// Of [`WorkList`]; go on after the lane and the number of the last row.
    Work(Option<Page<WorkView>>),
    /// Of [`Inputs`]; go on after the lane and the number of the last row.
    Inputs(Option<Page<InputView>>),
    /// Of [`Attachments`]; go on after the intent and the id of the last row.
    Attachments(Option<Page<Attachment>>),
}

pub(crate) fn validate(query: &Query) -> Result<(), InvalidArgument> {
    match query {
        Query::List(list) => check_prefix(&list.prefix),
        Query::Blobs(blobs) => {
            let (count, max) = (blobs.hashes.len() as u64, BLOBS_PER_COMMAND_MAX as u64);
            InvalidArgument::check_count("hashes", count, 1, max)
        }
        Query::Get(_)
        | Query::Nodes(_)
        | Query::Path(_)
        | Query::Node(_)
        | Query::Work(_)
        | Query::Inputs(_)
        | Query::Attachments(_) => Ok(()),
    }
}

pub(crate) fn query(view: &dyn View, now: Timestamp, query: &Query) -> Result<Answer, Broken> {
    match query {
        Query::Get(get) => session_view(view, get).map(Answer::Get),
        Query::List(list) => sessions(view, list).map(Answer::List),
        Query::Nodes(nodes) => nodes_page(view, nodes).map(Answer::Nodes),
        Query::Path(path) => path_page(view, path).map(Answer::Path),
        Query::Node(node) => one_node(view, node).map(Answer::Node),
        Query::Blobs(blobs) => {
            let answer = |id| some_blobs(view, id, &blobs.hashes);
            in_session(view, &blobs.session, answer).map(Answer::Blobs)
        }
        Query::Work(work) => {
            let answer = |id| work_page(view, now, id, work);
            in_session(view, &work.session, answer).map(Answer::Work)
        }
        Query::Inputs(inputs) => {
            let answer = |id| inputs_page(view, now, id, inputs);
            in_session(view, &inputs.session, answer).map(Answer::Inputs)
        }
        Query::Attachments(open) => {
            let answer = |id| attachments_page(view, id, open);
            in_session(view, &open.session, answer).map(Answer::Attachments)
        }
    }
}

/// None unless the session is there, and is the one that the caller knew.
fn in_session<T>(
    view: &dyn View,
    session: &SessionRef,
    answer: impl FnOnce(SessionId) -> Result<T, Broken>,
) -> Result<Option<T>, Broken> {
    let row = read(view, &session_row_key(&session.name))?;
    row.filter(|row| row.id == session.id)
        .map(|row| answer(row.id))
        .transpose()
}

fn head_of(view: &dyn View, id: SessionId) -> Result<Option<(Head, Graph)>, Broken> {
    let Some(head) = read(view, &session_one_key::<SessionHeads>(id))? else {
        return Ok(None);
    };
    let graph = read(view, &graph_key::<SessionGraphs>(id, head.graph))?;
    let graph = graph.ok_or_else(|| Broken(format!("session {id} has a head and no graph")))?;
    Ok(Some((head, graph)))
}

fn session_view(view: &dyn View, get: &Get) -> Result<Option<SessionView>, Broken> {
    let Some(session) = read(view, &session_row_key(&get.name))? else {
        return Ok(None);
    };
    Ok(Some(SessionView {
        note: read(view, &session_one_key::<SessionNotes>(session.id))?,
        head: head_of(view, session.id)?,
        usage: usage_of(view, session.id)?,
        session,
    }))
}

fn sessions(view: &dyn View, list: &List) -> Result<Page<SessionSummary>, Broken> {
    let prefix = Key::<Sessions>::first().text(&list.prefix);
    let (from, to) = listed(prefix, list.after.as_ref().map(session_row_key));
    let mut found: Vec<Session> = Vec::new();
    let mut page = PageLimit::new(list.limit);
    let mut next = None;
    read_range::<Sessions>(view, &from, &to, &mut |_, session| {
        if page.is_full() {
            next = found.last().map(|last| last.name.to_string());
            return ControlFlow::Break(());
        }
        page.add(ROW_OVERHEAD_BYTES);
        found.push(session);
        ControlFlow::Continue(())
    })?;
    let rows = found.into_iter().map(|session| summary(view, session));
    Ok(Page {
        rows: rows.collect::<Result<_, _>>()?,
        next,
    })
}

fn summary(view: &dyn View, session: Session) -> Result<SessionSummary, Broken> {
    let head = head_of(view, session.id)?;
    let (head, graph) = head.unzip();
    Ok(SessionSummary {
        session,
        revision: head.as_ref().map_or(0, |head| head.revision),
        committed_at: head.as_ref().map(|head| head.committed_at),
        nodes: graph.map_or(0, |graph| graph.nodes - graph.tombstones),
        lane: head.map(|head| head.lane),
    })
}

/// The graph of a session that is there, if it has it (still).
fn graph_of(
    view: &dyn View,
    session: &SessionRef,
    graph: GraphId,
) -> Result<Option<Graph>, Broken> {
    let row = |id| read(view, &graph_key::<SessionGraphs>(id, graph));
    Ok(in_session(view, session, row)?.flatten())
}

fn nodes_page(view: &dyn View, asked: &Nodes) -> Result<Option<GraphPage<u64>>, Broken> {
    let Some(graph) = graph_of(view, &asked.session, asked.graph)? else {
        return Ok(None);
    };
    let id = asked.session.id;
    let from = node_key::<SessionNodes>(id, asked.graph, asked.from);
    let to = graph_key::<SessionNodes>(id, asked.graph).end();
    let (mut nodes, mut next, mut broken) = (Vec::new(), None, None);
    let mut page = PageLimit::new(asked.limit);
    read_range::<SessionNodes>(view, &from, &to, &mut |key, node| {
        if page.is_full() {
            match number_of(key) {
                Ok(number) => next = Some(number),
                Err(error) => broken = Some(error),
            }
            return ControlFlow::Break(());
        }
        page.add(node.body.inline_bytes() + ROW_OVERHEAD_BYTES);
        if !node.tombstone {
            nodes.push(node);
        }
        ControlFlow::Continue(())
    })?;
    broken.map_or(Ok(Some(GraphPage { graph, nodes, next })), Err)
}

fn path_page(view: &dyn View, asked: &Path) -> Result<Option<GraphPage<Name>>, Broken> {
    let Some(graph) = graph_of(view, &asked.session, asked.graph)? else {
        return Ok(None);
    };
    let mut page = PageLimit::new(asked.limit);
    let (mut nodes, mut next) = (Vec::new(), Some(asked.leaf.clone()));
    while let Some(id) = next.take() {
        if page.is_full() {
            next = Some(id);
            break;
        }
        let Some(node) = node_by_id(view, asked.session.id, asked.graph, &id)? else {
            break;
        };
        page.add(node.body.inline_bytes() + ROW_OVERHEAD_BYTES);
        next = node.parent.clone();
        nodes.push(node);
    }
    Ok(Some(GraphPage { graph, nodes, next }))
}

/// A node that is no tombstone.
fn node_by_id(
    view: &dyn View,
    id: SessionId,
    graph: GraphId,
    node: &Name,
) -> Result<Option<Node>, Broken> {
    let Some(number) = read(view, &node_id_key(id, graph, node))? else {
        return Ok(None);
    };
    let row = read(view, &node_key::<SessionNodes>(id, graph, number))?;
    let row = row.ok_or_else(|| Broken(format!("node {node} is indexed and has no row")))?;
    Ok(Some(row).filter(|row| !row.tombstone))
}

fn one_node(view: &dyn View, asked: &NodeOf) -> Result<Option<Node>, Broken> {
    let head = |id| read(view, &session_one_key::<SessionHeads>(id));
    match in_session(view, &asked.session, head)?.flatten() {
        Some(head) => node_by_id(view, asked.session.id, head.graph, &asked.node),
        None => Ok(None),
    }
}

fn usage_of(view: &dyn View, id: SessionId) -> Result<Vec<(Vec<u8>, Usage)>, Broken> {
    let (from, to) = session_range::<SessionUsage>(id);
    let mut counters = Vec::new();
    read_range::<SessionUsage>(view, &from, &to, &mut |key, usage| {
        counters.push((usage_name_of(key).to_vec(), usage));
        ControlFlow::Continue(())
    })?;
    counters.sort_by_key(|(_, usage)| usage.order);
    Ok(counters)
}

fn some_blobs(
    view: &dyn View,
    id: SessionId,
    hashes: &[BlobHash],
) -> Result<Vec<Option<Bytes>>, Broken> {
    let mut page = PageLimit::new(0);
    let mut blobs = Vec::new();
    for hash in hashes {
        if page.is_full() {
            break;
        }
        let bytes = read(view, &blob_key::<SessionBlobBytes>(id, *hash))?;
        page.add(bytes.as_ref().map_or(0, Bytes::len));
        blobs.push(bytes);
    }
    Ok(blobs)
}

fn attachments_page(
    view: &dyn View,
    id: SessionId,
    asked: &Attachments,
) -> Result<Page<Attachment>, Broken> {
    let (first, _) = session_range::<SessionIntents>(id);
    let after = asked.after.as_ref();
    let after = after.map(|(at, name)| first.clone().number(at.0).text(name.as_str()).next());
    let (from, to) = (after.unwrap_or(first), intents_after(id, asked.until.0));
    let mut page = PageLimit::new(asked.limit);
    let (mut names, mut more, mut broken) = (Vec::new(), false, None);
    read_range::<SessionIntents>(view, &from, &to, &mut |key, ()| {
        if page.is_full() {
            more = true;
            return ControlFlow::Break(());
        }
        page.add(ROW_OVERHEAD_BYTES);
        match intent_of(key) {
            Ok(name) => names.push(name),
            Err(error) => broken = Some(error),
        }
        ControlFlow::Continue(())
    })?;
    if let Some(broken) = broken {
        return Err(broken);
    }
    let row = |name: &Name| {
        let row = read(view, &attachment_key(id, name))?;
        row.ok_or_else(|| Broken(format!("attachment {name} is indexed and has no row")))
    };
    let rows: Vec<Attachment> = names.iter().map(row).collect::<Result<_, _>>()?;
    let last = rows.last().map(|row| row.id.to_string());
    let next = last.filter(|_| more);
    Ok(Page { rows, next })
}

/// Names and numbers of a row: a rough sum, so that rows without a payload count too.
const ROW_OVERHEAD_BYTES: usize = 200;
