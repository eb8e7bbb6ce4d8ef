//! One session of lash's and its turns, one after the other, on whichever store it is.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use lash_core::runtime::{
    QUEUED_WORK_CLAIM_TTL_MS, QueuedWorkBatchDraft, QueuedWorkCompletion, QueuedWorkPayload,
    SessionCommand, SessionStoreCreateRequest, SessionStoreFactory,
};
use lash_core::store::GraphCommitDelta;
use lash_core::{
    DeliveryPolicy, LeaseOwnerIdentity, ProtocolEvent, RuntimeCommit, RuntimePersistence,
    RuntimeSessionState, RuntimeTurnCommitStamp, SessionEventRecord, SessionExecutionLease,
    SessionNodePayload, SessionNodeRecord, SlotPolicy, TokenLedgerEntry, TokenUsage,
};

use crate::record::Turn;

const LEASE_TTL_MS: u64 = 60_000;
/// As lash's runtime renews it: after a third of its time.
const RENEW_AFTER: Duration = Duration::from_secs(20);
/// Of one turn.
pub const NODES: u64 = 2;
/// Of text in a node: it has about 300 bytes of JSON then.
const NODE_TEXT: usize = 40;
/// Of text in queued work: its payload has about 300 bytes of JSON then.
const WORK_TEXT: usize = 200;
const EXECUTION_STATE: usize = 200;

/// A session, its execution lease and what its next commit follows.
pub struct Session {
    store: Arc<dyn RuntimePersistence>,
    owner: LeaseOwnerIdentity,
    lease: SessionExecutionLease,
    leased_at: Instant,
    state: RuntimeSessionState,
    /// Turns that were committed.
    pub turns: u64,
}

impl Session {
    /// Makes a session, claims its lease and commits its first head, as lash's runtime does.
    pub async fn open(factory: &dyn SessionStoreFactory, id: &str) -> Result<Self> {
        let request = SessionStoreCreateRequest {
            session_id: id.to_owned(),
            relation: Default::default(),
            policy: Default::default(),
        };
        let store = factory.create_store(&request).await;
        let store = store.map_err(|error| anyhow!("session {id}: {error}"))?;
        let owner = LeaseOwnerIdentity::opaque(format!("runtime-{id}"), "incarnation");
        let leased_at = Instant::now();
        let claimed = store
            .try_claim_session_execution_lease(id, &owner, LEASE_TTL_MS)
            .await?;
        let mut state = RuntimeSessionState {
            session_id: id.to_owned(),
            ..RuntimeSessionState::default()
        };
        state.ensure_agent_frame_initialized();
        let mut session = Self {
            store,
            owner,
            lease: claimed.acquired().context("the lease is free")?,
            leased_at,
            state,
            turns: 0,
        };
        let first = RuntimeCommit::persisted_state(&session.state, &[]);
        session.committed(first).await?;
        Ok(session)
    }

    /// Extends the lease in time; no part of an operation.
    pub async fn renew_if_due(&mut self) -> Result<()> {
        if self.leased_at.elapsed() < RENEW_AFTER {
            return Ok(());
        }
        self.leased_at = Instant::now();
        let fence = self.lease.fence();
        let renewed = self
            .store
            .renew_session_execution_lease(&fence, LEASE_TTL_MS);
        self.lease = renewed.await?;
        Ok(())
    }

    /// One operation.
    pub async fn operate(&mut self, turn: Turn) -> Result<()> {
        let mut commit = self.next();
        if turn == Turn::Queued {
            let completion = self.enqueue_and_claim().await?;
            commit = commit.completing_queue_claim(completion);
        }
        self.committed(commit).await?;
        self.turns += 1;
        Ok(())
    }

    /// The store has the last turn, and nothing in the queue.
    pub async fn check(&self) -> Result<()> {
        let id = &self.state.session_id;
        if self.turns > 0 {
            let leaf = self.node_id(self.turns - 1, NODES - 1);
            let found = self.store.load_node(&leaf).await?;
            ensure!(found.is_some(), "session {id}: node {leaf} is not there");
        }
        let left = self.store.list_queued_work(id).await?.len();
        ensure!(left == 0, "session {id}: {left} batches are left");
        Ok(())
    }

    /// The commit of the next turn: two nodes, their usage, and a state that has changed.
    fn next(&mut self) -> RuntimeCommit {
        let turn = self.turns;
        self.state.turn_index = turn as usize;
        self.state.execution_state_snapshot = Some(self.noise("state", turn, EXECUTION_STATE));
        let usage = TokenLedgerEntry {
            source: "turn".to_owned(),
            model: "a-model".to_owned(),
            usage: TokenUsage {
                input_tokens: 1_000,
                output_tokens: 100,
                ..TokenUsage::default()
            },
        };
        let mut commit = RuntimeCommit::persisted_state(&self.state, &[usage]);
        let nodes: Vec<_> = (0..NODES).map(|at| self.node(turn, at)).collect();
        commit.graph = GraphCommitDelta::Append {
            leaf_node_id: nodes.last().map(|node| node.node_id.clone()),
            nodes,
        };
        // A hash of the commit's JSON would be the caller's work, not the store's.
        let hash = format!("{turn:064x}");
        let id = &self.state.session_id;
        commit.with_turn_commit(RuntimeTurnCommitStamp::new(
            id,
            format!("turn-{turn}"),
            hash,
        ))
    }

    async fn committed(&mut self, commit: RuntimeCommit) -> Result<()> {
        let expected = self.state.head_revision.unwrap_or(0) + 1;
        let commit = commit.with_session_execution_lease(self.lease.fence());
        let done = self.store.commit_runtime_state(commit).await?;
        let actual = done.head_revision;
        ensure!(actual == expected, "revision {actual}, not {expected}");
        self.state.head_revision = Some(actual);
        Ok(())
    }

    async fn enqueue_and_claim(&self) -> Result<QueuedWorkCompletion> {
        let (id, fence) = (&self.state.session_id, self.lease.fence());
        let draft = self.work();
        let queued = self.store.enqueue_queued_work(draft).await?;
        let claim = self
            .store
            .claim_leading_ready_session_command(id, &fence, &self.owner, QUEUED_WORK_CLAIM_TTL_MS)
            .await?;
        let completion = claim.context("the work is ready")?.completion();
        ensure!(
            completion.batch_ids == [queued.batch_id],
            "other work was claimed than was enqueued"
        );
        Ok(completion)
    }

    /// A command with a key of its own, as lash's runtime gives it one.
    fn work(&self) -> QueuedWorkBatchDraft {
        let reason = self.text("work", self.turns, WORK_TEXT);
        let command = SessionCommand::RefreshToolCatalog { reason };
        let source = command.source_key(self.turns.to_string());
        QueuedWorkBatchDraft::new(
            &self.state.session_id,
            DeliveryPolicy::EarliestSafeBoundary,
            SlotPolicy::Exclusive,
            vec![QueuedWorkPayload::session_command(command)],
        )
        .with_source_key(source)
    }

    fn node(&self, turn: u64, at: u64) -> SessionNodeRecord {
        let before = (turn * NODES + at).checked_sub(1);
        let text = self.text("node", turn * NODES + at, NODE_TEXT);
        SessionNodeRecord {
            node_id: self.node_id(turn, at),
            parent_node_id: before.map(|node| self.node_id(node / NODES, node % NODES)),
            caused_by: None,
            agent_frame_id: Some(self.state.current_agent_frame_id.clone()),
            timestamp: "2026-01-01T00:00:00.000Z".to_owned(),
            payload: SessionNodePayload::Event {
                event: SessionEventRecord::Protocol(ProtocolEvent {
                    plugin_id: "bench".to_owned(),
                    payload: serde_json::json!({ "text": text }),
                }),
            },
        }
    }

    fn node_id(&self, turn: u64, at: u64) -> String {
        format!("{}-{turn}-{at}", self.state.session_id)
    }

    fn text(&self, what: &str, number: u64, length: usize) -> String {
        let letters = self.noise(what, number, length);
        letters.into_iter().map(char::from).collect()
    }

    /// Letters that no other session, turn or purpose has: none of the stores finds them again.
    fn noise(&self, what: &str, number: u64, length: usize) -> Vec<u8> {
        let mut hasher = DefaultHasher::new();
        (&self.state.session_id, what, number).hash(&mut hasher);
        let mut seed = hasher.finish();
        let letter = |_| {
            // Knuth's generator: its upper bits are the good ones.
            seed = seed.wrapping_mul(6_364_136_223_846_793_005);
            seed = seed.wrapping_add(1_442_695_040_888_963_407);
            b'a' + (seed >> 60) as u8
        };
        (0..length).map(letter).collect()
    }
}

#[cfg(test)]
mod tests {
    use lash_sqlite_store::SqliteSessionStoreFactory;

    use super::*;

    /// On a store that needs no server, so that the loop itself is tested.
    #[tokio::test]
    async fn turns_are_of_the_size_that_the_table_says_and_the_store_keeps_them() -> Result<()> {
        let dir = std::env::temp_dir().join(format!("quorate-load-{}", std::process::id()));
        let factory = SqliteSessionStoreFactory::new(&dir);
        let mut session = Session::open(&factory, "quorate-queued-0-16-00").await?;
        let node = serde_json::to_string(&session.node(100, 1))?.len();
        assert!((270..=330).contains(&node), "{node}");
        let work = serde_json::to_string(&session.work().payloads)?.len();
        assert!((270..=330).contains(&work), "{work}");
        let states = (
            session.noise("state", 0, 200),
            session.noise("state", 1, 200),
        );
        assert_ne!(states.0, states.1);
        for turn in [Turn::Commit, Turn::Queued, Turn::Commit, Turn::Queued] {
            session.operate(turn).await?;
        }
        session.check().await?;
        assert_eq!((session.turns, session.state.head_revision), (4, Some(5)));
        Ok(std::fs::remove_dir_all(&dir)?)
    }
}
