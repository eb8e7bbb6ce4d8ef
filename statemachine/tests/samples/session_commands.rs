//! Everything that is asked of sessions: operations and queries.

use bytes::Bytes;
use quorate_statemachine::lease::Observed;
use quorate_statemachine::session::{
    self, CancelTarget, ClaimRef, Commit, GraphDelta, InputMode, NewNode, Settlement, TurnStamp,
    UsageDelta, WorkChoice, WorkClass,
};
use quorate_statemachine::{Action, Query, Timestamp};

use super::sessions::{GRAPH, NUMBER, hash, in_blobs, inline, lane, running, session};
use super::{name, owner, token};

fn execution() -> Observed {
    Observed {
        owner_id: name("w1"),
        incarnation_id: name("boot-1"),
        lease_token: token("t1"),
        fencing_token: 300,
    }
}

fn claim_ref() -> ClaimRef {
    ClaimRef {
        lease_token: token("t1"),
        fencing_token: 301,
    }
}

fn nodes() -> Vec<NewNode> {
    vec![NewNode {
        id: name("node-1"),
        parent: Some(name("node-0")),
        body: in_blobs(),
    }]
}

/// Every operation, each with every field filled.
pub fn session_actions() -> Vec<Action> {
    [
        life_actions(),
        graph_actions(),
        work_actions(),
        input_actions(),
        attachment_actions(),
    ]
    .concat()
}

fn life_actions() -> Vec<Action> {
    let note = Bytes::from_static(b"note");
    let open = session::Open {
        name: name("sess-1"),
        note: Some(note.clone()),
    };
    let delete = session::Delete {
        name: name("sess-1"),
    };
    let put_note = session::PutNote {
        session: session(),
        note,
    };
    let blobs = session::PutBlobs {
        session: session(),
        blobs: vec![(hash(1), Bytes::from_static(b"bytes"))],
    };
    vec![open.into(), delete.into(), put_note.into(), blobs.into()]
}

fn graph_actions() -> Vec<Action> {
    let stage = session::StageNodes {
        session: session(),
        graph: Some(GRAPH),
        nodes: nodes(),
    };
    let replace = GraphDelta::Replace {
        staged: Some(GRAPH),
        nodes: nodes(),
    };
    let tombstone = session::Tombstone {
        session: session(),
        nodes: vec![name("node-1")],
    };
    let vacuum = session::Vacuum { session: session() };
    let collect = session::Collect { session: session() };
    vec![
        stage.into(),
        commit(replace).into(),
        tombstone.into(),
        vacuum.into(),
        collect.into(),
    ]
}

fn commit(graph: GraphDelta) -> Commit {
    Commit {
        session: session(),
        lane: lane(),
        turn: Some(TurnStamp {
            turn: name("turn-1"),
            hash: name("turn-hash"),
        }),
        execution: Some(execution()),
        expected_revision: Some(8),
        graph,
        leaf: Some(name("node-1")),
        state: in_blobs(),
        roots: vec![hash(3)],
        usage: vec![UsageDelta {
            counter: b"tokens".to_vec(),
            numbers: vec![12, -13],
        }],
        work: vec![Settlement {
            lane: lane(),
            claim: claim_ref(),
            settled: vec![NUMBER],
        }],
        inputs: vec![Settlement {
            lane: lane(),
            claim: claim_ref(),
            settled: vec![name("input-1")],
        }],
        interrupted: Some(name("turn-0")),
        attachments: vec![name("attachment-1")],
        result: Bytes::from_static(b"result"),
        release: Some(execution()),
    }
}

fn work_actions() -> Vec<Action> {
    let push = session::PushWork {
        session: session(),
        lane: lane(),
        source: Some(name("source-1")),
        class: WorkClass::Turn,
        anytime: true,
        group: Some(b"group".to_vec()),
        available_at: Timestamp(2_000),
        body: inline(),
    };
    let renew = session::RenewWork {
        session: session(),
        lane: lane(),
        claim: claim_ref(),
        numbers: vec![NUMBER],
        ttl_ms: 10_000,
    };
    let abandon = session::AbandonWork {
        session: session(),
        lane: lane(),
        claim: claim_ref(),
        numbers: vec![NUMBER],
    };
    let cancel = session::CancelWork {
        session: session(),
        lane: lane(),
        number: NUMBER,
    };
    let turn = WorkChoice::Turn {
        running: true,
        max: 5,
    };
    vec![
        push.into(),
        claim_work(turn).into(),
        renew.into(),
        abandon.into(),
        cancel.into(),
    ]
}

fn claim_work(choice: WorkChoice) -> session::ClaimWork {
    session::ClaimWork {
        session: session(),
        lane: lane(),
        execution: execution(),
        owner: owner(),
        lease_token: token("t1"),
        ttl_ms: 10_000,
        choice,
        dead: vec![299],
    }
}

fn input_actions() -> Vec<Action> {
    let abandon = session::AbandonInputs {
        session: session(),
        lane: lane(),
        claim: claim_ref(),
        ids: vec![name("input-1")],
    };
    let cancel = session::CancelInputs {
        session: session(),
        lane: lane(),
        targets: vec![
            CancelTarget::Id(name("input-1")),
            CancelTarget::Source(name("source-1")),
        ],
    };
    let cancel_from = session::CancelInputsFrom {
        session: session(),
        lane: lane(),
        from: CancelTarget::Id(name("input-1")),
    };
    vec![
        push_input(running()).into(),
        claim_inputs(running()).into(),
        abandon.into(),
        cancel.into(),
        cancel_from.into(),
    ]
}

fn push_input(mode: InputMode) -> session::PushInput {
    session::PushInput {
        session: session(),
        lane: lane(),
        id: name("input-1"),
        source: Some(name("source-1")),
        mode,
        body: in_blobs(),
    }
}

fn claim_inputs(mode: InputMode) -> session::ClaimInputs {
    session::ClaimInputs {
        session: session(),
        lane: lane(),
        execution: execution(),
        owner: owner(),
        lease_token: token("t1"),
        ttl_ms: 10_000,
        mode,
        max: 5,
        dead: vec![299],
    }
}

fn attachment_actions() -> Vec<Action> {
    let id = name("attachment-1");
    let note = session::NoteAttachment {
        session: session(),
        id: id.clone(),
        lane: lane(),
        uri: "file:///a".to_owned(),
        intent_at: Timestamp(1_000),
    };
    let commit = session::CommitAttachments {
        session: session(),
        lane: lane(),
        ids: vec![id.clone()],
    };
    let forget = session::ForgetAttachment {
        session: session(),
        id,
    };
    vec![note.into(), commit.into(), forget.into()]
}

/// The variants that the operations above do not show.
pub fn session_forms() -> Vec<(&'static str, Action)> {
    let extend = GraphDelta::Extend {
        graph: GRAPH,
        rewritten: 302,
        from: 9,
        nodes: nodes(),
    };
    let exactly = WorkChoice::Exactly {
        running: true,
        numbers: vec![NUMBER],
    };
    let command = session::PushWork {
        session: session(),
        lane: lane(),
        source: None,
        class: WorkClass::Command,
        anytime: false,
        group: None,
        available_at: Timestamp(0),
        body: in_blobs(),
    };
    let from_source = session::CancelInputsFrom {
        session: session(),
        lane: lane(),
        from: CancelTarget::Source(name("source-1")),
    };
    let append = commit(GraphDelta::Append(nodes()));
    vec![
        ("session.commit append", append.into()),
        ("session.commit extend", commit(extend).into()),
        ("session.push_work command", command.into()),
        (
            "session.claim_work command",
            claim_work(WorkChoice::Command).into(),
        ),
        ("session.claim_work exactly", claim_work(exactly).into()),
        (
            "session.push_input next",
            push_input(InputMode::Next).into(),
        ),
        (
            "session.claim_inputs next",
            claim_inputs(InputMode::Next).into(),
        ),
        ("session.cancel_inputs_from source", from_source.into()),
    ]
}

/// Every query.
pub fn session_queries() -> Vec<(&'static str, Query)> {
    let (limit, after) = (50, (name("main"), NUMBER));
    let nodes = session::Nodes {
        session: session(),
        graph: GRAPH,
        from: 9,
        limit,
    };
    let path = session::Path {
        session: session(),
        graph: GRAPH,
        leaf: name("node-1"),
        limit,
    };
    let work = session::WorkList {
        session: session(),
        lane: Some(lane()),
        unclaimed: true,
        after: Some(after.clone()),
        limit,
    };
    let inputs = session::Inputs {
        session: session(),
        lane: Some(lane()),
        ended: true,
        unclaimed: true,
        after: Some(after),
        limit,
    };
    let mut all = name_queries();
    all.extend([
        ("session.nodes", session::Query::Nodes(nodes)),
        ("session.path", session::Query::Path(path)),
        ("session.work", session::Query::Work(work)),
        ("session.inputs", session::Query::Inputs(inputs)),
    ]);
    let all = all.into_iter();
    all.map(|(name, query)| (name, Query::Session(query)))
        .collect()
}

fn name_queries() -> Vec<(&'static str, session::Query)> {
    let get = session::Get {
        name: name("sess-1"),
    };
    let list = session::List {
        prefix: "pre".to_owned(),
        after: Some(name("sess-1")),
        limit: 50,
    };
    let node = session::NodeOf {
        session: session(),
        node: name("node-1"),
    };
    let blobs = session::Blobs {
        session: session(),
        hashes: vec![hash(1)],
    };
    let attachments = session::Attachments {
        session: session(),
        until: Timestamp(2_000),
        after: Some((Timestamp(1_000), name("attachment-1"))),
        limit: 50,
    };
    vec![
        ("session.get", session::Query::Get(get)),
        ("session.list", session::Query::List(list)),
        ("session.node", session::Query::Node(node)),
        ("session.blobs", session::Query::Blobs(blobs)),
        (
            "session.attachments",
            session::Query::Attachments(attachments),
        ),
    ]
}
