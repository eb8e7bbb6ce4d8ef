//! One look at the cluster: reads on the way that all reads take.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use quorate_client::{Answered, Consistency, ReadOptions};
use quorate_rpc::NodeError;
use quorate_statemachine::access::{self, StatusOf};
use quorate_statemachine::queue::{self, ItemState};
use quorate_statemachine::{Answer, Name, Query, lease, lock, process};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::reader::Reader;
use super::rows;
use crate::core::Core;
use crate::membership::members;
use crate::origin::Caller;
use crate::shared::Shared;

/// Rows of each table; who looks for others gives a prefix.
pub const ROWS_MAX: u32 = 200;

/// Queues whose first item is looked at for its age.
const AGES_MAX: usize = 50;

/// How long a read may take before the page shows what this node has.
const PATIENCE: Duration = Duration::from_secs(1);

/// Reads as of one moment: confirmed by the leader's lease where there is a leader, else as this
/// node has it, and it says which.
pub struct Look {
    core: Arc<Core>,
    caller: Caller,
    fresh: bool,
    /// Cluster time, to tell what is left of a lease.
    now_ms: u64,
}

impl Look {
    /// Finds out whether a leader confirms what is read.
    pub async fn open(core: Arc<Core>, reader: &Reader) -> Result<Self, NodeError> {
        let mut look = Self {
            caller: reader.caller(&core)?,
            core,
            fresh: true,
            now_ms: 0,
        };
        // The node's own question, about no key: whoever may read few keys has a look as well.
        let asked = || Query::Access(access::Query::Status(StatusOf {}));
        let answered = match look.ask_as(Caller::Cluster, asked()).await {
            Ok(answered) => answered,
            Err(_) => {
                look.fresh = false;
                look.ask_as(Caller::Cluster, asked()).await?
            }
        };
        look.now_ms = answered.now.0;
        Ok(look)
    }

    /// Cluster time of the look.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Whether a leader confirmed it.
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// One read.
    pub async fn ask(&self, query: Query) -> Result<Answered, NodeError> {
        self.ask_as(self.caller.clone(), query).await
    }

    async fn ask_as(&self, caller: Caller, query: Query) -> Result<Answered, NodeError> {
        let consistency = match self.fresh {
            true => Consistency::Lease,
            false => Consistency::Stale { max_lag_ms: None },
        };
        let options = ReadOptions {
            deadline: Instant::now() + PATIENCE,
            consistency,
            min_index: 0,
            trace: None,
        };
        let reader = self.core.reader();
        reader.read(query, caller.into(), options).await
    }

    async fn leases(&self, prefix: &str) -> Result<Value, NodeError> {
        let query = lease::Query::List(list_leases(prefix, ROWS_MAX));
        match self.ask(Query::Lease(query)).await?.answer {
            Answer::Lease(lease::Answer::List(page)) => Ok(rows::page(&page, rows::lease)),
            other => Err(unexpected(&other)),
        }
    }

    async fn locks(&self, prefix: &str) -> Result<Value, NodeError> {
        let query = lock::Query::List(lock::List {
            prefix: prefix.to_owned(),
            after: None,
            limit: ROWS_MAX,
        });
        match self.ask(Query::Lock(query)).await?.answer {
            Answer::Lock(lock::Answer::List(page)) => Ok(rows::page(&page, rows::lock)),
            other => Err(unexpected(&other)),
        }
    }

    async fn processes(&self, prefix: &str) -> Result<Value, NodeError> {
        let query = process::Query::List(process::List {
            prefix: prefix.to_owned(),
            state: None,
            after: None,
            limit: ROWS_MAX,
        });
        match self.ask(Query::Process(query)).await?.answer {
            Answer::Process(process::Answer::List(page)) => Ok(rows::page(&page, rows::process)),
            other => Err(unexpected(&other)),
        }
    }

    async fn queues(&self, prefix: &str) -> Result<Value, NodeError> {
        let query = queue::Query::List(queue::List {
            prefix: prefix.to_owned(),
            after: None,
            limit: ROWS_MAX,
        });
        let page = match self.ask(Query::Queue(query)).await?.answer {
            Answer::Queue(queue::Answer::List(page)) => page,
            other => return Err(unexpected(&other)),
        };
        let first = page.rows.iter().enumerate().map(|(n, queue)| async move {
            match n < AGES_MAX && queue.ready > 0 {
                true => self.ready_since(&queue.name).await,
                false => None,
            }
        });
        let since = join_all(first).await;
        let shown = page.rows.iter().zip(since);
        let shown = shown.map(|(queue, since)| rows::queue(queue, since));
        Ok(json!({"rows": shown.collect::<Vec<_>>(), "more": page.next.is_some()}))
    }

    /// Since when the item that is next in line can be claimed.
    async fn ready_since(&self, queue: &Name) -> Option<u64> {
        let query = Query::Queue(queue::Query::ListItems(queue::ListItems {
            queue: queue.clone(),
            state: Some(ItemState::Ready),
            after: None,
            limit: 1,
        }));
        match self.ask(query).await.ok()?.answer {
            Answer::Queue(queue::Answer::ListItems(Some(page))) => {
                page.rows.first().map(|first| first.item.available_at.0)
            }
            _ => None,
        }
    }
}

fn list_leases(prefix: &str, limit: u32) -> lease::List {
    lease::List {
        prefix: prefix.to_owned(),
        after: None,
        limit,
    }
}

/// An answer of another kind than the question.
pub fn unexpected(answer: &Answer) -> NodeError {
    NodeError::Stopped {
        message: format!("the state machine answered another question: {answer:?}"),
    }
}

/// All that the page shows at once: by table, those whose key starts with `prefix`.
pub async fn overview(
    shared: &Shared,
    reader: &Reader,
    prefix: &str,
) -> Vec<(&'static str, Value)> {
    let look = match shared.core() {
        Ok(core) => Look::open(core, reader).await,
        Err(error) => Err(error),
    };
    let look = match look {
        Ok(look) => look,
        Err(error) => return vec![("cluster", cluster(shared, None, Some(&error)))],
    };
    let (leases, locks, processes, queues) = tokio::join!(
        look.leases(prefix),
        look.locks(prefix),
        look.processes(prefix),
        look.queues(prefix),
    );
    let mut parts = vec![("cluster", cluster(shared, Some(&look), None))];
    let tables = [
        ("leases", leases),
        ("locks", locks),
        ("processes", processes),
        ("queues", queues),
    ];
    for (name, table) in tables {
        let shown = table.unwrap_or_else(|error| json!({"problem": error.to_string()}));
        parts.push((name, shown));
    }
    parts
}

fn cluster(shared: &Shared, look: Option<&Look>, problem: Option<&NodeError>) -> Value {
    let status = shared.status();
    let core = shared.running();
    let members = core.as_ref().map(|core| members(core.raft()));
    let members = members.unwrap_or_default();
    let sizes = core.as_ref().map(|core| core.state.sizes());
    let recorded = core.as_ref().and_then(|core| core.state.digests().pop());
    json!({
        "node": rows::node(&status),
        "members": members.iter().map(|it| rows::member(it, &status)).collect::<Vec<_>>(),
        "alarms": status.alarms.iter().map(rows::alarm).collect::<Vec<_>>(),
        "disk_bytes": sizes.map(|sizes| sizes.disk_bytes),
        "digest_at": recorded.map(|(index, digest)| json!({
            "index": index.to_string(), "digest": digest.to_string(),
        })),
        "now_ms": look.map(Look::now_ms),
        "fresh": look.is_some_and(Look::is_fresh),
        "controlled": core.is_some_and(|core| core.state.access().0.enabled),
        "problem": problem.map(ToString::to_string),
    })
}
