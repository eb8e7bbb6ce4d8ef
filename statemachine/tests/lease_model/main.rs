//! Lease commands against a naive model: a list of all grants ever made.
//!
//! The clock goes on and back, entries tick, commands arrive twice and late, bursts of claims make
//! more fall due than one entry may sweep. Whatever the sweep has reached, the answers are the
//! model's.

mod model;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::Index;
use quorate_statemachine::lease::{self, EndReason, SameOwner};
use quorate_statemachine::limits::LEASE_HISTORY_MAX;
use quorate_statemachine::notice::Notice;
use quorate_statemachine::tables::{Due, DueKind, Key, Leases, MetaRow, meta_key, parse_due_key};
use quorate_statemachine::transaction::{read, read_range};
use quorate_statemachine::view::MemoryView;
use quorate_statemachine::{
    Action, Answer, Command, Entry, LeaseToken, Name, Owner, Query, Timestamp, apply, cluster,
    query,
};

use model::{Grant, Model, Why, outcome};

/// What the test does next.
#[derive(Debug, Clone)]
enum Op {
    Advance(u64),
    ClockBack(u64),
    Tick,
    Claim {
        key: u8,
        owner: u8,
        token: u8,
        ttl: u64,
        same: u8,
    },
    Renew(Presented, u64),
    RenewMany(Vec<(Presented, u64)>),
    Release(Presented),
    Reclaim {
        observed: Presented,
        owner: u8,
        token: u8,
        ttl: u64,
    },
    Revoke {
        key: u8,
        only: Option<Presented>,
    },
    Burst {
        token: u8,
        ttl: u64,
    },
    Again(Index),
}

/// A grant that was made, perhaps with something wrong about it.
#[derive(Debug, Clone)]
struct Presented {
    grant: Index,
    wrong: u8,
}

fn presented() -> impl Strategy<Value = Presented> {
    (any::<Index>(), 0..8u8).prop_map(|(grant, wrong)| Presented { grant, wrong })
}

fn ttl() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 1..50u64, 500..5_000u64, Just(20_000)]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (1..2_000u64).prop_map(Op::Advance),
        1 => (5_000..15_000u64).prop_map(Op::Advance),
        1 => (1..5_000u64).prop_map(Op::ClockBack),
        1 => Just(Op::Tick),
        6 => (0..3u8, 0..3u8, 0..9u8, ttl(), 0..3u8).prop_map(|(key, owner, token, ttl, same)| {
            Op::Claim { key, owner, token, ttl, same }
        }),
        3 => (presented(), ttl()).prop_map(|(grant, ttl)| Op::Renew(grant, ttl)),
        2 => prop::collection::vec((presented(), ttl()), 1..5).prop_map(Op::RenewMany),
        3 => presented().prop_map(Op::Release),
        3 => (presented(), 0..3u8, 0..9u8, ttl()).prop_map(|(observed, owner, token, ttl)| {
            Op::Reclaim { observed, owner, token, ttl }
        }),
        1 => (0..3u8, prop::option::of(presented())).prop_map(|(key, only)| {
            Op::Revoke { key, only }
        }),
        1 => (0..9u8, ttl()).prop_map(|(token, ttl)| Op::Burst { token, ttl }),
        3 => any::<Index>().prop_map(Op::Again),
    ]
}

/// Claims of one burst: more than an entry may sweep.
const BURST: u64 = 45;

fn name(prefix: &str, number: u64) -> Name {
    Name::parse("name", format!("{prefix}{number}")).expect("a short name")
}

fn token(number: u8) -> LeaseToken {
    LeaseToken::parse(format!("t{number}")).expect("a short token")
}

/// Owners 0 and 1 are two boots of one machine.
fn owner(number: u8) -> Owner {
    Owner::new(
        name("w", u64::from(number / 2)),
        name("boot", u64::from(number)),
    )
}

/// The state machine and the model, side by side.
#[derive(Default)]
struct Pair {
    view: MemoryView,
    model: Model,
    clock: u64,
    index: u64,
    sent: Vec<lease::Command>,
    ended: BTreeSet<u64>,
}

impl Pair {
    fn run(&mut self, op: Op) {
        match op {
            Op::Advance(ms) => self.clock += ms,
            Op::ClockBack(ms) => self.clock = self.clock.saturating_sub(ms),
            Op::Tick => self.tick(),
            Op::Again(_) if self.sent.is_empty() => {}
            Op::Again(which) => self.send(which.get(&self.sent).clone()),
            Op::Burst { token: number, ttl } => {
                for key in 0..BURST {
                    let claim = claim(name("burst", key), 0, number, ttl, SameOwner::Fresh);
                    self.send(lease::Command::Claim(claim));
                }
            }
            op => self.send(self.command(op)),
        }
    }

    fn command(&self, op: Op) -> lease::Command {
        match op {
            Op::Claim {
                key,
                owner,
                token,
                ttl,
                same,
            } => {
                let same =
                    [SameOwner::Busy, SameOwner::Fresh, SameOwner::Extend][usize::from(same)];
                lease::Command::Claim(claim(name("k", key.into()), owner, token, ttl, same))
            }
            Op::Renew(grant, ttl) => lease::Command::Renew(self.renew(&grant, ttl)),
            Op::RenewMany(all) => {
                let renewals = all
                    .iter()
                    .map(|(grant, ttl)| self.renew(grant, *ttl))
                    .collect();
                lease::Command::RenewMany(lease::RenewMany { renewals })
            }
            Op::Release(grant) => {
                let grant = self.present(&grant);
                lease::Command::Release(lease::Release {
                    key: key_of(&grant),
                    lease_token: LeaseToken::parse(grant.token).expect("a token"),
                    fencing_token: grant.fencing,
                })
            }
            Op::Reclaim {
                observed,
                owner,
                token,
                ttl,
            } => {
                let grant = self.present(&observed);
                let key = key_of(&grant);
                let observed = lease::Observed {
                    owner_id: grant.owner.owner_id,
                    incarnation_id: grant.owner.incarnation_id,
                    lease_token: LeaseToken::parse(grant.token).expect("a token"),
                    fencing_token: grant.fencing,
                };
                let claim = claim(key, owner, token, ttl, SameOwner::Busy);
                lease::Command::Reclaim(lease::Reclaim { observed, claim })
            }
            Op::Revoke { key, only } => lease::Command::Revoke(lease::Revoke {
                key: name("k", key.into()),
                only: only.map(|grant| self.present(&grant).fencing),
                by: "operator".to_owned(),
            }),
            other => unreachable!("{other:?} is no command"),
        }
    }

    fn renew(&self, grant: &Presented, ttl_ms: u64) -> lease::Renew {
        let grant = self.present(grant);
        lease::Renew {
            key: key_of(&grant),
            lease_token: LeaseToken::parse(grant.token.as_str()).expect("a token"),
            fencing_token: grant.fencing,
            ttl_ms,
        }
    }

    /// A grant that was made, mostly as it was; with one thing wrong now and then.
    fn present(&self, presented: &Presented) -> Grant {
        let mut grant = match self.model.grants.as_slice() {
            [] => Grant {
                key: "k0".to_owned(),
                owner: owner(0),
                token: "t0".to_owned(),
                fencing: 1,
                expires: 0,
                over: None,
            },
            grants => presented.grant.get(grants).clone(),
        };
        match presented.wrong {
            0 => grant.fencing += 1,
            1 => grant.token = "other".to_owned(),
            2 => grant.owner = owner(9),
            _ => {}
        }
        grant
    }

    fn send(&mut self, command: lease::Command) {
        self.index += 1;
        let now = self.clock;
        let expected = self.model.apply(self.index, now, &command);
        let reply = self.apply(&Command::from(Action::Lease(command.clone())));
        assert_eq!(
            outcome(&reply),
            expected,
            "entry {} at {now}: {command:?}",
            self.index
        );
        self.sent.push(command);
        self.check();
    }

    fn tick(&mut self) {
        self.index += 1;
        self.model.pass_to(self.clock);
        self.apply(&Command::from(cluster::Tick {}));
        self.check();
    }

    fn apply(&mut self, command: &Command) -> quorate_statemachine::Reply {
        let proposed_at = Timestamp(self.clock);
        let entry = Entry {
            index: self.index,
            proposed_at,
            command: &command.encode(),
            principal: quorate_statemachine::Principal::Cluster,
        };
        let applied = apply(&self.view, entry).expect("the state stays sound");
        self.view.commit(applied.changes);
        for notice in &applied.notices {
            self.noticed(notice);
        }
        applied.reply
    }

    /// Each end is told once, not before its time, and for the model's reason.
    fn noticed(&mut self, notice: &Notice) {
        let Notice::LeaseEnded {
            fencing_token,
            reason,
            ..
        } = notice
        else {
            return;
        };
        assert!(
            self.ended.insert(*fencing_token),
            "grant {fencing_token} ended twice"
        );
        let grant = self
            .model
            .grants
            .iter()
            .find(|grant| grant.fencing == *fencing_token);
        let grant = grant.expect("what ends was granted");
        let why = grant.over.map_or(Why::Expired, |(_, why)| why);
        assert_eq!(why_of(reason), why, "{grant:?}");
        if why == Why::Expired {
            assert!(grant.expires <= self.model.now, "{grant:?} ended early");
        }
    }

    fn check(&self) {
        self.check_rows();
        self.check_live();
        self.check_histories();
        let tokens: Vec<u64> = self
            .model
            .grants
            .iter()
            .map(|grant| grant.fencing)
            .collect();
        assert!(
            tokens.is_sorted_by(|one, next| one < next),
            "tokens grow: {tokens:?}"
        );
    }

    /// Each lease row has one due entry, at `filed_at`, which is not later than its end.
    fn check_rows(&self) {
        let mut due = BTreeMap::new();
        read_range::<Due>(
            &self.view,
            &Key::first(),
            &Key::first().end(),
            &mut |key, ()| {
                let (at, kind, subject) = parse_due_key(key).expect("a due key");
                if kind == DueKind::Lease {
                    let twice = due.insert(subject.to_vec(), at);
                    assert_eq!(twice, None, "two due entries of {}", subject.escape_ascii());
                }
                std::ops::ControlFlow::Continue(())
            },
        )
        .expect("the due index is sound");
        let mut rows = 0;
        read_range::<Leases>(
            &self.view,
            &Key::first(),
            &Key::first().end(),
            &mut |_, lease| {
                let filed = due.remove(lease.key.as_str().as_bytes());
                assert_eq!(filed, Some(lease.filed_at), "{lease:?}");
                assert!(lease.filed_at <= lease.expires_at, "{lease:?}");
                rows += 1;
                std::ops::ControlFlow::Continue(())
            },
        )
        .expect("the leases are sound");
        assert!(due.is_empty(), "due entries without a lease: {due:?}");
        assert_eq!(self.meta().leases, rows, "leases are counted");
    }

    fn meta(&self) -> MetaRow {
        read(&self.view, &meta_key())
            .expect("a sound row")
            .expect("there is a meta row")
    }

    /// The listing shows the model's live grants and no others.
    fn check_live(&self) {
        let asked = Query::Lease(lease::Query::List(lease::List {
            prefix: String::new(),
            after: None,
            limit: 0,
        }));
        let now = Timestamp(self.model.now);
        let answer = query(&self.view, now, &asked).expect("the state is sound");
        let Answer::Lease(lease::Answer::List(page)) = answer else {
            panic!("{answer:?} is no listing")
        };
        let shown = page.rows.iter().map(|lease| {
            (
                lease.key.as_str(),
                lease.fencing_token,
                lease.expires_at.0,
                lease.lease_token.as_str(),
            )
        });
        let keys: BTreeSet<&str> = self.model.grants.iter().map(|grant| &*grant.key).collect();
        let live = keys
            .into_iter()
            .filter_map(|key| self.model.live(key))
            .map(|at| {
                let grant = &self.model.grants[at];
                (&*grant.key, grant.fencing, grant.expires, &*grant.token)
            });
        assert_eq!(shown.collect::<Vec<_>>(), live.collect::<Vec<_>>());
    }

    /// The history of a key is the model's, less the one grant that the sweep may not have reached.
    fn check_histories(&self) {
        for key in ["k0", "k1", "k2", "burst0", "burst44"] {
            let of = lease::HistoryOf {
                key: Name::parse("key", key).expect("a name"),
            };
            let asked = Query::Lease(lease::Query::History(of));
            let answer = query(&self.view, Timestamp(self.model.now), &asked).expect("sound");
            let Answer::Lease(lease::Answer::History { history, .. }) = answer else {
                panic!("{answer:?} is no history")
            };
            assert!(history.ended.len() <= LEASE_HISTORY_MAX);
            let kept = history.ended.iter();
            let kept: Vec<_> = kept
                .map(|e| (e.fencing_token, e.ended_at.0, why_of(&e.reason)))
                .collect();
            let ended = self.model.grants.iter().filter(|grant| grant.key == key);
            let ended = ended.filter_map(|grant| {
                let (at, why) = grant.over?;
                self.ended
                    .contains(&grant.fencing)
                    .then_some((grant.fencing, at, why))
            });
            let ended: Vec<_> = ended.collect();
            let from = ended.len().saturating_sub(LEASE_HISTORY_MAX);
            assert_eq!(kept, ended[from..], "history of {key}");
        }
    }
}

fn claim(key: Name, by: u8, number: u8, ttl_ms: u64, same_owner: SameOwner) -> lease::Claim {
    let (owner, lease_token) = (owner(by), token(number));
    lease::Claim {
        key,
        owner,
        lease_token,
        ttl_ms,
        same_owner,
        metadata: Vec::new(),
    }
}

fn key_of(grant: &Grant) -> Name {
    Name::parse("key", grant.key.as_str()).expect("a name")
}

fn why_of(reason: &EndReason) -> Why {
    match reason {
        EndReason::Expired => Why::Expired,
        EndReason::Released => Why::Released,
        EndReason::Superseded => Why::Superseded,
        EndReason::Reclaimed { .. } => Why::Reclaimed,
        EndReason::Revoked { .. } => Why::Revoked,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_answer_is_the_models(ops in prop::collection::vec(op(), 1..120)) {
        let mut pair = Pair::default();
        for op in ops {
            pair.run(op);
        }
    }
}
