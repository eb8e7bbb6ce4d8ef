//! Pending turn inputs of lash's: inputs of the cluster's.

use lash_core::{
    CheckpointKind, LeaseOwnerIdentity, PendingTurnInput, PendingTurnInputCancelOutcome,
    PendingTurnInputCancelResult, PendingTurnInputCancelTarget, PendingTurnInputClaimDiagnostics,
    PendingTurnInputDraft, PendingTurnInputSuffixCancelOutcome, SessionExecutionLeaseFence,
    StoreError, TurnInput, TurnInputCheckpointBoundary, TurnInputClaim, TurnInputClaimMode,
    TurnInputIngress, TurnInputState,
};
use quorate_statemachine::FencingToken;
use quorate_statemachine::limits::SESSION_BATCH_MAX;
use quorate_statemachine::session::{
    AbandonInputs, CancelInputs, CancelInputsFrom, CancelOutcome, CancelTarget, ClaimInputs, Input,
    InputMode, InputPushed, InputState, InputView, Inputs, PushInput, SessionRef,
};

use super::bodies::{Bodies, from_bytes, to_bytes};
use super::error::{Result, backend, lease_lost, name, under_lease};
use super::lease::{identity_of, owner_of};
use super::{QuorateSession, claims};
use crate::lease::new_proof;

impl QuorateSession {
    pub(super) async fn push_input(
        &self,
        draft: PendingTurnInputDraft,
    ) -> Result<PendingTurnInput> {
        let session = self.opened().await?;
        let minted = || format!("pti:{:032x}", fastrand::u128(..));
        let id = draft.input_id.unwrap_or_else(minted);
        let mut bodies = Bodies::new();
        let body = to_bytes("turn input", &draft.input)?;
        let source = draft.source_key.as_deref();
        let push = PushInput {
            session: session.clone(),
            lane: name("session id", &draft.session_id)?,
            id: name("input id", &id)?,
            source: source.map(|key| name("source key", key)).transpose()?,
            mode: mode_of(&draft.ingress)?,
            body: bodies.content("turn input", body)?,
        };
        let source = push.source.clone();
        let pushed = self.with_bodies(session, &bodies, push).await;
        match pushed.map_err(|error| backend("enqueuing a turn input", &error))? {
            InputPushed::Queued { number, pushed_at } => Ok(PendingTurnInput {
                input_id: id,
                session_id: draft.session_id,
                enqueue_seq: number,
                source_key: draft.source_key,
                state: pending(&draft.ingress),
                ingress: draft.ingress,
                enqueued_at_ms: pushed_at.0,
                input: draft.input,
            }),
            InputPushed::Known { input, same: true } => self.input(session, &input).await,
            InputPushed::Known { input, same: false } => {
                let existing_input_id = input.input.id.to_string();
                match source.filter(|source| input.input.source.as_ref() == Some(source)) {
                    Some(source) => Err(StoreError::PendingTurnInputSourceKeyConflict {
                        session_id: draft.session_id,
                        source_key: source.to_string(),
                        existing_input_id,
                    }),
                    None => Err(StoreError::Backend(format!(
                        "input id `{existing_input_id}` is bound to other content"
                    ))),
                }
            }
        }
    }

    /// The input as lash sees it.
    async fn input(&self, session: &SessionRef, view: &InputView) -> Result<PendingTurnInput> {
        let body = self.body_of(session, &view.body).await?;
        let input: TurnInput = from_bytes("turn input", &body)?;
        let row = &view.input;
        let ingress = ingress_of(&row.mode)?;
        Ok(PendingTurnInput {
            input_id: row.id.to_string(),
            session_id: row.lane.to_string(),
            enqueue_seq: row.number,
            source_key: row.source.as_ref().map(ToString::to_string),
            state: match row.state {
                InputState::Pending => pending(&ingress),
                InputState::Accepted => TurnInputState::Accepted,
                InputState::Cancelled => TurnInputState::Cancelled,
                InputState::Completed => TurnInputState::Completed,
            },
            ingress,
            enqueued_at_ms: row.pushed_at.0,
            input,
        })
    }

    pub(super) async fn list_inputs(&self, session_id: &str) -> Result<Vec<PendingTurnInput>> {
        let mut inputs = Vec::new();
        let Some(session) = self.found().await? else {
            return Ok(inputs);
        };
        let mut after = None;
        loop {
            let asked = Inputs {
                session: session.clone(),
                lane: Some(name("session id", session_id)?),
                ended: false,
                unclaimed: true,
                after,
                limit: 0,
            };
            let page = self.client().session_inputs(asked).await;
            let page = page.map_err(|error| backend("reading turn inputs", &error))?;
            let Some(page) = page else {
                return Ok(inputs);
            };
            let pending = |view: &&InputView| view.input.state == InputState::Pending;
            for view in page.rows.iter().filter(pending) {
                inputs.push(self.input(session, view).await?);
            }
            after = match (page.next, page.rows.into_iter().next_back()) {
                (Some(_), Some(last)) => Some((last.input.lane, last.input.number)),
                _ => return Ok(inputs),
            };
        }
    }

    pub(super) async fn claim_inputs(
        &self,
        session_id: &str,
        (fence, owner): (&SessionExecutionLeaseFence, &LeaseOwnerIdentity),
        mode: TurnInputClaimMode,
        ttl_ms: u64,
        max: usize,
    ) -> Result<Option<TurnInputClaim>> {
        if max == 0 {
            return Ok(None);
        }
        let execution = self.held(fence).filter(|_| fence.session_id == session_id);
        let execution = execution.ok_or_else(|| lease_lost(session_id))?;
        let session = self.opened().await?;
        let claim = ClaimInputs {
            session: session.clone(),
            lane: name("session id", session_id)?,
            execution,
            owner: owner_of(owner)?,
            lease_token: new_proof(),
            ttl_ms,
            mode: claimed_mode(&mode)?,
            max: max.min(SESSION_BATCH_MAX) as u32,
            dead: self
                .dead_claims_of_inputs(session, session_id, owner)
                .await?,
        };
        let claimed = self.client().execute(claim).await;
        let claimed =
            claimed.map_err(|error| under_lease("claiming inputs", session_id, &error))?;
        let Some(claimed) = claimed else {
            return Ok(None);
        };
        let mut inputs = Vec::with_capacity(claimed.inputs.len());
        for view in &claimed.inputs {
            inputs.push(self.input(session, view).await?);
        }
        let epoch = claimed.inputs.first().map_or(0, |view| view.input.claims);
        let claim = claimed.claim;
        Ok(Some(TurnInputClaim {
            session_id: session_id.to_owned(),
            claim_id: claims::INPUTS.id(claim.fencing_token),
            owner: owner.clone(),
            lease_token: claim.lease_token.as_str().to_owned(),
            fencing_token: self.shown(claim.fencing_token, epoch),
            claimed_at_epoch_ms: claim.claimed_at.0,
            expires_at_epoch_ms: claim.expires_at.0,
            mode,
            inputs,
        }))
    }

    /// See [`Self::dead_claims_of_work`].
    async fn dead_claims_of_inputs(
        &self,
        session: &SessionRef,
        session_id: &str,
        claimant: &LeaseOwnerIdentity,
    ) -> Result<Vec<FencingToken>> {
        if !claims::can_tell_who_died(claimant) {
            return Ok(Vec::new());
        }
        let asked = Inputs {
            session: session.clone(),
            lane: Some(name("session id", session_id)?),
            ended: false,
            unclaimed: false,
            after: None,
            limit: SESSION_BATCH_MAX as u32,
        };
        let page = self.client().session_inputs(asked).await;
        let page = page.map_err(|error| backend("reading turn inputs", &error))?;
        let rows = page.map(|page| page.rows).unwrap_or_default();
        let held = rows.into_iter().filter_map(|view| view.input.claim);
        Ok(claims::of_the_dead(held, claimant))
    }

    pub(super) async fn abandon_inputs(&self, claim: &TurnInputClaim) -> Result<()> {
        // What this store never gave out it has not to take back.
        let Some(reference) = claims::INPUTS.named(&claim.claim_id, &claim.lease_token) else {
            return Ok(());
        };
        if claim.inputs.is_empty() {
            return Ok(());
        }
        let Some(session) = self.found().await? else {
            return Ok(());
        };
        let ids = claim.inputs.iter();
        let ids = ids.map(|input| name("input id", &input.input_id));
        let abandon = AbandonInputs {
            session: session.clone(),
            lane: name("session id", &claim.session_id)?,
            claim: reference,
            ids: ids.collect::<Result<_>>()?,
        };
        self.executed("abandoning a claim of inputs", abandon)
            .await
            .map(drop)
    }

    pub(super) async fn cancel_inputs(
        &self,
        session_id: &str,
        targets: &[PendingTurnInputCancelTarget],
    ) -> Result<Vec<PendingTurnInputCancelResult>> {
        if targets.is_empty() {
            return Ok(Vec::new());
        }
        let Some(session) = self.found().await? else {
            let not_found = |target: &PendingTurnInputCancelTarget| PendingTurnInputCancelResult {
                target: target.clone(),
                outcome: PendingTurnInputCancelOutcome::NotFound,
            };
            return Ok(targets.iter().map(not_found).collect());
        };
        let cancel = CancelInputs {
            session: session.clone(),
            lane: name("session id", session_id)?,
            targets: targets.iter().map(target_of).collect::<Result<_>>()?,
        };
        let outcomes = self.executed("cancelling turn inputs", cancel).await?;
        let mut results = Vec::with_capacity(targets.len());
        for (target, outcome) in targets.iter().zip(outcomes) {
            results.push(PendingTurnInputCancelResult {
                target: target.clone(),
                outcome: self.outcome(session, outcome).await?,
            });
        }
        Ok(results)
    }

    pub(super) async fn cancel_inputs_from(
        &self,
        session_id: &str,
        anchor: &PendingTurnInputCancelTarget,
    ) -> Result<PendingTurnInputSuffixCancelOutcome> {
        let anchor_of = || anchor.clone();
        let not_found = || PendingTurnInputSuffixCancelOutcome::AnchorNotFound {
            anchor: anchor_of(),
        };
        let Some(session) = self.found().await? else {
            return Ok(not_found());
        };
        let cancel = CancelInputsFrom {
            session: session.clone(),
            lane: name("session id", session_id)?,
            from: target_of(anchor)?,
        };
        let Some(cancelled) = self.executed("cancelling turn inputs", cancel).await? else {
            return Ok(not_found());
        };
        let mut outcomes = Vec::with_capacity(cancelled.len());
        for outcome in cancelled {
            outcomes.push(self.outcome(session, outcome).await?);
        }
        Ok(PendingTurnInputSuffixCancelOutcome::Outcomes {
            anchor: anchor_of(),
            outcomes,
        })
    }

    async fn outcome(
        &self,
        session: &SessionRef,
        outcome: CancelOutcome,
    ) -> Result<PendingTurnInputCancelOutcome> {
        let view = match &outcome {
            CancelOutcome::NotFound => return Ok(PendingTurnInputCancelOutcome::NotFound),
            CancelOutcome::Cancelled(view)
            | CancelOutcome::Claimed(view)
            | CancelOutcome::Ended(view) => view,
        };
        let input = self.input(session, view).await?;
        Ok(match outcome {
            CancelOutcome::Cancelled(_) => PendingTurnInputCancelOutcome::Cancelled(input),
            CancelOutcome::Claimed(view) => PendingTurnInputCancelOutcome::AlreadyClaimed {
                claim: Some(self.diagnostics(&view.input, input.state)?),
                input,
            },
            _ if input.state == TurnInputState::Completed => {
                PendingTurnInputCancelOutcome::AlreadyCompleted(input)
            }
            _ => PendingTurnInputCancelOutcome::AlreadyCancelled(input),
        })
    }

    fn diagnostics(
        &self,
        input: &Input,
        state: TurnInputState,
    ) -> Result<PendingTurnInputClaimDiagnostics> {
        let claim = input.claim.as_ref();
        let owner = claim.map(|claim| identity_of(&claim.owner)).transpose()?;
        let token = claim.map(|claim| claim.fencing_token).unwrap_or_default();
        Ok(PendingTurnInputClaimDiagnostics {
            state,
            claim_id: claim.map(|claim| claims::INPUTS.id(claim.fencing_token)),
            claim_owner: owner,
            claim_expires_at_ms: claim.map(|claim| claim.expires_at.0),
            claim_fencing_token: self.shown(token, input.claims),
        })
    }
}

fn target_of(target: &PendingTurnInputCancelTarget) -> Result<CancelTarget> {
    Ok(match target {
        PendingTurnInputCancelTarget::InputId(id) => CancelTarget::Id(name("input id", id)?),
        PendingTurnInputCancelTarget::SourceKey(key) => {
            CancelTarget::Source(name("source key", key)?)
        }
    })
}

fn pending(ingress: &TurnInputIngress) -> TurnInputState {
    match ingress {
        TurnInputIngress::ActiveTurn { .. } => TurnInputState::PendingActive,
        TurnInputIngress::NextTurn => TurnInputState::DeferredNextTurn,
    }
}

fn rank_of(boundary: TurnInputCheckpointBoundary) -> u8 {
    match boundary {
        TurnInputCheckpointBoundary::AfterWork => 0,
        TurnInputCheckpointBoundary::BeforeCompletion => 1,
    }
}

fn mode_of(ingress: &TurnInputIngress) -> Result<InputMode> {
    Ok(match ingress {
        TurnInputIngress::ActiveTurn {
            turn_id,
            min_boundary,
        } => InputMode::Running {
            turn: name("turn id", turn_id)?,
            rank: rank_of(*min_boundary),
        },
        TurnInputIngress::NextTurn => InputMode::Next,
    })
}

fn ingress_of(mode: &InputMode) -> Result<TurnInputIngress> {
    Ok(match mode {
        InputMode::Running { turn, rank } => TurnInputIngress::ActiveTurn {
            turn_id: turn.to_string(),
            min_boundary: match rank {
                0 => TurnInputCheckpointBoundary::AfterWork,
                1 => TurnInputCheckpointBoundary::BeforeCompletion,
                other => {
                    return Err(StoreError::Backend(format!(
                        "rank {other} of an input is no boundary of lash's"
                    )));
                }
            },
        },
        InputMode::Next => TurnInputIngress::NextTurn,
    })
}

/// A checkpoint takes inputs of its own boundary and of those before it.
fn claimed_mode(mode: &TurnInputClaimMode) -> Result<InputMode> {
    Ok(match mode {
        TurnInputClaimMode::ActiveTurn {
            turn_id,
            checkpoint,
        } => InputMode::Running {
            turn: name("turn id", turn_id)?,
            rank: match checkpoint {
                CheckpointKind::AfterWork => 0,
                CheckpointKind::BeforeCompletion => 1,
            },
        },
        TurnInputClaimMode::NextTurn => InputMode::Next,
    })
}
