//! The trait, method by method.

use bytes::Bytes;
use lash_core::runtime::{
    QueuedWorkBatch, QueuedWorkBatchDraft, QueuedWorkClaim, QueuedWorkClaimBoundary,
};
use lash_core::store::{GcReport, PersistedSessionRead, RuntimeCommitResult};
use lash_core::{
    CheckpointKind, DurabilityTier, LeaseOwnerIdentity, PendingTurnInput,
    PendingTurnInputCancelOutcome, PendingTurnInputCancelResult, PendingTurnInputCancelTarget,
    PendingTurnInputDraft, PendingTurnInputSuffixCancelOutcome, RuntimeCommit, RuntimePersistence,
    SessionExecutionLease, SessionExecutionLeaseClaimOutcome, SessionExecutionLeaseCompletion,
    SessionExecutionLeaseFence, SessionMeta, SessionNodeRecord, SessionReadScope, TurnInputClaim,
    TurnInputClaimMode, VacuumReport,
};
use quorate_statemachine::session::{PutNote, WorkChoice};

use super::QuorateSession;
use super::bodies::{from_bytes, to_bytes};
use super::error::Result;
use super::work::{exactly, turn_work};

#[async_trait::async_trait]
impl RuntimePersistence for QuorateSession {
    /// An answer to a write means that a majority of the nodes has it on disk.
    fn durability_tier(&self) -> DurabilityTier {
        DurabilityTier::Durable
    }

    async fn load_session(&self, scope: SessionReadScope) -> Result<Option<PersistedSessionRead>> {
        self.load(scope).await
    }

    async fn load_node(&self, node_id: &str) -> Result<Option<SessionNodeRecord>> {
        self.node(node_id).await
    }

    async fn commit_runtime_state(&self, commit: RuntimeCommit) -> Result<RuntimeCommitResult> {
        self.commit(commit).await
    }

    async fn try_claim_session_execution_lease(
        &self,
        session_id: &str,
        owner: &LeaseOwnerIdentity,
        lease_ttl_ms: u64,
    ) -> Result<SessionExecutionLeaseClaimOutcome> {
        self.try_claim(session_id, owner, lease_ttl_ms).await
    }

    async fn reclaim_session_execution_lease(
        &self,
        session_id: &str,
        owner: &LeaseOwnerIdentity,
        observed_holder: &SessionExecutionLeaseFence,
        lease_ttl_ms: u64,
    ) -> Result<SessionExecutionLeaseClaimOutcome> {
        self.reclaim(session_id, owner, observed_holder, lease_ttl_ms)
            .await
    }

    async fn renew_session_execution_lease(
        &self,
        fence: &SessionExecutionLeaseFence,
        lease_ttl_ms: u64,
    ) -> Result<SessionExecutionLease> {
        self.renew(fence, lease_ttl_ms).await
    }

    async fn release_session_execution_lease(
        &self,
        completion: &SessionExecutionLeaseCompletion,
    ) -> Result<()> {
        self.release(completion).await
    }

    async fn enqueue_pending_turn_input(
        &self,
        input: PendingTurnInputDraft,
    ) -> Result<PendingTurnInput> {
        self.push_input(input).await
    }

    async fn list_pending_turn_inputs(&self, session_id: &str) -> Result<Vec<PendingTurnInput>> {
        self.list_inputs(session_id).await
    }

    async fn cancel_pending_turn_input(
        &self,
        session_id: &str,
        input_id: &str,
    ) -> Result<PendingTurnInputCancelOutcome> {
        let target = [PendingTurnInputCancelTarget::input_id(input_id)];
        let mut results = self.cancel_inputs(session_id, &target).await?;
        let last = results.pop().map(|result| result.outcome);
        Ok(last.unwrap_or(PendingTurnInputCancelOutcome::NotFound))
    }

    async fn cancel_pending_turn_inputs(
        &self,
        session_id: &str,
        targets: &[PendingTurnInputCancelTarget],
    ) -> Result<Vec<PendingTurnInputCancelResult>> {
        self.cancel_inputs(session_id, targets).await
    }

    async fn cancel_pending_turn_input_suffix(
        &self,
        session_id: &str,
        anchor: &PendingTurnInputCancelTarget,
    ) -> Result<PendingTurnInputSuffixCancelOutcome> {
        self.cancel_inputs_from(session_id, anchor).await
    }

    async fn claim_active_turn_inputs(
        &self,
        session_id: &str,
        session_execution_lease: &SessionExecutionLeaseFence,
        owner: &LeaseOwnerIdentity,
        turn_id: &str,
        checkpoint: CheckpointKind,
        lease_ttl_ms: u64,
        max_inputs: usize,
    ) -> Result<Option<TurnInputClaim>> {
        let mode = TurnInputClaimMode::ActiveTurn {
            turn_id: turn_id.to_owned(),
            checkpoint,
        };
        let held = (session_execution_lease, owner);
        self.claim_inputs(session_id, held, mode, lease_ttl_ms, max_inputs)
            .await
    }

    async fn claim_next_turn_inputs(
        &self,
        session_id: &str,
        session_execution_lease: &SessionExecutionLeaseFence,
        owner: &LeaseOwnerIdentity,
        lease_ttl_ms: u64,
        max_inputs: usize,
    ) -> Result<Option<TurnInputClaim>> {
        let (mode, held) = (
            TurnInputClaimMode::NextTurn,
            (session_execution_lease, owner),
        );
        self.claim_inputs(session_id, held, mode, lease_ttl_ms, max_inputs)
            .await
    }

    async fn abandon_turn_input_claim(&self, claim: &TurnInputClaim) -> Result<()> {
        self.abandon_inputs(claim).await
    }

    async fn enqueue_queued_work(&self, batch: QueuedWorkBatchDraft) -> Result<QueuedWorkBatch> {
        self.push_work(batch).await
    }

    async fn claim_leading_ready_session_command(
        &self,
        session_id: &str,
        session_execution_lease: &SessionExecutionLeaseFence,
        owner: &LeaseOwnerIdentity,
        lease_ttl_ms: u64,
    ) -> Result<Option<QueuedWorkClaim>> {
        let held = (session_execution_lease, owner);
        self.claim_work(session_id, held, lease_ttl_ms, WorkChoice::Command)
            .await
    }

    async fn claim_ready_queued_work(
        &self,
        session_id: &str,
        session_execution_lease: &SessionExecutionLeaseFence,
        owner: &LeaseOwnerIdentity,
        boundary: QueuedWorkClaimBoundary,
        lease_ttl_ms: u64,
        max_batches: usize,
    ) -> Result<Option<QueuedWorkClaim>> {
        if max_batches == 0 {
            return Ok(None);
        }
        let (held, choice) = (
            (session_execution_lease, owner),
            turn_work(boundary, max_batches),
        );
        self.claim_work(session_id, held, lease_ttl_ms, choice)
            .await
    }

    async fn claim_ready_queued_work_by_batch_ids(
        &self,
        session_id: &str,
        session_execution_lease: &SessionExecutionLeaseFence,
        owner: &LeaseOwnerIdentity,
        boundary: QueuedWorkClaimBoundary,
        lease_ttl_ms: u64,
        batch_ids: &[String],
    ) -> Result<Option<QueuedWorkClaim>> {
        let Some(choice) = exactly(boundary, batch_ids)? else {
            return Ok(None);
        };
        let held = (session_execution_lease, owner);
        self.claim_work(session_id, held, lease_ttl_ms, choice)
            .await
    }

    async fn renew_queued_work_claim(
        &self,
        claim: &QueuedWorkClaim,
        lease_ttl_ms: u64,
    ) -> Result<QueuedWorkClaim> {
        self.renew_work(claim, lease_ttl_ms).await
    }

    async fn abandon_queued_work_claim(&self, claim: &QueuedWorkClaim) -> Result<()> {
        self.abandon_work(claim).await
    }

    async fn cancel_queued_work_batch(
        &self,
        session_id: &str,
        batch_id: &str,
    ) -> Result<Option<QueuedWorkBatch>> {
        self.cancel_work(session_id, batch_id).await
    }

    async fn list_queued_work(&self, session_id: &str) -> Result<Vec<QueuedWorkBatch>> {
        self.list_work(session_id, false).await
    }

    async fn list_pending_queued_work(&self, session_id: &str) -> Result<Vec<QueuedWorkBatch>> {
        self.list_work(session_id, true).await
    }

    async fn save_session_meta(&self, meta: SessionMeta) -> Result<()> {
        let put = PutNote {
            session: self.opened().await?.clone(),
            note: Bytes::from(to_bytes("session metadata", &meta)?),
        };
        self.executed("saving session metadata", put)
            .await
            .map(drop)
    }

    async fn load_session_meta(&self) -> Result<Option<SessionMeta>> {
        let view = self.view().await?;
        let note = view.and_then(|view| view.note);
        note.map(|note| from_bytes("session metadata", &note))
            .transpose()
    }

    async fn tombstone_nodes(&self, ids: &[String]) -> Result<()> {
        self.tombstone(ids).await
    }

    async fn vacuum(&self) -> Result<VacuumReport> {
        self.vacuumed().await
    }

    async fn gc_unreachable(&self) -> Result<GcReport> {
        self.collected().await
    }
}
