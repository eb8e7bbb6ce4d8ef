//! The bytes of a snapshot file are pinned, and none of them can change without notice.

use bytes::Bytes;
use quorate_statemachine::tables::meta_key;

use super::*;
use crate::raft::log_id;

fn header() -> Header {
    Header {
        build: "0.1.0".to_owned(),
        saved_at_ms: 7,
        node_id: 2,
        node_name: "n".to_owned(),
        cluster_id: "c".to_owned(),
        now_ms: 5,
        covers: SnapshotMeta {
            last_log_id: Some(log_id(3, 9)),
            last_membership: Default::default(),
        },
    }
}

fn rows() -> Vec<(Vec<u8>, Bytes)> {
    let mut digest = Digest::default();
    let mut rows: Vec<(Vec<u8>, Bytes)> = (0u8..4)
        .map(|n| (vec![0, 0, 0x10, n], Bytes::from(vec![n; 3])))
        .collect();
    for (key, value) in &rows {
        digest.replace(key, None, Some(value));
    }
    let meta = MetaRow {
        digest,
        ..MetaRow::default()
    };
    let value = quorate_statemachine::codec::encode(tables::Meta::TAG.into(), &meta);
    rows.insert(0, (meta_key().bytes().to_vec(), value.into()));
    rows
}

fn written() -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), &header()).expect("memory");
    for (key, value) in rows() {
        writer.row(&key, &value).expect("in order");
    }
    writer.finish().expect("whole").0
}

fn refusal(bytes: &[u8]) -> String {
    verify(bytes).expect_err("refused").to_string()
}

#[test]
fn a_file_is_read_back() {
    let bytes = written();
    let (found, summary) = verify(&bytes[..]).expect("whole");
    assert_eq!(found, header());
    assert_eq!(summary.file_bytes, bytes.len() as u64);
    assert_eq!(summary.rows(), 5);
    assert_eq!(summary.tables[&0x10], TableSize { rows: 4, bytes: 28 });
    let mut reader = Reader::open(&bytes[..]).expect("whole");
    let mut again = Vec::new();
    let mut keep = |key: &[u8], value: &[u8]| {
        again.push((key.to_vec(), Bytes::copy_from_slice(value)));
        Ok(())
    };
    while let Step::Rows = reader.next_rows(&mut keep).expect("whole") {}
    assert_eq!(again, rows());
}

#[test]
fn the_bytes_are_pinned() {
    let bytes = written();
    assert_eq!(&bytes[..8], b"QUORATE\x01");
    let header_bytes = [
        &[1u8][..],
        &[36, 0, 0, 0],
        &checksum(0, 1, &bytes[17..53]).to_le_bytes(),
        b"\x050.1.0\x07\x02\x01n\x01c\x05",
        &[22, 1, 1, 3, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0],
        &[1, 0, 0, 0],
    ];
    let pinned = header_bytes.concat();
    assert_eq!(bytes[8..8 + pinned.len()], pinned);
    let last = b"\x04\x00\x03\x00\x00\x00\x00\x00\x10\x03\x03\x03\x03";
    let at = bytes.windows(last.len()).position(|window| window == last);
    assert!(at.is_some(), "a row is lengths, key and value");
    assert_eq!(crc32c::crc32c(&bytes), 340_527_316, "all of it");
}

#[test]
fn no_bit_can_change_and_no_byte_can_go() {
    let good = written();
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            assert!(verify(&bad[..]).is_err(), "bit {bit} of byte {at}");
        }
        assert!(verify(&good[..at]).is_err(), "cut to {at} bytes");
    }
    let long = [&good[..], b"x"].concat();
    assert!(refusal(&long).contains("bytes behind the end"));
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let good = written();
    assert!(refusal(b"GIF89a...").contains("does not begin as a snapshot file"));
    assert!(refusal(b"QUORATE\x09").contains("format version 9"));
    let cut = refusal(&good[..good.len() - 1]);
    let place = format!("ends at byte {}, inside block 2", good.len() - 1);
    assert!(cut.contains(&place), "{cut}");
    let mut bad = good.clone();
    let end = good.len() - 1;
    bad[end] ^= 1;
    let text = refusal(&bad);
    assert!(text.contains("block 2 at byte"), "{text}");
    assert!(text.contains("checksum does not hold"), "{text}");
    let mut huge = good.clone();
    huge[9..13].copy_from_slice(&u32::MAX.to_le_bytes());
    let text = refusal(&huge);
    assert!(text.contains("4294967295 bytes, the limit is"), "{text}");
}

#[test]
fn blocks_cannot_be_swapped_or_left_out() {
    let mut writer = Writer::new(Vec::new(), &header()).expect("memory");
    let rows = rows();
    for (key, value) in &rows {
        writer.row(key, value).expect("in order");
        writer.end_block(KIND_ROWS).expect("memory");
    }
    let good = writer.finish().expect("whole").0;
    assert!(verify(&good[..]).is_ok());
    let block = |row: usize| BLOCK_HEADER_BYTES + 6 + rows[row].0.len() + rows[row].1.len();
    let first = 8 + BLOCK_HEADER_BYTES + 36 + block(0);
    let (one, two) = (first + block(1), first + block(1) + block(2));
    let swapped = [
        &good[..first],
        &good[one..two],
        &good[first..one],
        &good[two..],
    ]
    .concat();
    assert!(refusal(&swapped).contains("block 2"));
    let without = [&good[..first], &good[one..]].concat();
    assert!(refusal(&without).contains("block 2"));
}

#[test]
fn rows_that_do_not_fit_the_digest_are_not_written() {
    let mut writer = Writer::new(Vec::new(), &header()).expect("memory");
    for (key, value) in &rows()[..4] {
        writer.row(key, value).expect("in order");
    }
    let refused = writer.finish().expect_err("a row is missing").to_string();
    assert!(refused.contains("the meta row says"), "{refused}");
    let mut writer = Writer::new(Vec::new(), &header()).expect("memory");
    let (key, value) = &rows()[1];
    let refused = writer.row(key, value).expect_err("no meta row").to_string();
    assert!(
        refused.contains("meta row does not come first"),
        "{refused}"
    );
}
