//! Queued work of lash's: pieces of work of the cluster's, with the batch as their body.

use lash_core::runtime::{
    QueuedWorkBatch, QueuedWorkBatchDraft, QueuedWorkClaim, QueuedWorkClaimBoundary,
    QueuedWorkClass, QueuedWorkItem, QueuedWorkPayload,
};
use lash_core::{
    DeliveryPolicy, LeaseOwnerIdentity, MergeKey, SessionExecutionLeaseFence, SlotPolicy,
    StoreError,
};
use quorate_client::ClientError;
use quorate_statemachine::limits::SESSION_BATCH_MAX;
use quorate_statemachine::session::{
    AbandonWork, CancelWork, ClaimRef, ClaimWork, ClaimedWork, PushWork, RenewWork, SessionRef,
    WorkChoice, WorkClass, WorkList, WorkPushed, WorkView,
};
use quorate_statemachine::{FencingToken, InvalidArgument, Refusal, Timestamp};
use serde::{Deserialize, Serialize};

use super::bodies::{Bodies, from_bytes, to_bytes};
use super::error::{Result, backend, invalid, lease_lost, name, under_lease, work_lost};
use super::lease::owner_of;
use super::{QuorateSession, claims};
use crate::lease::new_proof;

/// What a piece of work holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Body {
    delivery_policy: DeliveryPolicy,
    slot_policy: SlotPolicy,
    merge_key: MergeKey,
    available_at_ms: u64,
    payloads: Vec<QueuedWorkPayload>,
}

const BATCH: &str = "qwb:";

/// The number of a batch; none if it is no batch of this store's.
pub(super) fn batch_number(batch_id: &str) -> Option<u64> {
    batch_id.strip_prefix(BATCH)?.parse().ok()
}

impl QuorateSession {
    pub(super) async fn push_work(&self, draft: QueuedWorkBatchDraft) -> Result<QueuedWorkBatch> {
        let Some(class) = draft.work_class() else {
            return Err(StoreError::Backend(
                "queued work must hold payloads, and all of them of one class".to_owned(),
            ));
        };
        let session = self.opened().await?;
        let body = Body {
            delivery_policy: draft.delivery_policy,
            slot_policy: draft.slot_policy,
            merge_key: draft.merge_key,
            available_at_ms: draft.available_at_ms,
            payloads: draft.payloads,
        };
        let mut bodies = Bodies::new();
        let content = bodies.content("queued work", to_bytes("queued work", &body)?)?;
        let source = draft.source_key.as_deref();
        let push = PushWork {
            session: session.clone(),
            lane: name("session id", &draft.session_id)?,
            source: source.map(|key| name("source key", key)).transpose()?,
            class: match class {
                QueuedWorkClass::SessionCommand => WorkClass::Command,
                QueuedWorkClass::TurnWork => WorkClass::Turn,
            },
            anytime: body.delivery_policy == DeliveryPolicy::EarliestSafeBoundary,
            group: group_of(&body)?,
            available_at: Timestamp(body.available_at_ms),
            body: content,
        };
        let pushed = self.with_bodies(session, &bodies, push).await;
        match pushed.map_err(|error| backend("enqueuing work", &error))? {
            WorkPushed::Known(view) => self.batch(session, &view).await,
            WorkPushed::Queued { number, pushed_at } => {
                let source_key = draft.source_key;
                Ok(batch_of(
                    number,
                    draft.session_id,
                    source_key,
                    pushed_at,
                    body,
                ))
            }
        }
    }

    /// The batch as lash sees it.
    async fn batch(&self, session: &SessionRef, view: &WorkView) -> Result<QueuedWorkBatch> {
        let body = self.body_of(session, &view.body).await?;
        let body: Body = from_bytes("queued work", &body)?;
        let work = &view.work;
        let source_key = work.source.as_ref().map(ToString::to_string);
        let lane = work.lane.to_string();
        Ok(batch_of(
            work.number,
            lane,
            source_key,
            work.pushed_at,
            body,
        ))
    }

    pub(super) async fn claim_work(
        &self,
        session_id: &str,
        (fence, owner): (&SessionExecutionLeaseFence, &LeaseOwnerIdentity),
        ttl_ms: u64,
        choice: WorkChoice,
    ) -> Result<Option<QueuedWorkClaim>> {
        let execution = self.held(fence).filter(|_| fence.session_id == session_id);
        let execution = execution.ok_or_else(|| lease_lost(session_id))?;
        let session = self.opened().await?;
        let claim = ClaimWork {
            session: session.clone(),
            lane: name("session id", session_id)?,
            execution,
            owner: owner_of(owner)?,
            lease_token: new_proof(),
            ttl_ms,
            choice,
            dead: self.dead_claims_of_work(session, session_id, owner).await?,
        };
        let claimed = self.client().execute(claim).await;
        let claimed = claimed.map_err(|error| under_lease("claiming work", session_id, &error))?;
        match claimed {
            Some(claimed) => self.claim_told(session, session_id, owner, claimed).await,
            None => Ok(None),
        }
    }

    async fn claim_told(
        &self,
        session: &SessionRef,
        session_id: &str,
        owner: &LeaseOwnerIdentity,
        claimed: ClaimedWork,
    ) -> Result<Option<QueuedWorkClaim>> {
        let ClaimedWork { claim, work } = claimed;
        let mut batches = Vec::with_capacity(work.len());
        for view in &work {
            batches.push(self.batch(session, view).await?);
        }
        let epoch = work.first().map_or(0, |view| view.work.claims);
        Ok(Some(QueuedWorkClaim {
            session_id: session_id.to_owned(),
            claim_id: claims::WORK.id(claim.fencing_token),
            owner: owner.clone(),
            lease_token: claim.lease_token.as_str().to_owned(),
            fencing_token: self.shown(claim.fencing_token, epoch),
            claimed_at_epoch_ms: claim.claimed_at.0,
            expires_at_epoch_ms: claim.expires_at.0,
            batches,
        }))
    }

    /// Claims of owners that have died, as far as the claimant can know.
    async fn dead_claims_of_work(
        &self,
        session: &SessionRef,
        session_id: &str,
        claimant: &LeaseOwnerIdentity,
    ) -> Result<Vec<FencingToken>> {
        if !claims::can_tell_who_died(claimant) {
            return Ok(Vec::new());
        }
        let work = WorkList {
            session: session.clone(),
            lane: Some(name("session id", session_id)?),
            unclaimed: false,
            after: None,
            limit: SESSION_BATCH_MAX as u32,
        };
        let page = self.client().session_work(work).await;
        let page = page.map_err(|error| backend("reading queued work", &error))?;
        let rows = page.map(|page| page.rows).unwrap_or_default();
        let held = rows.into_iter().filter_map(|view| view.work.claim);
        Ok(claims::of_the_dead(held, claimant))
    }

    pub(super) async fn renew_work(
        &self,
        claim: &QueuedWorkClaim,
        ttl_ms: u64,
    ) -> Result<QueuedWorkClaim> {
        let lost = || work_lost(&claim.session_id, &claim.claim_id);
        let (reference, numbers) = named(claim).ok_or_else(lost)?;
        let session = self.found().await?.ok_or_else(lost)?;
        let renew = RenewWork {
            session: session.clone(),
            lane: name("session id", &claim.session_id)?,
            claim: reference,
            numbers,
            ttl_ms,
        };
        match self.client().execute(renew).await {
            Ok(renewed) => Ok(QueuedWorkClaim {
                expires_at_epoch_ms: renewed.expires_at.0,
                ..claim.clone()
            }),
            Err(ClientError::Refused(Refusal::Fenced { .. })) => Err(lost()),
            Err(error) => Err(backend("renewing a claim of work", &error)),
        }
    }

    pub(super) async fn abandon_work(&self, claim: &QueuedWorkClaim) -> Result<()> {
        // What this store never gave out it has not to take back.
        let Some((reference, numbers)) = named(claim).filter(|(_, work)| !work.is_empty()) else {
            return Ok(());
        };
        let Some(session) = self.found().await? else {
            return Ok(());
        };
        let abandon = AbandonWork {
            session: session.clone(),
            lane: name("session id", &claim.session_id)?,
            claim: reference,
            numbers,
        };
        self.executed("abandoning a claim of work", abandon)
            .await
            .map(drop)
    }

    pub(super) async fn cancel_work(
        &self,
        session_id: &str,
        batch_id: &str,
    ) -> Result<Option<QueuedWorkBatch>> {
        let (Some(number), Some(session)) = (batch_number(batch_id), self.found().await?) else {
            return Ok(None);
        };
        let cancel = CancelWork {
            session: session.clone(),
            lane: name("session id", session_id)?,
            number,
        };
        match self.executed("cancelling work", cancel).await? {
            Some(view) => self.batch(session, &view).await.map(Some),
            None => Ok(None),
        }
    }

    pub(super) async fn list_work(
        &self,
        session_id: &str,
        unclaimed: bool,
    ) -> Result<Vec<QueuedWorkBatch>> {
        let mut batches = Vec::new();
        let Some(session) = self.found().await? else {
            return Ok(batches);
        };
        let mut after = None;
        loop {
            let work = WorkList {
                session: session.clone(),
                lane: Some(name("session id", session_id)?),
                unclaimed,
                after,
                limit: 0,
            };
            let page = self.client().session_work(work).await;
            let page = page.map_err(|error| backend("reading queued work", &error))?;
            let Some(page) = page else {
                return Ok(batches);
            };
            for view in &page.rows {
                batches.push(self.batch(session, view).await?);
            }
            after = match (page.next, page.rows.into_iter().next_back()) {
                (Some(_), Some(last)) => Some((last.work.lane, last.work.number)),
                _ => return Ok(batches),
            };
        }
    }
}

/// The claim that lash names, and the work that it took.
fn named(claim: &QueuedWorkClaim) -> Option<(ClaimRef, Vec<u64>)> {
    let reference = claims::WORK.named(&claim.claim_id, &claim.lease_token)?;
    let numbers = claim.batches.iter();
    let numbers = numbers.map(|batch| batch_number(&batch.batch_id));
    Some((reference, numbers.collect::<Option<_>>()?))
}

/// What to take at a boundary, `max` batches at most.
pub(super) fn turn_work(boundary: QueuedWorkClaimBoundary, max: usize) -> WorkChoice {
    WorkChoice::Turn {
        running: is_running(boundary),
        max: max.min(SESSION_BATCH_MAX) as u32,
    }
}

/// Just these, or nothing.
pub(super) fn exactly(
    boundary: QueuedWorkClaimBoundary,
    batch_ids: &[String],
) -> Result<Option<WorkChoice>> {
    let (count, max) = (batch_ids.len() as u64, SESSION_BATCH_MAX as u64);
    InvalidArgument::check_count("batch_ids", count, 0, max).map_err(invalid)?;
    let numbers: Option<Vec<u64>> = batch_ids.iter().map(|id| batch_number(id)).collect();
    // A batch that is not this store's is not at the front of anything.
    Ok(numbers
        .filter(|numbers| !numbers.is_empty())
        .map(|numbers| WorkChoice::Exactly {
            running: is_running(boundary),
            numbers,
        }))
}

fn is_running(boundary: QueuedWorkClaimBoundary) -> bool {
    boundary == QueuedWorkClaimBoundary::ActiveTurnCheckpoint
}

/// What a batch is taken together with: a batch that joins, those of its merge key.
fn group_of(body: &Body) -> Result<Option<Vec<u8>>> {
    match body.slot_policy {
        SlotPolicy::Exclusive => Ok(None),
        SlotPolicy::Join => to_bytes("merge key", &body.merge_key).map(Some),
    }
}

fn batch_of(
    number: u64,
    session_id: String,
    source_key: Option<String>,
    pushed_at: Timestamp,
    body: Body,
) -> QueuedWorkBatch {
    let batch_id = format!("{BATCH}{number}");
    let items = body.payloads.into_iter().enumerate();
    let items = items.map(|(at, payload)| QueuedWorkItem {
        item_id: format!("{batch_id}:item:{at}"),
        payload,
    });
    QueuedWorkBatch {
        items: items.collect(),
        batch_id,
        session_id,
        enqueue_seq: number,
        source_key,
        delivery_policy: body.delivery_policy,
        slot_policy: body.slot_policy,
        merge_key: body.merge_key,
        available_at_ms: body.available_at_ms,
        enqueued_at_ms: pushed_at.0,
    }
}
