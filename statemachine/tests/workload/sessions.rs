//! Sessions in the logs: two of them, with two lanes each.

use bytes::Bytes;
use quorate_statemachine::lease::{self, Observed, SameOwner};
use quorate_statemachine::limits::TTL_MS_MAX;
use quorate_statemachine::session::{
    self, BlobHash, CancelTarget, ClaimRef, Content, GraphDelta, GraphId, InputMode, NewNode,
    SessionId, SessionRef, Settlement, TurnStamp, UsageDelta, WorkChoice, WorkClass,
};
use quorate_statemachine::{Action, LeaseToken, Name, Owner, Timestamp};

use super::Random;

/// What a log's maker thinks that the state knows of a session: names and tokens that commands
/// must give, so that some of them are right. It does not see answers, so that some are wrong.
#[derive(Default)]
struct Known {
    opened: Option<u64>,
    /// Fencing tokens of the last claims of the lanes' leases.
    executions: [u64; 2],
    /// Fencing tokens of the last claims of work and of inputs.
    claims: [u64; 2],
    /// Work that was pushed last.
    work: [u64; 4],
    staged: u64,
}

/// All sessions of a log.
#[derive(Default)]
pub struct Sessions([Known; 2]);

/// One of a few short names.
fn text(prefix: &str, number: u64) -> Name {
    Name::parse("name", format!("{prefix}{number}")).expect("a short name")
}

fn executor() -> Owner {
    Owner::new(text("executor", 0), text("boot", 0))
}

/// Each grant of a lane's lease has a token of its own.
fn lease_token(fencing: u64) -> LeaseToken {
    LeaseToken::parse(format!("exec{fencing}")).expect("a short token")
}

fn claim_token() -> LeaseToken {
    LeaseToken::parse("claim".to_owned()).expect("a short token")
}

fn hash(random: &mut Random) -> BlobHash {
    BlobHash([random.below(8) as u8; 32])
}

/// Bytes of a blob that all who put it agree on, but for a few.
fn blob(random: &mut Random) -> (BlobHash, Bytes) {
    let hash = hash(random);
    let other = usize::from(random.below(16) == 0);
    (hash, Bytes::from(vec![hash.0[0]; BLOB_BYTES + other]))
}

const BLOB_BYTES: usize = 20;

fn content(random: &mut Random) -> Content {
    if random.below(8) > 0 {
        return Content::Inline(vec![5; random.below(20) as usize].into());
    }
    let hashes: Vec<_> = (0..=random.below(2)).map(|_| hash(random)).collect();
    let bytes = (hashes.len() * BLOB_BYTES) as u64;
    Content::Blobs { hashes, bytes }
}

fn nodes(random: &mut Random) -> Vec<NewNode> {
    let nodes = (0..random.below(4)).map(|_| NewNode {
        id: random.name("node", 24),
        parent: (random.below(2) == 0).then(|| random.name("node", 24)),
        body: content(random),
    });
    nodes.collect()
}

fn mode(random: &mut Random) -> InputMode {
    match random.below(2) {
        0 => InputMode::Next,
        _ => InputMode::Running {
            turn: random.name("turn", 3),
            rank: random.below(3) as u8,
        },
    }
}

fn target(random: &mut Random) -> CancelTarget {
    match random.below(2) {
        0 => CancelTarget::Id(random.name("input", 40)),
        _ => CancelTarget::Source(random.name("source", 20)),
    }
}

impl Known {
    /// The session, or now and then one of the same name that is gone or never was.
    fn session(&self, random: &mut Random, which: u64) -> SessionRef {
        let wrong = u64::from(random.below(40) == 0);
        SessionRef {
            name: text("s", which),
            id: SessionId(self.opened.unwrap_or_default() + wrong),
        }
    }

    /// The grant of a lane's lease, or now and then an older one.
    fn execution(&self, random: &mut Random, lane: u64) -> Observed {
        let older = u64::from(random.below(20) == 0);
        let fencing_token = self.executions[lane as usize].saturating_sub(older);
        let Owner {
            owner_id,
            incarnation_id,
            ..
        } = executor();
        Observed {
            owner_id,
            incarnation_id,
            lease_token: lease_token(fencing_token),
            fencing_token,
        }
    }

    fn claim(&self, of: usize) -> ClaimRef {
        ClaimRef {
            lease_token: claim_token(),
            fencing_token: self.claims[of],
        }
    }

    fn number(&self, random: &mut Random) -> u64 {
        self.work[random.below(4) as usize]
    }
}

/// A session and a lane of it.
struct Place {
    session: SessionRef,
    lane: Name,
    lane_number: u64,
}

const WORK: usize = 0;
const INPUTS: usize = 1;

impl Sessions {
    /// An action on one of them, or on a lease of one of its lanes.
    pub fn action(&mut self, random: &mut Random, index: u64) -> Action {
        let which = random.below(4) / 3;
        let known = &mut self.0[which as usize];
        let session = known.session(random, which);
        let lane_number = u64::from(random.below(8) == 0);
        let place = Place {
            session,
            lane: text("lane", lane_number),
            lane_number,
        };
        match random.below(32) {
            0..=2 => life_action(random, known, place, index),
            _ if known.opened.is_none() => life_action(random, known, place, index),
            3..=6 => graph_action(random, known, place, index),
            7..=13 => commit(random, known, &place).into(),
            14..=19 => work_action(random, known, place, index),
            20..=25 => input_action(random, known, place, index),
            26..=28 => attachment_action(random, place),
            _ => lease_claim(known, &place, index).into(),
        }
    }
}

fn lease_claim(known: &mut Known, place: &Place, index: u64) -> lease::Claim {
    known.executions[place.lane_number as usize] = index;
    let key = session::execution_lease(&place.session, &place.lane);
    lease::Claim {
        key: key.expect("short names"),
        owner: executor(),
        lease_token: lease_token(index),
        ttl_ms: TTL_MS_MAX,
        same_owner: SameOwner::Fresh,
        metadata: Vec::new(),
    }
}

fn life_action(random: &mut Random, known: &mut Known, place: Place, index: u64) -> Action {
    let (name, note) = (place.session.name.clone(), Bytes::from(vec![6; 3]));
    match random.below(16) {
        0 => {
            known.opened = None;
            session::Delete { name }.into()
        }
        1..=3 if known.opened.is_some() => session::PutNote {
            session: place.session,
            note,
        }
        .into(),
        _ => {
            known.opened.get_or_insert(index << 10);
            let note = (random.below(2) == 0).then_some(note);
            session::Open { name, note }.into()
        }
    }
}

fn graph_action(random: &mut Random, known: &mut Known, place: Place, index: u64) -> Action {
    let session = place.session;
    match random.below(8) {
        0 => session::Vacuum { session }.into(),
        1 => session::Collect { session }.into(),
        2 => {
            let nodes = (0..=random.below(3)).map(|_| random.name("node", 24));
            session::Tombstone {
                session,
                nodes: nodes.collect(),
            }
            .into()
        }
        3 | 4 => {
            let again = known.staged > 0 && random.below(2) == 0;
            let graph = again.then_some(GraphId(known.staged));
            if graph.is_none() {
                known.staged = index << 10;
            }
            let nodes = nodes(random);
            session::StageNodes {
                session,
                graph,
                nodes,
            }
            .into()
        }
        _ => session::PutBlobs {
            session,
            blobs: (0..=random.below(3)).map(|_| blob(random)).collect(),
        }
        .into(),
    }
}

fn graph_delta(random: &mut Random, known: &Known) -> GraphDelta {
    let nodes = nodes(random);
    match random.below(8) {
        0 => GraphDelta::Extend {
            graph: GraphId(known.staged),
            rewritten: 0,
            from: random.below(3),
            nodes,
        },
        1 => GraphDelta::Replace {
            staged: None,
            nodes,
        },
        2 | 3 => GraphDelta::Replace {
            staged: Some(GraphId(known.staged)),
            nodes,
        },
        _ => GraphDelta::Append(nodes),
    }
}

/// Mostly of the lane that the first commit bound.
fn commit(random: &mut Random, known: &Known, place: &Place) -> session::Commit {
    let lane = if random.below(4) == 0 {
        place.lane_number
    } else {
        0
    };
    let settles = |random: &mut Random| random.below(12) == 0;
    let turn = (random.below(3) == 0).then(|| TurnStamp {
        turn: random.name("turn", 12),
        hash: random.name("hash", 2),
    });
    let usage = (0..random.below(3)).map(|number| UsageDelta {
        counter: vec![random.below(4) as u8],
        numbers: vec![7; 1 + number as usize],
    });
    let usage = usage.collect();
    let work = settles(random).then(|| Settlement {
        lane: text("lane", lane),
        claim: known.claim(WORK),
        settled: vec![known.number(random)],
    });
    let inputs = settles(random).then(|| Settlement {
        lane: text("lane", lane),
        claim: known.claim(INPUTS),
        settled: vec![random.name("input", 40)],
    });
    let execution = Some(known.execution(random, lane)).filter(|_| random.below(20) > 0);
    session::Commit {
        session: place.session.clone(),
        lane: text("lane", lane),
        turn,
        expected_revision: (random.below(20) == 0).then(|| random.below(9)),
        graph: graph_delta(random, known),
        leaf: (random.below(2) == 0).then(|| random.name("node", 24)),
        state: content(random),
        roots: (0..random.below(2)).map(|_| hash(random)).collect(),
        usage,
        work: work.into_iter().collect(),
        inputs: inputs.into_iter().collect(),
        interrupted: (random.below(8) == 0).then(|| random.name("turn", 3)),
        attachments: vec![random.name("file", 9)],
        result: vec![8; random.below(3) as usize].into(),
        release: execution.clone().filter(|_| random.below(8) == 0),
        execution,
    }
}

fn work_action(random: &mut Random, known: &mut Known, place: Place, index: u64) -> Action {
    let numbers = vec![known.number(random)];
    let execution = known.execution(random, place.lane_number);
    let claim = known.claim(WORK);
    let Place { session, lane, .. } = place;
    match random.below(12) {
        0..=2 => session::RenewWork {
            session,
            lane,
            claim,
            numbers,
            ttl_ms: random.ttl(),
        }
        .into(),
        3 => session::AbandonWork {
            session,
            lane,
            claim,
            numbers: known.work.to_vec(),
        }
        .into(),
        4 => session::CancelWork {
            session,
            lane,
            number: numbers[0],
        }
        .into(),
        5 | 6 => {
            let (choice, dead) = (choice(random, numbers), vec![known.claims[WORK]]);
            known.claims[WORK] = index;
            session::ClaimWork {
                session,
                lane,
                execution,
                owner: random.owner(),
                lease_token: claim_token(),
                ttl_ms: random.ttl(),
                choice,
                dead: dead.into_iter().filter(|_| random.below(4) == 0).collect(),
            }
            .into()
        }
        _ => {
            known.work.rotate_right(1);
            known.work[0] = index << 10;
            push_work(random, session, lane).into()
        }
    }
}

fn choice(random: &mut Random, numbers: Vec<u64>) -> WorkChoice {
    let running = random.below(2) == 0;
    match random.below(4) {
        0 => WorkChoice::Command,
        1 => WorkChoice::Exactly { running, numbers },
        _ => WorkChoice::Turn { running, max: 3 },
    }
}

fn push_work(random: &mut Random, session: SessionRef, lane: Name) -> session::PushWork {
    let delayed = random.below(3) == 0;
    session::PushWork {
        session,
        lane,
        source: (random.below(3) == 0).then(|| random.name("source", 8)),
        class: [WorkClass::Command, WorkClass::Turn][random.below(2) as usize],
        anytime: random.below(2) == 0,
        group: (random.below(2) == 0).then(|| vec![random.below(2) as u8]),
        available_at: Timestamp(u64::from(delayed) * (1_000_000 + random.below(30) * 900_000)),
        body: content(random),
    }
}

fn input_action(random: &mut Random, known: &mut Known, place: Place, index: u64) -> Action {
    let execution = known.execution(random, place.lane_number);
    let claim = known.claim(INPUTS);
    let Place { session, lane, .. } = place;
    match random.below(9) {
        0 => session::AbandonInputs {
            session,
            lane,
            claim,
            ids: (0..8).map(|_| random.name("input", 40)).collect(),
        }
        .into(),
        1 => session::CancelInputs {
            session,
            lane,
            targets: (0..=random.below(3)).map(|_| target(random)).collect(),
        }
        .into(),
        2 => session::CancelInputsFrom {
            session,
            lane,
            from: target(random),
        }
        .into(),
        3..=5 => {
            let dead = vec![known.claims[INPUTS]];
            known.claims[INPUTS] = index;
            session::ClaimInputs {
                session,
                lane,
                execution,
                owner: random.owner(),
                lease_token: claim_token(),
                ttl_ms: random.ttl(),
                mode: mode(random),
                max: 1 + random.below(4) as u32,
                dead: dead.into_iter().filter(|_| random.below(4) == 0).collect(),
            }
            .into()
        }
        _ => session::PushInput {
            session,
            lane,
            id: random.name("input", 40),
            source: (random.below(2) == 0).then(|| random.name("source", 20)),
            mode: mode(random),
            body: content(random),
        }
        .into(),
    }
}

fn attachment_action(random: &mut Random, place: Place) -> Action {
    let Place { session, lane, .. } = place;
    let id = random.name("file", 9);
    match random.below(4) {
        0 => session::CommitAttachments {
            session,
            lane,
            ids: vec![id, random.name("file", 9)],
        }
        .into(),
        1 => session::ForgetAttachment { session, id }.into(),
        _ => session::NoteAttachment {
            session,
            uri: format!("file:///{id}"),
            id,
            lane,
            intent_at: Timestamp(random.below(1_000)),
        }
        .into(),
    }
}
