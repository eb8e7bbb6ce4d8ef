//! Rows of sessions that are damaged, missing, or under keys without a meaning.

use std::collections::BTreeSet;

use bytes::Bytes;
use quorate_statemachine::lease::{self, Observed, SameOwner};
use quorate_statemachine::limits::TTL_MS_MAX;
use quorate_statemachine::session::{
    self, BlobHash, CancelTarget, ClaimRef, Content, GraphDelta, GraphId, InputMode, NewNode,
    Session, SessionId, SessionRef, Settlement, TurnStamp, UsageDelta, WorkChoice, WorkClass,
};
use quorate_statemachine::tables::{
    DueKind, REGISTRY, SessionBlobs, SessionBodies, SessionDelayedWork, SessionEndedInputs,
    SessionGarbage, SessionGraphs, SessionInputs, SessionIntents, SessionLooseBlobs, SessionNodes,
    SessionNotes, SessionTombstones, SessionWork, Sessions, Table, attachment_key, due_key,
    graph_key, node_key, session_one_key, session_range, session_row_key, tag_of,
};
use quorate_statemachine::transaction::read;
use quorate_statemachine::view::MemoryView;
use quorate_statemachine::{
    Action, Command, Entry, Name, Owner, Query, Timestamp, apply, cluster, codec, query,
};

use super::{at, damaged};
use crate::samples::{name, token};

/// The session that the first entry opens.
const ID: SessionId = SessionId(1 << 10);
/// The lease of its lane.
const EXECUTION: u64 = 2;
/// The first commit makes it.
const GRAPH: GraphId = GraphId(6 << 10);
/// Staged after that.
const STAGED: GraphId = GraphId(8 << 10);
/// Claimed work, then delayed work.
const WORK: u64 = 9 << 10;
const DELAYED: u64 = 10 << 10;
/// The claims.
const WORK_CLAIM: u64 = 14;
const INPUT_CLAIM: u64 = 15;

/// The session that the last entry deletes.
const DELETED: SessionId = SessionId(16 << 10);

/// When the readers come by; what is staged, loose and delayed is due later.
const NOW: u64 = 2_000;
const LATER: u64 = 10_000_000;

fn session() -> SessionRef {
    SessionRef {
        name: name("s"),
        id: ID,
    }
}

fn lane() -> Name {
    name("main")
}

fn owner() -> Owner {
    Owner::new(name("w1"), name("boot-1"))
}

fn execution() -> Observed {
    Observed {
        owner_id: name("w1"),
        incarnation_id: name("boot-1"),
        lease_token: token("t1"),
        fencing_token: EXECUTION,
    }
}

fn claim(fencing_token: u64) -> ClaimRef {
    ClaimRef {
        lease_token: token("t1"),
        fencing_token,
    }
}

fn hash(byte: u8) -> BlobHash {
    BlobHash([byte; 32])
}

fn body(byte: u8) -> Content {
    Content::Blobs {
        hashes: vec![hash(byte)],
        bytes: 5,
    }
}

fn node(id: &str) -> NewNode {
    NewNode {
        id: name(id),
        parent: None,
        body: body(1),
    }
}

fn put_blobs() -> session::PutBlobs {
    session::PutBlobs {
        session: session(),
        blobs: vec![
            (hash(1), Bytes::from_static(b"bytes")),
            (hash(2), Bytes::from_static(b"loose")),
        ],
    }
}

fn tombstone() -> Action {
    session::Tombstone {
        session: session(),
        nodes: vec![name("b")],
    }
    .into()
}

fn commit(turn: &str, nodes: Vec<NewNode>) -> session::Commit {
    session::Commit {
        session: session(),
        lane: lane(),
        turn: Some(TurnStamp {
            turn: name(turn),
            hash: name("hash"),
        }),
        execution: Some(execution()),
        expected_revision: None,
        graph: GraphDelta::Append(nodes),
        leaf: None,
        state: body(1),
        roots: vec![hash(1)],
        usage: vec![UsageDelta {
            counter: b"tokens".to_vec(),
            numbers: vec![1],
        }],
        work: Vec::new(),
        inputs: Vec::new(),
        interrupted: None,
        attachments: vec![name("file")],
        result: Bytes::new(),
        release: None,
    }
}

fn push_work(source: &str, available_at: u64) -> Action {
    session::PushWork {
        session: session(),
        lane: lane(),
        source: Some(name(source)),
        class: WorkClass::Turn,
        anytime: false,
        group: None,
        available_at: Timestamp(available_at),
        body: body(1),
    }
    .into()
}

fn claim_work(dead: Vec<u64>) -> session::ClaimWork {
    session::ClaimWork {
        session: session(),
        lane: lane(),
        execution: execution(),
        owner: owner(),
        lease_token: token("t1"),
        ttl_ms: 1_000,
        choice: WorkChoice::Turn {
            running: false,
            max: 5,
        },
        dead,
    }
}

fn push_input(id: &str) -> Action {
    session::PushInput {
        session: session(),
        lane: lane(),
        id: name(id),
        source: Some(name(id)),
        mode: InputMode::Next,
        body: body(1),
    }
    .into()
}

fn claim_inputs() -> session::ClaimInputs {
    session::ClaimInputs {
        session: session(),
        lane: lane(),
        execution: execution(),
        owner: owner(),
        lease_token: token("t1"),
        ttl_ms: 1_000,
        mode: InputMode::Next,
        max: 5,
        dead: Vec::new(),
    }
}

fn note_attachment(id: &str) -> Action {
    session::NoteAttachment {
        session: session(),
        id: name(id),
        lane: lane(),
        uri: "file:///a".to_owned(),
        intent_at: Timestamp(500),
    }
    .into()
}

fn cancel(id: &str) -> Action {
    session::CancelInputs {
        session: session(),
        lane: lane(),
        targets: vec![CancelTarget::Id(name(id))],
    }
    .into()
}

fn lease_claim() -> lease::Claim {
    lease::Claim {
        key: session::execution_lease(&session(), &lane()).expect("short names"),
        owner: owner(),
        lease_token: token("t1"),
        ttl_ms: TTL_MS_MAX,
        same_owner: SameOwner::Busy,
        metadata: Vec::new(),
    }
}

/// Commands that give every table of sessions rows: the last one leaves a session to the sweep.
fn makers() -> Vec<Action> {
    let open = |session, note| session::Open {
        name: name(session),
        note: Some(Bytes::from_static(note)),
    };
    let stage = session::StageNodes {
        session: session(),
        graph: None,
        nodes: vec![node("staged")],
    };
    vec![
        open("s", b"note").into(),
        lease_claim().into(),
        put_blobs().into(),
        note_attachment("file"),
        note_attachment("open"),
        commit("first", vec![node("a"), node("b")]).into(),
        tombstone(),
        stage.into(),
        push_work("now", 0),
        push_work("later", LATER),
        push_input("i1"),
        push_input("i2"),
        cancel("i2"),
        claim_work(Vec::new()).into(),
        claim_inputs().into(),
        open("t", b"note").into(),
        session::Delete { name: name("t") }.into(),
    ]
}

/// A state with rows in every table of sessions.
fn full() -> MemoryView {
    let mut view = MemoryView::default();
    for (index, action) in (1..).zip(makers()) {
        let command = Command::from(action).encode();
        let entry = Entry {
            index,
            proposed_at: Timestamp(1_000),
            command: &command,
            principal: quorate_statemachine::Principal::Cluster,
        };
        let applied = apply(&view, entry).expect("a sound state");
        assert!(applied.reply.0.is_ok(), "{index}: {:?}", applied.reply);
        view.commit(applied.changes);
    }
    view
}

/// Commands that between them read every row, at their instants.
fn readers() -> Vec<(u64, Command)> {
    let settle = session::Commit {
        work: vec![Settlement {
            lane: lane(),
            claim: claim(WORK_CLAIM),
            settled: vec![WORK],
        }],
        inputs: vec![Settlement {
            lane: lane(),
            claim: claim(INPUT_CLAIM),
            settled: vec![name("i1")],
        }],
        interrupted: Some(name("turn")),
        ..commit("next", vec![node("a")])
    };
    let stage = session::StageNodes {
        session: session(),
        graph: Some(STAGED),
        nodes: vec![node("staged")],
    };
    let cancel_work = |number| session::CancelWork {
        session: session(),
        lane: lane(),
        number,
    };
    let stamp = session::CommitAttachments {
        session: session(),
        lane: lane(),
        ids: vec![name("file"), name("open")],
    };
    let forget = session::ForgetAttachment {
        session: session(),
        id: name("open"),
    };
    let vacuum = session::Vacuum { session: session() };
    let collect = session::Collect { session: session() };
    let actions = vec![
        put_blobs().into(),
        commit("first", Vec::new()).into(),
        settle.into(),
        stage.into(),
        tombstone(),
        vacuum.into(),
        collect.into(),
        push_work("now", 0),
        push_work("later", 0),
        claim_work(vec![WORK_CLAIM]).into(),
        cancel_work(DELAYED).into(),
        push_input("i1"),
        push_input("i2"),
        claim_inputs().into(),
        cancel("i1"),
        cancel("i2"),
        stamp.into(),
        forget.into(),
    ];
    let mut all: Vec<(u64, Command)> = actions
        .into_iter()
        .map(|action: Action| (NOW, action.into()))
        .collect();
    all.push((LATER, cluster::Tick {}.into()));
    all.push((LATER, cancel("i1").into()));
    all
}

/// Queries that read what no command does.
fn questions() -> Vec<session::Query> {
    let nodes = |graph| session::Nodes {
        session: session(),
        graph,
        from: 0,
        limit: 0,
    };
    let inputs = session::Inputs {
        session: session(),
        lane: None,
        ended: true,
        unclaimed: false,
        after: None,
        limit: 0,
    };
    let attachments = session::Attachments {
        session: session(),
        until: Timestamp(u64::MAX),
        after: None,
        limit: 0,
    };
    vec![
        session::Query::Get(session::Get { name: name("s") }),
        session::Query::Nodes(nodes(GRAPH)),
        session::Query::Nodes(nodes(STAGED)),
        session::Query::Inputs(inputs),
        session::Query::Attachments(attachments),
    ]
}

/// What the readers say of a state in which one row was replaced.
fn told(view: &MemoryView, key: &[u8], value: Option<&[u8]>) -> Vec<String> {
    let view = damaged(view, key, value);
    let index = makers().len() as u64 + 1;
    let commands = readers();
    let commands = commands
        .iter()
        .filter_map(|(now, command)| at(&view, index, *now, command).err());
    let questions = questions()
        .into_iter()
        .filter_map(|question| query(&view, Timestamp(NOW), &Query::Session(question)).err());
    let all = commands.chain(questions);
    all.map(|broken| broken.to_string()).collect()
}

fn is_of_sessions(key: &[u8]) -> bool {
    tag_of(key).is_some_and(|tag| (Sessions::TAG..=SessionGarbage::TAG).contains(&tag))
}

fn table_of(key: &[u8]) -> &'static str {
    let named = REGISTRY.iter().find(|(tag, _)| Some(*tag) == tag_of(key));
    named.expect("every key has a table").1
}

#[test]
fn a_sound_state_has_rows_in_every_table_and_readers_find_nothing_wrong() {
    let view = full();
    let found: BTreeSet<&str> = view
        .rows()
        .filter(|(key, _)| is_of_sessions(key))
        .map(|(key, _)| table_of(key))
        .collect();
    let ours = REGISTRY.iter();
    let ours = ours.filter(|(tag, _)| (Sessions::TAG..=SessionGarbage::TAG).contains(tag));
    let missing: Vec<_> = ours.filter(|(_, name)| !found.contains(name)).collect();
    assert!(missing.is_empty(), "no rows of {missing:?}");
    let index = makers().len() as u64 + 1;
    for (now, command) in readers() {
        let outcome = at(&view, index, now, &command);
        assert!(outcome.is_ok(), "{}: {outcome:?}", command.action.name());
    }
    for question in questions() {
        let answer = query(&view, Timestamp(NOW), &Query::Session(question));
        assert!(answer.is_ok(), "{answer:?}");
    }
}

#[test]
fn a_row_of_a_session_that_cannot_be_read_stops_the_node_and_is_named() {
    let view = full();
    // What a deleted session has left is removed unread.
    let left = session_one_key::<SessionNotes>(DELETED);
    let rows = view.rows().filter(|(key, _)| *key != left.bytes());
    for (key, value) in rows.filter(|(key, _)| is_of_sessions(key)) {
        let table = table_of(key);
        for end in 0..value.len() {
            let told = told(&view, key, Some(&value[..end]));
            let key = key.escape_ascii();
            assert!(!told.is_empty(), "{key} of {table} is read by something");
            let named = told
                .iter()
                .all(|words| words.contains(&format!("of table {table} ")));
            assert!(named, "{table}: {told:?}");
        }
    }
}

#[test]
fn a_row_of_a_session_that_is_missing_stops_the_node() {
    let view = full();
    let tables = [
        SessionNodes::TAG,
        SessionBlobs::TAG,
        SessionWork::TAG,
        SessionDelayedWork::TAG,
        SessionInputs::TAG,
        SessionEndedInputs::TAG,
        SessionBodies::TAG,
    ];
    let of_head = graph_key::<SessionGraphs>(ID, GRAPH);
    let indexed = attachment_key(ID, &name("open"));
    let needed = |key: &[u8]| {
        let listed = tag_of(key).is_some_and(|tag| tables.contains(&tag));
        listed || key == of_head.bytes() || key == indexed.bytes()
    };
    let mut seen = 0;
    for (key, _) in view.rows().filter(|(key, _)| needed(key)) {
        let told = told(&view, key, None);
        let key = key.escape_ascii();
        assert!(!told.is_empty(), "{key} is missed");
        let broken = |words: &String| words.starts_with("broken invariant: ");
        assert!(told.iter().all(broken), "{told:?}");
        seen += 1;
    }
    assert_eq!(
        seen, 15,
        "three nodes, two blobs, four pieces, four bodies, two others"
    );
}

/// A change of the counters of a session.
type Miscount = fn(&mut Session);

#[test]
fn a_session_that_has_counted_too_few_stops_the_node() {
    let view = full();
    let key = session_row_key(&name("s"));
    let row = read(&view, &key)
        .expect("a sound state")
        .expect("a session");
    let changes: [Miscount; 7] = [
        |session| session.work = 0,
        |session| session.inputs = 0,
        |session| session.ended_inputs = 0,
        |session| session.attachments = 0,
        |session| session.loose_blobs = 0,
        |session| session.blobs = 0,
        |session| session.blob_bytes = 0,
    ];
    for change in changes {
        let mut row = row.clone();
        change(&mut row);
        let value = codec::encode(Sessions::TAG.into(), &row);
        let told = told(&view, key.bytes(), Some(&value));
        let words = "broken invariant: session s has more rows than it counted";
        assert!(!told.is_empty(), "{row:?}");
        assert!(told.iter().all(|told| told == words), "{row:?}: {told:?}");
    }
}

#[test]
fn a_key_of_a_session_without_a_meaning_stops_the_node() {
    let view = full();
    let due = |kind, subject: &[u8]| due_key(Timestamp(5), kind, subject).bytes().to_vec();
    let of = |rest: &[u8]| [b"s\0", ID.0.to_be_bytes().as_slice(), rest].concat();
    let number = 99_u64.to_be_bytes();
    let loose = |rest: &[u8]| {
        let (first, _) = session_range::<SessionLooseBlobs>(ID);
        [first.bytes(), rest].concat()
    };
    let intent = |rest: &[u8]| {
        let (first, _) = session_range::<SessionIntents>(ID);
        [first.bytes(), rest].concat()
    };
    let hidden = graph_key::<SessionTombstones>(ID, GRAPH);
    let unknown = node_key::<SessionTombstones>(ID, GRAPH, 99);
    let mut other_kind = due(DueKind::SessionGarbage, &of(&number));
    other_kind[11] = 13;
    let keys = [
        due(DueKind::SessionBlob, b"s"),
        due(DueKind::SessionBlob, b"s\0short"),
        due(DueKind::SessionBlob, &of(b"")),
        due(DueKind::SessionBlob, &of(&[1; 31])),
        due(DueKind::SessionBlob, &of(&[9; 32])),
        due(
            DueKind::SessionBlob,
            &[b"\0", of(&[1; 32]).as_slice()].concat(),
        ),
        due(
            DueKind::SessionBlob,
            &[b"\xff", of(&[1; 32]).as_slice()].concat(),
        ),
        due(DueKind::SessionWork, &of(b"")),
        due(DueKind::SessionWork, &of(&number)),
        due(
            DueKind::SessionWork,
            &of(&[&number, b"\xff".as_slice()].concat()),
        ),
        due(
            DueKind::SessionWork,
            &of(&[&number, b"main".as_slice()].concat()),
        ),
        due(DueKind::SessionGraph, &of(&[0; 7])),
        due(DueKind::SessionGarbage, b"s\0short"),
        due(DueKind::SessionGarbage, &of(b"")),
        other_kind,
        loose(b""),
        loose(&[1; 31]),
        loose(&[9; 32]),
        intent(b"123"),
        intent(&number),
        intent(&[&number, b"\xff".as_slice()].concat()),
        intent(&[&number, b"nothing".as_slice()].concat()),
        hidden.bytes().to_vec(),
        unknown.bytes().to_vec(),
    ];
    for key in keys {
        let tag = tag_of(&key).expect("a key has a tag");
        let told = told(&view, &key, Some(&codec::encode(tag.into(), &())));
        assert!(!told.is_empty(), "{} is no key", key.escape_ascii());
        let broken = |words: &String| words.starts_with("broken invariant: ");
        assert!(told.iter().all(broken), "{told:?}");
    }
}
