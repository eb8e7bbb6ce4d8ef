//! Whether a connection is at work: what is asked on it, and when that was last.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tonic::body::Body as RequestBody;
use tonic::codegen::{Body, Service, http};
use tower::Layer;

use super::caller::Caller;
use super::unfinished::{Counting, Share};

/// What a connection does.
#[derive(Debug)]
pub struct Activity {
    started: Instant,
    /// Requests that are not over; a stream is one until it ends.
    open: AtomicU32,
    /// When the last one ended or the last bytes came, in milliseconds after the start.
    last_ms: AtomicU64,
}

impl Activity {
    /// Of a connection that begins now.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            open: AtomicU32::new(0),
            last_ms: AtomicU64::new(0),
        })
    }

    /// Something is done on it now.
    pub fn touch(&self) {
        let ms = self.started.elapsed().as_millis();
        let ms = u64::try_from(ms).unwrap_or(u64::MAX);
        self.last_ms.store(ms, Ordering::Relaxed);
    }

    /// For how long nothing was asked on it; zero while something is.
    pub fn idle(&self) -> Duration {
        if self.open.load(Ordering::Relaxed) > 0 {
            return Duration::ZERO;
        }
        let last = Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(last)
    }
}

/// A request that is not over.
struct Open(Arc<Activity>);

impl Open {
    fn new(activity: Arc<Activity>) -> Self {
        activity.open.fetch_add(1, Ordering::Relaxed);
        Self(activity)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.touch();
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a connection tells the requests that come by it.
#[derive(Debug, Clone)]
pub struct ConnectionInfo {
    /// Who is at its other end.
    pub caller: Caller,
    /// What is done on it.
    pub activity: Arc<Activity>,
    /// What is held of its messages.
    pub share: Arc<Share>,
}

/// Counts the requests of each connection and what is held of their messages, and gives each
/// request its [`Caller`].
#[derive(Debug, Clone, Copy)]
pub struct Requests;

impl<S> Layer<S> for Requests {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted(inner)
    }
}

/// A service whose requests are counted.
#[derive(Debug, Clone)]
pub struct Counted<S>(S);

impl<S, Out> Service<http::Request<RequestBody>> for Counted<S>
where
    S: Service<http::Request<RequestBody>, Response = http::Response<Out>>,
    S::Future: Send + 'static,
{
    type Response = http::Response<CountedBody<Out>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<RequestBody>) -> Self::Future {
        let mut open = None;
        if let Some(info) = request.extensions_mut().remove::<ConnectionInfo>() {
            request.extensions_mut().insert(info.caller);
            open = Some(Open::new(info.activity));
            let counting = |body| RequestBody::new(Counting::new(body, info.share));
            request = request.map(counting);
        }
        let answer = self.0.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            Ok(answer.map(|body| CountedBody { body, _open: open }))
        })
    }
}

/// A body whose request is open until it is dropped.
pub struct CountedBody<B> {
    body: B,
    _open: Option<Open>,
}

impl<B: Body<Data = Bytes> + Unpin> Body for CountedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
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

    #[test]
    fn a_connection_is_idle_from_the_end_of_its_last_request() {
        let activity = Activity::new();
        let open = Open::new(Arc::clone(&activity));
        let other = Open::new(Arc::clone(&activity));
        drop(open);
        assert_eq!(activity.idle(), Duration::ZERO, "one is open");
        drop(other);
        assert!(activity.idle() <= activity.started.elapsed());
        assert_eq!(activity.open.load(Ordering::Relaxed), 0);
    }
}
