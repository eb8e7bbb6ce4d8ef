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
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, Weak};
use std::time::Instant;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use quorate_statemachine as statemachine;
use quorate_statemachine::access::audit;
use quorate_statemachine::figure::Figure;
use quorate_statemachine::notice::Notice;
use quorate_statemachine::tables::{self, MetaRow};
use quorate_statemachine::{Timestamp, codec, version};

use self::behind::{Behind, Pending};
use self::database::Database;
use self::digests::Digests;
use self::outcomes::Outcomes;
use self::view::{Stored, Tables, View};
use super::error::StorageError;
use super::snapshot::{Manifest, SnapshotData, Snapshots};
use super::{files, open};
use crate::metrics::StateMeters;
use crate::raft::{
    Entry, LogId, Outcome, Payload, Snapshot, SnapshotMeta, StoredMembership, TypeConfig,
};

mod behind;
mod database;
mod digests;
mod export;
pub(super) mod offline;
mod outcomes;
mod reader;
mod rebuild;
mod seed;
#[cfg(test)]
mod tests;
mod totals;
mod view;

pub use export::Checkpoint;
pub use reader::{StateReader, StateSizes};
pub(super) use seed::Seed;
pub use totals::Totals;

/// Entries that are answered together.
const CHUNK_ENTRIES_MAX: usize = 256;

/// So many times [`StateOptions::pending_bytes`] may wait before applying waits too.
const PENDING_TIMES_MAX: usize = 4;

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
            pending_bytes: 4 << 20,
            meters: StateMeters::default(),
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
}

/// The state machine of this node, as Raft drives it.
pub struct StateStore {
    shared: Arc<Shared>,
    hook: NoticeHook,
}

/// Makes a snapshot while the state goes on.
pub struct SnapshotBuilder {
    shared: Arc<Shared>,
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
        let outcomes = Outcomes::new(state.applied.map_or(0, |id| id.index));
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            options: options.clone(),
            state: RwLock::new(state),
            snapshots: Mutex::new(snapshots),
            digests: Mutex::default(),
            outcomes: Mutex::new(outcomes),
            behind,
            replacing: Mutex::default(),
        });
        behind::start(&shared, wake).map_err(StorageError::io("start the thread of", dir))?;
        Ok(Self { shared, hook })
    }

    /// Dead once the database is closed.
    pub(super) fn handle(&self) -> Weak<dyn Any + Send + Sync> {
        let shared: Arc<dyn Any + Send + Sync> = self.shared.clone();
        Arc::downgrade(&shared)
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
        self.shared.digests().record(&told.notices);
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
                let applied = statemachine::apply(&self.view(), entry).map_err(io::Error::other)?;
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
        let reply = state.apply(&entry.log_id, &entry.payload, told)?;
        state.applied = Some(entry.log_id);
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

    /// Checkpoint first, then everything else from the checkpoint itself: what it holds is what it
    /// covers, whatever is applied meanwhile.
    ///
    /// If another state takes the place of this one meanwhile, it is made again of that one.
    fn build_snapshot(&self) -> Result<SnapshotData, StorageError> {
        loop {
            let making = self.snapshots().fresh_path();
            files::remove_dir(&making)?;
            self.write_pending()?;
            let (number, database) = {
                let state = self.state();
                (state.number, state.database.clone())
            };
            database.checkpoint(&making)?;
            drop(database);
            let (last_log_id, last_membership) = Database::open_checkpoint(&making)?.applied()?;
            let meta = SnapshotMeta {
                last_log_id,
                last_membership,
            };
            let manifest = Manifest::of_checkpoint(&making, meta)?;
            let mut snapshots = self.snapshots();
            if self.state().number == number {
                return snapshots.publish(&making, manifest);
            }
            drop(snapshots);
            files::remove_dir(&making)?;
        }
    }

    /// Everything is made beside the present state and verified; then one rename switches over.
    ///
    /// The snapshot takes its place first: if the process dies before the switch, Raft finds it
    /// newer than the state and installs it again.
    fn install(&self, meta: &SnapshotMeta, data: &SnapshotData) -> Result<(), StorageError> {
        if data.manifest().meta != *meta {
            let problem = "it covers something else than was announced";
            return Err(StorageError::damaged(data.path(), problem));
        }
        let _replacing = self
            .replacing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let number = self.state().number + 1;
        let path = open::state_of(&self.dir, number);
        data.link_to(&path)?;
        let state = State::load(&self.dir, number, &self.options)
            .and_then(|state| check_installed(state, meta));
        let state = match state {
            Ok(state) => state,
            Err(error) => {
                files::remove_dir(&path)?;
                return Err(error);
            }
        };
        self.keep_snapshot(data)?;
        write_current(&self.dir, number)?;
        let mut present = self.state.write().unwrap_or_else(PoisonError::into_inner);
        present.database.doom();
        *self.outcomes() = Outcomes::new(state.applied.map_or(0, |id| id.index));
        *present = state;
        Ok(())
    }

    fn keep_snapshot(&self, data: &SnapshotData) -> Result<(), StorageError> {
        let mut snapshots = self.snapshots();
        if snapshots
            .newest()
            .is_some_and(|newest| newest.path() == data.path())
        {
            return Ok(());
        }
        let making = snapshots.fresh_path();
        data.link_to(&making)?;
        snapshots.publish(&making, data.manifest().clone())?;
        Ok(())
    }
}

/// A snapshot must hold what its manifest says, and its rows what its digest says.
fn check_installed(state: State, meta: &SnapshotMeta) -> Result<State, StorageError> {
    if state.applied != meta.last_log_id || state.membership != meta.last_membership {
        return Err(state
            .database
            .damaged("it covers something else than its manifest says"));
    }
    let digest = state.stored().digest()?;
    if digest != state.meta.digest {
        let problem = format!(
            "its rows have digest {digest}, its meta row {}",
            state.meta.digest
        );
        return Err(state.database.damaged(problem));
    }
    Ok(state)
}

/// `[version u8][number u64][crc32c u32]`
fn write_current(dir: &Path, number: u64) -> Result<(), StorageError> {
    let mut bytes = vec![super::codec::FORMAT_VERSION];
    bytes.extend_from_slice(&number.to_le_bytes());
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    files::replace(&open::current_of(dir), &bytes)
}

/// The number of the state directory that holds; a new node's is 1.
fn current_number(dir: &Path) -> Result<u64, StorageError> {
    match read_current(dir)? {
        Some(number) => Ok(number),
        None => write_current(dir, 1).map(|()| 1),
    }
}

fn read_current(dir: &Path) -> Result<Option<u64>, StorageError> {
    let path = open::current_of(dir);
    let Some(bytes) = files::read(&path)? else {
        return Ok(None);
    };
    let number = bytes.split_last_chunk::<4>().and_then(|(mut body, crc)| {
        if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
            return None;
        }
        super::codec::take_version(&mut body).ok()?;
        super::codec::take_u64(&mut body).ok()
    });
    match number {
        Some(number) => Ok(Some(number)),
        None => Err(StorageError::damaged(
            &path,
            "it does not match its checksum",
        )),
    }
}

fn remove_other_states(dir: &Path, number: u64) -> Result<(), StorageError> {
    for name in files::names(dir)? {
        if open::state_number(&name).is_some_and(|other| other != number) {
            files::remove_dir(&dir.join(name))?;
        }
    }
    Ok(())
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
        tokio::task::spawn_blocking(install)
            .await
            .map_err(io::Error::other)??;
        let took = began.elapsed().as_secs_f64();
        self.shared.options.meters.snapshot_install.observe(took);
        (self.hook)(StateChange::Replaced { index });
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        Ok(self.shared.snapshots().newest().cloned().map(as_raft))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let shared = self.shared.clone();
        let began = Instant::now();
        let built = tokio::task::spawn_blocking(move || shared.build_snapshot()).await;
        let snapshot = as_raft(built.map_err(io::Error::other)??);
        let took = began.elapsed().as_secs_f64();
        self.shared.options.meters.snapshot_build.observe(took);
        Ok(snapshot)
    }
}

fn as_raft(data: SnapshotData) -> Snapshot {
    Snapshot {
        meta: data.manifest().meta.clone(),
        snapshot: data,
    }
}

/// Rows of the resident tables, by table.
type Rows = BTreeMap<Vec<u8>, Bytes>;
