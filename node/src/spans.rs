//! Spans of what this node does for a request that came with a trace; others make none.
//!
//! ```text
//! <the caller's span>
//! `- quorate.v1.Coordination/Execute     on the node that was asked
//!    |- propose                          on the leader: queued, replicated, applied, answered
//!    `- apply                            on every node, as it applies the entry
//! ```
//!
//! The entry in the log holds the trace and the span of the request, so that whoever applies it
//! knows them. Spans go to the tracer provider of the process (`opentelemetry::global`): `quorate
//! serve` sets one, a program that embeds a node sets its own, and without one they are nothing.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use opentelemetry::global::{self, BoxedSpan};
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags,
    TraceId, TraceState, Tracer,
};
use opentelemetry::{Context, KeyValue};
use quorate_rpc::{NodeError, Trace};

/// What tracers call this library.
const SCOPE: &str = "quorate";

/// A span that is open. Dropped, it ends without an outcome.
pub struct Span(BoxedSpan);

impl Span {
    /// Of a request of a client's stream, if it has a trace; in its place comes that of the span.
    pub fn of_request(method: &'static str, trace: &mut Bytes) -> Option<Self> {
        let parent = Trace::from_bytes(trace)?;
        let attributes = vec![
            KeyValue::new("rpc.system", "grpc"),
            KeyValue::new("rpc.service", "quorate.v1.Coordination"),
            KeyValue::new("rpc.method", method),
        ];
        let name = format!("quorate.v1.Coordination/{method}");
        let span = Self::open(parent, builder(name, SpanKind::Server, attributes));
        *trace = span.place().to_bytes();
        Some(span)
    }

    /// Of a command at the leader.
    pub fn of_proposal(parent: Trace, command: &'static str) -> Self {
        let attributes = vec![KeyValue::new("quorate.command", command)];
        Self::open(parent, builder("propose", SpanKind::Internal, attributes))
    }

    fn open(parent: Trace, builder: SpanBuilder) -> Self {
        Self(global::tracer(SCOPE).build_with_context(builder, &context(parent)))
    }

    /// Where it is: what is below it has this for its parent. Without a tracer that is the parent.
    fn place(&self) -> Trace {
        let own = self.0.span_context();
        Trace {
            trace_id: own.trace_id().to_bytes(),
            span_id: own.span_id().to_bytes(),
        }
    }

    /// Ends it with the log index of the answer, 0 for none, or with what went wrong. A refusal of
    /// the replicated state is an answer.
    pub fn answered(mut self, outcome: Result<u64, &NodeError>) {
        match outcome {
            Ok(0) => {}
            Ok(index) => self.0.set_attribute(log_index(index)),
            Err(error) => {
                self.0
                    .set_attribute(KeyValue::new("error.type", error.code()));
                self.0.set_status(Status::error(error.code()));
            }
        }
        self.0.end();
    }
}

/// An entry of a traced command was applied here, in this time.
pub fn applied(parent: Trace, command: &'static str, index: u64, took: Duration) {
    let attributes = vec![KeyValue::new("quorate.command", command), log_index(index)];
    let ended = SystemTime::now();
    let builder = builder("apply", SpanKind::Internal, attributes).with_start_time(ended - took);
    Span::open(parent, builder).0.end_with_timestamp(ended);
}

fn builder(
    name: impl Into<std::borrow::Cow<'static, str>>,
    kind: SpanKind,
    attributes: Vec<KeyValue>,
) -> SpanBuilder {
    SpanBuilder::from_name(name)
        .with_kind(kind)
        .with_attributes(attributes)
}

fn log_index(index: u64) -> KeyValue {
    KeyValue::new(
        "quorate.log_index",
        i64::try_from(index).unwrap_or(i64::MAX),
    )
}

/// Who sends a trace wants it recorded.
fn context(parent: Trace) -> Context {
    let (trace, span) = (
        TraceId::from_bytes(parent.trace_id),
        SpanId::from_bytes(parent.span_id),
    );
    let remote = SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::NONE);
    Context::new().with_remote_span_context(remote)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_tracer_a_request_keeps_its_trace() {
        let sent = Bytes::from_static(b"0123456789abcdef01234567");
        let mut trace = sent.clone();
        let span = Span::of_request("Execute", &mut trace).expect("it has a trace");
        assert_eq!(trace, sent);
        span.answered(Ok(7));
    }

    #[test]
    fn a_request_without_a_trace_makes_no_span() {
        for none in [&b""[..], b"0123", &[0; 24]] {
            let mut trace = Bytes::copy_from_slice(none);
            assert!(Span::of_request("Read", &mut trace).is_none());
            assert_eq!(trace, none, "it is passed on as it came");
        }
    }
}
