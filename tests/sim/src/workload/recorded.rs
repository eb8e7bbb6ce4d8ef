//! The clients of `make chaos`, whose whole histories are searched for an order that fits.

use std::cell::RefCell;
use std::fmt::Debug;
use std::rc::Rc;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use quorate_histories::check::{self, Verdicts};
use quorate_histories::clients::{self, KEYS, Noun, Pace, Shared};
use quorate_histories::record::{Log, Recorder};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{endpoints, note, now};
use crate::planted::Planted;
use crate::random::Random;

/// What is asked for in one seed, of each a key at a time.
fn nouns(random: &mut Random, planted: Option<Planted>) -> Vec<Noun> {
    match planted {
        Some(Planted::ReadsByClock) => vec![Noun::Lease; 6],
        _ => (0..2)
            .map(|_| KEYS[random.below(KEYS.len() as u64) as usize])
            .collect(),
    }
}

/// Fewer than of real processes, so that a history is checked in no time.
fn pace() -> Pace {
    Pace {
        seats: 3,
        key_time: Duration::from_secs(12),
        pause_ms: 20..300,
    }
}

/// The account of a run; none until the clients have begun.
#[derive(Clone, Default)]
pub struct Account(Rc<RefCell<Option<Arc<Shared>>>>);

impl Account {
    /// Asks until `until`, and then for what is left.
    pub async fn keep(
        self,
        nodes: usize,
        mut random: Random,
        until: Duration,
        planted: Option<Planted>,
    ) -> turmoil::Result {
        let recorder = Recorder::in_memory();
        let shared = Arc::new(Shared::new(endpoints(nodes), pace(), recorder));
        *self.0.borrow_mut() = Some(Arc::clone(&shared));
        let mut work = JoinSet::new();
        for (slot, noun) in nouns(&mut random, planted).into_iter().enumerate() {
            note(format_args!("{noun:?} is recorded"));
            work.spawn(clients::work(Arc::clone(&shared), noun, slot, random.any()));
        }
        sleep(until.saturating_sub(now())).await;
        shared.stop.cancel();
        while let Some(ended) = work.join_next().await {
            if let Err(error) = ended? {
                shared.is_odd(format!("{error:#}"));
            }
        }
        Ok(())
    }

    /// What was found.
    #[must_use]
    pub fn judge(&self) -> (Verdicts, Vec<String>) {
        let Some(shared) = self.0.borrow().clone() else {
            return (Verdicts::new(), Vec::new());
        };
        let verdicts = check::all(&shared.recorder);
        let odd = shared.odd.lock().unwrap_or_else(PoisonError::into_inner);
        let mut wrong = odd.clone();
        for (what, verdict) in &verdicts {
            for why in &verdict.wrong {
                show(&shared.recorder, why);
            }
            wrong.extend(verdict.wrong.iter().map(|why| format!("{what}: {why}")));
        }
        (verdicts, wrong)
    }
}

/// Puts the history of a key into the trace.
fn show(recorder: &Recorder, why: &str) {
    let key = why.split(": ").next().unwrap_or_default();
    lines(&recorder.leases, key);
    lines(&recorder.locks, key);
    lines(&recorder.queues, key);
    lines(&recorder.events, key);
    lines(&recorder.sessions, key);
}

fn lines<S: serde::Serialize + Clone + Debug>(log: &Log<S>, key: &str) {
    let mut records = log.all();
    records.sort_by_key(|record| record.call);
    for record in records.iter().filter(|record| record.key == key) {
        note(format_args!("{record:?}"));
    }
}
