//! Arguments out of bounds are refused with limit and value; those at their bounds are not.

use quorate_statemachine::limits::{
    BLOBS_PER_COMMAND_MAX, CONTENT_BLOBS_MAX, CONTENT_INLINE_BYTES_MAX, LIVENESS_BYTES_MAX,
    NAME_BYTES_MAX, NODES_PER_COMMAND_MAX, PAYLOAD_BYTES_MAX, SESSION_BATCH_MAX,
    SESSION_NAME_BYTES_MAX, SESSION_ROOTS_MAX, SESSION_TEXT_BYTES_MAX, SETTLEMENTS_MAX, TTL_MS_MAX,
    USAGE_COUNTERS_MAX, USAGE_NUMBERS_MAX,
};
use quorate_statemachine::session::{
    self, BlobHash, CancelTarget, ClaimRef, Commit, Content, GraphDelta, InputMode, NewNode,
    SessionRef, Settlement, UsageDelta, WorkChoice,
};
use quorate_statemachine::{Query, Validate};

use super::{
    GRAPHS, claim_work, commit, execution, lane, node, note_attachment, of_session, owner,
    push_input, push_work, put_blobs, stage, token, usage,
};
use crate::name;

/// What an operation is refused for.
fn problem(operation: &dyn Validate) -> String {
    let refused = operation.validate();
    refused.expect_err("it is out of bounds").to_string()
}

fn text(bytes: usize) -> String {
    "x".repeat(bytes)
}

fn inline(bytes: usize) -> Content {
    Content::Inline(vec![0; bytes].into())
}

fn in_blobs(count: usize) -> Content {
    Content::Blobs {
        hashes: vec![BlobHash([1; 32]); count],
        bytes: 1,
    }
}

fn claim_ref() -> ClaimRef {
    ClaimRef {
        lease_token: token(),
        fencing_token: 1,
    }
}

fn settlement<T: Clone>(one: T, count: usize) -> Settlement<T> {
    Settlement {
        lane: lane(),
        claim: claim_ref(),
        settled: vec![one; count],
    }
}

fn with_body(body: Content) -> NewNode {
    NewNode { body, ..node() }
}

/// A commit with one change.
fn changed(change: impl FnOnce(&mut Commit)) -> Commit {
    let mut commit = commit(Vec::new());
    change(&mut commit);
    commit
}

fn many_nodes(count: usize) -> Vec<NewNode> {
    vec![node(); count]
}

#[test]
fn a_name_of_a_session_or_lane_is_as_long_as_a_leases_name_allows() {
    let open = |bytes| session::Open {
        name: name(&text(bytes)),
        note: None,
    };
    assert_eq!(open(SESSION_NAME_BYTES_MAX).validate(), Ok(()));
    let error = problem(&open(SESSION_NAME_BYTES_MAX + 1));
    assert_eq!(
        error,
        "session is too large: limit 240 bytes, actual 241 bytes"
    );
    let longest = SessionRef {
        name: name(&text(SESSION_NAME_BYTES_MAX)),
        id: session::SessionId(u64::MAX),
    };
    let lane = name(&text(SESSION_NAME_BYTES_MAX));
    let key = session::execution_lease(&longest, &lane).expect("a name of a lease");
    assert_eq!(key.as_str().len(), 2 * SESSION_NAME_BYTES_MAX + 22);
    let longer = name(&text(SESSION_NAME_BYTES_MAX + 1));
    let error = session::execution_lease(&longest, &longer).expect_err("too long");
    assert_eq!(
        error.to_string(),
        "lane is too large: limit 240 bytes, actual 241 bytes"
    );
    let lane = Settlement {
        lane: longer,
        ..settlement(1, 1)
    };
    let error = problem(&changed(|commit| commit.work = vec![lane]));
    assert_eq!(
        error,
        "lane is too large: limit 240 bytes, actual 241 bytes"
    );
}

#[test]
fn payloads_of_sessions_are_bounded() {
    let payload = "limit 1048576 bytes, actual 1048577 bytes";
    let note = |bytes| session::PutNote {
        session: of_session(),
        note: vec![0; bytes].into(),
    };
    let open = |bytes| session::Open {
        name: name("s"),
        note: Some(vec![0; bytes].into()),
    };
    let blob = |bytes: usize| session::PutBlobs {
        blobs: vec![(BlobHash([1; 32]), vec![0; bytes].into())],
        ..put_blobs()
    };
    let result = |bytes: usize| changed(|commit| commit.result = vec![0; bytes].into());
    let payloads: [(&str, &dyn Validate, &dyn Validate); 4] = [
        (
            "note",
            &note(PAYLOAD_BYTES_MAX),
            &note(PAYLOAD_BYTES_MAX + 1),
        ),
        (
            "note",
            &open(PAYLOAD_BYTES_MAX),
            &open(PAYLOAD_BYTES_MAX + 1),
        ),
        (
            "blob",
            &blob(PAYLOAD_BYTES_MAX),
            &blob(PAYLOAD_BYTES_MAX + 1),
        ),
        (
            "result",
            &result(PAYLOAD_BYTES_MAX),
            &result(PAYLOAD_BYTES_MAX + 1),
        ),
    ];
    for (field, largest, larger) in payloads {
        assert_eq!(largest.validate(), Ok(()));
        assert_eq!(problem(larger), format!("{field} is too large: {payload}"));
    }
}

/// What has a content.
type Holder = fn(Content) -> Box<dyn Validate>;

#[test]
fn contents_of_sessions_are_bounded() {
    let holders: [(&str, Holder); 6] = [
        ("state", |state| {
            Box::new(changed(|commit| commit.state = state))
        }),
        ("node", |body| Box::new(commit(vec![with_body(body)]))),
        ("node", |body| Box::new(stage(None, vec![with_body(body)]))),
        ("body", |body| {
            Box::new(session::PushWork {
                body,
                ..push_work(None)
            })
        }),
        ("body", |body| {
            Box::new(session::PushInput {
                body,
                ..push_input()
            })
        }),
        ("node", |body| {
            let nodes = vec![with_body(body)];
            let graph = GraphDelta::Replace {
                staged: None,
                nodes,
            };
            Box::new(changed(|commit| commit.graph = graph))
        }),
    ];
    for (field, holder) in holders {
        for good in [
            inline(CONTENT_INLINE_BYTES_MAX),
            in_blobs(1),
            in_blobs(CONTENT_BLOBS_MAX),
        ] {
            assert_eq!(holder(good).validate(), Ok(()));
        }
        let large = problem(&*holder(inline(CONTENT_INLINE_BYTES_MAX + 1)));
        let words = format!("{field} is too large: limit 65536 bytes, actual 65537 bytes");
        assert_eq!(large, words);
        for count in [0, CONTENT_BLOBS_MAX + 1] {
            let error = problem(&*holder(in_blobs(count)));
            let limit = format!("limit 1 to 64, actual {count}");
            assert_eq!(error, format!("{field}.blobs is out of range: {limit}"));
        }
    }
}

/// What has so many of something.
type Counted = fn(usize) -> Box<dyn Validate>;

/// Counts of a commit: field, least, most.
fn counts_of_commits() -> Vec<(&'static str, usize, usize, Counted)> {
    vec![
        ("nodes", 0, NODES_PER_COMMAND_MAX, |count| {
            Box::new(commit(many_nodes(count)))
        }),
        ("nodes", 0, NODES_PER_COMMAND_MAX, |count| {
            let graph = GraphDelta::Extend {
                graph: GRAPHS[0],
                rewritten: 1,
                from: 1,
                nodes: many_nodes(count),
            };
            Box::new(changed(|commit| commit.graph = graph))
        }),
        ("nodes", 0, NODES_PER_COMMAND_MAX, |count| {
            let nodes = many_nodes(count);
            let graph = GraphDelta::Replace {
                staged: None,
                nodes,
            };
            Box::new(changed(|commit| commit.graph = graph))
        }),
        ("roots", 0, SESSION_ROOTS_MAX, |count| {
            Box::new(changed(|commit| {
                commit.roots = vec![BlobHash([1; 32]); count]
            }))
        }),
        ("usage", 0, USAGE_COUNTERS_MAX, |count| {
            Box::new(changed(|commit| commit.usage = vec![usage(); count]))
        }),
        ("usage.counter bytes", 1, 2 * NAME_BYTES_MAX, |count| {
            let counter = vec![1; count];
            let usage = UsageDelta { counter, ..usage() };
            Box::new(changed(|commit| commit.usage = vec![usage]))
        }),
        ("usage.numbers", 1, USAGE_NUMBERS_MAX, |count| {
            let numbers = vec![1; count];
            let usage = UsageDelta { numbers, ..usage() };
            Box::new(changed(|commit| commit.usage = vec![usage]))
        }),
        ("work", 0, SETTLEMENTS_MAX, |count| {
            Box::new(changed(|commit| {
                commit.work = vec![settlement(1, 1); count]
            }))
        }),
        ("inputs", 0, SETTLEMENTS_MAX, |count| {
            let input = settlement(name("input"), 1);
            Box::new(changed(|commit| commit.inputs = vec![input; count]))
        }),
        ("settled", 0, SESSION_BATCH_MAX, |count| {
            Box::new(changed(|commit| commit.work = vec![settlement(1, count)]))
        }),
        ("settled", 0, SESSION_BATCH_MAX, |count| {
            let inputs = settlement(name("input"), count);
            Box::new(changed(|commit| commit.inputs = vec![inputs]))
        }),
        ("attachments", 0, SESSION_BATCH_MAX, |count| {
            Box::new(changed(|commit| {
                commit.attachments = vec![name("file"); count]
            }))
        }),
    ]
}

/// Counts of other commands.
fn counts_of_others() -> Vec<(&'static str, usize, usize, Counted)> {
    vec![
        ("blobs", 1, BLOBS_PER_COMMAND_MAX, |count| {
            let blobs = vec![put_blobs().blobs[0].clone(); count];
            Box::new(session::PutBlobs {
                blobs,
                ..put_blobs()
            })
        }),
        ("nodes", 0, NODES_PER_COMMAND_MAX, |count| {
            Box::new(stage(None, many_nodes(count)))
        }),
        ("nodes", 1, NODES_PER_COMMAND_MAX, |count| {
            let nodes = vec![name("node"); count];
            Box::new(session::Tombstone {
                session: of_session(),
                nodes,
            })
        }),
        ("numbers", 1, SESSION_BATCH_MAX, |count| {
            Box::new(renew_work(count, TTL_MS_MAX))
        }),
        ("numbers", 1, SESSION_BATCH_MAX, |count| {
            Box::new(session::AbandonWork {
                session: of_session(),
                lane: lane(),
                claim: claim_ref(),
                numbers: vec![1; count],
            })
        }),
        ("ids", 1, SESSION_BATCH_MAX, |count| {
            Box::new(session::AbandonInputs {
                session: of_session(),
                lane: lane(),
                claim: claim_ref(),
                ids: vec![name("input"); count],
            })
        }),
        ("targets", 1, SESSION_BATCH_MAX, |count| {
            Box::new(session::CancelInputs {
                session: of_session(),
                lane: lane(),
                targets: vec![CancelTarget::Id(name("input")); count],
            })
        }),
        ("attachments", 0, SESSION_BATCH_MAX, |count| {
            Box::new(session::CommitAttachments {
                session: of_session(),
                lane: lane(),
                ids: vec![name("file"); count],
            })
        }),
    ]
}

/// Counts of claims.
fn counts_of_claims() -> Vec<(&'static str, usize, usize, Counted)> {
    vec![
        ("max", 1, SESSION_BATCH_MAX, |count| {
            Box::new(claim_work(count as u32))
        }),
        ("max", 1, SESSION_BATCH_MAX, |count| {
            let numbers = vec![1; count];
            let choice = WorkChoice::Exactly {
                running: true,
                numbers,
            };
            Box::new(session::ClaimWork {
                choice,
                ..claim_work(1)
            })
        }),
        ("max", 1, SESSION_BATCH_MAX, |count| {
            let max = count as u32;
            Box::new(session::ClaimInputs {
                max,
                ..claim_inputs()
            })
        }),
        ("dead", 0, SESSION_BATCH_MAX, |count| {
            let dead = vec![1; count];
            Box::new(session::ClaimWork {
                dead,
                ..claim_work(1)
            })
        }),
        ("dead", 0, SESSION_BATCH_MAX, |count| {
            let dead = vec![1; count];
            Box::new(session::ClaimInputs {
                dead,
                ..claim_inputs()
            })
        }),
    ]
}

fn renew_work(count: usize, ttl_ms: u64) -> session::RenewWork {
    session::RenewWork {
        session: of_session(),
        lane: lane(),
        claim: claim_ref(),
        numbers: vec![1; count],
        ttl_ms,
    }
}

fn claim_inputs() -> session::ClaimInputs {
    session::ClaimInputs {
        session: of_session(),
        lane: lane(),
        execution: execution(),
        owner: owner(),
        lease_token: token(),
        ttl_ms: TTL_MS_MAX,
        mode: InputMode::Next,
        max: 1,
        dead: Vec::new(),
    }
}

#[test]
fn counts_of_session_commands_are_bounded() {
    let all = [counts_of_commits(), counts_of_others(), counts_of_claims()].concat();
    for (field, least, most, make) in all {
        for good in [least, most] {
            assert_eq!(make(good).validate(), Ok(()), "{field}: {good}");
        }
        let fewer = least.checked_sub(1);
        for wrong in fewer.into_iter().chain([most + 1]) {
            let limit = format!("limit {least} to {most}, actual {wrong}");
            let error = problem(&*make(wrong));
            assert_eq!(error, format!("{field} is out of range: {limit}"));
        }
    }
}

#[test]
fn texts_and_times_of_session_commands_are_bounded() {
    let group = |bytes| session::PushWork {
        group: Some(vec![1; bytes]),
        ..push_work(None)
    };
    assert_eq!(group(SESSION_TEXT_BYTES_MAX).validate(), Ok(()));
    let error = problem(&group(SESSION_TEXT_BYTES_MAX + 1));
    assert_eq!(
        error,
        "group is too large: limit 4096 bytes, actual 4097 bytes"
    );
    let uri = |bytes| session::NoteAttachment {
        uri: text(bytes),
        ..note_attachment()
    };
    assert_eq!(uri(SESSION_TEXT_BYTES_MAX).validate(), Ok(()));
    let error = problem(&uri(SESSION_TEXT_BYTES_MAX + 1));
    assert_eq!(
        error,
        "uri is too large: limit 4096 bytes, actual 4097 bytes"
    );
    let ttl = "ttl_ms is out of range: limit 1 to 86400000 ms, actual 86400001 ms";
    let ttl_ms = TTL_MS_MAX + 1;
    assert_eq!(problem(&renew_work(1, ttl_ms)), ttl);
    assert_eq!(
        problem(&session::ClaimWork {
            ttl_ms,
            ..claim_work(1)
        }),
        ttl
    );
    assert_eq!(
        problem(&session::ClaimInputs {
            ttl_ms,
            ..claim_inputs()
        }),
        ttl
    );
    let mut owner = owner();
    owner.liveness = Some(text(LIVENESS_BYTES_MAX));
    let claim = |owner| session::ClaimInputs {
        owner,
        ..claim_inputs()
    };
    assert_eq!(claim(owner.clone()).validate(), Ok(()));
    owner.liveness = Some(text(LIVENESS_BYTES_MAX + 1));
    let liveness = "owner.liveness is too large: limit 4096 bytes, actual 4097 bytes";
    assert_eq!(problem(&claim(owner.clone())), liveness);
    assert_eq!(
        problem(&session::ClaimWork {
            owner,
            ..claim_work(1)
        }),
        liveness
    );
}

#[test]
fn questions_about_sessions_are_bounded() {
    let refused = |query| {
        let query = Query::Session(query).encode();
        Query::decode(&query)
            .expect_err("out of bounds")
            .to_string()
    };
    let list = |bytes| {
        session::Query::List(session::List {
            prefix: text(bytes),
            after: None,
            limit: 0,
        })
    };
    let blobs = |count| {
        session::Query::Blobs(session::Blobs {
            session: of_session(),
            hashes: vec![BlobHash([1; 32]); count],
        })
    };
    for good in [list(NAME_BYTES_MAX), blobs(1), blobs(BLOBS_PER_COMMAND_MAX)] {
        let good = Query::Session(good);
        assert_eq!(Query::decode(&good.encode()), Ok(good));
    }
    let prefix = "prefix is too large: limit 512 bytes, actual 513 bytes";
    assert_eq!(refused(list(NAME_BYTES_MAX + 1)), prefix);
    let hashes = |actual| format!("hashes is out of range: limit 1 to 64, actual {actual}");
    assert_eq!(refused(blobs(0)), hashes(0));
    assert_eq!(refused(blobs(BLOBS_PER_COMMAND_MAX + 1)), hashes(65));
}
