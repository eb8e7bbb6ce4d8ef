//! How the adapter is connected to its cluster: the same for processes and for sessions.

use std::marker::PhantomData;
use std::time::Duration;

use quorate_client::{Client, ClientError};

use crate::names::Names;

/// Which number lash is shown as the fencing token of a lease or a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FencingTokens {
    /// The log index of the grant: orders the grants of all keys, and never starts again.
    #[default]
    LogIndex,
    /// How many grants the lease has had as far as its history reaches, or how many claims the
    /// work or the input: 1 for the first.
    Epoch,
}

/// How a [`QuorateProcesses`](crate::QuorateProcesses) or a
/// [`QuorateSessions`](crate::QuorateSessions) is to be.
#[derive(Debug)]
pub struct Builder<T> {
    cluster: Cluster,
    namespace: String,
    timeout: Option<Duration>,
    tokens: FencingTokens,
    makes: PhantomData<fn() -> T>,
}

/// Where the cluster is.
#[derive(Debug)]
enum Cluster {
    Endpoints(Vec<String>),
    Client(Client),
}

/// What both are made of.
pub(crate) struct Parts {
    pub(crate) client: Client,
    /// For calls that block their thread: nothing of it runs on the runtime of a caller.
    pub(crate) blocking: Client,
    pub(crate) names: Names,
    pub(crate) tokens: FencingTokens,
}

impl<T> Builder<T> {
    pub(crate) fn connect<E: Into<String>>(endpoints: impl IntoIterator<Item = E>) -> Self {
        let endpoints = endpoints.into_iter().map(Into::into).collect();
        Self::new(Cluster::Endpoints(endpoints))
    }

    pub(crate) fn over(client: Client) -> Self {
        Self::new(Cluster::Client(client))
    }

    fn new(cluster: Cluster) -> Self {
        Self {
            cluster,
            namespace: "lash".to_owned(),
            timeout: None,
            tokens: FencingTokens::default(),
            makes: PhantomData,
        }
    }

    /// Those of one namespace share everything; others see nothing of it. `lash` unless set; a name
    /// without `/`.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// How long a call goes on trying while the cluster cannot be reached or has no leader. Waits
    /// for events have no such limit, and claims and renewals of leases go on for their TTL if that
    /// is longer.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Which number lash is shown as fencing token.
    #[must_use]
    pub fn fencing_tokens(mut self, tokens: FencingTokens) -> Self {
        self.tokens = tokens;
        self
    }

    /// Refuses an endpoint or a namespace that is none.
    pub(crate) fn parts(self) -> Result<Parts, ClientError> {
        let names = Names::new(&self.namespace)?;
        let timeout = self.timeout;
        let tuned = |client: Client| {
            let client = client.allowing_zero_ttl();
            match timeout {
                Some(timeout) => client.with_timeout(timeout),
                None => client,
            }
        };
        let (client, blocking) = match self.cluster {
            Cluster::Endpoints(endpoints) => (
                Client::connect(endpoints.clone())?,
                Client::connect(endpoints)?,
            ),
            Cluster::Client(client) => (client.clone(), client),
        };
        Ok(Parts {
            client: tuned(client),
            blocking: tuned(blocking),
            names,
            tokens: self.tokens,
        })
    }
}
