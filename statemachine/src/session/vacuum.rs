//! Vacuum: remove what is only kept as evidence.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::{Session, SessionRef, garbage, graph, input};
use crate::command::Validate;
use crate::context::Context;
use crate::limits::REMOVALS_MAX;
use crate::refusal::{Broken, Failure, InvalidArgument};
use crate::tables::{
    SessionEndedInputs, SessionHeads, SessionTombstones, graph_key, number_of, session_one_key,
    session_range,
};
use crate::transaction::Transaction;

/// Removes nodes that are tombstones, and inputs that are completed or cancelled.
///
/// One command removes [`REMOVALS_MAX`] rows at most and says whether there are more. Refuses with
/// `NotFound`. A retry removes others, so give it a request id if the report matters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vacuum {
    /// Whose.
    pub session: SessionRef,
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vacuumed {
    /// Nodes that were removed by this command.
    pub nodes: u64,
    /// Inputs that were.
    pub inputs: u64,
    /// Whether there are more.
    pub more: bool,
}

impl Validate for Vacuum {
    fn validate(&self) -> Result<(), InvalidArgument> {
        self.session.validate()
    }
}

impl Vacuum {
    pub(super) fn apply(
        &self,
        tx: &mut Transaction<'_>,
        ctx: &Context,
    ) -> Result<Vacuumed, Failure> {
        let mut session = self.session.require(tx)?;
        let (nodes, hidden) = remove_nodes(tx, ctx, &mut session)?;
        let room = REMOVALS_MAX - nodes;
        let inputs = remove_inputs(tx, ctx, &mut session, room)?;
        session.store(tx)?;
        Ok(Vacuumed {
            nodes: nodes as u64,
            inputs: inputs as u64,
            more: hidden > 0 || session.ended_inputs > 0,
        })
    }
}

/// How many nodes it has removed, and how many tombstones are left.
fn remove_nodes(
    tx: &mut Transaction<'_>,
    ctx: &Context,
    session: &mut Session,
) -> Result<(usize, u64), Broken> {
    let Some(head) = tx.get(&session_one_key::<SessionHeads>(session.id))? else {
        return Ok((0, 0));
    };
    let from = graph_key::<SessionTombstones>(session.id, head.graph);
    let to = from.clone().end();
    let keys = garbage::first_keys(tx, &(from, to), &[], REMOVALS_MAX)?;
    let mut row = graph::of_head(tx, session, head.graph)?;
    for key in &keys {
        graph::remove_node(tx, ctx, session, head.graph, number_of(key)?)?;
    }
    let removed = keys.len() as u64;
    if removed > 0 {
        let fewer = |count: u64| count.checked_sub(removed);
        row.nodes = fewer(row.nodes).ok_or_else(|| session.miscounted())?;
        row.tombstones = fewer(row.tombstones).ok_or_else(|| session.miscounted())?;
        row.rewritten = ctx.index;
        graph::store(tx, session.id, head.graph, &row)?;
    }
    Ok((keys.len(), row.tombstones))
}

fn remove_inputs(
    tx: &mut Transaction<'_>,
    ctx: &Context,
    session: &mut Session,
    limit: usize,
) -> Result<usize, Broken> {
    let (from, to) = session_range::<SessionEndedInputs>(session.id);
    let mut ended = Vec::new();
    if limit > 0 {
        tx.scan(&from, &to, &mut |_, input| {
            ended.push(input);
            if ended.len() == limit {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
    }
    for input in &ended {
        input::forget(tx, ctx, session, input)?;
    }
    Ok(ended.len())
}
