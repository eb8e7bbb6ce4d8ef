//! Clients that ask one after the other and note what they were answered.
//!
//! A key has a bounded number of clients at a time and is left for a new one after a while
//! ([`Pace`]), so that a history stays small enough to be checked. A client whose operation has no
//! known outcome leaves; another one, with another name, takes its seat.

mod events;
mod leases;
mod locks;
mod queues;
mod sessions;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use quorate_client::{Client, ClientError, ReadFrom, Remote, RemoteOptions};
use quorate_statemachine::{Name, Owner, Refusal};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::record::{Log, Micros, Record, Recorder};

/// How much is asked of a cluster.
#[derive(Debug, Clone)]
pub struct Pace {
    /// Clients of one key at a time.
    pub seats: usize,
    /// How long one key is worked on.
    pub key_time: Duration,
    /// Between two operations of a client, in milliseconds.
    pub pause_ms: Range<u64>,
}

impl Pace {
    /// Six clients ask for some hundred operations in the time of a key, and two cores do that for
    /// all keys at once.
    pub const PROCESSES: Self = Self {
        seats: 6,
        key_time: Duration::from_secs(20),
        pause_ms: 30..200,
    };
}

/// How long a client waits for an answer, tries of its own included.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// How long it may take to empty a queue or to read a key at its end, faults included.
const LAST_WORD_MAX: Duration = Duration::from_secs(60);

/// What there are histories of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noun {
    /// See [`crate::models::leases`].
    Lease,
    /// See [`crate::models::locks`].
    Lock,
    /// See [`crate::models::queues`].
    Queue,
    /// See [`crate::models::events`].
    Event,
    /// See [`crate::models::sessions`].
    Session,
}

/// Which keys are worked on at a time.
pub const KEYS: [Noun; 8] = [
    Noun::Lease,
    Noun::Lease,
    Noun::Lock,
    Noun::Lock,
    Noun::Queue,
    Noun::Queue,
    Noun::Event,
    Noun::Session,
];

/// What all clients share.
pub struct Shared {
    /// Where the nodes are.
    pub endpoints: Vec<String>,
    /// How much is asked of them.
    pub pace: Pace,
    /// The account.
    pub recorder: Recorder,
    /// No operation begins once it is cancelled.
    pub stop: CancellationToken,
    /// Operations that came to nothing, by why.
    pub failures: Mutex<BTreeMap<String, u64>>,
    /// Answers that no client may get.
    pub odd: Mutex<Vec<String>>,
    numbers: AtomicU32,
}

impl Shared {
    /// For clients of the nodes at these addresses.
    #[must_use]
    pub fn new(endpoints: Vec<String>, pace: Pace, recorder: Recorder) -> Self {
        Self {
            endpoints,
            pace,
            recorder,
            stop: CancellationToken::new(),
            failures: Mutex::default(),
            odd: Mutex::default(),
            numbers: AtomicU32::new(1),
        }
    }

    /// A number that nobody else has.
    pub fn number(&self) -> u32 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Notes an answer that no client may get.
    pub fn is_odd(&self, what: String) {
        let mut odd = self.odd.lock().unwrap_or_else(PoisonError::into_inner);
        odd.push(what);
    }

    fn failed(&self, error: &ClientError) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let code = error.code().to_owned();
        let doubt = if error.may_have_happened() {
            "unknown"
        } else {
            "not done"
        };
        *failures.entry(format!("{code}, {doubt}")).or_default() += 1;
    }

    /// A client that knows all nodes.
    pub fn client(&self) -> Result<Client> {
        Ok(Client::connect(self.endpoints.clone())?)
    }
}

/// What an operation came to.
pub enum Told<T> {
    /// The answer.
    Answer(T),
    /// The state said no.
    Refused(Refusal),
    /// It was certainly not done.
    NotDone,
    /// It may have been done.
    Unknown,
}

/// A client of one key.
pub struct Seat {
    client: Client,
    number: u32,
    key: String,
    owner: Owner,
    random: fastrand::Rng,
    shared: Arc<Shared>,
    until: Instant,
}

impl Seat {
    fn new(shared: &Arc<Shared>, key: &str, until: Instant, seed: u64) -> Result<Self> {
        let number = shared.number();
        let mut random = fastrand::Rng::with_seed(seed ^ u64::from(number));
        let mut endpoints = shared.endpoints.clone();
        random.shuffle(&mut endpoints);
        // Half of them read from followers, and a third begin with one node that may be cut off.
        let options = RemoteOptions {
            connect_timeout: Duration::from_millis(500),
            read_from: if random.bool() {
                ReadFrom::AnyNode
            } else {
                ReadFrom::Leader
            },
            ..RemoteOptions::default()
        };
        if random.u8(0..3) == 0 {
            endpoints.truncate(1);
        }
        let client = Client::new(Remote::new(endpoints, options)?).with_timeout(ANSWER_MAX);
        let name = Name::parse("owner", format!("client-{number}"))?;
        Ok(Self {
            client,
            number,
            key: key.to_owned(),
            owner: Owner::new(name.clone(), name),
            random,
            shared: Arc::clone(shared),
            until,
        })
    }

    fn name(&self) -> Result<Name> {
        Ok(Name::parse("key", self.key.clone())?)
    }

    /// Waits a little; answers whether there is to be another operation.
    async fn next(&mut self) -> bool {
        let pause = Duration::from_millis(self.random.u64(self.shared.pace.pause_ms.clone()));
        self.rest(pause).await;
        Instant::now() < self.until && !self.shared.stop.is_cancelled()
    }

    async fn rest(&self, time: Duration) {
        tokio::select! {
            () = sleep(time) => {}
            () = self.shared.stop.cancelled() => {}
        }
    }

    fn now(&self) -> Micros {
        self.shared.recorder.now()
    }

    fn told<T>(&self, result: Result<T, ClientError>) -> Told<T> {
        let error = match result {
            Ok(answer) => return Told::Answer(answer),
            Err(error) => error,
        };
        if error.may_have_happened() {
            self.shared.failed(&error);
            return Told::Unknown;
        }
        match error.refusal() {
            Some(refusal) => Told::Refused(refusal.clone()),
            None => {
                self.shared.failed(&error);
                Told::NotDone
            }
        }
    }

    /// Notes a command, which was answered, and is on the disks of a quorum.
    fn wrote<S: serde::Serialize + Clone>(&self, log: &Log<S>, call: Micros, step: S) {
        self.shared.recorder.acknowledge();
        self.noted(log, call, step);
    }

    /// Notes an operation that was answered.
    fn noted<S: serde::Serialize + Clone>(&self, log: &Log<S>, call: Micros, step: S) {
        let ret = Some(self.now());
        self.note(log, call, ret, step);
    }

    /// Notes an operation without a known outcome.
    fn lost<S: serde::Serialize + Clone>(&self, log: &Log<S>, call: Micros, step: S) {
        self.note(log, call, None, step);
    }

    fn note<S>(&self, log: &Log<S>, call: Micros, ret: Option<Micros>, step: S)
    where
        S: serde::Serialize + Clone,
    {
        log.add(Record {
            key: self.key.clone(),
            client: self.number,
            call,
            ret,
            step,
        });
    }

    fn odd(&self, what: &str, answer: &impl std::fmt::Debug) {
        let key = &self.key;
        self.shared.is_odd(format!(
            "{what} of {key} by client {}: {answer:?}",
            self.number
        ));
    }
}

/// Works on one key of `noun` after the other until the clients are to stop.
pub async fn work(shared: Arc<Shared>, noun: Noun, slot: usize, seed: u64) -> Result<()> {
    for round in 0.. {
        if shared.stop.is_cancelled() {
            break;
        }
        let key = format!("{noun:?}/{slot}/{round}").to_lowercase();
        let until = Instant::now() + shared.pace.key_time;
        let Some(common) = prepare(&shared, noun, &key).await? else {
            continue;
        };
        let mut seats = JoinSet::new();
        for place in 0..shared.pace.seats {
            let (shared, key, common) = (Arc::clone(&shared), key.clone(), common.clone());
            let seed = seed ^ ((round as u64) << 16) ^ ((place as u64) << 8);
            seats.spawn(async move { occupy(shared, noun, key, common, until, seed).await });
        }
        while let Some(seat) = seats.join_next().await {
            seat??;
        }
        last_word(&shared, noun, &key).await?;
    }
    Ok(())
}

/// What the clients of a key must know of it before they begin.
type Common = Option<sessions::Common>;

/// None when the cluster could not be asked: another key is tried.
async fn prepare(shared: &Arc<Shared>, noun: Noun, key: &str) -> Result<Option<Common>> {
    match noun {
        Noun::Lease | Noun::Lock | Noun::Queue => Ok(Some(None)),
        Noun::Event => Ok(events::prepare(shared, key).await?.then_some(None)),
        Noun::Session => Ok(sessions::prepare(shared, key).await?.map(Some)),
    }
}

async fn occupy(
    shared: Arc<Shared>,
    noun: Noun,
    key: String,
    common: Common,
    until: Instant,
    seed: u64,
) -> Result<()> {
    while Instant::now() < until && !shared.stop.is_cancelled() {
        let mut seat = Seat::new(&shared, &key, until, seed)?;
        match (noun, &common) {
            (Noun::Lease, _) => leases::sit(&mut seat).await?,
            (Noun::Lock, _) => locks::sit(&mut seat).await?,
            (Noun::Queue, _) => queues::sit(&mut seat).await?,
            (Noun::Event, _) => events::sit(&mut seat).await?,
            (Noun::Session, Some(common)) => sessions::sit(&mut seat, common).await?,
            (Noun::Session, None) => {}
        }
    }
    Ok(())
}

/// What must be known of a key once nobody works on it any more.
async fn last_word(shared: &Arc<Shared>, noun: Noun, key: &str) -> Result<()> {
    let deadline = Instant::now() + LAST_WORD_MAX;
    let mut seat = Seat::new(shared, key, deadline, 0)?;
    match noun {
        Noun::Lease | Noun::Lock | Noun::Session => Ok(()),
        Noun::Queue => queues::empty(&mut seat).await,
        Noun::Event => events::read_all(&mut seat).await,
    }
}
