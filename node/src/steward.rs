//! The leader's care for the membership: learners become what they were added for, and a change
//! that an earlier leader has left half done is ended.
//!
//! What is to be done stands in the membership itself, so that it needs neither the program that
//! asked for it nor the leader that was asked.

use std::collections::BTreeMap;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use tokio::time::{Instant, MissedTickBehavior};

use crate::core::Core;
use crate::membership::{finish_change, reach_goal};
use crate::plan::{CAUGHT_UP_ENTRIES, heard_lately, lag_of};
use crate::raft::{Goal, Metrics};

/// Between looks at the members.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long a learner must have kept up without a break before it counts for a quorum. Also how
/// long half a change is left to whoever may still be at it.
const STABLE: Duration = Duration::from_millis(500);

/// Runs for as long as the node does.
pub async fn run(core: &Core) {
    let mut interval = tokio::time::interval(LOOK_EVERY);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut seen, mut words) = (Seen::default(), String::new());
    loop {
        interval.tick().await;
        let task = seen.look(&core.raft().metrics().borrow_watched(), Instant::now());
        let Some(task) = task else {
            continue;
        };
        let done = match task {
            Task::Finish => finish_change(core).await,
            Task::Reach(id) => reach_goal(core, id).await,
        };
        let Err(error) = done else {
            seen = Seen::default();
            continue;
        };
        if words != error.to_string() {
            words = error.to_string();
            tracing::info!(words, ?task, "a change of membership has to wait");
        }
        seen.put_back(task, Instant::now());
    }
}

/// What can be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    Finish,
    Reach(u64),
}

/// Since when this leader has seen what it sees.
#[derive(Default)]
struct Seen {
    half_done: Option<Instant>,
    kept_up: BTreeMap<u64, Instant>,
}

impl Seen {
    fn look(&mut self, metrics: &Metrics, now: Instant) -> Option<Task> {
        if !metrics.state.is_leader() {
            *self = Self::default();
            return None;
        }
        let membership = metrics.membership_config.membership();
        if membership.get_joint_config().len() > 1 {
            self.kept_up.clear();
            let since = *self.half_done.get_or_insert(now);
            return (now - since >= STABLE).then_some(Task::Finish);
        }
        self.half_done = None;
        let voters: Vec<u64> = membership.voter_ids().collect();
        let ready = membership.nodes().filter(|(id, member)| {
            member.goal != Goal::Stay && !voters.contains(id) && keeps_up(metrics, **id)
        });
        let ready: Vec<u64> = ready.map(|(id, _)| *id).collect();
        self.kept_up.retain(|id, _| ready.contains(id));
        for id in &ready {
            self.kept_up.entry(*id).or_insert(now);
        }
        let mut stable = self.kept_up.iter();
        let (id, _) = stable.find(|(_, since)| now - **since >= STABLE)?;
        Some(Task::Reach(*id))
    }
}

impl Seen {
    /// What failed is not tried again at once, and others get their turn.
    fn put_back(&mut self, task: Task, now: Instant) {
        match task {
            Task::Finish => self.half_done = Some(now),
            Task::Reach(id) => drop(self.kept_up.insert(id, now)),
        }
    }
}

fn keeps_up(metrics: &Metrics, id: u64) -> bool {
    heard_lately(metrics, id) && lag_of(metrics, id).is_some_and(|lag| lag <= CAUGHT_UP_ENTRIES)
}
