//! Clients of a queue: they push, claim and settle.

use std::time::Duration;

use quorate_client::{Client, ClientError, QueueClient};
use quorate_statemachine::queue::{Item, ItemId, Outcome};
use tokio::time::sleep;

use super::{TIMEOUT, endpoints, note, now};
use crate::history::{ItemClaimed, Pushed, Shared};
use crate::planted::Planted;
use crate::random::Random;

const QUEUE: &str = "jobs";

/// A client that pushes and works.
pub struct Worker {
    name: String,
    queue: QueueClient,
    history: Shared,
    random: Random,
    pushes: u64,
}

impl Worker {
    /// A client of `nodes` nodes.
    pub fn new(
        name: String,
        nodes: usize,
        history: Shared,
        random: Random,
    ) -> Result<Self, ClientError> {
        let client = Client::connect(endpoints(nodes))?.with_timeout(TIMEOUT);
        Ok(Self {
            name,
            queue: client.queue(QUEUE)?,
            history,
            random,
            pushes: 0,
        })
    }

    /// Works until `until`.
    pub async fn run(mut self, until: Duration) -> turmoil::Result {
        while now() < until {
            match self.random.chance(1, 2) {
                true => self.push().await,
                false => self.work().await,
            }
            sleep(Duration::from_millis(self.random.below(150))).await;
        }
        Ok(())
    }

    async fn push(&mut self) {
        self.pushes += 1;
        let payload = format!("{}/{}", self.name, self.pushes);
        let pushed = self.queue.push(payload.clone());
        let pushed = pushed.dedupe_key(payload.clone()).send().await;
        note(format_args!("{payload} pushed: {}", pushed.is_ok()));
        let believes = self.history.borrow().planted == Some(Planted::AckUnknown);
        let item = match pushed {
            Ok(pushed) => pushed.item_id,
            Err(error) if believes && error.may_have_happened() => ItemId(u64::MAX),
            Err(_) => return,
        };
        let mut history = self.history.borrow_mut();
        history.pushed.push(Pushed { item, payload });
    }

    async fn work(&mut self) {
        let visible = Duration::from_millis(300 + self.random.below(1_500));
        let queue = self.queue.clone().with_visibility(visible);
        let sent = now();
        let Ok(items) = queue.claim(2).await else {
            return;
        };
        let answered = now();
        for claimed in items {
            let until = sent + visible.mul_f64(1.0 / 1.05);
            self.one(&queue, &claimed.item, sent, answered, until).await;
        }
    }

    async fn one(
        &mut self,
        queue: &QueueClient,
        item: &Item,
        sent: Duration,
        answered: Duration,
        until: Duration,
    ) {
        let Some(claim) = &item.claim else { return };
        let (item, token) = (item.item_id, claim.fencing_token);
        let at = {
            let mut history = self.history.borrow_mut();
            history.items.push(ItemClaimed {
                item,
                token,
                sent,
                answered,
                entitled_until: until,
                settling: None,
                settled: None,
            });
            history.items.len() - 1
        };
        sleep(Duration::from_millis(self.random.below(700))).await;
        if self.random.chance(1, 5) {
            return;
        }
        self.history.borrow_mut().items[at].settling = Some(now());
        let settled = queue.settle(item, token, Outcome::Done).await;
        note(format_args!(
            "item {item} under {token} settled: {}",
            settled.is_ok()
        ));
        let mut history = self.history.borrow_mut();
        let believes = history.planted == Some(Planted::SettleBelieved);
        if settled.is_ok() || believes {
            history.items[at].settled = Some(now());
        }
    }
}

/// What was pushed is there unless somebody may have settled it; what was settled is gone.
pub async fn judge(client: &Client, history: &Shared) -> Result<(), ClientError> {
    let queue = client.queue(QUEUE)?;
    let (pushed, items) = {
        let history = history.borrow();
        (history.pushed.clone(), history.items.clone())
    };
    for Pushed { item, payload } in pushed {
        let there = queue.get(item).await?;
        let mut of_item = items.iter().filter(|claim| claim.item == item);
        let ended = of_item.clone().any(|claim| claim.settled.is_some());
        let may_be_over = of_item.any(|claim| claim.settling.is_some());
        if there.is_none() && !may_be_over {
            let what = format!("item {item} ({payload}) is lost");
            history.borrow_mut().violated(what);
        }
        if there.is_some() && ended {
            let what = format!("item {item} ({payload}) was settled, and is there");
            history.borrow_mut().violated(what);
        }
    }
    Ok(())
}
