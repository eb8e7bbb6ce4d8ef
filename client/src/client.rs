//! [`Client`]: typed operations over any transport.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use quorate_rpc::{NodeError, Trace};
use quorate_statemachine::limits::COMMAND_BYTES_MAX;
use quorate_statemachine::{
    Action, Command, InvalidArgument, Operation, Precondition, Query, Response, lease, queue,
    session,
};
use tokio::time::Instant;

use crate::error::ClientError;
use crate::lock::Acquisitions;
use crate::retry;
use crate::transport::{
    Answered, Consistency, ExecuteOptions, ReadOptions, Transport, WatchEvent, WatchWhat,
};
use crate::waits::Waits;

/// How long a call may take, retries included, unless the client is told otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// A typed client. Cheap to clone: clones share the transport.
#[derive(Clone)]
pub struct Client {
    transport: Arc<dyn Transport>,
    timeout: Duration,
    consistency: Consistency,
    allow_zero_ttl: bool,
    trace: Option<Trace>,
    lock_waits: Arc<Waits<Acquisitions>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("timeout", &self.timeout)
            .field("consistency", &self.consistency)
            .field("seen_index", &self.transport.seen_index())
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client over `transport`.
    #[must_use]
    pub fn new(transport: impl Transport) -> Self {
        Self::from_shared(Arc::new(transport))
    }

    /// A client over a transport that others use too.
    #[must_use]
    pub fn from_shared(transport: Arc<dyn Transport>) -> Self {
        Self {
            transport,
            timeout: DEFAULT_TIMEOUT,
            consistency: Consistency::Linearizable,
            allow_zero_ttl: false,
            trace: None,
            lock_waits: Arc::new(Waits::new(Acquisitions::new())),
        }
    }

    /// The same client with another time for each call, retries included.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The same client with another consistency of reads.
    #[must_use]
    pub fn with_consistency(mut self, consistency: Consistency) -> Self {
        self.consistency = consistency;
        self
    }

    /// The same client, allowed to send a time to live of 0, which is over at once. Some interfaces
    /// ask for it; from people it is a mistake.
    #[must_use]
    pub fn allowing_zero_ttl(mut self) -> Self {
        self.allow_zero_ttl = true;
        self
    }

    /// The same client, whose commands and reads are a part of this trace. The nodes record spans
    /// of them below its span, and the trace id stands in the log. Renewals in the background and
    /// watches are no part of it.
    #[must_use]
    pub fn traced(mut self, trace: Trace) -> Self {
        self.trace = Some(trace);
        self
    }

    /// The transport.
    #[must_use]
    pub fn transport(&self) -> &Arc<dyn Transport> {
        &self.transport
    }

    /// The waits for locks of this client and its clones.
    pub(crate) fn lock_waits(&self) -> &Arc<Waits<Acquisitions>> {
        &self.lock_waits
    }

    /// When a call that starts now must have its answer.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// Executes one operation and returns its typed reply.
    pub async fn execute<O: Operation>(&self, operation: O) -> Result<O::Reply, ClientError> {
        self.execute_under(operation, Vec::new()).await
    }

    /// Executes one operation if all `preconditions` hold at its instant.
    pub async fn execute_under<O: Operation>(
        &self,
        operation: O,
        preconditions: Vec<Precondition>,
    ) -> Result<O::Reply, ClientError> {
        operation.validate()?;
        let command = Command {
            request: None,
            preconditions,
            action: operation.into(),
        };
        let (_, response) = self.execute_command(command).await?;
        typed::<O>(response)
    }

    /// Executes a command and returns its log index and response. A request id is attached if the
    /// command has none and needs one; see the crate's documentation.
    pub async fn execute_command(&self, command: Command) -> Result<(u64, Response), ClientError> {
        self.execute_command_by(command, self.deadline()).await
    }

    /// Like [`Self::execute_command`], until `deadline`.
    pub async fn execute_command_by(
        &self,
        command: Command,
        deadline: Instant,
    ) -> Result<(u64, Response), ClientError> {
        self.check(&command)?;
        let options = self.execute_options(deadline);
        let done = retry::execute(self.transport.as_ref(), command, options).await?;
        Ok((done.executed.index, done.executed.reply.0?))
    }

    /// Does all of `actions` or none, under `preconditions`; one response an action.
    pub async fn composite(
        &self,
        actions: Vec<Action>,
        preconditions: Vec<Precondition>,
    ) -> Result<Vec<Response>, ClientError> {
        let command = Command {
            request: None,
            preconditions,
            action: Action::Composite(actions),
        };
        match self.execute_command(command).await? {
            (_, Response::Composite(responses)) => Ok(responses),
            (_, other) => Err(unexpected("a composite", noun(&other))),
        }
    }

    /// Reads with the client's consistency. Weaker ones than linearizable never go back behind what
    /// this client has seen.
    pub async fn query(&self, query: Query) -> Result<Answered, ClientError> {
        self.query_at(query, 0).await
    }

    /// Reads the state at `min_index` or later.
    pub async fn query_at(&self, query: Query, min_index: u64) -> Result<Answered, ClientError> {
        let seen = match self.consistency {
            Consistency::Linearizable => 0,
            Consistency::Lease | Consistency::Stale { .. } => self.transport.seen_index(),
        };
        let options = ReadOptions {
            deadline: self.deadline(),
            consistency: self.consistency,
            min_index: min_index.max(seen),
            trace: self.trace,
        };
        let query = query.encode().into();
        Ok(retry::read(self.transport.as_ref(), query, options).await?)
    }

    /// Watches; see [`WatchEvent`]. Tries until the client's timeout to register.
    pub async fn watch(
        &self,
        what: WatchWhat,
        from_index: u64,
    ) -> Result<BoxStream<'static, WatchEvent>, ClientError> {
        let deadline = self.deadline();
        let mut failures = retry::Failures::new(deadline);
        loop {
            let watch = self.transport.watch(what.clone(), from_index);
            let error = match tokio::time::timeout_at(deadline, watch).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => error,
                Err(_) => NodeError::DeadlineExceeded {
                    message: "no node registered the watch in time".to_owned(),
                },
            };
            failures.wait_after(error).await?;
        }
    }

    pub(crate) fn execute_options(&self, deadline: Instant) -> ExecuteOptions {
        ExecuteOptions {
            deadline,
            allow_zero_ttl: self.allow_zero_ttl,
            trace: self.trace,
        }
    }

    /// Refuses here what every node would refuse, before anything is sent.
    fn check(&self, command: &Command) -> Result<(), ClientError> {
        command.validate()?;
        if !self.allow_zero_ttl {
            check_ttls(&command.action)?;
        }
        Ok(InvalidArgument::check_bytes(
            "command",
            size(command),
            COMMAND_BYTES_MAX,
        )?)
    }
}

/// Encoding a command costs what its payloads cost; a command without large ones need not be
/// encoded to know that it fits.
fn size(command: &Command) -> usize {
    match &command.action {
        Action::Composite(_)
        | Action::Session(
            session::Command::PutBlobs(_)
            | session::Command::StageNodes(_)
            | session::Command::Commit(_),
        ) => command.encode().len(),
        _ => 0,
    }
}

fn check_ttls(action: &Action) -> Result<(), InvalidArgument> {
    match action {
        Action::Lease(lease::Command::Claim(claim)) => check_ttl(claim.ttl_ms),
        Action::Lease(lease::Command::Renew(renew)) => check_ttl(renew.ttl_ms),
        Action::Lease(lease::Command::Reclaim(reclaim)) => check_ttl(reclaim.claim.ttl_ms),
        Action::Queue(queue::Command::Claim(claim)) => check_ttl(claim.ttl_ms),
        Action::Queue(queue::Command::Renew(renew)) => check_ttl(renew.ttl_ms),
        Action::Session(session::Command::ClaimWork(claim)) => check_ttl(claim.ttl_ms),
        Action::Session(session::Command::RenewWork(renew)) => check_ttl(renew.ttl_ms),
        Action::Session(session::Command::ClaimInputs(claim)) => check_ttl(claim.ttl_ms),
        Action::Composite(steps) => steps.iter().try_for_each(check_ttls),
        _ => Ok(()),
    }
}

/// Refuses 0 and more than the limit, in the words of the state machine.
pub(crate) fn check_ttl(ttl_ms: u64) -> Result<(), InvalidArgument> {
    if ttl_ms == 0 {
        let limit = format!("1 to {} ms", quorate_statemachine::limits::TTL_MS_MAX);
        return Err(InvalidArgument::new(
            "ttl_ms",
            "is out of range",
            limit,
            "0 ms",
        ));
    }
    InvalidArgument::check_ttl(ttl_ms)
}

/// A duration as milliseconds of a time to live; refuses 0 and more than the limit.
pub(crate) fn ttl_ms(ttl: Duration) -> Result<u64, InvalidArgument> {
    let ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
    check_ttl(ms)?;
    Ok(ms)
}

pub(crate) fn typed<O: Operation>(response: Response) -> Result<O::Reply, ClientError> {
    let got = noun(&response);
    O::reply(response).ok_or_else(|| unexpected(std::any::type_name::<O>(), got))
}

/// The response is to something else than what was asked.
fn unexpected(asked: &str, got: &str) -> ClientError {
    ClientError::Protocol(format!("asked for the reply of {asked}, got one of {got}"))
}

fn noun(response: &Response) -> &'static str {
    match response {
        Response::Lease(_) => "a lease operation",
        Response::Queue(_) => "a queue operation",
        Response::Process(_) => "a process operation",
        Response::Cluster(_) => "a cluster operation",
        Response::Composite(_) => "a composite",
        Response::Lock(_) => "a lock operation",
        Response::Session(_) => "a session operation",
        Response::Access(_) => "an operation on access control",
    }
}
