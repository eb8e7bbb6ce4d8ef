//! How long nobody is served after the death of a leader.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use quorate_node::Config;
use quorate_statemachine::lease::{Claim, SameOwner};
use quorate_statemachine::{LeaseToken, Name, Owner};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::field::Field;
use crate::wait::{PATIENCE, until};
use quorate_histories::clients::{Pace, Shared};
use quorate_histories::record::Recorder;

/// Who writes without pause: one of them is always about to ask.
const WRITERS: usize = 8;

/// A leader is killed when so many writes were acknowledged under it.
const WRITES_BEFORE: usize = 200;

/// The gaps that were measured, shortest first.
pub struct Gaps(Vec<Duration>);

impl Gaps {
    /// The middle one.
    #[must_use]
    pub fn median(&self) -> Duration {
        self.0.get(self.0.len() / 2).copied().unwrap_or_default()
    }

    /// The longest.
    #[must_use]
    pub fn worst(&self) -> Duration {
        self.0.last().copied().unwrap_or_default()
    }
}

/// The settings that docs/LIMITS.md gives for a network without long delays.
pub fn fast(config: &mut Config) {
    config.raft.heartbeat_ms = 20;
    config.raft.election_min_ms = 60;
    config.raft.election_max_ms = 120;
}

/// Kills so many leaders, and measures the longest time without an acknowledged write around each.
pub async fn measure(
    dir: &Path,
    kills: usize,
    seed: u64,
    configure: impl Fn(&mut Config) + Send + Sync + 'static,
) -> Result<Gaps> {
    let mut field = Field::make(dir, 3, seed, configure).await?;
    let recorder = Recorder::create(&dir.join("history.jsonl"))?;
    let shared = Arc::new(Shared::new(
        field.cluster.all_endpoints(),
        Pace::PROCESSES,
        recorder,
    ));
    let mut writers = JoinSet::new();
    for number in 0..WRITERS {
        writers.spawn(write(Arc::clone(&shared), number));
    }
    let mut gaps = Vec::new();
    for _ in 0..kills {
        more(&shared).await?;
        let leader = field.cluster.leader().await?;
        let killed = Instant::now();
        field.cluster.nodes[leader].kill()?;
        more(&shared).await?;
        gaps.push(gap(&shared.recorder.acknowledged(), killed)?);
        field.cluster.nodes[leader].start()?;
        field.settled().await?;
    }
    shared.stop.cancel();
    while let Some(writer) = writers.join_next().await {
        writer??;
    }
    gaps.sort_unstable();
    Ok(Gaps(gaps))
}

/// The longest time without an acknowledged write that began at the kill or later. What was on its
/// way then may still be answered.
fn gap(acknowledged: &[Instant], killed: Instant) -> Result<Duration> {
    let first = acknowledged
        .partition_point(|at| *at < killed)
        .saturating_sub(1);
    let gaps = acknowledged[first..]
        .windows(2)
        .map(|pair| pair[1] - pair[0]);
    gaps.max()
        .context("nothing was acknowledged around the kill")
}

async fn more(shared: &Shared) -> Result<()> {
    let wanted = shared.recorder.acknowledged().len() + WRITES_BEFORE;
    until("acknowledged writes", PATIENCE, async || {
        Ok((shared.recorder.acknowledged().len() >= wanted).then_some(()))
    })
    .await
}

async fn write(shared: Arc<Shared>, number: usize) -> Result<()> {
    let client = shared.client()?;
    let owner = Name::parse("owner", format!("writer-{number}"))?;
    let mut written = 0_u64;
    while !shared.stop.is_cancelled() {
        let claim = Claim {
            key: Name::parse("key", format!("gap/{number}"))?,
            owner: Owner::new(owner.clone(), owner.clone()),
            lease_token: LeaseToken::parse(format!("{number}-{}", shared.number()))?,
            ttl_ms: 60_000,
            same_owner: SameOwner::Fresh,
            metadata: Vec::new(),
        };
        if client.execute(claim).await.is_ok() {
            shared.recorder.acknowledge();
            written += 1;
        }
    }
    ensure!(written > 0, "writer {number} was never answered");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gap_is_the_longest_one_after_the_kill() -> Result<()> {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let acknowledged = [at(0), at(500), at(510), at(520), at(900), at(910)];
        assert_eq!(gap(&acknowledged, at(515))?, Duration::from_millis(380));
        assert_eq!(gap(&acknowledged, at(600))?, Duration::from_millis(380));
        gap(&acknowledged[..1], at(600)).expect_err("nothing came after it");
        Ok(())
    }
}
