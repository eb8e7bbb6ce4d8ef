//! What can go wrong, in three kinds that are never mixed.

use quorate_rpc::NodeError;
use quorate_statemachine::{InvalidArgument, Refusal};
use thiserror::Error;

/// Why there is no answer of the wanted type.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ClientError {
    /// The replicated state says no: deterministic, nothing was changed. Trying again says no again
    /// until the state is another one.
    #[error(transparent)]
    Refused(Refusal),
    /// The cluster could not be asked in time. [`NodeError::may_have_happened`] says whether the
    /// command may have been done all the same; what could be retried was retried until the
    /// deadline.
    #[error(transparent)]
    Node(NodeError),
    /// Bytes came back that are no answer to what was asked: client and cluster are of builds that
    /// do not know each other.
    #[error("protocol: {0}; use a client and a cluster of builds that know each other")]
    Protocol(String),
}

impl ClientError {
    /// The stable word for scripts, as in the CLI's error JSON.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.code(),
            Self::Node(error) => error.code(),
            Self::Protocol(_) => "protocol",
        }
    }

    /// Whether the command may have been done all the same.
    #[must_use]
    pub fn may_have_happened(&self) -> bool {
        match self {
            Self::Refused(refusal) => matches!(refusal.root(), Refusal::RequestTooOld { .. }),
            Self::Node(error) => error.may_have_happened(),
            Self::Protocol(_) => true,
        }
    }

    /// Whether another try can help: there was no leader, too much load, or not enough time.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Node(error) if error.is_passing())
    }

    /// The refusal, without a composite's step around it.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal.root()),
            _ => None,
        }
    }
}

impl From<InvalidArgument> for ClientError {
    fn from(invalid: InvalidArgument) -> Self {
        Self::Refused(Refusal::Invalid(invalid))
    }
}

impl From<Refusal> for ClientError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<NodeError> for ClientError {
    /// A refusal is the same wherever it was found.
    fn from(error: NodeError) -> Self {
        match error {
            NodeError::Invalid(invalid) => invalid.into(),
            NodeError::Refused(refusal) => refusal.into(),
            other => Self::Node(other),
        }
    }
}
