//! Commands and their replies: one arm per noun.
//!
//! A command travels and is stored as `[version][tag][envelope][operation]`, see [`crate::codec`].
//! The tag belongs to the operation and is never used for another one; a changed operation gets a
//! new tag. Adding an operation touches the noun's `mod.rs` and the operation's own file.

use serde::{Deserialize, Deserializer, Serialize};

use crate::codec::{self, BadBytes};
use crate::fencing::Precondition;
use crate::limits::{COMMAND_BYTES_MAX, COMPOSITE_STEPS_MAX, PRECONDITIONS_MAX};
use crate::nesting::decode_without;
use crate::refusal::{InvalidArgument, Refusal};
use crate::request::RequestId;
use crate::{access, cluster, lease, lock, process, queue, session};

/// A typed operation: what a caller builds, and what it gets back.
pub trait Operation: Validate + Into<Action> {
    /// What it answers.
    type Reply;

    /// The typed reply inside a response, if the response is to this operation.
    fn reply(response: Response) -> Option<Self::Reply>;
}

/// The bounds of an operation's arguments, as far as they do not depend on the state.
pub trait Validate {
    /// Refuses what is out of bounds.
    fn validate(&self) -> Result<(), InvalidArgument> {
        Ok(())
    }
}

/// The registry of one noun's operations: stable tag, name, operation, reply. It makes the noun's
/// `Command` and `Response` and their bytes; what an operation does is dispatched by hand in the
/// noun's `apply`. Responses are stored in the order of the registry: only append. An operation
/// that builds of [`crate::version::FIRST`] did not know says since which version it is there, as
/// `[since 2]` behind its name. One that only keeps or ends what there is says `upkeep` behind its
/// reply: see [`Command::is_upkeep`].
macro_rules! operations {
    ($noun:ident {
        $($tag:literal $name:literal $([since $since:literal])?
            $operation:ident => $reply:ty $(, $upkeep:ident)?;)*
    }) => {
        #[doc = concat!("What to do: the operations of the noun `", stringify!($noun), "`.")]
        #[allow(
            clippy::large_enum_variant,
            reason = "a command lives once, on its way in"
        )]
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Command {
            $(#[doc = concat!("See [`", stringify!($operation), "`].")] $operation($operation),)*
        }

        /// What it answers. Variants are only ever appended.
        #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub enum Response {
            $(#[doc = concat!("Of [`", stringify!($operation), "`].")] $operation($reply),)*
        }

        impl Command {
            /// Each operation's stable tag and name.
            pub const TAGS: &[(u16, &str)] = &[$(($tag, $name)),*];

            /// Tags of those that only keep or end what there is.
            pub(crate) const UPKEEP: &[u16] = &[$($({ let $upkeep: u16 = $tag; $upkeep },)?)*];

            pub(crate) fn name(&self) -> &'static str {
                match self { $(Self::$operation(_) => $name,)* }
            }

            pub(crate) fn tag(&self) -> u16 {
                match self { $(Self::$operation(_) => $tag,)* }
            }

            pub(crate) fn since(&self) -> u32 {
                match self {
                    $(Self::$operation(_) => [$($since,)? $crate::version::FIRST][0],)*
                }
            }

            pub(crate) fn encode_body(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$operation(operation) => $crate::codec::put(out, operation),)*
                }
            }

            pub(crate) fn decode_body(
                tag: u16,
                body: &mut &[u8],
            ) -> Result<Self, $crate::codec::BadBytes> {
                match tag {
                    $($tag => $crate::codec::take(body).map(Self::$operation),)*
                    _ => Err($crate::codec::BadBytes::Tag(tag)),
                }
            }

            pub(crate) fn validate(&self) -> Result<(), $crate::refusal::InvalidArgument> {
                match self {
                    $(Self::$operation(operation) => $crate::Validate::validate(operation),)*
                }
            }
        }

        $(
            impl From<$operation> for $crate::Action {
                fn from(operation: $operation) -> Self {
                    Self::$noun(Command::$operation(operation))
                }
            }

            impl $crate::Operation for $operation {
                type Reply = $reply;

                fn reply(response: $crate::Response) -> Option<$reply> {
                    match response {
                        $crate::Response::$noun(Response::$operation(reply)) => Some(reply),
                        _ => None,
                    }
                }
            }
        )*
    };
}
pub(crate) use operations;

/// A command: what to do, under which conditions, and under which name for retries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Makes the command safe to send again; see [`crate::request`].
    pub request: Option<RequestId>,
    /// All must hold, or nothing is done.
    pub preconditions: Vec<Precondition>,
    /// What to do.
    pub action: Action,
}

/// What to do: one arm per noun.
#[allow(
    clippy::large_enum_variant,
    reason = "an action lives once, on its way in"
)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Leases.
    Lease(lease::Command),
    /// Work queues.
    Queue(queue::Command),
    /// Process records.
    Process(process::Command),
    /// The cluster itself.
    Cluster(cluster::Command),
    /// Locks.
    Lock(lock::Command),
    /// Sessions.
    Session(session::Command),
    /// Several actions, all or nothing.
    Composite(Vec<Action>),
    /// Who may do what.
    Access(access::Command),
}

/// What an action answers: one arm per noun. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// Of a lease action.
    Lease(lease::Response),
    /// Of a queue action.
    Queue(queue::Response),
    /// Of a process action.
    Process(process::Response),
    /// Of a cluster action.
    Cluster(cluster::Response),
    /// Of a composite: one response a step.
    #[serde(deserialize_with = "decode_steps")]
    Composite(Vec<Response>),
    /// Of a lock action.
    Lock(lock::Response),
    /// Of a session action.
    Session(session::Response),
    /// Of an action on access control.
    Access(access::Response),
}

/// Index of [`Response::Composite`] in the stored form.
const COMPOSITE_RESPONSE: u32 = 4;

fn decode_steps<'de, D: Deserializer<'de>>(decoder: D) -> Result<Vec<Response>, D::Error> {
    struct Step(Response);

    impl<'de> Deserialize<'de> for Step {
        fn deserialize<D: Deserializer<'de>>(decoder: D) -> Result<Self, D::Error> {
            decode_without(decoder, COMPOSITE_RESPONSE).map(Self)
        }
    }

    let steps = Vec::<Step>::deserialize(decoder)?;
    Ok(steps.into_iter().map(|Step(response)| response).collect())
}

/// The replicated answer to a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply(pub Result<Response, Refusal>);

impl Reply {
    /// Tag of an encoded reply.
    pub const TAG: u16 = 0x7f01;

    /// Bytes for the wire.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(Self::TAG, self)
    }

    /// From the wire.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadBytes> {
        codec::decode(Self::TAG, bytes)
    }
}

/// Tag of a composite; its body is a count and then each step's tag and body.
const TAG_COMPOSITE: u16 = 0x0001;

impl<A: Into<Action>> From<A> for Command {
    fn from(action: A) -> Self {
        Self {
            request: None,
            preconditions: Vec::new(),
            action: action.into(),
        }
    }
}

impl Command {
    /// Adds a condition.
    #[must_use]
    pub fn require(mut self, precondition: Precondition) -> Self {
        self.preconditions.push(precondition);
        self
    }

    /// Names the execution, for retries.
    #[must_use]
    pub fn with_request(mut self, request: RequestId) -> Self {
        self.request = Some(request);
        self
    }

    /// Bytes for the wire and the log.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = codec::header(self.action.tag());
        codec::put(&mut out, &self.request);
        codec::put(&mut out, &self.preconditions);
        self.action.encode_body(&mut out);
        out
    }

    /// Whether an encoded command only keeps what there is, or ends it: renewals, releases,
    /// settlements, deletions, and the cluster's own commands. They get through where writes that
    /// grow the state are held back, or grants would be lost and nothing could get smaller. Tells
    /// it by the tag; a composite and what cannot be read count as growth.
    #[must_use]
    pub fn is_upkeep(bytes: &[u8]) -> bool {
        let Ok((tag, _)) = codec::open(bytes) else {
            return false;
        };
        let nouns = [
            lease::Command::UPKEEP,
            queue::Command::UPKEEP,
            process::Command::UPKEEP,
            cluster::Command::UPKEEP,
            lock::Command::UPKEEP,
            session::Command::UPKEEP,
            access::Command::UPKEEP,
        ];
        nouns.iter().any(|tags| tags.contains(&tag))
    }

    /// Reads and checks a command. What this refuses never reaches the log.
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidArgument> {
        InvalidArgument::check_bytes("command", bytes.len(), COMMAND_BYTES_MAX)?;
        let command = Self::decode_unchecked(bytes).map_err(|error| {
            InvalidArgument::new(
                "command",
                "cannot be read",
                "an encoded command",
                error.to_string(),
            )
        })?;
        command.validate()?;
        Ok(command)
    }

    fn decode_unchecked(bytes: &[u8]) -> Result<Self, BadBytes> {
        let (tag, mut body) = codec::open(bytes)?;
        let request = codec::take(&mut body)?;
        let preconditions = codec::take(&mut body)?;
        let action = Action::decode_body(tag, &mut body)?;
        codec::nothing_left(body)?;
        Ok(Self {
            request,
            preconditions,
            action,
        })
    }

    /// Checks every bound that does not depend on the state.
    pub fn validate(&self) -> Result<(), InvalidArgument> {
        let count = self.preconditions.len() as u64;
        InvalidArgument::check_count("preconditions", count, 0, PRECONDITIONS_MAX as u64)?;
        self.action.validate()
    }
}

impl Action {
    /// The operation's name, for traces and metrics: `lease.claim`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Lease(command) => command.name(),
            Self::Queue(command) => command.name(),
            Self::Process(command) => command.name(),
            Self::Cluster(command) => command.name(),
            Self::Lock(command) => command.name(),
            Self::Session(command) => command.name(),
            Self::Access(command) => command.name(),
            Self::Composite(_) => "composite",
        }
    }

    /// The stable tag.
    #[must_use]
    pub fn tag(&self) -> u16 {
        match self {
            Self::Lease(command) => command.tag(),
            Self::Queue(command) => command.tag(),
            Self::Process(command) => command.tag(),
            Self::Cluster(command) => command.tag(),
            Self::Lock(command) => command.tag(),
            Self::Session(command) => command.tag(),
            Self::Access(command) => command.tag(),
            Self::Composite(_) => TAG_COMPOSITE,
        }
    }

    /// The first [version](crate::version) whose builds know all of it.
    #[must_use]
    pub fn since(&self) -> u32 {
        match self {
            Self::Lease(command) => command.since(),
            Self::Queue(command) => command.since(),
            Self::Process(command) => command.since(),
            Self::Cluster(command) => command.since(),
            Self::Lock(command) => command.since(),
            Self::Session(command) => command.since(),
            Self::Access(command) => command.since(),
            Self::Composite(steps) => {
                let since = steps.iter().map(Self::since).max();
                since.unwrap_or(crate::version::FIRST)
            }
        }
    }

    fn encode_body(&self, out: &mut Vec<u8>) {
        match self {
            Self::Lease(command) => command.encode_body(out),
            Self::Queue(command) => command.encode_body(out),
            Self::Process(command) => command.encode_body(out),
            Self::Cluster(command) => command.encode_body(out),
            Self::Lock(command) => command.encode_body(out),
            Self::Session(command) => command.encode_body(out),
            Self::Access(command) => command.encode_body(out),
            Self::Composite(steps) => {
                codec::put(out, &(steps.len() as u64));
                for step in steps {
                    codec::put(out, &step.tag());
                    step.encode_body(out);
                }
            }
        }
    }

    /// The high byte of a tag is the noun.
    fn decode_body(tag: u16, body: &mut &[u8]) -> Result<Self, BadBytes> {
        match tag >> 8 {
            0x01 => lease::Command::decode_body(tag, body).map(Self::Lease),
            0x02 => queue::Command::decode_body(tag, body).map(Self::Queue),
            0x03 => process::Command::decode_body(tag, body).map(Self::Process),
            0x04 => cluster::Command::decode_body(tag, body).map(Self::Cluster),
            0x05 => lock::Command::decode_body(tag, body).map(Self::Lock),
            0x06 => session::Command::decode_body(tag, body).map(Self::Session),
            0x07 => access::Command::decode_body(tag, body).map(Self::Access),
            _ if tag == TAG_COMPOSITE => Self::decode_composite(body),
            _ => Err(BadBytes::Tag(tag)),
        }
    }

    fn decode_composite(body: &mut &[u8]) -> Result<Self, BadBytes> {
        let count: u64 = codec::take(body)?;
        if count > COMPOSITE_STEPS_MAX as u64 {
            return Err(BadBytes::Body(format!(
                "a composite of {count} steps, the limit is {COMPOSITE_STEPS_MAX}"
            )));
        }
        let mut steps = Vec::new();
        for _ in 0..count {
            let tag = codec::take(body)?;
            if tag == TAG_COMPOSITE {
                return Err(BadBytes::Body("a composite inside a composite".to_owned()));
            }
            steps.push(Self::decode_body(tag, body)?);
        }
        Ok(Self::Composite(steps))
    }

    fn validate(&self) -> Result<(), InvalidArgument> {
        match self {
            Self::Lease(command) => command.validate(),
            Self::Queue(command) => command.validate(),
            Self::Process(command) => command.validate(),
            Self::Cluster(command) => command.validate(),
            Self::Lock(command) => command.validate(),
            Self::Session(command) => command.validate(),
            Self::Access(command) => command.validate(),
            Self::Composite(steps) => validate_composite(steps),
        }
    }
}

fn validate_composite(steps: &[Action]) -> Result<(), InvalidArgument> {
    let count = steps.len() as u64;
    InvalidArgument::check_count("composite.steps", count, 1, COMPOSITE_STEPS_MAX as u64)?;
    for step in steps {
        if !may_be_a_step(step) {
            return Err(InvalidArgument::new(
                "composite.steps",
                "cannot hold this action",
                "lease, queue, process and session actions, and the release of a lock",
                step.name(),
            ));
        }
        step.validate()?;
    }
    Ok(())
}

/// One entry grants a lock at most once and hands it over at its end, so that a composite may give
/// locks back and not ask for them.
fn may_be_a_step(step: &Action) -> bool {
    match step {
        Action::Lease(command) => !matches!(command, lease::Command::RenewMany(_)),
        Action::Queue(_) | Action::Process(_) | Action::Session(_) => true,
        Action::Lock(command) => matches!(command, lock::Command::Release(_)),
        Action::Composite(_) | Action::Cluster(_) | Action::Access(_) => false,
    }
}
