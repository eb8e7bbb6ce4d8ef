//! Which node to ask: the leader while it is known and can be reached, else the next endpoint.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use quorate_rpc::NodeError;
use tokio::time::{Instant, timeout_at};

use super::connection::{Connection, Dial};
use super::lane::not_sent;
use super::standing::Standing;

/// How long a node may be silent before others are asked who leads.
pub(super) const SILENCE: Duration = Duration::from_millis(500);

/// Between tries to reach one node: doubled from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// While no leader is known, one connected node is asked for it this often.
const ASK_PAUSE: Duration = Duration::from_millis(500);

/// Addresses learned from the cluster, at most: they are few.
const LEARNED_MAX: usize = 64;

/// Connections by address.
pub(super) struct Pool {
    pub(super) standing: Arc<Standing>,
    endpoints: Vec<String>,
    dial: Dial,
    slots: Mutex<HashMap<String, Arc<Slot>>>,
    /// Counts up; which endpoint is asked while there is no leader to prefer.
    cursor: AtomicUsize,
    asked: Mutex<Option<Instant>>,
}

/// The connection to one address, if there is one.
#[derive(Default)]
struct Slot {
    open: Mutex<Option<Arc<Connection>>>,
    /// Held while connecting, so that callers do not connect side by side.
    pause: tokio::sync::Mutex<Pause>,
}

/// After a node could not be reached.
#[derive(Default)]
struct Pause {
    until: Option<Instant>,
    next: Duration,
}

impl Slot {
    fn open(&self) -> MutexGuard<'_, Option<Arc<Connection>>> {
        self.open
            .lock()
            .expect("nothing panics while it holds the lock")
    }

    fn live(&self) -> Option<Arc<Connection>> {
        self.open().clone().filter(|open| !open.is_closed())
    }
}

impl Pool {
    pub(super) fn new(endpoints: Vec<String>, dial: Dial) -> Self {
        let cursor = fastrand::usize(0..endpoints.len().max(1));
        Self {
            standing: Arc::default(),
            endpoints,
            dial,
            slots: Mutex::default(),
            cursor: AtomicUsize::new(cursor),
            asked: Mutex::default(),
        }
    }

    /// The leader if it is known and can be reached, else any node.
    pub(super) async fn leader(&self, deadline: Instant) -> Result<Arc<Connection>, NodeError> {
        let Some(leader) = self.standing.leader() else {
            let any = self.any(deadline).await?;
            self.ask_for_leader(&any);
            return match self.standing.leader() {
                Some(leader) if leader != any.address => {
                    Ok(self.connection(&leader, deadline).await.unwrap_or(any))
                }
                _ => Ok(any),
            };
        };
        match self.connection(&leader, deadline).await {
            Ok(connection) => Ok(connection),
            Err(_) => {
                self.standing.doubt(&leader);
                self.any(deadline).await
            }
        }
    }

    /// The endpoint at the cursor, or the first after it that can be reached; else a member that
    /// the endpoints have told of.
    pub(super) async fn any(&self, deadline: Instant) -> Result<Arc<Connection>, NodeError> {
        let mut last = not_sent("there is no endpoint");
        for _ in 0..self.endpoints.len() {
            let address = self.endpoint();
            match self.connection(address, deadline).await {
                Ok(connection) => return Ok(connection),
                Err(error) if !error.is_passing() => return Err(error),
                Err(error) => {
                    self.pass_over(address);
                    last = error;
                }
            }
        }
        for address in self.learned() {
            if let Ok(connection) = self.connection(&address, deadline).await {
                return Ok(connection);
            }
        }
        Err(last)
    }

    fn endpoint(&self) -> &str {
        let cursor = self.cursor.load(Ordering::Relaxed);
        &self.endpoints[cursor % self.endpoints.len()]
    }

    /// Members beside the endpoints.
    fn learned(&self) -> Vec<String> {
        let mut learned = self.standing.members();
        learned.retain(|member| !self.endpoints.contains(member));
        learned.truncate(LEARNED_MAX);
        learned
    }

    /// A node has not answered for a while: if it does not even say how it stands, or is behind the
    /// times, and another one leads by now, closes the connection to it.
    pub(super) async fn look_past(&self, silent: &Connection) {
        let Ok(_looking) = silent.looking.try_lock() else {
            return;
        };
        // One that is only slow is asked first: it knows the term, and keeps its connection.
        let _ = tokio::time::timeout(SILENCE, silent.ask_again()).await;
        let others = self.endpoints.iter().cloned().chain(self.learned());
        for address in others.filter(|address| *address != silent.address) {
            let deadline = Instant::now() + self.dial.timeout;
            let Ok(other) = self.connection(&address, deadline).await else {
                continue;
            };
            // Not in time: the next one is asked.
            let _ = timeout_at(deadline, other.ask_again()).await;
            if self.standing.has_moved_on(&silent.address, silent.term()) {
                tracing::info!(
                    address = silent.address,
                    "another node leads, left the silent one"
                );
                return silent.close();
            }
        }
    }

    /// Moves the cursor on if it is at `address`: many callers who fail together move it once.
    fn pass_over(&self, address: &str) {
        let cursor = self.cursor.load(Ordering::Relaxed);
        if self.endpoints[cursor % self.endpoints.len()] == address {
            let next = cursor.wrapping_add(1);
            let relaxed = Ordering::Relaxed;
            // Somebody else has moved it: that is as good.
            let _ = self.cursor.compare_exchange(cursor, next, relaxed, relaxed);
        }
    }

    async fn connection(
        &self,
        address: &str,
        deadline: Instant,
    ) -> Result<Arc<Connection>, NodeError> {
        let slot = self.slot(address);
        if let Some(live) = slot.live() {
            return Ok(live);
        }
        match timeout_at(deadline, self.connect(address, &slot)).await {
            Ok(result) => result,
            Err(_) => Err(not_sent(&format!(
                "the node at {address} was not reached in time"
            ))),
        }
    }

    async fn connect(&self, address: &str, slot: &Slot) -> Result<Arc<Connection>, NodeError> {
        let mut pause = slot.pause.lock().await;
        if let Some(live) = slot.live() {
            return Ok(live);
        }
        pause.check(address)?;
        let opening = Connection::open(address, &self.dial, self.standing.clone());
        // Twice: once to connect, once for the streams and the first word.
        let opened = tokio::time::timeout(self.dial.timeout * 2, opening).await;
        let opened = opened.unwrap_or_else(|_| {
            Err(not_sent(&format!(
                "the node at {address} did not say hello in time"
            )))
        });
        match opened {
            Ok(connection) => {
                *pause = Pause::default();
                let connection = Arc::new(connection);
                *slot.open() = Some(connection.clone());
                Ok(connection)
            }
            Err(error) => {
                pause.lengthen();
                tracing::debug!(address, %error, "cannot connect");
                Err(error)
            }
        }
    }

    fn slot(&self, address: &str) -> Arc<Slot> {
        let mut slots = self
            .slots
            .lock()
            .expect("nothing panics while it holds the lock");
        if slots.len() >= self.endpoints.len() + LEARNED_MAX {
            slots.retain(|address, slot| self.endpoints.contains(address) || slot.live().is_some());
        }
        slots.entry(address.to_owned()).or_default().clone()
    }

    /// Draws conclusions from an error that `connection` gave.
    pub(super) fn learn(&self, connection: &Connection, error: &NodeError) {
        let address = &connection.address;
        match error {
            NodeError::Unavailable {
                leader: Some(leader),
                ..
            } => self.standing.hint(&leader.client_addr),
            NodeError::Unavailable { .. }
            | NodeError::Stopped { .. }
            | NodeError::DeadlineExceeded { .. }
            | NodeError::OutcomeUnknown { .. } => {
                self.standing.doubt(address);
                self.pass_over(address);
            }
            NodeError::TooStale { .. } => self.pass_over(address),
            _ => {}
        }
    }

    /// In the background, and not more often than it helps.
    fn ask_for_leader(&self, connection: &Arc<Connection>) {
        {
            let mut asked = self
                .asked
                .lock()
                .expect("nothing panics while it holds the lock");
            if asked.is_some_and(|asked| asked.elapsed() < ASK_PAUSE) {
                return;
            }
            *asked = Some(Instant::now());
        }
        let connection = connection.clone();
        tokio::spawn(async move { connection.ask_again().await });
    }
}

impl Pause {
    fn check(&self, address: &str) -> Result<(), NodeError> {
        let now = Instant::now();
        match self.until {
            Some(until) if until > now => Err(NodeError::Unavailable {
                message: format!("the node at {address} could not be reached a moment ago"),
                retry_after_ms: u64::try_from((until - now).as_millis()).unwrap_or(u64::MAX),
                leader: None,
            }),
            _ => Ok(()),
        }
    }

    fn lengthen(&mut self) {
        self.next = (self.next * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        self.until = Some(Instant::now() + self.next.mul_f64(0.5 + fastrand::f64() / 2.0));
    }
}
