//! Set external reference: note what another system calls a process.

use serde::{Deserialize, Serialize};

use super::{Process, require};
use crate::command::Validate;
use crate::context::Context;
use crate::id::Name;
use crate::limits::PROCESS_NOTE_BYTES_MAX;
use crate::refusal::{Failure, InvalidArgument, Refusal, Subject};
use crate::transaction::Transaction;

/// Gives the process its external reference, once.
///
/// Promises that the record has this reference when it answers. Refuses with `NotFound` for an
/// unknown process and with `Conflict` when it has another one. A retry, like any repetition, gets
/// the record unchanged with `existed` set. Watchers get `ProcessChanged`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetExternalRef {
    /// The process.
    pub id: Name,
    /// Opaque, compared byte for byte.
    pub external_ref: Vec<u8>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalRefSet {
    /// The record.
    pub process: Process,
    /// Whether it had this reference before.
    pub existed: bool,
}

impl Validate for SetExternalRef {
    fn validate(&self) -> Result<(), InvalidArgument> {
        InvalidArgument::check_bytes(
            "external_ref",
            self.external_ref.len(),
            PROCESS_NOTE_BYTES_MAX,
        )
    }
}

impl SetExternalRef {
    pub(super) fn apply(
        &self,
        tx: &mut Transaction<'_>,
        ctx: &Context,
    ) -> Result<ExternalRefSet, Failure> {
        let mut process = require(tx, &self.id)?;
        let existed = match &process.external_ref {
            Some(first) if *first == self.external_ref => true,
            Some(_) => return Err(self.conflict()),
            None => false,
        };
        if !existed {
            process.external_ref = Some(self.external_ref.clone());
            process.store_changed(tx, ctx)?;
        }
        Ok(ExternalRefSet { process, existed })
    }

    fn conflict(&self) -> Failure {
        Failure::Refused(Refusal::Conflict {
            subject: Subject::Process,
            name: self.id.to_string(),
            problem: "it has another external reference, which is set once".to_owned(),
        })
    }
}
