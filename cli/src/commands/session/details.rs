//! One session as it is printed: an object for scripts, a line for each fact for people.

use quorate_statemachine::session::{Content, Graph, Head, SessionView, Usage};
use quorate_statemachine::{Name, Timestamp};
use serde::Serialize;

use super::rows::{NodeRow, SessionRow, in_blobs};
use crate::commands::lease::LeaseRow;
use crate::output::Row;
use crate::value::{Payload, payload, preview, span, time};

/// All that is known of a session.
#[derive(Debug, Serialize)]
pub struct SessionDetails {
    #[serde(flatten)]
    session: SessionRow,
    head: Option<HeadFields>,
    note: Option<Payload>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note_base64: Option<String>,
    /// Of the lane that the head is bound to; none before the first commit.
    execution_lease: Option<ExecutionLease>,
    usage: Vec<UsageFields>,
    #[serde(skip_serializing_if = "Option::is_none")]
    graph_nodes: Option<Vec<NodeRow>>,
    #[serde(skip)]
    facts: Vec<Fact>,
}

#[derive(Debug, Serialize)]
struct HeadFields {
    lane: String,
    revision: String,
    committed_at: String,
    age_ms: String,
    leaf: Option<String>,
    state_bytes: String,
    state_blobs: String,
    roots: String,
    graph: GraphFields,
}

#[derive(Debug, Serialize)]
struct GraphFields {
    id: String,
    nodes: String,
    tombstones: String,
    next: String,
    rewritten: String,
}

/// The execution lease of a lane.
#[derive(Debug, Serialize)]
pub struct ExecutionLease {
    key: String,
    lease: Option<LeaseRow>,
}

impl ExecutionLease {
    /// The lease `key`; none if nobody holds it.
    pub fn new(key: &Name, lease: Option<LeaseRow>) -> Self {
        Self {
            key: key.to_string(),
            lease,
        }
    }
}

#[derive(Debug, Serialize)]
struct UsageFields {
    counter: Option<Payload>,
    #[serde(skip_serializing_if = "Option::is_none")]
    counter_base64: Option<String>,
    numbers: Vec<String>,
}

impl SessionDetails {
    /// The session as of `now`.
    pub fn new(view: &SessionView, execution: Option<ExecutionLease>, now: Timestamp) -> Self {
        let (note, note_base64) = match &view.note {
            Some(note) => payload(note),
            None => (None, None),
        };
        let head = view.head.as_ref();
        Self {
            session: SessionRow::of(view),
            head: head.map(|(head, graph)| HeadFields::new(head, graph, now)),
            note,
            note_base64,
            usage: view.usage.iter().map(UsageFields::new).collect(),
            graph_nodes: None,
            facts: facts(view, execution.as_ref(), now),
            execution_lease: execution,
        }
    }

    /// With the nodes of its graph.
    pub fn with_nodes(mut self, nodes: Vec<NodeRow>) -> Self {
        self.graph_nodes = Some(nodes);
        self
    }

    /// What a table shows instead of it.
    pub fn facts(&self) -> &[Fact] {
        &self.facts
    }
}

impl Row for SessionDetails {
    /// A table has a line for each fact instead: [`Fact`].
    const HEADER: &'static [&'static str] = &["NAME"];

    fn cells(&self) -> Vec<String> {
        vec![self.name()]
    }

    fn name(&self) -> String {
        self.session.name()
    }
}

impl HeadFields {
    fn new(head: &Head, graph: &Graph, now: Timestamp) -> Self {
        Self {
            lane: head.lane.to_string(),
            revision: head.revision.to_string(),
            committed_at: time(head.committed_at),
            age_ms: now.since(head.committed_at).to_string(),
            leaf: head.leaf.as_ref().map(ToString::to_string),
            state_bytes: head.state.bytes().to_string(),
            state_blobs: head.state.blobs().len().to_string(),
            roots: head.roots.len().to_string(),
            graph: GraphFields {
                id: head.graph.0.to_string(),
                nodes: graph.nodes.to_string(),
                tombstones: graph.tombstones.to_string(),
                next: graph.next.to_string(),
                rewritten: graph.rewritten.to_string(),
            },
        }
    }
}

impl UsageFields {
    fn new((name, usage): &(Vec<u8>, Usage)) -> Self {
        let (counter, counter_base64) = payload(name);
        Self {
            counter,
            counter_base64,
            numbers: usage.numbers.iter().map(ToString::to_string).collect(),
        }
    }
}

/// One fact about a session, as a line of a table.
#[derive(Debug, Serialize)]
pub struct Fact {
    field: &'static str,
    value: String,
}

impl Row for Fact {
    const HEADER: &'static [&'static str] = &["FIELD", "VALUE"];

    fn cells(&self) -> Vec<String> {
        vec![self.field.to_owned(), self.value.clone()]
    }

    fn name(&self) -> String {
        self.field.to_owned()
    }
}

fn fact(field: &'static str, value: impl ToString) -> Fact {
    let value = value.to_string();
    Fact { field, value }
}

fn ago(at: Timestamp, now: Timestamp) -> String {
    format!("{} ({} ago)", time(at), span(now.since(at)))
}

fn facts(view: &SessionView, execution: Option<&ExecutionLease>, now: Timestamp) -> Vec<Fact> {
    let session = &view.session;
    let mut facts = vec![
        fact("NAME", &session.name),
        fact("ID", session.id),
        fact("CREATED AT", ago(session.created_at, now)),
    ];
    facts.extend(head_facts(view, now));
    facts.extend(execution.map_or_else(Vec::new, lease_facts));
    facts.extend([
        fact("WORK", session.work),
        fact(
            "INPUTS",
            format!("{} open, {} ended", session.inputs, session.ended_inputs),
        ),
        fact(
            "BLOBS",
            format!(
                "{} ({} bytes), {} of them loose",
                session.blobs, session.blob_bytes, session.loose_blobs
            ),
        ),
        fact("ATTACHMENTS", session.attachments),
    ]);
    facts.extend(view.note.as_ref().map(|note| fact("NOTE", preview(note))));
    facts.extend(view.usage.iter().map(|(name, usage)| {
        let numbers: Vec<_> = usage.numbers.iter().map(ToString::to_string).collect();
        let numbers = numbers.join(", ");
        fact("USAGE", format!("{}: {numbers}", preview(name)))
    }));
    facts
}

fn head_facts(view: &SessionView, now: Timestamp) -> Vec<Fact> {
    let Some((head, graph)) = &view.head else {
        return vec![fact(
            "HEAD",
            "none: nothing was committed, no lane is bound",
        )];
    };
    let leaf = head.leaf.as_ref().map_or("none", Name::as_str);
    let nodes = graph.nodes.saturating_sub(graph.tombstones);
    vec![
        fact("LANE", &head.lane),
        fact("REVISION", head.revision),
        fact("LAST COMMIT", ago(head.committed_at, now)),
        fact("LEAF", leaf),
        fact("STATE", state_words(&head.state, head.roots.len())),
        fact(
            "NODES",
            format!("{nodes}, tombstones: {}", graph.tombstones),
        ),
        fact(
            "GRAPH",
            format!(
                "{}, next number {}, rewritten at log index {}",
                head.graph.0, graph.next, graph.rewritten
            ),
        ),
    ]
}

fn state_words(state: &Content, roots: usize) -> String {
    let bytes = match state {
        Content::Inline(bytes) => format!("{} bytes", bytes.len()),
        Content::Blobs { .. } => in_blobs(state),
    };
    format!("{bytes}, and refers to {roots} other blobs")
}

fn lease_facts(execution: &ExecutionLease) -> Vec<Fact> {
    let holder = execution.lease.as_ref();
    vec![
        fact("EXECUTION LEASE", &execution.key),
        fact(
            "HELD BY",
            holder.map_or_else(|| "nobody".to_owned(), LeaseRow::holder),
        ),
    ]
}
