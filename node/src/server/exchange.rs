//! One bidirectional stream with many requests in flight: the loop that Execute and Read share.
//!
//! Requests are handed on as they come, answers go out in batches of what is ready. Nothing is
//! spawned per request. A request that is not answered by its deadline is answered by the loop, and
//! its late answer is dropped.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use quorate_rpc::NodeError;
use quorate_rpc::frame::BATCH_REQUESTS;
use quorate_statemachine::InvalidArgument;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use crate::metrics::Metrics;
use crate::propose::too_late;
use crate::respond::{Outcome, Responder};
use crate::spans::Span;

/// Requests one stream may have in flight; more wait in the connection's flow control.
const IN_FLIGHT_MAX: usize = 4_096;

/// Answers packed into one message at most.
const REPLIES_PER_MESSAGE: usize = 512;

/// How often deadlines are looked at: answers are late by so much at most.
const DEADLINE_TICK: Duration = Duration::from_millis(20);

/// Messages that may wait for a client that does not read.
pub const OUTGOING: usize = 8;

/// A request that is not answered yet.
struct InFlight {
    deadline: Instant,
    since: Instant,
    span: Option<Span>,
}

impl InFlight {
    /// Times it, and ends its span.
    fn answered<E: Exchange>(self, exchange: &E, now: Instant, outcome: &Outcome<E::Answer>) {
        let code = outcome.as_ref().map_or_else(NodeError::code, |_| "ok");
        let recorded = exchange.metrics().recorded();
        recorded.answered(E::METHOD.label, code, now - self.since);
        if let Some(span) = self.span {
            span.answered(outcome.as_ref().map(E::index));
        }
    }
}

/// What a method is called.
pub struct Method {
    /// By metrics.
    pub label: &'static str,
    /// By gRPC.
    pub name: &'static str,
}

/// What distinguishes Execute from Read.
pub trait Exchange: Send + 'static {
    /// What the client sends.
    type Batch: Send + 'static;
    /// One request of it.
    type Request: Send;
    /// What it is called.
    const METHOD: Method;
    /// What a request is answered with.
    type Answer: Send + 'static;
    /// What the server sends.
    type Message: Send + 'static;

    /// The requests of a batch with their ids and deadlines.
    fn requests(batch: Self::Batch) -> Vec<(u64, Instant, Self::Request)>;

    /// Where a request says which trace it is a part of.
    fn trace(request: &mut Self::Request) -> &mut Bytes;

    /// Log index of an answer.
    fn index(answer: &Self::Answer) -> u64;

    /// Where its requests are timed.
    fn metrics(&self) -> &Metrics;

    /// Hands a request on.
    fn submit(&self, deadline: Instant, request: Self::Request, to: Responder<Self::Answer>);

    /// Packs answers into a message.
    fn pack(&self, answers: Vec<(u64, Outcome<Self::Answer>)>) -> Self::Message;
}

/// Runs a stream until the client closes it or goes away, or the node stops: what is in flight is
/// answered then, and nothing more is taken. The stores are open for as long as it runs.
pub async fn run<E: Exchange>(
    exchange: E,
    mut incoming: Streaming<E::Batch>,
    outgoing: mpsc::Sender<Result<E::Message, Status>>,
    stop: CancellationToken,
) {
    let (tx, mut rx) = mpsc::unbounded_channel();
    let mut in_flight: HashMap<u64, InFlight> = HashMap::new();
    let mut ready = Vec::with_capacity(REPLIES_PER_MESSAGE);
    let mut ticks = tokio::time::interval(DEADLINE_TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut open = true;
    while open || !in_flight.is_empty() {
        tokio::select! {
            () = stop.cancelled(), if open => open = false,
            batch = incoming.message(), if open && in_flight.len() < IN_FLIGHT_MAX => match batch {
                Ok(Some(batch)) => {
                    let (since, requests) = (Instant::now(), E::requests(batch));
                    if requests.len() > BATCH_REQUESTS {
                        let _ = outgoing.send(Err(batch_too_long(requests.len()).into())).await;
                        return;
                    }
                    for (id, deadline, mut request) in requests {
                        let span = Span::of_request(E::METHOD.name, E::trace(&mut request));
                        let waits = InFlight { deadline, since, span };
                        if in_flight.insert(id, waits).is_some() {
                            let _ = outgoing.send(Err(id_in_flight(id).into())).await;
                            return;
                        }
                        let to = Responder::Stream { id, tx: tx.clone() };
                        exchange.submit(deadline, request, to);
                    }
                }
                Ok(None) => open = false,
                // A message that is too large or none of ours: the client is told which. One that
                // has gone hears nothing.
                Err(status) => {
                    let _ = outgoing.send(Err(status)).await;
                    return;
                }
            },
            _ = rx.recv_many(&mut ready, REPLIES_PER_MESSAGE) => {
                // An answer after its deadline was given one already.
                let now = Instant::now();
                ready.retain(|(id, outcome)| {
                    let Some(request) = in_flight.remove(id) else {
                        return false;
                    };
                    request.answered(&exchange, now, outcome);
                    true
                });
                if !send(&exchange, &mut ready, &outgoing).await {
                    return;
                }
            }
            now = ticks.tick(), if !in_flight.is_empty() => {
                let late = in_flight.extract_if(|_, request| request.deadline <= now);
                ready.extend(late.map(|(id, request)| {
                    let outcome = Err(too_late());
                    request.answered(&exchange, now, &outcome);
                    (id, outcome)
                }));
                if !send(&exchange, &mut ready, &outgoing).await {
                    return;
                }
            }
        }
    }
}

/// Sends what is ready; false when the client has gone.
async fn send<E: Exchange>(
    exchange: &E,
    ready: &mut Vec<(u64, Outcome<E::Answer>)>,
    outgoing: &mpsc::Sender<Result<E::Message, Status>>,
) -> bool {
    if ready.is_empty() {
        return true;
    }
    let answers = std::mem::replace(ready, Vec::with_capacity(REPLIES_PER_MESSAGE));
    outgoing.send(Ok(exchange.pack(answers))).await.is_ok()
}

/// Else one message would put any number of requests in flight.
fn batch_too_long(requests: usize) -> NodeError {
    NodeError::Invalid(InvalidArgument::new(
        "requests",
        "are too many for one batch",
        BATCH_REQUESTS.to_string(),
        requests.to_string(),
    ))
}

fn id_in_flight(id: u64) -> NodeError {
    NodeError::Invalid(InvalidArgument::new(
        "id",
        "is in flight on this stream already",
        "an id of its own for each request in flight",
        id.to_string(),
    ))
}
