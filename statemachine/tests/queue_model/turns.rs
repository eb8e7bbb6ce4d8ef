//! Random turns: what to do next, said relative to what there is, so that most of it has an effect.

use proptest::prelude::*;
use quorate_statemachine::queue::{
    Cancel, Claim, Command, ItemId, ItemState, Outcome, Push, Renew, Requeue, Settle,
};
use quorate_statemachine::{Name, Owner};

use crate::model::Model;

/// Time passes, then something is done.
#[derive(Debug, Clone)]
pub struct Turn {
    pub wait_ms: u64,
    /// A claim that must be live for anything to be done.
    pub guard: Option<(Pick, Token)>,
    pub act: Act,
}

#[derive(Debug, Clone)]
pub enum Act {
    Tick,
    One(Step),
    Composite(Vec<Step>),
}

#[derive(Debug, Clone)]
pub enum Step {
    Push {
        queue: u8,
        key: Option<u8>,
        delay_ms: u64,
        priority: u8,
        max_attempts: u32,
    },
    Claim {
        queue: u8,
        owner: u8,
        ttl_ms: u64,
        max: u32,
    },
    Renew {
        item: Pick,
        token: Token,
        ttl_ms: u64,
    },
    Settle {
        item: Pick,
        token: Token,
        outcome: Outcome,
    },
    Cancel {
        item: Pick,
    },
    Requeue {
        item: Pick,
    },
}

/// One of the items ever pushed: in this state, if there is one.
#[derive(Debug, Clone)]
pub struct Pick {
    pub state: Option<ItemState>,
    pub nth: usize,
}

/// The token of the item's claim, or one that it had before, or one never granted.
#[derive(Debug, Clone, Copy)]
pub enum Token {
    Present,
    Former,
    Invented,
}

/// Queues pushed to are 0 and 1; 2 is never pushed to.
pub fn queue_name(queue: u8) -> Name {
    Name::parse("queue", format!("queue-{queue}")).expect("a valid name")
}

fn name(kind: &str, number: u8) -> Name {
    Name::parse(kind, format!("{kind}-{number}")).expect("a valid name")
}

pub fn turns() -> impl Strategy<Value = Vec<Turn>> {
    prop::collection::vec(turn(), 1..70)
}

fn turn() -> impl Strategy<Value = Turn> {
    let wait_ms = prop_oneof![
        30 => 0u64..3,
        10 => 3u64..200,
        2 => 1_000u64..10_000,
        2 => 1_800_000u64..4_000_000,
    ];
    let guard = prop_oneof![9 => Just(None), 1 => (claimed(), token()).prop_map(Some)];
    let act = prop_oneof![
        1 => Just(Act::Tick),
        16 => step().prop_map(Act::One),
        3 => prop::collection::vec(step(), 1..5).prop_map(Act::Composite),
    ];
    (wait_ms, guard, act).prop_map(|(wait_ms, guard, act)| Turn {
        wait_ms,
        guard,
        act,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let delay = || prop_oneof![3 => Just(0u64), 1 => 1u64..300];
    let ttl = || prop_oneof![1 => Just(0u64), 4 => 1u64..50, 4 => 50u64..5_000];
    let push = (0u8..2, prop::option::of(0u8..6), delay(), 0u8..3, 0u32..3).prop_map(
        |(queue, key, delay_ms, priority, max_attempts)| Step::Push {
            queue,
            key,
            delay_ms,
            priority,
            max_attempts,
        },
    );
    let claim =
        (0u8..3, 0u8..3, ttl(), 1u32..4).prop_map(|(queue, owner, ttl_ms, max)| Step::Claim {
            queue,
            owner,
            ttl_ms,
            max,
        });
    let renew = (claimed(), token(), ttl()).prop_map(|(item, token, ttl_ms)| Step::Renew {
        item,
        token,
        ttl_ms,
    });
    let outcome = prop_oneof![
        Just(Outcome::Done),
        delay().prop_map(|delay_ms| Outcome::Retry {
            delay_ms,
            note: "again".to_owned()
        }),
        Just(Outcome::Dead {
            note: "hopeless".to_owned()
        }),
    ];
    let settle = (claimed(), token(), outcome).prop_map(|(item, token, outcome)| Step::Settle {
        item,
        token,
        outcome,
    });
    prop_oneof![
        6 => push,
        6 => claim,
        3 => renew,
        6 => settle,
        1 => any_item().prop_map(|item| Step::Cancel { item }),
        2 => dead().prop_map(|item| Step::Requeue { item }),
    ]
}

fn pick(state: Option<ItemState>) -> impl Strategy<Value = Pick> {
    (0usize..1_000).prop_map(move |nth| Pick { state, nth })
}

fn any_item() -> impl Strategy<Value = Pick> {
    pick(None)
}

fn claimed() -> impl Strategy<Value = Pick> {
    prop_oneof![5 => pick(Some(ItemState::Claimed)), 1 => pick(None)]
}

fn dead() -> impl Strategy<Value = Pick> {
    prop_oneof![4 => pick(Some(ItemState::Dead)), 1 => pick(None)]
}

fn token() -> impl Strategy<Value = Token> {
    prop_oneof![6 => Just(Token::Present), 1 => Just(Token::Former), 1 => Just(Token::Invented)]
}

impl Pick {
    /// Before the first push: an item that never was.
    pub fn resolve(&self, model: &Model) -> (Name, ItemId) {
        let in_state = |(queue, item_id): &&(Name, ItemId)| {
            self.state == model.item(queue, *item_id).map(|item| item.state)
        };
        let matching: Vec<_> = model.pushed.iter().filter(in_state).collect();
        let from = if matching.is_empty() {
            model.pushed.iter().collect()
        } else {
            matching
        };
        match from.len() {
            0 => (queue_name(0), ItemId(7)),
            count => from[self.nth % count].clone(),
        }
    }
}

impl Token {
    pub fn resolve(self, model: &Model, (queue, item_id): &(Name, ItemId)) -> u64 {
        let granted = |(of, token): &(ItemId, u64)| (of == item_id).then_some(*token);
        let present = model
            .item(queue, *item_id)
            .and_then(|item| item.claim.as_ref());
        match self {
            Self::Present => {
                let last = || model.granted.iter().rev().find_map(granted);
                present
                    .map(|claim| claim.fencing_token)
                    .or_else(last)
                    .unwrap_or(1)
            }
            Self::Former => model.granted.iter().find_map(granted).unwrap_or(2),
            Self::Invented => u64::MAX - 1,
        }
    }
}

impl Step {
    /// The command that the step stands for in this state.
    pub fn resolve(&self, model: &Model) -> Command {
        match self {
            Self::Push {
                queue,
                key,
                delay_ms,
                priority,
                max_attempts,
            } => Command::Push(Push {
                queue: queue_name(*queue),
                payload: vec![*priority; *delay_ms as usize % 5],
                dedupe_key: key.map(|key| name("key", key)),
                delay_ms: *delay_ms,
                priority: *priority,
                max_attempts: *max_attempts,
            }),
            Self::Claim {
                queue,
                owner,
                ttl_ms,
                max,
            } => Command::Claim(Claim {
                queue: queue_name(*queue),
                owner: Owner::new(name("owner", *owner), name("boot", *owner)),
                ttl_ms: *ttl_ms,
                max: *max,
            }),
            Self::Renew {
                item,
                token,
                ttl_ms,
            } => {
                let item = item.resolve(model);
                let fencing_token = token.resolve(model, &item);
                let (queue, item_id) = item;
                Command::Renew(Renew {
                    queue,
                    item_id,
                    fencing_token,
                    ttl_ms: *ttl_ms,
                })
            }
            Self::Settle {
                item,
                token,
                outcome,
            } => {
                let item = item.resolve(model);
                let fencing_token = token.resolve(model, &item);
                let ((queue, item_id), outcome) = (item, outcome.clone());
                Command::Settle(Settle {
                    queue,
                    item_id,
                    fencing_token,
                    outcome,
                })
            }
            Self::Cancel { item } => {
                let (queue, item_id) = item.resolve(model);
                Command::Cancel(Cancel { queue, item_id })
            }
            Self::Requeue { item } => {
                let (queue, item_id) = item.resolve(model);
                Command::Requeue(Requeue { queue, item_id })
            }
        }
    }
}
