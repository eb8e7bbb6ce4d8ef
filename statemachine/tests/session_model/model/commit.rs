//! Commits.

use quorate_statemachine::session::{
    ClaimRef, Commit, Committed, GraphDelta, Head, InputMode, InputState, LaneClaim, Settlement,
    Stamp, TurnStamp, Work, execution_lease,
};
use quorate_statemachine::{FencingToken, Name, Refusal, Subject, Timestamp};

use super::graph::not_staged;
use super::{Model, ModelGraph, ModelSession, ModelTurn, Outcome, conflict, is_claim};

/// A claim that has lost what `has` has now: one that is live is named.
fn lost(
    subject: Subject,
    (lane, claim): (&Name, &ClaimRef),
    now: Timestamp,
    has: Option<&LaneClaim>,
) -> Refusal {
    let live = has.filter(|claim| claim.expires_at > now);
    Refusal::Fenced {
        subject,
        name: lane.to_string(),
        presented: claim.fencing_token,
        current: live.map(|claim| claim.fencing_token),
    }
}

impl Model {
    pub(super) fn commit(&mut self, number: u64, commit: &Commit) -> Outcome<Committed> {
        let (at, now) = (self.require(&commit.session)?, self.now);
        let key = execution_lease(&commit.session, &commit.lane).expect("short names");
        let head = self.sessions[at].head.clone();
        if head.as_ref().is_some_and(|head| head.lane != commit.lane) {
            let name = commit.session.name.to_string();
            return Err(conflict(Subject::Session, name));
        }
        if let Some(stamp) = self.sessions[at].committed_before(commit)? {
            self.give_back_after(commit);
            return Ok(Committed {
                revision: stamp.revision,
                result: stamp.result,
                graph: None,
            });
        }
        match &commit.execution {
            Some(held) => self.check_held(&key, held)?,
            None => {
                let live = self.live_grant(&key);
                let live = live.map(|grant| grant.lease.fencing_token);
                return Err(lost_lease(&key, live));
            }
        }
        let actual = head.as_ref().map_or(0, |head| head.revision);
        if let Some(expected) = commit.expected_revision.filter(|e| *e != actual) {
            return Err(moved(
                Subject::Session,
                &commit.session.name,
                expected,
                actual,
            ));
        }
        let session = &mut self.sessions[at];
        session.settle(commit, now)?;
        session.refer_content(&commit.state)?;
        session.refer(&commit.roots)?;
        let left = head.as_ref().map(|head| head.graph);
        let graph = session.move_graph((number, self.index), commit)?;
        let counters = (graph.id, graph.counters());
        session.graphs.push(graph);
        session.head = Some(Head {
            lane: commit.lane.clone(),
            revision: actual + 1,
            committed_at: now,
            graph: counters.0,
            leaf: commit.leaf.clone(),
            state: commit.state.clone(),
            roots: commit.roots.clone(),
        });
        session.after(commit, actual + 1, now);
        let id = session.id;
        let left = left.filter(|left| *left != counters.0);
        self.left.extend(left.map(|graph| (id, graph)));
        self.give_back_after(commit);
        Ok(Committed {
            revision: actual + 1,
            result: commit.result.clone(),
            graph: Some(counters),
        })
    }

    fn give_back_after(&mut self, commit: &Commit) {
        if let Some(held) = &commit.release {
            let key = execution_lease(&commit.session, &commit.lane).expect("short names");
            self.give_back(&key, held);
        }
    }
}

fn lost_lease(key: &Name, current: Option<FencingToken>) -> Refusal {
    Refusal::Fenced {
        subject: Subject::Lease,
        name: key.to_string(),
        presented: 0,
        current,
    }
}

fn moved(subject: Subject, name: impl ToString, expected: u64, actual: u64) -> Refusal {
    Refusal::Moved {
        subject,
        name: name.to_string(),
        expected,
        actual,
    }
}

impl ModelSession {
    fn committed_before(&self, commit: &Commit) -> Outcome<Option<Stamp>> {
        let Some(TurnStamp { turn, hash }) = &commit.turn else {
            return Ok(None);
        };
        let is = |known: &&ModelTurn| known.lane == commit.lane && known.turn == *turn;
        match self.turns.iter().find(is) {
            Some(known) if known.stamp.hash != *hash => {
                Err(conflict(Subject::Turn, format!("{}/{turn}", commit.lane)))
            }
            known => Ok(known.map(|known| known.stamp.clone())),
        }
    }

    fn settle(&mut self, commit: &Commit, now: Timestamp) -> Outcome<()> {
        for Settlement {
            lane,
            claim,
            settled,
        } in &commit.work
        {
            for number in settled {
                let is = |work: &Work| work.number == *number && work.lane == *lane;
                let at = self.work.iter().position(|piece| is(&piece.view.work));
                let has = at.and_then(|at| self.work[at].view.work.claim.as_ref());
                let is_own = is_claim(has, claim);
                let Some(at) = at.filter(|_| is_own) else {
                    return Err(lost(Subject::Work, (lane, claim), now, has));
                };
                self.work.remove(at);
            }
        }
        for Settlement {
            lane,
            claim,
            settled,
        } in &commit.inputs
        {
            for id in settled {
                let inputs = self.inputs.iter_mut().map(|view| &mut view.input);
                let mut found = inputs.filter(|input| input.id == *id && input.lane == *lane);
                let found = found.next();
                let has = found.as_ref().and_then(|input| input.claim.clone());
                let Some(found) = found.filter(|_| is_claim(has.as_ref(), claim)) else {
                    return Err(lost(Subject::Input, (lane, claim), now, has.as_ref()));
                };
                found.state = InputState::Completed;
                found.claim = None;
            }
        }
        Ok(())
    }

    /// The graph that the head has then, taken out.
    fn move_graph(&mut self, (number, index): (u64, u64), commit: &Commit) -> Outcome<ModelGraph> {
        let own = self.head.as_ref().map(|head| head.graph);
        let (mut graph, nodes) = match &commit.graph {
            GraphDelta::Append(nodes) => {
                let own = own.and_then(|own| self.take_graph(own));
                (own.unwrap_or(ModelGraph::empty(number, index)), nodes)
            }
            GraphDelta::Extend {
                graph,
                rewritten,
                from,
                nodes,
            } => {
                let name = format!("{}#{}", self.name, graph.0);
                let same = own.filter(|own| own == graph);
                let Some(found) = same.and_then(|own| self.take_graph(own)) else {
                    let actual = own.map_or(0, |own| own.0);
                    return Err(moved(Subject::Graph, name, graph.0, actual));
                };
                // The first two numbers that differ.
                let counters = found.counters();
                let shown = counters.nodes - counters.tombstones;
                let numbers = [
                    (*from, counters.nodes),
                    (*from, shown),
                    (*rewritten, counters.rewritten),
                ];
                if let Some((asked, actual)) = numbers.into_iter().find(|(a, b)| a != b) {
                    return Err(moved(Subject::Graph, name, asked, actual));
                }
                (found, nodes)
            }
            GraphDelta::Replace { staged, nodes } => {
                let left = own.and_then(|own| self.take_graph(own));
                self.leaving.extend(left);
                let graph = match staged {
                    None => ModelGraph::empty(number, index),
                    Some(id) => {
                        let taken = self.take_graph(*id).filter(|g| g.staged_at.is_some());
                        taken.ok_or_else(|| not_staged(&self.reference(), *id))?
                    }
                };
                (graph, nodes)
            }
        };
        graph.staged_at = None;
        self.append(index, &mut graph, nodes)?;
        Ok(graph)
    }

    /// What else a commit does.
    fn after(&mut self, commit: &Commit, revision: u64, now: Timestamp) {
        for delta in &commit.usage {
            let known = self
                .usage
                .iter()
                .position(|(name, _)| *name == delta.counter);
            let at = known.unwrap_or_else(|| {
                self.usage.push((delta.counter.clone(), Vec::new()));
                self.usage.len() - 1
            });
            let sums = &mut self.usage[at].1;
            for (place, number) in delta.numbers.iter().enumerate() {
                match sums.get_mut(place) {
                    Some(sum) => *sum = sum.saturating_add(*number),
                    None => sums.push(*number),
                }
            }
        }
        for input in self.inputs.iter_mut().map(|view| &mut view.input) {
            let for_it = match (&input.mode, &commit.interrupted) {
                (InputMode::Running { turn, .. }, Some(interrupted)) => turn == interrupted,
                _ => false,
            };
            if for_it && input.lane == commit.lane && input.state == InputState::Pending {
                input.mode = InputMode::Next;
            }
        }
        self.stamp(now, &commit.lane, &commit.attachments);
        if let Some(TurnStamp { turn, hash }) = &commit.turn {
            self.turns.push(ModelTurn {
                lane: commit.lane.clone(),
                turn: turn.clone(),
                stamp: Stamp {
                    hash: hash.clone(),
                    revision,
                    at: now,
                    result: commit.result.clone(),
                },
            });
        }
    }
}
