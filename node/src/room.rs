//! Room on disks: what grows the state is refused before a disk is full, and taken again by itself.
//!
//! A store that meets a full disk fails, and its node stops. So each node looks how much is free.
//! The leader refuses writes that grow while its own disk, or those of so many voters that the rest
//! is no quorum, have less than the reserve. It hands over to a voter that says it has room and has
//! caught up, if there is one. What keeps or ends what there is goes on: the reserve is for that,
//! and for compaction.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use quorate_rpc::{NodeError, v1};
use tokio::time::{Instant, MissedTickBehavior};

use crate::alarm::{AlarmKind, Alarms};
use crate::blocking::blocking;
use crate::config::Config;
use crate::core::Core;
use crate::disk;
use crate::membership;
use crate::plan::Plan;

/// Free bytes at which writes that grow are refused, by default: a few snapshots of small states,
/// and minutes of upkeep.
pub const RESERVE_BYTES: u64 = 256 << 20;

/// Between looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A disk that was short has room again when so much more than the reserve is free: a tenth of it.
const AGAIN_PART: u64 = 10;

/// Between tries to hand leadership over: each that fails costs about as long as an election.
const HAND_OVER_EVERY: Duration = Duration::from_secs(60);

/// What a refused caller is told to wait: nothing changes before the next look.
const RETRY_AFTER_MS: u64 = 1_000;

/// How to see how many bytes are free under a path.
pub type FreeBytes = fn(&Path) -> std::io::Result<u64>;

/// Why there is no room.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shortage {
    what: String,
    limit: String,
    actual: String,
}

/// Whether there is room for what grows.
#[derive(Debug, Default)]
pub struct Room(Mutex<Option<Shortage>>);

impl Room {
    /// Refuses what grows while there is no room.
    pub fn check(&self) -> Result<(), NodeError> {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(()),
            Some(short) => Err(NodeError::Overloaded {
                what: short.what.clone(),
                limit: short.limit.clone(),
                actual: short.actual.clone(),
                retry_after_ms: RETRY_AFTER_MS,
            }),
        }
    }

    fn set(&self, shortage: Option<Shortage>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = shortage;
    }
}

/// Looks for as long as the node runs.
pub async fn run(core: &Core, config: &Config, free_bytes: FreeBytes, alarms: &Alarms) {
    let reserve = config.limits.disk_reserve_bytes;
    let mut interval = tokio::time::interval(LOOK_EVERY);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut own, mut handed_over) = (None, None);
    loop {
        interval.tick().await;
        let dir = config.node.data_dir.clone();
        let looked = blocking(move || free_bytes(&dir)).await;
        match looked {
            Ok(Ok(free)) => own = shortage_of(reserve, free, own.is_some()),
            Ok(Err(error)) => tracing::warn!(%error, "cannot see how much of the disk is free"),
            Err(_) => return,
        }
        tell(&core.member.name, own.as_ref(), alarms);
        let room = core.proposer().room();
        if own.is_some() || !core.leads() {
            // Whoever becomes the leader refuses from its first moment on.
            room.set(own.clone());
        } else {
            room.set(shortage_of_voters(core).await);
        }
        let rested = handed_over.is_none_or(|at: Instant| at.elapsed() >= HAND_OVER_EVERY);
        if own.is_some() && core.leads() && rested {
            handed_over = Some(Instant::now());
            hand_over(core).await;
        }
    }
}

/// Free bytes of the disk under `dir`, for those who are not root.
pub fn free_bytes(dir: &Path) -> std::io::Result<u64> {
    Ok(disk::of(dir)?.free_bytes)
}

fn shortage_of(reserve: u64, free: u64, was_short: bool) -> Option<Shortage> {
    let wanted = match was_short {
        true => reserve.saturating_add(reserve / AGAIN_PART),
        false => reserve,
    };
    (free < wanted).then(|| Shortage {
        what: "free space on the leader's disk, for a write that grows the state".to_owned(),
        limit: format!("{wanted} bytes kept free"),
        actual: format!("{free} bytes free"),
    })
}

fn tell(name: &str, short: Option<&Shortage>, alarms: &Alarms) {
    let Some(short) = short else {
        return alarms.clear(AlarmKind::DiskNearlyFull);
    };
    let text = format!(
        "the disk of {name} is nearly full: {}, {} (limits.disk_reserve_bytes); make room, or give \
         it a larger disk",
        short.actual, short.limit
    );
    alarms.raise(AlarmKind::DiskNearlyFull, text);
}

/// The other voters, and whether each says that its disk is nearly full; none if it does not answer
/// before the next look.
async fn ask_voters(core: &Core) -> Vec<(v1::Member, Option<bool>)> {
    let own = core.identity().node_id;
    let members = membership::members(core.raft()).into_iter();
    let voters = members.filter(|member| member.voter && member.id != own);
    let asked = voters.map(|member| async move {
        let asking = core.peers.describe_build(member.id, &member.peer_addr);
        let answer = tokio::time::timeout(LOOK_EVERY, asking).await;
        let short = answer.ok().and_then(Result::ok);
        (member, short.map(|build| build.disk_nearly_full))
    });
    join_all(asked).await
}

/// Who does not answer may have room.
async fn shortage_of_voters(core: &Core) -> Option<Shortage> {
    let others = ask_voters(core).await;
    let short = others.iter().filter(|(_, short)| *short == Some(true));
    let voters = others.len() + 1;
    let (quorum, with_room) = (voters / 2 + 1, voters - short.count());
    (with_room < quorum).then(|| Shortage {
        what: "voters with free space on their disks, for a write that grows the state".to_owned(),
        limit: format!("{quorum} of {voters}"),
        actual: with_room.to_string(),
    })
}

/// Leadership goes to a voter that says it has room, if one can take it.
async fn hand_over(core: &Core) {
    let others = ask_voters(core).await;
    let roomy = others.iter().filter(|(_, short)| *short == Some(false));
    let roomy: Vec<u64> = roomy.map(|(member, _)| member.id).collect();
    let plan = Plan::of(core);
    let Ok(to) = membership::successor(core, &plan, |id| roomy.contains(&id)).await else {
        return;
    };
    tracing::warn!(to, "the disk is nearly full: handing leadership over");
    if let Err(error) = membership::hand_over(core, to).await {
        tracing::warn!(%error, "leadership was not handed over");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_disk_has_room_again_with_a_tenth_more_than_the_reserve() {
        assert_eq!(shortage_of(1_000, 1_000, false), None);
        let short = shortage_of(1_000, 999, false).expect("less than the reserve");
        assert_eq!(short.actual, "999 bytes free");
        assert!(shortage_of(1_000, 1_099, true).is_some());
        assert_eq!(shortage_of(1_000, 1_100, true), None);
        assert_eq!(shortage_of(0, 0, false), None, "0 switches it off");
    }
}
