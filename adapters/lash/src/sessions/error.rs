//! What becomes of errors: lash has kinds of its own for what the cluster refuses, and `Backend`
//! for all else.

use std::fmt::Display;

use lash_core::StoreError;
use quorate_client::ClientError;
use quorate_statemachine::{InvalidArgument, Name, Refusal, Subject};

pub(super) type Result<T> = std::result::Result<T, StoreError>;

/// An error that has no kind of lash's.
pub(super) fn backend(what: impl Display, error: &ClientError) -> StoreError {
    let perhaps = if error.may_have_happened() {
        "; it may have been done all the same"
    } else {
        ""
    };
    StoreError::Backend(format!("{what}: {error}{perhaps}"))
}

pub(super) fn invalid(invalid: InvalidArgument) -> StoreError {
    StoreError::Backend(invalid.to_string())
}

/// A name of lash's that is used as it is.
pub(super) fn name(what: &str, text: &str) -> Result<Name> {
    Name::parse(what, text).map_err(invalid)
}

pub(super) fn lease_lost(session_id: &str) -> StoreError {
    StoreError::SessionExecutionLeaseExpired {
        session_id: session_id.to_owned(),
    }
}

pub(super) fn work_lost(session_id: &str, claim_id: &str) -> StoreError {
    StoreError::QueuedWorkClaimExpired {
        session_id: session_id.to_owned(),
        claim_id: claim_id.to_owned(),
    }
}

pub(super) fn inputs_lost(session_id: &str, claim_id: &str) -> StoreError {
    StoreError::TurnInputClaimExpired {
        session_id: session_id.to_owned(),
        claim_id: claim_id.to_owned(),
    }
}

/// An error of a command that asks for the execution lease.
pub(super) fn under_lease(what: &str, session_id: &str, error: &ClientError) -> StoreError {
    match error.refusal() {
        Some(
            Refusal::Fenced {
                subject: Subject::Lease,
                ..
            }
            | Refusal::Expired {
                subject: Subject::Lease,
                ..
            },
        ) => lease_lost(session_id),
        _ => backend(what, error),
    }
}
