//! Concurrent writers that keep account of every operation. Bounded in rate, count and time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use quorate_client::{Client, ClientError, DEFAULT_TIMEOUT, QueueClient};
use quorate_statemachine::lease::{self, Claim, SameOwner};
use quorate_statemachine::process::Append;
use quorate_statemachine::queue::Outcome as ItemOutcome;
use quorate_statemachine::{LeaseToken, Name, Owner, Precondition};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::wait::{PATIENCE, until};
use quorate_histories::history::{
    Appended, Claimed, History, Outcome, Pushed, Settled, Span, Taken,
};

/// Prefix of keys that are claimed once and kept.
pub const HELD: &str = "held/";

/// Prefix of keys that the writers take from each other, and of the processes that they guard.
pub const SHARED: &str = "shared/";

/// Prefix of processes to which everybody appends.
pub const LOG: &str = "log/";

/// The queue.
pub const QUEUE: &str = "jobs";

/// Shared keys and common processes: few, so that writers meet.
pub const SHARED_COUNT: usize = 4;

const HELD_TTL: Duration = Duration::from_secs(3_600);
const SHARED_TTL: Duration = Duration::from_secs(4);
const VISIBILITY: Duration = Duration::from_secs(4);

/// Each writer does at most one round in this time: 16 writers then ask for about 1,600 writes a
/// second, which two cores can do for three nodes and the writers.
const PACE: Duration = Duration::from_millis(12);

/// Rounds of one writer at most: a minute and a half.
const ROUNDS_MAX: u64 = 7_500;

/// Writers at work.
pub struct Load {
    writers: JoinSet<Result<History, ClientError>>,
    stop: CancellationToken,
    acknowledged: Arc<AtomicU64>,
}

impl Load {
    /// Starts `writers` writers, each with a connection of its own to the nodes at `endpoints`.
    pub async fn start(endpoints: &[String], writers: usize) -> Result<Self> {
        Self::start_within(endpoints, writers, DEFAULT_TIMEOUT).await
    }

    /// The same, each operation with this deadline.
    pub async fn start_within(
        endpoints: &[String],
        writers: usize,
        timeout: Duration,
    ) -> Result<Self> {
        let (stop, acknowledged) = (CancellationToken::new(), Arc::new(AtomicU64::new(0)));
        let client = Client::connect(endpoints.to_vec())?;
        for number in 0..SHARED_COUNT {
            client
                .process(format!("{LOG}{number}"))?
                .register("")
                .await?;
            client
                .process(format!("{SHARED}{number}"))?
                .register("")
                .await?;
        }
        let mut set = JoinSet::new();
        for number in 0..writers {
            let client = Client::connect(endpoints.to_vec())?.with_timeout(timeout);
            let writer = Writer::new(number, client, Arc::clone(&acknowledged))?;
            set.spawn(writer.run(stop.clone()));
        }
        Ok(Self {
            writers: set,
            stop,
            acknowledged,
        })
    }

    /// Writes acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until `count` more writes were acknowledged. Fails after `limit`, or when the writers
    /// have come to the end of their rounds.
    pub async fn more(&self, count: u64, limit: Duration) -> Result<()> {
        let wanted = self.acknowledged() + count;
        let what = format!("{count} more acknowledged writes");
        until(&what, limit, async || {
            Ok((self.acknowledged() >= wanted).then_some(()))
        })
        .await?;
        ensure!(!self.stop.is_cancelled(), "the load is over");
        Ok(())
    }

    /// Stops the writers, waits for the answers that are under way, and returns the account.
    pub async fn finish(mut self) -> Result<History> {
        self.stop.cancel();
        let mut history = History::default();
        let deadline = Instant::now() + PATIENCE;
        loop {
            match tokio::time::timeout_at(deadline, self.writers.join_next()).await {
                Ok(Some(writer)) => history.merge(writer??),
                Ok(None) => return Ok(history),
                Err(_) => bail!("a writer has not come to an end in {PATIENCE:?}"),
            }
        }
    }
}

struct Writer {
    number: usize,
    round: u64,
    client: Client,
    queue: QueueClient,
    owner: Owner,
    random: fastrand::Rng,
    history: History,
    acknowledged: Arc<AtomicU64>,
}

impl Writer {
    fn new(number: usize, client: Client, acknowledged: Arc<AtomicU64>) -> Result<Self> {
        let name = Name::parse("owner", format!("writer-{number}"))?;
        let owner = Owner::new(name.clone(), name);
        let queue = client
            .queue(QUEUE)?
            .with_owner(owner.clone())
            .with_visibility(VISIBILITY);
        Ok(Self {
            number,
            round: 0,
            client,
            queue,
            owner,
            random: fastrand::Rng::with_seed(number as u64),
            history: History::default(),
            acknowledged,
        })
    }

    async fn run(mut self, stop: CancellationToken) -> Result<History, ClientError> {
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.round < ROUNDS_MAX && !stop.is_cancelled() {
            pace.tick().await;
            self.round += 1;
            let before = self.history.acknowledged.len();
            match self.random.u8(0..10) {
                0..3 => self.hold().await?,
                3..5 => self.share().await?,
                5..7 => self.append().await?,
                7..9 => self.push().await?,
                _ => self.work().await?,
            }
            let more = self.history.acknowledged.len() - before;
            self.acknowledged.fetch_add(more as u64, Ordering::Relaxed);
        }
        Ok(self.history)
    }

    fn unique(&self) -> String {
        format!("{}-{}", self.number, self.round)
    }

    fn shared(&mut self) -> usize {
        self.random.usize(0..SHARED_COUNT)
    }

    /// Claims a key of its own and keeps it.
    async fn hold(&mut self) -> Result<(), ClientError> {
        let key = format!("{HELD}{}", self.unique());
        self.claim(key, HELD_TTL).await.map(drop)
    }

    async fn claim(&mut self, key: String, ttl: Duration) -> Result<Option<u64>, ClientError> {
        let lease_token = LeaseToken::parse(format!("{key}#{}", self.unique()))?;
        let claim = Claim {
            key: Name::parse("key", key.clone())?,
            owner: self.owner.clone(),
            lease_token: lease_token.clone(),
            ttl_ms: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX),
            same_owner: SameOwner::Busy,
            metadata: Vec::new(),
        };
        let sent = Instant::now();
        let outcome = Outcome::of(self.client.execute(claim).await);
        let outcome = outcome.map(|claimed| match claimed {
            lease::Claimed::Granted(lease) => Some(lease.fencing_token),
            lease::Claimed::Busy(_) => None,
        });
        self.history.note("claim", &outcome);
        let token = outcome.done().copied().flatten();
        self.history.claims.push(Claimed {
            key,
            lease_token,
            outcome,
            span: Span::since(sent),
            // What the client's guard goes by: nine tenths and a half, for a slewing clock.
            held_until: sent + ttl.mul_f64(0.95),
        });
        Ok(token)
    }

    /// Takes a shared key, writes under its fencing token, and gives it back.
    async fn share(&mut self) -> Result<(), ClientError> {
        let name = format!("{SHARED}{}", self.shared());
        let Some(token) = self.claim(name.clone(), SHARED_TTL).await? else {
            return Ok(());
        };
        let key = Name::parse("key", name.clone())?;
        let payload = format!("{}:{token}", self.unique());
        let event_type = Name::parse("event_type", "guarded")?;
        let append = Append::new(key.clone(), event_type, payload.clone().into_bytes());
        let guard = Precondition::Lease {
            key: key.clone(),
            token,
        };
        let sent = Instant::now();
        let outcome = Outcome::of(self.client.execute_under(append, vec![guard]).await);
        self.appended(
            name,
            payload,
            sent,
            outcome.map(|appended| appended.sequence),
        );
        let Some(claim) = self.history.claims.last_mut() else {
            return Ok(());
        };
        claim.held_until = claim.held_until.min(Instant::now());
        let lease_token = claim.lease_token.clone();
        let released = self.client.lease_release(&key, &lease_token, token).await;
        self.history.note("release", &Outcome::of(released));
        Ok(())
    }

    fn appended(&mut self, process: String, payload: String, sent: Instant, outcome: Outcome<u64>) {
        self.history.note("append", &outcome);
        self.history.appends.push(Appended {
            process,
            payload,
            outcome,
            span: Span::since(sent),
        });
    }

    /// Appends an event, half of them with a key of their own.
    async fn append(&mut self) -> Result<(), ClientError> {
        let id = format!("{LOG}{}", self.shared());
        let payload = self.unique();
        let key = Name::parse("key", payload.clone())?;
        let key = self.random.bool().then_some(&key);
        let event_type = Name::parse("event_type", "noted")?;
        let process = self.client.process(id.clone())?;
        let sent = Instant::now();
        let outcome = Outcome::of(process.append(&event_type, key, payload.clone()).await);
        self.appended(id, payload, sent, outcome.map(|appended| appended.sequence));
        Ok(())
    }

    /// Pushes an item, half of them with a key of their own.
    async fn push(&mut self) -> Result<(), ClientError> {
        let payload = self.unique();
        let mut push = self.queue.push(payload.clone());
        if self.random.bool() {
            push = push.dedupe_key(payload.clone());
        }
        let sent = Instant::now();
        let outcome = Outcome::of(push.send().await).map(|pushed| pushed.item_id);
        self.history.note("push", &outcome);
        self.history.pushes.push(Pushed {
            payload,
            outcome,
            span: Span::since(sent),
        });
        Ok(())
    }

    /// Takes a few items and settles them.
    async fn work(&mut self) -> Result<(), ClientError> {
        take_and_settle(&self.queue, 3, &mut self.history).await;
        Ok(())
    }
}

/// Takes up to `max` items, settles them as done, and answers how many there were.
pub async fn take_and_settle(queue: &QueueClient, max: u32, history: &mut History) -> usize {
    let sent = Instant::now();
    let outcome = Outcome::of(queue.claim(max).await).map(|items| {
        let taken = items.into_iter().filter_map(|claimed| {
            let payload = String::from_utf8_lossy(&claimed.payload).into_owned();
            Some((
                claimed.item.item_id,
                payload,
                claimed.item.claim?.fencing_token,
            ))
        });
        taken.collect::<Vec<_>>()
    });
    history.note("take", &outcome);
    let items = outcome.done().cloned().unwrap_or_default();
    history.takes.push(Taken {
        outcome,
        span: Span::since(sent),
    });
    for (item, _, token) in &items {
        let sent = Instant::now();
        let settled = queue.settle(*item, *token, ItemOutcome::Done).await;
        let outcome = Outcome::of(settled.map(drop));
        history.note("settle", &outcome);
        history.settles.push(Settled {
            item: *item,
            token: *token,
            outcome,
            span: Span::since(sent),
        });
    }
    items.len()
}
