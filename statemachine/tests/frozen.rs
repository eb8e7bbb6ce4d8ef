//! Bytes that are stored or sent never change: every command, row, reply, query and answer.
//!
//! `frozen.txt` holds a line of hex for each. A line that differs means that nodes of two builds,
//! or a node and its own disk, no longer understand each other. Never edit a line: a changed
//! operation gets a new tag, a changed row a new table. Only add lines, for what is new.

mod samples;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use quorate_statemachine::tables::REGISTRY;
use quorate_statemachine::{
    Answer, Command, Query, Reply, access, cluster, lease, lock, process, queue, session,
};

/// Everything pinned, by name.
fn actual() -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut add = |name: String, bytes: Vec<u8>| {
        assert!(
            all.insert(name.clone(), bytes).is_none(),
            "two samples are named {name}"
        );
    };
    for (name, command) in samples::commands() {
        add(format!("command {name}"), command.encode());
    }
    for (table, key, value) in [samples::rows(), samples::row_forms()].concat() {
        add(format!("key {table}"), key);
        add(format!("row {table}"), value);
    }
    for (name, reply) in samples::replies() {
        add(format!("reply {name}"), reply.encode());
    }
    for (name, query) in samples::queries() {
        add(format!("query {name}"), query.encode());
    }
    for (name, answer) in samples::answers() {
        add(format!("answer {name}"), answer.encode());
    }
    all
}

fn pinned() -> BTreeMap<String, Vec<u8>> {
    let lines = include_str!("frozen.txt")
        .lines()
        .filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let (name, hex) = line
                .split_once(": ")
                .expect("a line is a name and hex digits");
            (name.to_owned(), from_hex(hex))
        })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        write!(out, "{byte:02x}").expect("a String takes any text");
        out
    })
}

fn from_hex(hex: &str) -> Vec<u8> {
    let digits: Vec<char> = hex.chars().collect();
    let pairs = digits.chunks(2).map(|pair| pair.iter().collect::<String>());
    pairs
        .map(|pair| u8::from_str_radix(&pair, 16).expect("two hex digits"))
        .collect()
}

#[test]
fn bytes_are_those_pinned() {
    let (pinned, mut wrong) = (pinned(), String::new());
    let actual = actual();
    for (name, bytes) in &actual {
        match pinned.get(name) {
            Some(before) if before == bytes => {}
            Some(before) => {
                wrong += &format!("changed {name}: {} -> {}\n", hex(before), hex(bytes))
            }
            None => wrong += &format!("not pinned yet, add the line:\n{name}: {}\n", hex(bytes)),
        }
    }
    for name in pinned.keys().filter(|name| !actual.contains_key(*name)) {
        wrong += &format!("pinned and no longer made: {name}\n");
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn pinned_bytes_are_read_as_what_was_written() {
    let pinned = pinned();
    for (name, command) in samples::commands() {
        assert_eq!(
            Command::decode(&pinned[&format!("command {name}")]),
            Ok(command)
        );
    }
    for (name, reply) in samples::replies() {
        assert_eq!(Reply::decode(&pinned[&format!("reply {name}")]), Ok(reply));
    }
    for (name, query) in samples::queries() {
        assert_eq!(Query::decode(&pinned[&format!("query {name}")]), Ok(query));
    }
    for (name, answer) in samples::answers() {
        assert_eq!(
            Answer::decode(&pinned[&format!("answer {name}")]),
            Ok(answer)
        );
    }
}

fn operations() -> Vec<(u16, &'static str)> {
    [
        lease::Command::TAGS,
        queue::Command::TAGS,
        process::Command::TAGS,
        cluster::Command::TAGS,
        lock::Command::TAGS,
        session::Command::TAGS,
        access::Command::TAGS,
    ]
    .concat()
}

#[test]
fn every_operation_and_its_answer_are_pinned_under_their_tag() {
    let pinned = pinned();
    for (tag, name) in operations() {
        let command = &pinned[&format!("command {name}")];
        assert_eq!(
            command[1..3],
            tag.to_le_bytes(),
            "{name} stands under its tag"
        );
        assert!(
            pinned.contains_key(&format!("reply {name}")),
            "no reply to {name} is pinned"
        );
    }
    for (tag, table) in REGISTRY {
        assert_eq!(
            pinned[&format!("row {table}")][1..3],
            u16::from(*tag).to_le_bytes()
        );
        assert_eq!(pinned[&format!("key {table}")][2], *tag);
    }
}

#[test]
fn tags_and_names_are_used_once() {
    let operations = operations();
    let tags: BTreeSet<u16> = operations.iter().map(|(tag, _)| *tag).collect();
    let names: BTreeSet<&str> = operations.iter().map(|(_, name)| *name).collect();
    assert_eq!(
        (tags.len(), names.len()),
        (operations.len(), operations.len())
    );
    let tables: BTreeSet<u8> = REGISTRY.iter().map(|(tag, _)| *tag).collect();
    let names: BTreeSet<&str> = REGISTRY.iter().map(|(_, name)| *name).collect();
    assert_eq!(
        (tables.len(), names.len()),
        (REGISTRY.len(), REGISTRY.len())
    );
    assert!(REGISTRY.is_sorted(), "the registry is in tag order");
}

#[test]
fn a_nouns_tags_share_their_high_byte() {
    let nouns = [
        (0x01, lease::Command::TAGS),
        (0x02, queue::Command::TAGS),
        (0x03, process::Command::TAGS),
        (0x04, cluster::Command::TAGS),
        (0x05, lock::Command::TAGS),
        (0x06, session::Command::TAGS),
        (0x07, access::Command::TAGS),
    ];
    for (high, tags) in nouns {
        assert!(
            tags.iter().all(|(tag, _)| tag >> 8 == high),
            "{tags:?} start with {high}"
        );
    }
}
