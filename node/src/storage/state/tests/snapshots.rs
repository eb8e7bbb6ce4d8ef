//! Snapshots: made, sent, installed, damaged and dropped.

use super::*;

/// Sends every file, with an interruption in the middle of each.
pub(super) fn transfer(from: &SnapshotData, to: &StateStore) -> SnapshotData {
    let manifest = Manifest::decode(&from.manifest().encode()).unwrap();
    let mut receiver = to.reader().receiver(manifest.clone()).unwrap();
    while let Some((file, offset)) = receiver.next() {
        let file = file.to_owned();
        let chunk = from.read_chunk(&file, offset, 700).unwrap();
        receiver
            .write_chunk(&file, offset, &chunk.bytes, chunk.crc)
            .unwrap();
        let received = receiver.received_bytes();
        receiver = to.reader().receiver(manifest.clone()).unwrap();
        assert_eq!(
            receiver.received_bytes(),
            received,
            "it goes on where it stopped"
        );
    }
    receiver.finish().unwrap()
}

#[tokio::test]
async fn a_snapshot_that_was_sent_and_installed_is_the_same_state() {
    let (sender, receiver) = (Home::new(), Home::new());
    let mut source = sender.open();
    apply(&mut source, claims(1..200)).await;
    let snapshot = build(&mut source).await;
    assert_eq!(snapshot.meta.last_log_id, Some(log_id(1, 199)));
    apply(&mut source, claims(200..250)).await;

    let mut target = receiver.open();
    apply(&mut target, claims(1..5)).await;
    let received = transfer(&snapshot.snapshot, &target);
    target
        .install_snapshot(&snapshot.meta, received)
        .await
        .unwrap();
    assert_like_model(&target, &claims(1..200));
    let replaced = receiver.changes.lock().unwrap().pop();
    assert_eq!(replaced, Some(StateChange::Replaced { index: 199 }));
    let current = target.get_current_snapshot().await.unwrap().unwrap();
    assert_eq!(current.meta, snapshot.meta);
    drop(current);
    apply(&mut target, claims(200..250)).await;
    assert_eq!(rows(&target), rows(&source));
    assert_eq!(receiver.names("snapshots"), ["199-1"]);
    drop(target);
    let target = receiver.open();
    assert_like_model(&target, &claims(1..250));
    assert_eq!(receiver.names("."), ["current", "snapshots", "state-2"]);
    assert_eq!(
        target.reader().snapshot().unwrap().manifest().meta,
        snapshot.meta
    );
}

#[tokio::test]
async fn a_damaged_snapshot_is_refused_and_the_state_stays() {
    let (sender, receiver) = (Home::new(), Home::new());
    let mut source = sender.open();
    apply(&mut source, claims(1..200)).await;
    let snapshot = build(&mut source).await;
    let mut target = receiver.open();
    apply(&mut target, claims(1..5)).await;
    let before = rows(&target);

    let other = SnapshotMeta {
        last_log_id: Some(log_id(1, 300)),
        ..snapshot.meta.clone()
    };
    let received = transfer(&snapshot.snapshot, &target);
    let error = target
        .install_snapshot(&other, received)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("covers something else"), "{error}");

    let received = transfer(&snapshot.snapshot, &target);
    let table = received
        .manifest()
        .files
        .iter()
        .find(|file| file.name.ends_with(".sst"))
        .unwrap();
    let path = received.path().join(&table.name);
    let mut bytes = fs::read(&path).unwrap();
    bytes[40] ^= 1;
    fs::write(&path, bytes).unwrap();
    target
        .install_snapshot(&snapshot.meta, received)
        .await
        .unwrap_err();
    assert_eq!(
        (rows(&target), target.reader().applied()),
        (before, Some(log_id(1, 4)))
    );
    assert!(target.get_current_snapshot().await.unwrap().is_none());
    drop(target);
    assert_eq!(receiver.open().reader().applied(), Some(log_id(1, 4)));
    assert_eq!(receiver.names("."), ["current", "snapshots", "state-1"]);
}

#[tokio::test]
async fn a_receiver_drops_a_file_that_arrives_wrong_and_can_go_on() {
    let (sender, receiver) = (Home::new(), Home::new());
    let mut source = sender.open();
    apply(&mut source, claims(1..200)).await;
    let snapshot = build(&mut source).await.snapshot;
    let target = receiver.open();
    let mut taking: Receiver = target
        .reader()
        .receiver(snapshot.manifest().clone())
        .unwrap();
    let mut spoilt = false;
    while let Some((file, offset)) = taking.next() {
        let file = file.to_owned();
        let mut bytes = snapshot
            .read_chunk(&file, offset, 4096)
            .unwrap()
            .bytes
            .to_vec();
        if file.ends_with(".sst") && !spoilt {
            bytes[0] ^= 1;
            spoilt = true;
        }
        taking
            .write_chunk(&file, offset, &bytes, crc32c::crc32c(&bytes))
            .unwrap();
    }
    let error = taking.finish().unwrap_err().to_string();
    assert!(error.contains("does not match its checksum"), "{error}");
    drop(taking);
    transfer(&snapshot, &target);
}

#[tokio::test]
async fn an_older_snapshot_stays_while_it_is_used_and_then_goes() {
    let home = Home::new();
    let mut store = home.open();
    apply(&mut store, claims(1..50)).await;
    let old = build(&mut store).await;
    let again = build(&mut store).await;
    assert_eq!(
        again.snapshot.path(),
        old.snapshot.path(),
        "the same state is not built twice"
    );
    drop(again);
    apply(&mut store, claims(50..60)).await;
    let new = build(&mut store).await;
    assert_eq!(home.names("snapshots"), ["49-1", "59-1"]);
    let file = &old.snapshot.manifest().files[0];
    let chunk = old.snapshot.read_chunk(&file.name, 0, 10).unwrap();
    assert_eq!(crc32c::crc32c(&chunk.bytes), chunk.crc);
    drop(old);
    assert_eq!(home.names("snapshots"), ["59-1"]);
    drop(store);
    drop(new);
    assert_eq!(
        home.open().reader().snapshot().unwrap().path(),
        home.dir().join("snapshots/59-1")
    );
}
