//! Target `snapshot`: a backup's file, the manifest of a snapshot between nodes, and its chunks as
//! a receiver takes them. What lies in front of a checksum is given a right one, or the fuzzer
//! would never come past it.

use std::collections::BTreeMap;
use std::path::Path;

use arbitrary::Unstructured;
use quorate_node::snapshot_file::{Reader, Step, Writer, verify};
use quorate_node::storage::{FileEntry, Manifest, ReceiveError, Receiver};
use tempfile::TempDir;
use xxhash_rust::xxh3::xxh3_64;

/// "QUORATE" and the version.
const START: usize = 8;

/// Kind, length and checksum.
const BLOCK_HEAD: usize = 9;

/// Steps of one transfer.
const STEPS_MAX: usize = 32;

/// Runs one input: its first byte says what the others are.
pub fn run(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else {
        return;
    };
    match kind % 4 {
        0 => file(bytes),
        1 => file(&with_checksums(bytes)),
        2 => manifest(bytes),
        _ => transfer(bytes).expect("a transfer of made up files"),
    }
}

/// A whole file is written again as it is.
fn file(bytes: &[u8]) {
    let Ok((header, summary)) = verify(bytes) else {
        return;
    };
    assert_eq!(summary.file_bytes, bytes.len() as u64);
    let mut writer = Writer::new(Vec::new(), &header).expect("memory");
    let mut reader = Reader::open(bytes).expect("it was read before");
    let mut copy = |key: &[u8], value: &[u8]| writer.row(key, value);
    while let Step::Rows = reader.next_rows(&mut copy).expect("it was read before") {}
    let (written, _) = writer.finish().expect("the rows are those of a whole file");
    let again = verify(&written[..]).expect("just written");
    assert_eq!((again.0, again.1.digest), (header, summary.digest));
}

/// The bytes as a file whose blocks are all as long as they say and have the checksums of what is
/// in them.
fn with_checksums(bytes: &[u8]) -> Vec<u8> {
    let mut file = bytes.to_vec();
    let (mut at, mut number) = (START, 0u64);
    while file.len() >= at + BLOCK_HEAD {
        let length = file[at + 1..at + 5].first_chunk().expect("four bytes");
        let length = u32::from_le_bytes(*length) as usize;
        let body = at + BLOCK_HEAD;
        let Some(end) = body.checked_add(length).filter(|end| *end <= file.len()) else {
            break;
        };
        let crc = crc32c::crc32c(&number.to_le_bytes());
        let crc = crc32c::crc32c_append(crc, &file[at..at + 5]);
        let crc = crc32c::crc32c_append(crc, &file[body..end]);
        file[at + 5..body].copy_from_slice(&crc.to_le_bytes());
        (at, number) = (end, number + 1);
    }
    file
}

fn manifest(bytes: &[u8]) {
    let _ = Manifest::decode(bytes);
    let whole = [bytes, &xxh3_64(bytes).to_le_bytes()].concat();
    let Ok(manifest) = Manifest::decode(&whole) else {
        return;
    };
    let _ = manifest.total_bytes();
    let written = manifest.encode();
    assert!(written.len() <= whole.len());
    assert_eq!(Manifest::decode(&written), Ok(manifest));
}

/// A snapshot that a fuzzer sends, and what the receiver must have of it.
struct Sender<'a, 'b> {
    bytes: &'a mut Unstructured<'b>,
    manifest: Manifest,
    /// What was taken of each file: of some files, all that can be taken is known.
    taken: BTreeMap<String, Vec<u8>>,
}

fn transfer(bytes: &[u8]) -> arbitrary::Result<()> {
    let temp = folder();
    let mut bytes = Unstructured::new(bytes);
    let names = ["CURRENT", "1.sst", "2.sst", "OPTIONS-1"];
    let count = bytes.int_in_range(0..=names.len())?;
    let file = |bytes: &mut Unstructured<'_>, name: &str| {
        let size = *bytes.choose(&[0, 1, 3, 8, 1 << 40, u64::MAX])?;
        // Right only if all its bytes are 7.
        let checksum = xxh3_64(&vec![7; size.min(8) as usize]);
        let name = name.to_owned();
        arbitrary::Result::Ok(FileEntry {
            name,
            size,
            checksum,
        })
    };
    let files = names[..count].iter().map(|name| file(&mut bytes, name));
    let manifest = Manifest {
        meta: Default::default(),
        files: files.collect::<Result<_, _>>()?,
    };
    let mut sender = Sender {
        bytes: &mut bytes,
        manifest,
        taken: BTreeMap::new(),
    };
    sender.send(temp.path())
}

/// On memory if there is a disk of it.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    made.expect("a directory")
}

impl Sender<'_, '_> {
    fn send(&mut self, folder: &Path) -> arbitrary::Result<()> {
        let open = |manifest: &Manifest| Receiver::new(folder, manifest.clone());
        let mut receiver = open(&self.manifest).expect("a receiver of any manifest");
        for _ in 0..STEPS_MAX {
            if self.bytes.is_empty() {
                break;
            }
            match self.bytes.int_in_range(0..=9)? {
                0 => receiver = open(&self.manifest).expect("it goes on"),
                1 => {
                    if self.finished(&mut receiver) {
                        return Ok(());
                    }
                }
                _ => self.chunk(&mut receiver)?,
            }
            self.check(&receiver);
        }
        Ok(())
    }

    fn chunk(&mut self, receiver: &mut Receiver) -> arbitrary::Result<()> {
        let name = *self
            .bytes
            .choose(&["CURRENT", "1.sst", "2.sst", "OPTIONS-1", "../x"])?;
        let have = self.taken.get(name).map_or(0, Vec::len) as u64;
        let offset = *self.bytes.choose(&[have, 0, have + 1, 1, u64::MAX])?;
        let length = self.bytes.int_in_range(0..=4)?;
        let data = vec![*self.bytes.choose(&[7, 8])?; length];
        let right = self.bytes.ratio(7, 8)?;
        let crc = crc32c::crc32c(&data) ^ u32::from(!right);
        let taken = receiver.write_chunk(name, offset, &data, crc);
        let Ok(()) = taken else {
            assert!(!matches!(taken, Err(ReceiveError::Storage(_))), "{taken:?}");
            return Ok(());
        };
        assert!(
            right && offset <= have,
            "{name} has {have} bytes, and took {offset}"
        );
        let file = self.taken.entry(name.to_owned()).or_default();
        let (offset, end) = (offset as usize, offset as usize + length);
        file.resize(file.len().max(end), 0);
        file[offset..end].copy_from_slice(&data);
        Ok(())
    }

    /// Whether it is whole; then it is what was sent, and of the right checksum.
    fn finished(&mut self, receiver: &mut Receiver) -> bool {
        match receiver.finish() {
            Ok(data) => {
                for file in &self.manifest.files {
                    let sent = self.taken.get(&file.name).cloned().unwrap_or_default();
                    assert_eq!(
                        (file.size, file.checksum),
                        (sent.len() as u64, xxh3_64(&sent))
                    );
                    let read = data.read_chunk(&file.name, 0, 16).expect("it is there");
                    assert_eq!(read.bytes, sent);
                }
                true
            }
            Err(ReceiveError::Corrupt { file }) => {
                self.taken.remove(&file);
                false
            }
            Err(error) => {
                assert!(matches!(error, ReceiveError::Incomplete { .. }), "{error}");
                false
            }
        }
    }

    fn check(&self, receiver: &Receiver) {
        let taken: usize = self.taken.values().map(Vec::len).sum();
        assert_eq!(receiver.received_bytes(), taken as u64);
        if let Some((name, from)) = receiver.next() {
            let have = self.taken.get(name).map_or(0, Vec::len);
            assert_eq!(from, have as u64, "where {name} goes on");
        }
    }
}
