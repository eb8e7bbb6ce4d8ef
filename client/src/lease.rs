//! Leases: claiming with a guard, waiting for a key, reading and watching.

use std::time::Duration;

use futures::stream::BoxStream;
use quorate_statemachine::lease::{
    Answer, Claim, Claimed, Get, History, HistoryOf, Lease, List, Query, Release, Released, Revoke,
    SameOwner,
};
use quorate_statemachine::notice::Notice;
use quorate_statemachine::query::Page;
use quorate_statemachine::{
    Action, Answer as AnyAnswer, Command, FencingToken, LeaseToken, Name, Owner, Query as AnyQuery,
};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::client::{self, Client};
use crate::error::ClientError;
use crate::guard::LeaseGuard;
use crate::retry;
use crate::transport::{WatchEvent, WatchWhat};
use crate::watch::Watch;

/// TTL of a lease whose builder was given none.
pub const DEFAULT_TTL: Duration = Duration::from_secs(10);

/// What a claim came to.
#[derive(Debug)]
pub enum ClaimOutcome {
    /// The caller holds the key, and the guard keeps it.
    Granted(LeaseGuard),
    /// Somebody else does: their grant.
    Busy(Lease),
}

impl ClaimOutcome {
    /// The guard, if the key was granted.
    #[must_use]
    pub fn granted(self) -> Option<LeaseGuard> {
        match self {
            Self::Granted(guard) => Some(guard),
            Self::Busy(_) => None,
        }
    }
}

/// What is known of a key: who holds it, and what became of those before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyStory {
    /// Ended grants, oldest first.
    pub history: History,
    /// The live grant.
    pub live: Option<Lease>,
    /// Log index of the state that was read.
    pub index: u64,
    /// Cluster time against which the deadlines are to be read.
    pub now: quorate_statemachine::Timestamp,
}

/// A claim to be made; see [`Client::lease`].
#[derive(Debug, Clone)]
#[must_use = "a builder claims nothing until try_claim or claim_within is called"]
pub struct LeaseBuilder {
    client: Client,
    key: String,
    owner_id: Option<String>,
    holder: Option<Owner>,
    lease_token: Option<LeaseToken>,
    ttl: Duration,
    same_owner: SameOwner,
    metadata: Vec<u8>,
}

impl LeaseBuilder {
    /// The stable identity of who asks, with this process's incarnation. Without one, the process
    /// is known by its incarnation alone.
    pub fn owner(mut self, owner_id: impl Into<String>) -> Self {
        self.owner_id = Some(owner_id.into());
        self
    }

    /// Who asks, in full.
    pub fn holder(mut self, owner: Owner) -> Self {
        self.holder = Some(owner);
        self
    }

    /// How long the lease lives without renewal; 10 s if not given. The guard renews it at a third.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// What this owner gets when it holds the key already; [`SameOwner::Busy`] if not given.
    ///
    /// With [`SameOwner::Extend`] two guards keep one grant, and the first that is dropped ends it.
    pub fn same_owner(mut self, same_owner: SameOwner) -> Self {
        self.same_owner = same_owner;
        self
    }

    /// A note shown to others.
    pub fn metadata(mut self, metadata: impl Into<Vec<u8>>) -> Self {
        self.metadata = metadata.into();
        self
    }

    /// The holder's proof; minted if not given. Never use one for two grants.
    pub fn lease_token(mut self, lease_token: LeaseToken) -> Self {
        self.lease_token = Some(lease_token);
        self
    }

    /// The command, for those who keep the lease themselves. Refuses what is out of bounds.
    pub fn claim(&self) -> Result<Claim, ClientError> {
        let owner = match &self.holder {
            Some(owner) => owner.clone(),
            None => crate::owner::owner(self.owner_id.as_deref())?,
        };
        let lease_token = match &self.lease_token {
            Some(token) => token.clone(),
            None => LeaseToken::parse(uuid::Uuid::now_v7().to_string())?,
        };
        let claim = Claim {
            key: Name::parse("key", self.key.as_str())?,
            owner,
            lease_token,
            ttl_ms: client::ttl_ms(self.ttl)?,
            same_owner: self.same_owner,
            metadata: self.metadata.clone(),
        };
        quorate_statemachine::Validate::validate(&claim)?;
        Ok(claim)
    }

    /// Claims once. Being busy is an answer.
    ///
    /// A caller that is dropped while it waits leaves nothing behind: the claim goes on in the
    /// background, and a grant that nobody takes is released.
    pub async fn try_claim(&self) -> Result<ClaimOutcome, ClientError> {
        claim_in_background(self.client.clone(), self.claim()?).await
    }

    /// Claims as soon as the key is free, for at most `wait`; then answers who holds it.
    ///
    /// Those who wait are woken together and race: the order is not the order of arrival.
    pub async fn claim_within(&self, wait: Duration) -> Result<ClaimOutcome, ClientError> {
        let claim = self.claim()?;
        let deadline = Instant::now() + wait;
        let what = WatchWhat::LeasePrefix(claim.key.to_string());
        let mut watch = Watch::new(self.client.clone(), what);
        loop {
            watch.register(deadline.max(self.client.deadline())).await?;
            let outcome = claim_in_background(self.client.clone(), claim.clone()).await?;
            let ClaimOutcome::Busy(_) = &outcome else {
                return Ok(outcome);
            };
            let ended = |notice: &Notice| match notice {
                Notice::LeaseEnded { key, .. } => *key == claim.key,
                _ => false,
            };
            if !watch.changed(deadline, ended).await {
                return Ok(outcome);
            }
        }
    }
}

async fn claim_in_background(client: Client, claim: Claim) -> Result<ClaimOutcome, ClientError> {
    let (sender, receiver) = oneshot::channel();
    tokio::spawn(async move {
        // Nobody waits any more: the outcome comes back here, and its guard releases what it holds.
        drop(sender.send(claim_once(&client, claim).await));
    });
    receiver.await.unwrap_or_else(|_| Err(runtime_ended()))
}

async fn claim_once(client: &Client, claim: Claim) -> Result<ClaimOutcome, ClientError> {
    let options = client.execute_options(client.deadline());
    let command = Command::from(Action::from(claim));
    let done = retry::execute(client.transport().as_ref(), command, options).await?;
    match client::typed::<Claim>(done.executed.reply.0?)? {
        Claimed::Granted(lease) => {
            let guard = LeaseGuard::new(client.clone(), lease, done.sent_at);
            Ok(ClaimOutcome::Granted(guard))
        }
        Claimed::Busy(holder) => Ok(ClaimOutcome::Busy(holder)),
    }
}

pub(crate) fn runtime_ended() -> ClientError {
    ClientError::Node(quorate_rpc::NodeError::OutcomeUnknown {
        message: "the runtime ended while the command was on its way".to_owned(),
    })
}

impl Client {
    /// Begins a claim of `key`.
    pub fn lease(&self, key: impl Into<String>) -> LeaseBuilder {
        LeaseBuilder {
            client: self.clone(),
            key: key.into(),
            owner_id: None,
            holder: None,
            lease_token: None,
            ttl: DEFAULT_TTL,
            same_owner: SameOwner::Busy,
            metadata: Vec::new(),
        }
    }

    /// The live lease of `key`.
    pub async fn lease_get(&self, key: &Name) -> Result<Option<Lease>, ClientError> {
        let query = Query::Get(Get { key: key.clone() });
        match self.lease_query(query).await?.answer {
            Answer::Get(lease) => Ok(lease),
            _ => Err(wrong_answer("lease.get")),
        }
    }

    /// One page of live leases.
    pub async fn lease_list(&self, list: List) -> Result<Page<Lease>, ClientError> {
        match self.lease_query(Query::List(list)).await?.answer {
            Answer::List(page) => Ok(page),
            _ => Err(wrong_answer("lease.list")),
        }
    }

    /// Who holds `key`, and what became of the grants before: when, by whom, why they ended.
    pub async fn lease_history(&self, key: &Name) -> Result<KeyStory, ClientError> {
        let query = Query::History(HistoryOf { key: key.clone() });
        let read = self.lease_query(query).await?;
        match read.answer {
            Answer::History { history, live } => Ok(KeyStory {
                history,
                live,
                index: read.index,
                now: read.now,
            }),
            _ => Err(wrong_answer("lease.history")),
        }
    }

    /// Releases a grant that no guard keeps.
    pub async fn lease_release(
        &self,
        key: &Name,
        lease_token: &LeaseToken,
        fencing_token: FencingToken,
    ) -> Result<Released, ClientError> {
        let release = Release {
            key: key.clone(),
            lease_token: lease_token.clone(),
            fencing_token,
        };
        self.execute(release).await
    }

    /// Ends the live grant of `key` whoever holds it; `only` if it has this token.
    pub async fn lease_revoke(
        &self,
        key: &Name,
        only: Option<FencingToken>,
        by: impl Into<String>,
    ) -> Result<Lease, ClientError> {
        let revoke = Revoke {
            key: key.clone(),
            only,
            by: by.into(),
        };
        self.execute(revoke).await
    }

    /// Grants and ends of leases whose key starts with `prefix`, from now on.
    pub async fn lease_watch(
        &self,
        prefix: impl Into<String>,
    ) -> Result<BoxStream<'static, WatchEvent>, ClientError> {
        self.watch(WatchWhat::LeasePrefix(prefix.into()), 0).await
    }

    async fn lease_query(&self, query: Query) -> Result<Read<Answer>, ClientError> {
        let answered = self.query(AnyQuery::Lease(query)).await?;
        match answered.answer {
            AnyAnswer::Lease(answer) => Ok(Read {
                answer,
                index: answered.index,
                now: answered.now,
            }),
            _ => Err(wrong_answer("a lease query")),
        }
    }
}

struct Read<A> {
    answer: A,
    index: u64,
    now: quorate_statemachine::Timestamp,
}

pub(crate) fn wrong_answer(asked: &str) -> ClientError {
    ClientError::Protocol(format!("asked {asked}, got the answer to something else"))
}
