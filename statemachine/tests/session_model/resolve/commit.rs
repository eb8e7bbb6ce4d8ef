//! Commits.

use quorate_statemachine::session::{
    self, GraphDelta, NoteAttachment, Settlement, StageNodes, TurnStamp, UsageDelta,
};
use quorate_statemachine::{Name, Timestamp};

use super::{Scene, Way, attachments, hash, name};
use crate::model::{Kind, ModelTurn};
use crate::turns::{Commit, Delta, Expected, Staged, Stamped};

impl Scene<'_> {
    pub(super) fn commit(&self, commit: &Commit) -> Way<session::Commit> {
        let head = self.session.and_then(|session| session.head.as_ref());
        let own = head.filter(|_| commit.own_lane).map(|head| &head.lane);
        let lane = own.unwrap_or(&self.lane);
        self.check_blobs(&commit.roots)?;
        self.check_noted(lane, &commit.attachments)?;
        let release = match commit.release {
            Some(release) => self.execution(lane, release)?,
            None => None,
        };
        let work = self.settled(Kind::Work, &commit.work).into_iter();
        let inputs = self.settled(Kind::Inputs, &commit.inputs).into_iter();
        let revision = head.map_or(0, |head| head.revision);
        let usage = commit.usage.iter().map(|(counter, numbers)| UsageDelta {
            counter: vec![*counter, 0],
            numbers: numbers.clone(),
        });
        Ok(session::Commit {
            session: self.of.clone(),
            lane: lane.clone(),
            turn: self.turn(lane, commit.turn),
            execution: self.execution(lane, commit.execution)?,
            expected_revision: match commit.expected {
                Expected::Any => None,
                Expected::Right => Some(revision),
                Expected::Wrong(by) => Some(revision + by),
            },
            graph: self.delta(&commit.graph)?,
            leaf: commit.leaf.map(|leaf| name("node", leaf)),
            state: self.content(&commit.state)?,
            roots: commit.roots.iter().map(|number| hash(*number)).collect(),
            usage: usage.collect(),
            work: work
                .map(|named| Settlement {
                    lane: named.lane,
                    claim: named.claim,
                    settled: named.numbers,
                })
                .collect(),
            inputs: inputs
                .map(|named| Settlement {
                    lane: named.lane,
                    claim: named.claim,
                    settled: named.ids,
                })
                .collect(),
            interrupted: commit.interrupted.map(|turn| name("run", turn)),
            attachments: attachments(&commit.attachments),
            result: vec![commit.result; 3].into(),
            release,
        })
    }

    /// Notes an attachment first that is not known.
    fn check_noted(&self, lane: &Name, ids: &[u8]) -> Way<()> {
        let known = self.session.iter().flat_map(|session| &session.attachments);
        let known: Vec<&Name> = known.map(|one| &one.id).collect();
        let mut ids = attachments(ids).into_iter();
        match ids.find(|id| !known.contains(&id)) {
            Some(id) if self.willing => Err(NoteAttachment {
                session: self.of.clone(),
                id,
                lane: lane.clone(),
                uri: "file:noted".to_owned(),
                intent_at: Timestamp(1),
            }
            .into()),
            _ => Ok(()),
        }
    }

    fn turn(&self, lane: &Name, which: Stamped) -> Option<TurnStamp> {
        let turns = self.session.iter().flat_map(|session| &session.turns);
        let turns: Vec<&ModelTurn> = turns.filter(|turn| turn.lane == *lane).collect();
        let known = |nth: usize| turns.get(nth % turns.len().max(1));
        let fresh = TurnStamp {
            turn: name("turn", &self.tag),
            hash: name("hash", &self.tag),
        };
        let of = |known: &ModelTurn| TurnStamp {
            turn: known.turn.clone(),
            hash: known.stamp.hash.clone(),
        };
        Some(match which {
            Stamped::None => return None,
            Stamped::Fresh => fresh,
            Stamped::Again(nth) => known(nth).map_or(fresh, |known| of(known)),
            Stamped::OtherHash(nth) => TurnStamp {
                turn: known(nth).map_or(fresh.turn, |known| known.turn.clone()),
                hash: fresh.hash,
            },
        })
    }

    fn delta(&self, delta: &Delta) -> Way<GraphDelta> {
        let own = self.session.and_then(|session| session.own_graph());
        Ok(match (delta, own) {
            (Delta::Extend { stale, nodes }, Some(graph)) => {
                let counters = graph.counters();
                // Another number of nodes, an older reading of the graph, or another graph.
                let off = |wrong: u8| u64::from(*stale == wrong);
                let mut id = graph.id;
                id.0 += off(3);
                GraphDelta::Extend {
                    graph: id,
                    rewritten: counters.rewritten - off(2),
                    from: counters.nodes + off(1),
                    nodes: self.nodes(nodes)?,
                }
            }
            (Delta::Append(nodes) | Delta::Extend { nodes, .. }, _) => {
                GraphDelta::Append(self.nodes(nodes)?)
            }
            (Delta::Replace { by, nodes }, _) => {
                let staged = match by {
                    Staged::New => None,
                    by => self.staged(*by),
                };
                let nodes = self.nodes(nodes)?;
                if staged.is_none() && self.willing && matches!(by, Staged::One(_)) {
                    let session = self.of.clone();
                    let stage = StageNodes {
                        session,
                        graph: None,
                        nodes,
                    };
                    return Err(stage.into());
                }
                GraphDelta::Replace { staged, nodes }
            }
        })
    }
}
