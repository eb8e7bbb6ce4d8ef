//! Sessions, nodes, inputs and work as they are printed.

use quorate_statemachine::session::{
    Content, Input, InputMode, LaneClaim, Node, Session, SessionSummary, SessionView, Work,
    WorkClass,
};
use quorate_statemachine::{Name, Timestamp};
use serde::Serialize;

use crate::output::Row;
use crate::value::{Payload, payload, preview, span, time};

/// A session with its counters.
#[derive(Debug, Serialize)]
pub struct SessionRow {
    name: String,
    id: String,
    lane: Option<String>,
    revision: String,
    committed_at: Option<String>,
    /// Without tombstones.
    nodes: String,
    work: String,
    inputs: String,
    ended_inputs: String,
    blobs: String,
    loose_blobs: String,
    blob_bytes: String,
    usage_counters: String,
    attachments: String,
    created_at: String,
}

impl SessionRow {
    /// A session of a listing.
    pub fn new(summary: &SessionSummary) -> Self {
        Self {
            lane: summary.lane.as_ref().map(ToString::to_string),
            revision: summary.revision.to_string(),
            committed_at: summary.committed_at.map(time),
            nodes: summary.nodes.to_string(),
            ..Self::without_head(&summary.session)
        }
    }

    /// A session that was looked up.
    pub fn of(view: &SessionView) -> Self {
        let row = Self::without_head(&view.session);
        let Some((head, graph)) = &view.head else {
            return row;
        };
        Self {
            lane: Some(head.lane.to_string()),
            revision: head.revision.to_string(),
            committed_at: Some(time(head.committed_at)),
            nodes: graph.nodes.saturating_sub(graph.tombstones).to_string(),
            ..row
        }
    }

    fn without_head(session: &Session) -> Self {
        Self {
            name: session.name.to_string(),
            id: session.id.to_string(),
            lane: None,
            revision: "0".to_owned(),
            committed_at: None,
            nodes: "0".to_owned(),
            work: session.work.to_string(),
            inputs: session.inputs.to_string(),
            ended_inputs: session.ended_inputs.to_string(),
            blobs: session.blobs.to_string(),
            loose_blobs: session.loose_blobs.to_string(),
            blob_bytes: session.blob_bytes.to_string(),
            usage_counters: session.usage.to_string(),
            attachments: session.attachments.to_string(),
            created_at: time(session.created_at),
        }
    }
}

impl Row for SessionRow {
    const HEADER: &'static [&'static str] = &[
        "NAME",
        "LANE",
        "REVISION",
        "NODES",
        "WORK",
        "INPUTS",
        "BLOB BYTES",
        "LAST COMMIT",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.lane.clone().unwrap_or_default(),
            self.revision.clone(),
            self.nodes.clone(),
            self.work.clone(),
            self.inputs.clone(),
            self.blob_bytes.clone(),
            self.committed_at.clone().unwrap_or_default(),
        ]
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

/// How much a content is that is stored as blobs.
pub fn in_blobs(content: &Content) -> String {
    format!(
        "{} bytes in {} blobs",
        content.bytes(),
        content.blobs().len()
    )
}

/// What a node, an input or a piece of work holds, as the last fields of its row.
#[derive(Debug, Serialize)]
pub struct Body {
    body_bytes: String,
    body: Option<Payload>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
    /// Whether its blobs were not there any more when they were read.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    body_gone: bool,
    #[serde(skip)]
    preview: String,
}

impl Body {
    /// A body that was read.
    pub fn of(bytes: &[u8]) -> Self {
        let (body, body_base64) = payload(bytes);
        Self {
            body_bytes: bytes.len().to_string(),
            body,
            body_base64,
            body_gone: false,
            preview: preview(bytes),
        }
    }

    /// A body that was left where it is.
    pub fn unread(content: &Content) -> Self {
        Self {
            body_bytes: content.bytes().to_string(),
            body: None,
            body_base64: None,
            body_gone: false,
            preview: format!("({})", in_blobs(content)),
        }
    }

    /// A body that was not there any more.
    pub fn gone(content: &Content) -> Self {
        Self {
            body_gone: true,
            ..Self::unread(content)
        }
    }
}

/// A node of a graph.
#[derive(Debug, Serialize)]
pub struct NodeRow {
    id: String,
    parent: Option<String>,
    #[serde(flatten)]
    body: Body,
}

impl NodeRow {
    /// The node and what it holds.
    pub fn new(node: &Node, body: Body) -> Self {
        Self {
            id: node.id.to_string(),
            parent: node.parent.as_ref().map(ToString::to_string),
            body,
        }
    }
}

impl Row for NodeRow {
    const HEADER: &'static [&'static str] = &["NODE", "PARENT", "BYTES", "BODY"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.clone(),
            self.parent.clone().unwrap_or_default(),
            self.body.body_bytes.clone(),
            self.body.preview.clone(),
        ]
    }

    fn name(&self) -> String {
        self.id.clone()
    }
}

/// The last claim, live or not.
#[derive(Debug, Serialize)]
struct ClaimFields {
    fencing_token: String,
    owner_id: String,
    incarnation_id: String,
    claimed_at: String,
    expires_at: String,
    remaining_ms: String,
}

/// Who has a piece of work or an input.
#[derive(Debug, Serialize)]
struct Claimed {
    claims: String,
    /// Whether the last claim keeps others out.
    claimed: bool,
    #[serde(flatten)]
    last: Option<ClaimFields>,
}

impl Claimed {
    fn new(claims: u64, claim: Option<&LaneClaim>, now: Timestamp) -> Self {
        Self {
            claims: claims.to_string(),
            claimed: claim.is_some_and(|claim| claim.is_live(now)),
            last: claim.map(|claim| ClaimFields {
                fencing_token: claim.fencing_token.to_string(),
                owner_id: claim.owner.owner_id.to_string(),
                incarnation_id: claim.owner.incarnation_id.to_string(),
                claimed_at: time(claim.claimed_at),
                expires_at: time(claim.expires_at),
                remaining_ms: claim.expires_at.since(now).to_string(),
            }),
        }
    }

    /// By whom and until when.
    fn cells(&self) -> [String; 2] {
        let Some(last) = &self.last else {
            return [String::new(), String::new()];
        };
        let until = match self.claimed {
            true => last.expires_at.clone(),
            false => format!("{} (over)", last.expires_at),
        };
        [last.owner_id.clone(), until]
    }
}

/// An input.
#[derive(Debug, Serialize)]
pub struct InputRow {
    session: String,
    number: String,
    id: String,
    lane: String,
    source: Option<String>,
    /// `running`: for the turn and the rank beside it; or `next`.
    mode: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    turn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rank: Option<u8>,
    state: &'static str,
    pushed_at: String,
    age_ms: String,
    #[serde(flatten)]
    claimed: Claimed,
    #[serde(flatten)]
    body: Body,
    #[serde(skip)]
    age: String,
}

impl InputRow {
    /// An input of `session` as of `now`.
    pub fn new(session: &Name, input: &Input, body: Body, now: Timestamp) -> Self {
        let age_ms = now.since(input.pushed_at);
        let (mode, turn, rank) = match &input.mode {
            InputMode::Running { turn, rank } => ("running", Some(turn), Some(*rank)),
            InputMode::Next => ("next", None, None),
        };
        Self {
            session: session.to_string(),
            number: input.number.to_string(),
            id: input.id.to_string(),
            lane: input.lane.to_string(),
            source: input.source.as_ref().map(ToString::to_string),
            mode,
            turn: turn.map(ToString::to_string),
            rank,
            state: input.state.as_str(),
            pushed_at: time(input.pushed_at),
            age_ms: age_ms.to_string(),
            claimed: Claimed::new(input.claims, input.claim.as_ref(), now),
            body,
            age: span(age_ms),
        }
    }

    fn turn_words(&self) -> String {
        match (&self.turn, self.rank) {
            (Some(turn), Some(rank)) => format!("{turn} from rank {rank}"),
            _ => "(next)".to_owned(),
        }
    }
}

impl Row for InputRow {
    const HEADER: &'static [&'static str] = &[
        "INPUT",
        "LANE",
        "SOURCE",
        "TURN",
        "STATE",
        "CLAIMED BY",
        "UNTIL",
        "AGE",
        "BODY",
    ];

    fn cells(&self) -> Vec<String> {
        let [by, until] = self.claimed.cells();
        vec![
            self.id.clone(),
            self.lane.clone(),
            self.source.clone().unwrap_or_default(),
            self.turn_words(),
            self.state.to_owned(),
            by,
            until,
            self.age.clone(),
            self.body.preview.clone(),
        ]
    }

    fn name(&self) -> String {
        self.id.clone()
    }
}

fn class_word(class: WorkClass) -> &'static str {
    match class {
        WorkClass::Command => "command",
        WorkClass::Turn => "turn",
    }
}

/// A piece of queued work.
#[derive(Debug, Serialize)]
pub struct WorkRow {
    session: String,
    number: String,
    lane: String,
    source: Option<String>,
    class: &'static str,
    /// Whether it may go into a turn that runs already.
    anytime: bool,
    group: Option<Payload>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group_base64: Option<String>,
    pushed_at: String,
    age_ms: String,
    available_at: String,
    #[serde(flatten)]
    claimed: Claimed,
    #[serde(flatten)]
    body: Body,
    #[serde(skip)]
    shown: [String; 2],
}

impl WorkRow {
    /// Work of `session` as of `now`.
    pub fn new(session: &Name, work: &Work, body: Body, now: Timestamp) -> Self {
        let age_ms = now.since(work.pushed_at);
        let (group, group_base64) = match &work.group {
            Some(group) => payload(group),
            None => (None, None),
        };
        let shown_group = work.group.as_deref().map(preview).unwrap_or_default();
        Self {
            session: session.to_string(),
            number: work.number.to_string(),
            lane: work.lane.to_string(),
            source: work.source.as_ref().map(ToString::to_string),
            class: class_word(work.class),
            anytime: work.anytime,
            group,
            group_base64,
            pushed_at: time(work.pushed_at),
            age_ms: age_ms.to_string(),
            available_at: time(work.available_at),
            claimed: Claimed::new(work.claims, work.claim.as_ref(), now),
            body,
            shown: [shown_group, span(age_ms)],
        }
    }
}

impl Row for WorkRow {
    const HEADER: &'static [&'static str] = &[
        "NUMBER",
        "LANE",
        "SOURCE",
        "CLASS",
        "AVAILABLE AT",
        "GROUP",
        "CLAIMS",
        "CLAIMED BY",
        "UNTIL",
        "AGE",
        "BODY",
    ];

    fn cells(&self) -> Vec<String> {
        let [by, until] = self.claimed.cells();
        let [group, age] = self.shown.clone();
        vec![
            self.number.clone(),
            self.lane.clone(),
            self.source.clone().unwrap_or_default(),
            self.class.to_owned(),
            self.available_at.clone(),
            group,
            self.claimed.claims.clone(),
            by,
            until,
            age,
            self.body.preview.clone(),
        ]
    }

    fn name(&self) -> String {
        self.number.clone()
    }
}
