//! Bytes from outside never panic, and what is refused is refused with the limit and the value.

mod damage;
mod samples;

use proptest::prelude::*;
use quorate_statemachine::codec::BadBytes;
use quorate_statemachine::limits::{
    COMMAND_BYTES_MAX, COMPOSITE_STEPS_MAX, NAME_BYTES_MAX, PAYLOAD_BYTES_MAX, PRECONDITIONS_MAX,
    RENEWALS_PER_ENTRY_MAX, SESSION_NAME_BYTES_MAX,
};
use quorate_statemachine::tables::{
    LockMembers, LockOrder, LockOwners, Locks, Meta, RequestsByAge, SessionAttachments,
    SessionBlobBytes, SessionBlobs, SessionBodies, SessionDelayedWork, SessionEndedInputs,
    SessionGarbage, SessionGraphs, SessionHeads, SessionInputIds, SessionInputSources,
    SessionInputs, SessionIntents, SessionLooseBlobs, SessionNodeIds, SessionNodes, SessionNotes,
    SessionTombstones, SessionTurns, SessionUsage, SessionWork, SessionWorkSources, Sessions,
    Table, tag_of,
};
use quorate_statemachine::view::MemoryView;
use quorate_statemachine::{
    Action, Answer, Command, Entry, InvalidArgument, Precondition, Query, Reply, Timestamp, apply,
    cluster, codec, lease, lock, process,
};

use samples::{name, owner, token};

/// The error of a decoding that must fail, after a look at its parts.
fn refused<T: std::fmt::Debug>(decoded: Result<T, InvalidArgument>) -> String {
    let error = decoded.expect_err("these bytes are refused");
    for part in [&error.field, &error.problem, &error.limit, &error.actual] {
        assert!(
            !part.is_empty(),
            "{error:?} says what, why, the limit and the value"
        );
    }
    error.to_string()
}

/// Whatever the bytes are: no panic, errors are complete, and what is read is written back alike.
fn survives(bytes: &[u8]) {
    match Command::decode(bytes) {
        Ok(command) => assert_eq!(Command::decode(&command.encode()), Ok(command)),
        Err(error) => drop(refused::<()>(Err(error))),
    }
    match Query::decode(bytes) {
        Ok(query) => assert_eq!(Query::decode(&query.encode()), Ok(query)),
        Err(error) => drop(refused::<()>(Err(error))),
    }
    match Reply::decode(bytes) {
        Ok(reply) => assert_eq!(Reply::decode(&reply.encode()), Ok(reply)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    match Answer::decode(bytes) {
        Ok(answer) => assert_eq!(Answer::decode(&answer.encode()), Ok(answer)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A row that is damaged on the disk is refused, or read as what it then is.
fn row_survives(bytes: &[u8]) {
    row_of_survives::<Meta>(bytes);
    row_of_survives::<RequestsByAge>(bytes);
    row_of_survives::<Locks>(bytes);
    row_of_survives::<LockMembers>(bytes);
    row_of_survives::<LockOrder>(bytes);
    row_of_survives::<LockOwners>(bytes);
    session_row_survives(bytes);
}

fn session_row_survives(bytes: &[u8]) {
    row_of_survives::<Sessions>(bytes);
    row_of_survives::<SessionHeads>(bytes);
    row_of_survives::<SessionNotes>(bytes);
    row_of_survives::<SessionGraphs>(bytes);
    row_of_survives::<SessionNodes>(bytes);
    row_of_survives::<SessionNodeIds>(bytes);
    row_of_survives::<SessionTombstones>(bytes);
    row_of_survives::<SessionUsage>(bytes);
    row_of_survives::<SessionTurns>(bytes);
    row_of_survives::<SessionBlobs>(bytes);
    row_of_survives::<SessionBlobBytes>(bytes);
    row_of_survives::<SessionLooseBlobs>(bytes);
    row_of_survives::<SessionWork>(bytes);
    row_of_survives::<SessionDelayedWork>(bytes);
    row_of_survives::<SessionWorkSources>(bytes);
    row_of_survives::<SessionInputs>(bytes);
    row_of_survives::<SessionEndedInputs>(bytes);
    row_of_survives::<SessionInputIds>(bytes);
    row_of_survives::<SessionInputSources>(bytes);
    row_of_survives::<SessionBodies>(bytes);
    row_of_survives::<SessionAttachments>(bytes);
    row_of_survives::<SessionIntents>(bytes);
    row_of_survives::<SessionGarbage>(bytes);
}

fn row_of_survives<T: Table>(bytes: &[u8])
where
    T::Row: std::fmt::Debug + PartialEq,
{
    let read = |bytes: &[u8]| -> Result<T::Row, BadBytes> { codec::decode(T::TAG.into(), bytes) };
    match read(bytes) {
        Ok(row) => assert_eq!(read(&codec::encode(T::TAG.into(), &row)), Ok(row)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Rows of the tables above.
fn row_samples() -> Vec<Vec<u8>> {
    let tags = [
        Meta::TAG,
        RequestsByAge::TAG,
        Locks::TAG,
        LockMembers::TAG,
        LockOrder::TAG,
        LockOwners::TAG,
    ];
    let all = [samples::rows(), samples::row_forms()].concat();
    let sessions = Sessions::TAG..=SessionGarbage::TAG;
    let ours = all.into_iter().filter(|(_, key, _)| {
        tag_of(key).is_some_and(|tag| tags.contains(&tag) || sessions.contains(&tag))
    });
    ours.map(|(_, _, value)| value).collect()
}

fn all_samples() -> Vec<Vec<u8>> {
    let commands = samples::commands()
        .into_iter()
        .map(|(_, command)| command.encode());
    let replies = samples::replies()
        .into_iter()
        .map(|(_, reply)| reply.encode());
    let queries = samples::queries()
        .into_iter()
        .map(|(_, query)| query.encode());
    let answers = samples::answers()
        .into_iter()
        .map(|(_, answer)| answer.encode());
    commands
        .chain(replies)
        .chain(queries)
        .chain(answers)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        survives(&bytes);
    }

    /// With a good header, so that the body's decoder is reached.
    #[test]
    fn random_bodies_never_panic(
        which in any::<prop::sample::Index>(),
        body in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let samples = all_samples();
        let mut bytes = samples[which.index(samples.len())][..3].to_vec();
        bytes.extend_from_slice(&body);
        survives(&bytes);
    }

    /// Several damaged bytes in the middle of a good value.
    #[test]
    fn damaged_values_never_panic(
        which in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let samples = all_samples();
        let mut bytes = samples[which.index(samples.len())].clone();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        survives(&bytes);
    }

    #[test]
    fn damaged_rows_never_panic(
        which in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        body in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let samples = row_samples();
        let mut bytes = samples[which.index(samples.len())].clone();
        row_survives(&[&bytes[..3], &body].concat());
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        row_survives(&bytes);
    }
}

#[test]
fn every_bit_flip_of_every_value_is_survived() {
    for mut bytes in all_samples() {
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            survives(&bytes);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
    for mut bytes in row_samples() {
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            row_survives(&bytes);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn every_cut_of_a_value_is_refused() {
    for (_, command) in samples::commands() {
        let bytes = command.encode();
        (0..bytes.len()).for_each(|end| drop(refused(Command::decode(&bytes[..end]))));
        let longer = [bytes.as_slice(), &[0]].concat();
        assert!(refused(Command::decode(&longer)).contains("1 bytes too many"));
    }
    for (_, query) in samples::queries() {
        let bytes = query.encode();
        (0..bytes.len()).for_each(|end| drop(refused(Query::decode(&bytes[..end]))));
    }
    for (name, reply) in samples::replies() {
        let bytes = reply.encode();
        let cut = (0..bytes.len()).find(|end| Reply::decode(&bytes[..*end]).is_ok());
        assert_eq!(cut, None, "a cut reply {name} is refused");
    }
}

#[test]
fn unknown_tags_and_versions_are_named() {
    let good = Command::from(cluster::Tick {}).encode();
    for tag in [
        0x0000u16, 0x0002, 0x0100, 0x01ff, 0x0500, 0x0508, 0x0600, 0x0617, 0x7f02, 0xffff,
    ] {
        let mut bytes = good.clone();
        bytes[1..3].copy_from_slice(&tag.to_le_bytes());
        assert!(refused(Command::decode(&bytes)).contains(&format!("tag {tag:#06x} is unknown")));
    }
    for version in [0, 2, 255] {
        let mut bytes = good.clone();
        bytes[0] = version;
        let error = refused(Command::decode(&bytes));
        assert!(
            error.contains(&format!("version {version} is unknown")),
            "{error}"
        );
    }
}

/// A claim, with raw bytes in the place of the key's text.
fn claim_of(raw: &[u8]) -> Vec<u8> {
    let claim = lease::Claim {
        key: name("~~HERE~~"),
        owner: owner(),
        lease_token: token("t1"),
        ttl_ms: 1_000,
        same_owner: lease::SameOwner::Busy,
        metadata: Vec::new(),
    };
    replace_text(&Command::from(claim).encode(), "~~HERE~~", raw)
}

/// Puts raw bytes, with their length in front, where the encoded `text` stands.
fn replace_text(bytes: &[u8], text: &str, raw: &[u8]) -> Vec<u8> {
    let mut placed = Vec::new();
    codec::put(&mut placed, &text);
    let at = bytes
        .windows(placed.len())
        .position(|window| window == placed);
    let at = at.expect("the text stands in the bytes");
    let mut out = bytes[..at].to_vec();
    codec::put(&mut out, &raw.to_vec());
    out.extend_from_slice(&bytes[at + placed.len()..]);
    out
}

#[test]
fn names_out_of_bounds_inside_a_command_are_refused() {
    assert!(Command::decode(&claim_of(b"a fine name")).is_ok());
    assert!(Command::decode(&claim_of(&[b'a'; NAME_BYTES_MAX])).is_ok());
    let empty = refused(Command::decode(&claim_of(b"")));
    assert!(
        empty.contains("1 to 512 bytes") && empty.contains("actual 0 bytes"),
        "{empty}"
    );
    let long = refused(Command::decode(&claim_of(&[b'a'; NAME_BYTES_MAX + 1])));
    assert!(long.contains("limit 512 bytes, actual 513 bytes"), "{long}");
    for control in ["a\0b", "a\nb", "\u{7f}", "\u{85}"] {
        let error = refused(Command::decode(&claim_of(control.as_bytes())));
        assert!(error.contains("control characters"), "{control:?}: {error}");
    }
    for invalid in [&b"\xff"[..], b"a\xc3", b"\xed\xa0\x80"] {
        let error = refused(Command::decode(&claim_of(invalid)));
        assert!(error.to_lowercase().contains("utf"), "{invalid:?}: {error}");
    }
}

#[test]
fn names_out_of_bounds_anywhere_in_any_command_are_refused() {
    let texts = [
        "lock",
        "w1",
        "boot-1",
        "jobs",
        "p",
        "k1",
        "started",
        "c1",
        "w0",
        "boot-0",
        "t1",
        "sess-1",
        "main",
        "node-0",
        "node-1",
        "turn-0",
        "turn-1",
        "turn-hash",
        "source-1",
        "input-1",
        "attachment-1",
    ];
    let mut seen = 0;
    for (operation, command) in samples::commands() {
        let bytes = command.encode();
        for text in texts {
            let mut placed = Vec::new();
            codec::put(&mut placed, &text);
            if !bytes.windows(placed.len()).any(|window| window == placed) {
                continue;
            }
            seen += 1;
            for raw in [&b""[..], b"a\0", b"\xff\xfe", &[b'a'; NAME_BYTES_MAX + 1]] {
                let error = refused(Command::decode(&replace_text(&bytes, text, raw)));
                assert!(!error.is_empty(), "{operation} with {text} replaced");
            }
        }
    }
    assert!(seen > 150, "names were found in the commands: {seen}");
}

/// A session and a lane are a part of the name of a lease, so that they are shorter.
#[test]
fn names_of_sessions_and_lanes_are_shorter_in_every_command() {
    let (longest, longer) = (
        [b'a'; SESSION_NAME_BYTES_MAX],
        [b'a'; SESSION_NAME_BYTES_MAX + 1],
    );
    let mut seen = 0;
    for (operation, command) in samples::commands() {
        for (text, field) in [("sess-1", "session"), ("main", "lane")] {
            let mut placed = Vec::new();
            codec::put(&mut placed, &text);
            let bytes = command.encode();
            if !bytes.windows(placed.len()).any(|window| window == placed) {
                continue;
            }
            seen += 1;
            assert!(
                Command::decode(&replace_text(&bytes, text, &longest)).is_ok(),
                "{operation}"
            );
            let error = refused(Command::decode(&replace_text(&bytes, text, &longer)));
            let expected = format!("{field} is too large: limit 240 bytes, actual 241 bytes");
            assert_eq!(error, expected, "{operation}");
        }
    }
    assert!(
        seen > 40,
        "sessions and lanes were found in the commands: {seen}"
    );
}

#[test]
fn lease_tokens_are_shorter_than_names() {
    let bytes = claim_of(b"key");
    assert!(Command::decode(&replace_text(&bytes, "t1", &[b'a'; 128])).is_ok());
    let error = refused(Command::decode(&replace_text(&bytes, "t1", &[b'a'; 129])));
    assert!(
        error.contains("limit 128 bytes, actual 129 bytes"),
        "{error}"
    );
}

fn register(payload: usize) -> Action {
    process::Register::new(name("p"), vec![0; payload]).into()
}

#[test]
fn counts_and_sizes_over_the_limit_are_refused_with_both() {
    let steps = |count| Command::from(Action::Composite(vec![register(0); count])).encode();
    assert!(Command::decode(&steps(COMPOSITE_STEPS_MAX)).is_ok());
    let many = refused(Command::decode(&steps(COMPOSITE_STEPS_MAX + 1)));
    assert!(many.contains("1024") && many.contains("1025"), "{many}");
    let none = refused(Command::decode(&steps(0)));
    assert!(none.contains("limit 1 to 1024, actual 0"), "{none}");

    let mut command = Command::from(register(0));
    let precondition = Precondition::Lease {
        key: name("a"),
        token: 1,
    };
    command.preconditions = vec![precondition; PRECONDITIONS_MAX + 1];
    let error = refused(Command::decode(&command.encode()));
    assert!(error.contains("limit 0 to 64, actual 65"), "{error}");

    let renew = lease::Renew {
        key: name("a"),
        lease_token: token("t"),
        fencing_token: 1,
        ttl_ms: 1,
    };
    let many = lease::RenewMany {
        renewals: vec![renew; RENEWALS_PER_ENTRY_MAX + 1],
    };
    let error = refused(Command::decode(&Command::from(many).encode()));
    assert!(error.contains("limit 1 to 1024, actual 1025"), "{error}");

    let payload = Command::from(register(PAYLOAD_BYTES_MAX + 1)).encode();
    let error = refused(Command::decode(&payload));
    assert!(
        error.contains("limit 1048576 bytes, actual 1048577 bytes"),
        "{error}"
    );

    let big = Command::from(Action::Composite(vec![register(PAYLOAD_BYTES_MAX); 5])).encode();
    let error = refused(Command::decode(&big));
    assert!(
        error.contains(&format!("limit {COMMAND_BYTES_MAX} bytes")),
        "{error}"
    );
}

#[test]
fn what_a_composite_cannot_hold_is_refused() {
    let inner = Action::Composite(vec![register(0)]);
    let nested = Command::from(Action::Composite(vec![register(0), inner])).encode();
    let error = refused(Command::decode(&nested));
    assert!(error.contains("a composite inside a composite"), "{error}");
    let cluster = Command::from(Action::Composite(vec![cluster::Tick {}.into()])).encode();
    let error = refused(Command::decode(&cluster));
    assert!(error.contains("actual cluster.tick"), "{error}");
    for (operation, command) in samples::commands() {
        let Action::Lock(step) = command.action else {
            continue;
        };
        let may = matches!(step, lock::Command::Release(_));
        let composite = Command::from(Action::Composite(vec![Action::Lock(step)])).encode();
        match Command::decode(&composite) {
            Ok(_) => assert!(may, "{operation} is no step of a composite"),
            Err(error) => assert!(
                !may && error.to_string().contains("actual lock."),
                "{error}"
            ),
        }
    }
}

/// Index of `Response::Composite` and of `Refusal::Step` in the stored form.
const COMPOSITE: u8 = 4;
const STEP: u8 = 8;

#[test]
fn a_reply_nested_a_million_deep_is_refused_and_overflows_no_stack() {
    let mut responses = codec::header(Reply::TAG);
    responses.push(0);
    responses.extend([COMPOSITE, 1].repeat(1_000_000));
    let error = Reply::decode(&responses).expect_err("refused at the second level");
    assert!(
        error.to_string().contains("a composite inside a composite"),
        "{error}"
    );

    let mut refusals = codec::header(Reply::TAG);
    refusals.push(1);
    refusals.extend([STEP, 0].repeat(1_000_000));
    let error = Reply::decode(&refusals).expect_err("refused at the second level");
    assert!(
        error.to_string().contains("a composite inside a composite"),
        "{error}"
    );
}

#[test]
fn a_count_beyond_the_bytes_allocates_nothing() {
    let mut bytes = codec::header(Reply::TAG);
    bytes.extend([0, COMPOSITE, 253]);
    bytes.extend(u64::MAX.to_le_bytes());
    assert!(Reply::decode(&bytes).is_err());
    let mut bytes = codec::header(0x0001);
    bytes.extend([0, 0, 253]);
    bytes.extend(u64::MAX.to_le_bytes());
    assert!(refused(Command::decode(&bytes)).contains("1024"));
}

#[test]
fn an_entry_that_is_no_command_or_out_of_order_stops_the_node() {
    let mut view = MemoryView::default();
    let tick = Command::from(cluster::Tick {}).encode();
    let entry = |index, command| Entry {
        index,
        proposed_at: Timestamp(1),
        command,
        principal: quorate_statemachine::Principal::Cluster,
    };
    let broken = apply(&view, entry(1, b"no command")).expect_err("no answer to this");
    assert!(broken.to_string().contains("entry 1"), "{broken}");
    let applied = apply(&view, entry(5, &tick)).expect("a good entry");
    view.commit(applied.changes);
    for index in [0, 4, 5] {
        let broken = apply(&view, entry(index, &tick)).expect_err("applied already");
        assert!(
            broken.to_string().contains("has applied entry 5 already"),
            "{broken}"
        );
    }
    assert!(apply(&view, entry(6, &tick)).is_ok());
}
