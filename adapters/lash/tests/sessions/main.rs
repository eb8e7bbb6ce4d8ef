//! lash's own suites of session stores, and what they leave out, on an embedded node.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lash_core::runtime::{
    QueuedWorkBatchDraft, QueuedWorkClaimBoundary, QueuedWorkPayload, SessionCommand,
    SessionStoreFactory,
};
use lash_core::store::{GraphCommitDelta, SessionExecutionLeaseClaimOutcome};
use lash_core::testing::conformance::{
    ReopenableRuntimePersistence, runtime_persistence_reopenable, session_store_factory,
};
use lash_core::{
    AttachmentId, AttachmentIntent, AttachmentManifest, DeliveryPolicy, DurabilityTier,
    LeaseOwnerIdentity, LeaseOwnerLiveness, PendingTurnInputDraft, RuntimeCommit,
    RuntimePersistence, RuntimeSessionState, RuntimeTurnCommitStamp, SessionEventRecord,
    SessionExecutionLease, SessionGraph, SessionNodePayload, SessionNodeRecord, SessionReadScope,
    SlotPolicy, StoreError, TurnInput, TurnInputIngress, TurnInputState,
};
use quorate_client::Client;
use quorate_lash::{FencingTokens, QuorateSession, QuorateSessions};
use quorate_node::Node;
use serde_json::json;
use tempfile::TempDir;

mod graphs;

#[path = "../../examples/session/main.rs"]
#[allow(dead_code, reason = "its main is for people")]
mod story;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const TTL_MS: u64 = 60_000;

/// A node on threads of its own: a test on one thread may block it and still be answered.
async fn node() -> Result<(TempDir, Node)> {
    let dir = tempfile::tempdir()?;
    let node = Node::builder().data_dir(dir.path()).own_threads(2);
    Ok((dir, node.start().await?))
}

fn sessions(client: &Client, namespace: &str, tokens: FencingTokens) -> QuorateSessions {
    let built = QuorateSessions::over(client.clone())
        .namespace(namespace)
        .fencing_tokens(tokens)
        .build();
    built.expect("the options are right")
}

fn store(client: &Client, namespace: &str) -> QuorateSession {
    let sessions = sessions(client, namespace, FencingTokens::LogIndex);
    sessions.session("root").expect("the id is right")
}

/// Two handles on a store that nobody else has.
fn fresh(client: &Client, tokens: FencingTokens) -> impl Fn() -> ReopenableRuntimePersistence {
    let (client, made) = (client.clone(), AtomicUsize::new(0));
    move || {
        let number = made.fetch_add(1, Ordering::Relaxed);
        let handle = || {
            let sessions = sessions(&client, "suite", tokens);
            let id = format!("{tokens:?}-{number}");
            Arc::new(sessions.session(&id).expect("the id is right"))
        };
        ReopenableRuntimePersistence {
            open: handle(),
            reopen: handle(),
        }
    }
}

#[tokio::test]
async fn the_suite_passes_on_a_runtime_of_one_thread() -> Result {
    let (_dir, node) = node().await?;
    runtime_persistence_reopenable(fresh(&node.client(), FencingTokens::LogIndex)).await;
    node.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_passes_with_epochs_for_fencing_tokens() -> Result {
    let (_dir, node) = node().await?;
    runtime_persistence_reopenable(fresh(&node.client(), FencingTokens::Epoch)).await;
    node.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn the_suite_of_the_factory_passes_with_epochs() -> Result {
    let (_dir, node) = node().await?;
    let (client, made) = (node.client(), AtomicUsize::new(0));
    let factory = || -> Arc<dyn SessionStoreFactory> {
        let number = made.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("factory-{number}");
        Arc::new(sessions(&client, &namespace, FencingTokens::Epoch))
    };
    session_store_factory(factory, DurabilityTier::Durable).await;
    node.shutdown().await;
    Ok(())
}

/// An owner whose process lives, or never lived.
fn local(id: &str, alive: bool) -> LeaseOwnerIdentity {
    let here = LeaseOwnerLiveness::current_local_process("host").expect("this runs on Linux");
    let liveness = match here {
        LeaseOwnerLiveness::LocalProcess {
            host_id,
            boot_id,
            pid,
            process_start,
        } => LeaseOwnerLiveness::LocalProcess {
            host_id,
            boot_id,
            pid,
            process_start: if alive {
                process_start
            } else {
                "never".to_owned()
            },
        },
        other => other,
    };
    LeaseOwnerIdentity {
        owner_id: id.to_owned(),
        incarnation_id: format!("{id}-1"),
        liveness,
    }
}

fn opaque(id: &str) -> LeaseOwnerIdentity {
    LeaseOwnerIdentity::opaque(id, format!("{id}-1"))
}

async fn lease(
    store: &QuorateSession,
    owner: &LeaseOwnerIdentity,
) -> Result<SessionExecutionLease> {
    let claimed = store
        .try_claim_session_execution_lease("root", owner, TTL_MS)
        .await?;
    claimed.acquired().ok_or_else(|| "the lease is free".into())
}

fn state(session_id: &str) -> RuntimeSessionState {
    RuntimeSessionState {
        session_id: session_id.to_owned(),
        ..RuntimeSessionState::default()
    }
}

fn node_of(id: &str, parent: Option<&str>, text: &str) -> SessionNodeRecord {
    let event = lash_core::ProtocolEvent::typed("test", json!({ "text": text }));
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

fn chain(count: usize, text: &str) -> Vec<SessionNodeRecord> {
    let node = |at: usize| {
        let parent = at.checked_sub(1).map(|before| format!("n{before}"));
        node_of(&format!("n{at}"), parent.as_deref(), text)
    };
    (0..count).map(node).collect()
}

/// A commit of a whole graph, under a lease that is kept.
fn whole(lease: &SessionExecutionLease, nodes: Vec<SessionNodeRecord>) -> RuntimeCommit {
    let leaf = nodes.last().map(|node| node.node_id.clone());
    let mut commit = RuntimeCommit::persisted_state(&state("root"), &[]);
    commit.graph = GraphCommitDelta::ReplaceFull(SessionGraph::from_nodes(nodes, leaf));
    commit.with_session_execution_lease(lease.fence())
}

async fn nodes_of(store: &QuorateSession) -> Result<Vec<String>> {
    let read = store.load_session(SessionReadScope::FullGraph).await?;
    let read = read.ok_or("it was committed to")?;
    Ok(read
        .graph
        .nodes
        .iter()
        .map(|node| node.node_id.clone())
        .collect())
}

#[tokio::test]
async fn what_is_out_of_bounds_is_refused_with_both_numbers() -> Result {
    let (_dir, node) = node().await?;
    let store = store(&node.client(), "bounds");
    let lease = lease(&store, &opaque("a")).await?;
    store
        .commit_runtime_state(whole(&lease, chain(1, "")))
        .await?;
    let refused = async |commit: RuntimeCommit, words: &str| {
        let error = store.commit_runtime_state(commit).await.expect_err(words);
        assert!(error.to_string().contains(words), "{words}: {error}");
    };
    let mut commit = whole(&lease, chain(1, ""));
    commit.graph = GraphCommitDelta::Append {
        nodes: chain(5_000, ""),
        leaf_node_id: None,
    };
    refused(commit, "limit 4096, actual 5000").await;
    let mut commit = whole(&lease, chain(1, ""));
    commit.checkpoint.execution_state = Some(vec![0; (64 << 20) + 1]);
    refused(commit, "limit 67108864 bytes, actual 67108865 bytes").await;
    let commit = whole(&lease, vec![node_of(&"i".repeat(600), None, "")]);
    refused(commit, "limit 512 bytes, actual 600 bytes").await;
    let long = "s".repeat(300);
    let claimed = store
        .try_claim_session_execution_lease(&long, &opaque("a"), TTL_MS)
        .await;
    let error = claimed.expect_err("the lane makes no lease").to_string();
    assert!(
        error.contains("limit 240 bytes, actual 300 bytes"),
        "{error}"
    );
    let sessions = sessions(&node.client(), "bounds", FencingTokens::LogIndex);
    let error = sessions.session(&long)?.save_session_meta(meta()).await;
    let error = error.expect_err("too long for a session").to_string();
    assert!(
        error.contains("limit 240 bytes, actual 307 bytes"),
        "{error}"
    );
    node.shutdown().await;
    Ok(())
}

fn meta() -> lash_core::SessionMeta {
    lash_core::SessionMeta {
        session_id: "root".to_owned(),
        session_name: "name".to_owned(),
        created_at: "now".to_owned(),
        model: "none".to_owned(),
        cwd: None,
        relation: Default::default(),
    }
}

#[tokio::test]
async fn claims_of_dead_owners_are_taken_at_once() -> Result {
    let (_dir, node) = node().await?;
    let store = store(&node.client(), "dead");
    let (dead, heir) = (local("dead", false), local("heir", true));
    let held = lease(&store, &dead).await?;
    let draft =
        PendingTurnInputDraft::new("root", TurnInputIngress::NextTurn, TurnInput::text("a"));
    let input = store.enqueue_pending_turn_input(draft).await?;
    store.enqueue_queued_work(command("first")).await?;
    let claim = store
        .claim_leading_ready_session_command("root", &held.fence(), &dead, TTL_MS)
        .await?
        .ok_or("there is a command")?;
    let inputs = store
        .claim_next_turn_inputs("root", &held.fence(), &dead, TTL_MS, 5)
        .await?
        .ok_or("there is an input")?;
    // The lease is the heir's at once, and so are the claims; a stranger would have to wait.
    let SessionExecutionLeaseClaimOutcome::Acquired(own) = store
        .reclaim_session_execution_lease("root", &heir, &held.fence(), TTL_MS)
        .await?
    else {
        return Err("the holder is dead".into());
    };
    let stranger = opaque("stranger");
    let nothing = store
        .claim_leading_ready_session_command("root", &own.fence(), &stranger, TTL_MS)
        .await?;
    assert!(nothing.is_none(), "a stranger cannot know who is dead");
    let again = store
        .claim_leading_ready_session_command("root", &own.fence(), &heir, TTL_MS)
        .await?
        .ok_or("its claimant is dead")?;
    assert!(again.fencing_token > claim.fencing_token);
    let inherited = store
        .claim_next_turn_inputs("root", &own.fence(), &heir, TTL_MS, 5)
        .await?
        .ok_or("its claimant is dead")?;
    assert_eq!(inherited.inputs[0].input_id, input.input_id);
    // What the dead one still sends lands nowhere.
    let late = whole(&held, chain(1, "")).completing_queue_claim(claim.completion());
    let error = store
        .commit_runtime_state(late)
        .await
        .expect_err("it is fenced");
    assert!(
        matches!(error, StoreError::SessionExecutionLeaseExpired { .. }),
        "{error}"
    );
    let late = whole(&own, chain(1, "")).completing_turn_input_claim(inputs.completion());
    let error = store
        .commit_runtime_state(late)
        .await
        .expect_err("it is another's");
    assert!(
        matches!(error, StoreError::TurnInputClaimExpired { .. }),
        "{error}"
    );
    let done = whole(&own, chain(1, ""))
        .completing_queue_claim(again.completion())
        .completing_turn_input_claim(inherited.completion());
    store.commit_runtime_state(done).await?;
    assert!(store.list_queued_work("root").await?.is_empty());
    node.shutdown().await;
    Ok(())
}

fn command(reason: &str) -> QueuedWorkBatchDraft {
    let reason = reason.to_owned();
    let command = SessionCommand::RefreshToolCatalog { reason };
    QueuedWorkBatchDraft::new(
        "root",
        DeliveryPolicy::EarliestSafeBoundary,
        SlotPolicy::Exclusive,
        vec![QueuedWorkPayload::session_command(command)],
    )
}

#[tokio::test]
async fn work_that_could_never_be_claimed_is_refused_when_it_is_queued() -> Result {
    let (_dir, node) = node().await?;
    let store = store(&node.client(), "mixed");
    let mut draft = command("x");
    draft.payloads.clear();
    let error = store
        .enqueue_queued_work(draft)
        .await
        .expect_err("it is empty");
    assert!(error.to_string().contains("must hold payloads"), "{error}");
    assert!(store.list_queued_work("root").await?.is_empty());
    node.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn a_turn_is_committed_once_and_its_repetition_is_answered_the_same() -> Result {
    let (_dir, node) = node().await?;
    let store = store(&node.client(), "once");
    let lease = lease(&store, &opaque("a")).await?;
    let turn = |hash: &str| {
        let mut commit = whole(&lease, chain(2, "turn"));
        commit.checkpoint.execution_state = Some(b"vm".to_vec());
        commit.with_turn_commit(RuntimeTurnCommitStamp::new("root", "t1", hash))
    };
    let first = store.commit_runtime_state(turn("h1")).await?;
    store
        .commit_runtime_state(whole(&lease, chain(3, "later")))
        .await?;
    // Another handle, without the lease, long after.
    store
        .release_session_execution_lease(&lease.completion())
        .await?;
    let mut repeated = turn("h1");
    repeated.session_execution_lease = None;
    let again = self::store(&node.client(), "once")
        .commit_runtime_state(repeated)
        .await?;
    assert_eq!(serde_json::to_value(&first)?, serde_json::to_value(&again)?);
    let error = store
        .commit_runtime_state(turn("h2"))
        .await
        .expect_err("another hash");
    assert!(
        matches!(error, StoreError::RuntimeTurnCommitConflict { .. }),
        "{error}"
    );
    let read = store.load_session(SessionReadScope::FullGraph).await?;
    assert_eq!(read.map(|read| read.head_revision), Some(2));
    node.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn a_deleted_session_is_not_written_to_by_those_who_knew_it() -> Result {
    let (_dir, node) = node().await?;
    let client = node.client();
    let factory = sessions(&client, "deleted", FencingTokens::LogIndex);
    let old = factory.session("root")?;
    let held = lease(&old, &opaque("a")).await?;
    old.commit_runtime_state(whole(&held, chain(2, "old")))
        .await?;
    factory.delete_session("root").await?;
    assert!(
        old.load_session(SessionReadScope::FullGraph)
            .await?
            .is_none()
    );
    let new = factory.session("root")?;
    let own = lease(&new, &opaque("b")).await?;
    assert!(own.fencing_token > held.fencing_token);
    new.commit_runtime_state(whole(&own, chain(1, "new")))
        .await?;
    let error = old
        .commit_runtime_state(whole(&held, chain(3, "late")))
        .await;
    let error = error.expect_err("it was deleted").to_string();
    assert!(error.contains("does not exist"), "{error}");
    assert!(
        old.load_session(SessionReadScope::FullGraph)
            .await?
            .is_none()
    );
    assert_eq!(nodes_of(&new).await?, ["n0"]);
    node.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn an_input_sent_again_is_found_whatever_became_of_it() -> Result {
    let (_dir, node) = node().await?;
    let store = store(&node.client(), "again");
    let draft = |text: &str| {
        let input = TurnInput::text(text);
        PendingTurnInputDraft::new("root", TurnInputIngress::NextTurn, input).with_input_id("mine")
    };
    let first = store.enqueue_pending_turn_input(draft("a")).await?;
    store.cancel_pending_turn_input("root", "mine").await?;
    let again = store.enqueue_pending_turn_input(draft("a")).await?;
    assert_eq!(
        (again.enqueue_seq, again.state),
        (first.enqueue_seq, TurnInputState::Cancelled)
    );
    let error = store.enqueue_pending_turn_input(draft("b")).await;
    let error = error.expect_err("other content").to_string();
    assert!(
        error.contains("`mine` is bound to other content"),
        "{error}"
    );
    let report = store.vacuum().await?;
    assert_eq!(report.removed_pending_turn_input_tombstone_count, 1);
    let forgotten = store.enqueue_pending_turn_input(draft("b")).await?;
    assert_eq!(forgotten.state, TurnInputState::DeferredNextTurn);
    node.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn delayed_work_is_not_claimed_before_its_time() -> Result {
    let (_dir, node) = node().await?;
    let store = store(&node.client(), "delayed");
    let held = lease(&store, &opaque("a")).await?;
    let never = command("never").with_available_at_ms(4_102_444_800_000);
    let never = store.enqueue_queued_work(never).await?;
    let now = store.enqueue_queued_work(command("now")).await?;
    let claim = store
        .claim_leading_ready_session_command("root", &held.fence(), &opaque("a"), TTL_MS)
        .await?
        .ok_or("one is ready")?;
    assert_eq!(claim.batches[0].batch_id, now.batch_id);
    let more = store
        .claim_ready_queued_work(
            "root",
            &held.fence(),
            &opaque("a"),
            QueuedWorkClaimBoundary::Idle,
            TTL_MS,
            9,
        )
        .await?;
    assert!(more.is_none());
    let pending = store.list_pending_queued_work("root").await?;
    let pending: Vec<_> = pending.iter().map(|batch| &batch.batch_id).collect();
    assert_eq!(pending, [&never.batch_id]);
    let cancelled = store
        .cancel_queued_work_batch("root", &never.batch_id)
        .await?;
    assert_eq!(
        cancelled.map(|batch| batch.available_at_ms),
        Some(4_102_444_800_000)
    );
    node.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn more_attachments_than_a_page_are_listed() -> Result {
    const COUNT: usize = 1_100;
    let (_dir, node) = node().await?;
    let store = store(&node.client(), "attachments");
    for number in 0..COUNT {
        store.record_intent(AttachmentIntent {
            attachment_id: AttachmentId::new(format!("a{number:04}")),
            session_id: "root".to_owned(),
            canonical_uri: "file:///nowhere".to_owned(),
            intent_at_epoch_ms: (number / 2) as u64,
        })?;
    }
    let all = store.list_uncommitted(u64::MAX)?;
    let ids: Vec<_> = all
        .iter()
        .map(|entry| entry.attachment_id.to_string())
        .collect();
    let wanted: Vec<_> = (0..COUNT).map(|number| format!("a{number:04}")).collect();
    assert_eq!(ids, wanted, "by intent, then by id");
    assert_eq!(store.list_uncommitted(0)?.len(), 2);
    let ids: Vec<_> = all.into_iter().map(|entry| entry.attachment_id).collect();
    store.commit_refs("other", &ids)?;
    assert_eq!(
        store.list_uncommitted(u64::MAX)?.len(),
        COUNT,
        "they are another session's"
    );
    store.commit_refs("root", &ids)?;
    assert!(store.list_uncommitted(u64::MAX)?.is_empty());
    node.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn a_conversation_outlives_its_hosts() -> Result {
    let (_dir, node) = node().await?;
    let host = || -> Arc<dyn SessionStoreFactory> {
        Arc::new(sessions(&node.client(), "story", FencingTokens::LogIndex))
    };
    let report = story::story([host(), host(), host()], async |_| Ok(())).await?;
    story::check(&report)?;
    node.shutdown().await;
    Ok(())
}
