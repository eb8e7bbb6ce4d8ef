//! The way of a read through this node: confirm, catch up, answer.
//!
//! A linearizable read asks the leader which log index it must see (ReadIndex, the Raft thesis,
//! section 6.4), waits until this node has applied it, and is answered from the local state: any
//! node can do it and nothing goes through the log. All reads that wait share one such round.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::errors::{LinearizableReadError, RaftError};
use openraft::{Instant as _, ReadPolicy};
use quorate_client::{Answered, Consistency, ReadOptions};
use quorate_rpc::{NodeError, v1};
use quorate_statemachine::{Query, Timestamp};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;

use crate::access;
use crate::admission::{Admission, Lane, Permit};
use crate::clock::ClusterClock;
use crate::membership::leader_of;
use crate::network::Peers;
use crate::origin::Origin;
use crate::propose::{not_leader, stopped, too_late};
use crate::quarantine::Quarantine;
use crate::raft::{Member, Raft, TypeConfig, since_quorum};
use crate::respond::{self, Responder};
use crate::storage::StateReader;

/// Rounds of leadership confirmation in flight: reads that come meanwhile share the next one.
const ROUNDS_MAX: usize = 4;

/// Reads one round may carry.
const ROUND_READS: usize = 1_024;

/// Bytes of a query that count against the limit of what is in flight.
const QUERY_BYTES: usize = 256;

/// A read on its way.
pub struct ReadSubmission {
    /// What to read.
    pub query: Query,
    /// Who asks, and in which trace.
    pub origin: Origin,
    /// How fresh the answer must be.
    pub consistency: Consistency,
    /// The answer is of this log index or a later one.
    pub min_index: u64,
    /// After it nobody waits any more.
    pub deadline: Instant,
    /// Where the answer goes.
    pub responder: Responder<Answered>,
}

struct Pending {
    read: ReadSubmission,
    _permit: Permit,
}

/// Answers reads.
#[derive(Clone)]
pub struct Reader {
    tx: mpsc::UnboundedSender<Pending>,
    admission: Arc<Admission>,
    quarantine: Arc<Quarantine>,
}

/// What answering works with.
#[derive(Clone)]
pub struct ReadContext {
    /// The Raft of this node.
    pub raft: Raft,
    /// The way to the leader.
    pub peers: Arc<Peers>,
    /// Cluster time, if this node leads.
    pub clock: Arc<ClusterClock>,
    /// The local state.
    pub state: StateReader,
    /// Follows the applied index.
    pub applied: watch::Receiver<u64>,
    /// Whether the state is to be used.
    pub quarantine: Arc<Quarantine>,
}

/// Which index a round of reads must see, and what time it is there.
struct ReadPoint {
    index: u64,
    now: Timestamp,
}

impl Reader {
    /// Starts the reading task; it ends when the last `Reader` is gone.
    #[must_use]
    pub fn start(context: ReadContext, admission: Arc<Admission>) -> Self {
        // Bounded by the admission: every message holds a permit.
        let (tx, rx) = mpsc::unbounded_channel();
        let quarantine = Arc::clone(&context.quarantine);
        tokio::spawn(run(context, rx));
        Self {
            tx,
            admission,
            quarantine,
        }
    }

    /// Queues a read. Every way out answers through the responder.
    pub fn submit(&self, read: ReadSubmission) {
        let sound = self.quarantine.check();
        let caller = &read.origin.caller;
        let admitted = sound.and_then(|()| {
            let lane = Lane::Upkeep;
            self.admission.admit(lane, caller, QUERY_BYTES)
        });
        let permit = match admitted {
            Ok(permit) => permit,
            Err(error) => return read.responder.send(Err(error)),
        };
        let pending = Pending {
            read,
            _permit: permit,
        };
        if let Err(mpsc::error::SendError(pending)) = self.tx.send(pending) {
            pending.read.responder.send(Err(stopped()));
        }
    }

    /// Answers one read.
    pub async fn read(
        &self,
        query: Query,
        origin: Origin,
        options: ReadOptions,
    ) -> respond::Outcome<Answered> {
        let submit = |responder| {
            self.submit(ReadSubmission {
                query,
                origin,
                consistency: options.consistency,
                min_index: options.min_index,
                deadline: options.deadline,
                responder,
            });
        };
        respond::answer_of(options.deadline, stopped, submit).await
    }
}

async fn run(context: ReadContext, mut rx: mpsc::UnboundedReceiver<Pending>) {
    let rounds = Arc::new(Semaphore::new(ROUNDS_MAX));
    while let Some(first) = rx.recv().await {
        let Ok(round) = Arc::clone(&rounds).acquire_owned().await else {
            return;
        };
        let mut batch = vec![first];
        while batch.len() < ROUND_READS {
            let Ok(next) = rx.try_recv() else { break };
            batch.push(next);
        }
        let context = context.clone();
        tokio::spawn(async move {
            context.answer_all(batch).await;
            drop(round);
        });
    }
}

impl ReadContext {
    /// Splits a batch by consistency: each kind has a round of its own.
    async fn answer_all(&self, batch: Vec<Pending>) {
        let (mut fresh, mut leased, mut stale) = (Vec::new(), Vec::new(), Vec::new());
        for pending in batch {
            match pending.read.consistency {
                Consistency::Linearizable => fresh.push(pending),
                Consistency::Lease => leased.push(pending),
                Consistency::Stale { .. } => stale.push(pending),
            }
        }
        tokio::join!(
            self.confirmed(fresh, ReadPolicy::ReadIndex),
            self.confirmed(leased, ReadPolicy::LeaseRead),
            self.stale(stale),
        );
    }

    async fn confirmed(&self, batch: Vec<Pending>, policy: ReadPolicy) {
        let Some(deadline) = batch.iter().map(|pending| pending.read.deadline).max() else {
            return;
        };
        let point = tokio::time::timeout_at(deadline, self.read_point(policy)).await;
        match point.unwrap_or_else(|_| Err(too_late())) {
            Ok(point) => self.answer_at(batch, &point).await,
            Err(error) => {
                for pending in batch {
                    pending.read.responder.send(Err(error.clone()));
                }
            }
        }
    }

    async fn stale(&self, batch: Vec<Pending>) {
        if batch.is_empty() {
            return;
        }
        let lag = self.since_leader_was_heard().await;
        let mut within = Vec::with_capacity(batch.len());
        for pending in batch {
            let Consistency::Stale { max_lag_ms } = pending.read.consistency else {
                continue;
            };
            match (max_lag_ms, lag) {
                (Some(max), lag) if lag.is_none_or(|lag| lag > Duration::from_millis(max)) => {
                    pending.read.responder.send(Err(too_stale(max, lag)));
                }
                _ => within.push(pending),
            }
        }
        let point = ReadPoint {
            index: 0,
            now: self.state.now(),
        };
        self.answer_at(within, &point).await;
    }

    /// A read that asks for a later index waits by itself: it holds back neither the others of its
    /// batch nor the next round, however long it waits.
    async fn answer_at(&self, batch: Vec<Pending>, point: &ReadPoint) {
        let reached = point.index.max(*self.applied.borrow());
        let ahead = |pending: &Pending| pending.read.min_index > reached;
        let (ahead, batch): (Vec<_>, Vec<_>) = batch.into_iter().partition(ahead);
        for pending in ahead {
            let (context, now, wanted) = (self.clone(), point.now, pending.read.min_index);
            tokio::spawn(async move {
                context
                    .answer_once_applied(vec![pending], wanted, now)
                    .await;
            });
        }
        self.answer_once_applied(batch, point.index, point.now)
            .await;
    }

    async fn answer_once_applied(&self, batch: Vec<Pending>, wanted: u64, now: Timestamp) {
        let Some(deadline) = batch.iter().map(|pending| pending.read.deadline).max() else {
            return;
        };
        let mut applied = self.applied.clone();
        let caught_up = applied.wait_for(|applied| *applied >= wanted);
        match tokio::time::timeout_at(deadline, caught_up).await {
            Ok(Ok(_)) => self.answer_now(batch, now),
            Ok(Err(_)) => batch
                .into_iter()
                .for_each(|pending| pending.read.responder.send(Err(stopped()))),
            Err(_) => batch
                .into_iter()
                .for_each(|pending| pending.read.responder.send(Err(too_late()))),
        }
    }

    /// One look at the state answers all.
    fn answer_now(&self, batch: Vec<Pending>, now: Timestamp) {
        // It may have begun while they waited.
        if let Err(error) = self.quarantine.check() {
            for pending in batch {
                pending.read.responder.send(Err(error.clone()));
            }
            return;
        }
        self.state.read(|view, index, applied_now| {
            // The state may have moved on since the round began; time does not go back.
            let now = now.max(applied_now);
            for Pending { read, _permit } in batch {
                let allowed = access::check_query(view, &read.origin.caller, &read.query);
                let reading = allowed.and_then(|()| {
                    let at = time_of(&read.query, now, applied_now);
                    let answer = quorate_statemachine::query::query(view, at, &read.query);
                    let answer = answer.map_err(|broken| NodeError::Stopped {
                        message: broken.to_string(),
                    })?;
                    Ok(Answered { index, now, answer })
                });
                read.responder.send(reading);
            }
        });
    }

    /// Waits until this node has applied all that was acknowledged before the call.
    pub async fn catch_up(&self, deadline: Instant) -> Result<(), NodeError> {
        let asked = self.read_point(ReadPolicy::ReadIndex);
        let point = tokio::time::timeout_at(deadline, asked).await;
        let point = point.unwrap_or_else(|_| Err(too_late()))?;
        let mut applied = self.applied.clone();
        let reached = applied.wait_for(|applied| *applied >= point.index);
        match tokio::time::timeout_at(deadline, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(stopped()),
            Err(_) => Err(too_late()),
        }
    }

    /// Asks for the index that reads must see: here if this node leads, else of the leader.
    async fn read_point(&self, policy: ReadPolicy) -> Result<ReadPoint, NodeError> {
        match self.local_read_point(policy.clone()).await {
            Err(error @ NodeError::Unavailable { .. }) => match leader_of(&self.raft) {
                Some((id, leader)) => self.leader_read_point(id, &leader, &policy).await,
                None => Err(error),
            },
            other => other,
        }
    }

    async fn local_read_point(&self, policy: ReadPolicy) -> Result<ReadPoint, NodeError> {
        // The time that a leader tells comes out of its state.
        self.quarantine.check()?;
        let linearizer = self
            .raft
            .get_read_linearizer(policy)
            .await
            .map_err(read_error)?;
        Ok(ReadPoint {
            index: linearizer.read_log_id().index(),
            now: self.clock.of_leader(&self.raft, self.state.now()),
        })
    }

    async fn leader_read_point(
        &self,
        id: u64,
        leader: &Member,
        policy: &ReadPolicy,
    ) -> Result<ReadPoint, NodeError> {
        let consistency = match policy {
            ReadPolicy::LeaseRead => v1::Consistency::Lease,
            ReadPolicy::ReadIndex => v1::Consistency::Linearizable,
        };
        let mut request = v1::ReadIndexRequest::default();
        request.set_consistency(consistency);
        let reply = self.peers.read_index(id, leader, request).await?;
        match reply.error {
            Some(error) => Err(error.into()),
            None => Ok(ReadPoint {
                index: reply.read_log_id.unwrap_or_default().index,
                now: Timestamp(reply.now_ms),
            }),
        }
    }

    /// Answers another node's question for its reads' index.
    pub async fn read_index(&self, request: &v1::ReadIndexRequest) -> v1::ReadIndexReply {
        let policy = match request.consistency() {
            v1::Consistency::Lease => ReadPolicy::LeaseRead,
            v1::Consistency::Linearizable | v1::Consistency::Stale => ReadPolicy::ReadIndex,
        };
        match self.local_read_point(policy).await {
            Ok(point) => v1::ReadIndexReply {
                read_log_id: Some(v1::LogId {
                    term: 0,
                    index: point.index,
                }),
                now_ms: point.now.0,
                error: None,
            },
            Err(error) => v1::ReadIndexReply {
                error: Some(error.into()),
                ..v1::ReadIndexReply::default()
            },
        }
    }

    /// How long ago this node heard from a leader; none if it never did.
    pub async fn since_leader_was_heard(&self) -> Option<Duration> {
        let metrics = self.raft.metrics().borrow_watched().clone();
        if metrics.state.is_leader() {
            return since_quorum(&metrics);
        }
        let heard = self
            .raft
            .with_raft_state(|state| state.vote_last_modified())
            .await;
        heard.ok().flatten().map(|at| at.elapsed())
    }
}

/// At what time a query looks at the state.
///
/// At that of the last applied entry: an answer is then what the log says up to there. The clock
/// is ahead of entries on their way, each stamped when it was proposed. By it a lease could be seen
/// to be over, and be renewed by such an entry after the answer. Tokens of users go by the clock:
/// nothing renews them.
fn time_of(query: &Query, now: Timestamp, applied_now: Timestamp) -> Timestamp {
    #[cfg(feature = "simulation")]
    if crate::simulation::has(crate::simulation::Bug::ReadsByClock) {
        return now;
    }
    match query {
        Query::Access(_) => now,
        _ => applied_now,
    }
}

fn read_error(error: RaftError<TypeConfig, LinearizableReadError<TypeConfig>>) -> NodeError {
    match error {
        RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)) => {
            not_leader(&forward)
        }
        RaftError::APIError(LinearizableReadError::QuorumNotEnough(short)) => {
            NodeError::Unavailable {
                message: format!("this leader cannot reach a quorum: {short}"),
                retry_after_ms: 100,
                leader: None,
            }
        }
        RaftError::Fatal(fatal) => NodeError::Stopped {
            message: fatal.to_string(),
        },
    }
}

fn too_stale(max_ms: u64, lag: Option<Duration>) -> NodeError {
    let lag = lag.map_or("it has heard from none".to_owned(), |lag| {
        format!("it heard from a leader {} ms ago", lag.as_millis())
    });
    NodeError::TooStale {
        message: format!("the read allows a lag of {max_ms} ms, {lag}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_statemachine::{Name, access, lease};

    #[test]
    fn only_what_nothing_renews_is_over_by_the_clock() {
        let name = Name::parse("key", "a").expect("a valid name");
        let (now, applied_now) = (Timestamp(9), Timestamp(5));
        let lease = Query::Lease(lease::Query::Get(lease::Get { key: name.clone() }));
        assert_eq!(time_of(&lease, now, applied_now), applied_now);
        let tokens = Query::Access(access::Query::Tokens(access::TokensOf { user: name }));
        assert_eq!(time_of(&tokens, now, applied_now), now);
    }
}
