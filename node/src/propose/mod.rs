//! The way of a write through this node: admit, check, stamp, propose, answer.
//!
//! Callers hand encoded commands to [`Proposer::submit`] together with a place for the answer. One
//! task takes all that wait, stamps them with cluster time, gathers renewals into one entry, and
//! proposes them in one step, upkeep before what may wait; the answers come back in the order of
//! the log.

mod answer;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use openraft::errors::{ForwardReason, ForwardToLeader};
use quorate_client::Executed;
use quorate_rpc::{LeaderHint, NodeError};
use quorate_statemachine::limits::{COMMAND_BYTES_MAX, RENEWALS_PER_ENTRY_MAX};
use quorate_statemachine::{
    Action, Command, InvalidArgument, Refusal, Reply, Timestamp, lease, lock, queue, session,
};
use tokio::sync::mpsc;
use tokio::time::Instant;

use self::answer::{Waiting, deliver, deposed};
use crate::admission::{Admission, Lane, Permit};
use crate::clock::ClusterClock;
use crate::metrics::Metrics;
use crate::origin::{Caller, Origin};
use crate::quarantine::Quarantine;
use crate::raft::{ORIGINS_SINCE, Proposal, Raft, TypeConfig};
use crate::respond::{self, Responder};
use crate::room::Room;
use crate::spans::Span;
use crate::storage::StateReader;
use crate::upgrade;

/// Commands proposed in one step at most.
const BATCH_COMMANDS: usize = 1_024;

/// Bytes proposed in one step at most; the command that exceeds it is the last of its batch.
const BATCH_BYTES: usize = 1 << 20;

/// What a caller is told to wait before it tries again while there is no leader.
const RETRY_AFTER_MS: u64 = 50;

/// A command on its way.
pub struct Submission {
    /// Encoded.
    pub command: Bytes,
    /// Who asks for it, and in which trace.
    pub origin: Origin,
    /// After it nobody waits any more; a command that is still here then is not proposed.
    pub deadline: Instant,
    /// A time to live of 0 is allowed in this command.
    pub allow_zero_ttl: bool,
    /// Where the answer goes.
    pub responder: Responder<Executed>,
}

/// A checked command that waits to be proposed.
struct Pending {
    command: Bytes,
    origin: Origin,
    /// Set when it can be gathered with other renewals.
    renewal: Option<Renewal>,
    deadline: Instant,
    responder: Responder<Executed>,
    permit: Permit,
    span: Option<Span>,
}

/// What shares an entry with others of its kind.
enum Renewal {
    Lease(lease::Renew),
    Lock(lock::Renew),
}

/// Takes commands of this node's callers to Raft.
#[derive(Clone)]
pub struct Proposer {
    growth: mpsc::UnboundedSender<Pending>,
    upkeep: mpsc::UnboundedSender<Pending>,
    admission: Arc<Admission>,
    room: Arc<Room>,
    state: StateReader,
    metrics: Arc<Metrics>,
    quarantine: Arc<Quarantine>,
}

/// What waits to be proposed, by lane.
struct Lanes {
    growth: mpsc::UnboundedReceiver<Pending>,
    upkeep: mpsc::UnboundedReceiver<Pending>,
}

impl Lanes {
    /// The next one, upkeep first; `None` when nobody is left to send any.
    async fn next(&mut self) -> Option<Pending> {
        tokio::select! {
            biased;
            Some(pending) = self.upkeep.recv() => Some(pending),
            Some(pending) = self.growth.recv() => Some(pending),
            else => None,
        }
    }

    /// The next one that is here already.
    fn ready(&mut self) -> Option<Pending> {
        let first = self.upkeep.try_recv();
        first.or_else(|_| self.growth.try_recv()).ok()
    }
}

/// What the proposing task works with.
struct Worker {
    raft: Raft,
    clock: Arc<ClusterClock>,
    state: StateReader,
    metrics: Arc<Metrics>,
    quarantine: Arc<Quarantine>,
}

/// Renewals of one kind and one caller that came together, and who waits for them.
struct Gathered<R> {
    renewals: Vec<R>,
    renewers: Vec<(Responder<Executed>, Permit)>,
    /// The last one as it came.
    last: Bytes,
}

impl Proposer {
    /// Starts the proposing task; it ends when the last `Proposer` is gone.
    pub fn start(
        raft: Raft,
        clock: Arc<ClusterClock>,
        state: StateReader,
        admission: Arc<Admission>,
        metrics: Arc<Metrics>,
        room: Arc<Room>,
        quarantine: Arc<Quarantine>,
    ) -> Self {
        // Bounded by the admission: every message holds a permit.
        let (growth, growing) = mpsc::unbounded_channel();
        let (upkeep, keeping) = mpsc::unbounded_channel();
        let lanes = Lanes {
            growth: growing,
            upkeep: keeping,
        };
        let worker = Worker {
            raft,
            clock,
            state: state.clone(),
            metrics: Arc::clone(&metrics),
            quarantine: Arc::clone(&quarantine),
        };
        tokio::spawn(worker.run(lanes));
        Self {
            growth,
            upkeep,
            admission,
            room,
            state,
            metrics,
            quarantine,
        }
    }

    /// Checks a command and queues it. Every way out answers through the responder.
    pub fn submit(&self, submission: Submission) {
        let Submission {
            command,
            origin,
            deadline,
            allow_zero_ttl,
            responder,
        } = submission;
        let checked = match check(&command, allow_zero_ttl) {
            Ok(checked) => checked,
            Err(invalid) => {
                let reply = Reply(Err(Refusal::Invalid(invalid)));
                return responder.send(Ok(Executed { index: 0, reply }));
            }
        };
        if let Err(error) = upgrade::may_propose(&self.state, &checked.action, &origin.caller) {
            return responder.send(Err(error));
        }
        let name = checked.action.name();
        // Gathered renewals share an entry, which has room for one trace.
        let renewal = renewal_of(checked).filter(|_| origin.trace.is_none());
        let lane = Lane::of(&command);
        let permit = match self.enter(lane, &origin.caller, command.len()) {
            Ok(permit) => permit,
            Err(error) => return responder.send(Err(error)),
        };
        let span = origin.trace.map(|trace| Span::of_proposal(trace, name));
        let pending = Pending {
            command,
            origin,
            span,
            renewal,
            deadline,
            responder,
            permit,
        };
        let queue = match lane {
            Lane::Growth => &self.growth,
            Lane::Upkeep => &self.upkeep,
        };
        if let Err(mpsc::error::SendError(pending)) = queue.send(pending) {
            pending.responder.send(Err(stopped()));
        }
    }

    /// A place in flight for a command that is proposed here.
    fn enter(&self, lane: Lane, caller: &Caller, bytes: usize) -> Result<Permit, NodeError> {
        self.quarantine.check()?;
        if lane == Lane::Growth {
            self.room.check()?;
        }
        self.counted(self.admission.admit(lane, caller, bytes))
    }

    /// A place in flight for a command that is passed on.
    pub fn admit(&self, caller: &Caller, command: &[u8]) -> Result<Permit, NodeError> {
        self.quarantine.check()?;
        let admitted = self
            .admission
            .admit(Lane::of(command), caller, command.len());
        self.counted(admitted)
    }

    fn counted(&self, admitted: Result<Permit, NodeError>) -> Result<Permit, NodeError> {
        if admitted.is_err() {
            self.metrics.recorded().refused_overload.inc();
        }
        admitted
    }

    /// Executes one command and waits for its answer.
    pub async fn execute(
        &self,
        command: Bytes,
        origin: Origin,
        deadline: Instant,
        allow_zero_ttl: bool,
    ) -> respond::Outcome<Executed> {
        let submit = |responder| {
            self.submit(Submission {
                command,
                origin,
                deadline,
                allow_zero_ttl,
                responder,
            });
        };
        respond::answer_of(deadline, respond::command_lost, submit).await
    }

    /// Whether there is room for what grows.
    pub(crate) fn room(&self) -> &Room {
        &self.room
    }

    /// Commands in flight now.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.admission.in_flight()
    }
}

/// Reads and checks a command as [`quorate_statemachine::apply`] will, so that what it would refuse
/// to read never reaches the log.
fn check(command: &[u8], allow_zero_ttl: bool) -> Result<Command, InvalidArgument> {
    let command = Command::decode(command)?;
    if !allow_zero_ttl {
        refuse_zero_ttl(&command.action)?;
    }
    Ok(command)
}

fn renewal_of(command: Command) -> Option<Renewal> {
    let plain = command.request.is_none() && command.preconditions.is_empty();
    match command.action {
        Action::Lease(lease::Command::Renew(renew)) if plain => Some(Renewal::Lease(renew)),
        Action::Lock(lock::Command::Renew(renew)) if plain => Some(Renewal::Lock(renew)),
        _ => None,
    }
}

/// A grant that is over at once is asked for by no one but adapters that say so.
fn refuse_zero_ttl(action: &Action) -> Result<(), InvalidArgument> {
    let ttl_ms = match action {
        Action::Lease(lease::Command::Claim(claim)) => claim.ttl_ms,
        Action::Lease(lease::Command::Renew(renew)) => renew.ttl_ms,
        Action::Lease(lease::Command::Reclaim(reclaim)) => reclaim.claim.ttl_ms,
        Action::Queue(queue::Command::Claim(claim)) => claim.ttl_ms,
        Action::Queue(queue::Command::Renew(renew)) => renew.ttl_ms,
        Action::Session(session::Command::ClaimWork(claim)) => claim.ttl_ms,
        Action::Session(session::Command::RenewWork(renew)) => renew.ttl_ms,
        Action::Session(session::Command::ClaimInputs(claim)) => claim.ttl_ms,
        Action::Composite(steps) => return steps.iter().try_for_each(refuse_zero_ttl),
        _ => return Ok(()),
    };
    InvalidArgument::check_count(
        "ttl_ms",
        ttl_ms,
        1,
        quorate_statemachine::limits::TTL_MS_MAX,
    )
}

impl Worker {
    async fn run(self, mut lanes: Lanes) {
        let mut batch = Vec::with_capacity(BATCH_COMMANDS);
        while let Some(first) = lanes.next().await {
            let mut bytes = first.command.len();
            batch.push(first);
            while batch.len() < BATCH_COMMANDS && bytes < BATCH_BYTES {
                let Some(next) = lanes.ready() else { break };
                bytes += next.command.len();
                batch.push(next);
            }
            self.propose(&mut batch).await;
        }
    }

    /// Proposes a batch and leaves the waiting to a task of its own, so that the next one can go.
    async fn propose(&self, batch: &mut Vec<Pending>) {
        let now = self.now();
        if self.state.version().version < ORIGINS_SINCE {
            leave_out_origins(batch);
        }
        let (proposals, waiting) = frame(batch, now);
        if proposals.is_empty() {
            return;
        }
        match self.raft.client_write_many(proposals).await {
            Ok(results) => {
                let (metrics, quarantine) =
                    (Arc::clone(&self.metrics), Arc::clone(&self.quarantine));
                let results = results.take_until(deposed(self.raft.clone()));
                drop(tokio::spawn(deliver(results, waiting, metrics, quarantine)));
            }
            Err(fatal) => {
                let error = NodeError::Stopped {
                    message: fatal.to_string(),
                };
                waiting.into_iter().for_each(|waiting| waiting.fail(&error));
            }
        }
    }

    fn now(&self) -> Timestamp {
        self.clock.of_leader(&self.raft, self.state.now())
    }
}

/// For a cluster with a member that cannot read an entry that says who asked for it.
fn leave_out_origins(batch: &mut [Pending]) {
    for pending in batch {
        pending.origin = Caller::Cluster.into();
    }
}

/// Turns a batch into proposals: renewals of one kind that one caller's clients sent together share
/// one entry, which so tells who asked for each of them.
fn frame(batch: &mut Vec<Pending>, now: Timestamp) -> (Vec<Proposal>, Vec<Waiting>) {
    let (mut proposals, mut waiting) = (Vec::with_capacity(batch.len()), Vec::new());
    let (mut leases, mut locks) = (HashMap::new(), HashMap::new());
    let instant = Instant::now();
    for pending in batch.drain(..) {
        if pending.deadline <= instant {
            pending.responder.send(Err(NodeError::Unavailable {
                message: "the deadline passed before the command could be proposed".to_owned(),
                retry_after_ms: RETRY_AFTER_MS,
                leader: None,
            }));
            continue;
        }
        let (to, origin) = ((pending.responder, pending.permit), pending.origin);
        match pending.renewal {
            Some(Renewal::Lease(renewal)) => {
                gather(&mut leases, origin.caller, renewal, to, pending.command);
            }
            Some(Renewal::Lock(renewal)) => {
                gather(&mut locks, origin.caller, renewal, to, pending.command);
            }
            None => {
                proposals.push(Proposal::new(now, &origin, &pending.command));
                waiting.push(Waiting::One(to.0, to.1, pending.span));
            }
        }
    }
    let many_leases = |renewals| lease::RenewMany { renewals }.into();
    let many_locks = |renewals| lock::RenewMany { renewals }.into();
    let leases = leases
        .into_iter()
        .map(|(by, them)| (by, them.finish(many_leases)));
    let locks = locks
        .into_iter()
        .map(|(by, them)| (by, them.finish(many_locks)));
    for (caller, (command, waiter)) in leases.chain(locks) {
        proposals.push(Proposal::new(now, &caller.into(), &command));
        waiting.push(waiter);
    }
    (proposals, waiting)
}

/// Puts a renewal to those of the same caller.
fn gather<R>(
    renewals: &mut HashMap<Caller, Gathered<R>>,
    caller: Caller,
    renewal: R,
    to: (Responder<Executed>, Permit),
    command: Bytes,
) {
    let gathered = renewals.entry(caller).or_insert_with(Gathered::new);
    gathered.renewals.push(renewal);
    gathered.renewers.push(to);
    gathered.last = command;
}

impl<R> Gathered<R> {
    fn new() -> Self {
        Self {
            renewals: Vec::new(),
            renewers: Vec::new(),
            last: Bytes::new(),
        }
    }

    /// The command for all of them, or the only one as it came.
    fn finish(mut self, many: impl FnOnce(Vec<R>) -> Action) -> (Bytes, Waiting) {
        if self.renewers.len() == 1
            && let Some((responder, permit)) = self.renewers.pop()
        {
            return (self.last, Waiting::One(responder, permit, None));
        }
        let command = Command::from(many(self.renewals)).encode();
        (command.into(), Waiting::Renewals(self.renewers))
    }
}

const _: () = assert!(BATCH_COMMANDS <= RENEWALS_PER_ENTRY_MAX);
const _: () = assert!(BATCH_BYTES < COMMAND_BYTES_MAX);

/// This node does not lead; says who does, if it knows.
pub fn not_leader(forward: &ForwardToLeader<TypeConfig>) -> NodeError {
    let message = match forward.reason {
        ForwardReason::NotLeader => "this node is not the leader",
        ForwardReason::LeadershipTransfer => "leadership is being handed over",
        ForwardReason::LeaseExpired => "this leader has not heard from a quorum lately",
    };
    let leader = forward.leader_id.zip(forward.leader_node.as_ref());
    NodeError::Unavailable {
        message: message.to_owned(),
        retry_after_ms: RETRY_AFTER_MS,
        leader: leader.map(|(id, member)| LeaderHint {
            id,
            client_addr: member.client_addr.clone(),
        }),
    }
}

/// Nobody leads, as far as this node knows.
pub fn no_leader() -> NodeError {
    NodeError::Unavailable {
        message: "this node knows of no leader".to_owned(),
        retry_after_ms: RETRY_AFTER_MS,
        leader: None,
    }
}

/// Nobody waits any more.
pub fn too_late() -> NodeError {
    NodeError::DeadlineExceeded {
        message: "no quorum has answered by the request's deadline".to_owned(),
    }
}

/// The node takes no commands any more.
pub fn stopped() -> NodeError {
    NodeError::Stopped {
        message: "this node is stopping".to_owned(),
    }
}
