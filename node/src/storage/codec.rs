//! Bytes of entries, votes, log ids and memberships, on disk and between nodes.
//!
//! Our own, so that another openraft cannot change what is on a disk. Everything starts with a
//! version byte; numbers are little endian. An entry is `[version u8][kind u8][term u64][index
//! u64][body]`, and these bytes are the same in the log and on the wire: a follower stores what it
//! received. The body of a command is time, origin and command ([`Proposal`]), of a membership its
//! lists through the codec of the state machine crate.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};
use openraft::EntryPayload;
use quorate_statemachine::codec::{self, BadBytes};
use serde::{Deserialize, Serialize};

use crate::raft::{
    Entry, Goal, HEADER_BYTES, KIND_COMMAND, KIND_COMMAND_OF, LeaderId, LogId, Member, Membership,
    Proposal, SnapshotMeta, StoredMembership, Vote, log_id,
};

/// The version that this build writes, and the only one it reads so far.
pub const FORMAT_VERSION: u8 = 1;

const KIND_BLANK: u8 = 0;
const KIND_MEMBERSHIP: u8 = 2;

/// The bytes of an entry. A command that came from such bytes is not copied.
#[must_use]
pub fn encode_entry(entry: &Entry) -> Bytes {
    match &entry.payload {
        EntryPayload::Blank => Bytes::copy_from_slice(&header(KIND_BLANK, &entry.log_id)),
        EntryPayload::Normal(proposal) => encode_command(&entry.log_id, proposal),
        EntryPayload::Membership(membership) => {
            let mut out = header(KIND_MEMBERSHIP, &entry.log_id).to_vec();
            put_membership(&mut out, membership);
            out.into()
        }
    }
}

fn encode_command(id: &LogId, proposal: &Proposal) -> Bytes {
    let header = header(proposal.kind(), id);
    if proposal.framed()[..HEADER_BYTES] == header {
        return proposal.framed().clone();
    }
    let mut out = BytesMut::with_capacity(proposal.framed().len());
    out.put_slice(&header);
    out.put_slice(proposal.bytes());
    out.freeze()
}

/// Reads an entry. Its command stays a part of `bytes`.
pub fn decode_entry(bytes: Bytes) -> Result<Entry, BadBytes> {
    let (kind, log_id) = split_header(&bytes)?;
    let payload = match kind {
        KIND_BLANK => {
            codec::nothing_left(&bytes[HEADER_BYTES..])?;
            EntryPayload::Blank
        }
        KIND_COMMAND | KIND_COMMAND_OF => {
            let length = bytes.len();
            let proposal = Proposal::from_framed(bytes).ok_or(BadBytes::Short(length))?;
            EntryPayload::Normal(proposal)
        }
        KIND_MEMBERSHIP => EntryPayload::Membership(take_membership(&bytes[HEADER_BYTES..])?),
        kind => {
            return Err(BadBytes::Body(format!(
                "entry kind {kind} is unknown to this build"
            )));
        }
    };
    Ok(Entry { log_id, payload })
}

/// The log id of an encoded entry, without reading the rest.
pub fn entry_log_id(bytes: &[u8]) -> Result<LogId, BadBytes> {
    split_header(bytes).map(|(_, id)| id)
}

fn header(kind: u8, id: &LogId) -> [u8; HEADER_BYTES] {
    let mut out = [0; HEADER_BYTES];
    out[0] = FORMAT_VERSION;
    out[1] = kind;
    out[2..10].copy_from_slice(&id.leader_id.term.to_le_bytes());
    out[10..18].copy_from_slice(&id.index.to_le_bytes());
    out
}

fn split_header(bytes: &[u8]) -> Result<(u8, LogId), BadBytes> {
    let mut input = bytes;
    take_version(&mut input)?;
    let kind = take_u8(&mut input)?;
    Ok((kind, take_log_id(&mut input)?))
}

/// The bytes of a vote.
#[must_use]
pub fn encode_vote(vote: &Vote) -> Vec<u8> {
    let mut out = vec![FORMAT_VERSION];
    out.put_u64_le(vote.leader_id.term);
    out.put_u64_le(vote.leader_id.voted_for);
    out.push(vote.committed.into());
    out
}

/// Reads a vote.
pub fn decode_vote(mut bytes: &[u8]) -> Result<Vote, BadBytes> {
    let input = &mut bytes;
    take_version(input)?;
    let leader_id = LeaderId {
        term: take_u64(input)?,
        voted_for: take_u64(input)?,
    };
    let committed = take_bool(input)?;
    codec::nothing_left(input)?;
    Ok(Vote {
        leader_id,
        committed,
    })
}

/// The bytes of a log id.
#[must_use]
pub fn encode_log_id(id: &LogId) -> Vec<u8> {
    let mut out = vec![FORMAT_VERSION];
    put_log_id(&mut out, id);
    out
}

/// Reads a log id.
pub fn decode_log_id(mut bytes: &[u8]) -> Result<LogId, BadBytes> {
    take_version(&mut bytes)?;
    let id = take_log_id(&mut bytes)?;
    codec::nothing_left(bytes)?;
    Ok(id)
}

/// The bytes of a membership with the entry that brought it.
#[must_use]
pub fn encode_stored_membership(stored: &StoredMembership) -> Vec<u8> {
    let mut out = vec![FORMAT_VERSION];
    put_optional_log_id(&mut out, stored.log_id().as_ref());
    put_membership(&mut out, stored.membership());
    out
}

/// Reads a membership with the entry that brought it.
pub fn decode_stored_membership(mut bytes: &[u8]) -> Result<StoredMembership, BadBytes> {
    take_version(&mut bytes)?;
    let id = take_optional_log_id(&mut bytes)?;
    Ok(StoredMembership::new(id, take_membership(bytes)?))
}

/// The bytes of what a snapshot covers.
#[must_use]
pub fn encode_snapshot_meta(meta: &SnapshotMeta) -> Vec<u8> {
    let mut out = vec![FORMAT_VERSION];
    put_optional_log_id(&mut out, meta.last_log_id.as_ref());
    out.extend_from_slice(&encode_stored_membership(&meta.last_membership));
    out
}

/// Reads what a snapshot covers.
pub fn decode_snapshot_meta(mut bytes: &[u8]) -> Result<SnapshotMeta, BadBytes> {
    take_version(&mut bytes)?;
    Ok(SnapshotMeta {
        last_log_id: take_optional_log_id(&mut bytes)?,
        last_membership: decode_stored_membership(bytes)?,
    })
}

/// A membership as stored: lists of voters (two while it changes) and all members.
#[derive(Serialize, Deserialize)]
struct MembershipBody {
    voters: Vec<BTreeSet<u64>>,
    members: BTreeMap<u64, MemberBody>,
}

#[derive(Serialize, Deserialize)]
struct MemberBody {
    name: String,
    peer_addr: String,
    client_addr: String,
    http_addr: String,
}

fn put_membership(out: &mut Vec<u8>, membership: &Membership) {
    let members = membership.nodes().map(|(id, member)| {
        let body = MemberBody {
            name: member.name.clone(),
            peer_addr: member.peer_addr.clone(),
            client_addr: member.client_addr.clone(),
            http_addr: member.http_addr.clone(),
        };
        (*id, body)
    });
    let body = MembershipBody {
        voters: membership.get_joint_config().clone(),
        members: members.collect(),
    };
    codec::put(out, &body);
    let goals = membership.nodes().filter_map(|(id, member)| {
        let replaces = match member.goal {
            Goal::Stay => return None,
            Goal::Vote => 0,
            Goal::Replace(old) => old,
        };
        Some((*id, replaces))
    });
    let goals: BTreeMap<u64, u64> = goals.collect();
    if !goals.is_empty() {
        codec::put(out, &goals);
    }
}

fn take_membership(mut bytes: &[u8]) -> Result<Membership, BadBytes> {
    let body: MembershipBody = codec::take(&mut bytes)?;
    // Behind the body only if there are any: by learner, the voter that it replaces or 0.
    let goals: BTreeMap<u64, u64> = match bytes {
        [] => BTreeMap::new(),
        rest => codec::take_last(rest)?,
    };
    if body.voters.is_empty() && body.members.is_empty() {
        return Ok(Membership::default());
    }
    let members: BTreeMap<u64, Member> = body
        .members
        .into_iter()
        .map(|(id, member)| {
            let member = Member {
                name: member.name,
                peer_addr: member.peer_addr,
                client_addr: member.client_addr,
                http_addr: member.http_addr,
                goal: match goals.get(&id) {
                    None => Goal::Stay,
                    Some(0) => Goal::Vote,
                    Some(old) => Goal::Replace(*old),
                },
            };
            (id, member)
        })
        .collect();
    Membership::new(body.voters, members)
        .map_err(|error| BadBytes::Body(format!("a membership that cannot be: {error}")))
}

fn put_log_id(out: &mut Vec<u8>, id: &LogId) {
    out.put_u64_le(id.leader_id.term);
    out.put_u64_le(id.index);
}

fn put_optional_log_id(out: &mut Vec<u8>, id: Option<&LogId>) {
    out.push(id.is_some().into());
    if let Some(id) = id {
        put_log_id(out, id);
    }
}

fn take_optional_log_id(input: &mut &[u8]) -> Result<Option<LogId>, BadBytes> {
    if take_bool(input)? {
        return take_log_id(input).map(Some);
    }
    Ok(None)
}

fn take_log_id(input: &mut &[u8]) -> Result<LogId, BadBytes> {
    let term = take_u64(input)?;
    Ok(log_id(term, take_u64(input)?))
}

/// Takes the version byte and refuses one that this build does not read.
pub(super) fn take_version(input: &mut &[u8]) -> Result<(), BadBytes> {
    match take_u8(input)? {
        FORMAT_VERSION => Ok(()),
        other => Err(BadBytes::Version(other)),
    }
}

pub(super) fn take_u8(input: &mut &[u8]) -> Result<u8, BadBytes> {
    let (first, rest) = input.split_first().ok_or(BadBytes::Short(input.len()))?;
    *input = rest;
    Ok(*first)
}

pub(super) fn take_u64(input: &mut &[u8]) -> Result<u64, BadBytes> {
    let (first, rest) = input
        .split_first_chunk::<8>()
        .ok_or(BadBytes::Short(input.len()))?;
    *input = rest;
    Ok(u64::from_le_bytes(*first))
}

fn take_bool(input: &mut &[u8]) -> Result<bool, BadBytes> {
    match take_u8(input)? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(BadBytes::Body(format!("{other} is neither yes nor no"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::{Caller, Origin};
    use quorate_rpc::Trace;
    use quorate_statemachine::Timestamp;

    fn membership() -> Membership {
        let member = |name: &str| Member {
            name: name.to_owned(),
            peer_addr: "p".to_owned(),
            client_addr: "c".to_owned(),
            http_addr: "h".to_owned(),
            goal: Goal::Stay,
        };
        let members = BTreeMap::from([(1, member("a")), (2, member("b"))]);
        Membership::new(vec![BTreeSet::from([1])], members).expect("voters are members")
    }

    fn command() -> Entry {
        Entry {
            log_id: log_id(3, 0x0102),
            payload: EntryPayload::Normal(Proposal::new(
                Timestamp(5),
                &Caller::Cluster.into(),
                b"xy",
            )),
        }
    }

    fn command_of(origin: &Origin) -> Entry {
        Entry {
            log_id: log_id(3, 0x0102),
            payload: EntryPayload::Normal(Proposal::new(Timestamp(5), origin, b"xy")),
        }
    }

    #[test]
    fn bytes_of_entries_are_pinned() {
        let blank = Entry {
            log_id: log_id(3, 0x0102),
            payload: EntryPayload::Blank,
        };
        let head = [3, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0];
        assert_eq!(encode_entry(&blank), [&[1, 0], &head[..]].concat());
        let body = [5, 0, 0, 0, 0, 0, 0, 0, b'x', b'y'];
        assert_eq!(
            encode_entry(&command()),
            [&[1, 1], &head[..], &body[..]].concat()
        );
        let change = Entry {
            log_id: log_id(3, 0x0102),
            payload: EntryPayload::Membership(membership()),
        };
        let body = b"\x01\x01\x01\x02\x01\x01a\x01p\x01c\x01h\x02\x01b\x01p\x01c\x01h";
        assert_eq!(
            encode_entry(&change),
            [&[1, 2], &head[..], &body[..]].concat()
        );
        for entry in [blank, command(), change] {
            assert_eq!(decode_entry(encode_entry(&entry)), Ok(entry));
        }
    }

    #[test]
    fn bytes_of_goals_are_pinned_and_stand_behind_the_members() {
        let plain = encode_stored_membership(&StoredMembership::new(None, membership()));
        for (goal, byte) in [(Goal::Vote, 0), (Goal::Replace(1), 1)] {
            let before = membership();
            let with_goal = before.nodes().map(|(id, member)| {
                let goal = if *id == 2 { goal } else { Goal::Stay };
                (
                    *id,
                    Member {
                        goal,
                        ..member.clone()
                    },
                )
            });
            let members: BTreeMap<u64, Member> = with_goal.collect();
            let changed = Membership::new(vec![BTreeSet::from([1])], members);
            let stored = StoredMembership::new(None, changed.expect("voters are members"));
            let bytes = encode_stored_membership(&stored);
            assert_eq!(bytes, [&plain[..], &[1, 2, byte]].concat());
            assert_eq!(decode_stored_membership(&bytes), Ok(stored));
            let cut = &bytes[..bytes.len() - 1];
            assert!(decode_stored_membership(cut).is_err());
        }
    }

    #[test]
    fn bytes_of_entries_with_an_origin_are_pinned() {
        let head = [1, 3, 3, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0];
        let time = [5, 0, 0, 0, 0, 0, 0, 0];
        let unknown = command_of(&Caller::Anonymous.into());
        let bytes = [&head[..], &time[..], &[0, 0], b"xy"].concat();
        assert_eq!(encode_entry(&unknown), bytes);
        let named = command_of(&Caller::Named("ci".into()).into());
        let bytes = [&head[..], &time[..], b"\x02ci\x00xy"].concat();
        assert_eq!(encode_entry(&named), bytes);
        let traced = command_of(&Origin {
            caller: Caller::Named("ci".into()),
            trace: Some(Trace {
                trace_id: [7; 16],
                span_id: [9; 8],
            }),
        });
        let origin = [b"\x02ci\x01", &[7; 16][..], &[9; 8][..]].concat();
        let bytes = [&head[..], &time[..], &origin[..], b"xy"].concat();
        assert_eq!(encode_entry(&traced), bytes);
        for entry in [unknown, named, traced] {
            assert_eq!(decode_entry(encode_entry(&entry)), Ok(entry));
        }
    }

    #[test]
    fn a_command_is_stored_as_it_was_received() {
        let received = encode_entry(&command());
        let entry = decode_entry(received.clone()).expect("just encoded");
        assert_eq!(encode_entry(&entry).as_ptr(), received.as_ptr());
        let moved = Entry {
            log_id: log_id(4, 9),
            ..entry
        };
        assert_eq!(entry_log_id(&encode_entry(&moved)), Ok(log_id(4, 9)));
    }

    #[test]
    fn bytes_of_votes_log_ids_and_metas_are_pinned() {
        let mut vote = Vote::new(7, 2);
        vote.committed = true;
        let bytes = [1, 7, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1];
        assert_eq!(encode_vote(&vote), bytes);
        assert_eq!(decode_vote(&bytes), Ok(vote));
        let id = encode_log_id(&log_id(7, 2));
        assert_eq!(id, bytes[..17]);
        assert_eq!(decode_log_id(&id), Ok(log_id(7, 2)));
        let meta = SnapshotMeta {
            last_log_id: Some(log_id(7, 2)),
            last_membership: StoredMembership::new(None, membership()),
        };
        let bytes = encode_snapshot_meta(&meta);
        let start = [1, 1, 7, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0];
        assert_eq!(bytes[..20], start);
        assert_eq!(decode_snapshot_meta(&bytes), Ok(meta));
        let empty = encode_snapshot_meta(&SnapshotMeta::default());
        assert_eq!(decode_snapshot_meta(&empty), Ok(SnapshotMeta::default()));
    }

    #[test]
    fn bad_bytes_are_refused_and_never_panic() {
        let good = encode_entry(&command());
        for length in 0..26 {
            assert!(
                decode_entry(good.slice(..length)).is_err(),
                "{length} bytes"
            );
        }
        let mut bad = good.to_vec();
        bad[0] = 2;
        assert_eq!(decode_entry(bad.clone().into()), Err(BadBytes::Version(2)));
        bad[0] = 1;
        bad[1] = 9;
        assert!(matches!(decode_entry(bad.into()), Err(BadBytes::Body(_))));
        assert_eq!(decode_vote(&[1, 2]), Err(BadBytes::Short(1)));
        let mut vote = encode_vote(&Vote::new(1, 1));
        vote[17] = 3;
        assert!(matches!(decode_vote(&vote), Err(BadBytes::Body(_))));
        vote[17] = 0;
        vote.push(0);
        assert!(matches!(decode_vote(&vote), Err(BadBytes::Body(_))));
    }
}
