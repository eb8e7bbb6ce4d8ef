//! Trying again: what is safe by itself, what needs a request id, and how long to wait between.
//!
//! A try that did not happen is repeated until the deadline. A try that may have happened is
//! repeated only under an identity: either the operation's own (a lease token, an idempotency
//! key), or a [`RequestId`] that is attached before the first try. The bytes are encoded once, so
//! that every try is the same command. (A general retry crate would know delays, but not this
//! distinction nor the hints in the errors; what is left is the few lines below.)

use std::time::Duration;

use bytes::Bytes;
use quorate_rpc::NodeError;
use quorate_statemachine::{
    Action, Command, Refusal, RequestId, lease, lock, process, queue, session,
};
use tokio::time::{Instant, sleep, timeout_at};

use crate::transport::{Answered, ExecuteOptions, Executed, ReadOptions, Transport};

const FIRST_DELAY: Duration = Duration::from_millis(5);
/// Also the most that a call comes late after a new leader was elected.
const LONGEST_DELAY: Duration = Duration::from_millis(200);

/// One try may use half of the time that is left, so that a node that never answers costs at most
/// that; but no less than this, which is long enough for a slow disk and a quorum.
const SHORTEST_TRY: Duration = Duration::from_secs(1);

/// With less time than this, or than a quarter of all there was, no further try begins: cut off
/// before its answer, it would turn a certain refusal into an unknown outcome.
const LEAST_TRY: Duration = Duration::from_millis(200);

/// Delays that double from 5 ms to 200 ms, each drawn between half and all of it: callers that lost
/// the same leader do not come back together.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { next: FIRST_DELAY }
    }

    pub(crate) fn next_delay(&mut self) -> Duration {
        let full = self.next;
        self.next = (full * 2).min(LONGEST_DELAY);
        full.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

/// Whether the operation is done once however often it is sent: it has an identity of its own.
///
/// Preconditions are not part of that identity: the first try may have ended what they ask for.
pub(crate) fn is_safe_to_repeat(command: &Command) -> bool {
    if !command.preconditions.is_empty() {
        return false;
    }
    match &command.action {
        Action::Lease(lease) => match lease {
            lease::Command::Claim(_)
            | lease::Command::Renew(_)
            | lease::Command::RenewMany(_)
            | lease::Command::Release(_)
            | lease::Command::Reclaim(_) => true,
            lease::Command::Revoke(_) => false,
        },
        Action::Queue(queue) => match queue {
            queue::Command::Push(push) => push.dedupe_key.is_some(),
            queue::Command::Renew(_) => true,
            queue::Command::Claim(_)
            | queue::Command::Settle(_)
            | queue::Command::Cancel(_)
            | queue::Command::Requeue(_) => false,
        },
        Action::Process(process) => match process {
            process::Command::Register(_)
            | process::Command::Complete(_)
            | process::Command::SetExternalRef(_) => true,
            process::Command::Append(append) => append.key.is_some(),
            // What another did in between must not be undone by a late repetition.
            process::Command::SetWait(_)
            | process::Command::AckWake(_)
            | process::Command::PutGrant(_)
            | process::Command::DeleteGrant(_)
            | process::Command::MoveGrants(_)
            | process::Command::DetachSession(_) => false,
        },
        Action::Lock(lock) => match lock {
            lock::Command::Acquire(_)
            | lock::Command::Renew(_)
            | lock::Command::RenewMany(_)
            | lock::Command::Release(_)
            | lock::Command::CancelWait(_) => true,
            lock::Command::Revoke(_) | lock::Command::Proclaim(_) => false,
        },
        Action::Session(session) => is_safe_to_repeat_in_session(session),
        // A late repetition must not undo what another administrator did in between.
        Action::Access(_) | Action::Cluster(_) | Action::Composite(_) => false,
    }
}

fn is_safe_to_repeat_in_session(command: &session::Command) -> bool {
    match command {
        session::Command::Open(_)
        | session::Command::PutBlobs(_)
        | session::Command::RenewWork(_)
        | session::Command::AbandonWork(_)
        | session::Command::AbandonInputs(_) => true,
        session::Command::Commit(commit) => commit.turn.is_some(),
        // What another did in between, or what was done and gone, must not come back.
        session::Command::Delete(_)
        | session::Command::PutNote(_)
        | session::Command::StageNodes(_)
        | session::Command::Tombstone(_)
        | session::Command::Vacuum(_)
        | session::Command::Collect(_)
        | session::Command::PushWork(_)
        | session::Command::ClaimWork(_)
        | session::Command::CancelWork(_)
        | session::Command::PushInput(_)
        | session::Command::ClaimInputs(_)
        | session::Command::CancelInputs(_)
        | session::Command::CancelInputsFrom(_)
        | session::Command::NoteAttachment(_)
        | session::Command::CommitAttachments(_)
        | session::Command::ForgetAttachment(_) => false,
    }
}

/// Executes `command`, trying again as this module says.
pub(crate) async fn execute(
    transport: &dyn Transport,
    mut command: Command,
    options: ExecuteOptions,
) -> Result<Done, NodeError> {
    let minted = command.request.is_none() && !is_safe_to_repeat(&command);
    if minted {
        command.request = Some(mint(transport, options.deadline).await?);
    }
    let first = tries(transport, command.encode().into(), options).await?;
    if !minted || first.earlier_may_have_happened {
        return Ok(first);
    }
    // The bound was taken from a node so far behind that answers above it may be forgotten. No try
    // before the refused one can have been executed, so a fresh id repeats nothing.
    let Err(Refusal::RequestTooOld { .. }) = &first.executed.reply.0 else {
        return Ok(first);
    };
    command.request = Some(new_request(first.executed.index));
    tries(transport, command.encode().into(), options).await
}

/// An executed command.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) executed: Executed,
    /// The instant before the first try that may have been the one that was executed: what the
    /// command granted was not granted earlier.
    pub(crate) sent_at: Instant,
    /// Whether a try before the answered one may have been executed.
    pub(crate) earlier_may_have_happened: bool,
}

async fn tries(
    transport: &dyn Transport,
    command: Bytes,
    options: ExecuteOptions,
) -> Result<Done, NodeError> {
    let mut failures = Failures::new(options.deadline);
    let mut doubtful_since = None;
    loop {
        let sent_at = Instant::now();
        let error = match one_try(transport, command.clone(), options).await {
            Ok(executed) => {
                return Ok(Done {
                    executed,
                    sent_at: doubtful_since.unwrap_or(sent_at),
                    earlier_may_have_happened: doubtful_since.is_some(),
                });
            }
            Err(error) => error,
        };
        if error.may_have_happened() {
            doubtful_since.get_or_insert(sent_at);
        }
        failures.wait_after(error).await?;
    }
}

/// One try, with its share of the time.
pub(crate) async fn one_try(
    transport: &dyn Transport,
    command: Bytes,
    options: ExecuteOptions,
) -> Result<Executed, NodeError> {
    let deadline = try_deadline(options.deadline);
    let options = ExecuteOptions {
        deadline,
        ..options
    };
    match timeout_at(deadline, transport.execute(command, options)).await {
        Ok(result) => result,
        Err(_) => Err(no_answer()),
    }
}

fn try_deadline(deadline: Instant) -> Instant {
    let now = Instant::now();
    let share = deadline.saturating_duration_since(now) / 2;
    deadline.min(now + share.max(SHORTEST_TRY))
}

fn no_answer() -> NodeError {
    NodeError::DeadlineExceeded {
        message: "no node answered in time".to_owned(),
    }
}

/// Reads, trying again until the deadline: a read changes nothing, so any try may be repeated.
pub(crate) async fn read(
    transport: &dyn Transport,
    query: Bytes,
    options: ReadOptions,
) -> Result<Answered, NodeError> {
    let mut failures = Failures::new(options.deadline);
    loop {
        let deadline = try_deadline(options.deadline);
        let tried = ReadOptions {
            deadline,
            ..options
        };
        let error = match timeout_at(deadline, transport.read(query.clone(), tried)).await {
            Ok(Ok(answered)) => return Ok(answered),
            Ok(Err(error)) => error,
            Err(_) => no_answer(),
        };
        failures.wait_after(error).await?;
    }
}

/// What the tries so far came to.
pub(crate) struct Failures {
    /// No try begins later.
    last_start: Instant,
    backoff: Backoff,
    may_have_happened: bool,
}

impl Failures {
    pub(crate) fn new(deadline: Instant) -> Self {
        let time = deadline.saturating_duration_since(Instant::now());
        Self {
            last_start: deadline - LEAST_TRY.min(time / 4),
            backoff: Backoff::new(),
            may_have_happened: false,
        }
    }

    /// Waits before the next try, or returns the error that the caller gets: no later try takes
    /// back that an earlier one may have happened.
    pub(crate) async fn wait_after(&mut self, error: NodeError) -> Result<(), NodeError> {
        self.may_have_happened |= error.may_have_happened();
        if !error.is_passing() {
            return Err(self.last_word(error));
        }
        let asked = Duration::from_millis(retry_after_ms(&error)).min(LONGEST_DELAY);
        let delay = self.backoff.next_delay().max(asked);
        if Instant::now() + delay >= self.last_start {
            return Err(self.last_word(error));
        }
        sleep(delay).await;
        Ok(())
    }

    fn last_word(&self, error: NodeError) -> NodeError {
        if !self.may_have_happened || error.may_have_happened() {
            return error;
        }
        NodeError::OutcomeUnknown {
            message: format!(
                "an earlier try may have been executed, the last one was not: {error}"
            ),
        }
    }
}

fn retry_after_ms(error: &NodeError) -> u64 {
    match error {
        NodeError::Unavailable { retry_after_ms, .. }
        | NodeError::Overloaded { retry_after_ms, .. } => *retry_after_ms,
        _ => 0,
    }
}

/// Mints a request id once the transport knows where the log stands.
pub(crate) async fn mint(
    transport: &dyn Transport,
    deadline: Instant,
) -> Result<RequestId, NodeError> {
    let mut failures = Failures::new(deadline);
    loop {
        let error = match timeout_at(deadline, transport.ready(deadline)).await {
            Ok(Ok(seen)) => return Ok(new_request(seen)),
            Ok(Err(error)) => error,
            Err(_) => NodeError::Unavailable {
                message: "no node could be reached in time".to_owned(),
                retry_after_ms: 0,
                leader: None,
            },
        };
        failures.wait_after(not_sent(error)).await?;
    }
}

/// Nothing was proposed yet, whatever the connection says of its own failure.
fn not_sent(error: NodeError) -> NodeError {
    if !error.may_have_happened() {
        return error;
    }
    NodeError::Unavailable {
        message: error.to_string(),
        retry_after_ms: 0,
        leader: None,
    }
}

fn new_request(seen: u64) -> RequestId {
    RequestId {
        id: uuid::Uuid::now_v7().into_bytes(),
        not_before: seen,
    }
}
