//! What the sweep has come by: told by the rows, and checked for being in time.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use quorate_statemachine::Timestamp;
use quorate_statemachine::limits::{BLOB_RETENTION_MS, STAGED_GRAPH_RETENTION_MS};
use quorate_statemachine::session::{BlobHash, GraphId, SessionId};
use quorate_statemachine::tables::{
    SessionBlobs, SessionGraphs, SessionNodes, SessionWork, Table, blob_key, graph_key, lane_key,
    number_of,
};
use quorate_statemachine::transaction::{read, read_range};
use quorate_statemachine::view::MemoryView;

use super::{Model, ModelSession};

/// The rows behind the sweep of an entry, before its command.
pub struct Swept<'a> {
    pub view: &'a MemoryView,
    /// Whether the sweep may have left something that is due.
    pub behind: bool,
}

impl Swept<'_> {
    fn is_there<T: Table>(&self, key: &quorate_statemachine::tables::Key<T>) -> bool {
        let row = read(self.view, key).expect("every row can be read");
        row.is_some()
    }

    fn has_blob(&self, id: SessionId, hash: BlobHash) -> bool {
        self.is_there(&blob_key::<SessionBlobs>(id, hash))
    }

    fn nodes_of(&self, id: SessionId, graph: GraphId) -> BTreeSet<u64> {
        let all = graph_key::<SessionNodes>(id, graph);
        let mut numbers = BTreeSet::new();
        read_range::<SessionNodes>(self.view, &all, &all.clone().end(), &mut |key, _| {
            numbers.insert(number_of(key).expect("a key of a node"));
            ControlFlow::Continue(())
        })
        .expect("every row can be read");
        numbers
    }

    /// Whether what is due has ended: it has, unless the sweep is behind and has left it.
    fn has_ended(&self, is_left: bool, what: impl std::fmt::Debug) -> bool {
        assert!(self.behind || !is_left, "{what:?} is due and was not swept");
        !is_left
    }
}

impl Model {
    /// Cluster time goes on to `now`, in the next entry, and the sweep does what is due.
    pub fn pass_to(&mut self, now: Timestamp, swept: &Swept<'_>) {
        self.now = self.now.max(now);
        self.expire_grants();
        self.forget_answers();
        for at in 0..self.sessions.len() {
            let session = &mut self.sessions[at];
            let left = session.sweep(self.now, swept);
            let id = session.id;
            self.left.extend(left.into_iter().map(|graph| (id, graph)));
        }
    }

    /// When the sweep must have come by next: a leader that sleeps until then is not late.
    pub fn next_sweep(&self) -> Option<Timestamp> {
        self.sessions.iter().flat_map(ModelSession::swept_at).min()
    }

    /// When something ends or begins next, be it only on paper.
    pub fn next_event(&self) -> Option<Timestamp> {
        let sessions = self.sessions.iter();
        let own = sessions.flat_map(ModelSession::events);
        let all = own.chain(self.grant_ends());
        all.filter(|at| *at > self.now).min()
    }
}

impl ModelSession {
    /// Ends what is due. The staged graphs that were left.
    fn sweep(&mut self, now: Timestamp, swept: &Swept<'_>) -> Vec<GraphId> {
        let id = self.id;
        for graph in &mut self.leaving {
            let left = swept.nodes_of(id, graph.id);
            graph.nodes.retain(|(number, _)| left.contains(number));
        }
        self.leaving.retain(|graph| !graph.nodes.is_empty());
        for piece in self.work.iter_mut().filter(|piece| piece.delayed) {
            let work = &piece.view.work;
            let released = swept.is_there(&lane_key::<SessionWork>(id, &work.lane, work.number));
            let due = work.available_at <= now;
            assert!(due || !released, "{work:?} is released before its time");
            piece.delayed = !(due && swept.has_ended(!released, work));
        }
        let over = |since: Option<Timestamp>, ms: u64| since.is_some_and(|at| at.plus(ms) <= now);
        self.blobs.retain(|blob| {
            let due = over(blob.loose_since, BLOB_RETENTION_MS);
            let there = swept.has_blob(id, blob.hash);
            assert!(due || there, "{blob:?} is removed before its time");
            !(due && swept.has_ended(there, blob))
        });
        let mut left = Vec::new();
        let graphs = std::mem::take(&mut self.graphs);
        for graph in graphs {
            let due = over(graph.staged_at, STAGED_GRAPH_RETENTION_MS);
            let there = swept.is_there(&graph_key::<SessionGraphs>(id, graph.id));
            assert!(due || there, "{graph:?} is left before its time");
            if due && swept.has_ended(there, &graph) {
                left.push(graph.id);
                self.leaving.push(graph);
            } else {
                self.graphs.push(graph);
            }
        }
        self.loosen(now);
        left
    }

    /// When the sweep is to come by.
    fn swept_at(&self) -> impl Iterator<Item = Timestamp> {
        let delayed = self.work.iter().filter(|piece| piece.delayed);
        let delays = delayed.map(|piece| piece.view.work.available_at);
        let loose = self.blobs.iter().filter_map(|blob| blob.loose_since);
        let loose = loose.map(|since| since.plus(BLOB_RETENTION_MS));
        let staged = self.graphs.iter().filter_map(|graph| graph.staged_at);
        let staged = staged.map(|since| since.plus(STAGED_GRAPH_RETENTION_MS));
        delays.chain(loose).chain(staged)
    }

    fn events(&self) -> impl Iterator<Item = Timestamp> {
        let work = self.work.iter().map(|piece| piece.view.work.claim.as_ref());
        let inputs = self.inputs.iter().map(|view| view.input.claim.as_ref());
        let claims = work.chain(inputs).flatten();
        claims.map(|claim| claim.expires_at).chain(self.swept_at())
    }
}
