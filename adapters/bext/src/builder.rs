//! [`Builder`]: what a plugin is told before it is used.

use std::time::Duration;

use quorate_client::statemachine::{InvalidArgument, Name, limits::NAME_BYTES_MAX};
use quorate_client::{Client, ClientError, DEFAULT_TIMEOUT, incarnation};

use crate::locks::QuorateLocks;

/// A call has at least this long: a quorum on slow disks needs some of it.
const TIMEOUT_MIN: Duration = Duration::from_millis(100);

/// A call has at most this long: its caller is a thread that can do nothing else.
const TIMEOUT_MAX: Duration = Duration::from_secs(600);

/// Where the locks are.
#[derive(Debug, Clone)]
pub(crate) enum Cluster {
    /// At these addresses; connected to from the plugin's own thread.
    Endpoints(Vec<String>),
    /// Behind a client that the host made.
    Client(Client),
}

impl Cluster {
    /// A client whose calls take at most `timeout`.
    pub(crate) fn client(&self, timeout: Duration) -> Result<Client, ClientError> {
        let client = match self {
            Self::Endpoints(endpoints) => Client::connect(endpoints)?,
            Self::Client(client) => client.clone(),
        };
        Ok(client.with_timeout(timeout))
    }

    /// What an operator has to look at.
    pub(crate) fn place(&self) -> String {
        match self {
            Self::Endpoints(endpoints) => format!("reached at {}", endpoints.join(", ")),
            Self::Client(_) => "reached through the client that the host gave".to_owned(),
        }
    }
}

/// A plugin to be built; see [`QuorateLocks::connect`] and [`QuorateLocks::over`].
#[derive(Debug, Clone)]
#[must_use = "a builder locks nothing until it is built"]
pub struct Builder {
    pub(crate) cluster: Cluster,
    pub(crate) name: String,
    pub(crate) prefix: String,
    pub(crate) owner: String,
    pub(crate) timeout: Duration,
}

impl Builder {
    pub(crate) fn new(cluster: Cluster) -> Self {
        Self {
            cluster,
            name: "quorate".to_owned(),
            prefix: String::new(),
            owner: incarnation().to_owned(),
            timeout: DEFAULT_TIMEOUT,
        }
    }

    /// What `LockingPlugin::name` answers; `quorate` if not given.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Put before every key, so that hosts of another purpose on the same cluster have keys of
    /// their own; nothing if not given. Hosts that are to exclude each other need the same one.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// The name by which operators see who holds a lock; this process's incarnation if not given.
    /// It gives no rights: two holders of one name exclude each other as any two do.
    pub fn owner(mut self, owner: impl Into<String>) -> Self {
        self.owner = owner.into();
        self
    }

    /// How long a call tries to reach the cluster, and blocks its thread at most (and half a
    /// second); 10 s if not given, 100 ms to 600 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Checks the options. Nothing is connected to before the first call.
    pub fn build(self) -> Result<QuorateLocks, ClientError> {
        if self.name.is_empty() {
            let none = InvalidArgument::new("name", "must not be empty", "1 or more bytes", "0");
            return Err(none.into());
        }
        if !self.prefix.is_empty() {
            Name::parse("prefix", self.prefix.as_str())?;
        }
        InvalidArgument::check_bytes("prefix", self.prefix.len(), NAME_BYTES_MAX - 1)?;
        Name::parse("owner", self.owner.as_str())?;
        if !(TIMEOUT_MIN..=TIMEOUT_MAX).contains(&self.timeout) {
            let limit = format!("{TIMEOUT_MIN:?} to {TIMEOUT_MAX:?}");
            let actual = format!("{:?}", self.timeout);
            let wrong = InvalidArgument::new("timeout", "is out of range", limit, actual);
            return Err(wrong.into());
        }
        // Endpoints that are no addresses are found now, not by the first call.
        self.cluster.client(self.timeout)?;
        Ok(QuorateLocks::new(self))
    }
}
