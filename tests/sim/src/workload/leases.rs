//! Clients of leases: they claim, read, write to a resource under their token, and give back.

use std::time::Duration;

use quorate_client::{Client, ClientError, Consistency};
use quorate_statemachine::lease::{Claim, Claimed as Answer, Release, SameOwner};
use quorate_statemachine::{FencingToken, InvalidArgument, LeaseToken, Name, Owner};
use tokio::time::sleep;

use super::{TIMEOUT, endpoints, note, now};
use crate::history::{Claimed, Outcome, Read, Shared};
use crate::invariants::acknowledged::KEPT;
use crate::planted::Planted;
use crate::random::Random;

/// The key that all clients want.
const WANTED: &str = "wanted";

/// A client that claims, writes and gives back until its time is over.
pub struct Contender {
    name: String,
    client: Client,
    history: Shared,
    random: Random,
    claims: u64,
}

impl Contender {
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
            claims: 0,
        })
    }

    /// Works until `until`.
    pub async fn run(mut self, until: Duration) -> turmoil::Result {
        while now() < until {
            match self.random.below(6) {
                0 => self.keep().await?,
                1 => self.look().await?,
                _ => self.contend().await?,
            }
            sleep(Duration::from_millis(self.random.below(120))).await;
        }
        Ok(())
    }

    /// Only reads, so that nothing tells it of another leader.
    pub async fn watch(mut self, until: Duration) -> turmoil::Result {
        while now() < until {
            self.look().await?;
            sleep(Duration::from_millis(20 + self.random.below(100))).await;
        }
        Ok(())
    }

    /// Works for a while, and claims nothing for good: what it does may be lost.
    pub async fn work(mut self, keys: u64, lasts: Duration) -> Result<(), InvalidArgument> {
        for key in 0..keys {
            let key = format!("own/{}/{key}", self.name);
            self.claim(key, Duration::from_secs(1)).await?;
        }
        let until = now() + lasts;
        while now() < until {
            self.contend().await?;
        }
        Ok(())
    }

    /// Claims a key for good.
    async fn keep(&mut self) -> Result<(), InvalidArgument> {
        let key = format!("{KEPT}{}/{}", self.name, self.claims);
        self.claim(key, Duration::from_secs(3_600)).await.map(drop)
    }

    /// Reads who has the key that all want.
    async fn look(&mut self) -> Result<(), InvalidArgument> {
        let stale = self.history.borrow().planted == Some(Planted::StaleRead);
        let reader = match stale {
            true => {
                let any = Consistency::Stale { max_lag_ms: None };
                self.client.clone().with_consistency(any)
            }
            false => self.client.clone(),
        };
        let sent = now();
        let read = reader
            .lease_get(&Name::parse("key", WANTED.to_owned())?)
            .await;
        if let Ok(lease) = read {
            let seen = lease.map(|lease| lease.fencing_token);
            note(format_args!("{} sees {seen:?}", self.name));
            self.history.borrow_mut().reads.push(Read {
                key: WANTED.to_owned(),
                sent,
                answered: now(),
                seen,
            });
        }
        Ok(())
    }

    /// Claims the key that all want, writes to the resource under its token, and mostly gives it
    /// back. Sometimes it holds on for longer than it may: the resource must notice.
    async fn contend(&mut self) -> Result<(), InvalidArgument> {
        let ttl = Duration::from_millis(300 + self.random.below(1_500));
        let Some((at, claim, token)) = self.claim(WANTED.to_owned(), ttl).await? else {
            return Ok(());
        };
        let mut entitled_until = self.history.borrow().claims[at].entitled_until();
        if self.history.borrow().planted == Some(Planted::LateDeadline) {
            entitled_until += ttl;
        }
        for _ in 0..self.random.below(4) {
            sleep(ttl.mul_f64(self.random.below(80) as f64 / 100.0)).await;
            let at = now();
            let taken = self
                .history
                .borrow_mut()
                .write(at, token, at < entitled_until);
            note(format_args!(
                "{} writes under {token}, taken: {taken}",
                self.name
            ));
        }
        if self.random.chance(1, 4) {
            return Ok(());
        }
        self.history.borrow_mut().claims[at].released = Some(now());
        let release = Release {
            key: claim.key,
            lease_token: claim.lease_token,
            fencing_token: token,
        };
        let released = self.client.execute(release).await;
        note(format_args!(
            "{} gave back {token}: {}",
            self.name,
            released.is_ok()
        ));
        Ok(())
    }

    async fn claim(
        &mut self,
        key: String,
        ttl: Duration,
    ) -> Result<Option<(usize, Claim, FencingToken)>, InvalidArgument> {
        self.claims += 1;
        let name = |of: &'static str, text: &str| Name::parse(of, text.to_owned());
        let claim = Claim {
            key: name("key", &key)?,
            owner: Owner::new(name("owner", &self.name)?, name("incarnation", "1")?),
            lease_token: LeaseToken::parse(format!("{}-{}", self.name, self.claims))?,
            ttl_ms: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX),
            same_owner: SameOwner::Busy,
            metadata: Vec::new(),
        };
        let sent = now();
        let answer = self.client.execute(claim.clone()).await;
        let outcome = match &answer {
            Ok(Answer::Granted(lease)) => Outcome::Granted(lease.fencing_token),
            Ok(Answer::Busy(holder)) => {
                self.history.borrow_mut().reads.push(Read {
                    key: key.clone(),
                    sent,
                    answered: now(),
                    seen: Some(holder.fencing_token),
                });
                Outcome::Busy
            }
            Err(error) => Outcome::of_error(error),
        };
        note(format_args!("{} claims {key}: {outcome:?}", self.name));
        let at = self.history.borrow_mut().claimed(Claimed {
            client: self.name.clone(),
            key,
            ttl,
            asked: sent,
            sent,
            answered: now(),
            outcome: outcome.clone(),
            released: None,
        });
        Ok(match outcome {
            Outcome::Granted(token) => Some((at, claim, token)),
            _ => None,
        })
    }
}

/// How long after its TTL a lease may be there that nobody renews, with a cluster that is well:
/// cluster time may be 5 % slow, and the answers need their time.
fn late_bound(ttl: Duration) -> Duration {
    ttl.mul_f64(1.0 / 0.95) + Duration::from_millis(300)
}

/// A lease that nobody renews must be over at its bound.
pub async fn judge(client: &Client, history: &Shared) -> Result<(), ClientError> {
    let ttl = Duration::from_secs(2);
    // A restored cluster knows the tokens of the one before.
    let cluster = history.borrow().cluster;
    let claim = |token: &str| {
        let token = &format!("{token}-{cluster}");
        Ok::<_, ClientError>(Claim {
            key: Name::parse("key", "late".to_owned())?,
            owner: Owner::new(
                Name::parse("owner", token.to_owned())?,
                Name::parse("incarnation", "1")?,
            ),
            lease_token: LeaseToken::parse(token.as_str())?,
            ttl_ms: 2_000,
            same_owner: SameOwner::Busy,
            metadata: Vec::new(),
        })
    };
    client.execute(claim("late-1")?).await?;
    sleep(late_bound(ttl)).await;
    if let Answer::Busy(holder) = client.execute(claim("late-2")?).await? {
        let what = format!("a lease is there later than its bound: {holder:?}");
        history.borrow_mut().violated(what);
    }
    Ok(())
}
