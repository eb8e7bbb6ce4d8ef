//! What each method of the trait costs: counted at the transport.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use lash_core::{
    ProcessAwaitOutput, ProcessEventAppendRequest, ProcessExternalRef, ProcessInput,
    ProcessLeaseCompletion, ProcessListFilter, ProcessProvenance, ProcessRegistration,
    ProcessRegistry, SessionScope, WaitState,
};
use quorate_client::testing::MemoryTransport;
use quorate_client::{
    Answered, Client, ExecuteOptions, Executed, NodeError, ReadOptions, Transport, WatchEvent,
    WatchWhat,
};
use quorate_lash::QuorateProcesses;
use serde_json::json;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

#[derive(Default)]
struct Counts {
    writes: AtomicUsize,
    reads: AtomicUsize,
}

impl Counts {
    /// Writes and reads since this was asked last.
    fn take(&self) -> (usize, usize) {
        let take = |count: &AtomicUsize| count.swap(0, Ordering::Relaxed);
        (take(&self.writes), take(&self.reads))
    }
}

struct Counting {
    inner: MemoryTransport,
    counts: Arc<Counts>,
}

impl Transport for Counting {
    fn execute(
        &self,
        command: bytes::Bytes,
        options: ExecuteOptions,
    ) -> BoxFuture<'_, std::result::Result<Executed, NodeError>> {
        self.counts.writes.fetch_add(1, Ordering::Relaxed);
        self.inner.execute(command, options)
    }

    fn read(
        &self,
        query: bytes::Bytes,
        options: ReadOptions,
    ) -> BoxFuture<'_, std::result::Result<Answered, NodeError>> {
        self.counts.reads.fetch_add(1, Ordering::Relaxed);
        self.inner.read(query, options)
    }

    fn watch(
        &self,
        what: WatchWhat,
        from_index: u64,
    ) -> BoxFuture<'_, std::result::Result<BoxStream<'static, WatchEvent>, NodeError>> {
        self.inner.watch(what, from_index)
    }

    fn seen_index(&self) -> u64 {
        self.inner.seen_index()
    }
}

fn registration(id: &str) -> ProcessRegistration {
    let input = ProcessInput::External {
        metadata: json!({}),
    };
    ProcessRegistration::new(id, input, ProcessProvenance::host())
}

fn cancel(id: &str) -> ProcessEventAppendRequest {
    ProcessEventAppendRequest::cancel_requested(id, None)
}

const WRITE: (usize, usize) = (1, 0);
const READ: (usize, usize) = (0, 1);

#[tokio::test]
async fn a_call_costs_one_command_or_one_read() -> Result {
    let counts = Arc::new(Counts::default());
    let client = Client::new(Counting {
        inner: MemoryTransport::new(),
        counts: counts.clone(),
    });
    let registry = QuorateProcesses::over(client).build()?;
    let (one, two) = (SessionScope::new("s1"), SessionScope::new("s2"));
    let wait: WaitState = serde_json::from_value(json!({
        "kind": {
            "kind": "signal", "name": "n", "event_type": "signal.n", "key": "k", "ordinal": 1,
        },
        "since_ms": 1,
    }))?;
    let done = ProcessAwaitOutput::Success {
        value: json!(1),
        control: None,
    };
    macro_rules! costs {
        ($($call:ident($($argument:expr),*) $cost:expr;)*) => {$(
            let _ = registry.$call($($argument),*).await;
            assert_eq!(counts.take(), $cost, stringify!($call));
        )*};
    }
    costs! {
        register_process(registration("p")) WRITE;
        set_external_ref("p", ProcessExternalRef::default()) WRITE;
        grant_handle(&one, "p", Default::default()) WRITE;
        transfer_handle_grants(&one, &two, &["p".to_owned()]) WRITE;
        revoke_handle(&one, "p") WRITE;
        list_handle_grants(&two) READ;
        list_live_handle_grants(&two) READ;
        has_handle_grant(&two, "p") READ;
        handle_grants_for_process("p") READ;
        append_event("p", cancel("p")) WRITE;
        events_after("p", 0) READ;
        count_events_through("p", "process.cancel_requested", 9) READ;
        recent_events("p", 3) READ;
        wake_events_after("p", 0) READ;
        wait_event_after("p", "process.cancel_requested", 0) READ;
        set_process_wait("p", wait) WRITE;
        clear_process_wait("p") WRITE;
        ack_wake("p", 1) WRITE;
        get_process("p") READ;
        list_processes(&ProcessListFilter::default()) READ;
        list_non_terminal() READ;
        claim_process_lease("p", "w", 1_000) WRITE;
        delete_session_process_state("s2") WRITE;
    }
    let lease = registry.claim_process_lease("p", "w", 1_000).await?;
    counts.take();
    costs! {
        renew_process_lease(&lease, 1_000) WRITE;
        complete_process_lease(&ProcessLeaseCompletion::from_lease(&lease)) WRITE;
        complete_process("p", done) WRITE;
        await_process("p") READ;
    }
    // Another worker's registry reads the definition once, then no more.
    let client = registry_over_the_same(&registry);
    client.append_event("p", cancel("p")).await?;
    assert_eq!(counts.take(), (1, 1));
    client.append_event("p", cancel("p")).await?;
    assert_eq!(counts.take(), WRITE);
    Ok(())
}

/// A registry that has read nothing yet.
fn registry_over_the_same(registry: &QuorateProcesses) -> QuorateProcesses {
    let built = QuorateProcesses::over(registry.client().clone()).build();
    built.expect("the options are right")
}
