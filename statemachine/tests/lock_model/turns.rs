//! Random turns: what to do next, said relative to what there is, so that most of it has an effect.

use proptest::prelude::*;
use quorate_statemachine::cluster::Tick;
use quorate_statemachine::lease::{Claim, SameOwner};
use quorate_statemachine::lock::{
    Acquire, CancelWait, Member, Mode, Proclaim, Release, Renew, RenewMany, Revoke,
};
use quorate_statemachine::{Action, Command, LeaseToken, Name, Owner, Precondition, RequestId};

use crate::model::{Id, Model, ticket_of, token_of};

/// Time passes, then something is done.
#[derive(Debug, Clone)]
pub struct Turn {
    pub passes: Passes,
    /// A hold that must be live for anything to be done.
    pub guard: Option<Pick>,
    pub act: Act,
}

/// What the leader's clock does.
#[derive(Debug, Clone, Copy)]
pub enum Passes {
    On(u64),
    Back(u64),
    /// To just before, or to, the instant at which something happens next.
    ToNext {
        before: bool,
    },
}

#[derive(Debug, Clone)]
pub enum Act {
    Tick,
    /// Acquires anew.
    Ask(Ask),
    /// Mints an acquisition that is sent later, if ever.
    Mint(Ask),
    /// Sends an acquisition again, or at last.
    Send(Pick),
    /// Uses a new id for another request.
    UseId(Ask),
    Renew(Pick, Option<u64>),
    RenewMany(Vec<Pick>),
    Release(Pick),
    /// In one composite, with the right names.
    ReleaseMany(Vec<Pick>),
    CancelWait(Pick),
    Revoke {
        of: Pick,
        only: bool,
    },
    Proclaim(Pick),
    /// Many leases that end at once and keep the sweep busy.
    Crowd {
        count: usize,
        ttl_ms: u64,
    },
}

/// An acquisition.
#[derive(Debug, Clone)]
pub struct Ask {
    key: u8,
    owner: u8,
    mode: u8,
    ttl_ms: u64,
    wait_ttl_ms: u64,
    max_wait_ms: Option<u64>,
    reentrant: bool,
    delay_ms: u64,
}

/// One of the acquisitions ever minted: of these, if there are any.
#[derive(Debug, Clone)]
pub struct Pick {
    whom: Whom,
    nth: usize,
    /// With the wrong lock's name, or the wrong token.
    wrong: bool,
}

#[derive(Debug, Clone, Copy)]
enum Whom {
    Holder,
    Waiter,
    Recent,
    Any,
}

const KEYS: u8 = 4;
const OWNERS: u8 = 5;

pub fn keys() -> Vec<Name> {
    (0..KEYS).map(key_name).collect()
}

fn key_name(number: u8) -> Name {
    Name::parse("key", format!("lock-{number}")).expect("a valid name")
}

/// Owners 0 and 1 are two flows of one process.
fn owner(number: u8) -> Owner {
    let name = |text: String| Name::parse("owner", text).expect("a valid name");
    Owner::new(
        name(format!("w{}", number / 2)),
        name(format!("flow-{number}")),
    )
}

pub fn turns() -> impl Strategy<Value = Vec<Turn>> {
    prop::collection::vec(turn(act().boxed()), 1..80)
}

/// With crowds, so that the sweep is behind for some entries.
pub fn crowded_turns() -> impl Strategy<Value = Vec<Turn>> {
    let crowd = (30..60usize, 1..300u64);
    let crowd = crowd.prop_map(|(count, ttl_ms)| Act::Crowd { count, ttl_ms });
    let act = prop_oneof![8 => act(), 1 => crowd].boxed();
    prop::collection::vec(turn(act), 1..80)
}

/// Those who ask are patient and live long, so that they wait for each other.
pub fn tangled_turns() -> impl Strategy<Value = Vec<Turn>> {
    let asks = (0..KEYS - 1, 0..OWNERS - 1, 1..14u8, 0..16u8);
    let patient = asks.prop_map(|(key, owner, mode, rare)| Ask {
        key,
        owner,
        mode,
        ttl_ms: match rare {
            0 => 20,
            1 => 40,
            _ => 60_000,
        },
        wait_ttl_ms: if rare == 2 { 50 } else { 60_000 },
        max_wait_ms: None,
        reentrant: rare == 3,
        delay_ms: if rare == 1 { 100 } else { 0 },
    });
    let act = prop_oneof![
        20 => patient.prop_map(Act::Ask),
        8 => pick_of(Whom::Holder).prop_map(Act::Release),
        1 => pick_of(Whom::Waiter).prop_map(Act::CancelWait),
        1 => pick().prop_map(|of| Act::Revoke { of, only: false }),
        2 => Just(Act::Tick),
    ];
    let passes = prop_oneof![8 => Just(Passes::On(1)), 1 => Just(Passes::On(60))];
    let turn = (passes, act).prop_map(|(passes, act)| Turn {
        passes,
        guard: None,
        act,
    });
    prop::collection::vec(turn, 1..60)
}

fn pick_of(whom: Whom) -> impl Strategy<Value = Pick> {
    (0..1_000usize).prop_map(move |nth| Pick {
        whom,
        nth,
        wrong: false,
    })
}

fn turn(act: BoxedStrategy<Act>) -> impl Strategy<Value = Turn> {
    let passes = prop_oneof![
        30 => (0..3u64).prop_map(Passes::On),
        8 => (3..200u64).prop_map(Passes::On),
        2 => (1_000..10_000u64).prop_map(Passes::On),
        1 => (500_000..1_300_000u64).prop_map(Passes::On),
        2 => (1..5_000u64).prop_map(Passes::Back),
        6 => any::<bool>().prop_map(|before| Passes::ToNext { before }),
    ];
    let guard = prop_oneof![9 => Just(None), 1 => pick().prop_map(Some)];
    (passes, guard, act).prop_map(|(passes, guard, act)| Turn { passes, guard, act })
}

fn act() -> impl Strategy<Value = Act> {
    let ttl = prop::option::of(prop_oneof![1..50u64, 50..5_000u64]);
    let few = || prop::collection::vec(pick(), 1..5);
    prop_oneof![
        2 => Just(Act::Tick),
        16 => ask().prop_map(Act::Ask),
        1 => ask().prop_map(Act::Mint),
        4 => pick().prop_map(Act::Send),
        1 => ask().prop_map(Act::UseId),
        3 => (pick(), ttl).prop_map(|(of, ttl)| Act::Renew(of, ttl)),
        1 => few().prop_map(Act::RenewMany),
        6 => pick().prop_map(Act::Release),
        1 => few().prop_map(|all| Act::ReleaseMany(all.into_iter().map(Pick::right).collect())),
        2 => pick().prop_map(Act::CancelWait),
        1 => (pick(), any::<bool>()).prop_map(|(of, only)| Act::Revoke { of, only }),
        1 => pick().prop_map(Act::Proclaim),
    ]
}

fn ask() -> impl Strategy<Value = Ask> {
    let ttl = || prop_oneof![2 => 1..50u64, 4 => 50..5_000u64, 3 => Just(60_000)];
    let wait = prop_oneof![
        6 => Just(None),
        2 => Just(Some(0)),
        1 => (1..50u64).prop_map(Some),
        2 => (50..5_000u64).prop_map(Some),
    ];
    let delay = prop_oneof![4 => Just(0), 1 => 1..50u64, 1 => 50..5_000u64];
    let (key, owner, mode) = (0..KEYS, 0..OWNERS, 0..20u8);
    (key, owner, mode, ttl(), ttl(), wait, any::<bool>(), delay).prop_map(
        |(key, owner, mode, ttl_ms, wait_ttl_ms, max_wait_ms, reentrant, delay_ms)| Ask {
            key,
            owner,
            mode,
            ttl_ms,
            wait_ttl_ms,
            max_wait_ms,
            reentrant,
            delay_ms,
        },
    )
}

fn pick() -> impl Strategy<Value = Pick> {
    let whom = prop_oneof![
        4 => Just(Whom::Holder),
        3 => Just(Whom::Waiter),
        2 => Just(Whom::Recent),
        1 => Just(Whom::Any),
    ];
    let wrong = prop_oneof![14 => Just(false), 1 => Just(true)];
    (whom, 0..1_000usize, wrong).prop_map(|(whom, nth, wrong)| Pick { whom, nth, wrong })
}

impl Pick {
    fn right(self) -> Self {
        Self {
            wrong: false,
            ..self
        }
    }
}

impl Ask {
    /// One lock is mostly a semaphore, the others are mostly not.
    fn mode(&self) -> Mode {
        match (self.key, self.mode) {
            (_, 0) => Mode::Permit { of: 3 },
            (0, 1..18) => Mode::Permit { of: 2 },
            (_, 1..12) => Mode::Exclusive,
            _ => Mode::Shared,
        }
    }
}

/// The acquisitions that a test has minted.
#[derive(Debug, Default)]
pub struct Minted(pub Vec<Acquire>);

impl Minted {
    fn mint(&mut self, model: &Model, ask: &Ask) -> Acquire {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&(self.0.len() as u64 + 1).to_be_bytes());
        let acquire = Acquire {
            key: key_name(ask.key),
            id: RequestId {
                id,
                not_before: model.index,
            },
            owner: owner(ask.owner),
            mode: ask.mode(),
            ttl_ms: ask.ttl_ms,
            wait_ttl_ms: ask.wait_ttl_ms,
            max_wait_ms: ask.max_wait_ms,
            reentrant: ask.reentrant,
            delay_ms: ask.delay_ms,
            metadata: vec![ask.mode; usize::from(ask.mode % 3)],
        };
        self.0.push(acquire.clone());
        acquire
    }

    /// What a pick stands for in this state; before anything was minted, something that never was.
    fn picked(&self, model: &Model, pick: &Pick) -> Acquire {
        let place = |acquire: &Acquire| {
            let at = model.find(&acquire.key, acquire.id.id)?;
            Some(&model.parties[at].member)
        };
        let is = |of: fn(&Member) -> Option<u64>| {
            move |acquire: &&Acquire| place(acquire).and_then(of).is_some()
        };
        let all = self.0.iter();
        let these: Vec<&Acquire> = match pick.whom {
            Whom::Holder => all.filter(is(token_of)).collect(),
            Whom::Waiter => all.filter(is(ticket_of)).collect(),
            Whom::Recent => all.rev().take(5).collect(),
            Whom::Any => all.collect(),
        };
        let picked = match (these.as_slice(), self.0.as_slice()) {
            ([], []) => return unknown(),
            ([], all) => &all[pick.nth % all.len()],
            (these, _) => these[pick.nth % these.len()],
        };
        let mut picked = picked.clone();
        if pick.wrong {
            picked.key = key_name((pick.nth % usize::from(KEYS)) as u8);
        }
        picked
    }

    /// A lock, and the token of a hold of it: of this one, of its latest grant, or of none.
    fn token(&self, model: &Model, pick: &Pick) -> (Name, u64) {
        let picked = self.picked(model, pick);
        let held = model.find(&picked.key, picked.id.id);
        let held = held.and_then(|at| token_of(&model.parties[at].member));
        let granted = model.tokens.iter().filter(|(key, _)| *key == picked.key);
        let last = granted.map(|(_, token)| *token).next_back();
        let token = held.or(last).unwrap_or(1) + u64::from(pick.wrong);
        (picked.key, token)
    }

    pub fn ids(&self) -> impl Iterator<Item = (Name, Id)> + '_ {
        self.0
            .iter()
            .map(|acquire| (acquire.key.clone(), acquire.id.id))
    }
}

fn unknown() -> Acquire {
    Acquire {
        key: key_name(0),
        id: RequestId {
            id: [255; 16],
            not_before: 0,
        },
        owner: owner(0),
        mode: Mode::Shared,
        ttl_ms: 1_000,
        wait_ttl_ms: 1_000,
        max_wait_ms: None,
        reentrant: false,
        delay_ms: 0,
        metadata: Vec::new(),
    }
}

impl Turn {
    /// The command that the turn stands for in this state.
    pub fn resolve(&self, model: &Model, minted: &mut Minted) -> Command {
        let mut command = self.act.resolve(model, minted);
        if let Some(guard) = &self.guard {
            let (key, token) = minted.token(model, guard);
            command = command.require(Precondition::Lock { key, token });
        }
        command
    }
}

impl Act {
    fn resolve(&self, model: &Model, minted: &mut Minted) -> Command {
        match self {
            Self::Tick => Tick {}.into(),
            Self::Ask(ask) => minted.mint(model, ask).into(),
            Self::Mint(ask) => {
                minted.mint(model, ask);
                Tick {}.into()
            }
            Self::UseId(ask) => {
                let id = minted.mint(model, ask).id;
                Command::from(Tick {}).with_request(id)
            }
            Self::Send(of) => minted.picked(model, of).into(),
            Self::Crowd { count, ttl_ms } => crowd(model, *count, *ttl_ms).into(),
            _ => self.of_known(model, minted).into(),
        }
    }

    fn of_known(&self, model: &Model, minted: &Minted) -> Action {
        let picked = |of: &Pick| minted.picked(model, of);
        match self {
            Self::Renew(of, ttl_ms) => renew(&picked(of), *ttl_ms).into(),
            Self::RenewMany(all) => {
                let renewals = all.iter().map(|of| renew(&picked(of), None)).collect();
                RenewMany { renewals }.into()
            }
            Self::Release(of) => release(&picked(of)).into(),
            Self::ReleaseMany(all) => {
                Action::Composite(all.iter().map(|of| release(&picked(of)).into()).collect())
            }
            Self::CancelWait(of) => {
                let Release { key, id } = release(&picked(of));
                CancelWait { key, id }.into()
            }
            Self::Revoke { of, only } => {
                let (key, token) = minted.token(model, of);
                Revoke {
                    key,
                    only: only.then_some(token),
                    by: "operator".to_owned(),
                }
                .into()
            }
            Self::Proclaim(of) => {
                let (key, fencing_token) = minted.token(model, of);
                Proclaim {
                    key,
                    fencing_token,
                    metadata: vec![7; of.nth % 4],
                }
                .into()
            }
            other => unreachable!("{other:?} is resolved above"),
        }
    }
}

fn renew(of: &Acquire, ttl_ms: Option<u64>) -> Renew {
    Renew {
        key: of.key.clone(),
        id: of.id.id,
        ttl_ms,
    }
}

fn release(of: &Acquire) -> Release {
    Release {
        key: of.key.clone(),
        id: of.id.id,
    }
}

/// Leases, all for one term.
fn crowd(model: &Model, count: usize, ttl_ms: u64) -> Action {
    let claim = |number| Claim {
        key: Name::parse("key", format!("crowd-{number}")).expect("a valid name"),
        owner: owner(0),
        lease_token: LeaseToken::parse(format!("t{}", model.index)).expect("a valid token"),
        ttl_ms,
        same_owner: SameOwner::Fresh,
        metadata: Vec::new(),
    };
    Action::Composite((0..count).map(|number| claim(number).into()).collect())
}
