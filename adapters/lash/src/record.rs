//! Between lash's types and what the cluster stores: JSON, opaque to it.

use lash_core::runtime::{
    ProcessEventSemantics, RuntimeReplay, materialize_process_event_semantics,
    process_event_invocation,
};
use lash_core::{
    ProcessAwaitOutput, ProcessEvent, ProcessHandleGrant, ProcessRecord, ProcessRegistration,
    ProcessStatus, ProcessTerminalSemantics, ProcessTerminalState, ToolFailureClass,
    system_time_from_epoch_ms,
};
use quorate_statemachine::process::{Event, Grant, Process, ProcessState};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Result, session};

/// What a process was registered with: never changes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Definition {
    /// lash's hash of the registration.
    pub(crate) hash: String,
    pub(crate) registration: ProcessRegistration,
}

/// JSON with sorted keys: equal values have equal bytes.
pub(crate) fn to_bytes(what: &str, value: &impl Serialize) -> Result<Vec<u8>> {
    let failed = |error| session(format!("{what} cannot be encoded: {error}"));
    let mut value = serde_json::to_value(value).map_err(failed)?;
    value.sort_all_objects();
    serde_json::to_vec(&value).map_err(failed)
}

pub(crate) fn from_bytes<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| {
        session(format!(
            "{what} cannot be read: {error}; it was not written by this adapter"
        ))
    })
}

/// The record as lash sees it.
pub(crate) fn record(process: &Process, definition: &Definition) -> Result<ProcessRecord> {
    let mut record = ProcessRecord::from_prepared_registration(
        definition.registration.clone(),
        definition.hash.clone(),
        process.created_at.0,
    );
    let of = |what: &str| format!("{what} of process `{}`", record.id);
    let target = process.wake_target.as_ref();
    let target = target.map(|wake| from_bytes(&of("wake target"), &wake.target));
    let external_ref = process.external_ref.as_ref();
    let external_ref = external_ref.map(|bytes| from_bytes(&of("external reference"), bytes));
    let wait = process.wait.as_ref();
    let wait = wait.map(|bytes| from_bytes(&of("wait"), bytes));
    record.wake_target = target.transpose()?;
    record.external_ref = external_ref.transpose()?;
    record.wait = wait.transpose()?;
    record.updated_at_ms = process.updated_at.0;
    record.status = status(process);
    Ok(record)
}

fn status(process: &Process) -> ProcessStatus {
    let state = match process.state {
        ProcessState::Running => return ProcessStatus::Running,
        ProcessState::Succeeded => ProcessTerminalState::Completed,
        ProcessState::Failed => ProcessTerminalState::Failed,
        ProcessState::Cancelled => ProcessTerminalState::Cancelled,
    };
    let await_output = outcome(state, process.outcome.as_deref().unwrap_or_default());
    ProcessStatus::from_terminal(ProcessTerminalSemantics {
        state,
        await_output,
    })
}

/// What a process ended with. An operator may have ended it with any bytes.
fn outcome(state: ProcessTerminalState, bytes: &[u8]) -> ProcessAwaitOutput {
    if let Ok(outcome) = serde_json::from_slice(bytes) {
        return outcome;
    }
    let text = || String::from_utf8_lossy(bytes).into_owned();
    let value = serde_json::from_slice(bytes).unwrap_or_else(|_| Value::String(text()));
    match state {
        ProcessTerminalState::Completed => ProcessAwaitOutput::Success {
            value,
            control: None,
        },
        ProcessTerminalState::Failed => ProcessAwaitOutput::Failure {
            class: ToolFailureClass::Execution,
            code: "process_failed".to_owned(),
            message: text(),
            raw: Some(value),
            control: None,
        },
        ProcessTerminalState::Cancelled => ProcessAwaitOutput::Cancelled {
            message: text(),
            raw: Some(value),
            control: None,
        },
    }
}

pub(crate) fn state_of(state: ProcessTerminalState) -> ProcessState {
    match state {
        ProcessTerminalState::Completed => ProcessState::Succeeded,
        ProcessTerminalState::Failed => ProcessState::Failed,
        ProcessTerminalState::Cancelled => ProcessState::Cancelled,
    }
}

/// The event as lash sees it: what follows from its payload is made again.
pub(crate) fn event(stored: &Event, definition: &Definition) -> Result<ProcessEvent> {
    let process_id = &definition.registration.id;
    let sequence = stored.sequence;
    let what = || format!("payload of event {sequence} of process `{process_id}`");
    let payload = from_bytes(&what(), &stored.payload)?;
    let declared = &definition.registration.event_types;
    let declared = declared
        .iter()
        .find(|declared| declared.name == stored.event_type.as_str());
    let semantics = match declared {
        Some(declared) => materialize_process_event_semantics(
            process_id,
            sequence,
            &payload,
            &declared.semantics,
        )?,
        None => ProcessEventSemantics::default(),
    };
    let replay = stored.key.as_ref().map(|key| RuntimeReplay {
        key: key.to_string(),
    });
    let event_type = stored.event_type.to_string();
    Ok(ProcessEvent {
        process_id: process_id.clone(),
        sequence,
        invocation: process_event_invocation(process_id, sequence, &event_type, replay),
        event_type,
        payload,
        semantics,
        occurred_at: system_time_from_epoch_ms(stored.at.0),
    })
}

/// The grant as lash sees it. `id_of` takes the namespace from a name.
pub(crate) fn grant(
    stored: &Grant,
    id_of: impl Fn(&quorate_statemachine::Name) -> String,
) -> Result<ProcessHandleGrant> {
    Ok(ProcessHandleGrant {
        session_id: id_of(&stored.session),
        process_id: id_of(&stored.process_id),
        descriptor: from_bytes("descriptor of a grant", &stored.descriptor)?,
    })
}
