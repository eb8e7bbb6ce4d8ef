//! [`Remote`]: a cluster over gRPC.
//!
//! One connection to a node carries one stream of commands and one of queries, each with many
//! requests in flight. Commands go to the leader, which nodes name in their first word and in
//! their errors; any node passes commands on, so a wrong guess costs a hop and no more. A node
//! that does not answer is left for the next endpoint. Connections are opened when they are needed
//! and again after they broke, each address with its own pause after a failure.

use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use quorate_rpc::tls::ClientTls;
use quorate_rpc::{NodeError, Trace, v1};
use quorate_statemachine::{Answer, InvalidArgument, Refusal, Reply, Timestamp};
use tokio::time::Instant;

use crate::client::Client;
use crate::error::ClientError;
use crate::transport::{
    Answered, Consistency, ExecuteOptions, Executed, ReadOptions, Transport, WatchEvent, WatchWhat,
};

pub(crate) mod authorize;
pub(crate) mod connection;
mod lane;
mod pool;
mod standing;

pub use authorize::Credential;
use connection::{Connection, Dial};
use pool::{Pool, SILENCE};

/// Which nodes are asked to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReadFrom {
    /// The leader: a linearizable read needs its word anyhow.
    #[default]
    Leader,
    /// One of the endpoints, the same one until it fails: spreads the load of many clients.
    AnyNode,
}

/// How to speak to a cluster.
#[derive(Debug, Clone)]
pub struct RemoteOptions {
    /// How long to wait for a connection before the next endpoint is tried; 1 s.
    pub connect_timeout: Duration,
    /// Which nodes are asked to read.
    pub read_from: ReadFrom,
    /// Certificates; none to speak without TLS.
    pub tls: Option<ClientTls>,
    /// Shown to every node that is called.
    pub credential: Option<Credential>,
}

impl Default for RemoteOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(1),
            read_from: ReadFrom::Leader,
            tls: None,
            credential: None,
        }
    }
}

impl RemoteOptions {
    /// The same, showing a token.
    #[must_use]
    pub fn with_token(self, token: impl Into<Credential>) -> Self {
        Self {
            credential: Some(token.into()),
            ..self
        }
    }
}

/// A cluster over gRPC.
pub struct Remote {
    pool: Pool,
    options: RemoteOptions,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote")
            .field("options", &self.options)
            .field("standing", &self.pool.standing)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the cluster that has nodes at `endpoints` (`host:port` or a URL). It connects
    /// when it is first used. Refuses an endpoint that is no address, and an empty list.
    pub fn connect<E: Into<String>>(
        endpoints: impl IntoIterator<Item = E>,
    ) -> Result<Self, ClientError> {
        Ok(Self::new(Remote::new(endpoints, RemoteOptions::default())?))
    }
}

/// Checks that there are endpoints and that each is an address, and names them as nodes name each
/// other: one address must not have two names, or it would have two connections.
pub(crate) fn checked_endpoints<E: Into<String>>(
    endpoints: impl IntoIterator<Item = E>,
    tls: bool,
) -> Result<Vec<String>, ClientError> {
    let endpoints = endpoints.into_iter().map(|given| plain(&given.into(), tls));
    let endpoints = endpoints.collect::<Result<Vec<String>, InvalidArgument>>()?;
    if endpoints.is_empty() {
        let none = InvalidArgument::new("endpoints", "must not be empty", "1 or more", "0");
        return Err(none.into());
    }
    for address in &endpoints {
        connection::endpoint(address)?;
    }
    Ok(endpoints)
}

/// `host:port` of what was given. With TLS for one node is with TLS for all: nodes name each other
/// without a scheme.
pub(crate) fn plain(given: &str, tls: bool) -> Result<String, InvalidArgument> {
    let wrong = |problem, limit| Err(InvalidArgument::new("endpoint", problem, limit, given));
    let address = match given.split_once("://") {
        None => given,
        Some(("https", address)) if tls => address,
        Some(("http", address)) if !tls => address,
        Some(("https", _)) => {
            return wrong(
                "asks for TLS",
                "the certificates of the nodes' authority beside it (--cacert)",
            );
        }
        Some(("http", _)) => {
            return wrong(
                "asks for no TLS, and certificates are given",
                "https:// or no scheme",
            );
        }
        Some(_) => return wrong("is no address", "host:port or https://host:port"),
    };
    Ok(address.trim_end_matches('/').to_owned())
}

impl Remote {
    /// A cluster with nodes at `endpoints`. Connects when it is first used.
    pub fn new<E: Into<String>>(
        endpoints: impl IntoIterator<Item = E>,
        options: RemoteOptions,
    ) -> Result<Self, ClientError> {
        let endpoints = checked_endpoints(endpoints, options.tls.is_some())?;
        let (tls, credential) = (options.tls.as_ref(), options.credential.as_ref());
        let dial = Dial::new(options.connect_timeout, tls, credential);
        Ok(Self {
            pool: Pool::new(endpoints, dial),
            options,
        })
    }

    async fn execute_once(
        &self,
        command: Bytes,
        options: ExecuteOptions,
    ) -> Result<Executed, NodeError> {
        let connection = self.pool.leader(options.deadline).await?;
        let request = v1::ExecuteRequest {
            id: 0,
            command,
            timeout_ms: left_ms(options.deadline),
            allow_zero_ttl: options.allow_zero_ttl,
            trace: on_wire(options.trace),
        };
        let call = connection.commands.call(request, options.deadline);
        let reply = self.watched(&connection, call).await;
        let executed = reply.and_then(executed);
        match &executed {
            Ok(executed) => self.pool.standing.saw(executed.index),
            Err(error) => self.pool.learn(&connection, error),
        }
        executed
    }

    async fn read_once(&self, query: Bytes, options: ReadOptions) -> Result<Answered, NodeError> {
        let connection = match self.options.read_from {
            ReadFrom::Leader => self.pool.leader(options.deadline).await?,
            ReadFrom::AnyNode => self.pool.any(options.deadline).await?,
        };
        let (consistency, max_lag_ms) = wire_consistency(options.consistency);
        let request = v1::ReadRequest {
            id: 0,
            query,
            consistency: consistency.into(),
            max_lag_ms,
            timeout_ms: left_ms(options.deadline),
            min_index: options.min_index,
            trace: on_wire(options.trace),
        };
        let call = connection.queries.call(request, options.deadline);
        let reply = self.watched(&connection, call).await;
        let answered = reply.and_then(answered);
        match &answered {
            Ok(answered) => self.pool.standing.saw(answered.index),
            Err(error) => self.pool.learn(&connection, error),
        }
        answered
    }

    /// Waits for an answer. While there is none, looks whether another node leads by now.
    async fn watched<T>(&self, connection: &Connection, call: impl Future<Output = T>) -> T {
        tokio::pin!(call);
        loop {
            match tokio::time::timeout(SILENCE, &mut call).await {
                Ok(answer) => return answer,
                Err(_) => {
                    tokio::select! {
                        answer = &mut call => return answer,
                        () = self.pool.look_past(connection) => {}
                    }
                }
            }
        }
    }

    async fn watch_once(
        &self,
        what: WatchWhat,
        from_index: u64,
    ) -> Result<BoxStream<'static, WatchEvent>, NodeError> {
        let deadline = Instant::now() + self.options.connect_timeout * 2;
        let connection = match self.options.read_from {
            ReadFrom::Leader => self.pool.leader(deadline).await?,
            ReadFrom::AnyNode => self.pool.any(deadline).await?,
        };
        let events = connection.watch(what, from_index).await;
        if let Err(error) = &events {
            self.pool.learn(&connection, error);
        }
        events
    }

    async fn connected(&self, deadline: Instant) -> Result<u64, NodeError> {
        if !self.pool.standing.is_known() {
            self.pool.leader(deadline).await?;
        }
        Ok(self.pool.standing.seen())
    }
}

/// Milliseconds left, at least 1: 0 would mean the server's own limit.
fn left_ms(deadline: Instant) -> u32 {
    let left = deadline
        .saturating_duration_since(Instant::now())
        .as_millis();
    u32::try_from(left).unwrap_or(u32::MAX).max(1)
}

fn on_wire(trace: Option<Trace>) -> Bytes {
    trace.map_or(Bytes::new(), |trace| trace.to_bytes())
}

fn wire_consistency(consistency: Consistency) -> (v1::Consistency, u32) {
    match consistency {
        Consistency::Linearizable => (v1::Consistency::Linearizable, 0),
        Consistency::Lease => (v1::Consistency::Lease, 0),
        Consistency::Stale { max_lag_ms: None } => (v1::Consistency::Stale, 0),
        // 0 means no bound on the wire, so the tightest bound is 1 ms.
        Consistency::Stale {
            max_lag_ms: Some(ms),
        } => (
            v1::Consistency::Stale,
            u32::try_from(ms).unwrap_or(u32::MAX).max(1),
        ),
    }
}

fn executed(reply: v1::ExecuteReply) -> Result<Executed, NodeError> {
    use v1::execute_reply::Result;
    match reply.result {
        Some(Result::Reply(bytes)) => Ok(Executed {
            index: reply.index,
            reply: Reply::decode(&bytes).map_err(|bad| unreadable(&bad))?,
        }),
        Some(Result::Error(error)) => Err(error.into()),
        None => Err(unreadable(&"an answer without a result")),
    }
}

fn answered(reply: v1::ReadReply) -> Result<Answered, NodeError> {
    use v1::read_reply::Result;
    match reply.result {
        Some(Result::Answer(bytes)) => Ok(Answered {
            index: reply.index,
            now: Timestamp(reply.now_ms),
            answer: Answer::decode(&bytes).map_err(|bad| unreadable(&bad))?,
        }),
        Some(Result::Error(error)) => Err(error.into()),
        Some(Result::Refusal(bytes)) => match Reply::decode(&bytes) {
            Ok(Reply(Err(Refusal::Invalid(invalid)))) => Err(invalid.into()),
            Ok(Reply(Err(refusal))) => Err(NodeError::Refused(refusal)),
            other => Err(unreadable(&format!("{other:?}"))),
        },
        None => Err(unreadable(&"an answer without a result")),
    }
}

fn unreadable(what: &dyn std::fmt::Display) -> NodeError {
    NodeError::OutcomeUnknown {
        message: format!("the answer cannot be read by this build: {what}"),
    }
}

impl Transport for Remote {
    fn execute(
        &self,
        command: Bytes,
        options: ExecuteOptions,
    ) -> BoxFuture<'_, Result<Executed, NodeError>> {
        self.execute_once(command, options).boxed()
    }

    fn read(
        &self,
        query: Bytes,
        options: ReadOptions,
    ) -> BoxFuture<'_, Result<Answered, NodeError>> {
        self.read_once(query, options).boxed()
    }

    fn watch(
        &self,
        what: WatchWhat,
        from_index: u64,
    ) -> BoxFuture<'_, Result<BoxStream<'static, WatchEvent>, NodeError>> {
        self.watch_once(what, from_index).boxed()
    }

    fn seen_index(&self) -> u64 {
        self.pool.standing.seen()
    }

    fn ready(&self, deadline: Instant) -> BoxFuture<'_, Result<u64, NodeError>> {
        self.connected(deadline).boxed()
    }
}
