//! Writing a snapshot file, from the front.

use std::io::{self, Write};

use quorate_statemachine::codec;

use super::{
    BLOCK_BYTES, BLOCK_HEADER_BYTES, Counter, EndBody, FORMAT_VERSION, FileError, Header,
    HeaderBody, KIND_END, KIND_HEADER, KIND_ROWS, MAGIC, Summary, checksum,
};
use crate::storage::encode_snapshot_meta;

/// Writes header, rows and end. Gives `out` one block at a time.
pub struct Writer<W> {
    out: W,
    /// Bytes written.
    at: u64,
    /// Number of the next block.
    block: u64,
    /// The present block, with room for its head.
    bytes: Vec<u8>,
    counter: Counter,
}

impl<W: Write> Writer<W> {
    /// Writes the header.
    pub fn new(mut out: W, header: &Header) -> Result<Self, FileError> {
        out.write_all(&MAGIC)?;
        out.write_all(&[FORMAT_VERSION])?;
        let mut writer = Self {
            out,
            at: MAGIC.len() as u64 + 1,
            block: 0,
            bytes: vec![0; BLOCK_HEADER_BYTES],
            counter: Counter::default(),
        };
        codec::put(&mut writer.bytes, &header.to_body());
        writer.end_block(KIND_HEADER)?;
        Ok(writer)
    }

    /// Adds a row. Rows come in ascending order of their keys.
    pub fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), FileError> {
        let added = self.counter.add(key, value);
        added.map_err(|problem| self.damaged(problem))?;
        let key_bytes = u16::try_from(key.len());
        let key_bytes = key_bytes.map_err(|_| self.damaged("its key is too long".to_owned()))?;
        let value_bytes = u32::try_from(value.len());
        let value_bytes =
            value_bytes.map_err(|_| self.damaged("its value is too long".to_owned()))?;
        self.bytes.extend_from_slice(&key_bytes.to_le_bytes());
        self.bytes.extend_from_slice(&value_bytes.to_le_bytes());
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        if self.bytes.len() >= BLOCK_BYTES {
            self.end_block(KIND_ROWS)?;
        }
        Ok(())
    }

    /// Writes the end, if the rows are those that the meta row tells of.
    pub fn finish(mut self) -> Result<(W, Summary), FileError> {
        if self.bytes.len() > BLOCK_HEADER_BYTES {
            self.end_block(KIND_ROWS)?;
        }
        let end = EndBody {
            blocks: self.block + 1,
            tables: self.counter.tables.clone(),
            digest: self.counter.digest,
        };
        codec::put(&mut self.bytes, &end);
        self.end_block(KIND_END)?;
        self.out.flush()?;
        let (block, at) = (self.block, self.at);
        let summary = self.counter.finish(at);
        let summary = summary.map_err(|problem| FileError::Damaged { block, at, problem })?;
        Ok((self.out, summary))
    }

    pub(super) fn end_block(&mut self, kind: u8) -> Result<(), FileError> {
        let (head, body) = self.bytes.split_at_mut(BLOCK_HEADER_BYTES);
        let crc = checksum(self.block, kind, body);
        let length = u32::try_from(body.len());
        let length = length.map_err(|_| io::Error::other("a block is too long"))?;
        head[0] = kind;
        head[1..5].copy_from_slice(&length.to_le_bytes());
        head[5..].copy_from_slice(&crc.to_le_bytes());
        self.out.write_all(&self.bytes)?;
        self.at += self.bytes.len() as u64;
        self.block += 1;
        self.bytes.truncate(BLOCK_HEADER_BYTES);
        Ok(())
    }

    fn damaged(&self, problem: String) -> FileError {
        FileError::Damaged {
            block: self.block,
            at: self.at,
            problem,
        }
    }
}

impl Header {
    fn to_body(&self) -> HeaderBody {
        HeaderBody {
            build: self.build.clone(),
            saved_at_ms: self.saved_at_ms,
            node_id: self.node_id,
            node_name: self.node_name.clone(),
            cluster_id: self.cluster_id.clone(),
            now_ms: self.now_ms,
            covers: encode_snapshot_meta(&self.covers),
        }
    }
}
