//! Sessions: their words, and how values are written in a line.
//!
//! ```text
//! session=s/1.0                       the session s that step 0 of entry 1 opened
//! lane=main                           the usual; may be left out
//! exec=w1/t1@2 release=w1/t1@2        a grant: owner, lease token, fencing token
//! claim=t2@5                          a claim: lease token, fencing token
//! body=text "body=*70000" "body=@h1+h2=12"
//!                                     bytes, so many bytes, or two blobs with 12 bytes of both
//! nodes="a,b<a,c<b:text"              nodes a, b behind a, c behind b with a body
//! usage="tokens:1,2;calls:1"          what to add to two counters
//! work="main/t2@5:3.0,4.0"            claims to settle, of a lane each, with what is settled
//! inputs="main/t3@6:i1;side/t4@7:i2"
//! ```

use bytes::Bytes;
use quorate_statemachine::lease::Observed;
use quorate_statemachine::session::{
    self, BlobHash, CancelTarget, ClaimRef, Content, GraphDelta, GraphId, InputMode, NewNode,
    Query, SessionId, SessionRef, Settlement, TurnStamp, UsageDelta, WorkChoice, WorkClass,
};
use quorate_statemachine::{Action, LeaseToken, Name, Timestamp};

use crate::args::{Args, Bad, parse_item, parse_number, split};

/// The action that a line asks for, if its word is one of a session.
pub fn action(word: &str, args: &mut Args) -> Result<Option<Action>, Bad> {
    let found = match head_action(word, args)? {
        Some(action) => Some(action),
        None => work_action(word, args)?,
    };
    match found {
        Some(action) => Ok(Some(action)),
        None => input_action(word, args),
    }
}

fn head_action(word: &str, args: &mut Args) -> Result<Option<Action>, Bad> {
    Ok(Some(match word {
        "open" => session::Open {
            name: args.name("name")?,
            note: args.optional("note").map(Bytes::from),
        }
        .into(),
        "delete" => session::Delete {
            name: args.name("name")?,
        }
        .into(),
        "put-note" => session::PutNote {
            session: reference(args)?,
            note: args.bytes("note")?.into(),
        }
        .into(),
        "put-blobs" => put_blobs(args)?.into(),
        "stage" => session::StageNodes {
            session: reference(args)?,
            graph: number(args, "graph")?.map(GraphId),
            nodes: nodes(args)?,
        }
        .into(),
        "commit" => commit(args)?.into(),
        "tombstone" => session::Tombstone {
            session: reference(args)?,
            nodes: args.names("nodes")?,
        }
        .into(),
        "vacuum" => session::Vacuum {
            session: reference(args)?,
        }
        .into(),
        "collect" => session::Collect {
            session: reference(args)?,
        }
        .into(),
        _ => return Ok(None),
    }))
}

/// `put-blobs session=s/1.0 h1:text "h2*1000"`
fn put_blobs(args: &mut Args) -> Result<session::PutBlobs, Bad> {
    let session = reference(args)?;
    let mut blobs = Vec::new();
    while let Some(word) = args.word() {
        let (name, bytes) = match word.split_once(':') {
            Some((name, text)) => (name, text.as_bytes().to_vec()),
            None => {
                let (name, count) = split(&word, '*')?;
                (name, vec![b'x'; parse_number("bytes", count)?])
            }
        };
        blobs.push((hash(name)?, bytes.into()));
    }
    Ok(session::PutBlobs { session, blobs })
}

/// `nodes=` are added at the end of what is there, of the graph of `extend=GRAPH@REWRITTEN/NODES`
/// if it is as it was then, or of that of `replace=GRAPH`; `replace=empty` begins anew.
fn commit(args: &mut Args) -> Result<session::Commit, Bad> {
    Ok(session::Commit {
        session: reference(args)?,
        lane: lane(args)?,
        turn: turn_stamp(args)?,
        execution: observed(args, "exec")?,
        expected_revision: args
            .optional("expect")
            .map(|text| parse_number("expect", &text))
            .transpose()?,
        graph: graph_delta(args)?,
        leaf: args.optional_name("leaf")?,
        state: content(args, "state")?,
        roots: hashes(args, "roots")?,
        usage: usage(args)?,
        work: settlements(args, "work", |text| Ok(parse_item(text)?.0))?,
        inputs: settlements(args, "inputs", |id| Ok(Name::parse("input", id)?))?,
        interrupted: args.optional_name("interrupted")?,
        attachments: optional_names(args, "attachments")?,
        result: args.bytes("result")?.into(),
        release: observed(args, "release")?,
    })
}

fn work_action(word: &str, args: &mut Args) -> Result<Option<Action>, Bad> {
    Ok(Some(match word {
        "push-work" => session::PushWork {
            session: reference(args)?,
            lane: lane(args)?,
            source: args.optional_name("source")?,
            class: match args.text("class").as_str() {
                "" | "turn" => WorkClass::Turn,
                "command" => WorkClass::Command,
                other => return Err(format!("class: {other:?} is no class of work").into()),
            },
            anytime: flag(args, "anytime")?,
            group: args.optional("group").map(String::into_bytes),
            available_at: Timestamp(args.number("available", 0)?),
            body: content(args, "body")?,
        }
        .into(),
        "claim-work" => session::ClaimWork {
            session: reference(args)?,
            lane: lane(args)?,
            execution: required_observed(args)?,
            owner: args.owner()?,
            lease_token: args.token("token")?,
            ttl_ms: args.duration("ttl")?,
            choice: choice(args)?,
            dead: tokens(args, "dead")?,
        }
        .into(),
        "renew-work" => session::RenewWork {
            session: reference(args)?,
            lane: lane(args)?,
            claim: claim(&args.required("claim")?)?,
            numbers: numbers(args, "numbers")?,
            ttl_ms: args.duration("ttl")?,
        }
        .into(),
        "abandon-work" => session::AbandonWork {
            session: reference(args)?,
            lane: lane(args)?,
            claim: claim(&args.required("claim")?)?,
            numbers: numbers(args, "numbers")?,
        }
        .into(),
        "cancel-work" => session::CancelWork {
            session: reference(args)?,
            lane: lane(args)?,
            number: parse_item(&args.required("number")?)?.0,
        }
        .into(),
        _ => return Ok(None),
    }))
}

fn input_action(word: &str, args: &mut Args) -> Result<Option<Action>, Bad> {
    Ok(Some(match word {
        "push-input" => session::PushInput {
            session: reference(args)?,
            lane: lane(args)?,
            id: args.name("id")?,
            source: args.optional_name("source")?,
            mode: mode(args)?,
            body: content(args, "body")?,
        }
        .into(),
        "claim-inputs" => session::ClaimInputs {
            session: reference(args)?,
            lane: lane(args)?,
            execution: required_observed(args)?,
            owner: args.owner()?,
            lease_token: args.token("token")?,
            ttl_ms: args.duration("ttl")?,
            mode: mode(args)?,
            max: args.number("max", 10)?,
            dead: tokens(args, "dead")?,
        }
        .into(),
        "abandon-inputs" => session::AbandonInputs {
            session: reference(args)?,
            lane: lane(args)?,
            claim: claim(&args.required("claim")?)?,
            ids: args.names("ids")?,
        }
        .into(),
        "cancel-inputs" => session::CancelInputs {
            session: reference(args)?,
            lane: lane(args)?,
            targets: targets(args)?,
        }
        .into(),
        "cancel-inputs-from" => session::CancelInputsFrom {
            session: reference(args)?,
            lane: lane(args)?,
            from: targets(args)?.pop().ok_or("from which input?")?,
        }
        .into(),
        _ => return attachment_action(word, args),
    }))
}

fn attachment_action(word: &str, args: &mut Args) -> Result<Option<Action>, Bad> {
    Ok(Some(match word {
        "note-attachment" => session::NoteAttachment {
            session: reference(args)?,
            id: args.name("id")?,
            lane: lane(args)?,
            uri: args.text("uri"),
            intent_at: Timestamp(args.number("intent", 0)?),
        }
        .into(),
        "commit-attachments" => session::CommitAttachments {
            session: reference(args)?,
            lane: lane(args)?,
            ids: args.names("ids")?,
        }
        .into(),
        "forget-attachment" => session::ForgetAttachment {
            session: reference(args)?,
            id: args.name("id")?,
        }
        .into(),
        _ => return Ok(None),
    }))
}

/// The query that a line asks for, if its word is one of a session.
pub fn query(word: &str, args: &mut Args) -> Result<Option<Query>, Bad> {
    Ok(Some(match word {
        "session" => Query::Get(session::Get {
            name: args.name("name")?,
        }),
        "sessions" => Query::List(session::List {
            prefix: args.text("prefix"),
            after: args.optional_name("after")?,
            limit: args.number("limit", 0)?,
        }),
        "nodes" => Query::Nodes(session::Nodes {
            session: reference(args)?,
            graph: required_graph(args)?,
            from: args.number("from", 0)?,
            limit: args.number("limit", 0)?,
        }),
        "path" => Query::Path(session::Path {
            session: reference(args)?,
            graph: required_graph(args)?,
            leaf: args.name("leaf")?,
            limit: args.number("limit", 0)?,
        }),
        "node" => Query::Node(session::NodeOf {
            session: reference(args)?,
            node: args.name("node")?,
        }),
        "blobs" => Query::Blobs(session::Blobs {
            session: reference(args)?,
            hashes: hashes(args, "hashes")?,
        }),
        "attachments" => Query::Attachments(session::Attachments {
            session: reference(args)?,
            until: Timestamp(args.number("until", u64::MAX)?),
            after: match args.optional_name("after")? {
                Some(id) => Some((Timestamp(args.required_number("after-intent")?), id)),
                None => None,
            },
            limit: args.number("limit", 0)?,
        }),
        _ => return lane_query(word, args),
    }))
}

fn lane_query(word: &str, args: &mut Args) -> Result<Option<Query>, Bad> {
    let after = |args: &mut Args| -> Result<Option<(Name, u64)>, Bad> {
        let Some(number) = number(args, "after")? else {
            return Ok(None);
        };
        Ok(Some((args.name("after-lane")?, number)))
    };
    Ok(Some(match word {
        "work" => Query::Work(session::WorkList {
            session: reference(args)?,
            lane: args.optional_name("lane")?,
            unclaimed: flag(args, "unclaimed")?,
            after: after(args)?,
            limit: args.number("limit", 0)?,
        }),
        "inputs" => Query::Inputs(session::Inputs {
            session: reference(args)?,
            lane: args.optional_name("lane")?,
            ended: flag(args, "ended")?,
            unclaimed: flag(args, "unclaimed")?,
            after: after(args)?,
            limit: args.number("limit", 0)?,
        }),
        _ => return Ok(None),
    }))
}

fn flag(args: &mut Args, key: &str) -> Result<bool, Bad> {
    Ok(args.number(key, 0u8)? == 1)
}

fn reference(args: &mut Args) -> Result<SessionRef, Bad> {
    let text = args.required("session")?;
    let (name, id) = split(&text, '/')?;
    Ok(SessionRef {
        name: Name::parse("session", name)?,
        id: SessionId(parse_item(id)?.0),
    })
}

fn lane(args: &mut Args) -> Result<Name, Bad> {
    let lane = args.optional("lane");
    Ok(Name::parse("lane", lane.as_deref().unwrap_or("main"))?)
}

fn number(args: &mut Args, key: &str) -> Result<Option<u64>, Bad> {
    match args.optional(key) {
        Some(text) => Ok(Some(parse_item(&text)?.0)),
        None => Ok(None),
    }
}

fn required_graph(args: &mut Args) -> Result<GraphId, Bad> {
    Ok(GraphId(number(args, "graph")?.ok_or("graph= is missing")?))
}

/// Items between commas; none if there is no text.
fn listed(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').filter(|item| !item.is_empty())
}

fn numbers(args: &mut Args, key: &str) -> Result<Vec<u64>, Bad> {
    let text = args.text(key);
    listed(&text).map(|item| Ok(parse_item(item)?.0)).collect()
}

fn tokens(args: &mut Args, key: &str) -> Result<Vec<u64>, Bad> {
    let text = args.text(key);
    listed(&text).map(|item| parse_number(key, item)).collect()
}

fn optional_names(args: &mut Args, key: &str) -> Result<Vec<Name>, Bad> {
    let text = args.text(key);
    let names = listed(&text).map(|item| Ok(Name::parse(key, item)?));
    names.collect()
}

/// A blob is named by a short text: its first bytes.
fn hash(text: &str) -> Result<BlobHash, Bad> {
    let mut hash = [0; 32];
    let room = hash.get_mut(..text.len()).ok_or("32 bytes at most")?;
    room.copy_from_slice(text.as_bytes());
    Ok(BlobHash(hash))
}

fn hashes(args: &mut Args, key: &str) -> Result<Vec<BlobHash>, Bad> {
    let text = args.text(key);
    listed(&text).map(hash).collect()
}

fn content(args: &mut Args, key: &str) -> Result<Content, Bad> {
    parse_content(&args.text(key))
}

fn parse_content(text: &str) -> Result<Content, Bad> {
    if let Some(count) = text.strip_prefix('*') {
        return Ok(Content::Inline(
            vec![b'x'; parse_number("bytes", count)?].into(),
        ));
    }
    let Some(blobs) = text.strip_prefix('@') else {
        return Ok(Content::Inline(text.as_bytes().to_vec().into()));
    };
    let (names, bytes) = split(blobs, '=')?;
    let names = names.split('+').filter(|name| !name.is_empty());
    Ok(Content::Blobs {
        hashes: names.map(hash).collect::<Result<_, _>>()?,
        bytes: parse_number("bytes", bytes)?,
    })
}

fn nodes(args: &mut Args) -> Result<Vec<NewNode>, Bad> {
    let text = args.text("nodes");
    let node = |item: &str| -> Result<NewNode, Bad> {
        let (place, body) = item.split_once(':').unwrap_or((item, ""));
        let (id, parent) = match place.split_once('<') {
            Some((id, parent)) => (id, Some(Name::parse("parent", parent)?)),
            None => (place, None),
        };
        Ok(NewNode {
            id: Name::parse("node", id)?,
            parent,
            body: parse_content(body)?,
        })
    };
    listed(&text).map(node).collect()
}

fn graph_delta(args: &mut Args) -> Result<GraphDelta, Bad> {
    let nodes = nodes(args)?;
    if let Some(text) = args.optional("extend") {
        let (graph, read) = split(&text, '@')?;
        let (rewritten, from) = split(read, '/')?;
        return Ok(GraphDelta::Extend {
            graph: GraphId(parse_item(graph)?.0),
            rewritten: parse_number("extend", rewritten)?,
            from: parse_number("extend", from)?,
            nodes,
        });
    }
    let staged = match args.optional("replace").as_deref() {
        None => return Ok(GraphDelta::Append(nodes)),
        Some("empty") => None,
        Some(graph) => Some(GraphId(parse_item(graph)?.0)),
    };
    Ok(GraphDelta::Replace { staged, nodes })
}

/// `turn=TURN/HASH`
fn turn_stamp(args: &mut Args) -> Result<Option<TurnStamp>, Bad> {
    let Some(text) = args.optional("turn") else {
        return Ok(None);
    };
    let (turn, hash) = split(&text, '/')?;
    Ok(Some(TurnStamp {
        turn: Name::parse("turn", turn)?,
        hash: Name::parse("hash", hash)?,
    }))
}

/// `KEY=OWNER/TOKEN@FENCING`, or `KEY=OWNER/BOOT/TOKEN@FENCING` for another incarnation.
fn observed(args: &mut Args, key: &str) -> Result<Option<Observed>, Bad> {
    let Some(text) = args.optional(key) else {
        return Ok(None);
    };
    let (grant, fencing) = split(&text, '@')?;
    let (owner, token) = split(grant, '/')?;
    let (id, boot) = owner.split_once('/').unwrap_or((owner, owner));
    Ok(Some(Observed {
        owner_id: Name::parse(key, id)?,
        incarnation_id: Name::parse(key, boot)?,
        lease_token: LeaseToken::parse(token)?,
        fencing_token: parse_number(key, fencing)?,
    }))
}

fn required_observed(args: &mut Args) -> Result<Observed, Bad> {
    Ok(observed(args, "exec")?.ok_or("exec= is missing")?)
}

fn claim(text: &str) -> Result<ClaimRef, Bad> {
    let (token, fencing) = split(text, '@')?;
    Ok(ClaimRef {
        lease_token: LeaseToken::parse(token)?,
        fencing_token: parse_number("claim", fencing)?,
    })
}

fn settlements<T>(
    args: &mut Args,
    key: &str,
    parse: impl Fn(&str) -> Result<T, Bad>,
) -> Result<Vec<Settlement<T>>, Bad> {
    let text = args.text(key);
    let one = |item: &str| -> Result<Settlement<T>, Bad> {
        let (place, settled) = item.split_once(':').ok_or("nothing is settled")?;
        let (lane, of) = place.split_once('/').ok_or("a claim has a lane")?;
        Ok(Settlement {
            lane: Name::parse("lane", lane)?,
            claim: claim(of)?,
            settled: listed(settled).map(&parse).collect::<Result<_, _>>()?,
        })
    };
    let items = text.split(';').filter(|item| !item.is_empty());
    items.map(one).collect()
}

fn usage(args: &mut Args) -> Result<Vec<UsageDelta>, Bad> {
    let text = args.text("usage");
    let one = |item: &str| -> Result<UsageDelta, Bad> {
        let (counter, numbers) = item.split_once(':').ok_or("a counter has numbers")?;
        let numbers = listed(numbers).map(|number| parse_number("usage", number));
        Ok(UsageDelta {
            counter: counter.as_bytes().to_vec(),
            numbers: numbers.collect::<Result<_, _>>()?,
        })
    };
    let items = text.split(';').filter(|item| !item.is_empty());
    items.map(one).collect()
}

/// `take=command`, `take=turn max=N`, or `exactly=5.0,6.0`; with `running=1` only what may go into
/// a turn that runs already.
fn choice(args: &mut Args) -> Result<WorkChoice, Bad> {
    let running = flag(args, "running")?;
    if let Some(text) = args.optional("exactly") {
        let numbers = listed(&text).map(|item| Ok::<_, Bad>(parse_item(item)?.0));
        let numbers = numbers.collect::<Result<_, _>>()?;
        return Ok(WorkChoice::Exactly { running, numbers });
    }
    match args.text("take").as_str() {
        "command" => Ok(WorkChoice::Command),
        "" | "turn" => Ok(WorkChoice::Turn {
            running,
            max: args.number("max", 10)?,
        }),
        other => Err(format!("take: {other:?} is no choice").into()),
    }
}

/// `turn=TURN rank=N` is an input for a turn that runs; without, it is for the next one.
fn mode(args: &mut Args) -> Result<InputMode, Bad> {
    match args.optional_name("turn")? {
        Some(turn) => Ok(InputMode::Running {
            turn,
            rank: args.number("rank", 0)?,
        }),
        None => Ok(InputMode::Next),
    }
}

/// Words: an id each, or `source/SOURCE`.
fn targets(args: &mut Args) -> Result<Vec<CancelTarget>, Bad> {
    let mut targets = Vec::new();
    while let Some(word) = args.word() {
        targets.push(match word.strip_prefix("source/") {
            Some(source) => CancelTarget::Source(Name::parse("source", source)?),
            None => CancelTarget::Id(Name::parse("id", word)?),
        });
    }
    Ok(targets)
}
