//! One state, kept twice: what an entry does is the same on both, and what holds of the rows holds
//! after it.

use quorate_statemachine::digest::Digest;
use quorate_statemachine::tables::{Meta, Table, meta_key, tag_of};
use quorate_statemachine::transaction::read;
use quorate_statemachine::view::MemoryView;
use quorate_statemachine::{
    Action, Applied, Command, Entry, Principal, Query, Timestamp, apply, cluster, query, version,
};

#[path = "../../../../statemachine/tests/lock_model/rows.rs"]
#[allow(dead_code, reason = "shared with the model, which asks for more")]
mod locks;
#[path = "../../../../statemachine/tests/queue_model/invariants.rs"]
#[allow(dead_code, reason = "shared with the model, which asks for more")]
mod queues;
#[path = "../../../../statemachine/tests/session_model/rows.rs"]
#[allow(dead_code, reason = "shared with the model, which asks for more")]
mod sessions;

/// Whether a leader proposes a command that can be read. It raises the cluster's version itself,
/// and not past its own.
pub fn is_proposed(command: &Command) -> bool {
    match &command.action {
        Action::Cluster(cluster::Command::SetVersion(raise)) => raise.version <= version::NEWEST,
        _ => true,
    }
}

/// A state and its twin.
#[derive(Clone, Default)]
pub struct Twins {
    first: MemoryView,
    second: MemoryView,
    /// The last entry.
    pub index: u64,
    /// What the leader's clock shows.
    pub clock: u64,
}

impl Twins {
    /// Applies a command that a node would take: it must not break the state.
    pub fn apply(&mut self, command: &[u8], principal: Principal<'_>) -> Applied {
        self.index += 1;
        let entry = Entry {
            index: self.index,
            proposed_at: Timestamp(self.clock),
            command,
            principal,
        };
        let applied = apply(&self.first, entry).expect("a command that was checked");
        assert_eq!(apply(&self.second, entry).as_ref(), Ok(&applied));
        self.first.commit(applied.changes.clone());
        self.second.commit(applied.changes.clone());
        let kept = read(&self.first, &meta_key()).expect("the meta row can be read");
        let kept = kept.expect("there is a meta row").digest;
        assert_eq!(kept, computed(&self.first), "after entry {}", self.index);
        applied
    }

    /// Asks both, and nothing is broken.
    pub fn ask(&self, asked: &Query) {
        let now = Timestamp(self.clock);
        let answer = query(&self.first, now, asked).expect("rows that entries made can be read");
        assert_eq!(query(&self.second, now, asked).as_ref(), Ok(&answer));
    }

    /// Holds the rows against each other.
    pub fn check(&self) {
        locks::check(&self.first);
        queues::check(&self.first);
        sessions::check(&self.first);
    }

    /// Lets so much time pass that all that can end has ended.
    pub fn end_all(&mut self) {
        let tick = Command::from(cluster::Tick {}).encode();
        for _ in 0..4 {
            self.clock = self.clock.saturating_add(7 * 86_400_000);
            self.apply(&tick, Principal::Cluster);
            self.check();
        }
    }
}

fn computed(view: &MemoryView) -> Digest {
    let mut digest = Digest::default();
    for (key, value) in view.rows() {
        if tag_of(key) != Some(Meta::TAG) {
            digest.replace(key, None, Some(value));
        }
    }
    digest
}
