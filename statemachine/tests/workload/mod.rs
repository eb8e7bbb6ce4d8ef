//! Logs of random commands of all nouns, each made of a seed alone.

use quorate_statemachine::lease::{self, SameOwner};
use quorate_statemachine::lock::{self, Mode};
use quorate_statemachine::process::{self, Ending, ProcessState, WakeTarget};
use quorate_statemachine::queue::{self, ItemId, Outcome};
use quorate_statemachine::{
    Action, Command, Entry, LeaseToken, Name, Owner, Precondition, Principal, RequestId, Timestamp,
    cluster,
};

mod access;
mod sessions;

use sessions::Sessions;

/// A linear congruential generator (Knuth's MMIX constants): the log is the seed's alone.
pub struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn name(&mut self, prefix: &str, count: u64) -> Name {
        Name::parse("name", format!("{prefix}{}", self.below(count))).expect("a short name")
    }

    fn token(&mut self) -> LeaseToken {
        LeaseToken::parse(format!("t{}", self.below(12))).expect("a short token")
    }

    fn owner(&mut self) -> Owner {
        Owner::new(self.name("w", 4), self.name("boot", 2))
    }

    /// A token of a recent entry, so that some are right.
    fn fencing(&mut self, index: u64) -> u64 {
        index.saturating_sub(self.below(12))
    }

    fn item(&mut self, index: u64) -> ItemId {
        ItemId(self.fencing(index) << 10)
    }

    fn ttl(&mut self) -> u64 {
        [0, 1, 300, 2_000, 60_000][self.below(5) as usize]
    }

    /// Few enough that acquisitions are repeated, met by their ends, and met by other requests.
    /// Mostly each has a lock of its own.
    fn acquisition(&mut self) -> (Name, [u8; 16]) {
        let (number, mut id) = (self.below(60), [0; 16]);
        id[0] = number as u8;
        let of = if self.below(20) == 0 { 4 } else { 1 };
        let lock = (number + self.below(of)) % 4;
        (
            Name::parse("lock", format!("lock/{lock}")).expect("a short name"),
            id,
        )
    }
}

/// An entry as a log holds it.
pub struct Logged {
    index: u64,
    proposed_at: Timestamp,
    command: Vec<u8>,
    by: Option<&'static str>,
}

impl Logged {
    pub fn entry(&self) -> Entry<'_> {
        Entry {
            index: self.index,
            proposed_at: self.proposed_at,
            command: &self.command,
            principal: self.by.map_or(Principal::Cluster, Principal::Named),
        }
    }
}

/// A log with gaps in its indexes and a clock that mostly goes on, now and then far, or back.
pub fn log(seed: u64, entries: usize) -> Vec<Logged> {
    // Rights have numbers of their own, so that the rest of a log does not hang on them.
    let (mut random, mut rights) = (Random(seed), Random(!seed));
    let mut sessions = Sessions::default();
    let (mut index, mut clock) = (0, 1_000_000);
    (0..entries)
        .map(|_| {
            index += 1 + random.below(3) / 2;
            clock = match random.below(40) {
                0 => clock - 5_000,
                1 => clock + 700_000,
                _ => clock + random.below(400),
            };
            let mut command = command(&mut random, &mut sessions, index);
            if rights.below(40) == 0 {
                command = access::action(&mut rights).into();
            }
            let by = access::principal(&mut rights, &command.action);
            Logged {
                index,
                proposed_at: Timestamp(clock),
                command: command.encode(),
                by,
            }
        })
        .collect()
}

fn command(random: &mut Random, sessions: &mut Sessions, index: u64) -> Command {
    let mut command = match random.below(20) {
        0 => Command::from(Action::Composite(
            (0..=random.below(4))
                .map(|_| step(random, sessions, index))
                .collect(),
        )),
        1 => cluster_action(random).into(),
        2 => lease::RenewMany {
            renewals: (0..=random.below(5))
                .map(|_| renew(random, index))
                .collect(),
        }
        .into(),
        3..=7 => lock_action(random, index).into(),
        8..=14 => sessions.action(random, index).into(),
        _ => step(random, sessions, index).into(),
    };
    if matches!(command.action, Action::Session(_)) && random.below(8) > 0 {
        return command;
    }
    if random.below(3) == 0 {
        let mut id = [0; 16];
        id[0] = random.below(30) as u8;
        command.request = Some(RequestId {
            id,
            not_before: index.saturating_sub(random.below(60)),
        });
    }
    if random.below(8) == 0 {
        let (key, token) = (random.name("lease/", 6), random.fencing(index));
        command = command.require(Precondition::Lease { key, token });
    }
    if random.below(16) == 0 {
        let (key, token) = (random.name("lock/", 4), random.fencing(index));
        command = command.require(Precondition::Lock { key, token });
    }
    command
}

fn cluster_action(random: &mut Random) -> Action {
    match random.below(4) {
        0 if random.below(4) == 0 => version_action(random),
        0 => cluster::RecordDigest {}.into(),
        1 => cluster::AllocateNodeId {}.into(),
        2 => cluster::Found {
            cluster_id: random.name("c", 2),
            node_id: random.below(5),
        }
        .into(),
        _ => cluster::Tick {}.into(),
    }
}

fn version_action(random: &mut Random) -> Action {
    match random.below(3) {
        0 => cluster::SetVersion { version: 2 }.into(),
        1 => cluster::HoldVersion { held: true }.into(),
        _ => cluster::HoldVersion { held: false }.into(),
    }
}

fn step(random: &mut Random, sessions: &mut Sessions, index: u64) -> Action {
    match random.below(8) {
        0 | 1 => lease_step(random, index),
        2 | 3 => queue_step(random, index),
        4 | 5 => process_step(random),
        6 => sessions.action(random, index),
        _ => lock_release(random).into(),
    }
}

fn lock_action(random: &mut Random, index: u64) -> Action {
    let (key, id) = random.acquisition();
    match random.below(14) {
        0 => lock_renew(random).into(),
        1 => lock::RenewMany {
            renewals: (0..=random.below(5)).map(|_| lock_renew(random)).collect(),
        }
        .into(),
        2 | 3 => lock_release(random).into(),
        4 => lock::CancelWait { key, id }.into(),
        5 => lock::Revoke {
            key,
            only: (random.below(2) == 0).then(|| random.fencing(index)),
            by: "operator".to_owned(),
        }
        .into(),
        6 => lock::Proclaim {
            key,
            fencing_token: random.fencing(index),
            metadata: vec![9; random.below(20) as usize],
        }
        .into(),
        _ => lock_acquire(random, index).into(),
    }
}

fn lock_acquire(random: &mut Random, index: u64) -> lock::Acquire {
    let (key, id) = random.acquisition();
    let permits = 1 + random.below(3) as u32;
    lock::Acquire {
        mode: match key.as_str() {
            "lock/0" => Mode::Permit { of: permits },
            _ if random.below(3) == 0 => Mode::Shared,
            _ => Mode::Exclusive,
        },
        key,
        id: RequestId {
            id,
            not_before: index.saturating_sub(random.below(60)),
        },
        owner: random.owner(),
        ttl_ms: random.ttl().max(1),
        wait_ttl_ms: random.ttl().max(1),
        max_wait_ms: (random.below(2) == 0).then(|| random.ttl()),
        reentrant: random.below(2) == 0,
        delay_ms: random.ttl(),
        metadata: vec![8; random.below(20) as usize],
    }
}

fn lock_renew(random: &mut Random) -> lock::Renew {
    let (key, id) = random.acquisition();
    lock::Renew {
        key,
        id,
        ttl_ms: (random.below(2) == 0).then(|| random.ttl().max(1)),
    }
}

fn lock_release(random: &mut Random) -> lock::Release {
    let (key, id) = random.acquisition();
    lock::Release { key, id }
}

fn renew(random: &mut Random, index: u64) -> lease::Renew {
    lease::Renew {
        key: random.name("lease/", 6),
        lease_token: random.token(),
        fencing_token: random.fencing(index),
        ttl_ms: random.ttl(),
    }
}

fn claim(random: &mut Random) -> lease::Claim {
    lease::Claim {
        key: random.name("lease/", 6),
        owner: random.owner(),
        lease_token: random.token(),
        ttl_ms: random.ttl(),
        same_owner: [SameOwner::Busy, SameOwner::Fresh, SameOwner::Extend]
            [random.below(3) as usize],
        metadata: vec![7; random.below(20) as usize],
    }
}

fn lease_step(random: &mut Random, index: u64) -> Action {
    match random.below(8) {
        0 | 1 => renew(random, index).into(),
        2 => lease::Release {
            key: random.name("lease/", 6),
            lease_token: random.token(),
            fencing_token: random.fencing(index),
        }
        .into(),
        3 => lease::Revoke {
            key: random.name("lease/", 6),
            only: None,
            by: "operator".to_owned(),
        }
        .into(),
        4 => {
            let owner = random.owner();
            let observed = lease::Observed {
                owner_id: owner.owner_id,
                incarnation_id: owner.incarnation_id,
                lease_token: random.token(),
                fencing_token: random.fencing(index),
            };
            lease::Reclaim {
                observed,
                claim: claim(random),
            }
            .into()
        }
        _ => claim(random).into(),
    }
}

fn queue_step(random: &mut Random, index: u64) -> Action {
    let (queue, item_id) = (random.name("queue/", 3), random.item(index));
    let fencing_token = random.fencing(index);
    match random.below(10) {
        0..=3 => queue::Push {
            queue,
            payload: vec![3; random.below(50) as usize],
            dedupe_key: (random.below(2) == 0).then(|| random.name("k", 5)),
            delay_ms: random.ttl(),
            priority: random.below(3) as u8,
            max_attempts: random.below(3) as u32,
        }
        .into(),
        4..=6 => {
            let (owner, ttl_ms) = (random.owner(), random.ttl());
            queue::Claim {
                queue,
                owner,
                ttl_ms,
                max: 1 + random.below(4) as u32,
            }
            .into()
        }
        7 => {
            let outcome = match random.below(3) {
                0 => Outcome::Done,
                1 => Outcome::Retry {
                    delay_ms: random.ttl(),
                    note: "again".to_owned(),
                },
                _ => Outcome::Dead {
                    note: "no".to_owned(),
                },
            };
            queue::Settle {
                queue,
                item_id,
                fencing_token,
                outcome,
            }
            .into()
        }
        8 => queue::Cancel { queue, item_id }.into(),
        _ => queue::Requeue { queue, item_id }.into(),
    }
}

fn process_step(random: &mut Random) -> Action {
    let id = random.name("p", 8);
    match random.below(12) {
        0 | 1 => process::Register {
            id,
            definition: vec![1; random.below(2) as usize],
            wake_target: (random.below(2) == 0).then(|| WakeTarget {
                session: random.name("s", 2),
                target: vec![],
            }),
        }
        .into(),
        2 if random.below(8) == 0 => process::Complete {
            id,
            state: ProcessState::Succeeded,
            outcome: vec![],
        }
        .into(),
        3 => process::SetWait {
            id,
            wait: (random.below(2) == 0).then(|| vec![4]),
        }
        .into(),
        4 => process::AckWake {
            id,
            sequence: random.below(5),
        }
        .into(),
        5 => grant_step(random, id),
        _ => process::Append {
            id,
            event_type: random.name("type", 2),
            key: (random.below(2) == 0).then(|| random.name("k", 9)),
            payload: vec![2; random.below(3) as usize],
            wakes: random.below(3) == 0,
            after_end: random.below(2) == 0,
            ends: (random.below(16) == 0).then(|| Ending {
                state: ProcessState::Failed,
                outcome: vec![],
            }),
        }
        .into(),
    }
}

fn grant_step(random: &mut Random, process_id: Name) -> Action {
    let scope = random.name("scope", 4);
    match random.below(6) {
        0 => process::DeleteGrant { scope, process_id }.into(),
        1 => process::MoveGrants {
            from: scope,
            to: random.name("scope", 4),
            to_session: random.name("s", 2),
            process_ids: vec![process_id],
        }
        .into(),
        2 if random.below(4) == 0 => process::DetachSession {
            session: random.name("s", 2),
        }
        .into(),
        _ => process::PutGrant {
            grant: process::Grant {
                scope,
                session: random.name("s", 2),
                process_id,
                descriptor: vec![3; random.below(3) as usize],
            },
        }
        .into(),
    }
}
