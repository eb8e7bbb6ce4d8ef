//! Reading a snapshot file, from the front; nothing in it is trusted.

use std::io::{ErrorKind, Read};

use quorate_statemachine::codec;

use super::{
    BLOCK_BYTES_MAX, BLOCK_HEADER_BYTES, Counter, EndBody, FORMAT_VERSION, FileError, Header,
    HeaderBody, KIND_END, KIND_HEADER, KIND_ROWS, MAGIC, Summary, checksum,
};
use crate::storage::decode_snapshot_meta;

/// Takes one row after the other, or says why it does not.
type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), FileError> + 'a;

/// Reads one block after the other, and checks each before it gives anything of it.
pub struct Reader<R> {
    input: R,
    header: Header,
    /// Where the present block begins.
    at: u64,
    /// Number of the present block.
    block: u64,
    body: Vec<u8>,
    counter: Counter,
}

/// Reads all of a file and says what is in it.
pub fn verify(input: impl Read) -> Result<(Header, Summary), FileError> {
    let mut reader = Reader::open(input)?;
    let header = reader.header().clone();
    loop {
        match reader.next_rows(&mut |_, _| Ok(()))? {
            Step::Rows => {}
            Step::End(summary) => return Ok((header, *summary)),
        }
    }
}

/// What a block was.
pub enum Step {
    /// Rows; there is more.
    Rows,
    /// The end: all of the file was read, and all of it fits.
    End(Box<Summary>),
}

impl<R: Read> Reader<R> {
    /// Reads the header.
    pub fn open(mut input: R) -> Result<Self, FileError> {
        let mut start = [0; MAGIC.len() + 1];
        let found = read_up_to(&mut input, &mut start)?;
        if start[..MAGIC.len()] != MAGIC {
            return Err(FileError::Foreign);
        }
        let at = found as u64;
        if found < start.len() {
            return Err(FileError::Short { at, block: 0 });
        }
        let version = start[MAGIC.len()];
        if version != FORMAT_VERSION {
            return Err(FileError::Version { found: version });
        }
        let empty = Header {
            build: String::new(),
            saved_at_ms: 0,
            node_id: 0,
            node_name: String::new(),
            cluster_id: String::new(),
            now_ms: 0,
            covers: Default::default(),
        };
        let mut reader = Self {
            input,
            header: empty,
            at,
            block: 0,
            body: Vec::new(),
            counter: Counter::default(),
        };
        let kind = reader.read_block()?;
        if kind != KIND_HEADER {
            return Err(reader.damaged("it is no header"));
        }
        reader.header = Header::from_body(&reader.body).map_err(|error| reader.damaged(error))?;
        reader.end_block();
        Ok(reader)
    }

    /// What the file is of.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Bytes read so far.
    pub fn bytes(&self) -> u64 {
        self.at
    }

    /// Gives the rows of the next block to `visit`.
    pub fn next_rows(&mut self, visit: &mut Visit<'_>) -> Result<Step, FileError> {
        match self.read_block()? {
            KIND_ROWS => {
                let body = std::mem::take(&mut self.body);
                let visited = self.visit_rows(&body, visit);
                self.body = body;
                visited?;
                self.end_block();
                Ok(Step::Rows)
            }
            KIND_END => self.end().map(Box::new).map(Step::End),
            KIND_HEADER => Err(self.damaged("it is a second header")),
            kind => Err(self.damaged(format!("its kind {kind} is unknown to this build"))),
        }
    }

    fn visit_rows(&mut self, mut body: &[u8], visit: &mut Visit<'_>) -> Result<(), FileError> {
        while !body.is_empty() {
            let Some((key, value)) = take_row(&mut body) else {
                return Err(self.damaged("it has a row that is not whole"));
            };
            let added = self.counter.add(key, value);
            added.map_err(|problem| self.damaged(problem))?;
            visit(key, value)?;
        }
        Ok(())
    }

    /// The end must tell of exactly what was read, and nothing may follow it.
    fn end(&mut self) -> Result<Summary, FileError> {
        let end: EndBody =
            codec::take_last(&self.body).map_err(|error| self.damaged(error.to_string()))?;
        if end.blocks != self.block + 1 {
            return Err(self.damaged(format!("it tells of {} blocks", end.blocks)));
        }
        let counter = std::mem::take(&mut self.counter);
        if end.tables != counter.tables || end.digest != counter.digest {
            return Err(self.damaged("it tells of other rows than those before it"));
        }
        let file_bytes = self.at + (BLOCK_HEADER_BYTES + self.body.len()) as u64;
        let summary = counter.finish(file_bytes);
        let summary = summary.map_err(|problem| self.damaged(problem))?;
        self.end_block();
        if read_up_to(&mut self.input, &mut [0])? > 0 {
            return Err(self.damaged("there are bytes behind the end"));
        }
        Ok(summary)
    }

    /// Reads a block into `body` and checks it; its kind.
    fn read_block(&mut self) -> Result<u8, FileError> {
        let mut head = [0; BLOCK_HEADER_BYTES];
        self.fill(0, &mut head)?;
        let [kind, a, b, c, d, crc @ ..] = head;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        if length > BLOCK_BYTES_MAX {
            return Err(self.damaged(format!(
                "it has {length} bytes, the limit is {BLOCK_BYTES_MAX}"
            )));
        }
        let mut body = std::mem::take(&mut self.body);
        body.resize(length, 0);
        let filled = self.fill(BLOCK_HEADER_BYTES, &mut body);
        self.body = body;
        filled?;
        if checksum(self.block, kind, &self.body) != u32::from_le_bytes(crc) {
            return Err(self.damaged("its checksum does not hold"));
        }
        Ok(kind)
    }

    fn fill(&mut self, before: usize, buffer: &mut [u8]) -> Result<(), FileError> {
        let found = read_up_to(&mut self.input, buffer)?;
        if found < buffer.len() {
            return Err(FileError::Short {
                at: self.at + (before + found) as u64,
                block: self.block,
            });
        }
        Ok(())
    }

    fn end_block(&mut self) {
        self.at += (BLOCK_HEADER_BYTES + self.body.len()) as u64;
        self.block += 1;
    }

    fn damaged(&self, problem: impl Into<String>) -> FileError {
        FileError::Damaged {
            block: self.block,
            at: self.at,
            problem: problem.into(),
        }
    }
}

impl Header {
    fn from_body(bytes: &[u8]) -> Result<Self, String> {
        let body: HeaderBody = codec::take_last(bytes).map_err(|error| error.to_string())?;
        let covers = decode_snapshot_meta(&body.covers).map_err(|error| error.to_string())?;
        Ok(Self {
            build: body.build,
            saved_at_ms: body.saved_at_ms,
            node_id: body.node_id,
            node_name: body.node_name,
            cluster_id: body.cluster_id,
            now_ms: body.now_ms,
            covers,
        })
    }
}

/// `[key length u16][value length u32][key][value]`
fn take_row<'a>(body: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let (key, rest) = body.split_first_chunk::<2>()?;
    let (value, rest) = rest.split_first_chunk::<4>()?;
    let key_bytes = usize::from(u16::from_le_bytes(*key));
    let value_bytes = u32::from_le_bytes(*value) as usize;
    let (key, rest) = rest.split_at_checked(key_bytes)?;
    let (value, rest) = rest.split_at_checked(value_bytes)?;
    *body = rest;
    Some((key, value))
}

/// Reads until the buffer is full or the input ends.
fn read_up_to(input: &mut impl Read, mut buffer: &mut [u8]) -> Result<usize, FileError> {
    let whole = buffer.len();
    while !buffer.is_empty() {
        match input.read(buffer) {
            Ok(0) => break,
            Ok(read) => buffer = &mut buffer[read..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(whole - buffer.len())
}
