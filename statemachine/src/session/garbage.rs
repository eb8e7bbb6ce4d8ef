//! Removal of what nobody sees any more: deleted sessions, replaced graphs, graphs that were staged
//! and left. A bounded number of rows at a time, by the sweep.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::due::file_removal;
use super::{GraphId, Session, SessionId, graph};
use crate::context::Context;
use crate::id::Name;
use crate::limits::{REMOVAL_BYTES_MAX, REMOVALS_MAX};
use crate::refusal::Broken;
use crate::tables::{
    Key, Range, SessionAttachments, SessionBlobBytes, SessionBlobs, SessionBodies,
    SessionDelayedWork, SessionEndedInputs, SessionGarbage, SessionGraphs, SessionHeads,
    SessionInputIds, SessionInputSources, SessionInputs, SessionIntents, SessionLooseBlobs,
    SessionNodeIds, SessionNodes, SessionNotes, SessionTombstones, SessionTurns, SessionUsage,
    SessionWork, SessionWorkSources, Table, graph_key, node_key, number_of, session_range,
    session_row_key,
};
use crate::transaction::Transaction;

/// How far the removal is: scans start behind it, and so do not meet again what was removed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GarbageRow {
    /// Tables of the session that have no rows of it any more.
    pub tables_done: u8,
    /// The last key that was removed.
    pub after: Vec<u8>,
}

/// Names all of a session among its graphs: no graph has this id.
const WHOLE_SESSION: GraphId = GraphId(0);

/// Leaves a whole session, whose own row is removed already, to the sweep.
pub(super) fn leave_session(
    tx: &mut Transaction<'_>,
    ctx: &Context,
    session: &Session,
) -> Result<(), Broken> {
    leave(tx, ctx, session, WHOLE_SESSION)
}

/// Leaves a graph that no head has to the sweep. Its own row goes at once, so that nobody finds it
/// while its nodes go bit by bit: neither who reads it nor who would take it as a staged one.
pub(super) fn leave_graph(
    tx: &mut Transaction<'_>,
    ctx: &Context,
    session: &Session,
    graph: GraphId,
) -> Result<(), Broken> {
    tx.delete(&graph_key::<SessionGraphs>(session.id, graph))?;
    leave(tx, ctx, session, graph)
}

fn leave(
    tx: &mut Transaction<'_>,
    ctx: &Context,
    session: &Session,
    graph: GraphId,
) -> Result<(), Broken> {
    let key = graph_key::<SessionGarbage>(session.id, graph);
    tx.put(&key, &GarbageRow::default())?;
    file_removal(tx, ctx, (&session.name, session.id), graph)
}

/// The due entry of a removal came by: the next step of it.
pub(super) fn remove_some(
    tx: &mut Transaction<'_>,
    ctx: &Context,
    (name, id): (&Name, SessionId),
    graph: GraphId,
) -> Result<(), Broken> {
    let key = graph_key::<SessionGarbage>(id, graph);
    // A graph's removal ends with that of its session.
    let Some(mut row) = tx.get(&key)? else {
        return Ok(());
    };
    let done = if graph == WHOLE_SESSION {
        remove_rows(tx, id, &mut row)?
    } else {
        remove_nodes(tx, ctx, (name, id), graph, &mut row)?
    };
    if done {
        return tx.delete(&key);
    }
    tx.put(&key, &row)?;
    file_removal(tx, ctx, (name, id), graph)
}

/// What one step may still remove.
struct Budget {
    rows: usize,
    bytes: usize,
}

impl Budget {
    fn new() -> Self {
        Self {
            rows: REMOVALS_MAX,
            bytes: REMOVAL_BYTES_MAX,
        }
    }

    fn is_used_up(&self) -> bool {
        self.rows == 0 || self.bytes == 0
    }

    fn use_up(&mut self, bytes: usize) {
        self.rows = self.rows.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// Removes nodes of a graph, whose session may be gone meanwhile: then that removal does it.
fn remove_nodes(
    tx: &mut Transaction<'_>,
    ctx: &Context,
    (name, id): (&Name, SessionId),
    of: GraphId,
    row: &mut GarbageRow,
) -> Result<bool, Broken> {
    let session = tx.get(&session_row_key(name))?;
    let Some(mut session) = session.filter(|session| session.id == id) else {
        return Ok(true);
    };
    let all = graph_key::<SessionNodes>(id, of);
    let range = (all.clone(), all.end());
    let mut budget = Budget::new();
    for key in first_keys(tx, &range, &row.after, budget.rows)? {
        let number = number_of(&key)?;
        let bytes = graph::remove_node(tx, ctx, &mut session, of, number)?;
        row.after = node_key::<SessionNodes>(id, of, number).bytes().to_vec();
        budget.use_up(bytes);
        if budget.is_used_up() {
            session.store(tx)?;
            return Ok(false);
        }
    }
    session.store(tx)?;
    Ok(true)
}

/// Keys of a range behind `after`, `limit` at most.
pub(super) fn first_keys<T: Table>(
    tx: &Transaction<'_>,
    range: &Range<T>,
    after: &[u8],
    limit: usize,
) -> Result<Vec<Vec<u8>>, Broken> {
    let mut keys = Vec::new();
    let from = Key::<T>::behind(&range.0, after);
    tx.scan(&from, &range.1, &mut |key, _| {
        keys.push(key.to_vec());
        if keys.len() == limit {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    Ok(keys)
}

type Remove =
    fn(&mut Transaction<'_>, SessionId, &mut GarbageRow, &mut Budget) -> Result<bool, Broken>;

/// All tables of a session but its own row, which is gone, and the row of this removal.
const TABLES: &[Remove] = &[
    remove_of::<SessionHeads>,
    remove_of::<SessionNotes>,
    remove_of::<SessionGraphs>,
    remove_of::<SessionNodes>,
    remove_of::<SessionNodeIds>,
    remove_of::<SessionTombstones>,
    remove_of::<SessionUsage>,
    remove_of::<SessionTurns>,
    remove_of::<SessionBlobs>,
    remove_of::<SessionBlobBytes>,
    remove_of::<SessionLooseBlobs>,
    remove_of::<SessionWork>,
    remove_of::<SessionDelayedWork>,
    remove_of::<SessionWorkSources>,
    remove_of::<SessionInputs>,
    remove_of::<SessionEndedInputs>,
    remove_of::<SessionInputIds>,
    remove_of::<SessionInputSources>,
    remove_of::<SessionBodies>,
    remove_of::<SessionAttachments>,
    remove_of::<SessionIntents>,
];

/// Removes rows of a session, table by table. True when there are none left.
fn remove_rows(
    tx: &mut Transaction<'_>,
    id: SessionId,
    row: &mut GarbageRow,
) -> Result<bool, Broken> {
    let mut budget = Budget::new();
    while let Some(remove) = TABLES.get(usize::from(row.tables_done)) {
        if !remove(tx, id, row, &mut budget)? {
            return Ok(false);
        }
        row.tables_done += 1;
        row.after.clear();
    }
    Ok(true)
}

/// Removes rows of one table. True when there are none left.
fn remove_of<T: Table>(
    tx: &mut Transaction<'_>,
    id: SessionId,
    row: &mut GarbageRow,
    budget: &mut Budget,
) -> Result<bool, Broken> {
    let (first, end) = session_range::<T>(id);
    let from = Key::<T>::behind(&first, &row.after);
    let mut found = Vec::new();
    tx.scan_raw(&from, &end, &mut |key, bytes| {
        if budget.is_used_up() {
            return ControlFlow::Break(());
        }
        budget.use_up(bytes.len());
        found.push(key.to_vec());
        ControlFlow::Continue(())
    })?;
    for key in &found {
        tx.delete(&Key::<T>::from_bytes(key.clone()))?;
    }
    if let Some(last) = found.pop() {
        row.after = last;
    }
    Ok(!budget.is_used_up())
}
