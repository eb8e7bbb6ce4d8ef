//! Sessions as one would write them without a store: vectors that are searched from end to end, and
//! counts that are counted each time.
//!
//! The model shares the types of requests and replies with the state machine and none of its rules.
//! It is told by the rows what the sweep has come by ([`Model::pass_to`]), and checks that it was
//! time for it.

mod commit;
mod graph;
mod input;
mod lease;
mod parts;
mod swept;
mod work;

use bytes::Bytes;
use quorate_statemachine::limits::{REQUEST_EVICTIONS_MAX, REQUEST_RETENTION_MS, REQUEST_SLACK_MS};
use quorate_statemachine::session::{
    self, Attachment, BlobHash, ClaimRef, Content, Graph, GraphId, Head, InputView, LaneClaim,
    Node, Session, SessionId, SessionRef, Stamp, WorkView,
};
use quorate_statemachine::{
    Action, Command, Name, Refusal, Reply, RequestId, Response, Subject, Timestamp, cluster,
};

pub use lease::{Grant, is_forgotten};
pub use swept::Swept;

/// What a step answers.
pub type Outcome<T> = Result<T, Refusal>;

/// A graph with its nodes, in the order in which they came.
#[derive(Debug, Clone)]
pub struct ModelGraph {
    pub id: GraphId,
    pub nodes: Vec<(u64, Node)>,
    pub next: u64,
    pub staged_at: Option<Timestamp>,
    pub rewritten: u64,
}

/// A blob, and since when nothing refers to it.
#[derive(Debug, Clone)]
pub struct ModelBlob {
    pub hash: BlobHash,
    pub bytes: Bytes,
    pub loose_since: Option<Timestamp>,
}

/// A piece of work, and whether its time has yet to come.
#[derive(Debug, Clone)]
pub struct Piece {
    pub view: WorkView,
    pub delayed: bool,
}

/// A turn that was committed.
#[derive(Debug, Clone)]
pub struct ModelTurn {
    pub lane: Name,
    pub turn: Name,
    pub stamp: Stamp,
}

/// A session with everything in it.
#[derive(Debug, Clone)]
pub struct ModelSession {
    pub name: Name,
    pub id: SessionId,
    pub created_at: Timestamp,
    pub note: Option<Bytes>,
    pub head: Option<Head>,
    /// The one of the head, and those that are staged.
    pub graphs: Vec<ModelGraph>,
    /// Those that nobody sees any more, as far as the sweep has left them.
    pub leaving: Vec<ModelGraph>,
    pub blobs: Vec<ModelBlob>,
    pub usage: Vec<(Vec<u8>, Vec<i64>)>,
    pub turns: Vec<ModelTurn>,
    pub work: Vec<Piece>,
    /// Ended ones too.
    pub inputs: Vec<InputView>,
    pub attachments: Vec<Attachment>,
}

/// Whether a claim is one of work or of inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Work,
    Inputs,
}

/// A claim that was made, and what it took: for tests to pick from.
#[derive(Debug, Clone)]
pub struct Made {
    pub session: SessionId,
    pub lane: Name,
    pub kind: Kind,
    pub claim: LaneClaim,
    pub numbers: Vec<u64>,
    pub ids: Vec<Name>,
}

/// An answer that is remembered.
#[derive(Debug, Clone)]
struct Answered {
    id: [u8; 16],
    index: u64,
    at: Timestamp,
    reply: Reply,
}

/// All sessions; what was ever granted, claimed, left and deleted, for tests to pick from.
#[derive(Debug, Clone, Default)]
pub struct Model {
    pub now: Timestamp,
    pub index: u64,
    pub sessions: Vec<ModelSession>,
    pub deleted: Vec<SessionRef>,
    pub left: Vec<(SessionId, GraphId)>,
    pub grants: Vec<Grant>,
    pub claims: Vec<Made>,
    pub floor: u64,
    answered: Vec<Answered>,
}

impl ModelGraph {
    /// The counters, counted.
    pub fn counters(&self) -> Graph {
        Graph {
            next: self.next,
            nodes: self.nodes.len() as u64,
            tombstones: self.nodes.iter().filter(|(_, n)| n.tombstone).count() as u64,
            staged_at: self.staged_at,
            rewritten: self.rewritten,
        }
    }

    /// A node that is no tombstone.
    pub fn shown(&self, id: &Name) -> Option<&Node> {
        let nodes = self.nodes.iter().map(|(_, node)| node);
        nodes.into_iter().find(|n| n.id == *id && !n.tombstone)
    }
}

impl ModelSession {
    pub fn reference(&self) -> SessionRef {
        SessionRef {
            name: self.name.clone(),
            id: self.id,
        }
    }

    /// The counters, counted.
    pub fn counters(&self) -> Session {
        let ended = |view: &&InputView| view.input.state.is_ended();
        let ended = self.inputs.iter().filter(ended).count() as u64;
        let loose = |blob: &&ModelBlob| self.references(blob.hash) == 0;
        Session {
            name: self.name.clone(),
            id: self.id,
            created_at: self.created_at,
            blobs: self.blobs.len() as u64,
            loose_blobs: self.blobs.iter().filter(loose).count() as u64,
            blob_bytes: self.blobs.iter().map(|b| b.bytes.len() as u64).sum(),
            usage: self.usage.len() as u64,
            work: self.work.len() as u64,
            inputs: self.inputs.len() as u64 - ended,
            ended_inputs: ended,
            attachments: self.attachments.len() as u64,
        }
    }

    pub fn graph(&self, id: GraphId) -> Option<&ModelGraph> {
        self.graphs.iter().find(|graph| graph.id == id)
    }

    /// The graph of the head.
    pub fn own_graph(&self) -> Option<&ModelGraph> {
        self.graph(self.head.as_ref()?.graph)
    }

    pub fn staged(&self) -> impl Iterator<Item = &ModelGraph> {
        self.graphs.iter().filter(|g| g.staged_at.is_some())
    }

    pub fn blob(&self, hash: BlobHash) -> Option<&ModelBlob> {
        self.blobs.iter().find(|blob| blob.hash == hash)
    }

    /// How often a blob is referred to, counted.
    pub fn references(&self, hash: BlobHash) -> u64 {
        let head = self.head.iter();
        let roots = head.clone().flat_map(|head| &head.roots);
        let states = head.map(|head| &head.state);
        let graphs = self.graphs.iter().chain(&self.leaving);
        let nodes = graphs.flat_map(|g| g.nodes.iter().map(|(_, node)| &node.body));
        let work = self.work.iter().map(|piece| &piece.view.body);
        let inputs = self.inputs.iter().map(|view| &view.body);
        let bodies = states.chain(nodes).chain(work).chain(inputs);
        let all = roots.chain(bodies.flat_map(Content::blobs));
        all.filter(|found| **found == hash).count() as u64
    }

    /// Notes since when what nothing refers to any more is loose.
    fn loosen(&mut self, now: Timestamp) {
        for at in 0..self.blobs.len() {
            let references = self.references(self.blobs[at].hash);
            let since = &mut self.blobs[at].loose_since;
            *since = match references {
                0 => Some(since.unwrap_or(now)),
                _ => None,
            };
        }
    }

    /// Refuses to refer to what is not there. What is referred to is not loose, were it only for
    /// the time of this step.
    fn refer<'a>(&mut self, hashes: impl IntoIterator<Item = &'a BlobHash>) -> Outcome<()> {
        for hash in hashes {
            let found = self.blobs.iter_mut().find(|blob| blob.hash == *hash);
            let Some(blob) = found else {
                return Err(Refusal::NotFound {
                    subject: Subject::Blob,
                    name: hash.to_string(),
                });
            };
            blob.loose_since = None;
        }
        Ok(())
    }

    fn refer_content(&mut self, content: &Content) -> Outcome<()> {
        let Content::Blobs { hashes, bytes } = content else {
            return Ok(());
        };
        self.refer(hashes)?;
        let length = |hash: &BlobHash| self.blob(*hash).map_or(0, |b| b.bytes.len() as u64);
        let found: u64 = hashes.iter().map(length).sum();
        if found == *bytes {
            return Ok(());
        }
        Err(conflict(Subject::Session, self.name.to_string()))
    }
}

/// Whether a claim is this one.
pub fn is_claim(claim: Option<&LaneClaim>, of: &ClaimRef) -> bool {
    claim.is_some_and(|claim| reference_of(claim) == *of)
}

/// Both tokens of a claim.
pub fn reference_of(claim: &LaneClaim) -> ClaimRef {
    ClaimRef {
        lease_token: claim.lease_token.clone(),
        fencing_token: claim.fencing_token,
    }
}

/// A conflict without its words: those are for people.
pub fn conflict(subject: Subject, name: String) -> Refusal {
    Refusal::Conflict {
        subject,
        name,
        problem: String::new(),
    }
}

impl Model {
    pub fn session(&self, name: &Name) -> Option<&ModelSession> {
        self.sessions.iter().find(|session| session.name == *name)
    }

    /// The place of a session that is there, and is the one that is meant.
    fn require(&self, of: &SessionRef) -> Outcome<usize> {
        let is = |session: &ModelSession| session.name == of.name && session.id == of.id;
        self.sessions
            .iter()
            .position(is)
            .ok_or_else(|| Refusal::NotFound {
                subject: Subject::Session,
                name: format!("{}#{}", of.name, of.id),
            })
    }

    /// Does a command, or finds what it answered before.
    pub fn execute(&mut self, command: &Command) -> Reply {
        let Some(request) = &command.request else {
            return self.act(&command.action);
        };
        if let Some(known) = self.answered.iter().find(|known| known.id == request.id) {
            return known.reply.clone();
        }
        let RequestId { id, not_before } = *request;
        if not_before < self.floor {
            let floor = self.floor;
            return Reply(Err(Refusal::RequestTooOld { floor, not_before }));
        }
        let reply = self.act(&command.action);
        let (index, at) = (self.index, self.now);
        self.answered.push(Answered {
            id,
            index,
            at,
            reply: reply.clone(),
        });
        reply
    }

    /// Whether the answer to a request is remembered.
    pub fn remembers(&self, request: &RequestId) -> bool {
        self.answered.iter().any(|known| known.id == request.id)
    }

    /// Forgets old answers, a bounded number of the oldest at a time.
    fn forget_answers(&mut self) {
        let age = |answered: &Answered| self.now.since(answered.at);
        let oldest = self.answered.first().map_or(0, age);
        if oldest < REQUEST_RETENTION_MS + REQUEST_SLACK_MS {
            return;
        }
        let old = self.answered.iter();
        let old = old.take_while(|a| age(a) >= REQUEST_RETENTION_MS);
        let count = old.take(REQUEST_EVICTIONS_MAX).count();
        let last = self.answered.drain(..count).next_back();
        self.floor = last.expect("the oldest is old").index;
    }

    /// Does an action, or refuses it and changes nothing.
    fn act(&mut self, action: &Action) -> Reply {
        let before = self.clone();
        let outcome = match action {
            Action::Composite(steps) => self.composite(steps),
            action => self.step(0, action),
        };
        if outcome.is_err() {
            *self = before;
        }
        Reply(outcome)
    }

    fn composite(&mut self, steps: &[Action]) -> Outcome<Response> {
        let mut responses = Vec::new();
        for (at, action) in (0u32..).zip(steps) {
            let response = self.step(at.into(), action);
            responses.push(response.map_err(|refusal| Refusal::Step {
                step: at,
                refusal: Box::new(refusal),
            })?);
        }
        Ok(Response::Composite(responses))
    }

    /// Does one step of an entry. What it refuses is taken back by the caller.
    pub fn step(&mut self, step: u64, action: &Action) -> Outcome<Response> {
        let outcome = match action {
            Action::Lease(command) => self.lease(command).map(Response::Lease),
            Action::Session(command) => self.session_step(step, command).map(Response::Session),
            Action::Cluster(cluster::Command::Tick(_)) => {
                Ok(Response::Cluster(cluster::Response::Tick(())))
            }
            other => unreachable!("{} is no turn", other.name()),
        };
        for session in &mut self.sessions {
            session.loosen(self.now);
        }
        outcome
    }

    fn session_step(
        &mut self,
        step: u64,
        command: &session::Command,
    ) -> Outcome<session::Response> {
        use session::{Command as C, Response as R};
        let number = self.index * 1024 + step;
        match command {
            C::Open(open) => Ok(R::Open(self.open(number, open))),
            C::Delete(delete) => Ok(R::Delete(self.delete(delete))),
            C::PutNote(put) => self.put_note(put).map(R::PutNote),
            C::PutBlobs(put) => self.put_blobs(put).map(R::PutBlobs),
            C::StageNodes(stage) => self.stage_nodes(number, stage).map(R::StageNodes),
            C::Commit(commit) => self.commit(number, commit).map(R::Commit),
            C::Tombstone(tombstone) => self.tombstone(tombstone).map(R::Tombstone),
            C::Vacuum(vacuum) => self.vacuum(vacuum).map(R::Vacuum),
            C::Collect(collect) => self.collect(collect).map(R::Collect),
            C::PushWork(push) => self.push_work(number, push).map(R::PushWork),
            C::ClaimWork(claim) => self.claim_work(claim).map(R::ClaimWork),
            C::RenewWork(renew) => self.renew_work(renew).map(R::RenewWork),
            C::AbandonWork(abandon) => self.abandon_work(abandon).map(R::AbandonWork),
            C::CancelWork(cancel) => self.cancel_work(cancel).map(R::CancelWork),
            C::PushInput(push) => self.push_input(number, push).map(R::PushInput),
            C::ClaimInputs(claim) => self.claim_inputs(claim).map(R::ClaimInputs),
            C::AbandonInputs(abandon) => self.abandon_inputs(abandon).map(R::AbandonInputs),
            C::CancelInputs(cancel) => self.cancel_inputs(cancel).map(R::CancelInputs),
            C::CancelInputsFrom(from) => self.cancel_inputs_from(from).map(R::CancelInputsFrom),
            C::NoteAttachment(note) => self.note_attachment(note).map(R::NoteAttachment),
            C::CommitAttachments(commit) => {
                self.commit_attachments(commit).map(R::CommitAttachments)
            }
            C::ForgetAttachment(forget) => self.forget_attachment(forget).map(R::ForgetAttachment),
        }
    }
}
