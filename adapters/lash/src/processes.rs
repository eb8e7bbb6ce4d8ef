//! The trait, method by method.

use std::sync::Arc;

use crate::error::{Result, about, failed, session, unknown};
use crate::names::plain;
use crate::record::{Definition, event, record, to_bytes};
use crate::registry::QuorateProcesses;
use lash_core::runtime::{ProcessHandleGrantEntry, prepare_process_registration};
use lash_core::{
    DurabilityTier, ProcessAwaitOutput, ProcessEvent, ProcessEventAppendRequest,
    ProcessEventAppendResult, ProcessExternalRef, ProcessHandleDescriptor, ProcessHandleGrant,
    ProcessLease, ProcessLeaseCompletion, ProcessListFilter, ProcessRecord, ProcessRegistration,
    ProcessRegistry, ProcessSessionDeleteReport, ProcessStatusFilter, SessionScope, WaitState,
};
use quorate_statemachine::Name;
use quorate_statemachine::process::{
    AckWake, CountEvents, DeleteGrant, DetachSession, Grant, HasGrant, MoveGrants, ProcessState,
    PutGrant, Register, Selection, SetExternalRef, SetWait, WakeTarget,
};

#[async_trait::async_trait]
impl ProcessRegistry for QuorateProcesses {
    /// An answer to a write means that a majority of the nodes has it on disk.
    fn durability_tier(&self) -> DurabilityTier {
        DurabilityTier::Durable
    }

    async fn register_process(&self, registration: ProcessRegistration) -> Result<ProcessRecord> {
        let (registration, hash) = prepare_process_registration(registration)?;
        let wake_target = registration.wake_target.as_ref();
        let wake_target = wake_target
            .map(|scope| self.wake_target(scope))
            .transpose()?;
        let id = registration.id.clone();
        let definition = Definition { hash, registration };
        let register = Register {
            id: self.shared.names.process(&id)?,
            definition: to_bytes("registration", &definition)?,
            wake_target,
        };
        let registered = self.write(&id, register).await?;
        let definition = Arc::new(definition);
        let name = registered.process.id.clone();
        self.shared.keep(name, definition.clone());
        record(&registered.process, &definition)
    }

    async fn set_external_ref(
        &self,
        process_id: &str,
        external_ref: ProcessExternalRef,
    ) -> Result<ProcessRecord> {
        let set = SetExternalRef {
            id: self.shared.names.process(process_id)?,
            external_ref: to_bytes("external reference", &external_ref)?,
        };
        let set = self.write(process_id, set).await?;
        self.written(&set.process).await
    }

    async fn grant_handle(
        &self,
        session_scope: &SessionScope,
        process_id: &str,
        descriptor: ProcessHandleDescriptor,
    ) -> Result<ProcessHandleGrant> {
        let grant = Grant {
            scope: self.shared.names.scope(session_scope)?,
            session: self.shared.names.session(&session_scope.session_id)?,
            process_id: self.shared.names.process(process_id)?,
            descriptor: to_bytes("descriptor", &descriptor)?,
        };
        self.write(process_id, PutGrant { grant }).await?;
        Ok(ProcessHandleGrant {
            session_id: session_scope.session_id.clone(),
            process_id: process_id.to_owned(),
            descriptor,
        })
    }

    async fn revoke_handle(&self, session_scope: &SessionScope, process_id: &str) -> Result<()> {
        let delete = DeleteGrant {
            scope: self.shared.names.scope(session_scope)?,
            process_id: self.shared.names.process(process_id)?,
        };
        self.write(process_id, delete).await.map(drop)
    }

    async fn transfer_handle_grants(
        &self,
        from_scope: &SessionScope,
        to_scope: &SessionScope,
        process_ids: &[String],
    ) -> Result<()> {
        let ids = process_ids.iter().map(|id| self.shared.names.process(id));
        let moved = MoveGrants {
            from: self.shared.names.scope(from_scope)?,
            to: self.shared.names.scope(to_scope)?,
            to_session: self.shared.names.session(&to_scope.session_id)?,
            process_ids: ids.collect::<Result<Vec<Name>>>()?,
        };
        let moved = self.shared.client.execute(moved).await;
        let what = || {
            let (from, to) = (from_scope.id(), to_scope.id());
            format!("transfer of handle grants from `{from}` to `{to}`")
        };
        moved.map(drop).map_err(|error| failed(&what(), &error))
    }

    async fn list_handle_grants(
        &self,
        session_scope: &SessionScope,
    ) -> Result<Vec<ProcessHandleGrantEntry>> {
        self.granted_to(session_scope, false).await
    }

    async fn list_live_handle_grants(
        &self,
        session_scope: &SessionScope,
    ) -> Result<Vec<ProcessHandleGrantEntry>> {
        self.granted_to(session_scope, true).await
    }

    async fn has_handle_grant(
        &self,
        session_scope: &SessionScope,
        process_id: &str,
    ) -> Result<bool> {
        let has = HasGrant {
            scope: self.shared.names.scope(session_scope)?,
            process_id: self.shared.names.process(process_id)?,
        };
        let has = self.shared.client.process_has_grant(has).await;
        has.map_err(|error| about(process_id, error))
    }

    async fn handle_grants_for_process(&self, process_id: &str) -> Result<Vec<ProcessHandleGrant>> {
        self.granted_of(process_id).await
    }

    async fn delete_session_process_state(
        &self,
        session_id: &str,
    ) -> Result<ProcessSessionDeleteReport> {
        let detach = DetachSession {
            session: self.shared.names.session(session_id)?,
        };
        let detached = self.shared.client.execute(detach).await;
        let what = || format!("deletion of the process state of session `{session_id}`");
        let detached = detached.map_err(|error| failed(&what(), &error))?;
        let ids = |names: &[Name]| {
            let ids = names
                .iter()
                .map(|name| self.shared.names.id(name).to_owned());
            ids.collect()
        };
        Ok(ProcessSessionDeleteReport {
            session_id: session_id.to_owned(),
            revoked_handle_count: usize::try_from(detached.revoked).unwrap_or(usize::MAX),
            // Wakes stay with their events; lash's own stores delete none either.
            deleted_wake_count: 0,
            orphaned_process_ids: ids(&detached.orphaned),
            preserved_process_ids: ids(&detached.preserved),
        })
    }

    async fn append_event(
        &self,
        process_id: &str,
        request: ProcessEventAppendRequest,
    ) -> Result<ProcessEventAppendResult> {
        self.append(process_id, request).await
    }

    async fn events_after(
        &self,
        process_id: &str,
        after_sequence: u64,
    ) -> Result<Vec<ProcessEvent>> {
        self.events(process_id, after_sequence, Selection::All)
            .await
    }

    async fn count_events_through(
        &self,
        process_id: &str,
        event_type: &str,
        up_to_sequence: u64,
    ) -> Result<u64> {
        let count = CountEvents {
            id: self.shared.names.process(process_id)?,
            event_type: plain("event type", event_type)?,
            through: up_to_sequence,
        };
        let count = self.shared.client.process_count_events(count).await;
        let count = count.map_err(|error| about(process_id, error))?;
        count.ok_or_else(|| unknown(process_id))
    }

    async fn recent_events(&self, process_id: &str, limit: usize) -> Result<Vec<ProcessEvent>> {
        let last = Selection::Last(u64::try_from(limit).unwrap_or(u64::MAX));
        self.events(process_id, 0, last).await
    }

    async fn wake_events_after(
        &self,
        process_id: &str,
        after_sequence: u64,
    ) -> Result<Vec<ProcessEvent>> {
        self.events(process_id, after_sequence, Selection::PendingWakes)
            .await
    }

    async fn wait_event_after(
        &self,
        process_id: &str,
        event_type: &str,
        after_sequence: u64,
    ) -> Result<ProcessEvent> {
        let definition = self.definition(process_id).await?;
        let id = self.shared.names.process(process_id)?;
        let of = plain("event type", event_type)?;
        let stored = self.shared.waits.event(&id, &of, after_sequence).await;
        event(
            &stored.map_err(|error| about(process_id, error))?,
            &definition,
        )
    }

    async fn await_process(&self, process_id: &str) -> Result<ProcessAwaitOutput> {
        let id = self.shared.names.process(process_id)?;
        let ended = self.shared.waits.end(&id).await;
        let ended = ended.map_err(|error| about(process_id, error))?;
        let record = self.shared.record_of(&ended)?;
        let output = record.status.await_output().cloned();
        output.ok_or_else(|| session(format!("process `{process_id}` ended with no output")))
    }

    async fn complete_process(
        &self,
        process_id: &str,
        await_output: ProcessAwaitOutput,
    ) -> Result<ProcessRecord> {
        self.complete(process_id, await_output).await
    }

    async fn set_process_wait(&self, process_id: &str, wait: WaitState) -> Result<ProcessRecord> {
        let set = SetWait {
            id: self.shared.names.process(process_id)?,
            wait: Some(to_bytes("wait", &wait)?),
        };
        let set = self.write(process_id, set).await?;
        self.written(&set.process).await
    }

    async fn clear_process_wait(&self, process_id: &str) -> Result<ProcessRecord> {
        let set = SetWait {
            id: self.shared.names.process(process_id)?,
            wait: None,
        };
        let set = self.write(process_id, set).await?;
        self.written(&set.process).await
    }

    /// None also when the cluster cannot be asked: the trait has no place for an error here.
    async fn get_process(&self, process_id: &str) -> Option<ProcessRecord> {
        let view = self.view(process_id).await;
        match view.and_then(|view| self.shared.record_of(&view)) {
            Ok(record) => Some(record),
            Err(error) => {
                tracing::debug!(%error, "a process was not read");
                None
            }
        }
    }

    async fn list_processes(&self, filter: &ProcessListFilter) -> Result<Vec<ProcessRecord>> {
        let state = match filter.status {
            ProcessStatusFilter::Running => Some(ProcessState::Running),
            ProcessStatusFilter::Completed => Some(ProcessState::Succeeded),
            ProcessStatusFilter::Failed => Some(ProcessState::Failed),
            ProcessStatusFilter::Cancelled => Some(ProcessState::Cancelled),
            ProcessStatusFilter::Any => None,
        };
        let mut records = self.records(state).await?;
        records.retain(|record| filter.matches_record(record));
        Ok(records)
    }

    async fn ack_wake(&self, process_id: &str, sequence: u64) -> Result<()> {
        let ack = AckWake {
            id: self.shared.names.process(process_id)?,
            sequence,
        };
        self.write(process_id, ack).await.map(drop)
    }

    async fn list_non_terminal(&self) -> Result<Vec<ProcessRecord>> {
        self.records(Some(ProcessState::Running)).await
    }

    async fn claim_process_lease(
        &self,
        process_id: &str,
        owner_id: &str,
        lease_ttl_ms: u64,
    ) -> Result<ProcessLease> {
        self.claim(process_id, owner_id, lease_ttl_ms).await
    }

    async fn renew_process_lease(
        &self,
        lease: &ProcessLease,
        lease_ttl_ms: u64,
    ) -> Result<ProcessLease> {
        self.renew(lease, lease_ttl_ms).await
    }

    async fn complete_process_lease(&self, completion: &ProcessLeaseCompletion) -> Result<()> {
        self.complete_lease(completion).await
    }
}

impl QuorateProcesses {
    fn wake_target(&self, scope: &SessionScope) -> Result<WakeTarget> {
        Ok(WakeTarget {
            session: self.shared.names.session(&scope.session_id)?,
            target: to_bytes("wake target", scope)?,
        })
    }
}
