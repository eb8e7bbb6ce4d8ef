//! Rows on a simulated disk: one table, a write-ahead log behind it, and the newest in memory.
//!
//! It promises what RocksDB promises and nothing more: a batch is there whole or not at all; a
//! synced one stays; of those that were only logged a first part stays after a power cut; of those
//! without a log only what was flushed stays. It flushes by itself now and then, as RocksDB does.
//!
//! | file | what |
//! |---|---|
//! | `CURRENT` | `[table u64][log u64][crc32c u32]`: their numbers, 0 for none |
//! | `<n>.sst` | `[key length u32][value length u32][key][value]`…`[crc32c u32]` |
//! | `<n>.log` | `[length u32][crc32c u32][batch]`…; what is torn at its end was not written |

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::super::{DatabaseError, Durability, Row, Tuning};
use super::{Disk, Handle};

/// One in so many writes without a log is followed by a flush, as if a buffer had filled.
const FLUSH_ONE_IN: u64 = 40;

type Map = BTreeMap<Vec<u8>, Bytes>;

/// Rows of a range, as they were.
pub struct Rows(std::vec::IntoIter<Row>);

impl Iterator for Rows {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        self.0.next()
    }
}

#[derive(Debug, Clone)]
enum Change {
    Put(Vec<u8>, Bytes),
    Delete(Vec<u8>),
    DeleteRange(Vec<u8>, Vec<u8>),
}

/// Changes that are made together.
#[derive(Debug, Clone, Default)]
pub struct Batch(Vec<Change>);

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        let value = Bytes::copy_from_slice(value.as_ref());
        self.0.push(Change::Put(key.as_ref().to_vec(), value));
    }

    pub fn delete(&mut self, key: impl AsRef<[u8]>) {
        self.0.push(Change::Delete(key.as_ref().to_vec()));
    }

    pub fn delete_range(&mut self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) {
        let (from, to) = (from.as_ref().to_vec(), to.as_ref().to_vec());
        self.0.push(Change::DeleteRange(from, to));
    }

    fn apply(self, rows: &mut Map) {
        for change in self.0 {
            match change {
                Change::Put(key, value) => drop(rows.insert(key, value)),
                Change::Delete(key) => drop(rows.remove(&key)),
                Change::DeleteRange(from, to) if from < to => {
                    let range = (Bound::Included(from), Bound::Excluded(to));
                    let gone: Vec<_> = rows.range(range).map(|(key, _)| key.clone()).collect();
                    gone.iter().for_each(|key| drop(rows.remove(key)));
                }
                Change::DeleteRange(..) => {}
            }
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for change in &self.0 {
            let (kind, first, second): (u8, &[u8], &[u8]) = match change {
                Change::Put(key, value) => (0, key, value),
                Change::Delete(key) => (1, key, &[]),
                Change::DeleteRange(from, to) => (2, from, to),
            };
            out.push(kind);
            put_pair(&mut out, first, second);
        }
        out
    }

    fn decode(mut bytes: &[u8]) -> Option<Self> {
        let mut changes = Vec::new();
        while let Some((kind, rest)) = bytes.split_first() {
            bytes = rest;
            let (first, second) = take_pair(&mut bytes)?;
            changes.push(match kind {
                0 => Change::Put(first.to_vec(), Bytes::copy_from_slice(second)),
                1 => Change::Delete(first.to_vec()),
                2 => Change::DeleteRange(first.to_vec(), second.to_vec()),
                _ => return None,
            });
        }
        Some(Self(changes))
    }
}

fn put_pair(out: &mut Vec<u8>, first: &[u8], second: &[u8]) {
    for part in [first, second] {
        let length = u32::try_from(part.len()).expect("a row is far below 4 GiB");
        out.extend_from_slice(&length.to_le_bytes());
    }
    out.extend_from_slice(first);
    out.extend_from_slice(second);
}

fn take_u32(bytes: &mut &[u8]) -> Option<usize> {
    let (number, rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    usize::try_from(u32::from_le_bytes(*number)).ok()
}

fn take_pair<'a>(bytes: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let (first, second) = (take_u32(bytes)?, take_u32(bytes)?);
    let (pair, rest) = bytes.split_at_checked(first.checked_add(second)?)?;
    *bytes = rest;
    Some(pair.split_at(first))
}

/// An open database.
pub struct KeyValue {
    disk: Disk,
    path: PathBuf,
    write_buffer_bytes: usize,
    memory: Mutex<Memory>,
}

struct Memory {
    rows: Arc<Map>,
    table: u64,
    log: u64,
    /// None while it is read only.
    log_file: Option<Handle>,
    log_bytes: u64,
    unlogged_bytes: usize,
    /// After a failed write nothing more is written, as in RocksDB.
    failed: bool,
}

fn failed(doing: &str) -> impl FnOnce(io::Error) -> DatabaseError {
    let doing = doing.to_owned();
    move |error| DatabaseError {
        message: format!("IO error: {doing}: {error}"),
        damaged: false,
    }
}

fn damaged(path: &Path) -> DatabaseError {
    DatabaseError {
        message: format!("Corruption: {} cannot be read", path.display()),
        damaged: true,
    }
}

impl KeyValue {
    pub fn open(disk: Disk, path: &Path, tuning: Tuning) -> Result<Self, DatabaseError> {
        disk.create_dir_all(path).map_err(failed("create"))?;
        let (Tuning::Log { write_buffer_bytes }
        | Tuning::State {
            write_buffer_bytes, ..
        }) = tuning;
        let memory = load(&disk, path)?;
        let this = Self {
            disk,
            path: path.to_owned(),
            write_buffer_bytes,
            memory: Mutex::new(memory),
        };
        // Everything in one table, and a log that is new: what is torn at the end of the old one
        // must not stand before what comes.
        this.rewrite(&mut this.memory()).map_err(failed("open"))?;
        Ok(this)
    }

    pub fn open_read_only(disk: Disk, path: &Path) -> Result<Self, DatabaseError> {
        let memory = load(&disk, path)?;
        if memory.table == 0 && memory.log == 0 {
            return Err(failed("open")(super::missing(&path.join("CURRENT"))));
        }
        Ok(Self {
            disk,
            path: path.to_owned(),
            write_buffer_bytes: 0,
            memory: Mutex::new(memory),
        })
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, DatabaseError> {
        Ok(self.memory().rows.get(key).cloned())
    }

    pub fn rows(&self, from: &[u8], to: Option<&[u8]>) -> Rows {
        let mut found = Vec::new();
        let rows = Arc::clone(&self.memory().rows);
        for (key, value) in rows.range::<[u8], _>((Bound::Included(from), Bound::Unbounded)) {
            if to.is_some_and(|to| &key[..] >= to) {
                break;
            }
            found.push((
                key.clone().into_boxed_slice(),
                value.to_vec().into_boxed_slice(),
            ));
        }
        Rows(found.into_iter())
    }

    pub fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), DatabaseError> {
        let rows = Arc::clone(&self.memory().rows);
        let from_on = rows.range::<[u8], _>((Bound::Included(from), Bound::Unbounded));
        for (key, value) in from_on {
            if &key[..] >= to || !visit(key, value) {
                break;
            }
        }
        Ok(())
    }

    pub fn write(&self, batch: Batch, durability: Durability) -> Result<(), DatabaseError> {
        let mut memory = self.memory();
        if memory.failed {
            let error = io::Error::other("an earlier write has failed");
            return Err(failed("write")(error));
        }
        let written = self.try_write(&mut memory, batch, durability);
        memory.failed = written.is_err();
        written.map_err(failed("write"))
    }

    fn try_write(
        &self,
        memory: &mut Memory,
        batch: Batch,
        durability: Durability,
    ) -> io::Result<()> {
        let body = batch.encode();
        if durability == Durability::Unlogged {
            // Without a log nothing on the disk is touched, but a dead process must not go on.
            self.disk.inner().check()?;
            memory.unlogged_bytes += body.len();
        } else {
            let mut record = Vec::new();
            let length = u32::try_from(body.len()).map_err(io::Error::other)?;
            record.extend_from_slice(&length.to_le_bytes());
            record.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
            record.extend_from_slice(&body);
            let file = memory.log_file.as_ref();
            let file = file.ok_or(io::ErrorKind::ReadOnlyFilesystem)?;
            file.write_at(&record, memory.log_bytes)?;
            memory.log_bytes += record.len() as u64;
            if durability == Durability::Synced {
                file.sync()?;
            }
        }
        batch.apply(Arc::make_mut(&mut memory.rows));
        let buffered = memory.unlogged_bytes + usize::try_from(memory.log_bytes).unwrap_or(0);
        let by_chance = durability == Durability::Unlogged && self.disk.one_in(FLUSH_ONE_IN);
        if by_chance || buffered > self.write_buffer_bytes {
            self.rewrite(memory)?;
        }
        Ok(())
    }

    pub fn flush(&self) -> Result<(), DatabaseError> {
        let mut memory = self.memory();
        if memory.failed {
            return Err(failed("flush")(io::Error::other(
                "an earlier write has failed",
            )));
        }
        let flushed = self.rewrite(&mut memory);
        memory.failed = flushed.is_err();
        flushed.map_err(failed("flush"))
    }

    /// All rows into a new table, with a new log behind it. The old ones are valid until `CURRENT`
    /// names the new ones durably.
    fn rewrite(&self, memory: &mut Memory) -> io::Result<()> {
        let (old_table, old_log) = (memory.table, memory.log);
        let table = old_table.max(old_log) + 1;
        let log = table + 1;
        write_new(
            &self.disk,
            &table_of(&self.path, table),
            &encode_rows(&memory.rows),
        )?;
        let log_file = self.disk.open(&log_of(&self.path, log), true, true)?;
        log_file.sync()?;
        write_current(&self.disk, &self.path, table, log)?;
        (memory.table, memory.log) = (table, log);
        (memory.log_bytes, memory.unlogged_bytes) = (0, 0);
        memory.log_file = Some(log_file);
        for old in [table_of(&self.path, old_table), log_of(&self.path, old_log)] {
            match self.disk.remove_file(&old) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    pub fn checkpoint(&self, path: &Path) -> Result<(), DatabaseError> {
        self.flush()?;
        let table = self.memory().table;
        let made = || {
            self.disk.create_dir_all(path)?;
            self.disk
                .hard_link(&table_of(&self.path, table), &table_of(path, table))?;
            write_current(&self.disk, path, table, 0)
        };
        made().map_err(failed("make a checkpoint"))
    }

    pub fn rows_estimated(&self) -> u64 {
        self.memory().rows.len() as u64
    }

    pub fn table_bytes(&self) -> u64 {
        let table = table_of(&self.path, self.memory().table);
        self.disk.len(&table).unwrap_or_default()
    }

    pub fn unflushed_bytes(&self) -> u64 {
        let memory = self.memory();
        memory.log_bytes + memory.unlogged_bytes as u64
    }
}

fn table_of(path: &Path, number: u64) -> PathBuf {
    path.join(format!("{number:06}.sst"))
}

fn log_of(path: &Path, number: u64) -> PathBuf {
    path.join(format!("{number:06}.log"))
}

fn write_new(disk: &Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = disk.open(path, true, true)?;
    file.write_at(bytes, 0)?;
    file.sync()
}

fn write_current(disk: &Disk, path: &Path, table: u64, log: u64) -> io::Result<()> {
    let mut bytes = [table.to_le_bytes(), log.to_le_bytes()].concat();
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    let fresh = path.join("CURRENT.dbtmp");
    write_new(disk, &fresh, &bytes)?;
    // The names of table and log are durable before the file that names them.
    disk.open(path, false, false)?.sync()?;
    disk.rename(&fresh, &path.join("CURRENT"))?;
    disk.open(path, false, false)?.sync()
}

fn encode_rows(rows: &Map) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in rows {
        put_pair(&mut out, key, value);
    }
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

fn decode_rows(bytes: &[u8]) -> Option<Map> {
    let mut body = checked(bytes)?;
    let mut rows = Map::new();
    while !body.is_empty() {
        let (key, value) = take_pair(&mut body)?;
        rows.insert(key.to_vec(), Bytes::copy_from_slice(value));
    }
    Some(rows)
}

/// What stands before a checksum that holds.
fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    (crc32c::crc32c(body) == u32::from_le_bytes(*crc)).then_some(body)
}

fn load(disk: &Disk, path: &Path) -> Result<Memory, DatabaseError> {
    let (table, log) = read_current(disk, path)?;
    let mut rows = Map::new();
    if table > 0 {
        let at = table_of(path, table);
        let bytes = disk.read(&at).map_err(failed("open"))?;
        rows = decode_rows(&bytes).ok_or_else(|| damaged(&at))?;
    }
    if log > 0 {
        let bytes = disk.read(&log_of(path, log)).map_err(failed("open"))?;
        replay(&bytes, &mut rows);
    }
    Ok(Memory {
        rows: Arc::new(rows),
        table,
        log,
        log_file: None,
        log_bytes: 0,
        unlogged_bytes: 0,
        failed: false,
    })
}

fn read_current(disk: &Disk, path: &Path) -> Result<(u64, u64), DatabaseError> {
    let at = path.join("CURRENT");
    let bytes = match disk.read(&at) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((0, 0)),
        read => read.map_err(failed("open"))?,
    };
    let numbers = checked(&bytes).and_then(|body| {
        let (table, rest) = body.split_first_chunk::<8>()?;
        let log = rest.first_chunk::<8>()?;
        Some((u64::from_le_bytes(*table), u64::from_le_bytes(*log)))
    });
    numbers.ok_or_else(|| damaged(&at))
}

/// Batches up to the first that is not whole.
fn replay(mut bytes: &[u8], rows: &mut Map) {
    let mut next = || {
        let length = take_u32(&mut bytes)?;
        let crc = take_u32(&mut bytes)?;
        let (body, rest) = bytes.split_at_checked(length)?;
        bytes = rest;
        let whole = crc32c::crc32c(body) as usize == crc;
        whole.then(|| Batch::decode(body)).flatten()
    };
    while let Some(batch) = next() {
        batch.apply(rows);
    }
}
