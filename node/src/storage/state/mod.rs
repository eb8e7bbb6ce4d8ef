//! The state machine on disk: rows in a RocksDB of their own, hot tables also in memory.
//!
//! There is no write-ahead log: the Raft log is one. Each write batch holds all rows that changed,
//! the applied log id and the membership of one moment, so a crash leaves the state of an older
//! index, whole, and Raft applies the rest again. What is on disk is never ahead of itself.
//!
//! # Why nothing is lost when the log is purged
//!
//! Raft purges only what the current snapshot covers. Building a snapshot makes a checkpoint, which
//! flushes all of memory to tables first; installing one makes the state a copy of its tables. So
//! the state on disk is never older than the snapshot, and never older than the purge mark.
//! [`super::open`] checks it when a node starts.
//!
//! # How rows get to RocksDB
//!
//! Changed rows wait in memory until they are [`StateOptions::pending_bytes`], then one thread
//! ([`behind`]) writes them in one batch while entries go on. A row that changed ten times
//! meanwhile is written once. Nothing is synced before a checkpoint anyway, so this loses nothing
//! that was safe before; a crash only leaves more to be applied again.
//!
//! # Who reads what
//!
//! Tables that [`tables::resident`] names are loaded on open and read from memory only. Queries
//! read under a lock that `apply` takes for each entry: they see the state between two entries.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, Weak};
use std::time::Instant;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use quorate_statemachine as statemachine;
use quorate_statemachine::access::audit;
#[cfg(not(feature = "simulation"))]
use quorate_statemachine::apply;
use quorate_statemachine::figure::Figure;
use quorate_statemachine::notice::Notice;
use quorate_statemachine::tables::{self, MetaRow};
use quorate_statemachine::{Timestamp, codec, version};
use tokio::sync::watch;

use self::behind::{Behind, Pending};
use self::current::{current_number, remove_other_states};
use self::database::Database;
use self::digests::Digests;
use self::outcomes::Outcomes;
#[cfg(feature = "simulation")]
use self::planted::apply;
use self::snapshots::as_raft;
use self::view::{Stored, Tables, View};
use super::disk::Tuning;
use super::error::StorageError;
use super::snapshot::{SnapshotData, Snapshots};
use super::{files, open};
use crate::blocking::blocking;
use crate::metrics::StateMeters;
use crate::raft::{
    Entry, LogId, Outcome, Payload, Snapshot, SnapshotMeta, StoredMembership, TypeConfig,
};

mod behind;
mod current;
mod database;
mod digests;
mod export;
pub(super) mod offline;
mod outcomes;
#[cfg(feature = "simulation")]
mod planted;
mod reader;
mod rebuild;
mod seed;
mod snapshots;
#[cfg(test)]
mod tests;
mod totals;
mod view;

pub use export::Checkpoint;
pub use reader::{StateReader, StateSizes};
pub(super) use seed::Seed;
pub use snapshots::SnapshotBuilder;
pub use totals::Totals;

/// Entries that are answered together.
const CHUNK_ENTRIES_MAX: usize = 256;

/// So many times [`StateOptions::pending_bytes`] may wait before applying waits too.
const PENDING_TIMES_MAX: usize = 4;

/// Changed rows that wait, unless told otherwise.
#[cfg(not(feature = "simulation"))]
const PENDING_BYTES: usize = 4 << 20;

/// Few: a simulated cluster does not live long, and its rows too must get to the disk.
#[cfg(feature = "simulation")]
const PENDING_BYTES: usize = 2 << 10;

/// Bounds of the state's memory, beside the resident tables.
#[derive(Debug, Clone)]
pub struct StateOptions {
    /// Bytes of table blocks kept in memory.
    pub block_cache_bytes: usize,
    /// RocksDB's write buffer. With what waits for it, how much is applied again after a crash.
    pub write_buffer_bytes: usize,
    /// Bytes of changed rows that wait until they are given to RocksDB.
    pub pending_bytes: usize,
    /// Times what it does.
    pub meters: StateMeters,
}

impl Default for StateOptions {
    fn default() -> Self {
        Self {
            block_cache_bytes: 32 << 20,
            write_buffer_bytes: 16 << 20,
            pending_bytes: PENDING_BYTES,
            meters: StateMeters::default(),
        }
    }
}

impl StateOptions {
    fn tuning(&self) -> Tuning {
        Tuning::State {
            write_buffer_bytes: self.write_buffer_bytes,
            block_cache_bytes: self.block_cache_bytes,
        }
    }
}

/// What one entry told those who wait or watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedNotices {
    /// Log index of the entry.
    pub index: u64,
    /// Cluster time at the entry.
    pub now: Timestamp,
    /// What happened, in order.
    pub notices: Vec<Notice>,
}

/// What happened to the state as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateChange {
    /// Entries up to `index` were applied.
    Applied {
        /// Log index of the last entry that was applied.
        index: u64,
        /// What its entries told, in log order.
        notices: Vec<AppliedNotices>,
        /// What they did, in numbers.
        figures: Vec<Figure>,
    },
    /// A snapshot took the place of the state; nobody was told what happened in between.
    Replaced {
        /// Log index of the last entry that the snapshot covers.
        index: u64,
    },
}

/// Gets each change of the state after it can be read. Must not block.
pub type NoticeHook = Arc<dyn Fn(StateChange) + Send + Sync>;

/// The state as it is between two entries.
struct State {
    database: Arc<Database>,
    tables: Tables,
    /// Rows that are not yet in the database.
    pending: Pending,
    applied: Option<LogId>,
    membership: StoredMembership,
    meta: MetaRow,
    /// Number of the directory.
    number: u64,
}

/// What the store, its readers and its snapshot builders share.
struct Shared {
    dir: PathBuf,
    options: StateOptions,
    state: RwLock<State>,
    snapshots: Mutex<Snapshots>,
    digests: Mutex<Digests>,
    outcomes: Mutex<Outcomes>,
    behind: Behind,
    /// Held by whoever puts another state in the place of this one.
    replacing: Mutex<()>,
    /// How many need the log as it is: meanwhile no snapshot is made by which it could be purged.
    holding_log: AtomicUsize,
}

/// The state machine of this node, as Raft drives it.
pub struct StateStore {
    shared: Arc<Shared>,
    hook: NoticeHook,
}

impl fmt::Debug for StateStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StateStore({})", self.shared.dir.display())
    }
}

impl StateStore {
    /// Opens or creates the state under the data directory `dir`.
    pub fn open(
        dir: &Path,
        options: &StateOptions,
        hook: NoticeHook,
    ) -> Result<Self, StorageError> {
        let number = current_number(dir)?;
        remove_other_states(dir, number)?;
        let state = State::load(dir, number, options)?;
        let snapshots = Snapshots::open(open::snapshots_of(dir))?;
        let (behind, wake) = Behind::new();
        let outcomes = Outcomes::new(state.reached());
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            options: options.clone(),
            state: RwLock::new(state),
            snapshots: Mutex::new(snapshots),
            digests: Mutex::default(),
            outcomes: Mutex::new(outcomes),
            behind,
            replacing: Mutex::default(),
            holding_log: AtomicUsize::new(0),
        });
        behind::start(&shared, wake).map_err(StorageError::io("start the thread of", dir))?;
        Ok(Self { shared, hook })
    }

    /// Dead once the database is closed.
    pub(super) fn handle(&self) -> Weak<dyn Any + Send + Sync> {
        let shared: Arc<dyn Any + Send + Sync> = self.shared.clone();
        Arc::downgrade(&shared)
    }

    /// Tells why the state has stopped, when it has. The node must stop too.
    #[must_use]
    pub fn failure(&self) -> watch::Receiver<Option<String>> {
        self.shared.behind.failure()
    }

    /// A reader, for queries and for the network.
    #[must_use]
    pub fn reader(&self) -> StateReader {
        StateReader::new(self.shared.clone())
    }

    /// Forgets a snapshot that ends before `purged`: nobody could go on from it.
    pub(super) fn discard_snapshot_before(&self, purged: LogId) {
        let mut snapshots = self.shared.snapshots();
        let newest = snapshots
            .newest()
            .map(|data| data.manifest().meta.last_log_id);
        if newest.is_some_and(|covers| covers < Some(purged)) {
            snapshots.discard_newest();
        }
    }

    /// State first, then answers, then notices: who was answered can read what was written.
    fn apply_items(&self, items: Vec<io::Result<EntryResponder<TypeConfig>>>) -> io::Result<()> {
        let mut told = Told::default();
        for item in items {
            let (entry, responder) = item?;
            self.shared.apply_entry(&mut told, &entry, responder)?;
        }
        for (responder, outcome) in told.answers {
            responder.send(outcome);
        }
        if let Some(index) = told.applied {
            (self.hook)(StateChange::Applied {
                index,
                notices: told.notices,
                figures: told.figures,
            });
        }
        Ok(())
    }
}

/// Gives RocksDB the rows that wait; closing it writes them to tables. The next start would apply
/// them again from the log, but it is faster without.
impl Drop for StateStore {
    fn drop(&mut self) {
        if let Err(error) = self.shared.write_pending() {
            tracing::warn!(%error, "the newest rows were not written; the log has them");
        }
    }
}

/// What entries that are in place have to tell.
#[derive(Default)]
struct Told {
    applied: Option<u64>,
    answers: Vec<(ApplyResponder<TypeConfig>, Outcome)>,
    notices: Vec<AppliedNotices>,
    figures: Vec<Figure>,
}

impl State {
    /// Index of the last entry that is applied; 0 before the first.
    fn reached(&self) -> u64 {
        self.applied.map_or(0, |applied| applied.index)
    }

    fn load(dir: &Path, number: u64, options: &StateOptions) -> Result<Self, StorageError> {
        let database = Database::open(&open::state_of(dir, number), options)?;
        let (applied, membership) = database.applied()?;
        let tables = database.resident_tables()?;
        let meta = match tables.get(tables::meta_key().bytes()) {
            Some(row) => decode_meta(row).map_err(|e| database.damaged(e))?,
            None => MetaRow::default(),
        };
        let state = Self {
            database: Arc::new(database),
            tables,
            pending: Pending::default(),
            applied,
            membership,
            meta,
            number,
        };
        let view = state.view();
        match version::of(&view).and_then(|_| statemachine::access::of(&view)) {
            Ok(_) => Ok(state),
            Err(problem) => Err(state.database.damaged(problem.to_string())),
        }
    }

    fn stored(&self) -> Stored<'_> {
        Stored {
            layers: self.pending.layers(),
            database: &self.database,
        }
    }

    fn view(&self) -> View<'_> {
        View {
            tables: &self.tables,
            stored: self.stored(),
        }
    }

    /// Does an entry; the answer of a command.
    fn apply(
        &mut self,
        id: &LogId,
        payload: &Payload,
        told: &mut Told,
    ) -> io::Result<Option<statemachine::Reply>> {
        match payload {
            EntryPayload::Blank => Ok(None),
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(*id), membership.clone());
                Ok(None)
            }
            EntryPayload::Normal(proposal) => {
                let entry = statemachine::Entry {
                    index: id.index,
                    proposed_at: proposal.proposed_at(),
                    command: proposal.command(),
                    principal: proposal.origin().0,
                };
                let applied = apply(&self.view(), entry).map_err(io::Error::other)?;
                for (key, value) in applied.changes {
                    self.tables.change(&key, value.as_ref());
                    self.pending.add(key, value);
                }
                if !applied.notices.is_empty() {
                    told.notices.push(AppliedNotices {
                        index: id.index,
                        now: applied.meta.now,
                        notices: applied.notices,
                    });
                }
                told.figures.extend(applied.figures);
                self.meta = applied.meta;
                Ok(Some(applied.reply))
            }
        }
    }
}

fn decode_meta(row: &[u8]) -> Result<MetaRow, String> {
    let tag = <tables::Meta as tables::Table>::TAG.into();
    codec::decode(tag, row).map_err(|error| format!("the meta row cannot be read: {error}"))
}

impl Shared {
    fn state(&self) -> RwLockReadGuard<'_, State> {
        // A panic of a reader changes nothing, and who writes changes nothing before it knows all
        // of an entry's changes.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn snapshots(&self) -> MutexGuard<'_, Snapshots> {
        self.snapshots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn digests(&self) -> MutexGuard<'_, Digests> {
        self.digests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outcomes(&self) -> MutexGuard<'_, Outcomes> {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts one entry in place. Readers see the state before or after it.
    fn apply_entry(
        &self,
        told: &mut Told,
        entry: &Entry,
        responder: Option<ApplyResponder<TypeConfig>>,
    ) -> io::Result<()> {
        self.behind.check()?;
        let index = entry.log_id.index;
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(applied) = state.applied
            && applied.index >= index
        {
            let problem = format!("entry {index} was to be applied behind {}", applied.index);
            return Err(io::Error::other(problem));
        }
        let began = Instant::now();
        let before = told.notices.len();
        let reply = state.apply(&entry.log_id, &entry.payload, told)?;
        state.applied = Some(entry.log_id);
        // While no other state can take the place of the one that they are of.
        self.digests().record(&told.notices[before..]);
        let waiting = state.pending.bytes();
        if let Some(reply) = &reply {
            self.outcomes().record(index, audit::outcome(reply));
        }
        drop(state);
        if let EntryPayload::Normal(proposal) = &entry.payload {
            let meters = &self.options.meters;
            meters.applied(index, proposal, began.elapsed());
        }
        told.applied = Some(index);
        if let Some(responder) = responder {
            told.answers.push((responder, Outcome { index, reply }));
        }
        let pending_bytes = self.options.pending_bytes;
        if waiting > PENDING_TIMES_MAX * pending_bytes {
            self.write_pending()?;
        } else if waiting > pending_bytes {
            self.behind.wake();
        }
        Ok(())
    }
}

impl RaftStateMachine<TypeConfig> for StateStore {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let state = self.shared.state();
        Ok((state.applied, state.membership.clone()))
    }

    async fn apply<S>(&mut self, entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut chunks = entries.ready_chunks(CHUNK_ENTRIES_MAX);
        while let Some(items) = chunks.next().await {
            self.apply_items(items)?;
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<SnapshotBuilder> {
        let held = self.shared.holding_log.load(Ordering::Acquire) > 0;
        match held && !force {
            true => None,
            false => Some(self.get_snapshot_builder().await),
        }
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            shared: self.shared.clone(),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        data: SnapshotData,
    ) -> io::Result<()> {
        let index = meta.last_log_id.map_or(0, |id| id.index);
        let (shared, meta) = (self.shared.clone(), meta.clone());
        let began = Instant::now();
        let install = move || shared.install(&meta, &data);
        blocking(install).await.map_err(io::Error::other)??;
        let took = began.elapsed().as_secs_f64();
        self.shared.options.meters.snapshot_install.observe(took);
        (self.hook)(StateChange::Replaced { index });
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        Ok(self.shared.snapshots().newest().cloned().map(as_raft))
    }
}

/// Rows of the resident tables, by table.
type Rows = BTreeMap<Vec<u8>, Bytes>;
