//! Faults. Each is done to a running cluster, lasts for a while, and is undone.
//!
//! A run deals them from a shuffled deck: every kind comes before one comes again. What is chosen
//! and for how long comes from the seed; what the cluster makes of it, and when, does not: a seed
//! repeats a plan and not a run.

mod clock;
mod disk;
mod kill;
mod member;
mod network;
mod partition;
mod pause;
mod restart;
mod torn;

use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::field::Field;
use super::gauges::Gauges;

/// What can be done to a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Fault {
    /// `kill -9` of the leader.
    KillLeader,
    /// Of a follower.
    KillFollower,
    /// Of all.
    KillAll,
    /// The leader stands still for longer than a lease lives.
    PauseLeader,
    /// So does a follower.
    PauseFollower,
    /// Two sides that do not hear each other.
    Halves,
    /// The leader hears nobody, clients excepted.
    IsolateLeader,
    /// A node is heard and hears nobody, or the other way round.
    OneWay,
    /// Each node hears its neighbours only, or two sides have one node in common.
    Ring,
    /// Everything is late.
    Delay,
    /// Packets are lost, come twice and out of order.
    Loss,
    /// Wall clocks jump.
    ClockJump,
    /// A sync fails.
    SyncError,
    /// Syncs are slow.
    SlowDisk,
    /// A disk is full.
    DiskFull,
    /// A killed node's log ends too early.
    TornTail,
    /// A node has lost its directory.
    Wiped,
    /// A member goes, and comes back as another.
    MemberChange,
    /// Leadership is handed over.
    Transfer,
    /// Every node is stopped in order and started again.
    RollingRestart,
}

/// All of them.
pub const FAULTS: [Fault; 20] = [
    Fault::KillLeader,
    Fault::KillFollower,
    Fault::KillAll,
    Fault::PauseLeader,
    Fault::PauseFollower,
    Fault::Halves,
    Fault::IsolateLeader,
    Fault::OneWay,
    Fault::Ring,
    Fault::Delay,
    Fault::Loss,
    Fault::ClockJump,
    Fault::SyncError,
    Fault::SlowDisk,
    Fault::DiskFull,
    Fault::TornTail,
    Fault::Wiped,
    Fault::MemberChange,
    Fault::Transfer,
    Fault::RollingRestart,
];

impl Fault {
    /// Whether all processes live on: what they take of the machine can be followed over the run.
    #[must_use]
    pub fn spares_processes(self) -> bool {
        match self {
            Self::PauseLeader
            | Self::PauseFollower
            | Self::Halves
            | Self::IsolateLeader
            | Self::OneWay
            | Self::Ring
            | Self::Delay
            | Self::Loss
            | Self::ClockJump
            | Self::SlowDisk
            | Self::Transfer => true,
            Self::KillLeader
            | Self::KillFollower
            | Self::KillAll
            | Self::SyncError
            | Self::DiskFull
            | Self::TornTail
            | Self::Wiped
            | Self::MemberChange
            | Self::RollingRestart => false,
        }
    }
}

/// Longer than a lease of the histories lives.
const LONGER_THAN_A_LEASE: std::ops::Range<u64> = 1_800..4_000;

/// Between two faults, in milliseconds.
const QUIET_MS: std::ops::Range<u64> = 500..2_500;

/// A fault that was done.
#[derive(Debug, Clone, Serialize)]
pub struct Done {
    /// Which.
    pub fault: Fault,
    /// To whom, and how.
    pub what: String,
    /// Milliseconds since the faults began.
    pub at_ms: u64,
    /// How long it took until everything was undone.
    pub lasted_ms: u64,
    /// From then until a leader was confirmed by a quorum.
    pub recovered_ms: u64,
    /// What the nodes took of their machines then.
    pub gauges: Vec<Gauges>,
    /// From when on nothing was done to the cluster before this fault.
    #[serde(skip)]
    pub quiet: Instant,
    /// When this fault began.
    #[serde(skip)]
    pub began: Instant,
}

/// Deals faults until the time is over. What was done is told one by one.
pub async fn run(
    field: &mut Field,
    deck: &[Fault],
    seed: u64,
    time: Duration,
    mut tell: impl FnMut(Done),
) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(seed);
    let begin = Instant::now();
    let mut left: Vec<Fault> = Vec::new();
    while begin.elapsed() < time {
        let quiet = Instant::now();
        sleep(Duration::from_millis(random.u64(QUIET_MS))).await;
        if left.is_empty() {
            left = deck.to_vec();
            random.shuffle(&mut left);
        }
        let Some(fault) = left.pop() else { break };
        let done = one(field, fault, &mut random, (begin, quiet));
        let done = done
            .await
            .with_context(|| format!("during the fault {fault:?}"))?;
        tell(done);
    }
    Ok(())
}

async fn one(
    field: &mut Field,
    fault: Fault,
    random: &mut fastrand::Rng,
    (begin, quiet): (Instant, Instant),
) -> Result<Done> {
    let at = Instant::now();
    println!("{:>7.1} s  {fault:?}", begin.elapsed().as_secs_f64());
    let what = fault.inflict(field, random).await?;
    field.mend()?;
    let mended = Instant::now();
    field
        .cluster
        .leader()
        .await
        .context("nobody leads after it")?;
    let recovered = mended.elapsed();
    let gauges = field.cluster.nodes.iter().map(Gauges::of);
    Ok(Done {
        fault,
        what,
        at_ms: millis(at.duration_since(begin)),
        lasted_ms: millis(mended.duration_since(at)),
        recovered_ms: millis(recovered),
        gauges: gauges.collect::<Result<_>>()?,
        quiet,
        began: at,
    })
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Fault {
    /// Does it, and waits as long as it is to last. Says to whom.
    async fn inflict(self, field: &mut Field, random: &mut fastrand::Rng) -> Result<String> {
        match self {
            Self::KillLeader => kill::leader(field, random).await,
            Self::KillFollower => kill::follower(field, random).await,
            Self::KillAll => kill::all(field, random).await,
            Self::PauseLeader => pause::leader(field, random).await,
            Self::PauseFollower => pause::follower(field, random).await,
            Self::Halves => partition::halves(field, random).await,
            Self::IsolateLeader => partition::leader(field, random).await,
            Self::OneWay => partition::one_way(field, random).await,
            Self::Ring => partition::ring(field, random).await,
            Self::Delay => network::delay(field, random).await,
            Self::Loss => network::loss(field, random).await,
            Self::ClockJump => clock::jump(field, random).await,
            Self::SyncError => disk::sync_error(field, random).await,
            Self::SlowDisk => disk::slow(field, random).await,
            Self::DiskFull => disk::full(field, random).await,
            Self::TornTail => torn::tail(field, random).await,
            Self::Wiped => member::wiped(field, random).await,
            Self::MemberChange => member::change(field, random).await,
            Self::Transfer => member::transfer(field, random).await,
            Self::RollingRestart => restart::rolling(field).await,
        }
    }
}

/// Lets a fault last.
async fn last(random: &mut fastrand::Rng, ms: std::ops::Range<u64>) {
    sleep(Duration::from_millis(random.u64(ms))).await;
}

/// `n1` for the first.
fn name(field: &Field, node: usize) -> String {
    field.cluster.nodes[node].config().node.name.clone()
}
