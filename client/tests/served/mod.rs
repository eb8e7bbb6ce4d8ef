//! A node that serves the in-memory cluster over gRPC, for the tests of the remote transport.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::{FutureExt, Stream, StreamExt};
use quorate_client::statemachine::notice::encode_notices;
use quorate_client::statemachine::{Name, Refusal, Reply};
use quorate_client::testing::MemoryTransport;
use quorate_client::{
    Consistency, ExecuteOptions, NodeError, ReadOptions, Transport, WatchEvent, WatchWhat,
};
use quorate_rpc::v1;
use quorate_rpc::v1::coordination_server::{Coordination, CoordinationServer};
use quorate_rpc::{LeaderHint, Trace};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What a test sees and sets of a node.
#[derive(Default)]
pub struct Knobs {
    pub cluster_id: std::sync::Mutex<String>,
    /// Whom the node names as leader; empty for nobody.
    pub leader: std::sync::Mutex<String>,
    /// Answers commands with a hint instead of executing them.
    pub refuse: AtomicBool,
    /// Executes and never answers.
    pub mute: AtomicBool,
    pub commands: AtomicUsize,
    pub batches: AtomicUsize,
    pub queries: AtomicUsize,
}

/// A running node. Dropping it cuts all its connections.
pub struct Node {
    pub address: SocketAddr,
    pub knobs: Arc<Knobs>,
    stop: CancellationToken,
}

impl Node {
    pub async fn start(cluster: &MemoryTransport) -> Self {
        Self::start_at("127.0.0.1:0", cluster).await
    }

    /// Binds until the address is free again: the kernel may still hold it for a former node.
    pub async fn start_at(address: &str, cluster: &MemoryTransport) -> Self {
        let deadline = Instant::now() + Duration::from_secs(10);
        let listener = loop {
            match TcpListener::bind(address).await {
                Ok(listener) => break listener,
                Err(error) => assert!(Instant::now() < deadline, "{address}: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let node = Self {
            address: listener.local_addr().expect("it is bound"),
            knobs: Arc::default(),
            stop: CancellationToken::new(),
        };
        *node.knobs.cluster_id.lock().expect("no panic") = "c".to_owned();
        node.set_leader(&node.address.to_string());
        let service = Service {
            cluster: cluster.clone(),
            knobs: node.knobs.clone(),
            stop: node.stop.clone(),
        };
        let serving = tonic::transport::Server::builder()
            .add_service(CoordinationServer::new(service))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let stop = node.stop.clone().cancelled_owned();
        tokio::spawn(futures::future::select(Box::pin(stop), serving.boxed()));
        node
    }

    pub fn set_leader(&self, address: &str) {
        *self.knobs.leader.lock().expect("no panic") = address.to_owned();
    }

    pub fn commands(&self) -> usize {
        self.knobs.commands.load(Ordering::SeqCst)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[derive(Clone)]
struct Service {
    cluster: MemoryTransport,
    knobs: Arc<Knobs>,
    stop: CancellationToken,
}

impl Service {
    fn hello(&self) -> v1::Hello {
        v1::Hello {
            cluster_id: self.knobs.cluster_id.lock().expect("no panic").clone(),
            node_id: 1,
            term: 1,
            applied_index: self.cluster.seen_index(),
            leader_id: 1,
            leader_client_addr: self.knobs.leader.lock().expect("no panic").clone(),
            version: "test".to_owned(),
            ..v1::Hello::default()
        }
    }

    async fn execute_one(&self, request: v1::ExecuteRequest) -> Option<v1::ExecuteReply> {
        use v1::execute_reply::Result;
        self.knobs.commands.fetch_add(1, Ordering::SeqCst);
        let options = ExecuteOptions {
            deadline: Instant::now() + Duration::from_millis(request.timeout_ms.into()),
            allow_zero_ttl: request.allow_zero_ttl,
            trace: Trace::from_bytes(&request.trace),
        };
        let executed = match self.knobs.refuse.load(Ordering::SeqCst) {
            true => Err(self.not_leader()),
            false => self.cluster.execute(request.command, options).await,
        };
        if self.knobs.mute.load(Ordering::SeqCst) {
            return None;
        }
        let (index, result) = match executed {
            Ok(executed) => (
                executed.index,
                Result::Reply(executed.reply.encode().into()),
            ),
            Err(error) => (0, Result::Error(error.into())),
        };
        Some(v1::ExecuteReply {
            id: request.id,
            index,
            result: Some(result),
        })
    }

    fn not_leader(&self) -> NodeError {
        let client_addr = self.knobs.leader.lock().expect("no panic").clone();
        NodeError::Unavailable {
            message: "not the leader".to_owned(),
            retry_after_ms: 0,
            leader: Some(LeaderHint { id: 1, client_addr }),
        }
    }

    async fn read_one(&self, request: v1::ReadRequest) -> v1::ReadReply {
        use v1::read_reply::Result;
        self.knobs.queries.fetch_add(1, Ordering::SeqCst);
        let options = ReadOptions {
            deadline: Instant::now() + Duration::from_millis(request.timeout_ms.into()),
            consistency: Consistency::Linearizable,
            min_index: request.min_index,
            trace: Trace::from_bytes(&request.trace),
        };
        let (mut index, mut now_ms) = (0, 0);
        let result = match self.cluster.read(request.query, options).await {
            Ok(answered) => {
                (index, now_ms) = (answered.index, answered.now.0);
                Result::Answer(answered.answer.encode().into())
            }
            Err(NodeError::Invalid(invalid)) => {
                Result::Refusal(Reply(Err(Refusal::Invalid(invalid))).encode().into())
            }
            Err(error) => Result::Error(error.into()),
        };
        v1::ReadReply {
            id: request.id,
            index,
            now_ms,
            result: Some(result),
        }
    }

    fn cut<T: Send + 'static>(&self, replies: mpsc::Receiver<T>) -> Response<Replies<T>> {
        let stop = self.stop.clone().cancelled_owned();
        let replies = ReceiverStream::new(replies).map(Ok).take_until(stop);
        let stop = self.stop.clone();
        // An end without an error would be a polite one: a crash has none.
        let crash = futures::stream::once(async move {
            stop.cancelled().await;
            Err(Status::unavailable("connection reset"))
        });
        Response::new(Box::pin(replies.chain(crash)))
    }
}

#[tonic::async_trait]
impl Coordination for Service {
    type ExecuteStream = Replies<v1::ExecuteReplies>;
    type ReadStream = Replies<v1::ReadReplies>;
    type WatchStream = Replies<v1::WatchMessage>;

    async fn execute(
        &self,
        request: Request<Streaming<v1::ExecuteBatch>>,
    ) -> Result<Response<Self::ExecuteStream>, Status> {
        let (sender, replies) = mpsc::channel(1_024);
        let (service, mut batches) = (self.clone(), request.into_inner());
        let hello = v1::ExecuteReplies {
            hello: Some(self.hello()),
            replies: Vec::new(),
        };
        sender.send(hello).await.expect("there is room");
        tokio::spawn(async move {
            while let Ok(Some(batch)) = batches.message().await {
                service.knobs.batches.fetch_add(1, Ordering::SeqCst);
                let answers = batch
                    .requests
                    .into_iter()
                    .map(|one| service.execute_one(one));
                // Backwards: answers come in any order.
                let mut answers = futures::future::join_all(answers).await;
                answers.reverse();
                let replies = answers.into_iter().flatten().collect();
                drop(
                    sender
                        .send(v1::ExecuteReplies {
                            replies,
                            hello: None,
                        })
                        .await,
                );
            }
        });
        Ok(self.cut(replies))
    }

    async fn read(
        &self,
        request: Request<Streaming<v1::ReadBatch>>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let (sender, replies) = mpsc::channel(1_024);
        let (service, mut batches) = (self.clone(), request.into_inner());
        let hello = v1::ReadReplies {
            hello: Some(self.hello()),
            replies: Vec::new(),
        };
        sender.send(hello).await.expect("there is room");
        tokio::spawn(async move {
            while let Ok(Some(batch)) = batches.message().await {
                let answers = batch.requests.into_iter().map(|one| service.read_one(one));
                let replies = futures::future::join_all(answers).await;
                drop(
                    sender
                        .send(v1::ReadReplies {
                            replies,
                            hello: None,
                        })
                        .await,
                );
            }
        });
        Ok(self.cut(replies))
    }

    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        use v1::watch_request::What;
        let name = |text| Name::parse("watch", text).map_err(NodeError::from);
        let what = match request.into_inner().what {
            Some(What::LeasePrefix(prefix)) => WatchWhat::LeasePrefix(prefix),
            Some(What::Queue(queue)) => WatchWhat::Queue(name(queue)?),
            Some(What::Process(process)) => WatchWhat::Process(name(process)?),
            Some(What::ProcessPrefix(prefix)) => WatchWhat::ProcessPrefix(prefix),
            Some(What::LockPrefix(prefix)) => WatchWhat::LockPrefix(prefix),
            Some(What::LockAcquisitions(prefix)) => WatchWhat::LockAcquisitions(
                <[u8; 8]>::try_from(&prefix[..])
                    .map_err(|_| Status::invalid_argument("a prefix has 8 bytes"))?,
            ),
            None => return Err(Status::invalid_argument("nothing to watch")),
        };
        let events = self.cluster.watch(what, 0).await?;
        let stop = self.stop.clone().cancelled_owned();
        Ok(Response::new(Box::pin(
            events.map(|event| Ok(message(event))).take_until(stop),
        )))
    }
}

fn message(event: WatchEvent) -> v1::WatchMessage {
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
