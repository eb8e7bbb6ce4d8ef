//! Appending events: lash's rules are checked here, the log's order is the cluster's.

use lash_core::runtime::{materialize_process_event_semantics, require_event_replay};
use lash_core::{
    ProcessAwaitOutput, ProcessEventAppendRequest, ProcessEventAppendResult, ProcessEventType,
    ProcessRecord, ProcessTerminalState, ProcessWakeDeliveryRequest, process_wake_delivery,
};
use quorate_statemachine::process::{Append, Appended, Ending, Event};
use serde_json::json;

use crate::error::{Result, session};
use crate::names::plain;
use crate::record::{self, Definition, state_of, to_bytes};
use crate::registry::QuorateProcesses;

/// What materializes differs by the sequence only in a wake's key, which is made again later.
const ANY_SEQUENCE: u64 = 0;

impl QuorateProcesses {
    pub(crate) async fn append(
        &self,
        process_id: &str,
        request: ProcessEventAppendRequest,
    ) -> Result<ProcessEventAppendResult> {
        let definition = self.definition(process_id).await?;
        let append = self.checked(process_id, &request, &definition)?;
        let payload = append.payload.clone();
        let (event_type, key) = (append.event_type.clone(), append.key.clone());
        let appended = self.write(process_id, append).await?;
        let stored = Event {
            sequence: appended.sequence,
            event_type,
            at: appended.at,
            index: 0,
            key,
            payload,
        };
        delivered(&stored, &appended, request, &definition)
    }

    /// Appends the event that ends the process, and answers with the record.
    pub(crate) async fn complete(
        &self,
        process_id: &str,
        output: ProcessAwaitOutput,
    ) -> Result<ProcessRecord> {
        let event_type = match output.terminal_state() {
            ProcessTerminalState::Completed => "process.completed",
            ProcessTerminalState::Failed => "process.failed",
            ProcessTerminalState::Cancelled => "process.cancelled",
        };
        let key = format!("process:{process_id}:terminal:{event_type}");
        let payload = json!({ "await_output": output });
        let request = ProcessEventAppendRequest::new(event_type, payload).with_replay_key(key);
        let definition = self.definition(process_id).await?;
        let append = self.checked(process_id, &request, &definition)?;
        let appended = self.write(process_id, append).await?;
        record::record(&appended.process, &definition)
    }

    /// The command for an event that lash's rules allow.
    fn checked(
        &self,
        process_id: &str,
        request: &ProcessEventAppendRequest,
        definition: &Definition,
    ) -> Result<Append> {
        let declared = declared(process_id, request, definition)?;
        let semantics = materialize_process_event_semantics(
            process_id,
            ANY_SEQUENCE,
            &request.payload,
            &declared.semantics,
        )?;
        let ends = match semantics.terminal {
            Some(terminal) => Some(Ending {
                state: state_of(terminal.state),
                outcome: to_bytes("await output", &terminal.await_output)?,
            }),
            None => None,
        };
        let key = request.replay.as_ref();
        let key = key.map(|replay| plain("replay key", &replay.key));
        Ok(Append {
            id: self.shared.names.process(process_id)?,
            event_type: plain("event type", &request.event_type)?,
            key: key.transpose()?,
            payload: to_bytes("payload", &request.payload)?,
            wakes: semantics.wake.is_some(),
            after_end: true,
            ends,
        })
    }
}

/// The declaration of the event's type, which its key and its payload satisfy.
fn declared<'a>(
    process_id: &str,
    request: &ProcessEventAppendRequest,
    definition: &'a Definition,
) -> Result<&'a ProcessEventType> {
    let event_type = &request.event_type;
    let mut types = definition.registration.event_types.iter();
    let declared = types.find(|declared| declared.name == *event_type);
    let declared = declared.ok_or_else(|| {
        session(format!(
            "process `{process_id}` emitted undeclared event type `{event_type}`"
        ))
    })?;
    require_event_replay(process_id, request, &declared.semantics)?;
    let valid = declared.payload_schema.validate(&request.payload);
    valid.map_err(|error| session(format!("invalid `{event_type}` payload: {error}")))?;
    Ok(declared)
}

/// The event with its wake, if it wakes somebody: whom the caller names, or whom the process wakes
/// now.
fn delivered(
    stored: &Event,
    appended: &Appended,
    request: ProcessEventAppendRequest,
    definition: &Definition,
) -> Result<ProcessEventAppendResult> {
    let event = record::event(stored, definition)?;
    let target = match request.wake_target_scope {
        Some(scope) => Some(scope),
        None => record::record(&appended.process, definition)?.wake_target,
    };
    let wake = event.semantics.wake.clone().zip(target);
    let wake_delivery = wake.map(|(wake, target_scope)| {
        process_wake_delivery(ProcessWakeDeliveryRequest {
            target_scope,
            process_id: event.process_id.clone(),
            sequence: event.sequence,
            event_type: event.event_type.clone(),
            event_invocation: event.invocation.clone(),
            process_caused_by: definition.registration.provenance.caused_by.clone(),
            wake,
            occurred_at: event.occurred_at,
        })
    });
    Ok(ProcessEventAppendResult {
        wake_delivery: wake_delivery.transpose()?,
        event,
    })
}
