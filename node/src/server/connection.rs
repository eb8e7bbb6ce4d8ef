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
use super::unfinished::{Share, Unfinished};

/// What a connection of HTTP/2 begins with; one that has said less has said nothing.
const PREFACE_BYTES: usize = 24;

/// How long a connection may say nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// At its beginning.
    pub first: Duration,
    /// Later, while nothing that was asked on it is open.
    pub idle: Duration,
    /// Whether it speaks HTTP/1: then the end of a request's head and all that is answered count as
    /// work, and what trickles in does not. With HTTP/2 bytes say nothing: pings flow on a
    /// connection on which nothing is asked.
    pub plain: bool,
}

/// Follows HTTP/1 to where heads end, at an empty line.
#[derive(Debug, Default)]
struct Heads {
    /// Something stood there since the last one ended.
    begun: bool,
    /// Nothing stands in this line.
    empty: bool,
}

impl Heads {
    /// Whether one ends in these bytes.
    fn end_in(&mut self, bytes: &[u8]) -> bool {
        let mut ended = false;
        for byte in bytes {
            match byte {
                b'\n' if self.begun && self.empty => {
                    ended = true;
                    self.begun = false;
                }
                b'\n' => self.empty = true,
                b'\r' => {}
                _ => (self.begun, self.empty) = (true, false),
            }
        }
        ended
    }
}

/// A connection, and who is at its other end.
pub struct Connection {
    stream: Stream,
    caller: Caller,
    activity: Arc<Activity>,
    share: Arc<Share>,
    patience: Patience,
    heard: usize,
    heads: Heads,
    /// Whether the first thing was said that counts.
    opened: bool,
    /// When to look again.
    look: Pin<Box<Sleep>>,
    _place: Place,
}

impl Connection {
    /// Of a stream that was just opened; `place` is given back with it.
    pub(super) fn new(
        stream: Stream,
        caller: Caller,
        patience: Patience,
        place: Place,
        unfinished: &Arc<Unfinished>,
    ) -> Self {
        Self {
            stream,
            caller,
            activity: Activity::new(),
            share: Share::of(unfinished),
            patience,
            heard: 0,
            heads: Heads::default(),
            opened: false,
            look: Box::pin(tokio::time::sleep(patience.first)),
            _place: place,
        }
    }

    /// Where it comes from.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    fn heard(&mut self, bytes: &[u8]) {
        if self.patience.plain {
            if self.heads.end_in(bytes) {
                self.opened = true;
                self.activity.touch();
            }
        } else if !self.opened {
            self.heard = self.heard.saturating_add(bytes.len());
            if self.heard >= PREFACE_BYTES {
                self.opened = true;
                self.activity.touch();
            }
        }
    }

    /// Why it is cut, once it has said nothing for too long.
    fn tired(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        while self.look.as_mut().poll(cx).is_ready() {
            if !self.opened {
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
            share: Arc::clone(&self.share),
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
            self.heard(&buf.filled()[before..]);
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
        if self.patience.plain && written.is_ready() {
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
        if self.patience.plain && written.is_ready() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_at_an_empty_line_behind_something_however_it_is_cut() {
        let requests = b"\r\n\nGET / HTTP/1.1\r\nx: y\r\n\r\nGET / HTTP/1.1\n\n";
        for size in 1..requests.len() {
            let mut heads = Heads::default();
            let pieces = requests.chunks(size);
            let ended = pieces.filter(|piece| heads.end_in(piece)).count();
            // Both in one piece are one sign of work.
            assert!(ended == 2 || size > 16 && ended == 1, "{ended} by {size}");
        }
        let mut heads = Heads::default();
        assert!(!heads.end_in(b"\n\n\n"), "empty lines are nothing");
        assert!(!heads.end_in(b"x: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy"));
    }
}
