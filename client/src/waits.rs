//! The waits for locks of one client, and the one watch that serves them all.
//!
//! Acquisitions of a client share the first half of their ids, and one stream brings the notices of
//! all of them, so that a wait costs no stream and no read of its own: a call is entered here
//! before its command is sent, and while the stream was registered at or before the command's log
//! index, nothing of it can be missed. When the stream is lost, every call is told to look at the
//! state.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use quorate_statemachine::FencingToken;
use quorate_statemachine::lock::End;
use quorate_statemachine::notice::Notice;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout_at};

use crate::client::Client;
use crate::retry::Backoff;
use crate::transport::WatchWhat;
use crate::watch::{Next, Watch};

/// The stream outlives the last wait for so long.
const IDLE: Duration = Duration::from_secs(30);

/// What happened to an acquisition.
#[derive(Debug)]
pub(crate) enum Event {
    /// It holds the lock.
    Granted(FencingToken),
    /// It is over.
    Over(End),
    /// Notices were lost: look at the state once the watch is registered again.
    Lost,
}

/// See the module.
pub(crate) struct Waits {
    session: [u8; 8],
    next: AtomicU64,
    inner: Mutex<Inner>,
    /// The log index at which the stream was registered; none while there is no stream.
    registered: watch::Sender<Option<u64>>,
}

#[derive(Default)]
struct Inner {
    calls: HashMap<[u8; 16], mpsc::UnboundedSender<Event>>,
    /// Whether a task serves them.
    served: bool,
}

/// One acquisition that may wait. Dropping it ends its notices.
pub(crate) struct Call {
    waits: Arc<Waits>,
    id: [u8; 16],
    events: mpsc::UnboundedReceiver<Event>,
}

impl Waits {
    pub(crate) fn new() -> Self {
        Self {
            session: fastrand::u64(..).to_be_bytes(),
            next: AtomicU64::new(fastrand::u64(..)),
            inner: Mutex::default(),
            registered: watch::Sender::new(None),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner
            .lock()
            .expect("nothing panics while it holds the lock")
    }

    /// Enters an acquisition, with an id that was never used.
    pub(crate) fn enter(self: &Arc<Self>) -> Call {
        let number = self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.session);
        id[8..].copy_from_slice(&number);
        // A call hears of its grant, its end, and of streams that were lost meanwhile.
        let (sender, events) = mpsc::unbounded_channel();
        self.lock().calls.insert(id, sender);
        Call {
            waits: self.clone(),
            id,
            events,
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
        let (id, event) = match notice {
            Notice::LockGranted {
                id, fencing_token, ..
            } => (id, Event::Granted(fencing_token)),
            Notice::LockLeft { id, end, .. } => (id, Event::Over(end)),
            _ => return,
        };
        if let Some(call) = self.lock().calls.get(&id) {
            // A call that has just gone needs it no more.
            let _ = call.send(event);
        }
    }

    fn lost(&self) {
        self.registered.send_replace(None);
        for call in self.lock().calls.values() {
            let _ = call.send(Event::Lost);
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
struct Serving(Arc<Waits>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.lock().served = false;
        self.0.lost();
    }
}

/// Keeps the stream, and hands its notices to the calls that they are for.
async fn serve(serving: Serving, client: Client) {
    let waits = &serving.0;
    let what = WatchWhat::LockAcquisitions(waits.session);
    let mut watch = Watch::new(client.clone(), what);
    let mut backoff = Backoff::new();
    while !waits.is_done() {
        match watch.register(client.deadline()).await {
            Ok(index) => drop(waits.registered.send_replace(Some(index))),
            Err(error) => {
                tracing::debug!(%error, "no node watches the acquisitions of this client");
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

impl Call {
    /// The acquisition.
    pub(crate) fn id(&self) -> [u8; 16] {
        self.id
    }

    /// Waits until the stream is registered, and says at which log index it was. None when it is
    /// not by the deadline.
    pub(crate) async fn registered(&self, client: &Client, deadline: Instant) -> Option<u64> {
        self.waits.start(client);
        let mut registered = self.waits.registered.subscribe();
        let index = timeout_at(deadline, registered.wait_for(Option::is_some)).await;
        index.ok()?.ok().and_then(|index| *index)
    }

    /// What happens next; none when nothing did by the deadline.
    pub(crate) async fn next(&mut self, deadline: Instant) -> Option<Event> {
        timeout_at(deadline, self.events.recv())
            .await
            .ok()
            .flatten()
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.waits.lock().calls.remove(&self.id);
    }
}
