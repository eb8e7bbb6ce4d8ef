//! Listening sockets: bound before anything else, so that a port in use is told at once.

use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt;
use thiserror::Error;
use tonic::transport::Server;
use tower::layer::util::{Identity, Stack};

use super::activity::Requests;
use super::connection::Connection;
use super::edge::Opened;
use quorate_rpc::frame::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES};
use quorate_rpc::net::TcpListener;

/// Names and values of one request's headers: ours have a few hundred bytes, tokens a few thousand.
const HEADER_BYTES_MAX: u32 = 32 << 10;

/// Why there is no listening socket.
#[derive(Debug, Error)]
#[error("cannot listen on {addr} for {what}: {error}; {advice}")]
pub struct ListenError {
    what: &'static str,
    addr: String,
    error: std::io::Error,
    advice: &'static str,
}

/// A bound socket.
pub struct Bound {
    listener: TcpListener,
    addr: SocketAddr,
}

/// Binds `addr` (`host:port`, port 0 for any free one).
pub async fn bind(what: &'static str, addr: &str) -> Result<Bound, ListenError> {
    let failed = |error: std::io::Error| ListenError {
        what,
        addr: addr.to_owned(),
        advice: match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                "another process has this port: stop it or choose another address"
            }
            std::io::ErrorKind::AddrNotAvailable => "this machine does not have this address",
            std::io::ErrorKind::PermissionDenied => "this user may not listen there",
            _ => "give host:port",
        },
        error,
    };
    let listener = TcpListener::bind(addr).await.map_err(failed)?;
    let addr = listener.local_addr().map_err(failed)?;
    Ok(Bound { listener, addr })
}

impl Bound {
    /// The address, with the port that was chosen.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The socket itself.
    pub fn into_listener(self) -> TcpListener {
        self.listener
    }
}

/// Connections as axum takes them.
pub struct Connections {
    opened: Opened,
    addr: SocketAddr,
}

impl Connections {
    /// Those that come to `addr`.
    pub fn new(opened: Opened, addr: SocketAddr) -> Self {
        Self { opened, addr }
    }
}

impl axum::serve::Listener for Connections {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            match self.opened.next().await {
                Some(Ok(connection)) => {
                    let from = connection.caller().address.unwrap_or(self.addr);
                    return (connection, from);
                }
                Some(Err(_)) => {}
                // The node stops, and this future with it.
                None => std::future::pending().await,
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Ok(self.addr)
    }
}

/// A gRPC server with our windows and keep-alive; `streams` is the bound of requests that are open
/// on one connection.
pub fn server(streams: u32) -> Server<Stack<Requests, Identity>> {
    Server::builder()
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(streams)
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .layer(Requests)
}
