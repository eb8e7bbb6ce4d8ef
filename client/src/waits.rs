//! The waits of one client for things of one kind, and the one watch that serves them all.
//!
//! A wait costs no stream of its own: a call is entered here before the state is read, and while
//! the stream was registered at or before the log index of what was read, nothing can be missed.
//! When the stream is lost, every call is told to look at the state.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use quorate_statemachine::notice::Notice;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout_at};

use crate::client::Client;
use crate::retry::Backoff;
use crate::transport::WatchWhat;
use crate::watch::{Next, Watch};

/// The stream outlives the last wait for so long.
const IDLE: Duration = Duration::from_secs(30);

/// What is waited for.
pub(crate) trait Topic: Send + Sync + 'static {
    /// One thing.
    type Key: Clone + Eq + Hash + Send + Sync + 'static;
    /// What happens to it.
    type Event: Clone + Send + Sync + 'static;

    /// The watch that tells of all of them.
    fn watch(&self) -> WatchWhat;

    /// What a notice says, and of which.
    fn read(notice: Notice) -> Option<(Self::Key, Self::Event)>;
}

/// What a call hears.
#[derive(Debug, Clone)]
pub(crate) enum Heard<E> {
    /// Something happened.
    Event(E),
    /// Notices were lost: look at the state once the watch is registered again.
    Lost,
}

/// See the module.
pub(crate) struct Waits<T: Topic> {
    topic: T,
    inner: Mutex<Inner<T>>,
    /// The log index at which the stream was registered; none while there is no stream.
    registered: watch::Sender<Option<u64>>,
}

struct Inner<T: Topic> {
    next: u64,
    calls: HashMap<T::Key, Vec<Entered<T::Event>>>,
    /// Whether a task serves them.
    served: bool,
}

struct Entered<E> {
    number: u64,
    sender: mpsc::UnboundedSender<Heard<E>>,
}

/// One wait. Dropping it ends its notices.
pub(crate) struct Call<T: Topic> {
    waits: Arc<Waits<T>>,
    key: T::Key,
    number: u64,
    heard: mpsc::UnboundedReceiver<Heard<T::Event>>,
}

impl<T: Topic> Waits<T> {
    pub(crate) fn new(topic: T) -> Self {
        Self {
            topic,
            inner: Mutex::new(Inner {
                next: 0,
                calls: HashMap::new(),
                served: false,
            }),
            registered: watch::Sender::new(None),
        }
    }

    pub(crate) fn topic(&self) -> &T {
        &self.topic
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner
            .lock()
            .expect("nothing panics while it holds the lock")
    }

    /// Enters a wait.
    pub(crate) fn enter(self: &Arc<Self>, key: T::Key) -> Call<T> {
        let (sender, heard) = mpsc::unbounded_channel();
        let mut inner = self.lock();
        let number = inner.next;
        inner.next += 1;
        let calls = inner.calls.entry(key.clone()).or_default();
        calls.push(Entered { number, sender });
        Call {
            waits: self.clone(),
            key,
            number,
            heard,
        }
    }

    /// Has a task serve the calls, if none does.
    fn start(self: &Arc<Self>, client: &Client) {
        let mut inner = self.lock();
        if !inner.served {
            inner.served = true;
            tokio::spawn(serve(Serving(self.clone()), client.clone()));
        }
    }

    fn route(&self, notice: Notice) {
        let Some((key, event)) = T::read(notice) else {
            return;
        };
        for call in self.lock().calls.get(&key).into_iter().flatten() {
            // A call that has just gone needs it no more.
            let _ = call.sender.send(Heard::Event(event.clone()));
        }
    }

    fn lost(&self) {
        self.registered.send_replace(None);
        for call in self.lock().calls.values().flatten() {
            let _ = call.sender.send(Heard::Lost);
        }
    }

    /// Ends the serving if there is nobody to serve.
    fn is_done(&self) -> bool {
        let mut inner = self.lock();
        if !inner.calls.is_empty() {
            return false;
        }
        inner.served = false;
        self.registered.send_replace(None);
        true
    }
}

/// The task that serves. However it ends, with its runtime too, another one can begin.
struct Serving<T: Topic>(Arc<Waits<T>>);

impl<T: Topic> Drop for Serving<T> {
    fn drop(&mut self) {
        self.0.lock().served = false;
        self.0.lost();
    }
}

/// Keeps the stream, and hands its notices to the calls that they are for.
async fn serve<T: Topic>(serving: Serving<T>, client: Client) {
    let waits = &serving.0;
    let mut watch = Watch::new(client.clone(), waits.topic.watch());
    let mut backoff = Backoff::new();
    while !waits.is_done() {
        match watch.register(client.deadline()).await {
            Ok(index) => drop(waits.registered.send_replace(Some(index))),
            Err(error) => {
                tracing::debug!(%error, "no node serves the waits of this client");
                sleep(backoff.next_delay()).await;
                continue;
            }
        }
        backoff = Backoff::new();
        loop {
            match watch.next(Instant::now() + IDLE).await {
                Next::Notices(notices) => notices.into_iter().for_each(|it| waits.route(it)),
                Next::Lost => {
                    waits.lost();
                    break;
                }
                Next::TooLate if waits.is_done() => return,
                Next::TooLate => {}
            }
        }
    }
}

impl<T: Topic> Call<T> {
    /// What is waited for.
    pub(crate) fn key(&self) -> &T::Key {
        &self.key
    }

    /// Waits until the stream is registered, and says at which log index it was. None when it is
    /// not by the deadline.
    pub(crate) async fn registered(&self, client: &Client, deadline: Instant) -> Option<u64> {
        self.waits.start(client);
        let mut registered = self.waits.registered.subscribe();
        let index = timeout_at(deadline, registered.wait_for(Option::is_some)).await;
        index.ok()?.ok().and_then(|index| *index)
    }

    /// What is heard next; none when nothing was by the deadline.
    pub(crate) async fn next(&mut self, deadline: Instant) -> Option<Heard<T::Event>> {
        timeout_at(deadline, self.heard.recv()).await.ok().flatten()
    }

    /// Forgets what was heard, since the state is read anyway.
    pub(crate) fn forget(&mut self) {
        while self.heard.try_recv().is_ok() {}
    }
}

impl<T: Topic> Drop for Call<T> {
    fn drop(&mut self) {
        let mut inner = self.waits.lock();
        if let Some(calls) = inner.calls.get_mut(&self.key) {
            calls.retain(|call| call.number != self.number);
            if calls.is_empty() {
                inner.calls.remove(&self.key);
            }
        }
    }
}
