//! A member whose state is not that of the others stops using it, and builds it anew.
//!
//! Whenever the log has a mark (`RecordDigest`), each member asks the others for the digest that
//! they had there. If a quorum of voters has one digest and this node another, this node is wrong:
//! nobody has to tell it, and it takes nobody's word alone.
//!
//! In quarantine a node answers no client, stands for no election, hands leadership over if it has
//! it, sends nobody its snapshots, and says so by an alarm. It goes on storing the log and voting
//! for others: what it has acknowledged stands in its log, which has checksums of its own, and a
//! cluster must not lose a quorum because of rows that can be made again. It gets a snapshot from
//! the leader, applies its own log behind that, and is a member like others once a later mark finds
//! its digest right. Each step can be done again, so a crash in between only begins anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use openraft::async_runtime::WatchReceiver;
use prometheus_client::metrics::counter::Counter;
use quorate_rpc::{NodeError, v1};
use quorate_statemachine::cluster::RecordDigest;
use quorate_statemachine::{Command, Reply};
use tokio::time::{Instant, MissedTickBehavior, timeout};

use crate::alarm::{AlarmKind, Alarms};
use crate::blocking::blocking;
use crate::core::Core;
use crate::membership::{self, leader_of};
use crate::origin::{Caller, Origin};
use crate::plan::Plan;
use crate::propose::{no_leader, stopped};
use crate::raft::Member;
use crate::server::fatal;
use crate::storage::{QuarantineMark, SnapshotData, StateChange, StorageError};

/// Between looks for a mark.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How long a member may take to come to the mark, and then as long to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// How long a mark may take to be committed.
const MARK_MAX: Duration = Duration::from_secs(10);

/// How long a snapshot may be on its way, from the request to the state that is built of it.
const RESYNC_MAX: Duration = Duration::from_secs(900);

/// How long the leader may take to make a snapshot, and how long one that is newer than the state
/// waits for the log.
const CATCH_UP_MAX: Duration = Duration::from_secs(60);

/// Between tries to give leadership away: each that fails costs about as long as an election.
const STEP_DOWN_EVERY: Duration = Duration::from_secs(2);

/// The pause between two tries to build the state; it doubles, up to the longest.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// What a caller is told to wait; it should ask another member at once.
const RETRY_AFTER_MS: u64 = 1_000;

/// Whether this node's state is to be used.
pub struct Quarantine {
    on: AtomicBool,
    mark: QuarantineMark,
    alarms: Arc<Alarms>,
}

impl Quarantine {
    /// As the directory says it.
    pub fn open(mark: QuarantineMark, alarms: Arc<Alarms>) -> Result<Arc<Self>, StorageError> {
        let why = mark.read()?;
        if let Some(why) = &why {
            alarms.raise(AlarmKind::Quarantined, why.clone());
        }
        let on = AtomicBool::new(why.is_some());
        Ok(Arc::new(Self { on, mark, alarms }))
    }

    /// Whether it is on.
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Acquire)
    }

    /// An error while nothing may be answered from the state.
    pub fn check(&self) -> Result<(), NodeError> {
        if !self.is_on() {
            return Ok(());
        }
        Err(NodeError::Unavailable {
            message: "the state of this node differs from that of the others and is built anew; \
                      ask another member"
                .to_owned(),
            retry_after_ms: RETRY_AFTER_MS,
            leader: None,
        })
    }

    async fn begin(&self, why: String) {
        self.on.store(true, Ordering::Release);
        // Without the mark, a restart would have to find out again.
        let (mark, text) = (self.mark.clone(), why.clone());
        if let Err(error) = written(move || mark.set(&text)).await {
            tracing::error!(error, "the quarantine is not written down");
        }
        self.alarms.raise(AlarmKind::Quarantined, why);
    }

    /// Makes sure that a crash does not end it.
    fn noted(&self) -> Result<(), StorageError> {
        match self.mark.read()? {
            Some(_) => Ok(()),
            None => self.mark.set("the state was being built anew"),
        }
    }

    async fn end(&self) -> Result<(), String> {
        let mark = self.mark.clone();
        written(move || mark.clear()).await?;
        self.on.store(false, Ordering::Release);
        self.alarms.clear(AlarmKind::Quarantined);
        Ok(())
    }
}

/// Writes where it may block; what went wrong, in words.
async fn written(
    write: impl FnOnce() -> Result<(), StorageError> + Send + 'static,
) -> Result<(), String> {
    match blocking(write).await {
        Ok(written) => written.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// What a comparison has shown of this node.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// A quorum has the same digest.
    Right,
    /// A quorum has another one.
    Wrong(String),
    /// There are different ones, and no quorum for any of them.
    Split,
    /// Too few have answered.
    Unknown,
}

/// Digests by member; `lists` are the voters, two lists during a change.
fn judge(own: u64, digests: &BTreeMap<u64, String>, lists: &[BTreeSet<u64>]) -> Verdict {
    let Some(mine) = digests.get(&own) else {
        return Verdict::Unknown;
    };
    let quorum_has = |digest: &String| {
        lists.iter().all(|voters| {
            let have = voters.iter().filter(|id| digests.get(id) == Some(digest));
            have.count() > voters.len() / 2
        })
    };
    let different: BTreeSet<&String> = digests.values().collect();
    match different.iter().find(|digest| quorum_has(digest)) {
        Some(digest) if *digest == mine => Verdict::Right,
        Some(digest) => Verdict::Wrong((*digest).clone()),
        None if different.len() > 1 => Verdict::Split,
        None => Verdict::Unknown,
    }
}

/// What one node does about its state, for as long as it runs.
struct Care<'a> {
    core: &'a Core,
    alarms: &'a Alarms,
    mismatches: &'a Counter,
    /// The newest mark that was looked at.
    compared: u64,
    /// Whether the state was built anew in this quarantine.
    rebuilt: bool,
    tries: u32,
    next_try: Instant,
}

/// Compares whenever there is a mark; sets one every `every` while this node leads, if not zero.
pub async fn run(core: &Core, alarms: &Alarms, every: Duration) {
    let mut interval = tokio::time::interval(LOOK_EVERY);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut marked = Instant::now();
    let mut care = Care {
        core,
        alarms,
        mismatches: &core.metrics.recorded().digest_mismatches,
        compared: 0,
        rebuilt: false,
        tries: 0,
        next_try: Instant::now(),
    };
    loop {
        interval.tick().await;
        care.compare().await;
        if core.quarantine.is_on() {
            care.recover().await;
        } else if core.leads() && !every.is_zero() && marked.elapsed() >= every {
            marked = Instant::now();
            if let Err(error) = mark(core).await {
                tracing::debug!(%error, "no mark was set to compare states at");
            }
        }
    }
}

impl Care<'_> {
    /// Compares at the newest mark, if it is a new one.
    async fn compare(&mut self) {
        let Some((index, own)) = self.core.state.digests().pop() else {
            return;
        };
        if index <= self.compared {
            return;
        }
        self.compared = index;
        let (verdict, digests) = look_around(self.core, index, own.to_string()).await;
        match verdict {
            Verdict::Right => self.right().await,
            Verdict::Wrong(digest) => self.wrong(index, &digest, &digests).await,
            Verdict::Split => {
                self.mismatches.inc();
                let facts = format!(
                    "the states of the members differ at log index {index}, and no quorum has the \
                     same: {}; keep the directories of all, and see `quorate verify`",
                    listed(&digests)
                );
                self.alarms.raise(AlarmKind::Diverged, facts);
            }
            Verdict::Unknown => {}
        }
    }

    async fn right(&mut self) {
        self.alarms.clear(AlarmKind::Diverged);
        let quarantine = &self.core.quarantine;
        if !quarantine.is_on() || !self.rebuilt {
            return;
        }
        match quarantine.end().await {
            Ok(()) => {
                self.core.raft.runtime_config().elect(true);
                self.rebuilt = false;
                self.tries = 0;
                self.next_try = Instant::now();
            }
            Err(error) => tracing::error!(error, "the quarantine cannot end"),
        }
    }

    async fn wrong(&mut self, index: u64, digest: &str, digests: &BTreeMap<u64, String>) {
        self.core.raft.runtime_config().elect(false);
        self.mismatches.inc();
        self.alarms.clear(AlarmKind::Diverged);
        self.rebuilt = false;
        let times = match self.tries {
            0 => String::new(),
            tries => format!(", after {tries} tries to build it anew"),
        };
        let why = format!(
            "the state of this node is not that of the others at log index {index}{times}: a \
             quorum has digest {digest} ({}); it is built anew from a snapshot of the leader. If \
             it happens again, replace the machine",
            listed(digests)
        );
        self.core.quarantine.begin(why).await;
        if self.core.leads() {
            self.next_try = Instant::now();
        }
        // Watches end: what they were told came out of this state.
        let index = *self.core.hub.applied().borrow();
        self.core.hub.observe(StateChange::Replaced { index });
    }

    /// One step out of the quarantine, if it is time for one.
    async fn recover(&mut self) {
        if Instant::now() < self.next_try {
            return;
        }
        if self.core.leads() {
            self.step_down().await;
            self.next_try = Instant::now() + STEP_DOWN_EVERY;
            return;
        }
        let Some((id, leader)) = leader_of(&self.core.raft) else {
            return;
        };
        let mut pause = PAUSE_MIN;
        match self.step(id, &leader).await {
            // Nothing was built, so nothing was wrong with it.
            Err(error @ NodeError::Unavailable { .. }) => {
                tracing::warn!(%error, tries = self.tries, "the quarantine goes on");
            }
            tried => {
                self.tries = self.tries.saturating_add(1);
                pause *= 2u32.saturating_pow((self.tries - 1).min(10));
                match tried {
                    Ok(()) => tracing::info!(tries = self.tries, "a state was built anew"),
                    Err(error) => {
                        tracing::warn!(%error, tries = self.tries, "the quarantine goes on");
                    }
                }
            }
        }
        self.next_try = Instant::now() + pause.min(PAUSE_MAX);
    }

    /// Gives leadership away: to the voter that is nearest, or, if none is near enough, to whom the
    /// others elect when this leader falls silent.
    async fn step_down(&self) {
        let plan = Plan::of(self.core);
        let own = self.core.identity.node_id;
        let best = membership::successor(self.core, &plan, |_| true).await;
        let other = || plan.voters.iter().copied().find(|id| *id != own);
        let Some(to) = best.ok().or_else(other) else {
            return;
        };
        tracing::warn!(to, "in quarantine: handing leadership over");
        if let Err(error) = self.core.raft.trigger().transfer_leader(to).await {
            tracing::warn!(%error, "leadership was not handed over");
        }
    }

    /// The state is built anew, and a mark is set to see whether it is right now.
    async fn step(&mut self, leader_id: u64, leader: &Member) -> Result<(), NodeError> {
        let core = self.core;
        if !self.rebuilt {
            // From here on the log behind what is applied now stays.
            let _held = core.state.hold_log();
            let min_index = self.compared.max(*core.hub.applied().borrow());
            let request = v1::ResyncRequest { min_index };
            let addr = &leader.peer_addr;
            let resync = core.peers.resync(leader_id, addr, request, RESYNC_MAX);
            resync.await?;
            self.rebuilt = true;
        }
        mark(core).await
    }
}

/// Asks the others for their digest at `index` until it is clear who is right; answers also the
/// digests that it has then.
async fn look_around(core: &Core, index: u64, own: String) -> (Verdict, BTreeMap<u64, String>) {
    let own_id = core.identity.node_id;
    let (others, lists) = {
        let metrics = core.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let others = membership
            .nodes()
            .filter(|(id, _)| **id != own_id)
            .map(|(id, member)| (*id, member.peer_addr.clone()));
        let others: Vec<(u64, String)> = others.collect();
        (others, membership.get_joint_config().clone())
    };
    let asked = others.into_iter().map(|(id, addr)| async move {
        let asking = core.peers.digest_at(id, &addr, index, ANSWER_MAX);
        let answer = timeout(2 * ANSWER_MAX, asking).await.ok()?;
        let answer = answer.inspect_err(|error| tracing::debug!(id, %error, "no digest"));
        let digest = answer.ok()?.digest;
        (!digest.is_empty()).then_some((id, digest))
    });
    let mut answers: FuturesUnordered<_> = asked.collect();
    let mut digests = BTreeMap::from([(own_id, own)]);
    loop {
        let verdict = judge(own_id, &digests, &lists);
        if matches!(verdict, Verdict::Right | Verdict::Wrong(_)) {
            return (verdict, digests);
        }
        match answers.next().await {
            Some(answer) => digests.extend(answer),
            None => return (verdict, digests),
        }
    }
}

fn listed(digests: &BTreeMap<u64, String>) -> String {
    let one = |(id, digest): (&u64, &String)| format!("member {id} has {digest}");
    let all: Vec<String> = digests.iter().map(one).collect();
    all.join(", ")
}

/// Sets a mark in the log at which states can be compared.
async fn mark(core: &Core) -> Result<(), NodeError> {
    if core.leads() {
        let deadline = Instant::now() + MARK_MAX;
        return core.execute(RecordDigest {}, deadline).await;
    }
    let (id, leader) = leader_of(&core.raft).ok_or_else(no_leader)?;
    let request = v1::ForwardRequest {
        command: Command::from(RecordDigest {}).encode().into(),
        timeout_ms: u32::try_from(MARK_MAX.as_millis()).unwrap_or(u32::MAX),
        origin: Some(Origin::from(Caller::Cluster).to_wire()),
        ..v1::ForwardRequest::default()
    };
    let reply = core.peers.forward(id, &leader, request).await?;
    match reply.result {
        Some(v1::execute_reply::Result::Error(error)) => Err(error.into()),
        Some(v1::execute_reply::Result::Reply(bytes)) if Reply::decode(&bytes).is_ok() => Ok(()),
        _ => Err(NodeError::OutcomeUnknown {
            message: "the leader's answer to a mark cannot be read".to_owned(),
        }),
    }
}

/// On the leader: makes a snapshot that covers `min_index` and sends it to a member in quarantine.
pub async fn send_snapshot(core: &Core, to: u64, min_index: u64) -> Result<(), NodeError> {
    core.quarantine.check()?;
    let made = timeout(CATCH_UP_MAX, make_snapshot(core, min_index)).await;
    made.map_err(|_| NodeError::DeadlineExceeded {
        message: format!(
            "no snapshot covers log index {min_index} after {} s",
            CATCH_UP_MAX.as_secs()
        ),
    })??;
    let Some(snapshot) = core.state.snapshot() else {
        return Err(NodeError::Unavailable {
            message: "there is no snapshot to send".to_owned(),
            retry_after_ms: RETRY_AFTER_MS,
            leader: None,
        });
    };
    let (vote, addr) = {
        let metrics = core.raft.metrics();
        let seen = metrics.borrow_watched();
        let member = seen.membership_config.membership().get_node(&to);
        (seen.vote, member.map(|member| member.peer_addr.clone()))
    };
    let addr = addr.ok_or_else(|| NodeError::NotFound {
        message: format!("there is no member {to}"),
    })?;
    // It may have begun meanwhile.
    core.quarantine.check()?;
    core.peers.send_resync(to, &addr, vote, snapshot).await
}

/// Waits until a snapshot covers `min_index`. One that is being made already may not.
async fn make_snapshot(core: &Core, min_index: u64) -> Result<(), NodeError> {
    let mut applied = core.hub.applied();
    let reached = applied.wait_for(|applied| *applied >= min_index).await;
    reached.map(drop).map_err(|_| stopped())?;
    let mut metrics = core.raft.metrics();
    let mut behind = None;
    loop {
        let covered = metrics.borrow_watched().snapshot.map_or(0, |id| id.index);
        if covered >= min_index {
            return Ok(());
        }
        if behind.replace(covered) != Some(covered) {
            let triggered = core.raft.trigger().snapshot().await;
            triggered.map_err(|error| fatal(&error))?;
        }
        metrics.changed().await.map_err(|_| stopped())?;
    }
}

/// In quarantine: builds the state of this snapshot and the log behind it.
pub async fn rebuild(core: &Core, data: SnapshotData) -> Result<(), NodeError> {
    if !core.quarantine.is_on() {
        return Err(NodeError::Unsafe {
            message: "this node is in no quarantine, and keeps its state".to_owned(),
        });
    }
    let covers = data.manifest().meta.last_log_id.map_or(0, |id| id.index);
    let mut applied = core.hub.applied();
    let waited = timeout(CATCH_UP_MAX, applied.wait_for(|applied| *applied >= covers)).await;
    let reached = matches!(waited, Ok(Ok(_)));
    drop(waited);
    if !reached {
        return Err(NodeError::DeadlineExceeded {
            message: format!("the log has not come to entry {covers}, where the snapshot ends"),
        });
    }
    let (state, log) = (core.state.clone(), core.log.clone());
    let quarantine = Arc::clone(&core.quarantine);
    let built = blocking(move || {
        quarantine.noted()?;
        state.rebuild(&data, &log)
    });
    let built = built.await;
    let built = built.map_err(|error| fatal(&error))?;
    let index = built.map_err(|error| NodeError::Unavailable {
        message: format!("the state was not built: {error}"),
        retry_after_ms: RETRY_AFTER_MS,
        leader: None,
    })?;
    tracing::info!(from = covers, to = index, "the state was built anew");
    core.hub.observe(StateChange::Replaced { index });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(own: u64, digests: &[(u64, &str)], lists: &[&[u64]]) -> Verdict {
        let digests = digests
            .iter()
            .map(|(id, digest)| (*id, (*digest).to_owned()));
        let lists = lists.iter().map(|list| list.iter().copied().collect());
        let lists: Vec<BTreeSet<u64>> = lists.collect();
        judge(own, &digests.collect(), &lists)
    }

    #[test]
    fn the_minority_is_wrong_and_knows_it() {
        let all = [(1, "a"), (2, "a"), (3, "b")];
        let voters: &[&[u64]] = &[&[1, 2, 3]];
        assert_eq!(verdict(1, &all, voters), Verdict::Right);
        assert_eq!(verdict(3, &all, voters), Verdict::Wrong("a".to_owned()));
        // A learner has no say, and can be wrong.
        let all = [(1, "a"), (2, "b"), (3, "b"), (4, "b")];
        assert_eq!(verdict(1, &all, &[&[1]]), Verdict::Right);
        assert_eq!(verdict(4, &all, &[&[1]]), Verdict::Wrong("a".to_owned()));
    }

    #[test]
    fn without_a_quorum_nobody_is_wrong() {
        let voters: &[&[u64]] = &[&[1, 2, 3]];
        assert_eq!(verdict(1, &[(1, "a"), (2, "b")], voters), Verdict::Split);
        assert_eq!(
            verdict(1, &[(1, "a"), (2, "b"), (3, "c")], voters),
            Verdict::Split
        );
        assert_eq!(verdict(1, &[(1, "a")], voters), Verdict::Unknown);
        assert_eq!(verdict(9, &[(1, "a"), (2, "a")], voters), Verdict::Unknown);
    }

    #[test]
    fn during_a_change_both_lists_must_agree() {
        let all = [(1, "a"), (2, "a"), (3, "b"), (4, "b")];
        let joint: &[&[u64]] = &[&[1, 2, 3], &[1, 3, 4]];
        assert_eq!(verdict(3, &all, joint), Verdict::Split);
        let joint: &[&[u64]] = &[&[1, 2, 3], &[1, 2, 4]];
        assert_eq!(verdict(3, &all, joint), Verdict::Wrong("a".to_owned()));
    }

    #[tokio::test]
    async fn a_quarantine_outlives_the_process() {
        let temp = tempfile::tempdir().expect("a directory");
        let mark = |dir: &crate::storage::DataDir| dir.quarantine();
        let dir = crate::storage::DataDir::open(temp.path()).expect("opened");
        let alarms = Arc::new(Alarms::default());
        let first = Quarantine::open(mark(&dir), Arc::clone(&alarms)).expect("read");
        assert!(first.check().is_ok() && alarms.active().is_empty());
        first.begin("rows differ".to_owned()).await;
        let alarms = Arc::new(Alarms::default());
        let second = Quarantine::open(mark(&dir), Arc::clone(&alarms)).expect("read");
        assert!(second.check().is_err());
        assert_eq!(alarms.active()[0].text, "rows differ");
        second.end().await.expect("removed");
        assert!(second.check().is_ok() && alarms.active().is_empty());
    }
}
