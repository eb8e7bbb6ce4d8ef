//! Commit: move a session forward.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::attachment::{check_ids, stamp};
use super::content::{BlobHash, Content};
use super::graph::{self, NewNode};
use super::stage_nodes::not_staged;
use super::usage::{self, UsageDelta};
use super::{
    ClaimRef, Graph, GraphId, Head, Session, SessionRef, blobs, check_name, check_payload,
    execution, garbage, input, work,
};
use crate::command::Validate;
use crate::context::Context;
use crate::id::Name;
use crate::lease::Observed;
use crate::limits::{SESSION_BATCH_MAX, SESSION_ROOTS_MAX, SETTLEMENTS_MAX, USAGE_COUNTERS_MAX};
use crate::refusal::{Broken, Failure, InvalidArgument, Refusal, Subject};
use crate::tables::{MetaRow, SessionGraphs, SessionHeads, graph_key, session_one_key, turn_key};
use crate::time::Timestamp;
use crate::transaction::Transaction;

/// Moves the head of a session: all of it, or nothing.
///
/// In this order: the session must be bound to `lane` or to none yet (`Conflict` of the session); a
/// turn that was committed before answers what it answered then, and moves nothing (`Conflict` of
/// the turn if its hash is another one); `execution` must be the live grant of the lane's lease
/// (`Fenced`, `Expired`); the head must have the expected revision (`Moved`); each claim that is
/// settled must have all that it settles, live or not (`Fenced` of the work or the input); blobs
/// that are referred to must be there (`NotFound` of the blob: put it and try again), and so must a
/// staged graph, or one that is extended. Then the head gets the next revision.
///
/// Promises that a turn is committed once. With a stamp a retry is safe by that; without one, give
/// it a request id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Which.
    pub session: SessionRef,
    /// The lane that moves it: the first commit binds it.
    pub lane: Name,
    /// The turn that this is.
    pub turn: Option<TurnStamp>,
    /// The lane's execution lease. Without it only a turn that was committed before is answered.
    pub execution: Option<Observed>,
    /// The revision that the caller has read, 0 for none; none to move whatever is there.
    pub expected_revision: Option<u64>,
    /// What becomes of the graph.
    pub graph: GraphDelta,
    /// The node that the session stands at then; need not exist.
    pub leaf: Option<Name>,
    /// Opaque, instead of the state before.
    pub state: Content,
    /// Blobs that the state refers to beside its own content; they are kept as long as it is.
    pub roots: Vec<BlobHash>,
    /// What to add to the usage counters.
    pub usage: Vec<UsageDelta>,
    /// Claimed work that was done: it goes.
    pub work: Vec<Settlement<u64>>,
    /// Claimed inputs that were done: they are completed.
    pub inputs: Vec<Settlement<Name>>,
    /// An interrupted turn: inputs for it that it has not accepted are left to the next one.
    pub interrupted: Option<Name>,
    /// Attachments of the lane that the state refers to.
    pub attachments: Vec<Name>,
    /// Opaque: what a retry of the turn is answered too.
    pub result: Bytes,
    /// The lease to give back, if it is still this grant.
    pub release: Option<Observed>,
}

/// Which turn a commit is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnStamp {
    /// Unique in its lane.
    pub turn: Name,
    /// Of what the turn commits: the same turn has the same.
    pub hash: Name,
}

/// What becomes of a session's graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GraphDelta {
    /// It gets these nodes at its end; one whose id is there takes the place of the old one.
    Append(Vec<NewNode>),
    /// The same, if the graph is this one still and has just these nodes, none of them a tombstone:
    /// a caller who knows them need not give them again. `Moved` (the graph) if it is not.
    Extend {
        /// The graph that the caller has read.
        graph: GraphId,
        /// [`Graph::rewritten`] as the caller has read it.
        rewritten: u64,
        /// How many nodes the caller has read.
        from: u64,
        /// The nodes behind them.
        nodes: Vec<NewNode>,
    },
    /// It is replaced.
    Replace {
        /// By this staged graph, or by an empty one.
        staged: Option<GraphId>,
        /// With these nodes at its end.
        nodes: Vec<NewNode>,
    },
}

/// A claim that is settled, with all that is settled of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement<T> {
    /// Whose work or inputs.
    pub lane: Name,
    /// The claim.
    pub claim: ClaimRef,
    /// Numbers of work, or ids of inputs.
    pub settled: Vec<T>,
}

/// What became of a turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Of what it committed.
    pub hash: Name,
    /// The revision that it made.
    pub revision: u64,
    /// When.
    pub at: Timestamp,
    /// Opaque.
    pub result: Bytes,
}

/// The answer to a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// The revision that the commit made.
    pub revision: u64,
    /// The result that was given with it.
    pub result: Bytes,
    /// The graph after it, with its counters; none if the turn was committed before.
    pub graph: Option<(GraphId, Graph)>,
}

impl Validate for Commit {
    fn validate(&self) -> Result<(), InvalidArgument> {
        self.session.validate()?;
        check_name("lane", &self.lane)?;
        match &self.graph {
            GraphDelta::Append(nodes)
            | GraphDelta::Extend { nodes, .. }
            | GraphDelta::Replace { nodes, .. } => graph::validate(nodes)?,
        }
        self.state.validate("state")?;
        check_count("roots", self.roots.len(), SESSION_ROOTS_MAX)?;
        check_count("usage", self.usage.len(), USAGE_COUNTERS_MAX)?;
        self.usage.iter().try_for_each(UsageDelta::validate)?;
        check_count("work", self.work.len(), SETTLEMENTS_MAX)?;
        check_count("inputs", self.inputs.len(), SETTLEMENTS_MAX)?;
        self.work.iter().try_for_each(Settlement::validate)?;
        self.inputs.iter().try_for_each(Settlement::validate)?;
        check_ids(&self.attachments)?;
        check_payload("result", &self.result)
    }
}

fn check_count(field: &str, count: usize, max: usize) -> Result<(), InvalidArgument> {
    InvalidArgument::check_count(field, count as u64, 0, max as u64)
}

impl<T> Settlement<T> {
    fn validate(&self) -> Result<(), InvalidArgument> {
        check_name("lane", &self.lane)?;
        check_count("settled", self.settled.len(), SESSION_BATCH_MAX)
    }
}

impl Commit {
    pub(super) fn apply(
        &self,
        tx: &mut Transaction<'_>,
        meta: &mut MetaRow,
        ctx: &Context,
    ) -> Result<Committed, Failure> {
        let mut session = self.session.require(tx)?;
        let head = tx.get(&session_one_key::<SessionHeads>(session.id))?;
        self.check_lane(head.as_ref())?;
        if let Some(stamp) = self.committed_before(tx, &session)? {
            self.give_back(tx, meta, ctx, &session)?;
            return Ok(Committed {
                revision: stamp.revision,
                result: stamp.result,
                graph: None,
            });
        }
        self.check_execution(tx, ctx, &session)?;
        self.check_revision(head.as_ref())?;
        self.settle(tx, ctx, &mut session)?;
        let (revision, graph) = self.move_head(tx, ctx, &mut session, head)?;
        usage::add(tx, ctx, &mut session, &self.usage)?;
        if let Some(turn) = &self.interrupted {
            input::defer(tx, &session, &self.lane, turn)?;
        }
        stamp(tx, ctx, &session, &self.lane, &self.attachments)?;
        self.stamp_turn(tx, ctx, &session, revision)?;
        self.give_back(tx, meta, ctx, &session)?;
        session.store(tx)?;
        Ok(Committed {
            revision,
            result: self.result.clone(),
            graph: Some(graph),
        })
    }

    fn check_lane(&self, head: Option<&Head>) -> Result<(), Failure> {
        match head {
            Some(head) if head.lane != self.lane => Err(Failure::Refused(Refusal::Conflict {
                subject: Subject::Session,
                name: self.session.name.to_string(),
                problem: format!(
                    "it is bound to lane {}, lane {} cannot commit to it",
                    head.lane, self.lane
                ),
            })),
            _ => Ok(()),
        }
    }

    fn committed_before(
        &self,
        tx: &mut Transaction<'_>,
        session: &Session,
    ) -> Result<Option<Stamp>, Failure> {
        let Some(TurnStamp { turn, hash }) = &self.turn else {
            return Ok(None);
        };
        let stamp = tx.get(&turn_key(session.id, &self.lane, turn))?;
        match stamp {
            Some(stamp) if stamp.hash != *hash => Err(Failure::Refused(Refusal::Conflict {
                subject: Subject::Turn,
                name: format!("{}/{turn}", self.lane),
                problem: format!(
                    "it was committed as revision {} with hash {}, not with {hash}",
                    stamp.revision, stamp.hash
                ),
            })),
            known => Ok(known),
        }
    }

    fn check_execution(
        &self,
        tx: &mut Transaction<'_>,
        ctx: &Context,
        session: &Session,
    ) -> Result<(), Failure> {
        match &self.execution {
            Some(held) => execution::require(tx, ctx, session, &self.lane, held),
            None => execution::refuse(tx, ctx, session, &self.lane),
        }
    }

    fn check_revision(&self, head: Option<&Head>) -> Result<(), Failure> {
        let actual = head.map_or(0, |head| head.revision);
        match self.expected_revision {
            Some(expected) if expected != actual => Err(Failure::Refused(Refusal::Moved {
                subject: Subject::Session,
                name: self.session.name.to_string(),
                expected,
                actual,
            })),
            _ => Ok(()),
        }
    }

    /// What is settled twice is not there the second time, and is refused as what was lost.
    fn settle(
        &self,
        tx: &mut Transaction<'_>,
        ctx: &Context,
        session: &mut Session,
    ) -> Result<(), Failure> {
        for Settlement {
            lane,
            claim,
            settled,
        } in &self.work
        {
            for number in settled {
                let has = work::claim_of(tx, session, lane, *number)?;
                if !claim.is(has.as_ref()) {
                    return Err(claim.lost(Subject::Work, lane, ctx.now, has));
                }
                work::settle(tx, ctx, session, lane, *number)?;
            }
        }
        for Settlement {
            lane,
            claim,
            settled,
        } in &self.inputs
        {
            for id in settled {
                let Some(number) = input::claimed_by(tx, session, lane, id, claim)? else {
                    let has = input::claim_of(tx, session, lane, id)?;
                    return Err(claim.lost(Subject::Input, lane, ctx.now, has));
                };
                input::complete(tx, session, lane, number)?;
            }
        }
        Ok(())
    }

    /// The new blobs are referred to before the old ones are let go, lest what both have is loose
    /// in between.
    fn move_head(
        &self,
        tx: &mut Transaction<'_>,
        ctx: &Context,
        session: &mut Session,
        head: Option<Head>,
    ) -> Result<(u64, (GraphId, Graph)), Failure> {
        blobs::refer_content(tx, session, &self.state)?;
        blobs::refer(tx, session, &self.roots)?;
        let graph = self.move_graph(tx, ctx, session, head.as_ref())?;
        if let Some(old) = &head {
            blobs::release(tx, ctx.now, session, old.state.blobs())?;
            blobs::release(tx, ctx.now, session, &old.roots)?;
        }
        let revision = head.map_or(0, |head| head.revision) + 1;
        let head = Head {
            lane: self.lane.clone(),
            revision,
            committed_at: ctx.now,
            graph: graph.0,
            leaf: self.leaf.clone(),
            state: self.state.clone(),
            roots: self.roots.clone(),
        };
        tx.put(&session_one_key::<SessionHeads>(session.id), &head)?;
        Ok((revision, graph))
    }

    fn move_graph(
        &self,
        tx: &mut Transaction<'_>,
        ctx: &Context,
        session: &mut Session,
        head: Option<&Head>,
    ) -> Result<(GraphId, Graph), Failure> {
        let (nodes, (id, mut row)) = match (&self.graph, head) {
            (GraphDelta::Append(nodes), Some(head)) => {
                let row = graph::of_head(tx, session, head.graph)?;
                (nodes, (head.graph, row))
            }
            (GraphDelta::Append(nodes), None) => (nodes, graph::begin(ctx)),
            (GraphDelta::Extend { nodes, .. }, head) => (nodes, self.extended(tx, session, head)?),
            (GraphDelta::Replace { staged, nodes }, head) => {
                if let Some(head) = head {
                    garbage::leave_graph(tx, ctx, session, head.graph)?;
                }
                match staged {
                    Some(id) => (nodes, (*id, self.staged(tx, session, *id)?)),
                    None => (nodes, graph::begin(ctx)),
                }
            }
        };
        graph::append(tx, ctx, session, (id, &mut row), nodes)?;
        graph::store(tx, session.id, id, &row)?;
        Ok((id, row))
    }

    /// The graph that the caller has read, if it is as it was then. If not, the refusal has the
    /// first two numbers that differ: the graph's, of nodes, of nodes that are shown, of rewriting.
    fn extended(
        &self,
        tx: &mut Transaction<'_>,
        session: &Session,
        head: Option<&Head>,
    ) -> Result<(GraphId, Graph), Failure> {
        let GraphDelta::Extend {
            graph,
            rewritten,
            from,
            ..
        } = &self.graph
        else {
            return Err(Broken("only a graph that is extended has a start".to_owned()).into());
        };
        let (mut expected, mut actual) = (graph.0, head.map_or(0, |head| head.graph.0));
        if let Some(head) = head.filter(|head| head.graph == *graph) {
            let row = graph::of_head(tx, session, head.graph)?;
            (expected, actual) = match row {
                _ if row.nodes != *from => (*from, row.nodes),
                _ if row.tombstones > 0 => (*from, row.nodes.saturating_sub(row.tombstones)),
                _ if row.rewritten != *rewritten => (*rewritten, row.rewritten),
                row => return Ok((*graph, row)),
            };
        }
        Err(Failure::Refused(Refusal::Moved {
            subject: Subject::Graph,
            name: format!("{}#{}", self.session.name, graph.0),
            expected,
            actual,
        }))
    }

    fn staged(
        &self,
        tx: &mut Transaction<'_>,
        session: &Session,
        id: GraphId,
    ) -> Result<Graph, Failure> {
        let row = tx.get(&graph_key::<SessionGraphs>(session.id, id))?;
        match row {
            Some(row) if row.staged_at.is_some() => Ok(Graph {
                staged_at: None,
                ..row
            }),
            _ => Err(not_staged(&self.session, id)),
        }
    }

    fn stamp_turn(
        &self,
        tx: &mut Transaction<'_>,
        ctx: &Context,
        session: &Session,
        revision: u64,
    ) -> Result<(), Failure> {
        let Some(TurnStamp { turn, hash }) = &self.turn else {
            return Ok(());
        };
        let stamp = Stamp {
            hash: hash.clone(),
            revision,
            at: ctx.now,
            result: self.result.clone(),
        };
        Ok(tx.put_new(&turn_key(session.id, &self.lane, turn), &stamp)?)
    }

    fn give_back(
        &self,
        tx: &mut Transaction<'_>,
        meta: &mut MetaRow,
        ctx: &Context,
        session: &Session,
    ) -> Result<(), Failure> {
        match &self.release {
            Some(held) => execution::release(tx, meta, ctx, (session, &self.lane), held),
            None => Ok(()),
        }
    }
}
