//! Commits: lash's commit as one command of the cluster's.

use lash_core::runtime::QueuedWorkCompletion;
use lash_core::store::RuntimeCommitResult;
use lash_core::{RuntimeCommit, SessionExecutionLeaseFence, StoreError, TurnInputCompletion};
use quorate_client::ClientError;
use quorate_statemachine::session::{
    Commit, Committed, GraphDelta, SessionRef, Settlement, TurnStamp, UsageDelta,
};
use quorate_statemachine::{Name, Refusal, Subject, Validate};

use super::bodies::{Bodies, from_bytes, to_bytes};
use super::checkpoint::{Checkpoint, State};
use super::error::{Result, backend, inputs_lost, invalid, name, under_lease, work_lost};
use super::graph::{Plan, Planned};
use super::lease::fence_of;
use super::work::batch_number;
use super::{QuorateSession, claims};

impl QuorateSession {
    /// All of it, or nothing. A graph that is not the known one any more is given in full.
    pub(super) async fn commit(&self, commit: RuntimeCommit) -> Result<RuntimeCommitResult> {
        if let Some(stamp) = &commit.turn_commit
            && stamp.session_id != commit.session_id
        {
            return Err(turn_conflict(&commit));
        }
        let session = self.opened().await?;
        let mut whole = false;
        loop {
            let mut bodies = Bodies::new();
            let fixed = self.fixed(session, &commit, &mut bodies)?;
            // Before anything of it is stored.
            fixed.validate().map_err(invalid)?;
            let graph = &commit.graph;
            let plan = self.planned(session, graph, whole, &mut bodies).await?;
            let Plan { delta, result } = plan;
            let command = Commit {
                graph: delta,
                ..fixed
            };
            match self.with_bodies(session, &bodies, command).await {
                Ok(committed) => return self.done(result, committed),
                Err(error) if !whole && is_another_graph(&error) => {
                    self.known(|known| known.graph = None);
                    whole = true;
                }
                Err(error) => return Err(self.refused(&commit, error).await),
            }
        }
    }

    /// All of the command but the graph.
    fn fixed(
        &self,
        session: &SessionRef,
        commit: &RuntimeCommit,
        bodies: &mut Bodies,
    ) -> Result<Commit> {
        let checkpoint = Checkpoint::pack(&commit.checkpoint, bodies)?;
        let roots = checkpoint.roots()?;
        let result = to_bytes("result of a commit", &checkpoint)?;
        let state = State {
            config: commit.config.clone(),
            agent_frames: commit.agent_frames.clone(),
            current_agent_frame_id: commit.current_agent_frame_id.clone(),
            checkpoint,
        };
        let state = bodies.content("session state", to_bytes("session state", &state)?)?;
        let held = |lease: &SessionExecutionLeaseFence| {
            let same = lease.session_id == commit.session_id;
            same.then(|| self.held(lease)).flatten()
        };
        let release = commit.release_session_execution_lease.as_ref();
        Ok(Commit {
            session: session.clone(),
            lane: name("session id", &commit.session_id)?,
            turn: turn_of(commit)?,
            execution: commit.session_execution_lease.as_ref().and_then(held),
            expected_revision: commit.expected_head_revision,
            graph: GraphDelta::Append(Vec::new()),
            leaf: leaf_of(commit)?,
            state,
            roots,
            usage: usage_of(commit)?,
            work: work_done(commit)?,
            inputs: inputs_done(commit)?,
            interrupted: interrupted(commit)?,
            attachments: attachments(commit)?,
            result: result.into(),
            release: release.map(fence_of).as_ref().and_then(held),
        })
    }

    fn done(&self, planned: Planned, committed: Committed) -> Result<RuntimeCommitResult> {
        self.keep_graph(planned, committed.graph);
        let Checkpoint {
            reference,
            manifest,
        } = from_bytes("result of a commit", &committed.result)?;
        Ok(RuntimeCommitResult {
            head_revision: committed.revision,
            checkpoint_ref: reference,
            manifest,
        })
    }

    /// What lash is told of a refusal.
    async fn refused(&self, commit: &RuntimeCommit, error: ClientError) -> StoreError {
        let session_id = &commit.session_id;
        match error.refusal() {
            Some(Refusal::Conflict {
                subject: Subject::Session,
                ..
            }) => self.bound_to_another(commit, error).await,
            Some(Refusal::Conflict {
                subject: Subject::Turn,
                ..
            }) => turn_conflict(commit),
            Some(Refusal::Moved {
                subject: Subject::Session,
                actual,
                ..
            }) => StoreError::HeadRevisionConflict {
                expected: commit.expected_head_revision,
                actual: *actual,
            },
            Some(Refusal::Fenced {
                subject: Subject::Work,
                presented,
                ..
            }) => work_lost(session_id, &claims::WORK.id(*presented)),
            Some(Refusal::Fenced {
                subject: Subject::Input,
                presented,
                ..
            }) => inputs_lost(session_id, &claims::INPUTS.id(*presented)),
            _ => under_lease("commit", session_id, &error),
        }
    }

    async fn bound_to_another(&self, commit: &RuntimeCommit, error: ClientError) -> StoreError {
        let view = match self.view().await {
            Ok(view) => view,
            Err(unread) => return unread,
        };
        match view.and_then(|view| view.head) {
            Some((head, _)) if head.lane.as_str() != commit.session_id => {
                StoreError::SessionBindingMismatch {
                    bound_session_id: head.lane.to_string(),
                    attempted_session_id: commit.session_id.clone(),
                }
            }
            _ => backend("commit", &error),
        }
    }
}

fn is_another_graph(error: &ClientError) -> bool {
    matches!(
        error.refusal(),
        Some(
            Refusal::Moved {
                subject: Subject::Graph,
                ..
            } | Refusal::NotFound {
                subject: Subject::Graph,
                ..
            }
        )
    )
}

fn turn_conflict(commit: &RuntimeCommit) -> StoreError {
    let turn = commit.turn_commit.as_ref();
    StoreError::RuntimeTurnCommitConflict {
        session_id: commit.session_id.clone(),
        turn_id: turn.map(|stamp| stamp.turn_id.clone()).unwrap_or_default(),
    }
}

fn turn_of(commit: &RuntimeCommit) -> Result<Option<TurnStamp>> {
    let Some(stamp) = &commit.turn_commit else {
        return Ok(None);
    };
    Ok(Some(TurnStamp {
        turn: name("turn id", &stamp.turn_id)?,
        hash: name("turn commit hash", &stamp.turn_commit_hash)?,
    }))
}

fn leaf_of(commit: &RuntimeCommit) -> Result<Option<Name>> {
    let leaf = commit.graph.leaf_node_id();
    leaf.map(|id| name("leaf node id", id)).transpose()
}

/// Entries without any tokens are left out, as lash leaves them out of a ledger.
fn usage_of(commit: &RuntimeCommit) -> Result<Vec<UsageDelta>> {
    let used = commit.usage_deltas.iter();
    let used = used.filter(|entry| entry.usage.total() != 0);
    let delta = |entry: &lash_core::TokenLedgerEntry| {
        let usage = &entry.usage;
        Ok(UsageDelta {
            counter: to_bytes("usage", &(&entry.source, &entry.model))?,
            numbers: vec![
                usage.input_tokens,
                usage.output_tokens,
                usage.cache_read_input_tokens,
                usage.cache_write_input_tokens,
                usage.reasoning_output_tokens,
            ],
        })
    };
    used.map(delta).collect()
}

fn work_done(commit: &RuntimeCommit) -> Result<Vec<Settlement<u64>>> {
    let settle = |done: &QueuedWorkCompletion| {
        let lost = || work_lost(&done.session_id, &done.claim_id);
        let claim = claims::WORK.named(&done.claim_id, &done.lease_token);
        let claim = claim.filter(|_| done.session_id == commit.session_id);
        let numbers = done.batch_ids.iter().map(|id| batch_number(id));
        Ok(Settlement {
            lane: name("session id", &done.session_id)?,
            claim: claim.ok_or_else(lost)?,
            settled: numbers.collect::<Option<_>>().ok_or_else(lost)?,
        })
    };
    commit.completed_queue_claims.iter().map(settle).collect()
}

fn inputs_done(commit: &RuntimeCommit) -> Result<Vec<Settlement<Name>>> {
    let settle = |done: &TurnInputCompletion| {
        let lost = || inputs_lost(&done.session_id, &done.claim_id);
        let claim = claims::INPUTS.named(&done.claim_id, &done.lease_token);
        let claim = claim.filter(|_| done.session_id == commit.session_id);
        let ids = done.input_ids.iter().map(|id| name("input id", id));
        Ok(Settlement {
            lane: name("session id", &done.session_id)?,
            claim: claim.ok_or_else(lost)?,
            settled: ids.collect::<Result<_>>()?,
        })
    };
    let done = &commit.completed_turn_input_claims;
    done.iter().map(settle).collect()
}

fn interrupted(commit: &RuntimeCommit) -> Result<Option<Name>> {
    let turn = commit.interrupted_turn_input_turn_id.as_deref();
    turn.map(|id| name("turn id", id)).transpose()
}

fn attachments(commit: &RuntimeCommit) -> Result<Vec<Name>> {
    let ids = commit.committed_attachment_ids.iter();
    ids.map(|id| name("attachment id", id.as_str())).collect()
}
