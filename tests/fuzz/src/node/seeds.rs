//! What a fuzzer starts from: a message for every method with every field set, a file, an entry.

use prost::encoding::{WireType, encode_key, encode_varint};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto};
use quorate_node::snapshot_file::{Header, Writer};
use quorate_node::storage::{FileEntry, Manifest};
use quorate_statemachine::digest::Digest;
use quorate_statemachine::tables::{Meta, MetaRow, Table, meta_key};

use super::rpc::{DESCRIPTORS, METHODS};

/// By name.
pub type Seeds = Vec<(String, Vec<u8>)>;

/// Messages in messages: deeper ones are left empty.
const DEPTH_MAX: u32 = 5;

/// Bytes for fields that hold more than text, by name.
pub struct Known<'a>(pub &'a [(&'static str, Vec<u8>)]);

/// For every method, a message with every field, and one for each single field of its message.
pub fn rpc(known: &Known<'_>) -> Seeds {
    let mut seeds = Vec::new();
    for method in METHODS.iter() {
        let message = find(&method.input);
        let start = [&method.key.to_le_bytes()[..], &[0]].concat();
        let name = method.path.trim_start_matches('/').replace('/', ".");
        let whole = known.message(message, 0);
        seeds.push((name.clone(), [&start[..], &whole].concat()));
        for field in &message.field {
            let one = known.field(field, 0);
            let name = format!("{name}.{}", field.name());
            seeds.push((name, [&start[..], &one].concat()));
        }
    }
    seeds
}

/// The type of this full name: `.package.Message`.
fn find(name: &str) -> &'static DescriptorProto {
    let found = DESCRIPTORS.file.iter().find_map(|file| {
        let own = name.strip_prefix(&format!(".{}.", file.package()))?;
        nested(&file.message_type, own)
    });
    found.unwrap_or_else(|| panic!("no descriptor of {name}"))
}

fn nested<'a>(among: &'a [DescriptorProto], name: &str) -> Option<&'a DescriptorProto> {
    let (first, rest) = name.split_once('.').unwrap_or((name, ""));
    let found = among.iter().find(|message| message.name() == first)?;
    match rest {
        "" => Some(found),
        rest => nested(&found.nested_type, rest),
    }
}

impl Known<'_> {
    fn message(&self, message: &DescriptorProto, depth: u32) -> Vec<u8> {
        let fields = message.field.iter().map(|field| self.field(field, depth));
        fields.collect::<Vec<_>>().concat()
    }

    fn field(&self, field: &FieldDescriptorProto, depth: u32) -> Vec<u8> {
        let known = self.0.iter().find(|(name, _)| *name == field.name());
        let mut out = Vec::new();
        let number = field.number().unsigned_abs();
        let bytes = match field.r#type() {
            Type::String => Some(known.map_or_else(|| b"a".to_vec(), |(_, bytes)| bytes.clone())),
            Type::Bytes => Some(known.map_or_else(|| vec![1; 16], |(_, bytes)| bytes.clone())),
            Type::Message if depth < DEPTH_MAX => {
                Some(self.message(find(field.type_name()), depth + 1))
            }
            Type::Message => Some(Vec::new()),
            _ => None,
        };
        match (bytes, field.label()) {
            (Some(bytes), _) => put_bytes(&mut out, number, &bytes),
            (None, Label::Repeated) => put_bytes(&mut out, number, &[1]),
            (None, _) => {
                encode_key(number, WireType::Varint, &mut out);
                encode_varint(1, &mut out);
            }
        }
        out
    }
}

fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// A manifest of two files.
pub fn manifest() -> Manifest {
    let file = |name: &str| FileEntry {
        name: name.to_owned(),
        size: 3,
        checksum: 9,
    };
    Manifest {
        meta: Default::default(),
        files: vec![file("CURRENT"), file("000012.sst")],
    }
}

/// A snapshot's file of a few rows.
pub fn snapshot_file() -> Vec<u8> {
    let header = Header {
        build: "0.1.0".to_owned(),
        saved_at_ms: 7,
        node_id: 2,
        node_name: "n".to_owned(),
        cluster_id: "c".to_owned(),
        now_ms: 5,
        covers: Default::default(),
    };
    let rows = (1..5u8).map(|number| ([0, 0, 0x10, number], [number; 3]));
    let mut meta = MetaRow {
        digest: Digest::default(),
        ..MetaRow::default()
    };
    for (key, value) in rows.clone() {
        meta.digest.replace(&key, None, Some(&value));
    }
    let meta = quorate_statemachine::codec::encode(Meta::TAG.into(), &meta);
    let mut writer = Writer::new(Vec::new(), &header).expect("memory");
    writer
        .row(meta_key().bytes(), &meta)
        .expect("it comes first");
    for (key, value) in rows {
        writer.row(&key, &value).expect("in order");
    }
    writer.finish().expect("whole").0
}
