//! Clients of a process: they append events, and one follows them.

use std::time::Duration;

use quorate_client::{Client, ClientError, ProcessClient};
use quorate_statemachine::Name;
use tokio::time::sleep;

use super::{TIMEOUT, endpoints, note, now};
use crate::history::{Appended, Shared, Stored};
use crate::planted::Planted;
use crate::random::Random;

const PROCESS: &str = "told";

/// A client that appends.
pub struct Teller {
    name: String,
    process: ProcessClient,
    history: Shared,
    random: Random,
}

impl Teller {
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
            process: client.process(PROCESS)?,
            history,
            random,
        })
    }

    /// Works until `until`. What may have been done is done again, under the same key.
    pub async fn run(mut self, until: Duration) -> turmoil::Result {
        while self.process.register("told").await.is_err() {
            sleep(Duration::from_millis(100)).await;
        }
        let kind = Name::parse("type", "said")?;
        let (mut number, mut sent) = (0, now());
        while now() < until {
            let payload = format!("{}/{number}", self.name);
            let key = Name::parse("key", payload.clone())?;
            let unkeyed = self.history.borrow().planted == Some(Planted::UnkeyedRetry);
            let key = (!unkeyed).then_some(&key);
            let done = self.process.append(&kind, key, payload.clone()).await;
            note(format_args!("{payload} appended: {}", done.is_ok()));
            if let Ok(done) = done {
                self.history.borrow_mut().appended.push(Appended {
                    payload,
                    sequence: done.sequence,
                    sent,
                    answered: now(),
                });
                number += 1;
                sleep(Duration::from_millis(self.random.below(250))).await;
                sent = now();
            }
        }
        Ok(())
    }
}

/// All that is stored.
pub async fn judge(client: &Client, history: &Shared) -> Result<(), ClientError> {
    let process = client.process(PROCESS)?;
    let mut after = 0;
    while let Some(page) = process.events(after, 0).await? {
        let Some(last) = page.rows.last() else { break };
        after = last.sequence;
        let stored = page.rows.iter().map(|event| Stored {
            sequence: event.sequence,
            payload: String::from_utf8_lossy(&event.payload).into_owned(),
        });
        history.borrow_mut().stored.extend(stored);
    }
    Ok(())
}
