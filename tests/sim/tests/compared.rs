//! The simulated disk against RocksDB: the same operations and crashes, and the same rows behind
//! them.
//!
//! Run with `--features rocksdb`. `QUORATE_COMPARED_SEEDS=1000` makes it long.
#![cfg(feature = "rocksdb")]
#![allow(clippy::unwrap_used, reason = "here it fails the test")]

use std::collections::BTreeMap;
use std::fs;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use quorate_node::storage::disk::simulated::{Disk, Random, attach, detach_all};
use quorate_node::storage::disk::{Durability, KeyValue, Tuning, fs as files};

const SIMULATED: &str = "/simulated/disk/db";

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

const LOG: Tuning = Tuning::Log {
    write_buffer_bytes: 1 << 20,
};

const STATE: Tuning = Tuning::State {
    write_buffer_bytes: 1 << 20,
    block_cache_bytes: 1 << 20,
};

/// One database on each kind of disk, and what has been written to both.
struct Pair {
    home: tempfile::TempDir,
    lives: u64,
    /// Of this life. RocksDB writes its third log over the first one, whose length says nothing.
    flushes: u64,
    disk: Disk,
    tuning: Tuning,
    real: Option<KeyValue>,
    simulated: Option<KeyValue>,
    /// The rows behind each batch since the last that is safe, with the length of RocksDB's log
    /// there. The first is safe.
    steps: Vec<(Model, u64)>,
}

impl Pair {
    fn new(seed: u64, tuning: Tuning) -> Self {
        let disk = Disk::new("/simulated/disk", seed);
        detach_all();
        attach(&disk);
        // Neither kind of database makes the name of its directory durable.
        files::create_dir_all(SIMULATED).unwrap();
        files::File::open("/simulated/disk")
            .unwrap()
            .sync_all()
            .unwrap();
        let mut pair = Self {
            home: tempfile::tempdir().unwrap(),
            lives: 0,
            flushes: 0,
            disk,
            tuning,
            real: None,
            simulated: None,
            steps: vec![(Model::new(), 0)],
        };
        pair.open();
        pair
    }

    fn real_path(&self) -> PathBuf {
        self.home.path().join(format!("life-{}", self.lives))
    }

    fn open(&mut self) {
        self.simulated = Some(KeyValue::open(Path::new(SIMULATED), self.tuning).unwrap());
        self.real = Some(KeyValue::open(&self.real_path(), self.tuning).unwrap());
        self.flushes = 0;
        let rows = self.steps.pop().unwrap().0;
        self.steps = vec![(rows, self.log_bytes())];
    }

    fn both(&self) -> [&KeyValue; 2] {
        [
            self.real.as_ref().unwrap(),
            self.simulated.as_ref().unwrap(),
        ]
    }

    fn rows(&self) -> &Model {
        &self.steps.last().unwrap().0
    }

    /// The newest write-ahead log of RocksDB.
    fn log_of(dir: &Path) -> PathBuf {
        let files = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let logs = files.filter(|path| path.extension().is_some_and(|end| end == "log"));
        logs.max().unwrap()
    }

    fn log_bytes(&self) -> u64 {
        fs::metadata(Self::log_of(&self.real_path())).unwrap().len()
    }

    /// What is written so far is safe.
    fn all_safe(&mut self) {
        let last = self.steps.pop().unwrap();
        self.steps = vec![last];
    }

    fn write(&mut self, random: &mut Random, durability: Durability) {
        let mut rows = self.rows().clone();
        let (real, simulated) = (
            self.real.as_ref().unwrap(),
            self.simulated.as_ref().unwrap(),
        );
        let (mut one, mut other) = (real.batch(), simulated.batch());
        for _ in 0..=random.below(5) {
            let key = key(random);
            match random.below(5) {
                0 => {
                    rows.remove(&key);
                    one.delete(&key);
                    other.delete(&key);
                }
                1 => {
                    let to = key_behind(&key, random);
                    rows.retain(|row, _| *row < key || *row >= to);
                    one.delete_range(&key, &to);
                    other.delete_range(&key, &to);
                }
                _ => {
                    let value = vec![random.any() as u8; random.below(300) as usize];
                    one.put(&key, &value);
                    other.put(&key, &value);
                    rows.insert(key, value);
                }
            }
        }
        real.write(one, durability).unwrap();
        simulated.write(other, durability).unwrap();
        self.steps.push((rows, self.log_bytes()));
        if durability == Durability::Synced {
            self.all_safe();
        }
    }

    /// Both have exactly the rows that were written.
    fn compare(&self, random: &mut Random) {
        let (from, to) = (key(random), key(random));
        let bounds = (Bound::Included(from.clone()), Bound::Excluded(to.clone()));
        let wanted: Vec<_> = match from < to {
            true => self
                .rows()
                .range(bounds)
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect(),
            false => Vec::new(),
        };
        for db in self.both() {
            assert_eq!(&all(db), self.rows());
            let found: Vec<_> = db.rows(&from, Some(&to), 0).map(Result::unwrap).collect();
            let found: Vec<_> = found
                .iter()
                .map(|(k, v)| (k.to_vec(), v.to_vec()))
                .collect();
            assert_eq!(found, wanted);
            let one = db.get(&from).unwrap().map(|row| row.to_vec());
            assert_eq!(one.as_ref(), self.rows().get(&from));
            let mut count = 0;
            let visit = &mut |_: &[u8], _: &[u8]| {
                count += 1;
                count < 3
            };
            db.scan(&from, &to, visit).unwrap();
            assert_eq!(count, wanted.len().min(3));
        }
    }

    fn checkpoint(&mut self) {
        let real = self.home.path().join(format!("checkpoint-{}", self.lives));
        let simulated = Path::new("/simulated/disk/checkpoint");
        for (db, path) in self.both().into_iter().zip([real.as_path(), simulated]) {
            db.checkpoint(path).unwrap();
            let copy = KeyValue::open_read_only(path).unwrap();
            assert_eq!(&all(&copy), self.rows());
        }
        fs::remove_dir_all(&real).unwrap();
        files::remove_dir_all(simulated).unwrap();
        self.flushed();
    }

    fn flushed(&mut self) {
        self.flushes += 1;
        self.all_safe();
        let bytes = self.log_bytes();
        self.steps[0].1 = bytes;
    }

    /// The process dies: what RocksDB has given to the system stays.
    fn kill(&mut self, random: &mut Random) {
        self.disk.kill();
        self.rise(random, false);
    }

    /// The power goes.
    fn cut(&mut self, random: &mut Random) {
        self.disk.cut();
        self.rise(random, true);
    }

    /// Opens what a crash has left. Where the simulated disk has lost batches, RocksDB's log is cut
    /// off behind the same one, or in the middle of the next.
    fn rise(&mut self, random: &mut Random, power: bool) {
        self.simulated = None;
        self.disk.start();
        self.simulated = Some(KeyValue::open(Path::new(SIMULATED), self.tuning).unwrap());
        let found = all(self.simulated.as_ref().unwrap());
        let kept = self.steps.iter().rposition(|(rows, _)| *rows == found);
        let kept = kept.expect("the rows are those behind one of the batches");
        let logged = matches!(self.tuning, Tuning::Log { .. });
        assert!(
            power || !logged || kept + 1 == self.steps.len(),
            "a kill loses nothing logged"
        );

        let left = self.home.path().join(format!("life-{}", self.lives + 1));
        copy_dir(&self.real_path(), &left);
        if power && logged {
            let mut bytes = self.steps[kept].1;
            if let Some((_, next)) = self.steps.get(kept + 1) {
                bytes += random.below(next - bytes);
            }
            let log = fs::OpenOptions::new()
                .write(true)
                .open(Self::log_of(&left))
                .unwrap();
            log.set_len(bytes).unwrap();
        }
        self.real = None;
        (self.lives, self.flushes) = (self.lives + 1, 0);
        self.real = Some(KeyValue::open(&left, self.tuning).unwrap());
        let of_real = all(self.real.as_ref().unwrap());
        if logged {
            assert_eq!(
                of_real,
                found,
                "cut behind batch {kept} of {}",
                self.steps.len()
            );
        } else {
            // It has flushed when it was told to, and the other one sometimes by itself.
            assert_eq!(of_real, self.steps[0].0);
            self.level(&found, &of_real);
        }
        self.steps = vec![(found, self.log_bytes())];
    }

    /// Gives RocksDB the rows that the simulated database has more of.
    fn level(&self, wanted: &Model, found: &Model) {
        let real = self.real.as_ref().unwrap();
        let mut batch = real.batch();
        found.keys().for_each(|key| batch.delete(key));
        wanted.iter().for_each(|(key, value)| batch.put(key, value));
        real.write(batch, Durability::Unlogged).unwrap();
        real.flush().unwrap();
    }

    fn reopen(&mut self) {
        self.real = None;
        self.simulated = None;
        self.all_safe();
        if matches!(self.tuning, Tuning::State { .. }) {
            // A database that is closed flushes; the simulated one is never closed, only killed.
            return self.open_after_close();
        }
        self.open();
    }

    fn open_after_close(&mut self) {
        let rows = self.rows().clone();
        self.open();
        let of_simulated = all(self.simulated.as_ref().unwrap());
        let simulated = self.simulated.as_ref().unwrap();
        let mut batch = simulated.batch();
        of_simulated.keys().for_each(|key| batch.delete(key));
        rows.iter().for_each(|(key, value)| batch.put(key, value));
        simulated.write(batch, Durability::Unlogged).unwrap();
        simulated.flush().unwrap();
    }
}

fn key(random: &mut Random) -> Vec<u8> {
    let mut key = vec![random.below(4) as u8, random.below(12) as u8];
    key.truncate(1 + random.below(2) as usize);
    key
}

fn key_behind(key: &[u8], random: &mut Random) -> Vec<u8> {
    let mut to = key.to_vec();
    to.push(random.below(9) as u8);
    match random.chance(1, 2) {
        true => vec![key[0] + 1],
        false => to,
    }
}

fn all(db: &KeyValue) -> Model {
    let rows = db.rows(&[], None, 0).map(Result::unwrap);
    rows.map(|(key, value)| (key.to_vec(), value.to_vec()))
        .collect()
}

/// Copies what RocksDB has in its directory, as it is at one moment: threads of its own still work
/// there, so again until nothing has changed meanwhile.
fn copy_dir(from: &Path, to: &Path) {
    loop {
        let before = listed(from);
        fs::create_dir(to).unwrap();
        let copied = before.keys().all(|name| {
            let copied = fs::copy(from.join(name), to.join(name));
            name == "LOCK" || copied.is_ok()
        });
        if copied && listed(from) == before {
            return fs::remove_file(to.join("LOCK")).unwrap();
        }
        fs::remove_dir_all(to).unwrap();
    }
}

/// Files by name, with their sizes; but for the one in which RocksDB tells what it does.
fn listed(dir: &Path) -> BTreeMap<String, u64> {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    let files = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().unwrap();
        let size = entry.metadata().ok()?.len();
        (!name.starts_with("LOG")).then_some((name, size))
    });
    files.collect()
}

fn seeds() -> u64 {
    let given = std::env::var("QUORATE_COMPARED_SEEDS");
    given.ok().and_then(|text| text.parse().ok()).unwrap_or(20)
}

fn run(seed: u64, tuning: Tuning) {
    let mut random = Random::new(seed);
    let mut pair = Pair::new(seed, tuning);
    let logged = matches!(tuning, Tuning::Log { .. });
    for _ in 0..120 {
        let durability = match (logged, random.chance(1, 3)) {
            (false, _) => Durability::Unlogged,
            (true, true) => Durability::Synced,
            (true, false) => Durability::Logged,
        };
        match random.below(20) {
            0 => pair.reopen(),
            1 => pair.kill(&mut random),
            2 | 3 => pair.cut(&mut random),
            4 | 5 if logged && pair.flushes > 0 => {}
            4 => pair.checkpoint(),
            5 => {
                for db in pair.both() {
                    db.flush().unwrap();
                }
                pair.flushed();
            }
            _ => pair.write(&mut random, durability),
        }
        pair.compare(&mut random);
    }
}

#[test]
fn a_log_loses_what_rocksdb_loses() {
    (0..seeds()).for_each(|seed| run(seed, LOG));
}

#[test]
fn a_state_keeps_what_was_flushed() {
    (0..seeds()).for_each(|seed| run(seed, STATE));
}
