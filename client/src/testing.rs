//! An in-memory cluster of one, for tests: the real state machine behind the [`Transport`] seam.
//!
//! Cluster time is tokio's clock, so a test with paused time decides when a lease ends. Faults are
//! scripted: [`MemoryTransport::fail_next`] for single tries, [`MemoryTransport::set_down`] for a
//! cluster that does not answer, and watches can be broken or made to lag.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use quorate_rpc::NodeError;
use quorate_statemachine::notice::Notice;
use quorate_statemachine::view::MemoryView;
use quorate_statemachine::{
    Action, Command, Entry, InvalidArgument, Principal, Query, Reply, Timestamp, apply, cluster,
    query,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use crate::transport::{
    Answered, ExecuteOptions, Executed, ReadOptions, Transport, WatchEvent, WatchWhat,
};

/// Cluster time at the start: far from 0, so that nothing passes by being small.
const EPOCH_MS: u64 = 1_700_000_000_000;

/// Notices a watcher may leave unread before it lags.
const WATCH_BUFFER: usize = 64;

/// What happens to one try of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Executed, and then the reply is lost: outcome unknown.
    LoseReply,
    /// Not executed: there is no leader.
    NoLeader,
    /// Not executed, and no answer before the deadline.
    Hang,
    /// Executed after this long.
    Delay(Duration),
    /// Not executed, and said after this long: there is no leader.
    Refuse(Duration),
}

/// The cluster. Clones are the same one.
#[derive(Debug, Clone)]
pub struct MemoryTransport {
    inner: Arc<Mutex<Inner>>,
    started: Instant,
}

#[derive(Debug, Default)]
struct Inner {
    view: MemoryView,
    index: u64,
    faults: VecDeque<Fault>,
    down: bool,
    tries: Vec<Bytes>,
    watchers: Vec<Watcher>,
}

#[derive(Debug)]
struct Watcher {
    what: WatchWhat,
    events: mpsc::Sender<WatchEvent>,
}

impl Default for MemoryTransport {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryTransport {
    /// An empty cluster.
    #[must_use]
    pub fn new() -> Self {
        Self {
            inner: Arc::default(),
            started: Instant::now(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner
            .lock()
            .expect("nothing panics while it holds the lock")
    }

    /// Scripts what happens to the next tries, in order.
    pub fn fail_next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.lock().faults.extend(faults);
    }

    /// While down, nothing is executed or read: every try is told that there is no leader.
    pub fn set_down(&self, down: bool) {
        self.lock().down = down;
    }

    /// The bytes of every try so far, answered or not.
    #[must_use]
    pub fn tries(&self) -> Vec<Bytes> {
        self.lock().tries.clone()
    }

    /// Watches that are registered now.
    #[must_use]
    pub fn watches(&self) -> usize {
        let mut inner = self.lock();
        inner.watchers.retain(|watcher| !watcher.events.is_closed());
        inner.watchers.len()
    }

    /// Ends every watch, as a lost connection does.
    pub fn break_watches(&self) {
        self.lock().watchers.clear();
    }

    /// Tells every watch that it lost notices, and ends it.
    pub fn lag_watches(&self) {
        for watcher in self.lock().watchers.drain(..) {
            // A watcher that reads nothing has no room for this either; its end says as much.
            let _ = watcher
                .events
                .try_send(WatchEvent::Lagged { resume_from: 0 });
        }
    }

    /// Lets the sweep come by, as the leader's tick does.
    pub fn tick(&self) {
        let tick = Command::from(Action::Cluster(cluster::Command::Tick(cluster::Tick {})));
        self.apply(&tick.encode());
    }

    /// Cluster time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let elapsed = self.started.elapsed().as_millis();
        Timestamp(EPOCH_MS + u64::try_from(elapsed).expect("a test ends before the end of time"))
    }

    /// Appends an entry and applies it.
    fn apply(&self, command: &[u8]) -> Executed {
        let proposed_at = self.now();
        let mut inner = self.lock();
        let index = inner.index + 1;
        let entry = Entry {
            index,
            proposed_at,
            command,
            principal: Principal::Anonymous,
        };
        let applied = apply(&inner.view, entry).expect("the command was checked at the border");
        inner.index = index;
        inner.view.commit(applied.changes);
        inner.publish(index, &applied.notices);
        Executed {
            index,
            reply: applied.reply,
        }
    }

    /// What a node does at its border, and then the entry.
    fn propose(&self, command: &[u8]) -> Executed {
        match Command::decode(command) {
            Ok(_) => self.apply(command),
            Err(invalid) => Executed {
                index: 0,
                reply: Reply(Err(invalid.into())),
            },
        }
    }

    async fn execute_once(
        &self,
        command: Bytes,
        options: ExecuteOptions,
    ) -> Result<Executed, NodeError> {
        let fault = {
            let mut inner = self.lock();
            inner.tries.push(command.clone());
            if inner.down {
                return Err(no_leader());
            }
            inner.faults.pop_front()
        };
        match fault {
            None => Ok(self.propose(&command)),
            Some(Fault::LoseReply) => {
                self.propose(&command);
                Err(NodeError::OutcomeUnknown {
                    message: "the connection was lost".to_owned(),
                })
            }
            Some(Fault::NoLeader) => Err(no_leader()),
            Some(Fault::Hang) => {
                sleep_until(options.deadline).await;
                Err(NodeError::DeadlineExceeded {
                    message: "no answer".to_owned(),
                })
            }
            Some(Fault::Delay(delay)) => {
                sleep(delay).await;
                Ok(self.propose(&command))
            }
            Some(Fault::Refuse(delay)) => {
                sleep(delay).await;
                Err(no_leader())
            }
        }
    }

    fn read_once(&self, bytes: &[u8], options: ReadOptions) -> Result<Answered, NodeError> {
        let asked = Query::decode(bytes)?;
        let now = self.now();
        let inner = self.lock();
        if inner.down {
            return Err(no_leader());
        }
        if options.min_index > inner.index {
            return Err(NodeError::DeadlineExceeded {
                message: format!("index {} is not applied", options.min_index),
            });
        }
        let answer =
            query::query(&inner.view, now, &asked).map_err(|broken| NodeError::Stopped {
                message: broken.to_string(),
            })?;
        Ok(Answered {
            index: inner.index,
            now,
            answer,
        })
    }

    fn register(&self, what: WatchWhat) -> Result<BoxStream<'static, WatchEvent>, NodeError> {
        let mut inner = self.lock();
        if inner.down {
            return Err(no_leader());
        }
        let (events, stream) = mpsc::channel(WATCH_BUFFER);
        let registered = WatchEvent::Registered { index: inner.index };
        events
            .try_send(registered)
            .map_err(|_| InvalidArgument::new("watch", "has no buffer", "1", "0"))?;
        inner.watchers.push(Watcher { what, events });
        let next = |mut stream: mpsc::Receiver<_>| async move {
            stream.recv().await.map(|event| (event, stream))
        };
        Ok(futures::stream::unfold(stream, next).boxed())
    }
}

impl Inner {
    fn publish(&mut self, index: u64, notices: &[Notice]) {
        self.watchers.retain(|watcher| {
            let wanted: Vec<Notice> = notices
                .iter()
                .filter(|notice| watcher.what.matches(notice))
                .cloned()
                .collect();
            if wanted.is_empty() {
                return !watcher.events.is_closed();
            }
            let notices = WatchEvent::Notices {
                index,
                notices: wanted,
            };
            watcher.events.try_send(notices).is_ok()
        });
    }
}

fn no_leader() -> NodeError {
    NodeError::Unavailable {
        message: "there is no leader".to_owned(),
        retry_after_ms: 1,
        leader: None,
    }
}

impl Transport for MemoryTransport {
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
        std::future::ready(self.read_once(&query, options)).boxed()
    }

    fn watch(
        &self,
        what: WatchWhat,
        _from_index: u64,
    ) -> BoxFuture<'_, Result<BoxStream<'static, WatchEvent>, NodeError>> {
        std::future::ready(self.register(what)).boxed()
    }

    fn seen_index(&self) -> u64 {
        self.lock().index
    }
}
