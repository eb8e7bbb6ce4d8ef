//! One bidirectional stream with many requests in flight.
//!
//! Callers put requests into a bounded channel; what is waiting when the stream can take a batch
//! goes out in one, without lingering for more. Answers come back in batches and in any order, and
//! find their caller by id. When the stream breaks, every caller on it is told.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use futures::Stream;
use quorate_rpc::v1;
use quorate_rpc::{NodeError, frame};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// Requests that wait to be sent, at most; more callers wait for room, each to its own deadline.
const OUTGOING: usize = 4_096;

/// What travels on a lane: commands or queries.
pub(super) trait Traffic: Send + Sync + 'static {
    type Request: prost::Message + 'static;
    type Batch: Send + 'static;
    type Reply: Send + 'static;
    type Replies: Send + 'static;

    fn set_id(request: &mut Self::Request, id: u64);
    fn bytes(request: &Self::Request) -> usize;
    fn batch(requests: Vec<Self::Request>) -> Self::Batch;
    fn open(replies: Self::Replies) -> (Option<v1::Hello>, Vec<Self::Reply>);
    fn id(reply: &Self::Reply) -> u64;
}

pub(super) struct Commands;

impl Traffic for Commands {
    type Request = v1::ExecuteRequest;
    type Batch = v1::ExecuteBatch;
    type Reply = v1::ExecuteReply;
    type Replies = v1::ExecuteReplies;

    fn set_id(request: &mut v1::ExecuteRequest, id: u64) {
        request.id = id;
    }
    fn bytes(request: &v1::ExecuteRequest) -> usize {
        request.command.len()
    }
    fn batch(requests: Vec<v1::ExecuteRequest>) -> v1::ExecuteBatch {
        v1::ExecuteBatch { requests }
    }
    fn open(replies: v1::ExecuteReplies) -> (Option<v1::Hello>, Vec<v1::ExecuteReply>) {
        (replies.hello, replies.replies)
    }
    fn id(reply: &v1::ExecuteReply) -> u64 {
        reply.id
    }
}

pub(super) struct Queries;

impl Traffic for Queries {
    type Request = v1::ReadRequest;
    type Batch = v1::ReadBatch;
    type Reply = v1::ReadReply;
    type Replies = v1::ReadReplies;

    fn set_id(request: &mut v1::ReadRequest, id: u64) {
        request.id = id;
    }
    fn bytes(request: &v1::ReadRequest) -> usize {
        request.query.len()
    }
    fn batch(requests: Vec<v1::ReadRequest>) -> v1::ReadBatch {
        v1::ReadBatch { requests }
    }
    fn open(replies: v1::ReadReplies) -> (Option<v1::Hello>, Vec<v1::ReadReply>) {
        (replies.hello, replies.replies)
    }
    fn id(reply: &v1::ReadReply) -> u64 {
        reply.id
    }
}

/// The sending side of a lane, and the callers that wait on it.
pub(super) struct Lane<T: Traffic> {
    outgoing: mpsc::Sender<T::Request>,
    next_id: AtomicU64,
    waiting: Arc<Waiting<T>>,
}

/// Callers by the id of their request.
struct Waiting<T: Traffic> {
    callers: Mutex<Callers<T>>,
    broken: CancellationToken,
}

struct Callers<T: Traffic> {
    by_id: HashMap<u64, oneshot::Sender<T::Reply>>,
    /// Set once: nobody may register any more.
    closed: bool,
}

impl<T: Traffic> Waiting<T> {
    fn callers(&self) -> MutexGuard<'_, Callers<T>> {
        self.callers
            .lock()
            .expect("nothing panics while it holds the lock")
    }

    /// Tells every caller by dropping its sender.
    fn close(&self) {
        let abandoned = {
            let mut callers = self.callers();
            callers.closed = true;
            std::mem::take(&mut callers.by_id)
        };
        drop(abandoned);
        self.broken.cancel();
    }
}

/// Forgets a caller that stopped waiting.
struct Registration<'a, T: Traffic> {
    waiting: &'a Waiting<T>,
    id: u64,
}

impl<T: Traffic> Drop for Registration<'_, T> {
    fn drop(&mut self) {
        self.waiting.callers().by_id.remove(&self.id);
    }
}

impl<T: Traffic> Lane<T> {
    /// A lane and the stream of its batches. `broken` is cancelled when the lane is; a lane whose
    /// `broken` is cancelled by others closes too, when its receiver notices.
    pub(super) fn new(
        broken: CancellationToken,
    ) -> (Self, impl Stream<Item = T::Batch> + Send + 'static) {
        let (outgoing, requests) = mpsc::channel(OUTGOING);
        let callers = Callers {
            by_id: HashMap::new(),
            closed: false,
        };
        let lane = Self {
            outgoing,
            next_id: AtomicU64::new(1),
            waiting: Arc::new(Waiting {
                callers: Mutex::new(callers),
                broken,
            }),
        };
        (lane, batches::<T>(requests))
    }

    /// Sends a request and waits for its answer. A request that never left the channel certainly
    /// did not happen; what happened to one that did and has no answer is unknown.
    pub(super) async fn call(
        &self,
        mut request: T::Request,
        deadline: Instant,
    ) -> Result<T::Reply, NodeError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        T::set_id(&mut request, id);
        let (sender, answer) = oneshot::channel();
        {
            let mut callers = self.waiting.callers();
            if callers.closed {
                return Err(not_sent("the connection is closed"));
            }
            callers.by_id.insert(id, sender);
        }
        let _registration = Registration {
            waiting: &self.waiting,
            id,
        };
        match timeout_at(deadline, self.outgoing.send(request)).await {
            Err(_) => return Err(not_sent("the connection took no more requests in time")),
            Ok(Err(_)) => return Err(not_sent("the connection is closed")),
            Ok(Ok(())) => {}
        }
        match timeout_at(deadline, answer).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) => Err(NodeError::OutcomeUnknown {
                message: "the connection was lost before the answer came".to_owned(),
            }),
            Err(_) => Err(NodeError::DeadlineExceeded {
                message: "the node did not answer in time".to_owned(),
            }),
        }
    }

    /// What hands a stream's answers to the callers.
    pub(super) fn dispatcher(&self) -> Dispatcher<T> {
        Dispatcher {
            waiting: self.waiting.clone(),
        }
    }
}

/// Hands answers to callers. Dropping it closes the lane.
pub(super) struct Dispatcher<T: Traffic> {
    waiting: Arc<Waiting<T>>,
}

impl<T: Traffic> Dispatcher<T> {
    /// Wakes the callers of a batch of answers.
    pub(super) fn dispatch(&self, replies: Vec<T::Reply>) {
        let mut callers = self.waiting.callers();
        for reply in replies {
            if let Some(caller) = callers.by_id.remove(&T::id(&reply)) {
                // A caller that is gone needs no answer.
                drop(caller.send(reply));
            }
        }
    }
}

impl<T: Traffic> Drop for Dispatcher<T> {
    fn drop(&mut self) {
        self.waiting.close();
    }
}

pub(super) fn not_sent(why: &str) -> NodeError {
    NodeError::Unavailable {
        message: why.to_owned(),
        retry_after_ms: 0,
        leader: None,
    }
}

/// Drains what is waiting into batches, bounded in number and bytes.
fn batches<T: Traffic>(
    requests: mpsc::Receiver<T::Request>,
) -> impl Stream<Item = T::Batch> + Send + 'static {
    futures::stream::unfold(requests, |mut requests| async move {
        let first = requests.recv().await?;
        let mut bytes = T::bytes(&first);
        let mut batch = vec![first];
        while batch.len() < frame::BATCH_REQUESTS && bytes < frame::BATCH_BYTES {
            let Ok(next) = requests.try_recv() else {
                break;
            };
            bytes += T::bytes(&next);
            batch.push(next);
        }
        Some((T::batch(batch), requests))
    })
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    fn request(bytes: usize) -> v1::ExecuteRequest {
        v1::ExecuteRequest {
            command: vec![0; bytes].into(),
            ..Default::default()
        }
    }

    async fn batch_sizes(requests: impl IntoIterator<Item = v1::ExecuteRequest>) -> Vec<usize> {
        let (sender, receiver) = mpsc::channel(OUTGOING);
        for request in requests {
            sender.send(request).await.expect("the receiver lives");
        }
        drop(sender);
        let batches = batches::<Commands>(receiver).map(|batch| batch.requests.len());
        batches.collect().await
    }

    #[tokio::test]
    async fn what_waits_goes_out_in_bounded_batches() {
        let many = std::iter::repeat_n(request(10), frame::BATCH_REQUESTS + 3);
        assert_eq!(batch_sizes(many).await, [frame::BATCH_REQUESTS, 3]);
        let large = std::iter::repeat_n(request(frame::BATCH_BYTES / 2), 5);
        assert_eq!(batch_sizes(large).await, [2, 2, 1]);
    }

    #[tokio::test]
    async fn a_caller_that_stops_waiting_is_forgotten() {
        let (lane, _batches) = Lane::<Commands>::new(CancellationToken::new());
        let soon = Instant::now() + std::time::Duration::from_millis(1);
        let error = lane
            .call(request(1), soon)
            .await
            .expect_err("nobody answers");
        assert!(error.may_have_happened(), "{error}");
        assert!(lane.waiting.callers().by_id.is_empty());
    }

    #[tokio::test]
    async fn a_broken_stream_is_an_unknown_outcome_then_a_closed_lane() {
        let (lane, _batches) = Lane::<Commands>::new(CancellationToken::new());
        let later = Instant::now() + std::time::Duration::from_secs(60);
        let dispatcher = lane.dispatcher();
        let call = lane.call(request(1), later);
        let (error, ()) = tokio::join!(call, async { drop(dispatcher) });
        assert!(
            matches!(error, Err(NodeError::OutcomeUnknown { .. })),
            "{error:?}"
        );
        let error = lane
            .call(request(1), later)
            .await
            .expect_err("the lane is closed");
        assert!(!error.may_have_happened(), "{error}");
        assert!(lane.waiting.broken.is_cancelled());
    }
}
