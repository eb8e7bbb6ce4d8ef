//! From turns to commands: what a turn stands for in the state that the model is in.

mod commit;
mod lanes;

use bytes::Bytes;
use quorate_statemachine::cluster::Tick;
use quorate_statemachine::lease::{self, Claim, Observed, SameOwner};
use quorate_statemachine::session::{
    self, BlobHash, Collect, CommitAttachments, Delete, ForgetAttachment, GraphId, NoteAttachment,
    Open, PutBlobs, PutNote, SessionId, SessionRef, StageNodes, Tombstone, Vacuum, execution_lease,
};
use quorate_statemachine::{Action, Command, LeaseToken, Name, Owner, RequestId, Timestamp};

use crate::model::{Grant, Model, ModelSession};
use crate::turns::{Act, Content, Execution, NewNode, Request, Staged, Step, Turn, What};

/// What was sent, for those who repeat it.
#[derive(Debug, Default)]
pub struct Sent {
    commands: Vec<Command>,
    requests: u64,
}

/// What is to be done, or what stands in its way and is done first.
type Way<T> = Result<T, Action>;

/// How much is done first at most: a session, blobs and attachments, a lease.
pub const BEFORE: usize = 8;

pub fn name(kind: &str, number: impl std::fmt::Display) -> Name {
    Name::parse(kind, format!("{kind}-{number}")).expect("a valid name")
}

pub fn session_name(number: u8) -> Name {
    name("session", number)
}

pub fn lane_name(number: u8) -> Name {
    name("lane", number)
}

pub fn hash(number: u8) -> BlobHash {
    BlobHash([number; 32])
}

/// What a blob has unless somebody put other bytes under its name.
fn bytes_of(number: u8) -> Bytes {
    vec![number; 10 + usize::from(number)].into()
}

/// Owners 0 and 1 are two boots of one machine.
fn owner(number: u8) -> Owner {
    Owner::new(name("worker", number / 2), name("boot", number))
}

fn token(text: impl Into<String>) -> LeaseToken {
    LeaseToken::parse(text).expect("a valid token")
}

impl Turn {
    /// The command that the turn stands for in this state, or what is to be done before.
    pub fn resolve(&self, model: &Model, sent: &mut Sent) -> Way<Command> {
        let action = match &self.act {
            Act::Tick => return Ok(Tick {}.into()),
            Act::Again(nth) => return Ok(sent.again(*nth)),
            Act::One(step) => step.resolve(model, 0)?,
            Act::Composite(steps) => composite(steps, model),
            Act::Crowd { count, ttl_ms } => crowd(model.index, *count, *ttl_ms),
        };
        let mut command = Command::from(action);
        let not_before = match self.request {
            Request::None => None,
            Request::Fresh => Some(model.index - 1),
            Request::Old => Some(0),
        };
        if let Some(not_before) = not_before {
            sent.requests += 1;
            let mut id = [0; 16];
            id[..8].copy_from_slice(&sent.requests.to_be_bytes());
            command = command.with_request(RequestId { id, not_before });
        }
        sent.commands.push(command.clone());
        Ok(command)
    }
}

impl Sent {
    /// One of the last commands. What was done to a lease is left out unless its answer is
    /// remembered: how long a lease knows of its former grants is no affair of sessions.
    fn again(&self, nth: usize) -> Command {
        let of_lease = |action: &Action| matches!(action, Action::Lease(_));
        let repeatable = |command: &&Command| match &command.action {
            _ if command.request.is_some() => true,
            Action::Composite(steps) => !steps.iter().any(of_lease),
            action => !of_lease(action),
        };
        let last: Vec<&Command> = self.commands.iter().rev().filter(repeatable).collect();
        match last.len().min(12) {
            0 => crowd(0, 1, 1).into(),
            count => last[nth % count].clone(),
        }
    }
}

/// Each step is said relative to what those before it do, and comes behind what is to be done
/// before it.
fn composite(steps: &[Step], model: &Model) -> Action {
    let mut after = model.clone();
    let mut actions = Vec::new();
    for step in steps {
        for _ in 0..=BEFORE {
            let at = actions.len() as u64;
            let way = step.resolve(&after, at);
            let (action, done) = match way {
                Ok(action) => (action, true),
                Err(first) => (first, false),
            };
            let before = after.clone();
            if after.step(at, &action).is_err() {
                after = before;
            }
            actions.push(action);
            if done {
                break;
            }
        }
    }
    Action::Composite(actions)
}

/// Leases, all for one term.
fn crowd(index: u64, count: usize, ttl_ms: u64) -> Action {
    let claim = |number| Claim {
        key: name("crowd", number),
        owner: owner(0),
        lease_token: token(format!("t{index}")),
        ttl_ms,
        same_owner: SameOwner::Fresh,
        metadata: Vec::new(),
    };
    Action::Composite((0..count).map(|number| claim(number).into()).collect())
}

/// The state as a step finds it.
struct Scene<'a> {
    model: &'a Model,
    session: Option<&'a ModelSession>,
    of: SessionRef,
    lane: Name,
    willing: bool,
    /// For tokens that nobody else has.
    tag: String,
}

impl Step {
    /// The action that the step stands for in this state, `at` a place of an entry.
    fn resolve(&self, model: &Model, at: u64) -> Way<Action> {
        let name = session_name(self.session);
        let session = model.session(&name);
        let known = session.map_or(SessionId(7), |session| session.id);
        let former = model.deleted.iter().rev().find(|old| old.name == name);
        let id = match former {
            _ if !self.stale => known,
            Some(former) => former.id,
            None => SessionId(known.0 + 1),
        };
        let scene = Scene {
            model,
            session,
            of: SessionRef { name, id },
            lane: lane_name(self.lane),
            willing: self.willing && !self.stale,
            tag: format!("t{}-{at}", model.index),
        };
        scene.check_open(&self.what)?;
        scene.act(&self.what)
    }
}

impl Scene<'_> {
    fn check_open(&self, what: &What) -> Way<()> {
        let needs = !matches!(what, What::Open(_) | What::Delete);
        if needs && self.willing && self.session.is_none() {
            return Err(self.open(None));
        }
        Ok(())
    }

    fn open(&self, note: Option<u8>) -> Action {
        Open {
            name: self.of.name.clone(),
            note: note.map(|note| vec![note; 3].into()),
        }
        .into()
    }

    fn act(&self, what: &What) -> Way<Action> {
        match what {
            What::ClaimWork(..)
            | What::RenewWork(..)
            | What::AbandonWork(_)
            | What::CancelWork(_)
            | What::PushWork { .. } => self.work(what),
            What::PushInput { .. }
            | What::ClaimInputs(..)
            | What::AbandonInputs(_)
            | What::CancelInputs(_)
            | What::CancelInputsFrom(_) => self.inputs(what),
            What::ClaimLease { .. }
            | What::RenewLease(_)
            | What::ReleaseLease
            | What::RevokeLease => Ok(self.lease(what)),
            What::Commit(commit) => self.commit(commit).map(Action::from),
            other => self.of_session(other),
        }
    }

    fn of_session(&self, what: &What) -> Way<Action> {
        let session = self.of.clone();
        Ok(match what {
            What::Open(note) => self.open(*note),
            What::Delete => Delete { name: session.name }.into(),
            What::PutNote(note) => {
                let note = vec![*note; 2].into();
                PutNote { session, note }.into()
            }
            What::PutBlobs { blobs, other_bytes } => self.put(blobs, *other_bytes),
            What::PutMany(count) => {
                let many: Vec<u8> = (100..100 + count).collect();
                self.put(&many, false)
            }
            What::StageMany(count) => {
                let nodes = (0..*count).map(|number| session::NewNode {
                    id: name("many", number),
                    parent: None,
                    body: session::Content::Inline(Bytes::new()),
                });
                let (graph, nodes) = (None, nodes.collect());
                StageNodes {
                    session,
                    graph,
                    nodes,
                }
                .into()
            }
            What::Stage { graph, nodes } => {
                let (graph, nodes) = (self.staged(*graph), self.nodes(nodes)?);
                StageNodes {
                    session,
                    graph,
                    nodes,
                }
                .into()
            }
            What::Tombstone(nodes) => {
                let nodes = nodes.iter().map(|id| name("node", id)).collect();
                Tombstone { session, nodes }.into()
            }
            What::Vacuum => Vacuum { session }.into(),
            What::Collect => Collect { session }.into(),
            What::NoteAttachment { id, intent_at } => NoteAttachment {
                session,
                id: name("attachment", id),
                lane: self.lane.clone(),
                uri: format!("file:{id}"),
                intent_at: Timestamp(*intent_at),
            }
            .into(),
            What::CommitAttachments(ids) => CommitAttachments {
                session,
                lane: self.lane.clone(),
                ids: attachments(ids),
            }
            .into(),
            What::ForgetAttachment(id) => {
                let id = name("attachment", id);
                ForgetAttachment { session, id }.into()
            }
            other => unreachable!("{other:?} is resolved elsewhere"),
        })
    }

    fn put(&self, blobs: &[u8], other_bytes: bool) -> Action {
        let more = |number: u8| [bytes_of(number), Bytes::from_static(b"more")].concat();
        let blobs = blobs.iter().map(|number| match other_bytes {
            true => (hash(*number), more(*number).into()),
            false => (hash(*number), bytes_of(*number)),
        });
        PutBlobs {
            session: self.of.clone(),
            blobs: blobs.collect(),
        }
        .into()
    }

    /// Puts blobs first that are not there.
    fn check_blobs(&self, blobs: &[u8]) -> Way<()> {
        let Some(session) = self.session else {
            return Ok(());
        };
        let mut missing = blobs.to_vec();
        missing.retain(|number| session.blob(hash(*number)).is_none());
        if self.willing && !missing.is_empty() {
            return Err(self.put(&missing, false));
        }
        Ok(())
    }

    fn content(&self, content: &Content) -> Way<session::Content> {
        let (blobs, wrong) = match content {
            Content::Inline(number) => {
                let bytes = vec![*number; usize::from(*number)];
                return Ok(session::Content::Inline(bytes.into()));
            }
            Content::Blobs {
                blobs,
                wrong_length,
            } => (blobs, *wrong_length),
        };
        self.check_blobs(blobs)?;
        let length = |number: &u8| {
            let known = self.session.and_then(|s| s.blob(hash(*number)));
            known
                .map_or_else(|| bytes_of(*number), |blob| blob.bytes.clone())
                .len() as u64
        };
        Ok(session::Content::Blobs {
            hashes: blobs.iter().map(|number| hash(*number)).collect(),
            bytes: blobs.iter().map(length).sum::<u64>() + u64::from(wrong),
        })
    }

    fn nodes(&self, nodes: &[NewNode]) -> Way<Vec<session::NewNode>> {
        let node = |node: &NewNode| {
            Ok(session::NewNode {
                id: name("node", node.id),
                parent: node.parent.map(|parent| name("node", parent)),
                body: self.content(&node.body)?,
            })
        };
        nodes.iter().map(node).collect()
    }

    /// A staged graph of the session, a graph that is not staged, or a new one.
    fn staged(&self, which: Staged) -> Option<GraphId> {
        let session = self.session?;
        match which {
            Staged::New => None,
            Staged::One(nth) => {
                let staged: Vec<_> = session.staged().map(|graph| graph.id).collect();
                Some(*staged.get(nth % staged.len().max(1))?)
            }
            Staged::Wrong(nth) => {
                let left = self.model.left.iter().filter(|(of, _)| *of == session.id);
                let left = left.map(|(_, graph)| *graph);
                let own = session.head.iter().map(|head| head.graph);
                let wrong: Vec<_> = left.chain(own).rev().collect();
                let first = wrong.get(nth % wrong.len().max(1));
                Some(first.copied().unwrap_or(GraphId(9)))
            }
        }
    }

    fn key(&self, lane: &Name) -> Name {
        execution_lease(&self.of, lane).expect("short names")
    }

    fn claim_lease(&self, lane: &Name, by: u8, ttl_ms: u64, fresh: bool) -> Action {
        Claim {
            key: self.key(lane),
            owner: owner(by),
            lease_token: token(self.tag.clone()),
            ttl_ms,
            same_owner: if fresh {
                SameOwner::Fresh
            } else {
                SameOwner::Busy
            },
            metadata: Vec::new(),
        }
        .into()
    }

    /// The grant that is named, right or wrong. Asks for the lease first if nobody has it.
    fn execution(&self, lane: &Name, which: Execution) -> Way<Option<Observed>> {
        let key = self.key(lane);
        let live = self.model.live_grant(&key);
        let needs = !matches!(which, Execution::None | Execution::Former(_));
        if live.is_none() && self.willing && needs {
            let ttl_ms = [20_000_000, 60_000, 2_000, 20_000_000][self.model.index as usize % 4];
            return Err(self.claim_lease(lane, 0, ttl_ms, false));
        }
        let grants = self.model.grants.iter();
        let own: Vec<&Grant> = grants
            .rev()
            .filter(|grant| grant.lease.key == key)
            .collect();
        let last = live.or(own.first().copied()).map(Grant::observed);
        let mut held = last.unwrap_or_else(|| Observed {
            owner_id: owner(0).owner_id,
            incarnation_id: owner(0).incarnation_id,
            lease_token: token("none"),
            fencing_token: 1,
        });
        match which {
            Execution::None => return Ok(None),
            Execution::Live => {}
            Execution::Former(nth) if own.is_empty() => held.fencing_token += nth as u64,
            Execution::Former(nth) => held = own[nth % own.len()].observed(),
            Execution::OtherOwner => held.incarnation_id = name("boot", 9),
            Execution::OtherToken => held.lease_token = token("other"),
            Execution::OtherLane => {
                let lanes = [lane_name(0), lane_name(1)];
                let other = lanes.iter().find(|other| *other != lane);
                let other = other.map(|other| self.key(other));
                let grant = other.and_then(|key| self.model.live_grant(&key));
                held = grant.map_or(held, Grant::observed);
            }
        }
        Ok(Some(held))
    }

    fn lease(&self, what: &What) -> Action {
        let key = self.key(&self.lane);
        let held = match (what, self.model.live_grant(&key)) {
            (
                What::ClaimLease {
                    owner,
                    ttl_ms,
                    fresh,
                },
                _,
            ) => {
                return self.claim_lease(&self.lane, *owner, *ttl_ms, *fresh);
            }
            (_, None) => return self.claim_lease(&self.lane, 1, 60_000, true),
            (_, Some(live)) => live.observed(),
        };
        let (lease_token, fencing_token) = (held.lease_token, held.fencing_token);
        match what {
            What::RenewLease(ttl_ms) => lease::Renew {
                key,
                lease_token,
                fencing_token,
                ttl_ms: *ttl_ms,
            }
            .into(),
            What::ReleaseLease => lease::Release {
                key,
                lease_token,
                fencing_token,
            }
            .into(),
            _ => lease::Revoke {
                key,
                only: None,
                by: "operator".to_owned(),
            }
            .into(),
        }
    }
}

fn attachments(ids: &[u8]) -> Vec<Name> {
    ids.iter().map(|id| name("attachment", id)).collect()
}
