//! A snapshot as one file: for backups, and to make a new cluster from.
//!
//! It holds rows, not files of RocksDB, so that it can be read by any build that knows its tables.
//! It is written and read from the front, in blocks of bounded size; nothing needs all of it in
//! memory.
//!
//! ```text
//! "QUORATE" [format version u8]
//! block*    [kind u8][length u32][crc32c u32][body]
//! ```
//!
//! Numbers are little endian. The checksum of a block covers its number (u64, from 0), kind, length
//! and body, so that blocks cannot be lost, doubled or swapped. The first block is the header, the
//! last one the end; those between hold rows, `[key length u16][value length u32][key][value]`, in
//! ascending order of their keys, the meta row first. The end says how many rows each table has and
//! the digest of all rows but the meta row, which must be the one that the meta row tells.
//!
//! A file without its end, with bytes behind it, or with anything that does not fit, is refused
//! with the place ([`FileError`]).

use std::collections::BTreeMap;
use std::io;

use quorate_rpc::NodeError;
use quorate_statemachine::digest::Digest;
use quorate_statemachine::tables::{self, MetaRow, Table};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::raft::SnapshotMeta;

mod read;
mod stream;
#[cfg(test)]
mod tests;
mod write;

pub use read::{Reader, Step, verify};
pub(crate) use stream::{PIECE_BYTES_MAX, Stream, stream};
pub use write::Writer;

/// The format that this build writes, and the only one it reads so far.
pub const FORMAT_VERSION: u8 = 1;

const MAGIC: [u8; 7] = *b"QUORATE";

const KIND_HEADER: u8 = 1;
const KIND_ROWS: u8 = 2;
const KIND_END: u8 = 3;

/// A block of rows is closed once it has so many bytes.
const BLOCK_BYTES: usize = 256 << 10;

/// Longest block that is read: one that was closed late by the largest row. A row holds less than
/// a command's 4 MiB; a reply that is remembered is the largest.
const BLOCK_BYTES_MAX: usize = BLOCK_BYTES + quorate_statemachine::limits::REPLY_BYTES_MAX + 4096;

/// Bytes in front of a block's body.
const BLOCK_HEADER_BYTES: usize = 9;

/// What a snapshot file is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Version of the build that wrote it.
    pub build: String,
    /// When, in Unix milliseconds by the clock of that node.
    pub saved_at_ms: u64,
    /// The node that wrote it.
    pub node_id: u64,
    /// Its name.
    pub node_name: String,
    /// The cluster.
    pub cluster_id: String,
    /// Cluster time of the last command that it covers.
    pub now_ms: u64,
    /// The last entry that it covers, and the members at that moment.
    pub covers: SnapshotMeta,
}

#[derive(Serialize, Deserialize)]
struct HeaderBody {
    build: String,
    saved_at_ms: u64,
    node_id: u64,
    node_name: String,
    cluster_id: String,
    now_ms: u64,
    covers: Vec<u8>,
}

/// Rows of one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TableSize {
    /// How many.
    pub rows: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
}

/// What a whole file holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary {
    /// By tag of the table.
    pub tables: BTreeMap<u8, TableSize>,
    /// Of all rows but the meta row.
    pub digest: Digest,
    /// Length of the file.
    pub file_bytes: u64,
    /// Counters and marks of the state.
    pub meta: MetaRow,
}

impl Summary {
    /// All rows.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.tables.values().map(|table| table.rows).sum()
    }
}

#[derive(Serialize, Deserialize)]
struct EndBody {
    blocks: u64,
    tables: BTreeMap<u8, TableSize>,
    digest: Digest,
}

/// Why a file is no snapshot, or not a whole one.
#[derive(Debug, Error)]
pub enum FileError {
    /// It is something else.
    #[error("it does not begin as a snapshot file of Quorate begins")]
    Foreign,
    /// Another build wrote it.
    #[error("it has format version {found}, this build reads {FORMAT_VERSION}; use another build")]
    Version {
        /// Its version.
        found: u8,
    },
    /// It is cut short.
    #[error("it ends at byte {at}, inside block {block}: it was cut short; take another copy")]
    Short {
        /// Where it ends.
        at: u64,
        /// The block that is not whole.
        block: u64,
    },
    /// It is not what was written.
    #[error("block {block} at byte {at}: {problem}; it is damaged, take another copy")]
    Damaged {
        /// The number of the block.
        block: u64,
        /// Where the block begins.
        at: u64,
        /// What is wrong.
        problem: String,
    },
    /// The state that it would be made of is not to be used.
    #[error(transparent)]
    Unsound(#[from] NodeError),
    /// It could not be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Counts rows as they go by, in the order in which they must come.
#[derive(Default)]
struct Counter {
    tables: BTreeMap<u8, TableSize>,
    digest: Digest,
    meta: Option<MetaRow>,
    last: Vec<u8>,
}

impl Counter {
    fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        if key <= self.last.as_slice() {
            return Err("its rows are not in order".to_owned());
        }
        self.last.clear();
        self.last.extend_from_slice(key);
        let tag = tables::tag_of(key).ok_or("it has a key that is too short")?;
        if key[..tables::PREFIX_BYTES - 1] != tables::NAMESPACE.to_be_bytes() {
            return Err("it has a key outside the namespace".to_owned());
        }
        if self.meta.is_none() {
            if key != tables::meta_key().bytes() {
                return Err("the meta row does not come first".to_owned());
            }
            let tag = tables::Meta::TAG.into();
            let meta = quorate_statemachine::codec::decode(tag, value);
            self.meta = Some(meta.map_err(|error| format!("the meta row: {error}"))?);
        } else {
            self.digest.replace(key, None, Some(value));
        }
        let table = self.tables.entry(tag).or_default();
        table.rows += 1;
        table.bytes += (key.len() + value.len()) as u64;
        Ok(())
    }

    /// What was counted, if it is what the meta row tells.
    fn finish(self, file_bytes: u64) -> Result<Summary, String> {
        let Some(meta) = self.meta else {
            return Err("there is no meta row".to_owned());
        };
        if meta.digest != self.digest {
            return Err(format!(
                "the rows have digest {}, the meta row says {}",
                self.digest, meta.digest
            ));
        }
        Ok(Summary {
            tables: self.tables,
            digest: self.digest,
            file_bytes,
            meta,
        })
    }
}

/// What the checksum of a block covers.
fn checksum(number: u64, kind: u8, body: &[u8]) -> u32 {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let crc = crc32c::crc32c(&number.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &[kind]);
    let crc = crc32c::crc32c_append(crc, &length.to_le_bytes());
    crc32c::crc32c_append(crc, body)
}
