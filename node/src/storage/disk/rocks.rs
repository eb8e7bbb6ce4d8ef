//! Rows in RocksDB.

use std::path::Path;

use bytes::Bytes;
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DBIterator, Direction, IteratorMode, Options,
    ReadOptions, WriteBatch, WriteOptions,
};

use super::{DatabaseError, Durability, Tuning};

/// An open database.
pub struct KeyValue {
    db: DB,
    synced: WriteOptions,
    logged: WriteOptions,
    unlogged: WriteOptions,
}

/// Rows of a range.
pub type Rows<'a> = DBIterator<'a>;

impl From<rocksdb::Error> for DatabaseError {
    fn from(error: rocksdb::Error) -> Self {
        Self {
            damaged: is_damage(&error),
            message: error.into_string(),
        }
    }
}

/// Whether the disk holds something else than was written: a checksum does not hold, or a file is
/// gone that another one names.
fn is_damage(error: &rocksdb::Error) -> bool {
    use rocksdb::ErrorKind;
    match error.kind() {
        ErrorKind::Corruption | ErrorKind::NotFound => true,
        ErrorKind::IOError => error.as_ref().contains("No such file or directory"),
        _ => false,
    }
}

impl KeyValue {
    pub fn open(path: &Path, tuning: Tuning) -> Result<Self, DatabaseError> {
        Ok(Self::new(DB::open(&options(tuning), path)?))
    }

    pub fn open_read_only(path: &Path) -> Result<Self, DatabaseError> {
        let db = DB::open_for_read_only(&Options::default(), path, false)?;
        Ok(Self::new(db))
    }

    fn new(db: DB) -> Self {
        let (mut synced, mut unlogged) = (WriteOptions::default(), WriteOptions::default());
        synced.set_sync(true);
        unlogged.disable_wal(true);
        Self {
            db,
            synced,
            logged: WriteOptions::default(),
            unlogged,
        }
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, DatabaseError> {
        let row = self.db.get_pinned(key)?;
        Ok(row.map(|row| Bytes::copy_from_slice(&row)))
    }

    pub fn rows(&self, from: &[u8], to: Option<&[u8]>, readahead_bytes: usize) -> Rows<'_> {
        let mut options = ReadOptions::default();
        if let Some(to) = to {
            options.set_iterate_upper_bound(to);
        }
        options.set_readahead_size(readahead_bytes);
        let mode = IteratorMode::From(from, Direction::Forward);
        self.db.iterator_opt(mode, options)
    }

    pub fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), DatabaseError> {
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(to);
        let mut rows = self.db.raw_iterator_opt(options);
        rows.seek(from);
        while let Some((key, value)) = rows.item() {
            if !visit(key, value) {
                return Ok(());
            }
            rows.next();
        }
        Ok(rows.status()?)
    }

    pub fn write(&self, batch: WriteBatch, durability: Durability) -> Result<(), DatabaseError> {
        let options = match durability {
            Durability::Synced => &self.synced,
            Durability::Logged => &self.logged,
            Durability::Unlogged => &self.unlogged,
        };
        Ok(self.db.write_opt(batch, options)?)
    }

    pub fn flush(&self) -> Result<(), DatabaseError> {
        Ok(self.db.flush()?)
    }

    pub fn checkpoint(&self, path: &Path) -> Result<(), DatabaseError> {
        Ok(Checkpoint::new(&self.db)?.create_checkpoint(path)?)
    }

    pub fn drop_files(&self, from: &[u8], to: &[u8]) -> Result<(), DatabaseError> {
        Ok(self.db.delete_file_in_range(from, to)?)
    }

    pub fn rows_estimated(&self) -> u64 {
        self.property("rocksdb.estimate-num-keys")
    }

    pub fn table_bytes(&self) -> u64 {
        self.property("rocksdb.total-sst-files-size")
    }

    pub fn unflushed_bytes(&self) -> u64 {
        self.property("rocksdb.cur-size-all-mem-tables")
    }

    fn property(&self, name: &str) -> u64 {
        let value = self.db.property_int_value(name);
        value.ok().flatten().unwrap_or_default()
    }
}

fn options(tuning: Tuning) -> Options {
    let mut db = Options::default();
    db.create_if_missing(true);
    db.set_max_background_jobs(2);
    db.set_keep_log_file_num(2);
    db.set_max_log_file_size(4 << 20);
    match tuning {
        Tuning::Log { write_buffer_bytes } => {
            db.set_recycle_log_file_num(4);
            db.set_write_buffer_size(write_buffer_bytes);
            db.set_compression_type(DBCompressionType::None);
        }
        Tuning::State {
            write_buffer_bytes,
            block_cache_bytes,
        } => {
            let mut blocks = BlockBasedOptions::default();
            blocks.set_bloom_filter(10.0, false);
            blocks.set_block_cache(&Cache::new_lru_cache(block_cache_bytes));
            db.set_block_based_table_factory(&blocks);
            db.set_write_buffer_size(write_buffer_bytes);
            // Most lookups are for rows that are new: a filter in front of the memtable answers
            // them.
            db.set_memtable_whole_key_filtering(true);
            db.set_memtable_prefix_bloom_ratio(0.05);
            db.set_compression_type(DBCompressionType::Lz4);
        }
    }
    db
}
