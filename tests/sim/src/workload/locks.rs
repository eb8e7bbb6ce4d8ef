//! Clients of locks: they wait in line, give up, hold, and give back.

use std::time::Duration;

use quorate_client::{Client, ClientError};
use quorate_statemachine::Name;
use tokio::time::{Instant, sleep, timeout};

use super::{TIMEOUT, endpoints, note, now};
use crate::history::{Claimed, Outcome, Shared};
use crate::planted::Planted;
use crate::random::Random;

/// The lock that all want, and for which who gave up must be gone: nothing else ends a wait or a
/// hold within a run, so that what is left in the end is a leak.
const PATIENT: &str = "patient";

/// The lock whose holds run out.
const HASTY: &str = "hasty";

/// Longer than any run.
const FOREVER: Duration = Duration::from_secs(3_600);

/// A client of two locks.
pub struct Locker {
    name: String,
    client: Client,
    history: Shared,
    random: Random,
}

impl Locker {
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
            client,
            history,
            random,
        })
    }

    /// Works until `until`; lives until `end`, so that what it gave up can be given up.
    pub async fn run(mut self, until: Duration, end: Duration) -> turmoil::Result {
        while now() < until {
            match self.random.chance(1, 2) {
                true => self.patient().await,
                false => self.hasty().await,
            }
            sleep(Duration::from_millis(self.random.below(200))).await;
        }
        sleep(end.saturating_sub(now())).await;
        Ok(())
    }

    /// Waits in line for a while; then gives up, or holds and gives back.
    async fn patient(&mut self) {
        let patience = Duration::from_millis(20 + self.random.below(1_500));
        let lock = self.client.lock(PATIENT).owner(self.name.clone());
        let lock = lock.ttl(FOREVER);
        let mut acquire = Box::pin(async move { lock.acquire().await });
        let got = timeout(patience, &mut acquire).await;
        let Ok(got) = got else {
            note(format_args!("{} gives up to wait", self.name));
            if self.history.borrow().planted == Some(Planted::LostCancel) {
                std::mem::forget(acquire);
            }
            return;
        };
        if let Ok(guard) = got {
            note(format_args!("{} holds under {}", self.name, guard.token()));
            self.history.borrow_mut().handed_over += 1;
            sleep(Duration::from_millis(self.random.below(150))).await;
            drop(guard);
        }
    }

    /// Holds for a short time, and mostly gives back.
    async fn hasty(&mut self) {
        let ttl = Duration::from_millis(300 + self.random.below(1_200));
        let wait = Duration::from_millis(self.random.below(1_500));
        let lock = self.client.lock(HASTY).owner(self.name.clone());
        let before = now();
        let Ok((hold, since)) = lock.ttl(ttl).wait(wait).acquire_hold().await else {
            return;
        };
        note(format_args!(
            "{} holds under {}",
            self.name, hold.fencing_token
        ));
        let asked = Instant::now().saturating_duration_since(since);
        let at = self.history.borrow_mut().claimed(Claimed {
            client: self.name.clone(),
            key: "lock/hasty".to_owned(),
            ttl,
            asked: before,
            sent: now().saturating_sub(asked),
            answered: now(),
            outcome: Outcome::Granted(hold.fencing_token),
            released: None,
        });
        sleep(ttl.mul_f64(self.random.below(100) as f64 / 100.0)).await;
        if self.random.chance(3, 4) {
            self.history.borrow_mut().claims[at].released = Some(now());
            let released = self.client.lock_release(&hold.key, hold.id).await;
            note(format_args!(
                "{} gave back: {}",
                self.name,
                released.is_ok()
            ));
        }
    }
}

/// Who has given up, or given back, is gone.
pub async fn judge(client: &Client, history: &Shared) -> Result<(), ClientError> {
    let view = client.lock_get(&Name::parse("key", PATIENT)?).await?;
    if let Some(view) = view {
        let what = format!("a waiter or a hold was leaked: {view:?}");
        history.borrow_mut().violated(what);
    }
    Ok(())
}
