//! A table that rots after it was written: found when it is read, by whoever reads it.

use std::path::PathBuf;

use super::snapshots::transfer;
use super::*;

/// A claim of a key of its own, with metadata that fill many blocks.
fn wide(index: u64) -> Command {
    let owner = Owner::new(name("w".to_owned()), name("boot".to_owned()));
    let mut random = index;
    let mut next = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005) + 1;
        (random >> 56) as u8
    };
    Claim {
        key: name(format!("k{index}")),
        owner,
        lease_token: LeaseToken::parse(format!("t{index}")).unwrap(),
        ttl_ms: 1_000_000,
        same_owner: SameOwner::Fresh,
        metadata: (0..300).map(|_| next()).collect(),
    }
    .into()
}

/// A state with many rows, none of them in memory but for resident tables, and a flipped bit in the
/// first block of its one table.
async fn damaged(home: &Home) -> (StateStore, PathBuf) {
    let mut store = home.open();
    let entries = (1..1_000).map(|index| entry_of(index, &wide(index)));
    apply(&mut store, entries.collect()).await;
    store.reader().flush().unwrap();
    let tables = home.names("state-1");
    let mut tables = tables.iter().filter(|name| name.ends_with(".sst"));
    let table = home.dir().join("state-1").join(tables.next().unwrap());
    assert_eq!(tables.next(), None);
    let mut bytes = fs::read(&table).unwrap();
    bytes[100] ^= 1;
    // In place: snapshots are links to it.
    fs::write(&table, bytes).unwrap();
    (store, table)
}

#[tokio::test]
async fn a_row_that_cannot_be_read_stops_the_store_and_is_no_answer() {
    let home = Home::new();
    let (mut store, _) = damaged(&home).await;
    let failure = store.failure();
    assert_eq!(*failure.borrow(), None);
    let read = store.reader().read(|view, _, _| {
        let go_on = &mut |_: &[u8], _: &[u8]| std::ops::ControlFlow::Continue(());
        view.scan(&[], &[0xff], go_on)
    });
    let told = read.unwrap_err().to_string();
    assert!(
        told.contains("state-1") && told.contains("damaged"),
        "{told}"
    );
    let facts = failure.borrow().clone().expect("it has failed");
    assert!(
        facts.contains("state-1") && facts.contains("member replace"),
        "{facts}"
    );
    let refused = try_apply(&mut store, vec![entry_of(1_000, &wide(1_000))]).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("the store has stopped"), "{refused}");
}

#[tokio::test]
async fn a_snapshot_of_a_damaged_table_is_refused_and_stops_who_has_sent_it() {
    let (sender, receiver) = (Home::new(), Home::new());
    let (mut source, _) = damaged(&sender).await;
    // Its files are hashed as they are.
    let snapshot = build(&mut source).await.snapshot;
    snapshot.check_files().unwrap();
    let target = receiver.open();
    let received = transfer(&snapshot, &target);
    let refused = received.check_rows().unwrap_err().to_string();
    assert!(
        refused.contains("what is on this disk is damaged"),
        "{refused}"
    );
    drop(received);
    assert_eq!(receiver.names("snapshots"), [""; 0], "nothing is left");
    let failure = source.failure();
    assert_eq!(*failure.borrow(), None);
    source.reader().check_refused(&snapshot);
    let facts = failure.borrow().clone().expect("it has failed");
    assert!(facts.contains("snapshots"), "{facts}");
}

#[tokio::test]
async fn a_sound_snapshot_that_was_refused_stops_nobody() {
    let home = Home::new();
    let mut store = home.open();
    apply(&mut store, claims(1..50)).await;
    let snapshot = build(&mut store).await.snapshot;
    assert!(!snapshot.is_sound());
    for _ in 0..2 {
        store.reader().check_refused(&snapshot);
        assert!(snapshot.is_sound());
        assert_eq!(*store.failure().borrow(), None);
    }
}

#[tokio::test]
async fn a_state_without_its_pointer_is_refused_and_kept() {
    let home = Home::new();
    let mut store = home.open();
    apply(&mut store, claims(1..50)).await;
    drop(store);
    fs::remove_file(home.dir().join("current")).unwrap();
    fs::rename(home.dir().join("state-1"), home.dir().join("state-2")).unwrap();
    let Err(error) = home.try_open() else {
        panic!("an empty state took the place of the one that is there");
    };
    let text = error.to_string();
    assert!(text.contains("current: the file is missing"), "{text}");
    assert!(home.dir().join("state-2").exists());
}
