//! What queries show is what the model has.

use quorate_statemachine::query::Page;
use quorate_statemachine::session::{
    Answer, Attachment, Attachments, BlobHash, Blobs, Get, GraphId, GraphPage, InputView, Inputs,
    List, Node, NodeOf, Nodes, Path, Query, SessionRef, SessionSummary, SessionView, WorkList,
    WorkView,
};
use quorate_statemachine::view::MemoryView;
use quorate_statemachine::{Answer as AnyAnswer, Name, Query as AnyQuery, Timestamp, query};

use crate::model::{Model, ModelGraph, ModelSession};
use crate::resolve::{hash, lane_name, name, session_name};
use crate::turns::{BLOBS, LANES, NODES, SESSIONS};

/// Reads at the model's time, which may be later than the last entry's.
struct Reader<'a> {
    view: &'a MemoryView,
    now: Timestamp,
}

/// Pages of one listing that are read at most: a path may lead in a circle.
const PAGES: usize = 5;

impl Reader<'_> {
    fn ask(&self, question: Query) -> Answer {
        let question = AnyQuery::Session(question);
        let question = AnyQuery::decode(&question.encode()).expect("a valid query");
        match query(self.view, self.now, &question) {
            Ok(AnyAnswer::Session(answer)) => answer,
            other => panic!("{other:?}"),
        }
    }
}

/// Checks all that is shown.
pub fn check(view: &MemoryView, model: &Model) {
    let reader = Reader {
        view,
        now: model.now,
    };
    check_list(&reader, model);
    for number in 0..SESSIONS {
        let name = session_name(number);
        let session = model.session(&name);
        let Answer::Get(shown) = reader.ask(Query::Get(Get { name })) else {
            panic!("a session is asked for");
        };
        let shown = shown.map(|view| without_orders(&view));
        assert_eq!(
            shown,
            session.map(|session| without_orders(&view_of(session)))
        );
        if let Some(session) = session {
            check_session(&reader, model, session);
        }
    }
    for former in model.deleted.iter().rev().take(2) {
        check_unknown(&reader, former);
    }
}

/// Counters by name.
type Sums = Vec<(Vec<u8>, Vec<i64>)>;

/// A view, and its usage without the numbers that only order it.
fn without_orders(view: &SessionView) -> (SessionView, Sums) {
    let usage = view.usage.iter();
    let usage = usage.map(|(name, usage)| (name.clone(), usage.numbers.clone()));
    let bare = SessionView {
        usage: Vec::new(),
        ..view.clone()
    };
    (bare, usage.collect())
}

fn view_of(session: &ModelSession) -> SessionView {
    let counters = session.own_graph().map(ModelGraph::counters);
    let usage = session.usage.iter().map(|(name, numbers)| {
        let usage = quorate_statemachine::session::Usage {
            order: 0,
            numbers: numbers.clone(),
        };
        (name.clone(), usage)
    });
    SessionView {
        session: session.counters(),
        note: session.note.clone(),
        head: session.head.clone().zip(counters),
        usage: usage.collect(),
    }
}

fn check_list(reader: &Reader<'_>, model: &Model) {
    let mut sessions: Vec<&ModelSession> = model.sessions.iter().collect();
    sessions.sort_by_key(|session| &session.name);
    let expected: Vec<SessionSummary> = sessions.into_iter().map(summary).collect();
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let list = List {
            prefix: "session-".to_owned(),
            after,
            limit: 1,
        };
        let Answer::List(page) = reader.ask(Query::List(list)) else {
            panic!("sessions are asked for");
        };
        assert!(page.rows.len() <= 1);
        listed.extend(page.rows);
        match page.next {
            Some(next) => after = Some(Name::parse("after", next).expect("a name")),
            None => break,
        }
    }
    assert_eq!(listed, expected);
}

fn summary(session: &ModelSession) -> SessionSummary {
    let head = session.head.as_ref();
    let shown = |graph: &ModelGraph| graph.nodes.iter().filter(|(_, n)| !n.tombstone).count();
    SessionSummary {
        session: session.counters(),
        lane: head.map(|head| head.lane.clone()),
        revision: head.map_or(0, |head| head.revision),
        committed_at: head.map(|head| head.committed_at),
        nodes: session.own_graph().map_or(0, shown) as u64,
    }
}

fn check_session(reader: &Reader<'_>, model: &Model, session: &ModelSession) {
    for graph in &session.graphs {
        check_nodes(reader, session, graph);
        check_paths(reader, session, graph);
    }
    let left = model.left.iter().filter(|(of, _)| *of == session.id);
    for (_, graph) in left.rev().take(3) {
        check_left(reader, session, *graph);
    }
    for number in 0..NODES {
        let node = name("node", number);
        let expected = session.own_graph().and_then(|graph| graph.shown(&node));
        let asked = NodeOf {
            session: session.reference(),
            node: node.clone(),
        };
        let shown = reader.ask(Query::Node(asked));
        assert_eq!(shown, Answer::Node(expected.cloned()), "{node}");
    }
    check_blobs(reader, session);
    let lanes = (0..LANES).map(|number| Some(lane_name(number)));
    for lane in lanes.chain([None]) {
        for limit in [0, 2] {
            check_work(reader, model, session, (&lane, limit));
            check_inputs(reader, model, session, (&lane, limit));
        }
    }
    check_attachments(reader, session);
}

/// A page of nodes, as the model has them.
fn nodes_page(graph: &ModelGraph, from: u64, limit: usize) -> GraphPage<u64> {
    let behind = graph.nodes.iter().filter(|(number, _)| *number >= from);
    let page = behind.clone().take(limit).map(|(_, node)| node);
    GraphPage {
        graph: graph.counters(),
        nodes: page.filter(|node| !node.tombstone).cloned().collect(),
        next: behind.map(|(number, _)| *number).nth(limit),
    }
}

fn check_nodes(reader: &Reader<'_>, session: &ModelSession, graph: &ModelGraph) {
    for (limit, pages) in [(0, 1), (2, PAGES)] {
        let mut from = Some(0);
        for _ in 0..pages {
            let Some(first) = from else { break };
            let asked = Nodes {
                session: session.reference(),
                graph: graph.id,
                from: first,
                limit,
            };
            let most = if limit == 0 { 1_000 } else { limit as usize };
            let expected = nodes_page(graph, first, most);
            from = expected.next;
            let shown = reader.ask(Query::Nodes(asked));
            assert_eq!(shown, Answer::Nodes(Some(expected)), "from {first}");
        }
    }
}

fn check_paths(reader: &Reader<'_>, session: &ModelSession, graph: &ModelGraph) {
    for number in 0..NODES {
        let mut next = Some(name("node", number));
        for _ in 0..PAGES {
            let Some(leaf) = next else { break };
            let asked = Path {
                session: session.reference(),
                graph: graph.id,
                leaf: leaf.clone(),
                limit: 2,
            };
            let expected = path_page(graph, leaf, 2);
            next = expected.next.clone();
            let shown = reader.ask(Query::Path(asked));
            assert_eq!(shown, Answer::Path(Some(expected)));
        }
    }
}

fn path_page(graph: &ModelGraph, leaf: Name, limit: usize) -> GraphPage<Name> {
    let (mut nodes, mut next): (Vec<Node>, _) = (Vec::new(), Some(leaf));
    while nodes.len() < limit {
        let Some(node) = next.as_ref().and_then(|id| graph.shown(id)) else {
            next = None;
            break;
        };
        nodes.push(node.clone());
        next = node.parent.clone();
    }
    GraphPage {
        graph: graph.counters(),
        nodes,
        next,
    }
}

/// Nobody sees a graph that was left, in whatever state the sweep has it.
fn check_left(reader: &Reader<'_>, session: &ModelSession, graph: GraphId) {
    let nodes = Nodes {
        session: session.reference(),
        graph,
        from: 0,
        limit: 0,
    };
    let path = Path {
        session: session.reference(),
        graph,
        leaf: name("node", 0),
        limit: 0,
    };
    assert_eq!(reader.ask(Query::Nodes(nodes)), Answer::Nodes(None));
    assert_eq!(reader.ask(Query::Path(path)), Answer::Path(None));
}

fn check_blobs(reader: &Reader<'_>, session: &ModelSession) {
    let hashes: Vec<BlobHash> = (0..=BLOBS).map(hash).collect();
    let bytes = |hash: &BlobHash| session.blob(*hash).map(|blob| blob.bytes.clone());
    let expected = hashes.iter().map(bytes).collect();
    let asked = Blobs {
        session: session.reference(),
        hashes,
    };
    let shown = reader.ask(Query::Blobs(asked));
    assert_eq!(shown, Answer::Blobs(Some(expected)));
}

/// All pages of a listing: what each answers, and where the next begins.
fn pages<R: Clone>(
    limit: u32,
    mut ask: impl FnMut(Option<R>) -> Page<R>,
    word: impl Fn(&R) -> String,
) -> Vec<R> {
    let mut all: Vec<R> = Vec::new();
    loop {
        let page = ask(all.last().cloned());
        assert!(limit == 0 || page.rows.len() <= limit as usize);
        let last = page.rows.last().map(&word);
        all.extend(page.rows);
        match page.next {
            Some(next) => assert_eq!(Some(next), last, "goes on behind its last row"),
            None => return all,
        }
    }
}

fn check_work(
    reader: &Reader<'_>,
    model: &Model,
    session: &ModelSession,
    (lane, limit): (&Option<Name>, u32),
) {
    for unclaimed in [false, true] {
        let ask = |last: Option<WorkView>| {
            let asked = WorkList {
                session: session.reference(),
                lane: lane.clone(),
                unclaimed,
                after: last.map(|last| (last.work.lane, last.work.number)),
                limit,
            };
            match reader.ask(Query::Work(asked)) {
                Answer::Work(Some(page)) => page,
                other => panic!("{other:?} is no work"),
            }
        };
        let listed = pages(limit, ask, |view| view.work.number.to_string());
        let mut expected: Vec<WorkView> = session.work.iter().map(|p| p.view.clone()).collect();
        expected.retain(|view| lane.as_ref().is_none_or(|lane| view.work.lane == *lane));
        expected.retain(|view| {
            let live = view.work.claim.as_ref();
            !unclaimed || live.is_none_or(|claim| claim.expires_at <= model.now)
        });
        expected.sort_by_key(|view| (view.work.lane.clone(), view.work.number));
        assert_eq!(listed, expected, "work of {lane:?}");
    }
}

fn check_inputs(
    reader: &Reader<'_>,
    model: &Model,
    session: &ModelSession,
    (lane, limit): (&Option<Name>, u32),
) {
    for (ended, unclaimed) in [(false, false), (true, false), (true, true)] {
        let ask = |last: Option<InputView>| {
            let asked = Inputs {
                session: session.reference(),
                lane: lane.clone(),
                ended,
                unclaimed,
                after: last.map(|last| (last.input.lane, last.input.number)),
                limit,
            };
            match reader.ask(Query::Inputs(asked)) {
                Answer::Inputs(Some(page)) => page,
                other => panic!("{other:?} is no input"),
            }
        };
        let listed = pages(limit, ask, |view| view.input.number.to_string());
        let mut expected = session.inputs.clone();
        expected.retain(|view| lane.as_ref().is_none_or(|lane| view.input.lane == *lane));
        expected.retain(|view| ended || !view.input.state.is_ended());
        expected.retain(|view| {
            let live = view.input.claim.as_ref();
            !unclaimed || live.is_none_or(|claim| claim.expires_at <= model.now)
        });
        expected.sort_by_key(|view| (view.input.lane.clone(), view.input.number));
        assert_eq!(listed, expected, "inputs of {lane:?}");
    }
}

fn check_attachments(reader: &Reader<'_>, session: &ModelSession) {
    for (until, limit) in [(u64::MAX, 2), (1, 1), (0, 0)] {
        let until = Timestamp(until);
        let ask = |last: Option<Attachment>| {
            let asked = Attachments {
                session: session.reference(),
                until,
                after: last.map(|last| (last.intent_at, last.id)),
                limit,
            };
            match reader.ask(Query::Attachments(asked)) {
                Answer::Attachments(Some(page)) => page,
                other => panic!("{other:?} is no attachment"),
            }
        };
        let listed = pages(limit, ask, |attachment| attachment.id.to_string());
        let mut expected = session.attachments.clone();
        expected.retain(|one| one.committed_at.is_none() && one.intent_at <= until);
        expected.sort_by_key(|one| (one.intent_at, one.id.clone()));
        assert_eq!(listed, expected, "attachments until {until:?}");
    }
}

/// Nobody sees anything of a session that was deleted, nor anything of another one under its id.
fn check_unknown(reader: &Reader<'_>, former: &SessionRef) {
    let get = Get {
        name: former.name.clone(),
    };
    let Answer::Get(shown) = reader.ask(Query::Get(get)) else {
        panic!("a session is asked for");
    };
    let anew = shown.is_none_or(|view| view.session.id > former.id);
    assert!(anew, "a new session has an id of its own");
    let session = former.clone();
    let work = WorkList {
        session: session.clone(),
        lane: None,
        unclaimed: false,
        after: None,
        limit: 0,
    };
    assert_eq!(reader.ask(Query::Work(work)), Answer::Work(None));
    let inputs = Inputs {
        session: session.clone(),
        lane: None,
        ended: true,
        unclaimed: false,
        after: None,
        limit: 0,
    };
    assert_eq!(reader.ask(Query::Inputs(inputs)), Answer::Inputs(None));
    let blobs = Blobs {
        session: session.clone(),
        hashes: vec![hash(0)],
    };
    assert_eq!(reader.ask(Query::Blobs(blobs)), Answer::Blobs(None));
    let node = NodeOf {
        session: session.clone(),
        node: name("node", 0),
    };
    assert_eq!(reader.ask(Query::Node(node)), Answer::Node(None));
    let attachments = Attachments {
        session,
        until: Timestamp(u64::MAX),
        after: None,
        limit: 0,
    };
    let shown = reader.ask(Query::Attachments(attachments));
    assert_eq!(shown, Answer::Attachments(None));
}
