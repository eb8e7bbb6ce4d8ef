//! Process records: what runs, how it ended, and a log of events without gaps.
//!
//! A process is a row that programs register and end; Quorate runs nothing. Its events are numbered
//! from 1 without gaps, and an event with an idempotency key is stored once. A record that has
//! ended takes no more events.

use serde::{Deserialize, Serialize};

use crate::command::operations;
use crate::context::Context;
use crate::id::Name;
use crate::refusal::{Failure, Refusal, Subject};
use crate::tables::MetaRow;
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
    /// What it was registered with; opaque.
    pub definition: Vec<u8>,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When the record or its events last changed.
    pub updated_at: Timestamp,
    /// Sequence of its last event; 0 before the first.
    pub last_sequence: u64,
    /// What it ended with; opaque; none while it runs.
    pub outcome: Option<Vec<u8>>,
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

mod append;
mod complete;
mod query;
mod register;

pub use append::{Append, Appended};
pub use complete::{Complete, Completed};
pub use query::{Answer, Events, Get, List, Query};
pub(crate) use query::{query, validate as validate_query};
pub use register::{Register, Registered};

operations! {
    Process {
        0x0301 "process.register" Register => Registered;
        0x0302 "process.append" Append => Appended;
        0x0303 "process.complete" Complete => Completed;
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
    }
}

impl Process {
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
