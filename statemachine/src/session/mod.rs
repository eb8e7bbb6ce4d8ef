//! Sessions: state that one executor at a time moves forward, with the work and the inputs that
//! wait for it.
//!
//! A session has a *head*: a revision, an opaque state, and a graph of nodes that grows. One
//! command, [`Commit`], moves all of it: it asks for the revision that the caller has read and for
//! the caller's execution lease, adds nodes, settles the work and the inputs that were done, and
//! stamps the turn, so that a retry of the same turn gets the first result.
//!
//! A session has any number of *lanes*. Each has an execution lease of its own (an ordinary lease,
//! see [`execution_lease`]), queued work and inputs; the first commit binds the head to its lane.
//! Work and inputs are claimed under the lane's lease, with a time to live of their own, and are
//! settled by a commit alone.
//!
//! ```text
//! work:    push --> (delayed) --> ready --> claimed --> gone, by a commit
//!                                   ^          |
//!                                   +----------+ given up, or its time ran out
//!
//! inputs:  push --> pending --> claimed ---> completed, by a commit
//!            |       ^  |  ^      |
//!            |       |  |  +------+ given up; its time ran out (not if it was accepted)
//!            |       |  +--> cancelled
//!            |       +-- an interrupted turn leaves its inputs to the next one
//!            +--> known already: nothing happens
//! ```
//!
//! What is large is stored as *blobs*, under names that its writer gives: put first, and referred
//! to by the command that needs them. A blob that nothing refers to is kept for
//! [`crate::limits::BLOB_RETENTION_MS`]. What a deleted session or a replaced graph leaves is
//! removed by the sweep, some rows at a time.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::command::operations;
use crate::context::Context;
use crate::fencing::FencingToken;
use crate::id::{LeaseToken, Name, Owner};
use crate::limits::{LIVENESS_BYTES_MAX, SESSION_BATCH_MAX, SESSION_NAME_BYTES_MAX};
use crate::refusal::{Broken, Failure, InvalidArgument, Refusal, Subject};
use crate::tables::{MetaRow, session_row_key};
use crate::time::Timestamp;
use crate::transaction::Transaction;

/// Names a session for ever: no other one has it, not even one of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub u64);

impl std::fmt::Display for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A session as commands name it: by its name, and by the id that [`Open`] answered, so that
/// nobody who knew a deleted session writes to a new one of the same name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRef {
    /// Its name.
    pub name: Name,
    /// Which one of that name.
    pub id: SessionId,
}

/// A session's counters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its name.
    pub name: Name,
    /// Which one of that name.
    pub id: SessionId,
    /// When it was opened first.
    pub created_at: Timestamp,
    /// Blobs, those that nothing refers to included.
    pub blobs: u64,
    /// Blobs that nothing refers to.
    pub loose_blobs: u64,
    /// Bytes of all blobs.
    pub blob_bytes: u64,
    /// Usage counters.
    pub usage: u64,
    /// Queued work.
    pub work: u64,
    /// Inputs that are neither completed nor cancelled.
    pub inputs: u64,
    /// Inputs that are.
    pub ended_inputs: u64,
    /// Attachments.
    pub attachments: u64,
}

/// What a session is, after its last commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The lane whose commits move it.
    pub lane: Name,
    /// Commits so far.
    pub revision: u64,
    /// When the last one was.
    pub committed_at: Timestamp,
    /// Its graph.
    pub graph: GraphId,
    /// The node that it stands at; need not exist.
    pub leaf: Option<Name>,
    /// Opaque.
    pub state: Content,
    /// Blobs that the state refers to.
    pub roots: Vec<BlobHash>,
}

/// Names a graph for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GraphId(pub u64);

/// A graph's counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Graph {
    /// The number of the next node.
    pub next: u64,
    /// Nodes, tombstones included.
    pub nodes: u64,
    /// Nodes that are tombstones.
    pub tombstones: u64,
    /// When nodes were staged last; none if a head has it.
    pub staged_at: Option<Timestamp>,
    /// Log index of the last command that changed nodes otherwise than by adding new ones.
    pub rewritten: u64,
}

/// A node of a graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Unique in its graph.
    pub id: Name,
    /// The node before it; need not exist.
    pub parent: Option<Name>,
    /// Opaque.
    pub body: Content,
    /// Whether it is hidden, and removed by the next vacuum.
    pub tombstone: bool,
}

/// A claim of work or of inputs: what one claim takes shares it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneClaim {
    /// Who has it.
    pub owner: Owner,
    /// The claimant's proof.
    pub lease_token: LeaseToken,
    /// Orders it among all grants.
    pub fencing_token: FencingToken,
    /// When it was made.
    pub claimed_at: Timestamp,
    /// When another one may claim the same.
    pub expires_at: Timestamp,
}

impl LaneClaim {
    /// A claim that this entry makes.
    fn new(ctx: &Context, owner: &Owner, lease_token: &LeaseToken, ttl_ms: u64) -> Self {
        Self {
            owner: owner.clone(),
            lease_token: lease_token.clone(),
            fencing_token: ctx.fencing_token(),
            claimed_at: ctx.now,
            expires_at: ctx.now.plus(ttl_ms),
        }
    }

    /// Whether it keeps others out at `now`.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        now < self.expires_at
    }

    /// Whether it keeps a claimant out that takes these claims for dead. All claims of an entry
    /// share its fencing token, so that one of this very entry does in any case: nobody could tell
    /// a second one from it.
    fn keeps_out(&self, ctx: &Context, dead: &[FencingToken]) -> bool {
        let live = self.is_live(ctx.now) && !dead.contains(&self.fencing_token);
        live || self.fencing_token == ctx.fencing_token()
    }
}

/// Names a claim: both tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimRef {
    /// The claimant's proof.
    pub lease_token: LeaseToken,
    /// The claim's token.
    pub fencing_token: FencingToken,
}

impl ClaimRef {
    fn is(&self, claim: Option<&LaneClaim>) -> bool {
        claim.is_some_and(|claim| {
            claim.fencing_token == self.fencing_token && claim.lease_token == self.lease_token
        })
    }

    /// The refusal of a claim that has lost what `has` has now: one that is live is named.
    fn lost(
        &self,
        subject: Subject,
        lane: &Name,
        now: Timestamp,
        has: Option<LaneClaim>,
    ) -> Failure {
        let live = has.filter(|claim| claim.is_live(now));
        Failure::Refused(Refusal::Fenced {
            subject,
            name: lane.to_string(),
            presented: self.fencing_token,
            current: live.map(|claim| claim.fencing_token),
        })
    }

    /// Refuses to give up what this very entry has claimed: it would be claimed again under the
    /// same fencing token.
    fn require_earlier(&self, ctx: &Context, subject: Subject, lane: &Name) -> Result<(), Refusal> {
        if self.fencing_token != ctx.fencing_token() {
            return Ok(());
        }
        Err(Refusal::Conflict {
            subject,
            name: lane.to_string(),
            problem: "a step before this one claimed it; a composite cannot give up what it claims"
                .to_owned(),
        })
    }
}

mod attachment;
mod blobs;
mod collect;
mod commit;
mod content;
mod delete;
mod due;
mod execution;
mod garbage;
mod graph;
mod input;
mod open;
mod put_blobs;
mod put_note;
mod query;
mod stage_nodes;
mod tombstone;
mod usage;
mod vacuum;
mod work;

pub use attachment::{
    Attachment, AttachmentForgotten, AttachmentNoted, AttachmentsCommitted, CommitAttachments,
    ForgetAttachment, NoteAttachment,
};
pub use blobs::BlobRow;
pub use collect::{Collect, Collected};
pub use commit::{Commit, Committed, GraphDelta, Settlement, Stamp, TurnStamp};
pub use content::{BlobHash, Content};
pub use delete::{Delete, Deleted};
pub(crate) use due::end_due;
pub use execution::execution_lease;
pub use garbage::GarbageRow;
pub use graph::NewNode;
pub use input::{
    AbandonInputs, CancelInputs, CancelInputsFrom, CancelOutcome, CancelTarget, ClaimInputs,
    ClaimedInputs, Input, InputMode, InputPushed, InputState, InputView, InputsAbandoned,
    PushInput,
};
pub use open::{Open, Opened};
pub use put_blobs::{BlobsPut, PutBlobs};
pub use put_note::{NotePut, PutNote};
pub use query::{
    Answer, Attachments, Blobs, Get, GraphPage, Inputs, List, NodeOf, Nodes, Path, Query,
    SessionSummary, SessionView, WorkList,
};
pub(crate) use query::{query, validate as validate_query};
pub use stage_nodes::{NodesStaged, StageNodes};
pub use tombstone::{Tombstone, Tombstoned};
pub use usage::{Usage, UsageDelta};
pub use vacuum::{Vacuum, Vacuumed};
pub use work::{
    AbandonWork, CancelWork, ClaimWork, ClaimedWork, PushWork, RenewWork, Work, WorkAbandoned,
    WorkChoice, WorkClass, WorkPushed, WorkRenewed, WorkView,
};

operations! {
    Session {
        0x0601 "session.open" Open => Opened;
        0x0602 "session.delete" Delete => Deleted, upkeep;
        0x0603 "session.put_note" PutNote => NotePut;
        0x0604 "session.put_blobs" PutBlobs => BlobsPut;
        0x0605 "session.stage_nodes" StageNodes => NodesStaged;
        0x0606 "session.commit" Commit => Committed;
        0x0607 "session.tombstone" Tombstone => Tombstoned, upkeep;
        0x0608 "session.vacuum" Vacuum => Vacuumed, upkeep;
        0x0609 "session.collect" Collect => Collected, upkeep;
        0x060a "session.push_work" PushWork => WorkPushed;
        0x060b "session.claim_work" ClaimWork => Option<ClaimedWork>;
        0x060c "session.renew_work" RenewWork => WorkRenewed, upkeep;
        0x060d "session.abandon_work" AbandonWork => WorkAbandoned, upkeep;
        0x060e "session.cancel_work" CancelWork => Option<WorkView>, upkeep;
        0x060f "session.push_input" PushInput => InputPushed;
        0x0610 "session.claim_inputs" ClaimInputs => Option<ClaimedInputs>;
        0x0611 "session.abandon_inputs" AbandonInputs => InputsAbandoned, upkeep;
        0x0612 "session.cancel_inputs" CancelInputs => Vec<CancelOutcome>, upkeep;
        0x0613 "session.cancel_inputs_from" CancelInputsFrom => Option<Vec<CancelOutcome>>, upkeep;
        0x0614 "session.note_attachment" NoteAttachment => AttachmentNoted;
        0x0615 "session.commit_attachments" CommitAttachments => AttachmentsCommitted;
        0x0616 "session.forget_attachment" ForgetAttachment => AttachmentForgotten, upkeep;
    }
}

pub(crate) fn apply(
    tx: &mut Transaction<'_>,
    meta: &mut MetaRow,
    ctx: &Context,
    command: &Command,
) -> Result<Response, Failure> {
    match command {
        Command::Open(open) => open.apply(tx, meta, ctx).map(Response::Open),
        Command::Delete(delete) => delete.apply(tx, meta, ctx).map(Response::Delete),
        Command::PutNote(put) => put.apply(tx).map(Response::PutNote),
        Command::PutBlobs(put) => put.apply(tx, ctx).map(Response::PutBlobs),
        Command::StageNodes(stage) => stage.apply(tx, ctx).map(Response::StageNodes),
        Command::Commit(commit) => commit.apply(tx, meta, ctx).map(Response::Commit),
        Command::Tombstone(tombstone) => tombstone.apply(tx, ctx).map(Response::Tombstone),
        Command::Vacuum(vacuum) => vacuum.apply(tx, ctx).map(Response::Vacuum),
        Command::Collect(collect) => collect.apply(tx).map(Response::Collect),
        Command::PushWork(push) => push.apply(tx, ctx).map(Response::PushWork),
        Command::ClaimWork(claim) => claim.apply(tx, ctx).map(Response::ClaimWork),
        Command::RenewWork(renew) => renew.apply(tx, ctx).map(Response::RenewWork),
        Command::AbandonWork(abandon) => abandon.apply(tx, ctx).map(Response::AbandonWork),
        Command::CancelWork(cancel) => cancel.apply(tx, ctx).map(Response::CancelWork),
        Command::PushInput(push) => push.apply(tx, ctx).map(Response::PushInput),
        Command::ClaimInputs(claim) => claim.apply(tx, ctx).map(Response::ClaimInputs),
        Command::AbandonInputs(abandon) => abandon.apply(tx, ctx).map(Response::AbandonInputs),
        Command::CancelInputs(cancel) => cancel.apply(tx, ctx).map(Response::CancelInputs),
        Command::CancelInputsFrom(cancel) => cancel.apply(tx, ctx).map(Response::CancelInputsFrom),
        Command::NoteAttachment(note) => note.apply(tx).map(Response::NoteAttachment),
        Command::CommitAttachments(commit) => {
            commit.apply(tx, ctx).map(Response::CommitAttachments)
        }
        Command::ForgetAttachment(forget) => forget.apply(tx).map(Response::ForgetAttachment),
    }
}

/// Refuses a name of a session or of a lane that is too long for the name of an execution lease.
fn check_name(field: &str, name: &Name) -> Result<(), InvalidArgument> {
    InvalidArgument::check_bytes(field, name.as_str().len(), SESSION_NAME_BYTES_MAX)
}

/// The bounds of one who claims work or inputs.
fn check_claimant(
    owner: &Owner,
    ttl_ms: u64,
    dead: &[FencingToken],
) -> Result<(), InvalidArgument> {
    InvalidArgument::check_ttl(ttl_ms)?;
    let liveness = owner.liveness.as_ref().map_or(0, String::len);
    InvalidArgument::check_bytes("owner.liveness", liveness, LIVENESS_BYTES_MAX)?;
    InvalidArgument::check_count("dead", dead.len() as u64, 0, SESSION_BATCH_MAX as u64)
}

/// What is noted at a session, and what is behind it, is as long as a payload at most.
fn check_payload(field: &str, bytes: &Bytes) -> Result<(), InvalidArgument> {
    InvalidArgument::check_bytes(field, bytes.len(), crate::limits::PAYLOAD_BYTES_MAX)
}

impl SessionRef {
    fn validate(&self) -> Result<(), InvalidArgument> {
        check_name("session", &self.name)
    }

    /// `NotFound` unless it is there, and is the one that the caller knew.
    fn require(&self, tx: &mut Transaction<'_>) -> Result<Session, Failure> {
        let session = tx.get(&session_row_key(&self.name))?;
        session
            .filter(|session| session.id == self.id)
            .ok_or_else(|| {
                Failure::Refused(Refusal::NotFound {
                    subject: Subject::Session,
                    name: format!("{}#{}", self.name, self.id),
                })
            })
    }
}

impl Session {
    fn reference(&self) -> SessionRef {
        SessionRef {
            name: self.name.clone(),
            id: self.id,
        }
    }

    fn store(&self, tx: &mut Transaction<'_>) -> Result<(), Broken> {
        tx.put(&session_row_key(&self.name), self)
    }

    /// Damage: a counter at 0 while there is something to count.
    fn miscounted(&self) -> Broken {
        Broken(format!(
            "session {} has more rows than it counted",
            self.name
        ))
    }
}

/// Lowers one of a session's counters.
fn count_down(
    session: &mut Session,
    counter: impl FnOnce(&mut Session) -> &mut u64,
    by: u64,
) -> Result<(), Broken> {
    let broken = session.miscounted();
    let counter = counter(session);
    *counter = counter.checked_sub(by).ok_or(broken)?;
    Ok(())
}
