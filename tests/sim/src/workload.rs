//! Clients: what they do, and the account of it.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_client::admin::{AddMemberRequest, Admin};
use quorate_client::{Client, ClientError};
use quorate_statemachine::lease::{Claim, Claimed as Answer, Release, SameOwner};
use quorate_statemachine::{FencingToken, InvalidArgument, LeaseToken, Name, Owner};
use tokio::time::sleep;

use crate::history::{Claimed, Outcome, Shared};
use crate::invariants::acknowledged::KEPT;
use crate::planted::Planted;
use crate::random::Random;
use crate::trace;

/// The key that all clients want.
const WANTED: &str = "wanted";

/// Long enough for a cluster that has lost its leader, short enough to try again.
const TIMEOUT: Duration = Duration::from_secs(4);

/// Now, in simulated time.
pub fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

/// A line of the trace at the present time.
pub fn note(what: std::fmt::Arguments<'_>) {
    trace::note(now().as_millis(), what);
}

/// Where clients find the cluster.
pub fn endpoints(nodes: usize) -> Vec<String> {
    (1..=nodes).map(|node| format!("n{node}:7400")).collect()
}

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
            match self.random.below(3) {
                0 => self.keep().await?,
                _ => self.contend().await?,
            }
            sleep(Duration::from_millis(self.random.below(120))).await;
        }
        Ok(())
    }

    /// Claims a key for good.
    async fn keep(&mut self) -> Result<(), InvalidArgument> {
        let key = format!("{KEPT}{}/{}", self.name, self.claims);
        self.claim(key, Duration::from_secs(3_600)).await.map(drop)
    }

    /// Claims the key that all want, writes to the resource under its token, and mostly gives it
    /// back. Sometimes it holds on for longer than it may: the resource must notice.
    async fn contend(&mut self) -> Result<(), InvalidArgument> {
        let ttl = Duration::from_millis(300 + self.random.below(2_500));
        let Some((at, claim, token)) = self.claim(WANTED.to_owned(), ttl).await? else {
            return Ok(());
        };
        let mut entitled_until = self.history.borrow().claims[at].entitled_until();
        if self.history.borrow().planted == Some(Planted::LateDeadline) {
            entitled_until += ttl;
        }
        for _ in 0..self.random.below(4) {
            sleep(ttl.mul_f64(self.random.below(50) as f64 / 100.0)).await;
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
            Ok(Answer::Busy(_)) => Outcome::Busy,
            Err(error) => Outcome::of_error(error),
        };
        note(format_args!("{} claims {key}: {outcome:?}", self.name));
        let at = self.history.borrow_mut().claimed(Claimed {
            client: self.name.clone(),
            key,
            ttl,
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

/// Makes a cluster of the blank nodes and the founder; tries until it is done.
pub async fn form(nodes: usize) -> turmoil::Result {
    let admin = Admin::connect(endpoints(nodes))?.with_timeout(TIMEOUT);
    for node in 2..=nodes {
        let request = AddMemberRequest {
            name: format!("n{node}"),
            peer_addr: format!("n{node}:7401"),
            client_addr: format!("n{node}:7400"),
            promote: true,
            ..AddMemberRequest::default()
        };
        while let Err(error) = admin.add_member(request.clone()).await {
            note(format_args!("n{node} is no member yet: {error}"));
            sleep(Duration::from_millis(200)).await;
        }
        note(format_args!("n{node} is a member"));
    }
    Ok(())
}

/// Asks for a change of leaders now and then.
pub async fn transfer(nodes: usize, mut random: Random, until: Duration) -> turmoil::Result {
    let admin = Admin::connect(endpoints(nodes))?.with_timeout(TIMEOUT);
    while now() < until {
        sleep(Duration::from_millis(1_000 + random.below(6_000))).await;
        let moved = admin.transfer_leader(None, false).await;
        note(format_args!("leadership handed over: {}", moved.is_ok()));
    }
    Ok(())
}

/// When all faults are over: the cluster serves, and has what it has acknowledged. What it has of
/// the keys that were claimed for good.
pub async fn judge(
    nodes: usize,
    history: &Shared,
) -> Result<BTreeMap<String, FencingToken>, ClientError> {
    let client = Client::connect(endpoints(nodes))?.with_timeout(2 * TIMEOUT);
    let claims = history.borrow().claims.clone();
    let looks_away = history.borrow().planted == Some(Planted::LostKey);
    let mut found = BTreeMap::new();
    for claim in claims.iter().filter(|claim| claim.key.starts_with(KEPT)) {
        let mut asked = claim.key.clone();
        if looks_away {
            asked.push('x');
        }
        let key = Name::parse("key", asked)?;
        if let Some(lease) = client.lease_get(&key).await? {
            found.insert(claim.key.clone(), lease.fencing_token);
        }
    }
    Ok(found)
}
