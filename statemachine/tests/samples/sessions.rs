//! Everything that sessions store, and the parts of it that commands and answers hold too.

use bytes::Bytes;
use quorate_statemachine::session::{
    Attachment, BlobHash, BlobRow, Content, GarbageRow, Graph, GraphId, Head, Input, InputMode,
    InputState, LaneClaim, Node, Session, SessionId, SessionRef, Stamp, Usage, Work, WorkClass,
};
use quorate_statemachine::tables::{
    DueKind, SessionBlobBytes, SessionBlobs, SessionDelayedWork, SessionEndedInputs,
    SessionGarbage, SessionGraphs, SessionHeads, SessionInputIds, SessionInputSources,
    SessionInputs, SessionLooseBlobs, SessionNodes, SessionNotes, SessionTombstones, SessionWork,
    SessionWorkSources, attachment_key, blob_key, body_key, due_key, graph_key, intent_key,
    lane_key, lane_name_key, node_id_key, node_key, session_one_key, session_row_key, turn_key,
    usage_key,
};
use quorate_statemachine::{Name, Timestamp};

use super::rows::row;
use super::{name, owner, token};

type Row = (&'static str, Vec<u8>, Vec<u8>);

pub const ID: SessionId = SessionId(70_000);
pub const GRAPH: GraphId = GraphId(71_000);
pub const NUMBER: u64 = 72_000;

pub fn session() -> SessionRef {
    SessionRef {
        name: name("sess-1"),
        id: ID,
    }
}

pub fn lane() -> Name {
    name("main")
}

pub fn hash(byte: u8) -> BlobHash {
    BlobHash([byte; 32])
}

pub fn inline() -> Content {
    Content::Inline(Bytes::from_static(b"bytes"))
}

pub fn in_blobs() -> Content {
    Content::Blobs {
        hashes: vec![hash(1), hash(2)],
        bytes: 90_000,
    }
}

pub fn lane_claim() -> LaneClaim {
    LaneClaim {
        owner: owner(),
        lease_token: token("t1"),
        fencing_token: 301,
        claimed_at: Timestamp(3_000),
        expires_at: Timestamp(13_000),
    }
}

pub fn session_row() -> Session {
    Session {
        name: name("sess-1"),
        id: ID,
        created_at: Timestamp(1_000),
        blobs: 2,
        loose_blobs: 1,
        blob_bytes: 90_000,
        usage: 3,
        work: 4,
        inputs: 5,
        ended_inputs: 6,
        attachments: 7,
    }
}

pub fn head_row() -> Head {
    Head {
        lane: lane(),
        revision: 8,
        committed_at: Timestamp(2_000),
        graph: GRAPH,
        leaf: Some(name("node-1")),
        state: in_blobs(),
        roots: vec![hash(3)],
    }
}

pub fn graph_row() -> Graph {
    Graph {
        next: 10,
        nodes: 9,
        tombstones: 2,
        staged_at: Some(Timestamp(1_500)),
        rewritten: 302,
    }
}

pub fn node_row() -> Node {
    Node {
        id: name("node-1"),
        parent: Some(name("node-0")),
        body: inline(),
        tombstone: true,
    }
}

pub fn usage_row() -> Usage {
    Usage {
        order: 11,
        numbers: vec![12, -13],
    }
}

fn stamp_row() -> Stamp {
    Stamp {
        hash: name("turn-hash"),
        revision: 8,
        at: Timestamp(2_000),
        result: Bytes::from_static(b"result"),
    }
}

fn blob_row() -> BlobRow {
    BlobRow {
        bytes: 45_000,
        references: 14,
        loose_since: Some(Timestamp(1_000)),
        filed_at: Some(Timestamp(11_000)),
    }
}

pub fn work_row() -> Work {
    Work {
        number: NUMBER,
        lane: lane(),
        source: Some(name("source-1")),
        class: WorkClass::Turn,
        anytime: true,
        group: Some(b"group".to_vec()),
        pushed_at: Timestamp(1_000),
        available_at: Timestamp(2_000),
        claims: 15,
        claim: Some(lane_claim()),
    }
}

pub fn input_row() -> Input {
    Input {
        number: NUMBER,
        id: name("input-1"),
        lane: lane(),
        source: Some(name("source-1")),
        mode: running(),
        state: InputState::Accepted,
        pushed_at: Timestamp(1_000),
        claims: 16,
        claim: Some(lane_claim()),
    }
}

pub fn running() -> InputMode {
    InputMode::Running {
        turn: name("turn-1"),
        rank: 17,
    }
}

pub fn attachment_row() -> Attachment {
    Attachment {
        id: name("attachment-1"),
        lane: lane(),
        uri: "file:///a".to_owned(),
        intent_at: Timestamp(1_000),
        committed_at: Some(Timestamp(2_000)),
    }
}

/// A row of every table.
pub fn session_rows() -> Vec<Row> {
    let session = row(session_row_key(&name("sess-1")), &session_row());
    let mut all = vec![session];
    all.extend(head_rows());
    all.extend(blob_rows());
    all.extend(work_rows());
    all.extend(input_rows());
    all.extend(other_rows());
    all
}

fn head_rows() -> Vec<Row> {
    let (node, at) = (name("node-1"), 9);
    let (nodes, hidden) = (
        node_key::<SessionNodes>(ID, GRAPH, at),
        node_key(ID, GRAPH, at),
    );
    let turn = turn_key(ID, &lane(), &name("turn-1"));
    vec![
        row(session_one_key::<SessionHeads>(ID), &head_row()),
        row(
            session_one_key::<SessionNotes>(ID),
            &Bytes::from_static(b"note"),
        ),
        row(graph_key::<SessionGraphs>(ID, GRAPH), &graph_row()),
        row(nodes, &node_row()),
        row(node_id_key(ID, GRAPH, &node), &at),
        row::<SessionTombstones>(hidden, &()),
        row(usage_key(ID, b"tokens"), &usage_row()),
        row(turn, &stamp_row()),
    ]
}

fn blob_rows() -> Vec<Row> {
    let bytes = Bytes::from_static(b"bytes");
    vec![
        row(blob_key::<SessionBlobs>(ID, hash(1)), &blob_row()),
        row(blob_key::<SessionBlobBytes>(ID, hash(1)), &bytes),
        row(blob_key::<SessionLooseBlobs>(ID, hash(1)), &()),
    ]
}

fn work_rows() -> Vec<Row> {
    let (lane, source) = (lane(), name("source-1"));
    let by_source = lane_name_key::<SessionWorkSources>(ID, &lane, &source);
    vec![
        row(lane_key::<SessionWork>(ID, &lane, NUMBER), &work_row()),
        row(
            lane_key::<SessionDelayedWork>(ID, &lane, NUMBER),
            &work_row(),
        ),
        row(by_source, &NUMBER),
    ]
}

fn input_rows() -> Vec<Row> {
    let (lane, id, source) = (lane(), name("input-1"), name("source-1"));
    let ended = Input {
        state: InputState::Completed,
        claim: None,
        ..input_row()
    };
    let by_source = lane_name_key::<SessionInputSources>(ID, &lane, &source);
    vec![
        row(lane_key::<SessionInputs>(ID, &lane, NUMBER), &input_row()),
        row(lane_key::<SessionEndedInputs>(ID, &lane, NUMBER), &ended),
        row(lane_name_key::<SessionInputIds>(ID, &lane, &id), &NUMBER),
        row(by_source, &NUMBER),
    ]
}

fn other_rows() -> Vec<Row> {
    let attachment = attachment_row();
    let garbage = GarbageRow {
        tables_done: 4,
        after: b"key".to_vec(),
    };
    vec![
        row(body_key(ID, NUMBER), &in_blobs()),
        row(attachment_key(ID, &attachment.id), &attachment),
        row(intent_key(ID, &attachment), &()),
        row(graph_key::<SessionGarbage>(ID, GRAPH), &garbage),
    ]
}

/// Other forms of rows: what of a session may be due, and the variants that the rows above do not
/// show.
pub fn session_row_forms() -> Vec<(&'static str, Row)> {
    let subject = |rest: &[u8]| {
        let id = ID.0.to_be_bytes();
        [b"sess-1\0", id.as_slice(), rest].concat()
    };
    let (graph, number) = (GRAPH.0.to_be_bytes(), NUMBER.to_be_bytes());
    let due = |kind, rest: &[u8]| row(due_key(Timestamp(11_000), kind, &subject(rest)), &());
    let command = Work {
        class: WorkClass::Command,
        ..work_row()
    };
    let input = |state, mode| {
        let input = Input {
            state,
            mode,
            ..input_row()
        };
        row(lane_key::<SessionInputs>(ID, &lane(), NUMBER), &input)
    };
    let work = row(lane_key::<SessionWork>(ID, &lane(), NUMBER), &command);
    vec![
        ("due session blob", due(DueKind::SessionBlob, &hash(1).0)),
        (
            "due session work",
            due(DueKind::SessionWork, &[number.as_slice(), b"main"].concat()),
        ),
        ("due session graph", due(DueKind::SessionGraph, &graph)),
        ("due session garbage", due(DueKind::SessionGarbage, &graph)),
        ("session_work command", work),
        (
            "session_inputs pending",
            input(InputState::Pending, InputMode::Next),
        ),
        (
            "session_inputs cancelled",
            input(InputState::Cancelled, running()),
        ),
        (
            "session_bodies inline",
            row(body_key(ID, NUMBER), &inline()),
        ),
    ]
}
