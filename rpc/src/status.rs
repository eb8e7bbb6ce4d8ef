//! What a node says when it cannot just now, and the one table that maps it to the wire.
//!
//! | [`NodeError`] | gRPC code | happened? |
//! |---|---|---|
//! | `Unavailable`, `Stopped` | `UNAVAILABLE`, with leader hint | no |
//! | `Overloaded` | `RESOURCE_EXHAUSTED` | no |
//! | `DeadlineExceeded` | `DEADLINE_EXCEEDED` | unknown |
//! | `OutcomeUnknown` | `UNKNOWN` | unknown |
//! | `TooStale` | `UNAVAILABLE` | no |
//! | `WrongCluster`, `Unsafe` | `FAILED_PRECONDITION` | no |
//! | `NotFound` | `NOT_FOUND` | no |
//! | `Invalid` | `INVALID_ARGUMENT` | no |
//! | `Unauthenticated` | `UNAUTHENTICATED` | no |
//! | `Refused` | `PERMISSION_DENIED` if denied, else `FAILED_PRECONDITION` | no |

use quorate_statemachine::{InvalidArgument, Refusal, Reply};
use thiserror::Error;
use tonic::{Code, Status};

use crate::v1::node_error::Kind;
use crate::{details, v1};

/// Where the leader is, as far as the speaker knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderHint {
    /// The leader.
    pub id: u64,
    /// Where clients reach it.
    pub client_addr: String,
}

/// This node cannot just now. Not replicated, not an answer of the state.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NodeError {
    /// There is no leader that can be reached. The command was not proposed.
    #[error("unavailable: {message}; not done, try again in {retry_after_ms} ms")]
    Unavailable {
        /// Why.
        message: String,
        /// When to try again.
        retry_after_ms: u64,
        /// Whom to ask.
        leader: Option<LeaderHint>,
    },
    /// Too much is in flight. The command was not proposed.
    #[error(
        "overloaded: {what}: limit {limit}, actual {actual}; not done, try again in \
         {retry_after_ms} ms"
    )]
    Overloaded {
        /// What there is too much of.
        what: String,
        /// The bound.
        limit: String,
        /// The value found.
        actual: String,
        /// When to try again.
        retry_after_ms: u64,
    },
    /// The deadline passed before there was an answer.
    #[error("deadline exceeded: {message}; whether it was done is unknown")]
    DeadlineExceeded {
        /// What was waited for, and for how long.
        message: String,
    },
    /// The command was proposed, and then leadership or the connection was lost.
    #[error("outcome unknown: {message}; read the state or repeat the command under its own id")]
    OutcomeUnknown {
        /// What happened.
        message: String,
    },
    /// The node stops, or has stopped because something is broken.
    #[error("stopped: {message}; ask another node")]
    Stopped {
        /// The facts.
        message: String,
    },
    /// The caller believes to speak to another cluster or node.
    #[error("wrong cluster or node: the caller means {expected}, this is {actual}")]
    WrongCluster {
        /// What the caller believes.
        expected: String,
        /// What is there.
        actual: String,
    },
    /// The bound of a stale read cannot be met here.
    #[error("too stale: {message}; ask another node or read linearizably")]
    TooStale {
        /// The lag and the bound.
        message: String,
    },
    /// The step would endanger the cluster.
    #[error("refused as unsafe: {message}")]
    Unsafe {
        /// What it would do.
        message: String,
    },
    /// There is no such member.
    #[error("{message}")]
    NotFound {
        /// What was looked for.
        message: String,
    },
    /// An argument is out of bounds. Nothing was proposed.
    #[error(transparent)]
    Invalid(#[from] InvalidArgument),
    /// The caller has not proved who it is. Nothing was looked at.
    #[error("not authenticated: {message}")]
    Unauthenticated {
        /// What is missing or wrong, and what to do.
        message: String,
    },
    /// The state says no, as this node found. Nothing was proposed.
    #[error(transparent)]
    Refused(Refusal),
}

impl NodeError {
    /// Whether the command may have been done all the same.
    #[must_use]
    pub fn may_have_happened(&self) -> bool {
        matches!(
            self,
            Self::DeadlineExceeded { .. } | Self::OutcomeUnknown { .. }
        )
    }

    /// Whether another try, here or elsewhere, can help.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        !matches!(
            self,
            Self::WrongCluster { .. }
                | Self::Unsafe { .. }
                | Self::NotFound { .. }
                | Self::Invalid(_)
                | Self::Unauthenticated { .. }
                | Self::Refused(_)
        )
    }

    /// The stable word for scripts, as in the CLI's error JSON.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "unavailable",
            Self::Overloaded { .. } => "resource_exhausted",
            Self::DeadlineExceeded { .. } => "deadline_exceeded",
            Self::OutcomeUnknown { .. } => "outcome_unknown",
            Self::Stopped { .. } => "stopped",
            Self::WrongCluster { .. } => "wrong_cluster",
            Self::TooStale { .. } => "too_stale",
            Self::Unsafe { .. } => "unsafe",
            Self::NotFound { .. } => "not_found",
            Self::Invalid(_) => "invalid_argument",
            Self::Unauthenticated { .. } => "unauthenticated",
            Self::Refused(refusal) => refusal.code(),
        }
    }
}

impl From<NodeError> for v1::NodeError {
    fn from(error: NodeError) -> Self {
        let mut wire = Self {
            message: error.to_string(),
            ..Self::default()
        };
        wire.set_kind(match &error {
            NodeError::Unavailable { .. } => Kind::Unavailable,
            NodeError::Overloaded { .. } => Kind::Overloaded,
            NodeError::DeadlineExceeded { .. } => Kind::DeadlineExceeded,
            NodeError::OutcomeUnknown { .. } => Kind::OutcomeUnknown,
            NodeError::Stopped { .. } => Kind::Stopped,
            NodeError::WrongCluster { .. } => Kind::WrongCluster,
            NodeError::TooStale { .. } => Kind::TooStale,
            NodeError::Unsafe { .. } => Kind::Unsafe,
            NodeError::NotFound { .. } => Kind::NotFound,
            NodeError::Invalid(_) => Kind::InvalidArgument,
            NodeError::Unauthenticated { .. } => Kind::Unauthenticated,
            NodeError::Refused(_) => Kind::Refused,
        });
        match error {
            NodeError::Unavailable {
                message,
                retry_after_ms,
                leader,
            } => {
                wire.message = message;
                wire.retry_after_ms = retry_after_ms;
                if let Some(leader) = leader {
                    wire.leader_id = leader.id;
                    wire.leader_client_addr = leader.client_addr;
                }
            }
            NodeError::Overloaded {
                what,
                limit,
                actual,
                retry_after_ms,
            } => {
                (wire.message, wire.limit, wire.actual) = (what, limit, actual);
                wire.retry_after_ms = retry_after_ms;
            }
            NodeError::WrongCluster { expected, actual } => {
                (wire.limit, wire.actual) = (expected, actual);
            }
            NodeError::DeadlineExceeded { message }
            | NodeError::OutcomeUnknown { message }
            | NodeError::Stopped { message }
            | NodeError::TooStale { message }
            | NodeError::Unsafe { message }
            | NodeError::NotFound { message }
            | NodeError::Unauthenticated { message } => wire.message = message,
            NodeError::Refused(refusal) => wire.refusal = Reply(Err(refusal)).encode().into(),
            NodeError::Invalid(invalid) => {
                wire.message = format!("{} {}", invalid.field, invalid.problem);
                (wire.limit, wire.actual) = (invalid.limit, invalid.actual);
            }
        }
        wire
    }
}

impl From<v1::NodeError> for NodeError {
    fn from(wire: v1::NodeError) -> Self {
        let message = wire.message.clone();
        match wire.kind() {
            Kind::Unavailable => Self::Unavailable {
                message,
                retry_after_ms: wire.retry_after_ms,
                leader: (wire.leader_id != 0).then_some(LeaderHint {
                    id: wire.leader_id,
                    client_addr: wire.leader_client_addr,
                }),
            },
            Kind::Overloaded => Self::Overloaded {
                what: message,
                limit: wire.limit,
                actual: wire.actual,
                retry_after_ms: wire.retry_after_ms,
            },
            Kind::DeadlineExceeded => Self::DeadlineExceeded { message },
            // A kind of a newer build: assume the worst.
            Kind::OutcomeUnknown | Kind::Unspecified => Self::OutcomeUnknown { message },
            Kind::Stopped => Self::Stopped { message },
            Kind::WrongCluster => Self::WrongCluster {
                expected: wire.limit,
                actual: wire.actual,
            },
            Kind::TooStale => Self::TooStale { message },
            Kind::Unsafe => Self::Unsafe { message },
            Kind::NotFound => Self::NotFound { message },
            Kind::Unauthenticated => Self::Unauthenticated { message },
            Kind::Refused => match Reply::decode(&wire.refusal) {
                Ok(Reply(Err(refusal))) => Self::Refused(refusal),
                // A refusal of a newer build: all that is known is that it is one.
                Ok(Reply(Ok(_))) | Err(_) => Self::Unsafe { message },
            },
            Kind::InvalidArgument => {
                let (field, problem) = message.split_once(' ').unwrap_or((&message, ""));
                Self::Invalid(InvalidArgument::new(
                    field,
                    problem,
                    wire.limit,
                    wire.actual,
                ))
            }
        }
    }
}

impl From<NodeError> for Status {
    fn from(error: NodeError) -> Self {
        let code = match &error {
            NodeError::Unavailable { .. }
            | NodeError::Stopped { .. }
            | NodeError::TooStale { .. } => Code::Unavailable,
            NodeError::Overloaded { .. } => Code::ResourceExhausted,
            NodeError::DeadlineExceeded { .. } => Code::DeadlineExceeded,
            NodeError::OutcomeUnknown { .. } => Code::Unknown,
            NodeError::WrongCluster { .. } | NodeError::Unsafe { .. } => Code::FailedPrecondition,
            NodeError::NotFound { .. } => Code::NotFound,
            NodeError::Invalid(_) => Code::InvalidArgument,
            NodeError::Unauthenticated { .. } => Code::Unauthenticated,
            NodeError::Refused(refusal) => return details::refused_here(refusal.clone()),
        };
        details::unable(code, error)
    }
}

impl From<Status> for NodeError {
    /// A status without our details comes from the transport: whether the request arrived is
    /// unknown unless the code says that it did not.
    fn from(status: Status) -> Self {
        if let Some(wire) = details::node_error(&status) {
            return wire.into();
        }
        let message = format!("{:?}: {}", status.code(), status.message());
        match status.code() {
            Code::InvalidArgument | Code::OutOfRange | Code::Unimplemented => {
                Self::Invalid(InvalidArgument::new("request", "was refused", "", message))
            }
            Code::DeadlineExceeded => Self::DeadlineExceeded { message },
            _ => Self::OutcomeUnknown { message },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_statemachine::access::{Noun, Verb};

    fn every_error() -> Vec<NodeError> {
        let message = "m".to_owned();
        vec![
            NodeError::Unavailable {
                message: message.clone(),
                retry_after_ms: 7,
                leader: Some(LeaderHint {
                    id: 3,
                    client_addr: "a:1".to_owned(),
                }),
            },
            NodeError::Overloaded {
                what: "proposals".to_owned(),
                limit: "1".to_owned(),
                actual: "2".to_owned(),
                retry_after_ms: 9,
            },
            NodeError::DeadlineExceeded {
                message: message.clone(),
            },
            NodeError::OutcomeUnknown {
                message: message.clone(),
            },
            NodeError::Stopped {
                message: message.clone(),
            },
            NodeError::WrongCluster {
                expected: "x".to_owned(),
                actual: "y".to_owned(),
            },
            NodeError::TooStale {
                message: message.clone(),
            },
            NodeError::Unsafe {
                message: message.clone(),
            },
            NodeError::NotFound {
                message: message.clone(),
            },
            NodeError::Invalid(InvalidArgument::new("f", "is bad", "1", "2")),
            NodeError::Unauthenticated { message },
            NodeError::Refused(Refusal::Denied {
                principal: "ci".to_owned(),
                verb: Verb::Write,
                noun: Noun::Lock,
                key: "k".to_owned(),
            }),
        ]
    }

    #[test]
    fn every_error_survives_the_wire_and_a_status() {
        for error in every_error() {
            assert_eq!(NodeError::from(v1::NodeError::from(error.clone())), error);
            assert_eq!(NodeError::from(Status::from(error.clone())), error);
        }
    }

    #[test]
    fn a_status_of_the_transport_is_an_unknown_outcome() {
        let error = NodeError::from(Status::unavailable("connection reset"));
        assert!(error.may_have_happened(), "{error}");
    }
}
