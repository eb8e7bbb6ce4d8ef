//! What lash's ids are called in the cluster.
//!
//! `NAMESPACE/ID` for processes, sessions and scopes, each in tables of their own, and
//! `NAMESPACE/process/ID` for the lease of a process. A namespace holds no `/`, so that no id of
//! one can be an id of another.

use lash_core::SessionScope;
use quorate_client::ClientError;
use quorate_statemachine::{InvalidArgument, Name};

use crate::error::{Result, session};

#[derive(Debug, Clone)]
pub(crate) struct Names {
    prefix: String,
}

impl Names {
    pub(crate) fn new(namespace: &str) -> std::result::Result<Self, ClientError> {
        Name::parse("namespace", namespace)?;
        if namespace.contains('/') {
            let invalid = InvalidArgument::new(
                "namespace",
                "must not hold a slash",
                "a name without /",
                namespace,
            );
            return Err(invalid.into());
        }
        Ok(Self {
            prefix: format!("{namespace}/"),
        })
    }

    /// What all names of the namespace start with.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    fn name(&self, what: &str, id: &str) -> Result<Name> {
        Name::parse(what, format!("{}{id}", self.prefix))
            .map_err(|invalid| session(format!("{what} `{id}`: {invalid}")))
    }

    pub(crate) fn process(&self, id: &str) -> Result<Name> {
        self.name("process id", id)
    }

    pub(crate) fn session(&self, id: &str) -> Result<Name> {
        self.name("session id", id)
    }

    pub(crate) fn scope(&self, scope: &SessionScope) -> Result<Name> {
        self.name("session scope", scope.id().as_str())
    }

    /// The session of a session store.
    pub(crate) fn store(&self, id: &str) -> std::result::Result<Name, InvalidArgument> {
        Name::parse("session id", format!("{}{id}", self.prefix))
    }

    pub(crate) fn lease(&self, process_id: &str) -> Result<Name> {
        self.name("process id", &format!("process/{process_id}"))
    }

    /// The id that a name of this namespace stands for.
    pub(crate) fn id<'a>(&self, name: &'a Name) -> &'a str {
        let name = name.as_str();
        name.strip_prefix(&self.prefix).unwrap_or(name)
    }
}

/// A name of lash's that is used as it is.
pub(crate) fn plain(what: &str, text: &str) -> Result<Name> {
    Name::parse(what, text).map_err(|invalid| session(invalid.to_string()))
}
