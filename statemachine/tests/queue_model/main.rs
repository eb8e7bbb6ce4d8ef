//! Random turns on the real queues and on a naive model of them: every reply, counter and listing
//! must agree, and the rows must be whole after every entry.

mod invariants;
mod model;
mod situations;
mod turns;

use std::collections::BTreeSet;

use proptest::prelude::*;
use quorate_statemachine::cluster::Tick;
use quorate_statemachine::expiry::next_due;
use quorate_statemachine::limits::SWEEP_MAX;
use quorate_statemachine::notice::Notice;
use quorate_statemachine::queue::{self, Item, ItemClaim, ItemId, ItemState, List, ListItems};
use quorate_statemachine::tables::{Due, Table, parse_due_key, tag_of};
use quorate_statemachine::view::MemoryView;
use quorate_statemachine::{
    Action, Answer, Applied, Command, Entry, Name, Precondition, Query, Refusal, Reply, Response,
    Timestamp, apply, query,
};

use invariants::Rows;
use model::Model;
use turns::{Act, Turn};

/// The real state and the model of it, side by side.
#[derive(Default)]
struct Pair {
    view: MemoryView,
    model: Model,
}

impl Pair {
    fn apply(&mut self, command: &Command) -> Applied {
        let entry = Entry {
            index: self.model.index,
            proposed_at: self.model.now,
            command: &command.encode(),
            principal: quorate_statemachine::Principal::Cluster,
        };
        let applied = apply(&self.view, entry).expect("no invariant breaks");
        self.view.commit(applied.changes.clone());
        applied
    }

    fn next_entry(&mut self, wait_ms: u64) {
        self.model.index += 1;
        let now = self.model.now.plus(wait_ms);
        self.model.pass_time(now);
    }

    /// Each entry ends a bounded number of due rows. The model ends all at once, so what is more
    /// than one command ends is ended by a tick before it.
    fn take(&mut self, turn: &Turn) {
        self.next_entry(turn.wait_ms);
        if self.due_rows() > SWEEP_MAX {
            self.apply(&Command::from(Tick {}));
            self.next_entry(0);
        }
        let before = Rows::read(&self.view);
        let (command, expected) = self.expect(turn);
        let applied = self.apply(&command);
        let reply = normal_reply(applied.reply.clone());
        assert_eq!(reply, expected, "command {command:?}");
        let after = invariants::check(&self.view);
        check_notices(&before, &after, &applied.notices);
        self.check_listings();
    }

    fn due_rows(&self) -> usize {
        let due = self
            .view
            .rows()
            .filter(|(key, _)| tag_of(key) == Some(Due::TAG));
        let at = due.filter_map(|(key, _)| parse_due_key(key).map(|(at, _, _)| at));
        at.filter(|at| *at <= self.model.now).count()
    }

    /// The command that the turn stands for, and what it must answer. The model has done it then.
    fn expect(&mut self, turn: &Turn) -> (Command, Reply) {
        let guard = turn.guard.as_ref().map(|(pick, token)| {
            let item = pick.resolve(&self.model);
            let token = token.resolve(&self.model, &item);
            (item, token)
        });
        let before = self.model.clone();
        let (action, mut outcome) = self.act(&turn.act);
        let mut command = Command::from(action);
        if let Some(((queue, item_id), token)) = guard {
            let refused = before.clone().check_claim(&queue, item_id, token);
            outcome = refused.and(outcome);
            command = command.require(Precondition::Claim {
                queue,
                item_id,
                token,
            });
        }
        if outcome.is_err() {
            self.model = before;
        }
        (command, Reply(outcome))
    }

    fn act(&mut self, act: &Act) -> (Action, Result<Response, Refusal>) {
        match act {
            Act::Tick => {
                let done = Response::Cluster(quorate_statemachine::cluster::Response::Tick(()));
                (Tick {}.into(), Ok(done))
            }
            Act::One(step) => {
                let command = step.resolve(&self.model);
                let outcome = self.model.execute(0, &command).map(Response::Queue);
                (Action::Queue(command), outcome)
            }
            Act::Composite(steps) => {
                let mut actions = Vec::new();
                let mut outcomes = Ok(Vec::new());
                for (at, step) in (0u32..).zip(steps) {
                    let command = step.resolve(&self.model);
                    if let Ok(responses) = &mut outcomes {
                        match self.model.execute(at.into(), &command) {
                            Ok(response) => responses.push(Response::Queue(response)),
                            Err(refusal) => outcomes = Err(at_step(at, refusal)),
                        }
                    }
                    actions.push(Action::Queue(command));
                }
                (
                    Action::Composite(actions),
                    outcomes.map(Response::Composite),
                )
            }
        }
    }

    fn check_listings(&self) {
        let mut expected: Vec<_> = self.model.queues.iter().map(|q| q.counters()).collect();
        expected.sort_by(|a, b| a.name.cmp(&b.name));
        let list = queue::Query::List(List {
            prefix: String::new(),
            after: None,
            limit: 0,
        });
        let queue::Answer::List(listed) = self.ask(list) else {
            panic!("a listing of queues is answered by one");
        };
        assert_eq!((listed.rows, listed.next), (expected, None));
        for number in 0..3 {
            let queue = turns::queue_name(number);
            for state in [None, Some(ItemState::Ready), Some(ItemState::Dead)] {
                let listed = self.list_items(&queue, state, 1 + number as u32 * 2);
                assert_eq!(
                    listed,
                    self.expected_items(&queue, state),
                    "{queue} {state:?}"
                );
            }
        }
    }

    fn ask(&self, question: queue::Query) -> queue::Answer {
        let question = Query::Queue(question);
        let question = Query::decode(&question.encode()).expect("a valid query");
        match query(&self.view, self.model.now, &question) {
            Ok(Answer::Queue(answer)) => answer,
            other => panic!("{other:?}"),
        }
    }

    /// All pages of a listing.
    fn list_items(&self, queue: &Name, state: Option<ItemState>, limit: u32) -> Vec<Item> {
        let (mut items, mut seen) = (Vec::new(), BTreeSet::new());
        let mut after = None;
        loop {
            let list = ListItems {
                queue: queue.clone(),
                state,
                after,
                limit,
            };
            let queue::Answer::ListItems(page) = self.ask(queue::Query::ListItems(list)) else {
                panic!("a listing of items is answered by one");
            };
            let known = self.model.queue(queue).is_some();
            assert_eq!(page.is_some(), known, "whether there is a queue {queue}");
            let Some(page) = page else {
                return items;
            };
            assert!(page.rows.len() <= limit as usize);
            let progress = page
                .rows
                .iter()
                .all(|row| !seen.contains(&row.item.item_id));
            assert!(progress, "a page of {queue} shows an item again");
            seen.extend(page.rows.iter().map(|row| row.item.item_id));
            items.extend(page.rows.into_iter().map(|row| normal_item(row.item)));
            match page.next {
                Some(next) => after = Some(ItemId(next.parse().expect("an item id"))),
                None => return items,
            }
        }
    }

    fn expected_items(&self, queue: &Name, state: Option<ItemState>) -> Vec<Item> {
        let items = self
            .model
            .queue(queue)
            .map_or(&[][..], |queue| &queue.items);
        let items = items.iter().map(|held| held.item.clone());
        let mut items: Vec<_> = items
            .filter(|item| state.is_none_or(|state| item.state == state))
            .collect();
        if state == Some(ItemState::Ready) {
            items.sort_by_key(|item| (u8::MAX - item.priority, item.item_id));
        }
        items
    }
}

fn at_step(step: u32, refusal: Refusal) -> Refusal {
    Refusal::Step {
        step,
        refusal: Box::new(refusal),
    }
}

/// Whoever waits is told: a queue that had nothing ready and now has, and each item that ended.
fn check_notices(before: &Rows, after: &Rows, notices: &[Notice]) {
    let ready = |rows: &Rows, queue: &Name| rows.queues.get(queue).map_or(0, |row| row.ready);
    for queue in after.queues.keys() {
        let told = Notice::QueueReady {
            queue: queue.clone(),
        };
        if ready(before, queue) == 0 && ready(after, queue) > 0 {
            assert!(notices.contains(&told), "{queue} became ready");
        }
    }
    let ended = |rows: &Rows| -> BTreeSet<(Name, ItemId)> {
        let lives = |item: &Item| item.state != ItemState::Dead;
        let items = before
            .items
            .iter()
            .filter(|(_, item)| lives(item))
            .map(|(key, _)| key);
        items
            .filter(|key| !rows.items.get(*key).is_some_and(lives))
            .cloned()
            .collect()
    };
    for (queue, item_id) in ended(after) {
        let told = Notice::ItemSettled {
            queue: queue.clone(),
            item_id,
        };
        assert!(notices.contains(&told), "{queue}/{item_id} ended");
    }
}

/// Where a due entry is filed is the state machine's own affair, and so are words for people.
fn normal_reply(reply: Reply) -> Reply {
    Reply(match reply.0 {
        Ok(response) => Ok(normal_response(response)),
        Err(refusal) => Err(normal_refusal(refusal)),
    })
}

fn normal_refusal(refusal: Refusal) -> Refusal {
    match refusal {
        Refusal::Step { step, refusal } => at_step(step, normal_refusal(*refusal)),
        Refusal::Conflict { subject, name, .. } => Refusal::Conflict {
            subject,
            name,
            problem: String::new(),
        },
        other => other,
    }
}

fn normal_response(response: Response) -> Response {
    match response {
        Response::Composite(steps) => {
            Response::Composite(steps.into_iter().map(normal_response).collect())
        }
        Response::Queue(response) => Response::Queue(match response {
            queue::Response::Claim(mut items) => {
                items
                    .iter_mut()
                    .for_each(|held| held.item = normal_item(held.item.clone()));
                queue::Response::Claim(items)
            }
            queue::Response::Renew(claim) => queue::Response::Renew(normal_claim(claim)),
            other => other,
        }),
        other => other,
    }
}

fn normal_item(mut item: Item) -> Item {
    item.claim = item.claim.map(normal_claim);
    item
}

fn normal_claim(mut claim: ItemClaim) -> ItemClaim {
    claim.filed_at = claim.expires_at;
    claim
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_queues_do_what_the_naive_model_does(turns in turns::turns()) {
        let mut pair = Pair::default();
        pair.model.now = Timestamp(1_000_000);
        for turn in &turns {
            pair.take(turn);
        }
        pair.let_all_end();
    }
}

impl Pair {
    /// Ticks until nothing is due any more: what has neither items nor keys must be forgotten then.
    fn let_all_end(&mut self) {
        for _ in 0..20 {
            let Some(at) = next_due(&self.view).expect("the due index can be read") else {
                break;
            };
            let wait_ms = at.since(self.model.now) + 3_600_000;
            self.take(&Turn {
                wait_ms,
                guard: None,
                act: Act::Tick,
            });
        }
        let rows = Rows::read(&self.view);
        assert!(
            rows.queues.values().all(|queue| queue.items() > 0),
            "idle queues are forgotten"
        );
        assert!(
            rows.dedupe.values().all(|row| row.present),
            "old dedupe keys are forgotten"
        );
        let rests = |item: &Item| matches!(item.state, ItemState::Ready | ItemState::Dead);
        assert!(
            rows.items.values().all(rests),
            "every claim and delay is over"
        );
    }
}
