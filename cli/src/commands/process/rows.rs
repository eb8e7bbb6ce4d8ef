//! Process records and events as they are printed.

use quorate_statemachine::process::{Appended, Event, Grant, Process, ProcessView};
use serde::Serialize;

use crate::output::Row;
use crate::value::{Payload, payload, preview, time};

/// A process record.
#[derive(Debug, Serialize)]
pub struct ProcessRow {
    id: String,
    state: &'static str,
    created_at: String,
    updated_at: String,
    last_sequence: String,
    outcome: Option<Payload>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome_base64: Option<String>,
    definition: Option<Payload>,
    #[serde(skip_serializing_if = "Option::is_none")]
    definition_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    external_ref: Option<Payload>,
    #[serde(skip_serializing_if = "Option::is_none")]
    external_ref_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wait: Option<Payload>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wait_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wakes_session: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    existed: Option<bool>,
    #[serde(skip)]
    preview: String,
}

impl ProcessRow {
    /// The record and what it was registered with.
    pub fn of(view: &ProcessView) -> Self {
        Self::new(&view.process).defined(&view.definition)
    }

    /// The record alone.
    pub fn new(process: &Process) -> Self {
        let note = |note: &Option<Vec<u8>>| match note {
            Some(bytes) => payload(bytes),
            None => (None, None),
        };
        let (outcome, outcome_base64) = note(&process.outcome);
        let (external_ref, external_ref_base64) = note(&process.external_ref);
        let (wait, wait_base64) = note(&process.wait);
        let wakes = process.wake_target.as_ref();
        Self {
            id: process.id.to_string(),
            state: process.state.as_str(),
            created_at: time(process.created_at),
            updated_at: time(process.updated_at),
            last_sequence: process.last_sequence.to_string(),
            outcome,
            outcome_base64,
            definition: None,
            definition_base64: None,
            external_ref,
            external_ref_base64,
            wait,
            wait_base64,
            wakes_session: wakes.map(|target| target.session.to_string()),
            existed: None,
            preview: process.outcome.as_deref().map(preview).unwrap_or_default(),
        }
    }

    /// With what it was registered with.
    pub fn defined(mut self, definition: &[u8]) -> Self {
        (self.definition, self.definition_base64) = payload(definition);
        self
    }

    /// Says whether the record was so before the command.
    pub fn existing(mut self, existed: bool) -> Self {
        self.existed = Some(existed);
        self
    }
}

impl Row for ProcessRow {
    const HEADER: &'static [&'static str] = &[
        "ID",
        "STATE",
        "CREATED AT",
        "UPDATED AT",
        "EVENTS",
        "OUTCOME",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.clone(),
            self.state.to_owned(),
            self.created_at.clone(),
            self.updated_at.clone(),
            self.last_sequence.clone(),
            self.preview.clone(),
        ]
    }

    fn name(&self) -> String {
        self.id.clone()
    }
}

/// An event.
#[derive(Debug, Serialize)]
pub struct EventRow {
    process_id: String,
    sequence: String,
    #[serde(rename = "type")]
    event_type: String,
    at: String,
    key: Option<String>,
    payload: Option<Payload>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    index: String,
    #[serde(skip)]
    preview: String,
}

impl EventRow {
    /// An event of the process `id`.
    pub fn new(id: &str, event: &Event) -> Self {
        let (shown, payload_base64) = payload(&event.payload);
        Self {
            process_id: id.to_owned(),
            sequence: event.sequence.to_string(),
            event_type: event.event_type.to_string(),
            at: time(event.at),
            key: event.key.as_ref().map(ToString::to_string),
            payload: shown,
            payload_base64,
            index: event.index.to_string(),
            preview: preview(&event.payload),
        }
    }
}

impl Row for EventRow {
    const HEADER: &'static [&'static str] = &["SEQUENCE", "TYPE", "AT", "KEY", "PAYLOAD"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.sequence.clone(),
            self.event_type.clone(),
            self.at.clone(),
            self.key.clone().unwrap_or_default(),
            self.preview.clone(),
        ]
    }

    fn name(&self) -> String {
        self.sequence.clone()
    }
}

/// A grant.
#[derive(Debug, Serialize)]
pub struct GrantRow {
    process_id: String,
    session: String,
    scope: String,
    descriptor: Option<Payload>,
    #[serde(skip_serializing_if = "Option::is_none")]
    descriptor_base64: Option<String>,
    #[serde(skip)]
    preview: String,
}

impl GrantRow {
    /// A grant.
    pub fn new(grant: &Grant) -> Self {
        let (descriptor, descriptor_base64) = payload(&grant.descriptor);
        Self {
            process_id: grant.process_id.to_string(),
            session: grant.session.to_string(),
            scope: grant.scope.to_string(),
            descriptor,
            descriptor_base64,
            preview: preview(&grant.descriptor),
        }
    }
}

impl Row for GrantRow {
    const HEADER: &'static [&'static str] = &["SESSION", "SCOPE", "DESCRIPTOR"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.session.clone(),
            self.scope.clone(),
            self.preview.clone(),
        ]
    }

    fn name(&self) -> String {
        self.scope.clone()
    }
}

/// The answer to an append.
#[derive(Debug, Serialize)]
pub struct AppendedRow {
    process_id: String,
    sequence: String,
    duplicate: bool,
}

impl AppendedRow {
    /// What an append to the process `id` came to.
    pub fn new(id: &str, appended: &Appended) -> Self {
        Self {
            process_id: id.to_owned(),
            sequence: appended.sequence.to_string(),
            duplicate: appended.duplicate,
        }
    }
}

impl Row for AppendedRow {
    const HEADER: &'static [&'static str] = &["PROCESS", "SEQUENCE", "DUPLICATE"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.process_id.clone(),
            self.sequence.clone(),
            self.duplicate.to_string(),
        ]
    }

    fn name(&self) -> String {
        self.sequence.clone()
    }
}
