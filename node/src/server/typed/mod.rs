//! The typed services: the second way in, for programs in any language.
//!
//! A handler converts its request to the operation or query that the first way carries as bytes,
//! takes it the same way through the node, and converts the answer. No rule is here: what is
//! refused, and why, is decided where it is for everybody. See `docs/API.md`.

mod leases;
mod locks;
mod news;
mod processes;
mod queues;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use quorate_client::{Answered, Executed, ReadOptions};
use quorate_rpc::{NodeError, Trace, details, v1};
use quorate_statemachine::query::Page;
use quorate_statemachine::queue::ItemId;
use quorate_statemachine::{
    Command, InvalidArgument, Name, Operation, Owner, Precondition, Query, Refusal, RequestId,
    Subject,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use super::{consistency, deadline};
use crate::access::Guest;
use crate::core::Core;
use crate::origin::Origin;
use crate::propose::Submission;
use crate::respond::{self, Outcome};
use crate::shared::Shared;

/// What an answer needs to get back to a caller that says when it stops waiting.
const WAY_BACK: Duration = Duration::from_millis(50);

/// What the last look at what is waited for may take.
const LAST_LOOK: Duration = Duration::from_millis(200);

/// All typed services of this node.
#[derive(Clone)]
pub struct Typed {
    shared: Arc<Shared>,
}

type Answer<T> = Result<Response<T>, Status>;

impl Typed {
    /// Serves on behalf of this node.
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Begins a call: who calls, until when, and the message.
    async fn call<T>(&self, request: Request<T>) -> Result<(Call, T), Status> {
        let core = self.shared.core()?;
        let metadata = request.metadata();
        let header = metadata.get("traceparent").and_then(|it| it.to_str().ok());
        let trace = header.and_then(Trace::from_traceparent);
        let deadline = call_deadline(metadata);
        let time = deadline.saturating_duration_since(Instant::now());
        let guest = Guest::admit(&core, &request).await?;
        let call = Call {
            core,
            guest,
            trace,
            deadline,
            last_look: deadline - LAST_LOOK.min(time / 4),
            stop: self.shared.stop_token(),
        };
        Ok((call, request.into_inner()))
    }
}

/// One call of a client.
struct Call {
    core: Arc<Core>,
    guest: Guest,
    trace: Option<Trace>,
    /// When its answer must be on its way.
    deadline: Instant,
    /// When it looks for the last time, if it waits: what is asked later may be answered too late
    /// to be of use. [`LAST_LOOK`] before the deadline, or a quarter of a short time.
    last_look: Instant,
    /// The node's end.
    stop: CancellationToken,
}

impl Call {
    /// Who calls, and in which trace. A call that waits asks anew with each of its tries.
    fn origin(&self) -> Result<Origin, NodeError> {
        Ok(Origin {
            caller: self.guest.caller()?,
            trace: self.trace,
        })
    }

    /// Executes one operation: its log index and its reply.
    async fn execute<O: Operation>(
        &self,
        operation: O,
        request: Option<v1::RequestId>,
    ) -> Result<(u64, O::Reply), Status> {
        self.execute_if(Vec::new(), operation, request).await
    }

    /// The same under conditions.
    async fn execute_if<O: Operation>(
        &self,
        preconditions: Vec<Precondition>,
        operation: O,
        request: Option<v1::RequestId>,
    ) -> Result<(u64, O::Reply), Status> {
        let mut command = Command::from(operation);
        command.request = request.map(request_id).transpose()?;
        command.preconditions = preconditions;
        let origin = self.origin()?;
        let submit = |responder| {
            self.core.submit(Submission {
                command: command.encode().into(),
                origin,
                deadline: self.deadline,
                allow_zero_ttl: false,
                responder,
            });
        };
        let began = Instant::now();
        let outcome = respond::answer_of(self.deadline, respond::command_lost, submit).await;
        self.answered("execute", &outcome, began);
        let Executed { index, reply } = outcome?;
        let response = reply.0.map_err(|refusal| details::refused(&refusal))?;
        let reply = O::reply(response).ok_or_else(wrong_kind)?;
        Ok((index, reply))
    }

    fn answered<T>(&self, method: &'static str, outcome: &Outcome<T>, began: Instant) {
        let code = outcome.as_ref().map_or_else(NodeError::code, |_| "ok");
        let recorded = self.core.metrics.recorded();
        recorded.answered(method, code, began.elapsed());
    }

    /// Answers one query.
    async fn read(&self, query: Query, read: Option<v1::ReadOptions>) -> Result<Answered, Status> {
        let read = read.unwrap_or_default();
        let options = ReadOptions {
            deadline: self.deadline,
            consistency: consistency(read.consistency(), read.max_lag_ms),
            min_index: read.min_index,
            trace: self.trace,
        };
        // The bounds of a query are checked where its bytes are read.
        let query = Query::decode(&query.encode()).map_err(invalid)?;
        let (origin, began) = (self.origin()?, Instant::now());
        let outcome = self.core.reader().read(query, origin, options).await;
        self.answered("read", &outcome, began);
        Ok(outcome?)
    }
}

/// As long as the caller waits, by its `grpc-timeout`, less the way back; the server's limit at
/// most.
fn call_deadline(metadata: &MetadataMap) -> Instant {
    let header = metadata.get("grpc-timeout").and_then(|it| it.to_str().ok());
    let limit = deadline(0);
    match header.and_then(grpc_timeout) {
        Some(timeout) => {
            let way_back = WAY_BACK.min(timeout / 4);
            limit.min(Instant::now() + (timeout - way_back))
        }
        None => limit,
    }
}

/// Up to eight digits and a unit, as gRPC over HTTP/2 writes it.
fn grpc_timeout(header: &str) -> Option<Duration> {
    let unit = header.chars().next_back()?;
    let digits = header.strip_suffix(unit)?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        'H' => Duration::from_secs(value * 3_600),
        'M' => Duration::from_secs(value * 60),
        'S' => Duration::from_secs(value),
        'm' => Duration::from_millis(value),
        'u' => Duration::from_micros(value),
        'n' => Duration::from_nanos(value),
        _ => return None,
    })
}

fn invalid(invalid: InvalidArgument) -> Status {
    NodeError::Invalid(invalid).into()
}

fn wrong_kind() -> Status {
    let message = "the answer is of another kind than the question".to_owned();
    NodeError::OutcomeUnknown { message }.into()
}

fn missing(field: &str, wanted: &str) -> Status {
    invalid(InvalidArgument::new(field, "is missing", wanted, "none"))
}

fn not_found(subject: Subject, name: &Name) -> Status {
    details::refused(&Refusal::NotFound {
        subject,
        name: name.to_string(),
    })
}

fn name(field: &str, text: String) -> Result<Name, Status> {
    Name::parse(field, text).map_err(invalid)
}

/// Empty stands for none.
fn optional_name(field: &str, text: String) -> Result<Option<Name>, Status> {
    let given = (!text.is_empty()).then(|| name(field, text));
    given.transpose()
}

/// Where a page before ended; empty for the first.
fn after(text: String) -> Result<Option<Name>, Status> {
    optional_name("after", text)
}

fn owner(wire: Option<v1::Owner>) -> Result<Owner, Status> {
    owner_in("owner", wire)
}

/// The owner that another field than the usual one names.
fn owner_in(field: &str, wire: Option<v1::Owner>) -> Result<Owner, Status> {
    let wire = wire.unwrap_or_default();
    let owner_id = name(&format!("{field}.owner_id"), wire.owner_id)?;
    let incarnation_id = match wire.incarnation_id {
        own if own.is_empty() => owner_id.clone(),
        own => name(&format!("{field}.incarnation_id"), own)?,
    };
    let mut owner = Owner::new(owner_id, incarnation_id);
    owner.liveness = (!wire.liveness.is_empty()).then_some(wire.liveness);
    Ok(owner)
}

fn owner_wire(owner: Owner) -> v1::Owner {
    v1::Owner {
        owner_id: owner.owner_id.into(),
        incarnation_id: owner.incarnation_id.into(),
        liveness: owner.liveness.unwrap_or_default(),
    }
}

/// The 16 bytes of an id.
fn id(field: &str, bytes: &[u8]) -> Result<[u8; 16], Status> {
    <[u8; 16]>::try_from(bytes).map_err(|_| {
        let actual = format!("{} bytes", bytes.len());
        invalid(InvalidArgument::new(
            field,
            "has another length",
            "16 bytes",
            actual,
        ))
    })
}

fn request_id(wire: v1::RequestId) -> Result<RequestId, Status> {
    Ok(RequestId {
        id: id("request_id.id", &wire.id)?,
        not_before: wire.not_before,
    })
}

fn preconditions(wire: Vec<v1::Precondition>) -> Result<Vec<Precondition>, Status> {
    wire.into_iter().map(precondition).collect()
}

fn precondition(wire: v1::Precondition) -> Result<Precondition, Status> {
    use v1::precondition::What;
    Ok(match wire.what {
        Some(What::Lease(held)) => Precondition::Lease {
            key: name("only_if.lease.key", held.key)?,
            token: held.fencing_token,
        },
        Some(What::Lock(held)) => Precondition::Lock {
            key: name("only_if.lock.key", held.key)?,
            token: held.fencing_token,
        },
        Some(What::Claim(claimed)) => Precondition::Claim {
            queue: name("only_if.claim.queue", claimed.queue)?,
            item_id: ItemId(claimed.item_id),
            token: claimed.fencing_token,
        },
        Some(What::Process(id)) => Precondition::Process {
            id: name("only_if.process", id)?,
        },
        None => return Err(missing("only_if", "lease, lock, claim or process")),
    })
}

/// 0 stands for none.
fn only(token: u64) -> Option<u64> {
    (token != 0).then_some(token)
}

/// The same where pages begin behind a number; 0 for none.
fn numbered<T, W>(page: Page<T>, row: impl Fn(T) -> W) -> Result<(Vec<W>, u64), Status> {
    let (rows, next) = rows(page, row);
    let next = match next.as_str() {
        "" => 0,
        number => number.parse().map_err(|_| wrong_kind())?,
    };
    Ok((rows, next))
}

/// The rows of a page, and where the next one begins.
fn rows<T, W>(page: Page<T>, row: impl Fn(T) -> W) -> (Vec<W>, String) {
    let rows = page.rows.into_iter().map(row).collect();
    (rows, page.next.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_read_as_grpc_writes_it() {
        assert_eq!(grpc_timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(grpc_timeout("2S"), Some(Duration::from_secs(2)));
        assert_eq!(
            grpc_timeout("99999999H"),
            Some(Duration::from_secs(99_999_999 * 3_600))
        );
        for wrong in ["", "S", "1", "1x", "-1S", "123456789S", "1é"] {
            assert_eq!(grpc_timeout(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn an_owner_without_an_incarnation_has_its_own_name() {
        let wire = v1::Owner {
            owner_id: "w".to_owned(),
            ..v1::Owner::default()
        };
        let owner = owner(Some(wire)).expect("an owner");
        assert_eq!(owner.owner_id, owner.incarnation_id);
        let missing = super::owner(None).expect_err("nobody asks");
        assert_eq!(missing.code(), tonic::Code::InvalidArgument);
    }
}
