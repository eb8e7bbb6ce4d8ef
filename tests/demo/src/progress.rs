//! What is known of a run while it goes on: written by whoever sees something, watched by all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use quorate_client::statemachine::FencingToken;
use quorate_client::statemachine::queue::ItemId;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// A claim that was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The item.
    pub item: ItemId,
    /// The claim.
    pub token: FencingToken,
}

/// Who led in which term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leader {
    /// The term.
    pub term: u64,
    /// The node.
    pub id: u64,
}

/// What is known of a run.
#[derive(Debug, Clone)]
pub struct Progress {
    /// When the workers said that they had settled an item.
    done_at: Vec<Instant>,
    /// Writes that were refused because their claim was over.
    pub stale: Vec<Held>,
    /// Calls of workers that had no answer in time.
    pub unanswered: usize,
    /// Claims that workers hold on order, by worker.
    pub holding: BTreeMap<usize, Held>,
    /// The newest leader.
    pub leader: Option<Leader>,
    /// How often there was a newer one.
    pub leader_changes: usize,
    /// The longest time in which no write of anybody succeeded.
    pub longest_gap: Duration,
    began: Instant,
    last_write: Instant,
}

/// Where all write what they see.
#[derive(Clone)]
pub struct Board(Arc<watch::Sender<Progress>>);

impl Board {
    /// Nothing is known yet.
    pub fn new() -> Self {
        let now = Instant::now();
        Self(Arc::new(watch::Sender::new(Progress {
            done_at: Vec::new(),
            stale: Vec::new(),
            unanswered: 0,
            holding: BTreeMap::new(),
            leader: None,
            leader_changes: 0,
            longest_gap: Duration::ZERO,
            began: now,
            last_write: now,
        })))
    }

    /// Notes something.
    pub fn note(&self, change: impl FnOnce(&mut Progress)) {
        self.0.send_modify(change);
    }

    /// A write of anybody succeeded now.
    pub fn wrote(&self) {
        self.note(Progress::wrote);
    }

    /// What is known now.
    pub fn now(&self) -> Progress {
        self.0.borrow().clone()
    }

    /// Waits until `holds`; an error that names `what` when that takes too long.
    pub async fn until(
        &self,
        what: &str,
        longest: Duration,
        holds: impl FnMut(&Progress) -> bool,
    ) -> Result<Progress> {
        let mut progress = self.0.subscribe();
        match timeout(longest, progress.wait_for(holds)).await {
            Ok(Ok(progress)) => Ok(progress.clone()),
            Ok(Err(_)) => bail!("the run ended while waiting until {what}"),
            Err(_) => bail!("waited {longest:?} until {what}, in vain"),
        }
    }
}

impl Progress {
    fn wrote(&mut self) {
        let now = Instant::now();
        self.longest_gap = self.longest_gap.max(now - self.last_write);
        self.last_write = now;
    }

    /// An item was settled now.
    pub fn settled(&mut self) {
        self.wrote();
        self.done_at.push(self.last_write);
    }

    /// Items that the workers say they have settled.
    pub fn done(&self) -> usize {
        self.done_at.len()
    }

    /// When an item was last settled, or else when the run began.
    pub fn last_done(&self) -> Instant {
        self.busy(0)
    }

    /// Until when the workers had items, if the last `held` came only when a claim was over.
    pub fn busy(&self, held: usize) -> Instant {
        let last = self.done_at.len().checked_sub(held + 1);
        last.map_or(self.began, |last| self.done_at[last])
    }

    /// A node says who leads. Nodes that were away may say what is over.
    pub fn heard_of(&mut self, leader: Leader) {
        let known = self.leader.map_or(0, |known| known.term);
        if leader.id == 0 || leader.term <= known {
            return;
        }
        if self.leader.is_some() {
            self.leader_changes += 1;
        }
        self.leader = Some(leader);
    }
}
