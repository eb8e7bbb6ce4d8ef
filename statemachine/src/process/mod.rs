//! Process records: what runs, how it ended, and a log of events without gaps.
//!
//! A process is a row that programs register and end; Quorate runs nothing. Its events are numbered
//! from 1 without gaps, and an event with an idempotency key is stored once. A record that has
//! ended takes no more events, but those that say that they may come after the end. An event may
//! end its process, and may ask for a wake: it is then pending until it is acknowledged.
//!
//! A process may be granted to any number of scopes, each of which belongs to a session, and may
//! have a session that its events wake. A session is a name; [`DetachSession`] takes it out of all
//! processes at once.

use serde::{Deserialize, Serialize};

use crate::command::operations;
use crate::context::Context;
use crate::id::Name;
use crate::notice::Notice;
use crate::refusal::{Broken, Failure, InvalidArgument, Refusal, Subject};
use crate::tables::{MetaRow, process_key, process_state_key};
use crate::time::Timestamp;
use crate::transaction::Transaction;

/// Where a process is in its life. Variants are only ever appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ProcessState {
    /// Registered and not ended.
    Running,
    /// Ended as it should.
    Succeeded,
    /// Ended by an error.
    Failed,
    /// Ended because somebody asked for it.
    Cancelled,
}

impl ProcessState {
    /// The word for scripts and people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The inverse of [`Self::as_str`].
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [
            Self::Running,
            Self::Succeeded,
            Self::Failed,
            Self::Cancelled,
        ]
        .into_iter()
        .find(|state| state.as_str() == word)
    }

    /// Whether there is no way on from here.
    #[must_use]
    pub fn is_ended(self) -> bool {
        self != Self::Running
    }
}

/// A process record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The process.
    pub id: Name,
    /// Where it is in its life.
    pub state: ProcessState,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When the record or its events last changed.
    pub updated_at: Timestamp,
    /// Sequence of its last event; 0 before the first.
    pub last_sequence: u64,
    /// What it ended with; opaque; none while it runs.
    pub outcome: Option<Vec<u8>>,
    /// What another system calls it; opaque; set once.
    pub external_ref: Option<Vec<u8>>,
    /// What it waits for; opaque; none while it waits for nothing.
    pub wait: Option<Vec<u8>>,
    /// Whom its events wake.
    pub wake_target: Option<WakeTarget>,
}

/// Whom the events of a process wake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WakeTarget {
    /// The session, by whose name [`DetachSession`] finds it.
    pub session: Name,
    /// What in the session; opaque.
    pub target: Vec<u8>,
}

/// A process that a scope may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Who may use it.
    pub scope: Name,
    /// Whose scope that is.
    pub session: Name,
    /// The process.
    pub process_id: Name,
    /// How the scope sees it; opaque.
    pub descriptor: Vec<u8>,
}

/// An event of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// 1 for the first, without gaps.
    pub sequence: u64,
    /// What kind of event, in the program's words.
    pub event_type: Name,
    /// When it was appended.
    pub at: Timestamp,
    /// Log index of the entry that appended it.
    pub index: u64,
    /// The idempotency key, if it was given one.
    pub key: Option<Name>,
    /// Opaque.
    pub payload: Vec<u8>,
}

mod ack_wake;
mod append;
mod complete;
mod delete_grant;
mod detach_session;
mod move_grants;
mod put_grant;
mod query;
mod register;
mod session;
mod set_external_ref;
mod set_wait;

pub use ack_wake::{AckWake, WakeAcked};
pub use append::{Append, Appended, Ending};
pub use complete::{Complete, Completed};
pub use delete_grant::{DeleteGrant, GrantDeleted};
pub use detach_session::{DetachSession, SessionDetached};
pub use move_grants::{GrantsMoved, MoveGrants};
pub use put_grant::{GrantPut, PutGrant};
pub use query::{
    Answer, CountEvents, Events, Get, GrantsOf, GrantsTo, HasGrant, List, ProcessView, Query,
    Selection,
};
pub(crate) use query::{query, validate as validate_query};
pub use register::{Register, Registered};
pub use session::SessionRow;
pub use set_external_ref::{ExternalRefSet, SetExternalRef};
pub use set_wait::{SetWait, WaitSet};

operations! {
    Process {
        0x0301 "process.register" Register => Registered;
        0x0302 "process.append" Append => Appended;
        0x0303 "process.complete" Complete => Completed, upkeep;
        0x0304 "process.set_external_ref" SetExternalRef => ExternalRefSet;
        0x0305 "process.set_wait" SetWait => WaitSet;
        0x0306 "process.ack_wake" AckWake => WakeAcked, upkeep;
        0x0307 "process.put_grant" PutGrant => GrantPut;
        0x0308 "process.delete_grant" DeleteGrant => GrantDeleted, upkeep;
        0x0309 "process.move_grants" MoveGrants => GrantsMoved;
        0x030a "process.detach_session" DetachSession => SessionDetached, upkeep;
    }
}

pub(crate) fn apply(
    tx: &mut Transaction<'_>,
    meta: &mut MetaRow,
    ctx: &Context,
    command: &Command,
) -> Result<Response, Failure> {
    match command {
        Command::Register(register) => register.apply(tx, meta, ctx).map(Response::Register),
        Command::Append(append) => append.apply(tx, ctx).map(Response::Append),
        Command::Complete(complete) => complete.apply(tx, ctx).map(Response::Complete),
        Command::SetExternalRef(set) => set.apply(tx, ctx).map(Response::SetExternalRef),
        Command::SetWait(set) => set.apply(tx, ctx).map(Response::SetWait),
        Command::AckWake(ack) => ack.apply(tx).map(Response::AckWake),
        Command::PutGrant(put) => put.apply(tx).map(Response::PutGrant),
        Command::DeleteGrant(delete) => delete.apply(tx).map(Response::DeleteGrant),
        Command::MoveGrants(moved) => moved.apply(tx).map(Response::MoveGrants),
        Command::DetachSession(detach) => detach.apply(tx, ctx).map(Response::DetachSession),
    }
}

/// `NotFound` unless there is a record `id`.
pub(crate) fn require(tx: &mut Transaction<'_>, id: &Name) -> Result<Process, Failure> {
    tx.get(&process_key(id))?.ok_or_else(|| not_found(id))
}

/// A final state, for a command that ends a process.
fn check_final(state: ProcessState) -> Result<(), InvalidArgument> {
    if state.is_ended() {
        return Ok(());
    }
    Err(InvalidArgument::new(
        "state",
        "must be a final one",
        "succeeded, failed or cancelled",
        state.as_str(),
    ))
}

impl Process {
    /// Ends it in `state`; what it waited for it waits for no longer. The row is left to the
    /// caller.
    fn end(
        &mut self,
        tx: &mut Transaction<'_>,
        state: ProcessState,
        outcome: &[u8],
    ) -> Result<(), Broken> {
        assert!(
            state.is_ended() && !self.state.is_ended(),
            "decoding refuses an end that is none, and the caller looked whether it runs"
        );
        tx.delete(&process_state_key(self.state, self.id.as_str()))?;
        tx.put(&process_state_key(state, self.id.as_str()), &())?;
        self.state = state;
        self.outcome = Some(outcome.to_vec());
        self.wait = None;
        tx.notify(Notice::ProcessChanged {
            process_id: self.id.clone(),
            ended: true,
        });
        Ok(())
    }

    /// Writes a record that was changed otherwise.
    fn store_changed(&mut self, tx: &mut Transaction<'_>, ctx: &Context) -> Result<(), Broken> {
        self.updated_at = ctx.now;
        tx.put(&process_key(&self.id), self)?;
        tx.notify(Notice::ProcessChanged {
            process_id: self.id.clone(),
            ended: self.state.is_ended(),
        });
        Ok(())
    }

    fn ended(&self) -> Failure {
        Failure::Refused(Refusal::Ended {
            process: self.id.to_string(),
            state: self.state.as_str().to_owned(),
        })
    }
}

fn not_found(id: &Name) -> Failure {
    Failure::Refused(Refusal::NotFound {
        subject: Subject::Process,
        name: id.to_string(),
    })
}
