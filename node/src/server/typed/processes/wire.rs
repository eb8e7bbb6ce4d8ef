//! Processes, their events and their grants as messages, and back.

use quorate_rpc::v1;
use quorate_rpc::v1::append_event_request::Ending as AskedEnding;
use quorate_rpc::v1::await_event_request::Only as Awaited;
use quorate_rpc::v1::process_events_request::Only;
use quorate_statemachine::Name;
use quorate_statemachine::process::{
    Ending, Event, Grant, Process, ProcessState, ProcessView, Selection, WakeTarget,
};
use tonic::Status;

use super::super::{missing, name};

pub fn process_wire(process: Process) -> v1::Process {
    let state = match process.state {
        ProcessState::Running => v1::ProcessState::Running,
        ProcessState::Succeeded => v1::ProcessState::Succeeded,
        ProcessState::Failed => v1::ProcessState::Failed,
        ProcessState::Cancelled => v1::ProcessState::Cancelled,
    };
    v1::Process {
        id: process.id.into(),
        state: state.into(),
        created_at_ms: process.created_at.0,
        updated_at_ms: process.updated_at.0,
        last_sequence: process.last_sequence,
        outcome: process.outcome.map(Into::into),
        external_ref: process.external_ref.map(Into::into),
        wait: process.wait.map(Into::into),
        definition: None,
        wake_target: process.wake_target.map(|wake| v1::WakeTarget {
            session: wake.session.into(),
            target: wake.target.into(),
        }),
    }
}

pub fn view_wire(view: ProcessView) -> v1::Process {
    v1::Process {
        definition: Some(view.definition.into()),
        ..process_wire(view.process)
    }
}

pub fn wake_target(wire: v1::WakeTarget) -> Result<WakeTarget, Status> {
    Ok(WakeTarget {
        session: name("wake_target.session", wire.session)?,
        target: wire.target.into(),
    })
}

pub fn event_wire(event: Event) -> v1::ProcessEvent {
    v1::ProcessEvent {
        sequence: event.sequence,
        event_type: event.event_type.into(),
        at_ms: event.at.0,
        index: event.index,
        key: event.key.map_or(String::new(), Into::into),
        payload: event.payload.into(),
    }
}

pub fn state(wire: v1::ProcessState) -> Option<ProcessState> {
    match wire {
        v1::ProcessState::Unspecified => None,
        v1::ProcessState::Running => Some(ProcessState::Running),
        v1::ProcessState::Succeeded => Some(ProcessState::Succeeded),
        v1::ProcessState::Failed => Some(ProcessState::Failed),
        v1::ProcessState::Cancelled => Some(ProcessState::Cancelled),
    }
}

/// How a process is to end; whether that is an end is not decided here.
pub fn final_state(field: &str, wire: v1::ProcessState) -> Result<ProcessState, Status> {
    state(wire).ok_or_else(|| missing(field, "succeeded, failed or cancelled"))
}

pub fn ending(wire: AskedEnding) -> Result<Ending, Status> {
    Ok(Ending {
        state: final_state("ends.state", wire.state())?,
        outcome: wire.outcome.into(),
    })
}

pub fn selection(only: Option<Only>) -> Result<Selection, Status> {
    Ok(match only {
        None => Selection::All,
        Some(Only::Last(count)) => Selection::Last(count),
        Some(Only::EventType(of)) => Selection::OfType(name("event_type", of)?),
        Some(Only::PendingWakes(_)) => Selection::PendingWakes,
    })
}

pub fn awaited(only: Option<Awaited>) -> Result<Selection, Status> {
    Ok(match only {
        None => Selection::All,
        Some(Awaited::EventType(of)) => Selection::OfType(name("event_type", of)?),
        Some(Awaited::PendingWakes(_)) => Selection::PendingWakes,
    })
}

pub fn grant(wire: Option<v1::ProcessGrant>) -> Result<Grant, Status> {
    let wire = wire.ok_or_else(|| missing("grant", "scope, session and process_id"))?;
    Ok(Grant {
        scope: name("grant.scope", wire.scope)?,
        session: name("grant.session", wire.session)?,
        process_id: name("grant.process_id", wire.process_id)?,
        descriptor: wire.descriptor.into(),
    })
}

pub fn grant_wire(grant: Grant) -> v1::ProcessGrant {
    v1::ProcessGrant {
        scope: grant.scope.into(),
        session: grant.session.into(),
        process_id: grant.process_id.into(),
        descriptor: grant.descriptor.into(),
    }
}

pub fn granted_wire((grant, view): (Grant, ProcessView)) -> v1::grants_to_reply::Row {
    v1::grants_to_reply::Row {
        grant: Some(grant_wire(grant)),
        process: Some(view_wire(view)),
    }
}

pub fn position(wire: v1::GrantsOfPosition) -> Result<(Name, Name), Status> {
    let session = name("after.session", wire.session)?;
    Ok((session, name("after.scope", wire.scope)?))
}

pub fn position_wire(last: &Grant) -> v1::GrantsOfPosition {
    v1::GrantsOfPosition {
        session: last.session.to_string(),
        scope: last.scope.to_string(),
    }
}
