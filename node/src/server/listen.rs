//! Listening sockets: bound before anything else, so that a port in use is told at once.

use std::net::SocketAddr;
use std::time::Duration;

use futures::{Stream, StreamExt};
use thiserror::Error;
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use super::connection::Connection;
use quorate_rpc::frame::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES};

/// Streams one connection may have open.
const STREAMS_PER_CONNECTION: u32 = 256;

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

    /// The socket as tonic takes connections from it.
    pub fn incoming(self) -> impl Stream<Item = std::io::Result<Connection>> {
        let streams = TcpIncoming::from(self.listener).with_nodelay(Some(true));
        streams.map(|stream| stream.map(Connection::new))
    }
}

/// A gRPC server with our windows and keep-alive.
pub fn server() -> Server {
    Server::builder()
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
}
