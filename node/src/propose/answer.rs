//! The answers to what was proposed, and to whom each goes.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, Fatal};
use openraft::raft::WriteResult;
use quorate_client::Executed;
use quorate_rpc::NodeError;
use quorate_statemachine::{Refusal, Reply, Response, lease, lock};
use tokio::time::{Instant, timeout_at};

use super::not_leader;
use crate::admission::Permit;
use crate::metrics::Metrics;
use crate::quarantine::Quarantine;
use crate::raft::{Outcome, Raft, TypeConfig};
use crate::respond::Responder;
use crate::spans::Span;

/// Who gets which part of an entry's answer.
pub(super) enum Waiting {
    One(Responder<Executed>, Permit, Option<Span>),
    Renewals(Vec<(Responder<Executed>, Permit)>),
}

/// Ends once this node has not led for an election time. Raft answers a proposal when its entry is
/// applied or replaced here, and nobody replicates to a member that was removed while it led.
pub(super) async fn deposed(raft: Raft) {
    let election = Duration::from_millis(raft.config().election_timeout_max);
    let mut standing = raft.server_metrics();
    let mut patience = None;
    loop {
        let leads = standing.borrow_and_update().state == ServerState::Leader;
        patience = patience.filter(|_| !leads);
        let change = standing.changed();
        let changed = match leads {
            true => change.await.is_ok(),
            false => {
                let until = *patience.get_or_insert_with(|| Instant::now() + election);
                matches!(timeout_at(until, change).await, Ok(Ok(())))
            }
        };
        if !changed {
            return;
        }
    }
}

/// Hands the answers of a batch out, in the order of the log.
pub(super) async fn deliver(
    results: impl Stream<Item = Result<WriteResult<TypeConfig>, Fatal<TypeConfig>>>,
    waiting: Vec<Waiting>,
    metrics: Arc<Metrics>,
    quarantine: Arc<Quarantine>,
) {
    let (mut applied, proposed) = (0, waiting.len() as u64);
    let mut results = pin!(results);
    for waiting in waiting {
        match results.next().await {
            Some(Ok(Ok(response))) => {
                applied += 1;
                // The entry counts; the answer came out of a state that is wrong.
                match quarantine.is_on() {
                    false => waiting.answer(response.response),
                    true => waiting.fail(&NodeError::OutcomeUnknown {
                        message: "it is in the log, but the state of this node, which would \
                                  answer, differs from that of the others; ask another member"
                            .to_owned(),
                    }),
                }
            }
            Some(Ok(Err(error))) => waiting.fail(&write_error(error)),
            Some(Err(fatal)) => waiting.fail(&NodeError::OutcomeUnknown {
                message: format!("the node stopped after it proposed: {fatal}"),
            }),
            None => waiting.fail(&leadership_lost()),
        }
    }
    let recorded = metrics.recorded();
    recorded.proposals_applied.inc_by(applied);
    recorded.proposals_failed.inc_by(proposed - applied);
}

impl Waiting {
    fn answer(self, outcome: Outcome) {
        let index = outcome.index;
        match (self, outcome.reply) {
            (Self::One(responder, _permit, span), Some(reply)) => {
                if let Some(span) = span {
                    span.answered(Ok(index));
                }
                responder.send(Ok(Executed { index, reply }));
            }
            (Self::Renewals(renewers), Some(Reply(Ok(response)))) => {
                let answers = each(response);
                assert_eq!(renewers.len(), answers.len(), "each renewal has its answer");
                for ((responder, _permit), answer) in renewers.into_iter().zip(answers) {
                    let reply = Reply(answer);
                    responder.send(Ok(Executed { index, reply }));
                }
            }
            (waiting, reply) => waiting.fail(&NodeError::OutcomeUnknown {
                message: format!("entry {index} answered {reply:?}, which fits no command here"),
            }),
        }
    }

    pub fn fail(self, error: &NodeError) {
        match self {
            Self::One(responder, _permit, span) => {
                if let Some(span) = span {
                    span.answered(Err(error));
                }
                responder.send(Err(error.clone()));
            }
            Self::Renewals(renewers) => {
                for (responder, _permit) in renewers {
                    responder.send(Err(error.clone()));
                }
            }
        }
    }
}

/// The answers of gathered renewals, one by one.
fn each(response: Response) -> Vec<Result<Response, Refusal>> {
    match response {
        Response::Lease(lease::Response::RenewMany(answers)) => {
            let one = |renewed| Response::Lease(lease::Response::Renew(renewed));
            answers.into_iter().map(|answer| answer.map(one)).collect()
        }
        Response::Lock(lock::Response::RenewMany(answers)) => {
            let one = |kept| Response::Lock(lock::Response::Renew(kept));
            answers.into_iter().map(|answer| answer.map(one)).collect()
        }
        _ => Vec::new(),
    }
}

fn write_error(error: ClientWriteError<TypeConfig>) -> NodeError {
    match error {
        ClientWriteError::ForwardToLeader(forward) => not_leader(&forward),
        ClientWriteError::LogEntryDiscarded(_) => leadership_lost(),
        other => NodeError::OutcomeUnknown {
            message: other.to_string(),
        },
    }
}

fn leadership_lost() -> NodeError {
    NodeError::OutcomeUnknown {
        message: "leadership was lost after the command was proposed".to_owned(),
    }
}
