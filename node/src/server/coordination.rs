//! The service of clients: execute, read, watch.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use quorate_client::{Answered, Executed, WatchEvent, WatchWhat};
use quorate_rpc::v1::coordination_server::Coordination;
use quorate_rpc::{NodeError, v1};
use quorate_statemachine::notice::encode_notices;
use quorate_statemachine::{InvalidArgument, Name, Query, Refusal, Reply};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::exchange::{self, Exchange, Method, OUTGOING};
use super::{consistency, deadline, execute_reply};
use crate::access::{Guest, Watching};
use crate::core::Core;
use crate::metrics::Metrics;
use crate::origin::Origin;
use crate::propose::Submission;
use crate::read::ReadSubmission;
use crate::respond::{Outcome, Responder};
use crate::shared::Shared;

/// Serves clients.
pub struct CoordinationService {
    shared: Arc<Shared>,
}

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl CoordinationService {
    /// Serves on behalf of this node.
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

struct Execute {
    core: Arc<Core>,
    guest: Guest,
    news: News,
}

impl Exchange for Execute {
    const METHOD: Method = Method {
        label: "execute",
        name: "Execute",
    };

    type Batch = v1::ExecuteBatch;
    type Request = v1::ExecuteRequest;
    type Answer = Executed;
    type Message = v1::ExecuteReplies;

    fn requests(batch: v1::ExecuteBatch) -> Vec<(u64, Instant, v1::ExecuteRequest)> {
        let requests = batch.requests.into_iter();
        requests
            .map(|request| (request.id, deadline(request.timeout_ms), request))
            .collect()
    }

    fn trace(request: &mut v1::ExecuteRequest) -> &mut Bytes {
        &mut request.trace
    }

    fn index(answer: &Executed) -> u64 {
        answer.index
    }

    fn metrics(&self) -> &Metrics {
        &self.core.metrics
    }

    fn submit(&self, deadline: Instant, request: v1::ExecuteRequest, to: Responder<Executed>) {
        let caller = match self.guest.caller() {
            Ok(caller) => caller,
            Err(error) => return to.send(Err(error)),
        };
        self.core.submit(Submission {
            command: request.command,
            origin: Origin::from(caller).traced(&request.trace),
            deadline,
            allow_zero_ttl: request.allow_zero_ttl,
            responder: to,
        });
    }

    fn pack(&self, answers: Vec<(u64, Outcome<Executed>)>) -> v1::ExecuteReplies {
        let replies = answers
            .into_iter()
            .map(|(id, outcome)| execute_reply(id, outcome));
        v1::ExecuteReplies {
            replies: replies.collect(),
            hello: self.news.hello(&self.core),
        }
    }
}

struct Read {
    core: Arc<Core>,
    guest: Guest,
    news: News,
}

/// What the client of a stream was told of the members. It is told again with an answer once that
/// is another: by then all addresses that it knew may be gone.
struct News {
    /// Log index of the membership that it knows.
    told: AtomicU64,
}

impl News {
    /// As of a hello that is said from here on.
    fn of(core: &Core) -> Self {
        Self {
            told: AtomicU64::new(core.membership_index()),
        }
    }

    fn hello(&self, core: &Core) -> Option<v1::Hello> {
        let index = core.membership_index();
        let known = self.told.swap(index, Ordering::Relaxed) == index;
        (!known).then(|| core.hello())
    }
}

impl Exchange for Read {
    const METHOD: Method = Method {
        label: "read",
        name: "Read",
    };

    type Batch = v1::ReadBatch;
    type Request = v1::ReadRequest;
    type Answer = Answered;
    type Message = v1::ReadReplies;

    fn requests(batch: v1::ReadBatch) -> Vec<(u64, Instant, v1::ReadRequest)> {
        let requests = batch.requests.into_iter();
        requests
            .map(|request| (request.id, deadline(request.timeout_ms), request))
            .collect()
    }

    fn trace(request: &mut v1::ReadRequest) -> &mut Bytes {
        &mut request.trace
    }

    fn index(answer: &Answered) -> u64 {
        answer.index
    }

    fn metrics(&self) -> &Metrics {
        &self.core.metrics
    }

    fn submit(&self, deadline: Instant, request: v1::ReadRequest, to: Responder<Answered>) {
        let query = match Query::decode(&request.query) {
            Ok(query) => query,
            Err(invalid) => return to.send(Err(NodeError::Invalid(invalid))),
        };
        let caller = match self.guest.caller() {
            Ok(caller) => caller,
            Err(error) => return to.send(Err(error)),
        };
        self.core.reader().submit(ReadSubmission {
            query,
            origin: Origin::from(caller).traced(&request.trace),
            consistency: consistency(request.consistency(), request.max_lag_ms),
            min_index: request.min_index,
            deadline,
            responder: to,
        });
    }

    fn pack(&self, answers: Vec<(u64, Outcome<Answered>)>) -> v1::ReadReplies {
        let replies = answers
            .into_iter()
            .map(|(id, outcome)| read_reply(id, outcome));
        v1::ReadReplies {
            replies: replies.collect(),
            hello: self.news.hello(&self.core),
        }
    }
}

fn read_reply(id: u64, outcome: Outcome<Answered>) -> v1::ReadReply {
    use v1::read_reply::Result;
    let mut reply = v1::ReadReply {
        id,
        ..v1::ReadReply::default()
    };
    reply.result = Some(match outcome {
        Ok(answered) => {
            (reply.index, reply.now_ms) = (answered.index, answered.now.0);
            Result::Answer(answered.answer.encode().into())
        }
        Err(NodeError::Invalid(invalid)) => refused(Refusal::Invalid(invalid)),
        Err(NodeError::Refused(refusal)) => refused(refusal),
        Err(error) => Result::Error(error.into()),
    });
    reply
}

fn refused(refusal: Refusal) -> v1::read_reply::Result {
    v1::read_reply::Result::Refusal(Reply(Err(refusal)).encode().into())
}

/// The first message of each stream, then what `run` sends.
fn opened<M: Send + 'static>(
    hello: M,
    start: impl FnOnce(mpsc::Sender<Result<M, Status>>),
) -> Response<Replies<M>> {
    let (tx, rx) = mpsc::channel(OUTGOING);
    start(tx);
    let first = futures::stream::iter([Ok(hello)]);
    Response::new(Box::pin(first.chain(ReceiverStream::new(rx))))
}

#[tonic::async_trait]
impl Coordination for CoordinationService {
    type ExecuteStream = Replies<v1::ExecuteReplies>;
    type ReadStream = Replies<v1::ReadReplies>;
    type WatchStream = Replies<v1::WatchMessage>;

    async fn execute(
        &self,
        request: Request<Streaming<v1::ExecuteBatch>>,
    ) -> Result<Response<Self::ExecuteStream>, Status> {
        let core = self.shared.core()?;
        let news = News::of(&core);
        let hello = v1::ExecuteReplies {
            hello: Some(core.hello()),
            ..v1::ExecuteReplies::default()
        };
        let guest = Guest::admit(&core, &request).await?;
        let incoming = request.into_inner();
        Ok(opened(hello, |tx| {
            let exchange = Execute { core, guest, news };
            let stop = self.shared.stop_token();
            tokio::spawn(exchange::run(exchange, incoming, tx, stop));
        }))
    }

    async fn read(
        &self,
        request: Request<Streaming<v1::ReadBatch>>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let core = self.shared.core()?;
        let news = News::of(&core);
        let hello = v1::ReadReplies {
            hello: Some(core.hello()),
            ..v1::ReadReplies::default()
        };
        let guest = Guest::admit(&core, &request).await?;
        let incoming = request.into_inner();
        Ok(opened(hello, |tx| {
            let exchange = Read { core, guest, news };
            let stop = self.shared.stop_token();
            tokio::spawn(exchange::run(exchange, incoming, tx, stop));
        }))
    }

    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let core = self.shared.core()?;
        let guest = Guest::admit(&core, &request).await?;
        let request = request.into_inner();
        let what = watch_what(request.what).map_err(NodeError::Invalid)?;
        let watching = Watching::start(&core, guest, what, request.from_index).await?;
        let messages = watching.events().map(|event| Ok(watch_message(event?)));
        Ok(Response::new(Box::pin(messages)))
    }
}

fn check_prefix(field: &str, prefix: String) -> Result<String, InvalidArgument> {
    let longest = quorate_statemachine::limits::NAME_BYTES_MAX;
    InvalidArgument::check_bytes(field, prefix.len(), longest)?;
    Ok(prefix)
}

/// What a watch is about, within its bounds.
pub fn watch_what(what: Option<v1::watch_request::What>) -> Result<WatchWhat, InvalidArgument> {
    use v1::watch_request::What;
    match what {
        Some(What::LeasePrefix(prefix)) => {
            check_prefix("lease_prefix", prefix).map(WatchWhat::LeasePrefix)
        }
        Some(What::Queue(queue)) => Name::parse("queue", queue).map(WatchWhat::Queue),
        Some(What::Process(id)) => Name::parse("process", id).map(WatchWhat::Process),
        Some(What::ProcessPrefix(prefix)) => {
            check_prefix("process_prefix", prefix).map(WatchWhat::ProcessPrefix)
        }
        Some(What::LockPrefix(prefix)) => {
            check_prefix("lock_prefix", prefix).map(WatchWhat::LockPrefix)
        }
        Some(What::LockAcquisitions(prefix)) => {
            let wrong = |_| {
                let found = format!("{} bytes", prefix.len());
                InvalidArgument::new("lock_acquisitions", "has another length", "8 bytes", found)
            };
            let prefix = <[u8; 8]>::try_from(&prefix[..]).map_err(wrong)?;
            Ok(WatchWhat::LockAcquisitions(prefix))
        }
        None => Err(InvalidArgument::new(
            "what",
            "is missing",
            "what to watch",
            "none",
        )),
    }
}

fn watch_message(event: WatchEvent) -> v1::WatchMessage {
    use v1::watch_message::Message;
    let message = match event {
        WatchEvent::Registered { index } => Message::RegisteredAt(index),
        WatchEvent::Notices { index, notices } => Message::Notices(v1::WatchNotices {
            index,
            notices: encode_notices(&notices).into(),
        }),
        WatchEvent::Lagged { resume_from } => Message::Lagged(v1::Lagged { resume_from }),
    };
    v1::WatchMessage {
        message: Some(message),
    }
}
