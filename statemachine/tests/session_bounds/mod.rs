//! The bounds of sessions: those of the state here, those of arguments beside it.

use bytes::Bytes;
use quorate_statemachine::lease::{Claim, Observed, SameOwner};
use quorate_statemachine::limits::{
    CLAIMED_WORK_PASSED_MAX, GRAPH_NODES_MAX, SESSION_ATTACHMENTS_MAX, SESSION_BATCH_MAX,
    SESSION_BLOBS_MAX, SESSION_ENDED_INPUTS_MAX, SESSION_INPUTS_MAX, SESSION_WORK_MAX, TTL_MS_MAX,
    USAGE_COUNTERS_MAX,
};
use quorate_statemachine::session::{
    self, BlobHash, Commit, Content, GraphDelta, GraphId, InputMode, NewNode, Session, SessionId,
    SessionRef, UsageDelta, WorkChoice, WorkClass,
};
use quorate_statemachine::tables::{
    Key, SessionGraphs, Sessions, Table, graph_key, session_row_key,
};
use quorate_statemachine::transaction::read;
use quorate_statemachine::{Action, LeaseToken, Name, Owner, Timestamp, codec};

use crate::{State, exhausted, name, reply};

mod arguments;

/// The session that the first entry opens.
fn of_session() -> SessionRef {
    SessionRef {
        name: name("s"),
        id: SessionId(1 << 10),
    }
}

/// The graph of the third entry's commit, and the one that the fourth entry stages.
const GRAPHS: [GraphId; 2] = [GraphId(3 << 10), GraphId(4 << 10)];

fn lane() -> Name {
    name("main")
}

fn owner() -> Owner {
    Owner::new(name("owner"), name("boot"))
}

fn token() -> LeaseToken {
    LeaseToken::parse("token".to_owned()).expect("a token")
}

fn inline() -> Content {
    Content::Inline(Bytes::new())
}

/// The lane's lease, which the second entry grants.
fn execution() -> Observed {
    Observed {
        owner_id: name("owner"),
        incarnation_id: name("boot"),
        lease_token: token(),
        fencing_token: 2,
    }
}

fn node() -> NewNode {
    NewNode {
        id: name("node"),
        parent: None,
        body: inline(),
    }
}

fn commit(nodes: Vec<NewNode>) -> Commit {
    Commit {
        session: of_session(),
        lane: lane(),
        turn: None,
        execution: Some(execution()),
        expected_revision: None,
        graph: GraphDelta::Append(nodes),
        leaf: None,
        state: inline(),
        roots: Vec::new(),
        usage: Vec::new(),
        work: Vec::new(),
        inputs: Vec::new(),
        interrupted: None,
        attachments: Vec::new(),
        result: Bytes::new(),
        release: None,
    }
}

fn usage() -> UsageDelta {
    UsageDelta {
        counter: b"tokens".to_vec(),
        numbers: vec![1],
    }
}

fn stage(graph: Option<GraphId>, nodes: Vec<NewNode>) -> session::StageNodes {
    session::StageNodes {
        session: of_session(),
        graph,
        nodes,
    }
}

fn put_blobs() -> session::PutBlobs {
    session::PutBlobs {
        session: of_session(),
        blobs: vec![(BlobHash([1; 32]), Bytes::from_static(b"bytes"))],
    }
}

fn push_work(source: Option<&str>) -> session::PushWork {
    session::PushWork {
        session: of_session(),
        lane: lane(),
        source: source.map(name),
        class: WorkClass::Turn,
        anytime: false,
        group: Some(b"group".to_vec()),
        available_at: Timestamp(0),
        body: inline(),
    }
}

fn claim_work(max: u32) -> session::ClaimWork {
    session::ClaimWork {
        session: of_session(),
        lane: lane(),
        execution: execution(),
        owner: owner(),
        lease_token: token(),
        ttl_ms: TTL_MS_MAX,
        choice: WorkChoice::Turn {
            running: false,
            max,
        },
        dead: Vec::new(),
    }
}

fn push_input() -> session::PushInput {
    session::PushInput {
        session: of_session(),
        lane: lane(),
        id: name("input"),
        source: None,
        mode: InputMode::Next,
        body: inline(),
    }
}

fn note_attachment() -> session::NoteAttachment {
    session::NoteAttachment {
        session: of_session(),
        id: name("file"),
        lane: lane(),
        uri: "file:///a".to_owned(),
        intent_at: Timestamp(1),
    }
}

/// A session with a head, and a graph that is staged.
fn opened() -> State {
    let open = session::Open {
        name: name("s"),
        note: None,
    };
    let claim = Claim {
        key: session::execution_lease(&of_session(), &lane()).expect("short names"),
        owner: owner(),
        lease_token: token(),
        ttl_ms: TTL_MS_MAX,
        same_owner: SameOwner::Busy,
        metadata: Vec::new(),
    };
    let mut state = State::default();
    state.run(open).expect("there is room");
    state.run(claim).expect("it is free");
    let committed = state.run(commit(Vec::new())).expect("a good commit");
    let staged = state.run(stage(None, Vec::new())).expect("there is room");
    let graph = committed.graph.expect("a new revision").0;
    assert_eq!([graph, staged.graph], GRAPHS);
    state
}

/// Changes a row as no command does.
fn rewrite<T: Table>(state: &mut State, key: &Key<T>, change: impl FnOnce(&mut T::Row)) {
    let mut row = read(&state.view, key)
        .expect("a sound state")
        .expect("a row");
    change(&mut row);
    let value = codec::encode(T::TAG.into(), &row);
    let key = key.bytes().to_vec();
    state.view.commit(vec![(key, Some(value.into()))]);
}

/// A counter of a session with its limit, its words, and a command that needs one more.
struct Counter {
    what: &'static str,
    limit: u64,
    of: fn(&mut Session) -> &mut u64,
    action: Action,
}

fn counters() -> Vec<Counter> {
    let used = Commit {
        usage: vec![usage()],
        ..commit(Vec::new())
    };
    let counter = |what, limit, of, action| Counter {
        what,
        limit,
        of,
        action,
    };
    vec![
        counter(
            "blobs of session s",
            SESSION_BLOBS_MAX,
            |session| &mut session.blobs,
            put_blobs().into(),
        ),
        counter(
            "usage counters of session s",
            USAGE_COUNTERS_MAX as u64,
            |session| &mut session.usage,
            used.into(),
        ),
        counter(
            "queued work of session s",
            SESSION_WORK_MAX,
            |session| &mut session.work,
            push_work(Some("source")).into(),
        ),
        counter(
            "open inputs of session s",
            SESSION_INPUTS_MAX,
            |session| &mut session.inputs,
            push_input().into(),
        ),
        counter(
            "ended inputs of session s, vacuum it",
            SESSION_ENDED_INPUTS_MAX,
            |session| &mut session.ended_inputs,
            push_input().into(),
        ),
        counter(
            "attachments of session s",
            SESSION_ATTACHMENTS_MAX,
            |session| &mut session.attachments,
            note_attachment().into(),
        ),
    ]
}

/// What the next entry answers.
fn next(state: &mut State, action: &Action) -> quorate_statemachine::Reply {
    state.index += 1;
    reply(&mut state.view, state.index, &action.clone().into())
}

/// One more is refused and writes nothing, the last place is given, and a retry takes no other.
fn has_one_place(what: &str, limit: u64, action: &Action, with_room: impl Fn(u64) -> State) {
    let mut full = with_room(0);
    let rows = full.rows();
    let refused = next(&mut full, action);
    assert_eq!(refused.0, Err(exhausted(what, limit)));
    assert_eq!(full.rows(), rows, "{what}: a refusal changes nothing");
    let mut last = with_room(1);
    for _ in 0..2 {
        let reply = next(&mut last, action);
        assert!(reply.0.is_ok(), "{what}: {reply:?}");
    }
}

#[test]
fn a_session_has_room_for_so_many_of_each_and_refuses_one_more() {
    for counter in counters() {
        let with_room = |room| {
            let mut state = opened();
            let key = session_row_key(&name("s"));
            rewrite::<Sessions>(&mut state, &key, |session| {
                *(counter.of)(session) = counter.limit - room;
            });
            state
        };
        has_one_place(counter.what, counter.limit, &counter.action, with_room);
    }
}

#[test]
fn a_graph_has_room_for_so_many_nodes_and_refuses_one_more() {
    let append = commit(vec![node()]).into();
    let add = stage(Some(GRAPHS[1]), vec![node()]).into();
    for (graph, action) in GRAPHS.into_iter().zip([append, add]) {
        let with_room = |room| {
            let mut state = opened();
            let key = graph_key::<SessionGraphs>(of_session().id, graph);
            rewrite(&mut state, &key, |row| row.nodes = GRAPH_NODES_MAX - room);
            state
        };
        let what = "nodes of the graph of session s";
        has_one_place(what, GRAPH_NODES_MAX, &action, with_room);
    }
}

#[test]
fn a_commit_that_meets_a_limit_leaves_nothing_of_its_other_parts() {
    let mut state = opened();
    state.run(put_blobs()).expect("there is room");
    let key = session_row_key(&name("s"));
    let limit = USAGE_COUNTERS_MAX as u64;
    rewrite::<Sessions>(&mut state, &key, |session| session.usage = limit - 1);
    let other = UsageDelta {
        counter: b"other".to_vec(),
        ..usage()
    };
    let many = Commit {
        usage: vec![usage(), other],
        roots: vec![BlobHash([1; 32])],
        ..commit(vec![node()])
    };
    let rows = state.rows();
    let refused = state.run(many).expect_err("two counters, one place");
    assert_eq!(refused, exhausted("usage counters of session s", limit));
    assert_eq!(state.rows(), rows, "a refusal changes nothing");
}

#[test]
fn a_claim_passes_by_so_much_claimed_work_and_gives_up_behind_it() {
    let mut state = opened();
    for _ in 0..CLAIMED_WORK_PASSED_MAX + 2 {
        state.run(push_work(None)).expect("there is room");
    }
    let mut taken = 0;
    while taken < CLAIMED_WORK_PASSED_MAX {
        let claimed = state.run(claim_work(SESSION_BATCH_MAX as u32));
        let claimed = claimed.expect("the lease is live").expect("there is work");
        assert_eq!(claimed.work.len(), SESSION_BATCH_MAX);
        taken += claimed.work.len();
    }
    let mut claim = || state.run(claim_work(1)).expect("the lease is live");
    let last = claim().expect("the first piece behind them");
    assert_eq!(last.work.len(), 1);
    assert_eq!(claim(), None, "one more is too many to pass by");
}
