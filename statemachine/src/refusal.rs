//! Every deterministic "no".
//!
//! A refusal is a replicated answer: all nodes reach it from the same state, and it changed
//! nothing. What a node cannot do just now is not in here (`NodeError` of the rpc crate), and
//! contention is not a refusal but a reply (`Busy`).

use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

use crate::access::{Noun, Verb};
use crate::nesting::decode_without;
use crate::time::Timestamp;

/// An argument outside its bounds. Found before anything is proposed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Error)]
#[error("{field} {problem}: limit {limit}, actual {actual}")]
pub struct InvalidArgument {
    /// Which argument.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
    /// The bound, with its unit.
    pub limit: String,
    /// The value found, with its unit.
    pub actual: String,
}

impl InvalidArgument {
    /// Names the argument, the problem, the bound and the value.
    pub fn new(
        field: &str,
        problem: &str,
        limit: impl Into<String>,
        actual: impl Into<String>,
    ) -> Self {
        Self {
            field: field.to_owned(),
            problem: problem.to_owned(),
            limit: limit.into(),
            actual: actual.into(),
        }
    }

    /// Refuses more than `max` bytes.
    pub fn check_bytes(field: &str, actual: usize, max: usize) -> Result<(), Self> {
        if actual <= max {
            return Ok(());
        }
        let (limit, actual) = (format!("{max} bytes"), format!("{actual} bytes"));
        Err(Self::new(field, "is too large", limit, actual))
    }

    /// Refuses a count outside `min..=max`.
    pub fn check_count(field: &str, actual: u64, min: u64, max: u64) -> Result<(), Self> {
        if (min..=max).contains(&actual) {
            return Ok(());
        }
        let limit = format!("{min} to {max}");
        Err(Self::new(
            field,
            "is out of range",
            limit,
            actual.to_string(),
        ))
    }

    /// Refuses a time to live over the limit. 0 is allowed here: it means expired at once.
    pub fn check_ttl(ttl_ms: u64) -> Result<(), Self> {
        if ttl_ms <= crate::limits::TTL_MS_MAX {
            return Ok(());
        }
        let limit = format!("1 to {} ms", crate::limits::TTL_MS_MAX);
        Err(Self::new(
            "ttl_ms",
            "is out of range",
            limit,
            format!("{ttl_ms} ms"),
        ))
    }
}

/// What kind of thing a refusal speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Subject {
    /// A lease key.
    Lease,
    /// A queue.
    Queue,
    /// A queue item, named `queue/item`.
    Item,
    /// A process record.
    Process,
    /// A member of the cluster.
    Member,
    /// A lock.
    Lock,
    /// A grant of a process, named `scope/process`.
    Grant,
    /// A session.
    Session,
    /// A turn of a session, named `lane/turn`.
    Turn,
    /// A claim of a session's work, named by its lane.
    Work,
    /// A claim of a session's inputs, named by its lane; or an input, named by its id.
    Input,
    /// A blob of a session.
    Blob,
    /// A graph of a session, named `session#graph`.
    Graph,
    /// A user of access control.
    User,
    /// A role of access control.
    Role,
    /// A token of access control, named by its id, which is no secret.
    Token,
}

impl Subject {
    /// The word people read.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lease => "lease",
            Self::Queue => "queue",
            Self::Item => "queue item",
            Self::Process => "process",
            Self::Member => "member",
            Self::Lock => "lock",
            Self::Grant => "grant",
            Self::Session => "session",
            Self::Turn => "turn",
            Self::Work => "work of lane",
            Self::Input => "input",
            Self::Blob => "blob",
            Self::Graph => "graph",
            Self::User => "user",
            Self::Role => "role",
            Self::Token => "token",
        }
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The replicated state says no. Nothing was changed. Variants are only ever appended: their order
/// is part of the stored form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum Refusal {
    /// An argument is outside its bounds.
    #[error(transparent)]
    Invalid(#[from] InvalidArgument),
    /// There is no such thing.
    #[error("{subject} {name:?} does not exist")]
    NotFound {
        /// What was looked for.
        subject: Subject,
        /// Under which name.
        name: String,
    },
    /// A fencing token was presented that is not the live one: the caller lost its right.
    #[error(
        "{subject} {name:?}: {}; stop, claim again if the work is still yours to do",
        fenced_words(*presented, *current)
    )]
    Fenced {
        /// What the token guards.
        subject: Subject,
        /// Its name.
        name: String,
        /// The token the caller presented.
        presented: u64,
        /// The token of the live holder, if there is one.
        current: Option<u64>,
    },
    /// The grant was the caller's, but its time is over.
    #[error(
        "{subject} {name:?}: the grant with fencing token {token} expired at cluster time \
         {expired_at_ms} ms; claim again", expired_at_ms = expired_at.0
    )]
    Expired {
        /// What was granted.
        subject: Subject,
        /// Its name.
        name: String,
        /// The token of the grant that ended.
        token: u64,
        /// When it ended.
        expired_at: Timestamp,
    },
    /// The same name was used before with other content, or a compare-and-set lost.
    #[error("{subject} {name:?}: {problem}")]
    Conflict {
        /// What is in conflict.
        subject: Subject,
        /// Its name.
        name: String,
        /// What stands against the request.
        problem: String,
    },
    /// The process has ended; it takes no more of this.
    #[error("process {process:?} has ended ({state}); it takes no more events or outcomes")]
    Ended {
        /// The process.
        process: String,
        /// Its final state.
        state: String,
    },
    /// A bound of the replicated state is reached; try again when there is less of it.
    #[error("{what}: limit {limit}, actual {actual}")]
    Exhausted {
        /// What there is too much of.
        what: String,
        /// The bound.
        limit: u64,
        /// The count found.
        actual: u64,
    },
    /// The request id is older than the remembered answers: whether it was executed is unknown.
    #[error(
        "the answer to this request may have been forgotten (its floor is log index {floor}, the \
         request starts from {not_before}); its outcome is unknown, read the state before repeating"
    )]
    RequestTooOld {
        /// Answers at or below this index may be gone.
        floor: u64,
        /// The lower bound that the request carried.
        not_before: u64,
    },
    /// A step of a composite was refused, so none of the steps was done.
    #[error("step {step} of the composite was refused, none was done: {refusal}")]
    Step {
        /// Which step, from 0.
        step: u32,
        /// Why.
        #[serde(deserialize_with = "decode_root")]
        refusal: Box<Refusal>,
    },
    /// A compare-and-set lost: somebody moved on.
    #[error(
        "{subject} {name:?} is at revision {actual}, {expected} was expected; read it again before \
         you repeat"
    )]
    Moved {
        /// What was to be changed.
        subject: Subject,
        /// Its name.
        name: String,
        /// The revision that the caller had read.
        expected: u64,
        /// The revision it has.
        actual: u64,
    },
    /// Access is controlled, and whoever asked may not do this.
    #[error(
        "{principal} may not {}; an administrator can grant it with a role whose rule covers it",
        denied_what(*.verb, *.noun, .key)
    )]
    Denied {
        /// Who asked, as its node found out.
        principal: String,
        /// What it would have had to be allowed.
        verb: Verb,
        /// On which kind of thing.
        noun: Noun,
        /// On which key; empty for the cluster as a whole.
        key: String,
    },
}

/// Words for what is denied.
fn denied_what(verb: Verb, noun: Noun, key: &str) -> String {
    let verb = match verb {
        Verb::Read => "read",
        Verb::Write => "write",
        Verb::Admin => "administer",
    };
    match noun {
        Noun::Cluster => format!("{verb} the cluster"),
        Noun::Access => format!("{verb} access control"),
        _ if key.is_empty() => format!("{verb} all of kind {noun}"),
        _ => format!("{verb} {noun} {key:?}"),
    }
}

/// Index of [`Refusal::Step`] in the stored form.
const STEP_REFUSAL: u32 = 8;

fn decode_root<'de, D: Deserializer<'de>>(decoder: D) -> Result<Box<Refusal>, D::Error> {
    decode_without(decoder, STEP_REFUSAL).map(Box::new)
}

fn fenced_words(presented: u64, current: Option<u64>) -> String {
    match current {
        Some(live) if live == presented => format!(
            "the grant with fencing token {presented} is live, but the lease token is not its \
             holder's"
        ),
        Some(live) => format!("fencing token {presented} is stale, the live grant has {live}"),
        None => format!("fencing token {presented} is stale, there is no live grant"),
    }
}

impl Refusal {
    /// Refuses one more of `what` when there are as many as there may be.
    pub(crate) fn check_room(
        what: impl FnOnce() -> String,
        actual: u64,
        limit: u64,
    ) -> Result<(), Self> {
        if actual < limit {
            return Ok(());
        }
        Err(Self::Exhausted {
            what: what(),
            limit,
            actual,
        })
    }

    /// The stable word for scripts, as in the CLI's error JSON.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid_argument",
            Self::NotFound { .. } => "not_found",
            Self::Fenced { .. } => "fenced",
            Self::Expired { .. } => "expired",
            Self::Conflict { .. } => "conflict",
            Self::Ended { .. } => "ended",
            Self::Exhausted { .. } => "resource_exhausted",
            Self::RequestTooOld { .. } => "outcome_unknown",
            Self::Moved { .. } => "conflict",
            Self::Denied { .. } => "denied",
            Self::Step { refusal, .. } => refusal.code(),
        }
    }

    /// The refusal itself, without the composite's step around it.
    #[must_use]
    pub fn root(&self) -> &Self {
        match self {
            Self::Step { refusal, .. } => refusal.root(),
            other => other,
        }
    }
}

/// The state itself is wrong, or cannot be read: not an answer, the node must stop with these
/// facts.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("broken invariant: {0}")]
pub struct Broken(pub String);

/// Why a command was not done: refused, or the node must stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// A replicated answer.
    Refused(Refusal),
    /// The node must stop.
    Broken(Broken),
}

/// One answer among others of an entry: a refusal concerns that one, a broken state all.
pub(crate) fn answered<T>(outcome: Result<T, Failure>) -> Result<Result<T, Refusal>, Failure> {
    match outcome {
        Ok(done) => Ok(Ok(done)),
        Err(Failure::Refused(refusal)) => Ok(Err(refusal)),
        Err(broken @ Failure::Broken(_)) => Err(broken),
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<InvalidArgument> for Failure {
    fn from(invalid: InvalidArgument) -> Self {
        Self::Refused(Refusal::Invalid(invalid))
    }
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}
