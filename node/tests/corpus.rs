//! The inputs that fuzzing has kept, run once more: what was mended stays mended.

#[path = "../../tests/fuzz/src/corpus.rs"]
mod corpus;
#[path = "../../tests/fuzz/src/node/mod.rs"]
mod node;

use node::seeds::{self, Known, Seeds};
use openraft::EntryPayload;
use quorate_node::origin::{Caller, Origin};
use quorate_node::raft::{Entry, Proposal, log_id};
use quorate_node::storage::{
    encode_entry, encode_log_id, encode_snapshot_meta, encode_stored_membership, encode_vote,
};
use quorate_statemachine::{Command, Name, Query, Timestamp, cluster, lease};

fn command() -> Vec<u8> {
    Command::from(cluster::Tick {}).encode()
}

fn entry() -> Vec<u8> {
    let origin = Origin::from(Caller::Named("ci".into()));
    let proposal = Proposal::new(Timestamp(5), &origin, &command());
    let entry = Entry {
        log_id: log_id(3, 258),
        payload: EntryPayload::Normal(proposal),
    };
    encode_entry(&entry).into()
}

fn entries() -> Seeds {
    let blank = Entry {
        log_id: log_id(3, 258),
        payload: EntryPayload::Blank,
    };
    let all = [
        ("command", entry()),
        ("blank", encode_entry(&blank).into()),
        ("vote", encode_vote(&quorate_node::raft::Vote::new(7, 2))),
        ("log-id", encode_log_id(&log_id(7, 2))),
        ("membership", encode_stored_membership(&Default::default())),
        ("meta", encode_snapshot_meta(&Default::default())),
        ("members", MEMBERS.to_vec()),
    ];
    all.map(|(name, bytes)| (name.to_owned(), bytes)).into()
}

/// A stored membership: two members, one of which is to vote.
const MEMBERS: &[u8] =
    b"\x01\x00\x01\x01\x01\x02\x01\x01a\x01p\x01c\x01h\x02\x01b\x01p\x01c\x01h\x01\x02\x00";

fn of_kind(kind: u8, bytes: &[u8]) -> Vec<u8> {
    [&[kind], bytes].concat()
}

#[test]
fn bytes_of_a_log_are_survived() {
    corpus::replay("entries", entries(), node::entries::run);
}

#[test]
fn bytes_of_snapshots_are_survived() {
    let manifest = seeds::manifest().encode();
    let seeds = vec![
        ("file".to_owned(), of_kind(0, &seeds::snapshot_file())),
        ("blocks".to_owned(), of_kind(1, &seeds::snapshot_file())),
        (
            "manifest".to_owned(),
            of_kind(2, &manifest[..manifest.len() - 8]),
        ),
        ("transfer".to_owned(), of_kind(3, &[9; 200])),
    ];
    corpus::replay("snapshot", seeds, node::snapshot::run);
}

#[test]
fn every_method_survives_what_it_is_sent() {
    let key = Name::parse("key", "a").expect("a short name");
    let query = Query::Lease(lease::Query::Get(lease::Get { key })).encode();
    let known = Known(&[
        ("command", command()),
        ("query", query),
        ("manifest", seeds::manifest().encode()),
        ("entries", entry()),
    ]);
    corpus::replay("rpc", seeds::rpc(&known), node::rpc::run);
}

#[test]
fn no_bytes_on_a_connection_end_the_node() {
    let settings = b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x01";
    let ping = b"\0\0\x08\x06\0\0\0\0\x01\0\0\0\0\0\0\0\0";
    let goaway = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let headers = b"\0\0\x03\x01\x05\0\0\0\x01\x83\x86\x84";
    let frames = [&settings[..], ping, headers, goaway];
    let seeds = frames.iter().enumerate().flat_map(|(at, frame)| {
        let port = |port| (format!("frame-{at}-{port}"), of_kind(port, frame));
        [port(0), port(1), port(2)]
    });
    corpus::replay("h2", seeds.collect(), node::h2::run);
}

#[test]
fn no_request_of_http_ends_the_node() {
    let paths = [
        "livez?verbose",
        "readyz?verbose&exclude=leader",
        "version",
        "metrics",
        "console/",
        "console/live?prefix=a",
        "console/key?of=a",
        "console/process?of=a",
        "console/queue?of=a",
    ];
    let mut seeds: Seeds = paths
        .iter()
        .enumerate()
        .fold(Vec::new(), |mut all, (at, path)| {
            all.push((format!("path-{at}"), of_kind(1, path.as_bytes())));
            all
        });
    let post = b"POST /console/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\na";
    let chunked = b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n";
    seeds.push(("post".to_owned(), of_kind(0, post)));
    seeds.push(("chunked".to_owned(), of_kind(0, chunked)));
    corpus::replay("http", seeds, node::http::run);
}
