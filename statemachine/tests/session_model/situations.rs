//! Situations that random turns reach seldom or never, and those in which they found what was
//! wrong.

use bytes::Bytes;
use quorate_statemachine::cluster::Tick;
use quorate_statemachine::lease::{self, Claimed, Observed, SameOwner};
use quorate_statemachine::limits::{
    BLOB_RETENTION_MS, REMOVALS_MAX, STAGED_GRAPH_RETENTION_MS, TTL_MS_MAX,
};
use quorate_statemachine::session::{
    self, AbandonInputs, AbandonWork, Answer, BlobHash, Blobs, ClaimInputs, ClaimWork, Collect,
    Commit, Content, Delete, Get, GraphDelta, GraphId, InputMode, NewNode, Nodes, NodesStaged,
    Open, PushInput, PushWork, PutBlobs, Response, SessionRef, SessionView, StageNodes, Tombstone,
    Vacuum, WorkChoice, WorkClass, execution_lease,
};
use quorate_statemachine::view::MemoryView;
use quorate_statemachine::{
    Action, Answer as AnyAnswer, Command, Entry, LeaseToken, Name, Operation, Owner, Query,
    Refusal, Response as AnyResponse, Subject, Timestamp, apply, query,
};

use crate::rows;

struct State {
    view: MemoryView,
    index: u64,
    now: u64,
    session: SessionRef,
    execution: Observed,
}

fn name(text: &str) -> Name {
    Name::parse("name", text).expect("a short name")
}

fn lane() -> Name {
    name("lane")
}

fn owner() -> Owner {
    Owner::new(name("worker"), name("boot"))
}

fn token(text: &str) -> LeaseToken {
    LeaseToken::parse(text).expect("a short token")
}

/// Nodes without a body, named by their numbers.
fn nodes(numbers: std::ops::Range<usize>) -> Vec<NewNode> {
    let node = |number: usize| NewNode {
        id: name(&format!("node-{number}")),
        parent: None,
        body: Content::Inline(Bytes::new()),
    };
    numbers.map(node).collect()
}

impl State {
    /// A session whose lane somebody has for a day.
    fn new() -> Self {
        let nobody = Observed {
            owner_id: owner().owner_id,
            incarnation_id: owner().incarnation_id,
            lease_token: token("held"),
            fencing_token: 2,
        };
        let mut state = Self {
            view: MemoryView::default(),
            index: 0,
            now: 1_000,
            session: SessionRef {
                name: name("session"),
                id: session::SessionId(0),
            },
            execution: nobody,
        };
        let open = Open {
            name: name("session"),
            note: None,
        };
        state.session.id = state.run(open).expect("there is room").id;
        let claim = lease::Claim {
            key: execution_lease(&state.session, &lane()).expect("short names"),
            owner: owner(),
            lease_token: token("held"),
            ttl_ms: TTL_MS_MAX,
            same_owner: SameOwner::Busy,
            metadata: Vec::new(),
        };
        let granted = state.run(claim).expect("nobody has it");
        assert!(matches!(granted, Claimed::Granted(lease) if lease.fencing_token == 2));
        state
    }

    fn entry(&mut self, command: &Command) -> Result<AnyResponse, Refusal> {
        self.index += 1;
        let entry = Entry {
            index: self.index,
            proposed_at: Timestamp(self.now),
            command: &command.encode(),
            principal: quorate_statemachine::Principal::Cluster,
        };
        let applied = apply(&self.view, entry).expect("no invariant breaks");
        self.view.commit(applied.changes);
        rows::check(&self.view);
        applied.reply.0
    }

    fn run<O: Operation>(&mut self, operation: O) -> Result<O::Reply, Refusal> {
        let response = self.entry(&Command::from(operation))?;
        Ok(O::reply(response).expect("the reply to this operation"))
    }

    fn composite(&mut self, steps: Vec<Action>) -> Result<Vec<AnyResponse>, Refusal> {
        match self.entry(&Command::from(Action::Composite(steps)))? {
            AnyResponse::Composite(responses) => Ok(responses),
            other => panic!("{other:?} is no answer of a composite"),
        }
    }

    fn tick(&mut self) {
        self.run(Tick {}).expect("a tick is never refused");
    }

    /// What is removed bit by bit, and then the time at which blobs would have gone.
    fn let_all_go(&mut self) {
        for _ in 0..20 {
            self.tick();
        }
        self.now += BLOB_RETENTION_MS;
        for _ in 0..20 {
            self.tick();
        }
    }

    fn ask(&self, question: session::Query) -> Answer {
        let now = Timestamp(self.now);
        match query(&self.view, now, &Query::Session(question)) {
            Ok(AnyAnswer::Session(answer)) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn get(&self) -> SessionView {
        let name = self.session.name.clone();
        match self.ask(session::Query::Get(Get { name })) {
            Answer::Get(Some(view)) => view,
            other => panic!("{other:?}"),
        }
    }

    /// A commit under the lane's lease.
    fn commit(&self, graph: GraphDelta) -> Commit {
        Commit {
            session: self.session.clone(),
            lane: lane(),
            turn: None,
            execution: Some(self.execution.clone()),
            expected_revision: None,
            graph,
            leaf: None,
            state: Content::Inline(Bytes::new()),
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

    fn stage(&self, graph: Option<GraphId>, numbers: std::ops::Range<usize>) -> StageNodes {
        StageNodes {
            session: self.session.clone(),
            graph,
            nodes: nodes(numbers),
        }
    }

    fn put(&mut self, number: u8) -> u64 {
        let put = PutBlobs {
            session: self.session.clone(),
            blobs: vec![(BlobHash([number; 32]), vec![number; 9].into())],
        };
        self.run(put).expect("there is room").stored
    }

    fn has_blob(&self, number: u8) -> bool {
        let asked = Blobs {
            session: self.session.clone(),
            hashes: vec![BlobHash([number; 32])],
        };
        match self.ask(session::Query::Blobs(asked)) {
            Answer::Blobs(Some(blobs)) => blobs == [Some(Bytes::from(vec![number; 9]))],
            other => panic!("{other:?}"),
        }
    }

    fn push_work(&self) -> PushWork {
        PushWork {
            session: self.session.clone(),
            lane: lane(),
            source: None,
            class: WorkClass::Turn,
            anytime: true,
            group: None,
            available_at: Timestamp(0),
            body: Content::Inline(Bytes::new()),
        }
    }

    fn claim_work(&self, by: &str, ttl_ms: u64, dead: Vec<u64>) -> ClaimWork {
        ClaimWork {
            session: self.session.clone(),
            lane: lane(),
            execution: self.execution.clone(),
            owner: owner(),
            lease_token: token(by),
            ttl_ms,
            choice: WorkChoice::Turn {
                running: false,
                max: 1,
            },
            dead,
        }
    }

    fn push_input(&self, id: &str) -> PushInput {
        PushInput {
            session: self.session.clone(),
            lane: lane(),
            id: name(id),
            source: None,
            mode: InputMode::Next,
            body: Content::Inline(Bytes::new()),
        }
    }

    fn claim_inputs(&self, by: &str, ttl_ms: u64, dead: Vec<u64>) -> ClaimInputs {
        ClaimInputs {
            session: self.session.clone(),
            lane: lane(),
            execution: self.execution.clone(),
            owner: owner(),
            lease_token: token(by),
            ttl_ms,
            mode: InputMode::Next,
            max: 1,
            dead,
        }
    }
}

/// The sweep of an entry leaves a staged graph; the command of the same entry asks for it.
#[test]
fn a_staged_graph_whose_time_is_over_is_taken_by_nobody() {
    let mut state = State::new();
    let NodesStaged { graph, .. } = state.run(state.stage(None, 0..3)).expect("there is room");
    state.now += STAGED_GRAPH_RETENTION_MS;
    let take = GraphDelta::Replace {
        staged: Some(graph),
        nodes: nodes(3..4),
    };
    let gone = Refusal::NotFound {
        subject: Subject::Graph,
        name: format!("session#{}", graph.0),
    };
    assert_eq!(state.run(state.commit(take)), Err(gone));
    state.tick();
    assert_eq!(state.get().head, None);
}

/// The same with more nodes: they would go with the sweep.
#[test]
fn a_staged_graph_whose_time_is_over_is_not_gone_on_with() {
    let mut state = State::new();
    let staged = state.run(state.stage(None, 0..3)).expect("there is room");
    state.now += STAGED_GRAPH_RETENTION_MS;
    let more = state.run(state.stage(Some(staged.graph), 3..6));
    let refused = more.expect_err("it was left");
    assert_eq!(refused.code(), "not_found");
}

/// Who reads a graph page by page would take what is left of it for all of it.
#[test]
fn a_graph_that_goes_bit_by_bit_is_not_shown() {
    let mut state = State::new();
    let first = state.commit(GraphDelta::Append(nodes(0..3 * REMOVALS_MAX)));
    let committed = state.run(first).expect("the lease is live");
    let (graph, _) = committed.graph.expect("it is no retry");
    let replace = GraphDelta::Replace {
        staged: None,
        nodes: nodes(0..1),
    };
    state.run(state.commit(replace)).expect("the lease is live");
    for _ in 0..5 {
        let asked = Nodes {
            session: state.session.clone(),
            graph,
            from: 0,
            limit: 0,
        };
        let shown = state.ask(session::Query::Nodes(asked));
        assert_eq!(shown, Answer::Nodes(None), "it is no graph of the session");
        state.tick();
    }
    assert!(!rows::is_something_due(&state.view), "it is gone");
}

#[test]
fn what_is_put_again_is_kept_for_its_time_from_then_on() {
    let mut state = State::new();
    assert_eq!(state.put(1), 1);
    state.now += BLOB_RETENTION_MS - 1;
    assert_eq!(state.put(1), 0, "it is there");
    state.now += BLOB_RETENTION_MS - 1;
    state.tick();
    assert!(state.has_blob(1), "its writer has time to commit");
    state.now += 1;
    state.tick();
    assert!(!state.has_blob(1));
}

/// All claims of one entry have one fencing token: two of the same work could not be told apart by
/// those who check it.
#[test]
fn an_entry_claims_the_same_work_once() {
    let mut state = State::new();
    state.run(state.push_work()).expect("there is room");
    let token_of_next = state.index + 1;
    let dead = vec![token_of_next];
    let steps = vec![
        state.claim_work("first", 0, Vec::new()).into(),
        state.claim_work("over", 1_000, Vec::new()).into(),
        state.claim_work("dead", 1_000, dead).into(),
    ];
    let answers = state.composite(steps).expect("the lease is live");
    let taken = answers.iter().map(|answer| match answer {
        AnyResponse::Session(Response::ClaimWork(taken)) => taken.is_some(),
        other => panic!("{other:?}"),
    });
    assert_eq!(taken.collect::<Vec<_>>(), [true, false, false]);
    let next = state.run(state.claim_work("next", 1_000, Vec::new()));
    let next = next.expect("the lease is live").expect("it is free");
    assert!(next.claim.fencing_token > token_of_next);
}

#[test]
fn an_entry_gives_up_no_work_that_it_has_claimed() {
    let mut state = State::new();
    let work = state.run(state.push_work()).expect("there is room");
    let session::WorkPushed::Queued { number, .. } = work else {
        panic!("{work:?}");
    };
    let abandon = AbandonWork {
        session: state.session.clone(),
        lane: lane(),
        claim: session::ClaimRef {
            lease_token: token("first"),
            fencing_token: state.index + 1,
        },
        numbers: vec![number],
    };
    let steps = vec![
        state.claim_work("first", 1_000, Vec::new()).into(),
        abandon.into(),
        state.claim_work("second", 1_000, Vec::new()).into(),
    ];
    let refused = state.composite(steps).expect_err("it is claimed here");
    assert_eq!(refused.code(), "conflict");
}

#[test]
fn an_entry_claims_the_same_input_once_and_does_not_give_it_up() {
    let mut state = State::new();
    state.run(state.push_input("one")).expect("there is room");
    let token_of_next = state.index + 1;
    let abandon = AbandonInputs {
        session: state.session.clone(),
        lane: lane(),
        claim: session::ClaimRef {
            lease_token: token("first"),
            fencing_token: token_of_next,
        },
        ids: vec![name("one")],
    };
    let first = state.claim_inputs("first", 0, Vec::new());
    let steps = vec![first.clone().into(), abandon.into()];
    let refused = state.composite(steps).expect_err("it is claimed here");
    assert_eq!(refused.code(), "conflict");

    let dead = vec![token_of_next + 1];
    let steps = vec![
        first.into(),
        state.claim_inputs("over", 1_000, Vec::new()).into(),
        state.claim_inputs("dead", 1_000, dead).into(),
    ];
    let answers = state.composite(steps).expect("the lease is live");
    let taken = answers.iter().map(|answer| match answer {
        AnyResponse::Session(Response::ClaimInputs(taken)) => taken.is_some(),
        other => panic!("{other:?}"),
    });
    assert_eq!(taken.collect::<Vec<_>>(), [true, false, false]);
}

#[test]
fn a_vacuum_that_removes_all_that_it_may_knows_whether_there_is_more() {
    for (count, more) in [(REMOVALS_MAX, false), (REMOVALS_MAX + 1, true)] {
        let mut state = State::new();
        let commit = state.commit(GraphDelta::Append(nodes(0..count)));
        state.run(commit).expect("the lease is live");
        let hide = Tombstone {
            session: state.session.clone(),
            nodes: nodes(0..count).into_iter().map(|node| node.id).collect(),
        };
        state.run(hide).expect("it is there");
        let vacuum = Vacuum {
            session: state.session.clone(),
        };
        let done = state.run(vacuum).expect("it is there");
        assert_eq!((done.nodes, done.more), (REMOVALS_MAX as u64, more));
    }
}

/// A session with more rows than a step of the sweep removes, and with a graph that it is just
/// removing.
fn large_session() -> State {
    let mut state = State::new();
    let first = state.commit(GraphDelta::Append(nodes(0..3 * REMOVALS_MAX)));
    state.run(first).expect("the lease is live");
    let nodes = nodes(0..2 * REMOVALS_MAX);
    let staged = None;
    let replace = GraphDelta::Replace { staged, nodes };
    state.run(state.commit(replace)).expect("the lease is live");
    for number in 0..70 {
        state.put(number);
        state.run(state.push_work()).expect("there is room");
        let input = state.push_input(&format!("input-{number}"));
        state.run(input).expect("there is room");
    }
    state.tick();
    state
}

#[test]
fn a_session_that_goes_bit_by_bit_leaves_nothing_to_the_next_one_of_its_name() {
    let mut state = large_session();
    let name = state.session.name.clone();
    let deleted = state.run(Delete { name: name.clone() });
    assert!(deleted.expect("it is never refused").existed);
    let former = state.session.clone();
    let note = None;
    let opened = state.run(Open { name, note }).expect("there is room");
    assert!(opened.created && opened.id > former.id);
    let late = state.run(state.push_work());
    let late = late.expect_err("who knew the former one does not know this one");
    assert_eq!(late.code(), "not_found");
    state.session.id = opened.id;
    state.run(state.push_work()).expect("there is room");
    assert!(rows::is_something_due(&state.view), "rows are left");
    state.let_all_go();
    assert!(!rows::is_something_due(&state.view), "all rows are gone");
    let counters = state.get().session;
    let empty = (counters.blobs, counters.work, counters.inputs);
    assert_eq!(empty, (0, 1, 0), "what was done since the deletion");
}

#[test]
fn nothing_is_left_of_a_session_that_was_deleted() {
    let mut state = large_session();
    let name = state.session.name.clone();
    state.run(Delete { name }).expect("it is never refused");
    state.let_all_go();
    rows::check_nothing_left(&state.view);
}

/// A collection takes what was put and not yet committed; the commit says what is missing.
#[test]
fn a_commit_that_lost_its_blobs_to_a_collection_says_which() {
    let mut state = State::new();
    state.put(1);
    let collect = Collect {
        session: state.session.clone(),
    };
    assert_eq!(state.run(collect).expect("it is there").removed, 1);
    let mut commit = state.commit(GraphDelta::Append(Vec::new()));
    commit.roots = vec![BlobHash([1; 32])];
    let missing = Refusal::NotFound {
        subject: Subject::Blob,
        name: BlobHash([1; 32]).to_string(),
    };
    assert_eq!(state.run(commit.clone()), Err(missing));
    state.put(1);
    state.run(commit).expect("it is there again");
}
