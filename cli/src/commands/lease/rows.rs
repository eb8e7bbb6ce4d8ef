//! Leases and ended grants as they are printed.

use quorate_statemachine::lease::{EndReason, Ended, Lease};
use quorate_statemachine::{Name, Timestamp};
use serde::Serialize;

use crate::commands::rows::Note;
use crate::output::Row;
use crate::value::{span, time};

/// A lease.
#[derive(Debug, Serialize)]
pub struct LeaseRow {
    key: String,
    owner_id: String,
    incarnation_id: String,
    lease_token: String,
    fencing_token: String,
    ttl_ms: String,
    granted_at: String,
    renewed_at: String,
    expires_at: String,
    remaining_ms: String,
    renewals: String,
    epoch: String,
    #[serde(flatten)]
    note: Note,
    #[serde(skip)]
    remaining: String,
}

impl LeaseRow {
    /// The lease as of `now`.
    pub fn new(lease: &Lease, now: Timestamp) -> Self {
        let remaining_ms = lease.expires_at.since(now);
        Self {
            key: lease.key.to_string(),
            owner_id: lease.owner.owner_id.to_string(),
            incarnation_id: lease.owner.incarnation_id.to_string(),
            lease_token: lease.lease_token.as_str().to_owned(),
            fencing_token: lease.fencing_token.to_string(),
            ttl_ms: lease.ttl_ms.to_string(),
            granted_at: time(lease.granted_at),
            renewed_at: time(lease.renewed_at),
            expires_at: time(lease.expires_at),
            remaining_ms: remaining_ms.to_string(),
            renewals: lease.renewals.to_string(),
            epoch: lease.epoch.to_string(),
            note: Note::new(&lease.metadata),
            remaining: span(remaining_ms),
        }
    }

    /// Who holds it until when, for people.
    pub fn holder(&self) -> String {
        format!(
            "{:?}, incarnation {:?}, with fencing token {}, until {} ({} left)",
            self.owner_id, self.incarnation_id, self.fencing_token, self.expires_at, self.remaining
        )
    }
}

impl Row for LeaseRow {
    const HEADER: &'static [&'static str] = &[
        "KEY",
        "OWNER",
        "INCARNATION",
        "TOKEN",
        "REMAINING",
        "EXPIRES AT",
        "RENEWALS",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.key.clone(),
            self.owner_id.clone(),
            self.incarnation_id.clone(),
            self.fencing_token.clone(),
            self.remaining.clone(),
            self.expires_at.clone(),
            self.renewals.clone(),
        ]
    }

    fn name(&self) -> String {
        self.key.clone()
    }
}

/// A grant that is over.
#[derive(Debug, Serialize)]
pub struct EndedRow {
    key: String,
    owner_id: String,
    incarnation_id: String,
    lease_token: String,
    fencing_token: String,
    ttl_ms: String,
    granted_at: String,
    renewed_at: String,
    ended_at: String,
    ended_index: String,
    reason: &'static str,
    by: Option<String>,
}

impl EndedRow {
    /// One grant of `key`.
    pub fn new(key: &Name, ended: &Ended) -> Self {
        Self {
            key: key.to_string(),
            owner_id: ended.owner.owner_id.to_string(),
            incarnation_id: ended.owner.incarnation_id.to_string(),
            lease_token: ended.lease_token.as_str().to_owned(),
            fencing_token: ended.fencing_token.to_string(),
            ttl_ms: ended.ttl_ms.to_string(),
            granted_at: time(ended.granted_at),
            renewed_at: time(ended.renewed_at),
            ended_at: time(ended.ended_at),
            ended_index: ended.ended_index.to_string(),
            reason: ended.reason.as_str(),
            by: ended_by(&ended.reason),
        }
    }
}

/// Who ended a grant, if it was not its holder or time.
pub fn ended_by(reason: &EndReason) -> Option<String> {
    match reason {
        EndReason::Reclaimed { by } => Some(by.to_string()),
        EndReason::Revoked { by } => Some(by.clone()),
        EndReason::Expired | EndReason::Released | EndReason::Superseded => None,
    }
}

impl Row for EndedRow {
    const HEADER: &'static [&'static str] = &[
        "TOKEN",
        "OWNER",
        "INCARNATION",
        "GRANTED AT",
        "ENDED AT",
        "REASON",
        "BY",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.fencing_token.clone(),
            self.owner_id.clone(),
            self.incarnation_id.clone(),
            self.granted_at.clone(),
            self.ended_at.clone(),
            self.reason.to_owned(),
            self.by.clone().unwrap_or_default(),
        ]
    }

    fn name(&self) -> String {
        self.fencing_token.clone()
    }
}
