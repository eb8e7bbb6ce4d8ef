//! Sessions to look at: no command of the command line makes one.

use std::time::Duration;

use quorate_client::Client;
use quorate_statemachine::lease::{Claimed, Observed};
use quorate_statemachine::session::{
    BlobHash, BlobsPut, ClaimInputs, ClaimWork, Commit, Committed, Content, GraphDelta, InputMode,
    NewNode, Open, PushInput, PushWork, PutBlobs, SessionRef, Tombstone, UsageDelta, WorkChoice,
    WorkClass, execution_lease,
};
use quorate_statemachine::{LeaseToken, Name, Owner, Timestamp};

/// Cluster time at the start of a test.
pub const START: Timestamp = Timestamp(1_700_000_000_000);

pub fn name(text: &str) -> Name {
    Name::parse("name", text).expect("a name")
}

fn token() -> LeaseToken {
    LeaseToken::parse("t").expect("a token")
}

fn worker() -> Owner {
    Owner::new(name("w"), name("boot"))
}

pub fn inline(text: &'static str) -> Content {
    Content::Inline(text.as_bytes().into())
}

pub async fn open(client: &Client, session: &str, note: Option<&'static [u8]>) -> SessionRef {
    let name = name(session);
    let open = Open {
        name: name.clone(),
        note: note.map(Into::into),
    };
    let id = client.execute(open).await.expect("opened").id;
    SessionRef { name, id }
}

/// Claims the execution lease of a lane for a minute.
pub async fn hold(client: &Client, session: &SessionRef, lane: &str) -> Observed {
    let key = execution_lease(session, &name(lane)).expect("short names");
    let claim = client
        .lease(key.as_str())
        .holder(worker())
        .ttl(Duration::from_secs(60))
        .lease_token(token())
        .claim();
    match client.execute(claim.expect("in bounds")).await {
        Ok(Claimed::Granted(lease)) => Observed {
            owner_id: lease.owner.owner_id,
            incarnation_id: lease.owner.incarnation_id,
            lease_token: lease.lease_token,
            fencing_token: lease.fencing_token,
        },
        other => panic!("not granted: {other:?}"),
    }
}

pub fn node(id: &str, parent: Option<&str>, body: Content) -> NewNode {
    NewNode {
        id: name(id),
        parent: parent.map(name),
        body,
    }
}

/// A commit of `lane` that adds nodes and nothing else.
pub fn adding(
    session: &SessionRef,
    lane: &str,
    execution: &Observed,
    nodes: Vec<NewNode>,
) -> Commit {
    Commit {
        session: session.clone(),
        lane: name(lane),
        turn: None,
        execution: Some(execution.clone()),
        expected_revision: None,
        leaf: nodes.last().map(|node| node.id.clone()),
        graph: GraphDelta::Append(nodes),
        state: inline("{\"turns\":1}"),
        roots: Vec::new(),
        usage: Vec::new(),
        work: Vec::new(),
        inputs: Vec::new(),
        interrupted: None,
        attachments: Vec::new(),
        result: "".into(),
        release: None,
    }
}

pub async fn commit(client: &Client, commit: Commit) -> Committed {
    client.execute(commit).await.expect("committed")
}

/// Opens a session, takes the lease of lane `main`, and commits nodes with it.
pub async fn committed(
    client: &Client,
    session: &str,
    nodes: Vec<NewNode>,
) -> (SessionRef, Observed) {
    let session = open(client, session, None).await;
    let held = hold(client, &session, "main").await;
    commit(client, adding(&session, "main", &held, nodes)).await;
    (session, held)
}

pub fn usage(counter: &[u8], numbers: &[i64]) -> UsageDelta {
    UsageDelta {
        counter: counter.to_vec(),
        numbers: numbers.to_vec(),
    }
}

/// Stores blobs, and answers the content that they are together.
pub async fn blobs(client: &Client, session: &SessionRef, blobs: &[&'static [u8]]) -> Content {
    let named: Vec<_> = (1..)
        .zip(blobs)
        .map(|(at, bytes)| (BlobHash([at; 32]), (*bytes).into()))
        .collect();
    let put = PutBlobs {
        session: session.clone(),
        blobs: named.clone(),
    };
    let BlobsPut { stored } = client.execute(put).await.expect("stored");
    assert_eq!(stored, blobs.len() as u64);
    Content::Blobs {
        hashes: named.into_iter().map(|(hash, _)| hash).collect(),
        bytes: blobs.iter().map(|bytes| bytes.len() as u64).sum(),
    }
}

pub fn input(session: &SessionRef, lane: &str, id: &str) -> PushInput {
    PushInput {
        session: session.clone(),
        lane: name(lane),
        id: name(id),
        source: None,
        mode: InputMode::Next,
        body: inline("hello"),
    }
}

pub fn work(session: &SessionRef, lane: &str) -> PushWork {
    PushWork {
        session: session.clone(),
        lane: name(lane),
        source: None,
        class: WorkClass::Command,
        anytime: false,
        group: None,
        available_at: START,
        body: inline("{\"do\":\"it\"}"),
    }
}

/// Claims all inputs of lane `main` that are for `mode`, for ten seconds.
pub fn claim_inputs(session: &SessionRef, held: &Observed, mode: InputMode) -> ClaimInputs {
    ClaimInputs {
        session: session.clone(),
        lane: name("main"),
        execution: held.clone(),
        owner: worker(),
        lease_token: token(),
        ttl_ms: 10_000,
        mode,
        max: 10,
        dead: Vec::new(),
    }
}

/// Claims the command at the front of lane `main`, for ten seconds.
pub fn claim_work(session: &SessionRef, held: &Observed) -> ClaimWork {
    ClaimWork {
        session: session.clone(),
        lane: name("main"),
        execution: held.clone(),
        owner: worker(),
        lease_token: token(),
        ttl_ms: 10_000,
        choice: WorkChoice::Command,
        dead: Vec::new(),
    }
}

/// A session with something of everything.
pub async fn full(client: &Client) -> SessionRef {
    let session = open(client, "s", Some(b"{\"title\": \"night\"}")).await;
    let held = hold(client, &session, "main").await;
    let state = blobs(client, &session, &[b"0123", b"456"]).await;
    let nodes = vec![
        node("n1", None, inline("{\"say\":\"a\"}")),
        node("n2", Some("n1"), inline("b")),
        node("n3", Some("n2"), inline("c")),
    ];
    let all = Commit {
        state,
        usage: vec![
            usage(b"[\"model\",\"x\"]", &[7, -1]),
            usage(&[0xff], &[i64::MAX]),
        ],
        ..adding(&session, "main", &held, nodes)
    };
    commit(client, all).await;
    let hidden = Tombstone {
        session: session.clone(),
        nodes: vec![name("n2")],
    };
    client.execute(hidden).await.expect("hidden");
    client
        .execute(input(&session, "main", "i"))
        .await
        .expect("pushed");
    client
        .execute(work(&session, "main"))
        .await
        .expect("pushed");
    session
}
