//! What becomes of errors: lash has one kind for all of them, and reads their text.

use lash_core::PluginError;
use quorate_client::ClientError;
use quorate_statemachine::Refusal;

pub(crate) type Result<T> = std::result::Result<T, PluginError>;

pub(crate) fn session(message: impl Into<String>) -> PluginError {
    PluginError::Session(message.into())
}

pub(crate) fn unknown(process_id: &str) -> PluginError {
    session(format!("unknown process `{process_id}`"))
}

/// An error of a command or query about `process_id`.
pub(crate) fn about(process_id: &str, error: ClientError) -> PluginError {
    match error.refusal() {
        Some(Refusal::NotFound { .. }) => unknown(process_id),
        Some(Refusal::Ended { .. }) => {
            session(format!("process `{process_id}` is already terminal"))
        }
        _ => failed(&format!("process `{process_id}`"), &error),
    }
}

/// An error of the cluster, or one that has no words of lash's.
pub(crate) fn failed(what: &str, error: &ClientError) -> PluginError {
    let perhaps = if error.may_have_happened() {
        "; it may have been done all the same"
    } else {
        ""
    };
    session(format!("{what}: {error}{perhaps}"))
}
