//! How much is held of messages that are not whole yet.
//!
//! A message is decoded when all of it is there, and may be large. With as many streams as a
//! connection has and as many connections as there are, whoever begins messages and does not end
//! them could make a node hold all of its memory. So what has come of such messages is counted for
//! each port. Over the bound, who holds more than an equal share of it is refused: those who send
//! little, and end what they begin, are never among them.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;
use tonic::Status;
use tonic::body::Body;

/// Bytes of messages that are not whole, at one port. Five of the largest at a time; with shares
/// that may be reached once more it is at most twice as much.
const BYTES_MAX: usize = 128 << 20;

/// Before each message of gRPC: whether it is compressed, and its length.
const HEAD_BYTES: usize = 5;

/// What is held at a port.
#[derive(Debug, Default)]
pub struct Unfinished {
    bytes: AtomicUsize,
    /// Connections that have a part in it.
    holders: AtomicUsize,
}

/// What one connection has in it.
#[derive(Debug)]
pub struct Share {
    all: Arc<Unfinished>,
    bytes: AtomicUsize,
}

impl Share {
    /// Of a new connection.
    pub fn of(all: &Arc<Unfinished>) -> Arc<Self> {
        Arc::new(Self {
            all: Arc::clone(all),
            bytes: AtomicUsize::new(0),
        })
    }

    /// Takes `more` in. Refused if that is too much, and too much of it this connection's; it has
    /// to be given back all the same.
    fn take(&self, more: usize) -> Result<(), String> {
        let own = self.bytes.fetch_add(more, Ordering::Relaxed) + more;
        if own == more {
            self.all.holders.fetch_add(1, Ordering::Relaxed);
        }
        let all = self.all.bytes.fetch_add(more, Ordering::Relaxed) + more;
        let fair = BYTES_MAX / self.all.holders.load(Ordering::Relaxed).max(1);
        if all > BYTES_MAX && own > fair {
            return Err(format!(
                "{all} bytes of messages that are not whole are held, limit {BYTES_MAX}, and \
                 {own} of them are of this connection; end what you begin, or send less at a time"
            ));
        }
        Ok(())
    }

    fn give_back(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        if self.bytes.fetch_sub(bytes, Ordering::Relaxed) == bytes {
            self.all.holders.fetch_sub(1, Ordering::Relaxed);
        }
        self.all.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The body of a request, whose messages are counted until they are whole.
pub struct Counting {
    body: Body,
    share: Arc<Share>,
    message: Message,
    /// What this body has of the share.
    taken: usize,
}

/// A message on its way.
#[derive(Debug, Default)]
struct Message {
    head: [u8; HEAD_BYTES],
    /// Bytes of the head that are there.
    head_bytes: usize,
    /// Bytes that are still to come.
    left: usize,
    /// Bytes that are there.
    held: usize,
}

impl Message {
    /// Goes on with what has come. What is whole is not held any more.
    fn hear(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.head_bytes < HEAD_BYTES {
                let (some, rest) = bytes.split_at(bytes.len().min(HEAD_BYTES - self.head_bytes));
                self.head[self.head_bytes..][..some.len()].copy_from_slice(some);
                self.head_bytes += some.len();
                bytes = rest;
                let [_, length @ ..] = self.head;
                self.left = u32::from_be_bytes(length) as usize;
            } else {
                let some = bytes.len().min(self.left);
                self.left -= some;
                self.held += some;
                bytes = &bytes[some..];
            }
            if self.head_bytes == HEAD_BYTES && self.left == 0 {
                *self = Self::default();
            }
        }
    }
}

impl Counting {
    /// Counts the messages of `body` for a connection.
    pub fn new(body: Body, share: Arc<Share>) -> Self {
        Self {
            body,
            share,
            message: Message::default(),
            taken: 0,
        }
    }

    fn hear(&mut self, bytes: &[u8]) -> Result<(), Status> {
        self.message.hear(bytes);
        let (before, now) = (self.taken, self.message.held);
        self.taken = now;
        match now.checked_sub(before) {
            Some(0) => Ok(()),
            Some(more) => self.share.take(more).map_err(Status::resource_exhausted),
            None => {
                self.share.give_back(before - now);
                Ok(())
            }
        }
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.share.give_back(self.taken);
    }
}

impl tonic::codegen::Body for Counting {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(bytes) = frame.data_ref()
            && let Err(refused) = self.hear(bytes)
        {
            return Poll::Ready(Some(Err(refused)));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: usize) -> Vec<u8> {
        let head = (length as u32).to_be_bytes();
        [&[0], &head[..], &vec![7; length]].concat()
    }

    #[test]
    fn only_what_is_not_whole_is_held_however_it_is_cut() {
        let bytes = [message(3), message(0), message(700), message(40)].concat();
        for size in 1..bytes.len() {
            let mut heard = Message::default();
            bytes.chunks(size).for_each(|piece| heard.hear(piece));
            assert_eq!((heard.held, heard.head_bytes), (0, 0), "pieces of {size}");
        }
        let mut heard = Message::default();
        heard.hear(&bytes[..bytes.len() - 1]);
        assert_eq!((heard.held, heard.left), (39, 1));
    }

    #[test]
    fn who_holds_too_much_is_refused_and_who_holds_little_is_not() {
        let all = Arc::new(Unfinished::default());
        let (greedy, modest) = (Share::of(&all), Share::of(&all));
        greedy.take(BYTES_MAX - 10).expect("alone, it has all");
        modest.take(1 << 20).expect("less than half");
        let refused = greedy.take(20).expect_err("more than half");
        assert!(refused.contains("limit 134217728"), "{refused}");
        modest.take(1 << 20).expect("still less than half");
        greedy.give_back(BYTES_MAX + 10);
        modest.give_back(2 << 20);
        assert_eq!(all.bytes.load(Ordering::Relaxed), 0);
        assert_eq!(all.holders.load(Ordering::Relaxed), 0);
    }
}
