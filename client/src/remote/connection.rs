//! One connection to one node: a stream of commands, a stream of queries, and watches.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::stream::{BoxStream, unfold};
use futures::{FutureExt, StreamExt};
use quorate_rpc::tls::{ClientTls, Connector};
use quorate_rpc::v1::coordination_client::CoordinationClient;
use quorate_rpc::v1::watch_message::Message;
use quorate_rpc::{NodeError, frame, v1};
use quorate_statemachine::InvalidArgument;
use quorate_statemachine::notice::decode_notices;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Streaming;
use tonic::transport::Endpoint;

use super::authorize::{Authorize, Authorized, Credential};
use super::lane::{Commands, Dispatcher, Lane, Queries, Traffic, not_sent};
use super::standing::Standing;
use crate::transport::{WatchEvent, WatchWhat};

/// A node that does not answer a ping: 10 s until it is asked, 20 s until it is given up.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// How to reach nodes.
#[derive(Clone)]
pub(crate) struct Dial {
    /// How long a connection may take to be made.
    pub(crate) timeout: Duration,
    connector: Connector,
    tls: bool,
    credential: Option<Credential>,
}

impl Dial {
    pub(crate) fn new(
        timeout: Duration,
        tls: Option<&ClientTls>,
        credential: Option<&Credential>,
    ) -> Self {
        Self {
            timeout,
            connector: tls.map_or_else(Connector::plain, ClientTls::connector),
            tls: tls.is_some(),
            credential: credential.cloned(),
        }
    }

    /// Makes a connection to `address`, which [`endpoint`] takes.
    pub(crate) async fn connect(&self, address: &str) -> Result<Authorized, NodeError> {
        let authorize = Authorize::at(self.credential.as_ref(), address, self.tls)?;
        let endpoint = endpoint(address)?.connect_timeout(self.timeout);
        let connected = endpoint.connect_with_connector(self.connector.clone());
        let channel = connected
            .await
            .map_err(|error| not_reached(address, &error))?;
        Ok(authorize.on(channel))
    }
}

/// A channel to a node, with the sizes and timeouts of this wire. `address` is `host:port`.
pub(crate) fn endpoint(address: &str) -> Result<Endpoint, NodeError> {
    // With TLS too: it is the connector that speaks it.
    let endpoint = Endpoint::from_shared(format!("http://{address}"));
    let has_port = |endpoint: &Endpoint| endpoint.uri().port_u16().is_some();
    let endpoint = endpoint
        .ok()
        .filter(has_port)
        .ok_or_else(|| InvalidArgument::new("endpoint", "is no address", "host:port", address))?;
    Ok(endpoint
        .initial_stream_window_size(frame::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(frame::CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true))
}

type Client = CoordinationClient<Authorized>;

/// An open connection. Dropping it ends its streams.
pub(super) struct Connection {
    pub(super) address: String,
    pub(super) commands: Lane<Commands>,
    pub(super) queries: Lane<Queries>,
    client: Client,
    standing: Arc<Standing>,
    /// The term in which the node said hello.
    term: AtomicU64,
    /// Held by the call that looks whether the node is still the one to ask.
    pub(super) looking: tokio::sync::Mutex<()>,
    closed: CancellationToken,
    _close: DropGuard,
}

impl Connection {
    /// Connects, opens both streams and hears the node's first word.
    pub(super) async fn open(
        address: &str,
        dial: &Dial,
        standing: Arc<Standing>,
    ) -> Result<Self, NodeError> {
        let channel = dial.connect(address).await?;
        let client = CoordinationClient::new(channel)
            .max_decoding_message_size(frame::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(frame::MESSAGE_BYTES_MAX);
        let closed = CancellationToken::new();
        let (commands, batches) = Lane::new(closed.clone());
        let execute = client.clone().execute(batches).await;
        let execute = execute.map_err(|status| not_opened(address, status))?;
        let (queries, batches) = Lane::new(closed.clone());
        let read = client.clone().read(batches).await;
        let read = read.map_err(|status| not_opened(address, status))?;
        let connection = Self {
            address: address.to_owned(),
            commands,
            queries,
            client,
            standing,
            term: AtomicU64::new(0),
            looking: tokio::sync::Mutex::new(()),
            _close: closed.clone().drop_guard(),
            closed,
        };
        connection
            .receive(execute.into_inner(), connection.commands.dispatcher())
            .await?;
        connection
            .receive(read.into_inner(), connection.queries.dispatcher())
            .await?;
        Ok(connection)
    }

    /// Waits for the Hello, then hands the answers on in the background.
    async fn receive<T: Traffic>(
        &self,
        mut replies: Streaming<T::Replies>,
        dispatcher: Dispatcher<T>,
    ) -> Result<(), NodeError> {
        let first = replies.message().await;
        let first = first.map_err(|status| not_opened(&self.address, status))?;
        let hello = first.and_then(|first| T::open(first).0);
        let hello = hello.ok_or_else(|| not_sent("the node did not say hello"))?;
        self.standing.hear(&self.address, &hello)?;
        self.term.fetch_max(hello.term, Ordering::AcqRel);
        let (standing, address) = (self.standing.clone(), self.address.clone());
        let ended = self.closed.clone().cancelled_owned();
        let receiving = async move {
            while let Ok(Some(message)) = replies.message().await {
                let (hello, replies) = T::open(message);
                if hello.is_some_and(|hello| standing.hear(&address, &hello).is_err()) {
                    break;
                }
                dispatcher.dispatch(replies);
            }
            // Closes the lane, and with it the connection.
            drop(dispatcher);
        };
        tokio::spawn(futures::future::select(Box::pin(ended), receiving.boxed()));
        Ok(())
    }

    /// Whether it has ended, so that another one must be opened.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// The term in which the node was heard last.
    pub(super) fn term(&self) -> u64 {
        self.term.load(Ordering::Acquire)
    }

    /// Ends it: whoever waits for an answer is told that there will be none.
    pub(super) fn close(&self) {
        self.closed.cancel();
    }

    /// Asks the node once more how it stands, mostly for who leads.
    pub(super) async fn ask_again(&self) {
        let nothing = futures::stream::empty::<v1::ExecuteBatch>();
        let Ok(replies) = self.client.clone().execute(nothing).await else {
            return;
        };
        if let Ok(Some(v1::ExecuteReplies {
            hello: Some(hello), ..
        })) = replies.into_inner().message().await
        {
            self.term.fetch_max(hello.term, Ordering::AcqRel);
            if let Err(error) = self.standing.hear(&self.address, &hello) {
                tracing::warn!(address = self.address, %error, "a node changed its cluster");
                self.close();
            }
        }
    }

    pub(super) async fn watch(
        &self,
        what: WatchWhat,
        from_index: u64,
    ) -> Result<BoxStream<'static, WatchEvent>, NodeError> {
        let request = v1::WatchRequest {
            what: Some(what.into()),
            from_index,
        };
        let stream = self.client.clone().watch(request).await?.into_inner();
        let closed = self.closed.clone().cancelled_owned();
        let events = unfold(stream, |mut stream| async {
            let message = stream.message().await.ok().flatten()?;
            Some((event(message)?, stream))
        });
        Ok(events.take_until(closed).boxed())
    }
}

impl From<WatchWhat> for v1::watch_request::What {
    fn from(what: WatchWhat) -> Self {
        match what {
            WatchWhat::LeasePrefix(prefix) => Self::LeasePrefix(prefix),
            WatchWhat::Queue(queue) => Self::Queue(queue.into()),
            WatchWhat::Process(process) => Self::Process(process.into()),
            WatchWhat::ProcessPrefix(prefix) => Self::ProcessPrefix(prefix),
            WatchWhat::LockPrefix(prefix) => Self::LockPrefix(prefix),
            WatchWhat::LockAcquisitions(prefix) => Self::LockAcquisitions(prefix.to_vec().into()),
        }
    }
}

/// A message that cannot be read ends the stream: to its reader that is a lost node, and it reads
/// the state anew.
fn event(message: v1::WatchMessage) -> Option<WatchEvent> {
    Some(match message.message? {
        Message::RegisteredAt(index) => WatchEvent::Registered { index },
        Message::Lagged(lagged) => WatchEvent::Lagged {
            resume_from: lagged.resume_from,
        },
        Message::Notices(entry) => WatchEvent::Notices {
            index: entry.index,
            notices: decode_notices(&entry.notices).ok()?,
        },
    })
}

fn not_reached(address: &str, error: &tonic::transport::Error) -> NodeError {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    let cause = causes.last().map(|cause| format!(": {cause}"));
    let cause = cause.unwrap_or_default();
    not_sent(&format!("the node at {address} cannot be reached{cause}"))
}

/// Nothing was sent on the stream yet, whatever the status says. Who is not let in need not try
/// again.
fn not_opened(address: &str, status: tonic::Status) -> NodeError {
    let message = format!(
        "the node at {address} did not open a stream: {}",
        status.message()
    );
    match NodeError::from(status) {
        error @ NodeError::Unauthenticated { .. } => error,
        _ => not_sent(&message),
    }
}
