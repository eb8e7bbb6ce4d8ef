//! What a simulated disk keeps, and what it loses.
#![allow(clippy::unwrap_used, reason = "here it fails the test")]

use std::collections::BTreeSet;
use std::io::Write;

use quorate_node::storage::disk::fs::{self, File, FileExt, OpenOptions};
use quorate_node::storage::disk::simulated::{Disk, Faults, attach, detach_all};

fn disk(seed: u64) -> Disk {
    let disk = Disk::new("/simulated/d", seed);
    detach_all();
    attach(&disk);
    disk
}

fn write(path: &str, bytes: &[u8]) -> File {
    let mut file = File::create(path).unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// The contents that are found over many seeds.
fn outcomes(make: impl Fn(&Disk), path: &str) -> BTreeSet<Option<Vec<u8>>> {
    let found = (0..200).map(|seed| {
        let disk = disk(seed);
        make(&disk);
        disk.cut();
        disk.start();
        fs::read(path).ok()
    });
    found.collect()
}

#[test]
fn what_is_synced_with_its_name_stays() {
    let found = outcomes(
        |_| {
            write("/simulated/d/a", b"abc").sync_all().unwrap();
            File::open("/simulated/d").unwrap().sync_all().unwrap();
        },
        "/simulated/d/a",
    );
    assert_eq!(found, BTreeSet::from([Some(b"abc".to_vec())]));
}

#[test]
fn a_name_that_is_not_synced_may_be_lost_and_a_content_torn() {
    let found = outcomes(|_| drop(write("/simulated/d/a", b"abc")), "/simulated/d/a");
    let prefix = |length: usize| Some(b"abc"[..length].to_vec());
    assert_eq!(
        found,
        BTreeSet::from([None, prefix(0), prefix(1), prefix(2), prefix(3)])
    );
}

#[test]
fn a_rename_over_a_file_leaves_one_of_the_two() {
    let found = outcomes(
        |_| {
            write("/simulated/d/a", b"old").sync_all().unwrap();
            File::open("/simulated/d").unwrap().sync_all().unwrap();
            write("/simulated/d/b", b"new").sync_all().unwrap();
            fs::rename("/simulated/d/b", "/simulated/d/a").unwrap();
        },
        "/simulated/d/a",
    );
    assert_eq!(
        found,
        BTreeSet::from([Some(b"old".to_vec()), Some(b"new".to_vec())])
    );
}

#[test]
fn a_write_in_place_is_whole_or_torn_and_leaves_the_rest_alone() {
    let found = outcomes(
        |_| {
            let file = write("/simulated/d/a", b"0123456789");
            file.sync_all().unwrap();
            File::open("/simulated/d").unwrap().sync_all().unwrap();
            file.write_all_at(b"xy", 4).unwrap();
        },
        "/simulated/d/a",
    );
    let wanted = [&b"0123456789"[..], b"0123x56789", b"0123xy6789"];
    assert_eq!(found, wanted.map(|bytes| Some(bytes.to_vec())).into());
}

#[test]
fn a_kill_loses_nothing_and_ends_every_handle() {
    let disk = disk(1);
    let file = write("/simulated/d/a", b"abc");
    disk.kill();
    assert!(fs::read("/simulated/d/a").is_err() && file.sync_all().is_err());
    disk.start();
    assert_eq!(fs::read("/simulated/d/a").unwrap(), b"abc");
    assert!(
        file.write_all_at(b"z", 0).is_err(),
        "it is of a process that is dead"
    );
}

#[test]
fn a_lock_ends_with_its_handle_and_with_its_process() {
    let disk = disk(1);
    let lock = || {
        OpenOptions::new()
            .create(true)
            .write(true)
            .open("/simulated/d/LOCK")
            .unwrap()
    };
    let first = lock();
    first.try_lock().unwrap();
    assert!(lock().try_lock().is_err());
    drop(first);
    let second = lock();
    second.try_lock().unwrap();
    disk.kill();
    disk.start();
    lock().try_lock().unwrap();
}

#[test]
fn a_full_disk_and_a_failing_sync_say_so() {
    let disk = disk(1);
    disk.set_faults(Faults {
        capacity_bytes: Some(4),
        ..Faults::default()
    });
    let mut file = write("/simulated/d/a", b"abc");
    let full = file.write_all(b"de").unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    disk.set_faults(Faults {
        failing_syncs: Some(1),
        ..Faults::default()
    });
    assert!(file.sync_all().is_err());
    assert_eq!(disk.counts().failed_syncs, 1);
}

#[test]
fn the_power_goes_at_the_operation_that_was_asked_for() {
    let disk = disk(1);
    disk.set_faults(Faults {
        cut_after: Some(2),
        ..Faults::default()
    });
    write("/simulated/d/a", b"abc");
    assert!(File::create("/simulated/d/b").is_err() && !disk.is_on());
}
