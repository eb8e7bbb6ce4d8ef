//! One connection that was taken; cut when it says nothing at first, or nothing more.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use quorate_rpc::tls::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};
use tonic::transport::server::Connected;

use super::activity::{Activity, ConnectionInfo};
use super::caller::Caller;
use super::edge::Place;

/// What a connection of HTTP/2 begins with; one that has said less has said nothing.
const PREFACE_BYTES: usize = 24;

/// How long a connection may say nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// At its beginning.
    pub first: Duration,
    /// Later, while nothing that was asked on it is open.
    pub idle: Duration,
    /// Whether any bytes count as work, as with HTTP/1. With HTTP/2 they do not: pings flow on a
    /// connection on which nothing is asked.
    pub by_bytes: bool,
}

/// A connection, and who is at its other end.
pub struct Connection {
    stream: Stream,
    caller: Caller,
    activity: Arc<Activity>,
    patience: Patience,
    heard: usize,
    /// When to look again.
    look: Pin<Box<Sleep>>,
    _place: Place,
}

impl Connection {
    /// Of a stream that was just opened; `place` is given back with it.
    pub(super) fn new(stream: Stream, caller: Caller, patience: Patience, place: Place) -> Self {
        Self {
            stream,
            caller,
            activity: Activity::new(),
            patience,
            heard: 0,
            look: Box::pin(tokio::time::sleep(patience.first)),
            _place: place,
        }
    }

    /// Where it comes from.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    fn heard(&mut self, bytes: usize) {
        if self.heard < PREFACE_BYTES {
            self.heard = self.heard.saturating_add(bytes);
            if self.heard >= PREFACE_BYTES {
                self.activity.touch();
            }
        }
        if self.patience.by_bytes && bytes > 0 {
            self.activity.touch();
        }
    }

    /// Why it is cut, once it has said nothing for too long.
    fn tired(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        while self.look.as_mut().poll(cx).is_ready() {
            if self.heard < PREFACE_BYTES && !self.patience.by_bytes {
                return Poll::Ready(self.cut("said nothing", self.patience.first));
            }
            let idle = self.activity.idle();
            match self.patience.idle.checked_sub(idle) {
                Some(left) if !left.is_zero() => self.look.as_mut().reset(Instant::now() + left),
                _ => return Poll::Ready(self.cut("asked nothing", self.patience.idle)),
            }
        }
        Poll::Pending
    }

    fn cut(&self, why: &str, limit: Duration) -> io::Error {
        let limit_ms = limit.as_millis();
        let address = self.caller.address.map(tracing::field::display);
        tracing::debug!(address, why, limit_ms, "cut a connection");
        let text = format!("the connection {why} for {limit_ms} ms");
        io::Error::new(io::ErrorKind::TimedOut, text)
    }
}

/// tonic puts it among the extensions of each request.
impl Connected for Connection {
    type ConnectInfo = ConnectionInfo;

    fn connect_info(&self) -> ConnectionInfo {
        ConnectionInfo {
            caller: self.caller.clone(),
            activity: Arc::clone(&self.activity),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_ready() {
            self.heard(buf.filled().len() - before);
            return read;
        }
        self.tired(cx).map(Err)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if self.patience.by_bytes && written.is_ready() {
            self.activity.touch();
        }
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        if self.patience.by_bytes && written.is_ready() {
            self.activity.touch();
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
