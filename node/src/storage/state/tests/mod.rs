//! The state: restarts, chunks, and what damage is refused; snapshots in a file of their own.
#![allow(clippy::unwrap_used, reason = "here it fails the test")]

use std::fs;
use std::sync::Mutex as StdMutex;

use openraft::RaftSnapshotBuilder;
use openraft::storage::RaftLogStorage;
use quorate_statemachine::lease::{Claim, SameOwner};
use quorate_statemachine::tables::Table;
use quorate_statemachine::view::MemoryView;
use quorate_statemachine::{Command, LeaseToken, Name, Owner, cluster};
use tempfile::TempDir;

use super::*;
use crate::origin::Caller;
use crate::raft::{Membership, Proposal, log_id};
use crate::storage::disk::{Durability, KeyValue};
use crate::storage::{DataDir, Identity, Manifest, Receiver, Storage, StorageOptions};

mod damage;
mod rebuild;
mod snapshots;

struct Home {
    temp: TempDir,
    options: StateOptions,
    changes: Arc<StdMutex<Vec<StateChange>>>,
}

impl Home {
    fn new() -> Self {
        Self {
            temp: tempfile::tempdir().unwrap(),
            options: StateOptions::default(),
            changes: Arc::default(),
        }
    }

    fn dir(&self) -> &Path {
        self.temp.path()
    }

    fn open(&self) -> StateStore {
        self.try_open().unwrap()
    }

    fn try_open(&self) -> Result<StateStore, StorageError> {
        let changes = self.changes.clone();
        let hook = Arc::new(move |change| changes.lock().unwrap().push(change));
        StateStore::open(self.dir(), &self.options, hook)
    }

    fn names(&self, dir: &str) -> Vec<String> {
        files::names(&self.dir().join(dir)).unwrap()
    }
}

fn name(text: String) -> Name {
    Name::parse("name", text).unwrap()
}

/// A claim that is granted or refused depending on what came before; some run out at once.
fn claim(index: u64) -> Command {
    let owner = Owner::new(name(format!("w{}", index % 3)), name("boot".to_owned()));
    Claim {
        key: name(format!("k{}", index * 7 % 20)),
        owner,
        lease_token: LeaseToken::parse(format!("t{index}")).unwrap(),
        ttl_ms: index * 13 % 50,
        same_owner: SameOwner::Fresh,
        metadata: vec![1; 10],
    }
    .into()
}

fn entry_of(index: u64, command: &Command) -> Entry {
    Entry {
        log_id: log_id(1, index),
        payload: EntryPayload::Normal(Proposal::new(
            Timestamp(index),
            &Caller::Cluster.into(),
            &command.encode(),
        )),
    }
}

fn claims(range: std::ops::Range<u64>) -> Vec<Entry> {
    range.map(|index| entry_of(index, &claim(index))).collect()
}

async fn try_apply(store: &mut StateStore, entries: Vec<Entry>) -> io::Result<()> {
    let items = entries.into_iter().map(|entry| Ok((entry, None)));
    store.apply(futures::stream::iter(items)).await
}

async fn apply(store: &mut StateStore, entries: Vec<Entry>) {
    try_apply(store, entries).await.unwrap();
}

async fn build(store: &mut StateStore) -> Snapshot {
    let mut builder = store.try_create_snapshot_builder(true).await.unwrap();
    builder.build_snapshot().await.unwrap()
}

/// All rows as a query sees them, table by table, and then across tables.
fn rows(store: &StateStore) -> Vec<(Vec<u8>, Bytes)> {
    let mut found = Vec::new();
    store.reader().read(|view, _, _| {
        let mut all = 0;
        let last = tables::REGISTRY.last().unwrap().0;
        for (tag, _) in tables::REGISTRY {
            view.scan(&[0, 0, *tag], &[0, 0, tag + 1], &mut |key, value| {
                found.push((key.to_vec(), Bytes::copy_from_slice(value)));
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
        }
        view.scan(&[0, 0, 0], &[0, 0, last + 1], &mut |key, value| {
            assert_eq!((&found[all].0[..], &found[all].1[..]), (key, value));
            assert_eq!(view.get(key).unwrap().as_deref(), Some(value));
            all += 1;
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(all, found.len());
    });
    found
}

fn model(entries: &[Entry]) -> MemoryView {
    let mut model = MemoryView::default();
    for entry in entries {
        let EntryPayload::Normal(proposal) = &entry.payload else {
            continue;
        };
        let entry = statemachine::Entry {
            index: entry.log_id.index,
            proposed_at: proposal.proposed_at(),
            command: proposal.command(),
            principal: proposal.origin().0,
        };
        let applied = statemachine::apply(&model, entry).unwrap();
        model.commit(applied.changes);
    }
    model
}

fn assert_like_model(store: &StateStore, entries: &[Entry]) {
    let model = model(entries);
    let wanted: Vec<(Vec<u8>, Bytes)> = model
        .rows()
        .map(|(key, value)| (key.to_vec(), Bytes::copy_from_slice(value)))
        .collect();
    assert_eq!(rows(store), wanted);
    assert_eq!(
        store.reader().verify().unwrap(),
        store.reader().meta().digest
    );
}

#[tokio::test]
async fn chunks_of_any_size_give_the_rows_of_one_entry_after_the_other() {
    let all = claims(1..800);
    for size in [1, 3, 50, 799] {
        let home = Home::new();
        let mut store = home.open();
        for part in all.chunks(size) {
            apply(&mut store, part.to_vec()).await;
        }
        assert_like_model(&store, &all);
    }
}

/// Of every few rows that change, some are in RocksDB, some on their way, and some wait.
#[tokio::test]
async fn rows_that_wait_are_written_or_under_way_are_one_state() {
    let all = claims(1..800);
    for pending_bytes in [1, 1_000, 20_000] {
        let mut home = Home::new();
        home.options.pending_bytes = pending_bytes;
        let mut store = home.open();
        for (at, part) in all.chunks(37).enumerate() {
            apply(&mut store, part.to_vec()).await;
            let applied = &all[..all.len().min(37 * (at + 1))];
            assert_like_model(&store, applied);
        }
        store.reader().verify().unwrap();
        drop(store);
        assert_like_model(&home.open(), &all);
    }
}

#[test]
fn a_newer_layer_hides_rows_below_it_also_while_it_is_written() {
    let home = Home::new();
    let store = home.open();
    let key = |n: u8| vec![0, 0, tables::LeaseEnded::TAG, n];
    let put = |n: u8, value: &'static str| (key(n), Some(Bytes::from_static(value.as_bytes())));
    let add = |rows: Vec<(Vec<u8>, Option<Bytes>)>| {
        let mut state = store.shared.state.write().unwrap();
        for (key, value) in rows {
            state.pending.add(key, value);
        }
    };
    add((1..6).map(|n| put(n, "disk")).collect());
    store.shared.write_pending().unwrap();
    add(vec![
        put(0, "under way"),
        put(2, "under way"),
        (key(3), None),
    ]);
    let writing = store.shared.state.write().unwrap().pending.begin();
    add(vec![
        (key(2), None),
        put(3, "waits"),
        put(5, "waits"),
        put(6, "waits"),
    ]);
    let seen = || {
        let mut seen = Vec::new();
        store.reader().read(|view, _, _| {
            view.scan(&key(0), &key(9), &mut |key, value| {
                assert_eq!(view.get(key).unwrap().as_deref(), Some(value));
                seen.push((key[3], String::from_utf8(value.to_vec()).unwrap()));
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
            assert_eq!(view.get(&key(2)).unwrap(), None);
        });
        seen
    };
    let expected = [
        (0, "under way"),
        (1, "disk"),
        (3, "waits"),
        (4, "disk"),
        (5, "waits"),
        (6, "waits"),
    ];
    let expected = expected.map(|(n, value)| (n, value.to_owned()));
    assert_eq!(seen(), expected);
    let database = store.shared.state().database.clone();
    let membership = StoredMembership::default();
    database.write(&writing, None, &membership).unwrap();
    store.shared.state.write().unwrap().pending.finish(&writing);
    assert_eq!(seen(), expected);
    store.shared.write_pending().unwrap();
    assert_eq!(seen(), expected);
}

#[tokio::test]
async fn a_restart_gives_back_what_was_applied() {
    let home = Home::new();
    let mut store = home.open();
    let membership = Membership::new_with_defaults(vec![[1, 2].into()], [1, 2, 3]);
    let change = Entry {
        log_id: log_id(1, 40),
        payload: EntryPayload::Membership(membership.clone()),
    };
    apply(
        &mut store,
        [claims(1..40), vec![change], claims(41..60)].concat(),
    )
    .await;
    let (before, meta) = (rows(&store), store.reader().meta());
    drop(store);
    let mut store = home.open();
    let stored = StoredMembership::new(Some(log_id(1, 40)), membership);
    assert_eq!(
        store.applied_state().await.unwrap(),
        (Some(log_id(1, 59)), stored.clone())
    );
    assert_eq!((rows(&store), store.reader().meta()), (before, meta));
    assert_eq!(store.reader().membership(), stored);
    let all = [claims(1..40), claims(41..70)].concat();
    apply(&mut store, claims(60..70)).await;
    assert_like_model(&store, &all);
    let sizes = store.reader().sizes();
    assert!(
        sizes.resident_rows > 0 && sizes.resident_bytes > 0,
        "{sizes:?}"
    );
}

#[tokio::test]
async fn an_entry_that_is_old_or_no_command_stops_the_store_and_does_nothing() {
    let home = Home::new();
    let mut store = home.open();
    apply(&mut store, claims(1..10)).await;
    let error = try_apply(&mut store, claims(9..10))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("entry 9 was to be applied behind 9"),
        "{error}"
    );
    let mut bad = claims(10..12);
    bad[1].payload = EntryPayload::Normal(Proposal::new(
        Timestamp(11),
        &Caller::Cluster.into(),
        b"garbage",
    ));
    let error = try_apply(&mut store, bad).await.unwrap_err().to_string();
    assert!(
        error.contains("entry 11 of the log is no command of this build"),
        "{error}"
    );
    // The entry before it stands; it has done nothing itself.
    assert_like_model(&store, &claims(1..11));
    assert_eq!(store.reader().applied(), Some(log_id(1, 10)));
}

#[tokio::test]
async fn notices_come_in_order_and_digests_are_kept() {
    let home = Home::new();
    let mut store = home.open();
    let mut entries = claims(1..3);
    entries.push(entry_of(3, &cluster::RecordDigest {}.into()));
    apply(&mut store, entries).await;
    let changes = std::mem::take(&mut *home.changes.lock().unwrap());
    let [
        StateChange::Applied {
            index: 3, notices, ..
        },
    ] = &changes[..]
    else {
        panic!("{changes:?}");
    };
    let indices: Vec<u64> = notices.iter().map(|entry| entry.index).collect();
    assert_eq!(indices, [1, 2, 3]);
    assert_eq!(notices[2].now, Timestamp(3));
    let digest = store.reader().meta().digest;
    assert_eq!(notices[2].notices, [Notice::DigestRecorded { digest }]);
    assert_eq!(store.reader().digests(), [(3, digest)]);
    for index in 4..104 {
        let record = entry_of(index, &cluster::RecordDigest {}.into());
        apply(&mut store, vec![record]).await;
    }
    let kept = store.reader().digests();
    assert_eq!((kept.len(), kept[0].0, kept[63].0), (64, 40, 103));
}

#[tokio::test]
async fn what_a_crash_leaves_is_removed_and_the_state_holds() {
    let home = Home::new();
    let mut store = home.open();
    apply(&mut store, claims(1..50)).await;
    let snapshot = build(&mut store).await.snapshot;
    let dir = home.dir().to_owned();
    // Died while it installed, before the switch; while it built, before and after the manifest.
    snapshot.link_to(&dir.join("state-2")).unwrap();
    snapshot.link_to(&dir.join("snapshots/making-7")).unwrap();
    snapshot.link_to(&dir.join("snapshots/77-1")).unwrap();
    fs::write(
        dir.join("snapshots/making-7/manifest"),
        snapshot.manifest().encode(),
    )
    .unwrap();
    fs::write(dir.join("current.tmp"), b"half").unwrap();
    drop((store, snapshot));
    let store = home.open();
    assert_like_model(&store, &claims(1..50));
    assert_eq!(home.names("snapshots"), ["49-1"]);
    assert!(!dir.join("state-2").exists());
}

#[tokio::test]
async fn damage_of_the_state_is_noticed() {
    let home = Home::new();
    let mut store = home.open();
    apply(&mut store, claims(1..50)).await;
    let state = home.dir().join("state-1");
    let (key, row) = rows(&store).pop().unwrap();
    drop(store);
    let db = KeyValue::open(&state, StateOptions::default().tuning()).unwrap();
    let mut row = row.to_vec();
    *row.last_mut().unwrap() ^= 1;
    let mut batch = db.batch();
    batch.put(key, row);
    db.write(batch, Durability::Logged).unwrap();
    drop(db);
    let error = home.open().reader().verify().unwrap_err().to_string();
    assert!(error.contains("its rows have digest"), "{error}");
    fs::write(home.dir().join("current"), b"1").unwrap();
    let Err(error) = home.try_open() else {
        panic!("a damaged pointer was taken");
    };
    assert!(
        error.to_string().contains("current: it does not match"),
        "{error}"
    );
}

fn identity() -> Identity {
    Identity {
        cluster_id: "c".to_owned(),
        node_id: 1,
        name: "n".to_owned(),
    }
}

/// A power cut may take the end of the log of a follower whose state was written before: Raft then
/// begins the log behind the state, and can go on from no snapshot before that.
#[tokio::test]
async fn a_snapshot_behind_a_state_that_is_ahead_of_its_log_is_dropped() {
    let temp = tempfile::tempdir().unwrap();
    let mut dir = DataDir::open(temp.path()).unwrap();
    dir.set_identity(identity()).unwrap();
    let options = StorageOptions::default();
    let open = || Storage::open(&dir, &options, Arc::new(|_| ())).unwrap();
    let newest = |storage: &Storage| {
        let snapshot = storage.state.reader().snapshot();
        snapshot.and_then(|data| data.manifest().meta.last_log_id)
    };
    let mut storage = open();
    apply(&mut storage.state, claims(1..10)).await;
    drop(build(&mut storage.state).await);
    drop(storage);
    let mut storage = open();
    assert_eq!(
        newest(&storage),
        Some(log_id(1, 9)),
        "it ends where the state does"
    );
    apply(&mut storage.state, claims(10..20)).await;
    drop(storage);
    let mut storage = open();
    assert_eq!(newest(&storage), None);
    assert_eq!(storage.state.reader().applied(), Some(log_id(1, 19)));
    drop(build(&mut storage.state).await);
    assert_eq!(newest(&storage), Some(log_id(1, 19)));
}

#[tokio::test]
async fn a_state_behind_the_purge_mark_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let mut dir = DataDir::open(temp.path()).unwrap();
    let options = StorageOptions::default();
    let open = |dir: &DataDir| Storage::open(dir, &options, Arc::new(|_| ()));
    let Err(error) = open(&dir) else {
        panic!("stores were opened for nobody");
    };
    assert!(error.to_string().contains("no identity"), "{error}");
    dir.set_identity(identity()).unwrap();
    let mut storage = open(&dir).unwrap();
    apply(&mut storage.state, claims(1..10)).await;
    storage.log.purge(log_id(1, 20)).await.unwrap();
    drop(storage);
    let Err(error) = open(&dir) else {
        panic!("a hole between log and state was not noticed");
    };
    let text = error.to_string();
    assert!(
        text.contains("reaches entry 9") && text.contains("purged up to 20"),
        "{text}"
    );
}

/// A measurement: `cargo test --release -- --ignored million`.
#[tokio::test]
#[ignore = "takes a minute"]
async fn a_million_leases_are_loaded_on_open() {
    let home = Home::new();
    let mut store = home.open();
    let owner = Owner::new(name("worker".to_owned()), name("boot".to_owned()));
    let start = std::time::Instant::now();
    for part in 0..1000 {
        let entries = (1..1001).map(|step| {
            let index = part * 1000 + step;
            let claim = Claim {
                key: name(format!("tenant/{}/lease/{index}", index % 97)),
                owner: owner.clone(),
                lease_token: LeaseToken::parse(format!("t{index}")).unwrap(),
                ttl_ms: 3_600_000,
                same_owner: SameOwner::Busy,
                metadata: vec![],
            };
            entry_of(index, &claim.into())
        });
        apply(&mut store, entries.collect()).await;
    }
    println!("applied in {:?}", start.elapsed());
    assert_eq!(store.reader().meta().leases, 1_000_000);
    println!("{:?}", store.reader().sizes());
    let start = std::time::Instant::now();
    drop(store);
    println!("closed in {:?}", start.elapsed());
    let start = std::time::Instant::now();
    let store = home.open();
    println!("opened in {:?}", start.elapsed());
    let start = std::time::Instant::now();
    store.reader().verify().unwrap();
    println!("verified in {:?}", start.elapsed());
}
