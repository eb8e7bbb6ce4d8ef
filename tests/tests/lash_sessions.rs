//! lash's session stores on three real nodes: their own suites, and what those leave out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, try_join_all};
use futures::stream::BoxStream;
use lash_core::runtime::{
    QueuedWorkBatchDraft, QueuedWorkClaim, QueuedWorkClaimBoundary, SessionStoreFactory,
};
use lash_core::store::{GraphCommitDelta, SessionExecutionLeaseClaimOutcome};
use lash_core::testing::conformance::{
    ReopenableRuntimePersistence, queued_process_wake_draft, runtime_persistence_reopenable,
    session_store_factory,
};
use lash_core::{
    DeliveryPolicy, DurabilityTier, LeaseOwnerIdentity, PendingTurnInputDraft, ProtocolEvent,
    RuntimeCommit, RuntimePersistence, RuntimeSessionState, RuntimeTurnCommitStamp,
    SessionEventRecord, SessionExecutionLease, SessionGraph, SessionNodePayload, SessionNodeRecord,
    SessionReadScope, SlotPolicy, StoreError, TurnInput, TurnInputClaim, TurnInputIngress,
    TurnInputState,
};
use quorate_client::{
    Answered, Client, ExecuteOptions, Executed, NodeError, ReadOptions, Transport, WatchEvent,
    WatchWhat,
};
use quorate_lash::{FencingTokens, QuorateSession, QuorateSessions};
use quorate_tests::cluster::{Options, scenario};
use quorate_tests::long_form;
use quorate_tests::wait::{PATIENCE, until};
use serde_json::json;

#[path = "../../adapters/lash/examples/session/main.rs"]
#[allow(dead_code, reason = "its main is for people")]
mod story;

const NODE: &str = env!("CARGO_BIN_EXE_test-node");

/// Ends only by its holder's will.
const TTL_MS: u64 = 60_000;

const ROOT: &str = "root";

fn sessions(endpoints: &[String], namespace: &str, tokens: FencingTokens) -> QuorateSessions {
    let built = QuorateSessions::connect(endpoints.iter().cloned())
        .namespace(namespace)
        .fencing_tokens(tokens)
        .timeout(PATIENCE)
        .build();
    built.expect("the options are right")
}

fn store(endpoints: &[String], namespace: &str) -> QuorateSession {
    let sessions = sessions(endpoints, namespace, FencingTokens::LogIndex);
    sessions.session(ROOT).expect("the id is right")
}

/// Two handles, each with connections of its own, on a store that nobody else has.
fn fresh(endpoints: Vec<String>) -> impl Fn() -> ReopenableRuntimePersistence {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    move || {
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let handle = || Arc::new(store(&endpoints, &format!("suite-{number}")));
        ReopenableRuntimePersistence {
            open: handle(),
            reopen: handle(),
        }
    }
}

/// On one thread, which the manifest's methods block.
#[tokio::test]
async fn the_suite_of_sessions_passes_on_three_nodes() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        runtime_persistence_reopenable(fresh(cluster.endpoints())).await;
        cluster.digests_agree().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_of_the_factory_passes_on_three_nodes() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let (endpoints, made) = (cluster.endpoints(), AtomicUsize::new(0));
        let factory = || -> Arc<dyn SessionStoreFactory> {
            let number = made.fetch_add(1, Ordering::Relaxed);
            let namespace = format!("factory-{number}");
            Arc::new(sessions(&endpoints, &namespace, FencingTokens::Epoch))
        };
        session_store_factory(factory, DurabilityTier::Durable).await;
        cluster.digests_agree().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_suite_of_sessions_passes_while_leaders_are_killed() -> Result<()> {
    const KILLS: usize = 3;
    scenario(Options::new(NODE, 3), async |cluster| {
        let over = Arc::new(AtomicBool::new(false));
        let suites = tokio::spawn({
            let (over, make) = (over.clone(), fresh(cluster.endpoints()));
            async move {
                let mut passed = 0;
                while !over.load(Ordering::Relaxed) {
                    runtime_persistence_reopenable(&make).await;
                    passed += 1;
                }
                passed
            }
        });
        for _ in 0..KILLS {
            cluster.hurt().await?;
        }
        over.store(true, Ordering::Relaxed);
        let passed: usize = suites.await.context("the suite failed")?;
        println!("the suite passed {passed} times beside {KILLS} kills");
        cluster.digests_agree().await
    })
    .await
}

/// A transport whose answers get lost: the client is cut off after it has sent.
struct Cutting {
    inner: Arc<dyn Transport>,
    cuts: Arc<AtomicUsize>,
}

impl Cutting {
    async fn cut(&self, command: Bytes, options: ExecuteOptions) -> Result<Executed, NodeError> {
        let executing = self.inner.execute(command, options);
        // At any moment between sending and answering, or just after the answer was sent.
        let moment = match fastrand::u8(..6) {
            0 => Duration::from_micros(fastrand::u64(..3_000)),
            1 | 2 => PATIENCE,
            _ => return executing.await,
        };
        let _ = tokio::time::timeout(moment, executing).await;
        self.cuts.fetch_add(1, Ordering::Relaxed);
        Err(NodeError::OutcomeUnknown {
            message: "the connection was cut".to_owned(),
        })
    }
}

impl Transport for Cutting {
    fn execute(
        &self,
        command: Bytes,
        options: ExecuteOptions,
    ) -> BoxFuture<'_, Result<Executed, NodeError>> {
        self.cut(command, options).boxed()
    }

    fn read(
        &self,
        query: Bytes,
        options: ReadOptions,
    ) -> BoxFuture<'_, Result<Answered, NodeError>> {
        self.inner.read(query, options)
    }

    fn watch(
        &self,
        what: WatchWhat,
        from_index: u64,
    ) -> BoxFuture<'_, Result<BoxStream<'static, WatchEvent>, NodeError>> {
        self.inner.watch(what, from_index)
    }

    fn seen_index(&self) -> u64 {
        self.inner.seen_index()
    }

    fn ready(&self, deadline: tokio::time::Instant) -> BoxFuture<'_, Result<u64, NodeError>> {
        self.inner.ready(deadline)
    }
}

fn owner(id: &str) -> LeaseOwnerIdentity {
    LeaseOwnerIdentity::opaque(id, format!("{id}-1"))
}

fn node(id: &str, parent: Option<&str>, text: &str) -> SessionNodeRecord {
    let event = ProtocolEvent::typed("test", json!({ "text": text }));
    SessionNodeRecord {
        node_id: id.to_owned(),
        parent_node_id: parent.map(str::to_owned),
        caused_by: None,
        agent_frame_id: None,
        timestamp: "1970-01-01T00:00:00Z".to_owned(),
        payload: SessionNodePayload::Event {
            event: SessionEventRecord::Protocol(event.expect("it is JSON")),
        },
    }
}

fn commit(session_id: &str, graph: GraphCommitDelta) -> RuntimeCommit {
    let state = RuntimeSessionState {
        session_id: session_id.to_owned(),
        execution_state_snapshot: Some(b"vm".to_vec()),
        ..RuntimeSessionState::default()
    };
    RuntimeCommit {
        graph,
        ..RuntimeCommit::persisted_state(&state, &[])
    }
}

async fn lease(
    store: &QuorateSession,
    owner: &LeaseOwnerIdentity,
) -> Result<SessionExecutionLease> {
    let claimed = store.try_claim_session_execution_lease(ROOT, owner, TTL_MS);
    claimed.await?.acquired().context("the lease is held")
}

async fn claim_work(
    store: &QuorateSession,
    lease: &SessionExecutionLease,
) -> Result<Option<QueuedWorkClaim>> {
    let (fence, idle) = (lease.fence(), QueuedWorkClaimBoundary::Idle);
    let claimed = store.claim_ready_queued_work(ROOT, &fence, &lease.owner, idle, TTL_MS, 10);
    Ok(claimed.await?)
}

async fn claim_inputs(
    store: &QuorateSession,
    lease: &SessionExecutionLease,
) -> Result<Option<TurnInputClaim>> {
    let fence = lease.fence();
    let claimed = store.claim_next_turn_inputs(ROOT, &fence, &lease.owner, TTL_MS, 10);
    Ok(claimed.await?)
}

fn work(turn: usize) -> QueuedWorkBatchDraft {
    let policy = DeliveryPolicy::AfterCurrentTurnCommit;
    let draft = queued_process_wake_draft(ROOT, &turn.to_string(), policy, SlotPolicy::Exclusive);
    draft.with_source_key(format!("work-{turn}"))
}

fn input(turn: usize) -> PendingTurnInputDraft {
    let input = TurnInput::text(turn.to_string());
    let draft = PendingTurnInputDraft::new(ROOT, TurnInputIngress::NextTurn, input);
    draft.with_source_key(format!("input-{turn}"))
}

/// `LASH_TURNS` is the long form: 400.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_turn_is_committed_once_when_replies_are_lost() -> Result<()> {
    const SESSIONS: usize = 12;
    let turns = long_form("LASH_TURNS", 60);
    scenario(Options::new(NODE, 3), async |cluster| {
        let cuts = Arc::new(AtomicUsize::new(0));
        let running = (0..SESSIONS).map(|number| {
            let talk = Talk {
                endpoints: cluster.endpoints(),
                namespace: format!("talk-{number}"),
                cuts: Arc::clone(&cuts),
            };
            tokio::spawn(async move { talk.run(turns).await })
        });
        let running: Vec<_> = running.collect();
        cluster.hurt().await?;
        for ran in try_join_all(running).await? {
            ran?;
        }
        let (turns, cuts) = (SESSIONS * turns, cuts.load(Ordering::Relaxed));
        println!("{turns} turns, {cuts} answers lost");
        ensure!(cuts >= 2 * turns, "only {cuts} answers were lost");
        cluster.digests_agree().await
    })
    .await
}

/// One session whose client loses answers.
struct Talk {
    endpoints: Vec<String>,
    namespace: String,
    cuts: Arc<AtomicUsize>,
}

impl Talk {
    /// A handle that knows nothing, as after a restart of its host.
    fn handle(&self) -> Result<QuorateSession> {
        let client = Client::connect(self.endpoints.iter().cloned())?;
        let cutting = Cutting {
            inner: Arc::clone(client.transport()),
            cuts: Arc::clone(&self.cuts),
        };
        let sessions = QuorateSessions::over(Client::new(cutting))
            .namespace(&self.namespace)
            .timeout(PATIENCE)
            .build()?;
        Ok(sessions.session(ROOT)?)
    }

    async fn run(&self, turns: usize) -> Result<()> {
        let mut store = self.handle()?;
        let lease = lease(&store, &owner("a")).await?;
        for turn in 0..turns {
            for _ in 0..2 {
                store.enqueue_queued_work(work(turn)).await?;
                store.enqueue_pending_turn_input(input(turn)).await?;
            }
            let work = claim_work(&store, &lease)
                .await?
                .context("work is queued")?;
            let inputs = claim_inputs(&store, &lease)
                .await?
                .context("an input waits")?;
            ensure!(work.batches.len() == 1 && inputs.inputs.len() == 1);
            let commit = self.turn(&lease, turn, &work, &inputs);
            let first = store.commit_runtime_state(commit.clone()).await?;
            ensure!(
                first.head_revision == turn as u64 + 1,
                "{first:?} is turn {turn}"
            );
            // The host lost the answer with its life: another handle asks again.
            if fastrand::bool() {
                store = self.handle()?;
                let again = store.commit_runtime_state(commit).await?;
                ensure!(again.head_revision == first.head_revision);
            }
            let left = store.list_queued_work(ROOT).await?;
            ensure!(
                left.is_empty(),
                "turn {turn} settled its work and left {left:?}"
            );
        }
        self.check(turns).await
    }

    fn turn(
        &self,
        lease: &SessionExecutionLease,
        turn: usize,
        work: &QueuedWorkClaim,
        inputs: &TurnInputClaim,
    ) -> RuntimeCommit {
        let before = turn.checked_sub(1).map(|before| format!("n{before}"));
        let node = node(&format!("n{turn}"), before.as_deref(), "a turn");
        let graph = GraphCommitDelta::Append {
            leaf_node_id: Some(node.node_id.clone()),
            nodes: vec![node],
        };
        let commit = RuntimeCommit {
            expected_head_revision: Some(turn as u64),
            ..commit(ROOT, graph)
        };
        let stamp = RuntimeTurnCommitStamp::new(ROOT, format!("turn-{turn}"), format!("h{turn}"));
        commit
            .with_session_execution_lease(lease.fence())
            .with_turn_commit(stamp)
            .completing_queue_claim(work.completion())
            .completing_turn_input_claim(inputs.completion())
    }

    async fn check(&self, turns: usize) -> Result<()> {
        let store = store(&self.endpoints, &self.namespace);
        let read = store.load_session(SessionReadScope::FullGraph).await?;
        let read = read.context("it was committed to")?;
        ensure!(
            read.head_revision == turns as u64,
            "{} turns",
            read.head_revision
        );
        let nodes: Vec<_> = read
            .graph
            .nodes
            .iter()
            .map(|node| node.node_id.clone())
            .collect();
        let wanted: Vec<_> = (0..turns).map(|turn| format!("n{turn}")).collect();
        ensure!(nodes == wanted, "{nodes:?}");
        ensure!(store.list_pending_turn_inputs(ROOT).await?.is_empty());
        for turn in 0..turns {
            let known = store.enqueue_pending_turn_input(input(turn)).await?;
            ensure!(known.state == TurnInputState::Completed, "{known:?}");
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_runtime_that_was_paused_past_its_lease_lands() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let (paused, other) = (
            store(&cluster.endpoints(), "paused"),
            store(&cluster.endpoints(), "paused"),
        );
        let graph = || GraphCommitDelta::Append {
            nodes: vec![node("stale", None, "stale")],
            leaf_node_id: None,
        };
        let Some(old) = paused
            .try_claim_session_execution_lease(ROOT, &owner("paused"), 300)
            .await?
            .acquired()
        else {
            anyhow::bail!("nobody else wants the lease yet");
        };
        paused.enqueue_queued_work(work(0)).await?;
        paused.enqueue_pending_turn_input(input(0)).await?;
        let old_work = claim_work(&paused, &old).await?;
        let old_inputs = claim_inputs(&paused, &old).await?;
        // It stands still. The other one gets the lease when its time is over, and not before.
        let own = until("the lease to be over", PATIENCE, async || {
            let owner = owner("other");
            let claimed = other.try_claim_session_execution_lease(ROOT, &owner, TTL_MS);
            Ok(claimed.await?.acquired())
        })
        .await?;
        let first = commit(
            ROOT,
            GraphCommitDelta::Append {
                nodes: vec![node("live", None, "live")],
                leaf_node_id: None,
            },
        );
        let first = first.with_session_execution_lease(own.fence());
        other.commit_runtime_state(first).await?;

        let stale = commit(ROOT, graph()).with_session_execution_lease(old.fence());
        let stale = stale
            .completing_queue_claims(old_work.iter().map(QueuedWorkClaim::completion))
            .completing_turn_input_claims(old_inputs.iter().map(TurnInputClaim::completion));
        let lost =
            |error: &StoreError| matches!(error, StoreError::SessionExecutionLeaseExpired { .. });
        let refused = paused.commit_runtime_state(stale).await;
        ensure!(refused.is_err_and(|error| lost(&error)));
        let refused = paused
            .renew_session_execution_lease(&old.fence(), TTL_MS)
            .await;
        ensure!(refused.is_err_and(|error| lost(&error)));
        ensure!(claim_work(&paused, &old).await.is_err());
        ensure!(claim_inputs(&paused, &old).await.is_err());
        paused
            .release_session_execution_lease(&old.completion())
            .await?;
        let again = owner("paused");
        let claimed = paused.try_claim_session_execution_lease(ROOT, &again, TTL_MS);
        ensure!(matches!(
            claimed.await?,
            SessionExecutionLeaseClaimOutcome::Busy { holder } if holder.fence() == own.fence()
        ));
        let read = other.load_session(SessionReadScope::FullGraph).await?;
        let read = read.context("it was committed to")?;
        ensure!(read.head_revision == 1 && read.graph.nodes.len() == 1);
        ensure!(read.graph.nodes[0].node_id == "live");
        ensure!(
            other.list_queued_work(ROOT).await?.len() == 1,
            "its work is not settled"
        );
        Ok(())
    })
    .await
}

/// `LASH_NODES` and `LASH_NODE_BYTES` are the long form: 100000 and 2560, 256 MB.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_session_is_committed_loaded_and_moved_to_a_new_member() -> Result<()> {
    let (count, bytes) = (
        long_form("LASH_NODES", 9_000),
        long_form("LASH_NODE_BYTES", 2_560),
    );
    scenario(Options::new(NODE, 3), async |cluster| {
        let store = store(&cluster.endpoints(), "large");
        let lease = lease(&store, &owner("a")).await?;
        let text = "x".repeat(bytes);
        let id = |at: usize| format!("n{at}");
        let nodes = (0..count).map(|at| {
            let before = at.checked_sub(1).map(id);
            node(&id(at), before.as_deref(), &text)
        });
        let mut nodes: Vec<_> = nodes.collect();
        let whole = |nodes: &[SessionNodeRecord]| {
            let leaf = nodes.last().map(|node| node.node_id.clone());
            let graph = SessionGraph::from_nodes(nodes.to_vec(), leaf);
            let commit = commit(ROOT, GraphCommitDelta::ReplaceFull(graph));
            commit.with_session_execution_lease(lease.fence())
        };
        let started = std::time::Instant::now();
        store.commit_runtime_state(whole(&nodes)).await?;
        println!(
            "{count} nodes of {bytes} bytes committed in {:?}",
            started.elapsed()
        );
        nodes.push(node("last", Some(&id(count - 1)), "small"));
        let started = std::time::Instant::now();
        store.commit_runtime_state(whole(&nodes)).await?;
        println!("a node more committed in {:?}", started.elapsed());

        let new = cluster.prepare_node()?;
        cluster.add_node(new).await?;
        let there = [cluster.nodes[new].client_addr().to_owned()];
        let reader = self::store(&there, "large");
        let started = std::time::Instant::now();
        let read = reader.load_session(SessionReadScope::FullGraph).await?;
        let read = read.context("it was committed to")?;
        println!("loaded in {:?}", started.elapsed());
        ensure!(read.graph.nodes.len() == count + 1);
        ensure!(read.head_revision == 2);
        let same = read.graph.nodes.iter().zip(&nodes).all(|(read, given)| {
            serde_json::to_string(read).ok() == serde_json::to_string(given).ok()
        });
        ensure!(same, "what was read is what was given");
        let path = SessionReadScope::ActivePath {
            leaf_node_id: Some(id(10)),
        };
        let read = reader.load_session(path).await?.context("it is there")?;
        ensure!(read.graph.nodes.len() == 11);
        cluster.digests_agree().await
    })
    .await
}

/// Each host asks a node of its own, which dies with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_outlives_the_nodes_of_its_hosts() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let endpoints = cluster.endpoints();
        let host = |at: usize| -> Arc<dyn SessionStoreFactory> {
            let own = &endpoints[at..=at];
            Arc::new(sessions(own, "story", FencingTokens::LogIndex))
        };
        let hosts = [host(0), host(1), host(2)];
        let report = story::story(hosts, async |dead| {
            if let Some(before) = dead.checked_sub(1) {
                cluster.nodes[before].start()?;
                cluster.caught_up(before).await?;
            }
            cluster.nodes[dead].kill()?;
            cluster.leader().await?;
            Ok(())
        });
        let report = report.await.map_err(|error| anyhow::anyhow!(error))?;
        story::check(&report).map_err(|error| anyhow::anyhow!(error))?;
        Ok(())
    })
    .await
}
