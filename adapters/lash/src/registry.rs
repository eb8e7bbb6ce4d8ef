//! [`QuorateProcesses`]: how it is made, and what all methods share.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use lash_core::{ProcessLease, ProcessRecord};
use lru::LruCache;
use quorate_client::{Client, ClientError, ProcessWaits};
use quorate_statemachine::process::{Process, ProcessView};
use quorate_statemachine::{Name, Operation, Precondition};

use crate::builder::{Builder, FencingTokens, Parts};
use crate::error::{Result, about, unknown};
use crate::lease::GrantToken;
use crate::names::Names;
use crate::record::{Definition, from_bytes, record};

/// Definitions that are kept: what a process was registered with never changes.
const DEFINITIONS_KEPT: NonZeroUsize = NonZeroUsize::new(4_096).expect("it is not zero");

/// lash-core's `ProcessRegistry` on a cluster. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct QuorateProcesses {
    pub(crate) shared: Arc<Shared>,
    /// Whose writes these are; see [`QuorateProcesses::fenced_by`].
    fence: Option<Fence>,
}

pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) names: Names,
    pub(crate) tokens: FencingTokens,
    pub(crate) waits: ProcessWaits,
    definitions: Mutex<LruCache<Name, Arc<Definition>>>,
}

/// A lease that writes to its process must find live.
#[derive(Debug, Clone)]
struct Fence {
    process_id: String,
    precondition: Precondition,
}

impl QuorateProcesses {
    /// A registry on the cluster that answers at `endpoints` (`host:port`); one is enough.
    pub fn connect<E: Into<String>>(endpoints: impl IntoIterator<Item = E>) -> Builder<Self> {
        Builder::connect(endpoints)
    }

    /// A registry over a client, of an embedded node for example.
    pub fn over(client: Client) -> Builder<Self> {
        Builder::over(client)
    }

    /// The client that carries its calls.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.shared.client
    }

    /// The same registry for the holder of `lease`: every write to its process is refused once the
    /// lease is over or was granted to another, and changes nothing then. Writes to other processes
    /// are as before.
    ///
    /// The trait itself fences no write; a worker that goes on after a pause must not be heard.
    pub fn fenced_by(&self, lease: &ProcessLease) -> Result<Self> {
        let token: GrantToken = lease.lease_token.parse()?;
        let key = self.shared.names.lease(&lease.process_id)?;
        let precondition = Precondition::Lease {
            key,
            token: token.fence,
        };
        Ok(Self {
            shared: self.shared.clone(),
            fence: Some(Fence {
                process_id: lease.process_id.clone(),
                precondition,
            }),
        })
    }

    /// Executes a write to `process_id`.
    pub(crate) async fn write<O: Operation>(
        &self,
        process_id: &str,
        operation: O,
    ) -> Result<O::Reply> {
        let fence = self.fence.as_ref();
        let fence = fence.filter(|fence| fence.process_id == process_id);
        let preconditions = fence.map(|fence| fence.precondition.clone());
        let client = &self.shared.client;
        client
            .execute_under(operation, preconditions.into_iter().collect())
            .await
            .map_err(|error| about(process_id, error))
    }

    /// What a process was registered with; read once.
    pub(crate) async fn definition(&self, process_id: &str) -> Result<Arc<Definition>> {
        let name = self.shared.names.process(process_id)?;
        if let Some(definition) = self.shared.kept(&name) {
            return Ok(definition);
        }
        let view = self.view(process_id).await?;
        self.shared.definition_of(&view)
    }

    pub(crate) async fn view(&self, process_id: &str) -> Result<ProcessView> {
        let name = self.shared.names.process(process_id)?;
        let process = self.shared.client.process(name.as_str());
        let view = match process {
            Ok(process) => process.get().await,
            Err(error) => Err(error),
        };
        let view = view.map_err(|error| about(process_id, error))?;
        view.ok_or_else(|| unknown(process_id))
    }

    /// The record after a write that answered with it.
    pub(crate) async fn written(&self, process: &Process) -> Result<ProcessRecord> {
        let process_id = self.shared.names.id(&process.id);
        record(process, &*self.definition(process_id).await?)
    }
}

impl Shared {
    fn kept(&self, name: &Name) -> Option<Arc<Definition>> {
        let mut definitions = self.definitions.lock().expect("nothing panics inside");
        definitions.get(name).cloned()
    }

    pub(crate) fn keep(&self, name: Name, definition: Arc<Definition>) {
        let mut definitions = self.definitions.lock().expect("nothing panics inside");
        definitions.put(name, definition);
    }

    /// Reads the definition of a view, unless it is kept.
    pub(crate) fn definition_of(&self, view: &ProcessView) -> Result<Arc<Definition>> {
        if let Some(definition) = self.kept(&view.process.id) {
            return Ok(definition);
        }
        let what = format!(
            "definition of process `{}`",
            self.names.id(&view.process.id)
        );
        let definition = Arc::new(from_bytes::<Definition>(&what, &view.definition)?);
        self.keep(view.process.id.clone(), definition.clone());
        Ok(definition)
    }

    pub(crate) fn record_of(&self, view: &ProcessView) -> Result<ProcessRecord> {
        record(&view.process, &*self.definition_of(view)?)
    }
}

impl Builder<QuorateProcesses> {
    /// Refuses an endpoint or a namespace that is none.
    pub fn build(self) -> std::result::Result<QuorateProcesses, ClientError> {
        let Parts {
            client,
            names,
            tokens,
            ..
        } = self.parts()?;
        Ok(QuorateProcesses {
            shared: Arc::new(Shared {
                waits: ProcessWaits::new(client.clone(), names.prefix()),
                client,
                names,
                tokens,
                definitions: Mutex::new(LruCache::new(DEFINITIONS_KEPT)),
            }),
            fence: None,
        })
    }
}
