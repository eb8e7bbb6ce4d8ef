//! Reading all nodes of a session's graph as of one moment, page by page.
//!
//! Nodes that a commit adds come behind those that were there, so they are cut off. Every other
//! change moves [`Graph::rewritten`](quorate_statemachine::session::Graph), or gives the head
//! another graph: then all is read again, head and counters included.

use quorate_client::Client;
use quorate_statemachine::session::{Node, Nodes, SessionView};
use quorate_statemachine::{Name, Timestamp};

use super::{look, reference_of};
use crate::commands::wrong_answer;
use crate::exit::{Exit, Failure};

/// How often a graph is read that is rewritten while it is read.
const TRIES: u32 = 5;

/// A session, cluster time, and the nodes that its head has, without tombstones.
pub async fn read(
    client: &Client,
    name: &Name,
) -> Result<(SessionView, Timestamp, Vec<Node>), Failure> {
    for _ in 0..TRIES {
        let (view, now) = look(client, name).await?;
        let Some(nodes) = nodes_of(client, &view).await? else {
            continue;
        };
        let (after, _) = look(client, name).await?;
        if is_same(&view, &after) {
            return Ok((view, now, nodes));
        }
    }
    Err(restless(name))
}

/// Whether what was shown of the graph before is still there, and in its place.
pub fn is_same(before: &SessionView, after: &SessionView) -> bool {
    let graph = |view: &SessionView| {
        let head = view.head.as_ref();
        head.map(|(head, graph)| (head.graph, graph.rewritten))
    };
    // A first commit adds nodes to none.
    let had_none = before.head.is_none();
    before.session.id == after.session.id && (had_none || graph(before) == graph(after))
}

/// The graph did not stand still for as long as it takes to read it.
pub fn restless(name: &Name) -> Failure {
    let name = name.as_str();
    let words = format!(
        "session {name:?}: its graph was rewritten in each of {TRIES} tries to read it, so nothing \
         is shown; try again, or without --graph"
    );
    Failure::new(Exit::Lost, "conflict", words)
}

/// The nodes that `view` has, as far as the pages tell; none if its graph was rewritten meanwhile.
pub async fn nodes_of(client: &Client, view: &SessionView) -> Result<Option<Vec<Node>>, Failure> {
    let Some((head, graph)) = &view.head else {
        return Ok(Some(Vec::new()));
    };
    let shown = usize::try_from(graph.nodes.saturating_sub(graph.tombstones));
    let shown = shown.unwrap_or(usize::MAX);
    let (mut nodes, mut from) = (Vec::new(), 0);
    while nodes.len() < shown {
        let asked = Nodes {
            session: reference_of(view),
            graph: head.graph,
            from,
            limit: 0,
        };
        let page = client.session_nodes(asked).await?;
        let same = page.filter(|page| page.graph.rewritten == graph.rewritten);
        let Some(page) = same else {
            return Ok(None);
        };
        nodes.extend(page.nodes);
        match page.next {
            Some(next) if next > from => from = next,
            Some(_) => return Err(wrong_answer("a page of nodes")),
            None => break,
        }
    }
    // A replaced graph has fewer and fewer, and so has a member that lags behind the one before.
    if nodes.len() < shown {
        return Ok(None);
    }
    nodes.truncate(shown);
    Ok(Some(nodes))
}
