//! Listings and events: as many pages as it takes, of the cluster's linearizable reads.

use lash_core::runtime::ProcessHandleGrantEntry;
use lash_core::{ProcessEvent, ProcessHandleGrant, ProcessRecord, SessionScope};
use quorate_statemachine::process::{
    Events, Grant, GrantsOf, GrantsTo, List, ProcessState, Selection,
};
use quorate_statemachine::{Name, process};

use crate::error::{Result, about, failed, unknown};
use crate::names::plain;
use crate::record::{event, grant};
use crate::registry::QuorateProcesses;

impl QuorateProcesses {
    /// Records in id order.
    pub(crate) async fn records(&self, state: Option<ProcessState>) -> Result<Vec<ProcessRecord>> {
        let mut records = Vec::new();
        let mut after = None;
        loop {
            let list = List {
                prefix: self.shared.names.prefix().to_owned(),
                state,
                after,
                limit: 0,
            };
            let page = self.shared.client.process_list(list).await;
            let page = page.map_err(|error| failed("list of processes", &error))?;
            records.extend(page.rows.iter().filter_map(|view| self.listed(view)));
            let Some(next) = page.next else {
                return Ok(records);
            };
            after = Some(plain("process id", &next)?);
        }
    }

    /// One row that cannot be read must not keep all others from a recovery.
    fn listed(&self, view: &process::ProcessView) -> Option<ProcessRecord> {
        match self.shared.record_of(view) {
            Ok(record) => Some(record),
            Err(error) => {
                tracing::warn!(%error, "a process is left out of a list");
                None
            }
        }
    }

    /// Events of a process above `after`.
    pub(crate) async fn events(
        &self,
        process_id: &str,
        mut after: u64,
        only: Selection,
    ) -> Result<Vec<ProcessEvent>> {
        let definition = self.definition(process_id).await?;
        let id = self.shared.names.process(process_id)?;
        let mut events = Vec::new();
        loop {
            let asked = Events {
                id: id.clone(),
                after,
                only: only.clone(),
                limit: 0,
            };
            let page = self.shared.client.process_events(asked).await;
            let page = page.map_err(|error| about(process_id, error))?;
            let page = page.ok_or_else(|| unknown(process_id))?;
            for stored in &page.rows {
                after = stored.sequence;
                events.push(event(stored, &definition)?);
            }
            if page.next.is_none() {
                return Ok(events);
            }
        }
    }

    /// What a scope may use, in id order.
    pub(crate) async fn granted_to(
        &self,
        scope: &SessionScope,
        running: bool,
    ) -> Result<Vec<ProcessHandleGrantEntry>> {
        let scope = self.shared.names.scope(scope)?;
        let mut entries = Vec::new();
        let mut after = None;
        loop {
            let asked = GrantsTo {
                scope: scope.clone(),
                running,
                after,
                limit: 0,
            };
            let page = self.shared.client.process_grants_to(asked).await;
            let page = page.map_err(|error| failed("list of handle grants", &error))?;
            for (grant, view) in &page.rows {
                if let Some(record) = self.listed(view) {
                    entries.push((self.shown(grant)?, record));
                }
            }
            let Some(next) = page.next else {
                return Ok(entries);
            };
            after = Some(plain("process id", &next)?);
        }
    }

    /// Who may use a process, by session, then scope.
    pub(crate) async fn granted_of(&self, process_id: &str) -> Result<Vec<ProcessHandleGrant>> {
        let id = self.shared.names.process(process_id)?;
        let mut grants = Vec::new();
        let mut after = None;
        loop {
            let asked = GrantsOf {
                process_id: id.clone(),
                after,
                limit: 0,
            };
            let page = self.shared.client.process_grants_of(asked).await;
            let page = page.map_err(|error| about(process_id, error))?;
            let page = page.ok_or_else(|| unknown(process_id))?;
            for grant in &page.rows {
                grants.push(self.shown(grant)?);
            }
            after = match (page.next, page.rows.into_iter().next_back()) {
                (Some(_), Some(last)) => Some((last.session, last.scope)),
                _ => return Ok(grants),
            };
        }
    }

    pub(crate) fn shown(&self, stored: &Grant) -> Result<ProcessHandleGrant> {
        grant(stored, |name: &Name| self.shared.names.id(name).to_owned())
    }
}
