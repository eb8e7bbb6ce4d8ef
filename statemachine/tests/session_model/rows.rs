//! What holds of the rows after every entry, whatever the entries were. Nothing here asks the
//! model: the rows are held against each other.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use quorate_statemachine::digest::Digest;
use quorate_statemachine::limits::{BLOB_RETENTION_MS, STAGED_GRAPH_RETENTION_MS};
use quorate_statemachine::session::{
    Attachment, BlobHash, BlobRow, Content, GarbageRow, Graph, GraphId, Head, Input, InputState,
    Node, Session, SessionId, Work,
};
use quorate_statemachine::tables::{
    Due, DueKind, Key, MetaRow, PREFIX_BYTES, SessionAttachments, SessionBlobBytes, SessionBlobs,
    SessionBodies, SessionDelayedWork, SessionEndedInputs, SessionGarbage, SessionGraphs,
    SessionHeads, SessionInputIds, SessionInputSources, SessionInputs, SessionIntents,
    SessionLooseBlobs, SessionNodeIds, SessionNodes, SessionNotes, SessionTombstones, SessionTurns,
    SessionUsage, SessionWork, SessionWorkSources, Sessions, Table, blob_key, body_key, intent_key,
    lane_name_key, meta_key, node_id_key, node_key, parse_due_key, split_name, tag_of,
};
use quorate_statemachine::transaction::{read, read_range};
use quorate_statemachine::view::MemoryView;
use quorate_statemachine::{Name, Timestamp};

/// A due entry of a session: when, what, and what is behind the id.
type DueOf = (Timestamp, DueKind, Vec<u8>);

/// Everything of one session id.
#[derive(Default)]
struct Own {
    head: Option<Head>,
    graphs: BTreeMap<GraphId, Graph>,
    nodes: BTreeMap<(GraphId, u64), Node>,
    blobs: BTreeMap<BlobHash, BlobRow>,
    usage: usize,
    work: Vec<Work>,
    delayed: Vec<Work>,
    inputs: Vec<Input>,
    ended: Vec<Input>,
    bodies: BTreeMap<u64, Content>,
    attachments: Vec<Attachment>,
    garbage: BTreeMap<GraphId, GarbageRow>,
    due: Vec<DueOf>,
    /// Rows of tables that are only there to find others, or to go with them.
    found: BTreeSet<Vec<u8>>,
    rows: usize,
}

/// All sessions, and all that is under a session's id.
struct Rows {
    sessions: BTreeMap<SessionId, Session>,
    own: BTreeMap<SessionId, Own>,
}

fn number(bytes: &[u8]) -> u64 {
    let bytes = bytes.first_chunk().expect("eight bytes");
    u64::from_be_bytes(*bytes)
}

/// Every row of a table, with its own part of the key.
fn each<T: Table>(view: &MemoryView, mut visit: impl FnMut(&[u8], T::Row)) {
    let (from, to) = (Key::<T>::first(), Key::<T>::first().end());
    read_range::<T>(view, &from, &to, &mut |key, row| {
        visit(&key[PREFIX_BYTES..], row);
        ControlFlow::Continue(())
    })
    .expect("every row can be read");
}

pub fn meta(view: &MemoryView) -> MetaRow {
    let meta = read(view, &meta_key()).expect("the meta row can be read");
    meta.unwrap_or_default()
}

/// How many entries are due by `now`, and how many of them may remove a megabyte.
pub fn due_by(view: &MemoryView, now: Timestamp) -> (usize, usize) {
    let (mut count, mut removals) = (0, 0);
    each::<Due>(view, |own, ()| {
        if number(own) <= now.0 {
            count += 1;
            let removal = [DueKind::SessionBlob as u8, DueKind::SessionGarbage as u8];
            removals += usize::from(own.get(8).is_some_and(|kind| removal.contains(kind)));
        }
    });
    (count, removals)
}

impl Rows {
    fn read(view: &MemoryView) -> Self {
        let mut rows = Self {
            sessions: BTreeMap::new(),
            own: BTreeMap::new(),
        };
        each::<Sessions>(view, |own, session| {
            assert_eq!(own, session.name.as_str().as_bytes());
            let id = session.id;
            assert!(rows.sessions.insert(id, session).is_none(), "{id:?} twice");
            rows.own.entry(id).or_default();
        });
        rows.read_heads(view);
        rows.read_lanes(view);
        rows.read_due(view);
        rows
    }

    /// Every row of a table, with what the session has and the key behind its id.
    fn each<T: Table>(
        &mut self,
        view: &MemoryView,
        mut visit: impl FnMut(&mut Own, &[u8], T::Row),
    ) {
        each::<T>(view, |key, row| {
            let id = SessionId(number(key));
            let own = self.own.entry(id).or_default();
            own.rows += 1;
            visit(own, &key[8..], row);
        });
    }

    /// Rows that are asked for by others.
    fn find<T: Table>(&mut self, view: &MemoryView) {
        each::<T>(view, |key, _| {
            let own = self.own.entry(SessionId(number(key))).or_default();
            own.rows += 1;
            own.found
                .insert(Key::<T>::first().raw(key).bytes().to_vec());
        });
    }

    fn read_heads(&mut self, view: &MemoryView) {
        self.each::<SessionHeads>(view, |own, _, head| own.head = Some(head));
        self.each::<SessionNotes>(view, |_, _, _| {});
        self.each::<SessionTurns>(view, |_, _, _| {});
        self.each::<SessionUsage>(view, |own, _, _| own.usage += 1);
        self.each::<SessionGraphs>(view, |own, key, graph| {
            own.graphs.insert(GraphId(number(key)), graph);
        });
        self.each::<SessionNodes>(view, |own, key, node| {
            let key = (GraphId(number(key)), number(&key[8..]));
            own.nodes.insert(key, node);
        });
        self.each::<SessionGarbage>(view, |own, key, row| {
            own.garbage.insert(GraphId(number(key)), row);
        });
        self.find::<SessionNodeIds>(view);
        self.find::<SessionTombstones>(view);
        self.each::<SessionBlobs>(view, |own, key, row| {
            let hash = BlobHash(key.try_into().expect("a blob's name"));
            own.blobs.insert(hash, row);
        });
        self.find::<SessionBlobBytes>(view);
        self.find::<SessionLooseBlobs>(view);
    }

    fn read_lanes(&mut self, view: &MemoryView) {
        let place = |key: &[u8]| {
            let (lane, rest) = split_name(key).expect("a lane and a number");
            (
                Name::parse_bytes("lane", lane).expect("a lane"),
                number(rest),
            )
        };
        self.each::<SessionWork>(view, |own, key, work| {
            assert_eq!(place(key), (work.lane.clone(), work.number));
            own.work.push(work);
        });
        self.each::<SessionDelayedWork>(view, |own, key, work| {
            assert_eq!(place(key), (work.lane.clone(), work.number));
            own.delayed.push(work);
        });
        self.each::<SessionInputs>(view, |own, key, input| {
            assert_eq!(place(key), (input.lane.clone(), input.number));
            own.inputs.push(input);
        });
        self.each::<SessionEndedInputs>(view, |own, key, input| {
            assert_eq!(place(key), (input.lane.clone(), input.number));
            own.ended.push(input);
        });
        self.each::<SessionBodies>(view, |own, key, body| {
            own.bodies.insert(number(key), body);
        });
        self.each::<SessionAttachments>(view, |own, key, attachment| {
            assert_eq!(key, attachment.id.as_str().as_bytes());
            own.attachments.push(attachment);
        });
        self.find::<SessionWorkSources>(view);
        self.find::<SessionInputIds>(view);
        self.find::<SessionInputSources>(view);
        self.find::<SessionIntents>(view);
    }

    fn read_due(&mut self, view: &MemoryView) {
        each::<Due>(view, |own, ()| {
            let key = Key::<Due>::first().raw(own);
            let (at, kind, subject) = parse_due_key(key.bytes()).expect("a meaning");
            if !is_of_session(kind) {
                return;
            }
            let (name, rest) = split_name(subject).expect("a session's name");
            let id = SessionId(number(rest));
            let session = self.sessions.get(&id);
            assert!(session.is_none_or(|s| s.name.as_str().as_bytes() == name));
            let own = self.own.entry(id).or_default();
            own.due.push((at, kind, rest[8..].to_vec()));
        });
    }
}

fn is_of_session(kind: DueKind) -> bool {
    matches!(
        kind,
        DueKind::SessionBlob
            | DueKind::SessionWork
            | DueKind::SessionGraph
            | DueKind::SessionGarbage
    )
}

/// Checks all of it.
pub fn check(view: &MemoryView) {
    let rows = Rows::read(view);
    assert_eq!(meta(view).sessions, rows.sessions.len() as u64);
    for (id, own) in &rows.own {
        own.check_garbage();
        match rows.sessions.get(id) {
            Some(session) => own.check(view, session),
            None => {
                let whole = own.garbage.contains_key(&GraphId(0));
                let rows = own.rows - own.garbage.len();
                assert!(whole || rows == 0, "{rows} rows of session {id} are left");
            }
        }
    }
    check_digest(view);
}

impl Own {
    /// Each removal has a next step, and no step has nothing to remove.
    fn check_garbage(&self) {
        let steps = self
            .due
            .iter()
            .filter(|(_, kind, _)| *kind == DueKind::SessionGarbage);
        let steps: Vec<GraphId> = steps.map(|(_, _, rest)| GraphId(number(rest))).collect();
        let removals: Vec<GraphId> = self.garbage.keys().copied().collect();
        let mut sorted = steps.clone();
        sorted.sort();
        assert_eq!(sorted, removals, "steps of removals");
    }

    fn check(&self, view: &MemoryView, session: &Session) {
        assert!(!self.garbage.contains_key(&GraphId(0)), "{session:?} goes");
        self.check_counters(session);
        self.check_graphs();
        self.check_lanes();
        self.check_references(view, session.id);
        self.check_found(session.id);
        self.check_numbers(view, session.id);
        self.check_due();
    }

    fn check_counters(&self, session: &Session) {
        let loose = |row: &&BlobRow| row.references == 0;
        let counted = Session {
            blobs: self.blobs.len() as u64,
            loose_blobs: self.blobs.values().filter(loose).count() as u64,
            blob_bytes: self.blobs.values().map(|row| row.bytes).sum(),
            usage: self.usage as u64,
            work: (self.work.len() + self.delayed.len()) as u64,
            inputs: self.inputs.len() as u64,
            ended_inputs: self.ended.len() as u64,
            attachments: self.attachments.len() as u64,
            ..session.clone()
        };
        assert_eq!(*session, counted, "counters");
    }

    /// A graph is the head's or staged. What was left has no row, and its nodes are to be removed.
    fn check_graphs(&self) {
        let own = self.head.as_ref().map(|head| head.graph);
        for (id, graph) in &self.graphs {
            let staged = graph.staged_at.is_some();
            assert_ne!(
                own == Some(*id),
                staged,
                "{id:?} of head {own:?}: {graph:?}"
            );
            let of = (*id, 0)..=(*id, u64::MAX);
            let nodes = self.nodes.range(of.clone());
            let tombstones = nodes.clone().filter(|(_, node)| node.tombstone).count();
            let counted = (graph.nodes, graph.tombstones);
            assert_eq!(counted, (nodes.count() as u64, tombstones as u64), "{id:?}");
            let last = self.nodes.range(of).next_back().map(|((_, n), _)| *n);
            assert!(last.is_none_or(|last| last < graph.next), "{graph:?}");
        }
        let head = own.is_none_or(|own| self.graphs.contains_key(&own));
        assert!(head, "the head has a graph");
        for (id, number) in self.nodes.keys() {
            let (has, goes) = (self.graphs.contains_key(id), self.garbage.contains_key(id));
            assert!(has != goes, "node {number} of {id:?}: {has} {goes}");
        }
    }

    fn check_lanes(&self) {
        let delayed = self.delayed.iter();
        let mut never = delayed.filter(|work| work.claim.is_some() || work.claims > 0);
        assert_eq!(never.next(), None, "claimed before its time");
        for input in &self.inputs {
            assert!(!input.state.is_ended(), "{input:?}");
            let accepted = input.state == InputState::Accepted;
            assert!(!accepted || input.claim.is_some(), "{input:?}");
        }
        for input in &self.ended {
            assert!(input.state.is_ended() && input.claim.is_none(), "{input:?}");
        }
        let work = self
            .work
            .iter()
            .chain(&self.delayed)
            .map(|work| work.number);
        let inputs = self.inputs.iter().chain(&self.ended);
        let mut numbers: Vec<u64> = work.chain(inputs.map(|input| input.number)).collect();
        numbers.sort_unstable();
        let bodies: Vec<u64> = self.bodies.keys().copied().collect();
        assert_eq!(numbers, bodies, "each number has one row and one body");
    }

    /// Every blob knows how often it is referred to.
    fn check_references(&self, view: &MemoryView, id: SessionId) {
        let mut found: BTreeMap<BlobHash, u64> = BTreeMap::new();
        let states = self.head.iter().map(|head| &head.state);
        let nodes = self.nodes.values().map(|node| &node.body);
        let contents = states.chain(nodes).chain(self.bodies.values());
        let roots = self.head.iter().flat_map(|head| &head.roots);
        for hash in contents.flat_map(Content::blobs).chain(roots) {
            *found.entry(*hash).or_default() += 1;
        }
        for (hash, row) in &self.blobs {
            let references = found.remove(hash).unwrap_or(0);
            assert_eq!(row.references, references, "references of {hash}");
            assert_eq!(
                row.loose_since.is_some(),
                references == 0,
                "{hash}: {row:?}"
            );
            let key = blob_key::<SessionBlobBytes>(id, *hash);
            let bytes = read(view, &key).expect("bytes can be read").expect("bytes");
            assert_eq!(bytes.len() as u64, row.bytes);
        }
        assert!(found.is_empty(), "referred to and not there: {found:?}");
    }

    /// Each row asks for certain others: exactly those are there.
    fn check_found(&self, id: SessionId) {
        let mut asked = BTreeSet::new();
        let mut ask = |key: &[u8]| assert!(asked.insert(key.to_vec()), "two rows ask for one");
        for ((graph, number), node) in &self.nodes {
            ask(node_id_key(id, *graph, &node.id).bytes());
            if node.tombstone {
                ask(node_key::<SessionTombstones>(id, *graph, *number).bytes());
            }
        }
        for (hash, row) in &self.blobs {
            ask(blob_key::<SessionBlobBytes>(id, *hash).bytes());
            if row.references == 0 {
                ask(blob_key::<SessionLooseBlobs>(id, *hash).bytes());
            }
        }
        for work in self.work.iter().chain(&self.delayed) {
            if let Some(source) = &work.source {
                ask(lane_name_key::<SessionWorkSources>(id, &work.lane, source).bytes());
            }
        }
        for input in self.inputs.iter().chain(&self.ended) {
            ask(lane_name_key::<SessionInputIds>(id, &input.lane, &input.id).bytes());
            if let Some(source) = &input.source {
                ask(lane_name_key::<SessionInputSources>(id, &input.lane, source).bytes());
            }
        }
        for attachment in &self.attachments {
            if attachment.committed_at.is_none() {
                ask(intent_key(id, attachment).bytes());
            }
        }
        assert_eq!(self.found, asked);
    }

    /// The rows that find others find the right ones.
    fn check_numbers(&self, view: &MemoryView, id: SessionId) {
        let is = |key: &Key<SessionNodeIds>| read(view, key).expect("a number");
        for ((graph, number), node) in &self.nodes {
            assert_eq!(is(&node_id_key(id, *graph, &node.id)), Some(*number));
        }
        for work in self.work.iter().chain(&self.delayed) {
            let Some(source) = &work.source else {
                continue;
            };
            let key = lane_name_key::<SessionWorkSources>(id, &work.lane, source);
            assert_eq!(read(view, &key).expect("a number"), Some(work.number));
        }
        for input in self.inputs.iter().chain(&self.ended) {
            let key = lane_name_key::<SessionInputIds>(id, &input.lane, &input.id);
            assert_eq!(read(view, &key).expect("a number"), Some(input.number));
            let Some(source) = &input.source else {
                continue;
            };
            let key = lane_name_key::<SessionInputSources>(id, &input.lane, source);
            assert_eq!(read(view, &key).expect("a number"), Some(input.number));
        }
        for number in self.bodies.keys() {
            assert!(read(view, &body_key(id, *number)).is_ok_and(|body| body.is_some()));
        }
    }

    /// What must be due is, and not too late.
    fn check_due(&self) {
        let of = |kind| {
            let due = self.due.iter().filter(move |(_, of, _)| *of == kind);
            due.map(|(at, _, rest)| (*at, rest.clone()))
        };
        let blobs = self.blobs.iter();
        let filed = blobs.filter_map(|(hash, row)| Some((row.filed_at?, hash.0.to_vec())));
        let filed: BTreeSet<_> = filed.collect();
        assert_eq!(of(DueKind::SessionBlob).collect::<BTreeSet<_>>(), filed);
        for (hash, row) in &self.blobs {
            let over = row.loose_since.map(|since| since.plus(BLOB_RETENTION_MS));
            let in_time = row
                .filed_at
                .is_some_and(|at| over.is_none_or(|over| at <= over));
            assert!(over.is_none() || in_time, "{hash}: {row:?}");
        }
        let work = self.delayed.iter().map(|work| {
            let number = work.number.to_be_bytes();
            let rest = [&number[..], work.lane.as_str().as_bytes()].concat();
            (work.available_at, rest)
        });
        let work: BTreeSet<_> = work.collect();
        assert_eq!(of(DueKind::SessionWork).collect::<BTreeSet<_>>(), work);
        for (id, graph) in &self.graphs {
            let looks = of(DueKind::SessionGraph).filter(|(_, rest)| number(rest) == id.0);
            let looks: Vec<Timestamp> = looks.map(|(at, _)| at).collect();
            assert!(looks.len() <= 1, "{id:?} is looked at by {looks:?}");
            if let Some(staged_at) = graph.staged_at {
                let over = staged_at.plus(STAGED_GRAPH_RETENTION_MS);
                assert!(looks.iter().any(|at| *at <= over), "{id:?}: {looks:?}");
            }
        }
    }
}

/// Whether something of a session will be due.
pub fn is_something_due(view: &MemoryView) -> bool {
    let rows = Rows::read(view);
    rows.own.values().any(|own| !own.due.is_empty())
}

/// Nothing of any session is there, nor due.
pub fn check_nothing_left(view: &MemoryView) {
    let session = |tag: u8| (Sessions::TAG..=SessionGarbage::TAG).contains(&tag);
    for (key, _) in view.rows() {
        let left = match tag_of(key) {
            Some(Due::TAG) => parse_due_key(key).is_some_and(|(_, kind, _)| is_of_session(kind)),
            Some(tag) => session(tag),
            None => false,
        };
        assert!(!left, "{} is left", key.escape_ascii());
    }
    assert_eq!(meta(view).sessions, 0);
}

/// The running digest is the digest of what is there.
fn check_digest(view: &MemoryView) {
    let mut digest = Digest::default();
    let others = view.rows().filter(|(key, _)| *key != meta_key().bytes());
    others.for_each(|(key, value)| digest.replace(key, None, Some(value)));
    assert_eq!(meta(view).digest, digest);
}
