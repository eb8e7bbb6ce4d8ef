//! A node as the transport of a client in the same process: no sockets, no copies.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use quorate_client::{
    Answered, ExecuteOptions, Executed, ReadOptions, Transport, WatchEvent, WatchWhat,
};
use quorate_rpc::{NodeError, Trace};
use quorate_statemachine::Query;

use crate::access::{Guest, Watching};
use crate::origin::{Caller, Origin};
use crate::propose::Submission;
use crate::respond;
use crate::shared::Shared;

/// Carries a client's commands and queries to a node in this process, which passes on to the leader
/// what it cannot do itself.
#[derive(Clone)]
pub struct Embedded {
    shared: Arc<Shared>,
    caller: Caller,
}

impl Embedded {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let caller = Caller::embedded(&shared.member().name);
        Self { shared, caller }
    }

    fn origin(&self, trace: Option<Trace>) -> Origin {
        Origin {
            caller: self.caller.clone(),
            trace,
        }
    }

    async fn execute_here(
        &self,
        command: Bytes,
        options: ExecuteOptions,
    ) -> Result<Executed, NodeError> {
        let core = self.shared.core()?;
        let submit = |responder| {
            core.submit(Submission {
                command,
                origin: self.origin(options.trace),
                deadline: options.deadline,
                allow_zero_ttl: options.allow_zero_ttl,
                responder,
            });
        };
        respond::answer_of(options.deadline, respond::command_lost, submit).await
    }

    async fn read_here(&self, query: Bytes, options: ReadOptions) -> Result<Answered, NodeError> {
        let query = Query::decode(&query)?;
        let core = self.shared.core()?;
        core.reader()
            .read(query, self.origin(options.trace), options)
            .await
    }
}

impl Transport for Embedded {
    fn execute(
        &self,
        command: Bytes,
        options: ExecuteOptions,
    ) -> BoxFuture<'_, Result<Executed, NodeError>> {
        self.execute_here(command, options).boxed()
    }

    fn read(
        &self,
        query: Bytes,
        options: ReadOptions,
    ) -> BoxFuture<'_, Result<Answered, NodeError>> {
        self.read_here(query, options).boxed()
    }

    fn watch(
        &self,
        what: WatchWhat,
        from_index: u64,
    ) -> BoxFuture<'_, Result<BoxStream<'static, WatchEvent>, NodeError>> {
        async move {
            let core = self.shared.core()?;
            let guest = Guest::embedded(&core, self.caller.clone());
            let watching = Watching::start(&core, guest, what, from_index).await?;
            // An error is the last: to its reader that is a lost node, and it watches anew.
            let events = watching.events();
            Ok(events
                .filter_map(|event| std::future::ready(event.ok()))
                .boxed())
        }
        .boxed()
    }

    fn seen_index(&self) -> u64 {
        self.shared
            .core()
            .map_or(0, |core| *core.hub.applied().borrow())
    }
}
