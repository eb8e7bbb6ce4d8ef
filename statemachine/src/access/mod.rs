//! Access control: who may do what, replicated, checked inside [`crate::apply`].
//!
//! Each entry carries its principal ([`crate::Principal`]): the name that the node which took the
//! command found out, by a token or a certificate. A user of that name has roles, a role has rules,
//! and a [`Rule`] allows one level of [`Verb`] on the keys of a [`Noun`] that start with a prefix.
//! [`needs`] says what each command and query asks for. While access control is on, whatever no
//! rule covers is denied, and callers that have not proved who they are may do nothing. While it is
//! off, all may do everything, this noun included.
//!
//! Since the check reads the replicated rows, a right that is taken away is gone from the entry
//! that takes it, on every node and for commands that are on their way already.
//!
//! # Nobody is locked out
//!
//! An *administrator* may do everything: a rule for all nouns, the empty prefix and
//! [`Verb::Admin`]. Switching on is refused unless it is an administrator who asks (so that its way
//! in has just been used), and while it is on a change is refused if no administrator would be left
//! who can come back at any time: by certificate, from inside a node's process, or by a token
//! without an end.
//!
//! # Caveats
//!
//! - The cluster itself ([`crate::Principal::Cluster`]) may do everything: ticks, node ids.
//! - What a user does to its own keys may be seen by others in bounds: an acquisition that would
//!   close a circle of waits names the locks in it.
//! - A token is looked at by the node that is shown it. Commands that the node took before the
//!   token's end go through: the entry names the user, not the token.

use serde::{Deserialize, Serialize};

use crate::command::operations;
use crate::context::Context;
use crate::id::Name;
use crate::refusal::Failure;
use crate::time::Timestamp;
use crate::transaction::Transaction;

pub mod audit;
mod change;
pub mod needs;
mod query;
mod rights;
mod role;
mod switch;
mod token;
mod user;

pub use query::{Answer, Query, Status, StatusOf, TokenView, TokensOf, UserList};
pub use query::{RoleList, authenticate, of, user};
pub(crate) use query::{query, validate as validate_query};
pub use rights::Rights;
pub use role::{DeleteRole, PutRole};
pub use switch::{Disable, Enable};
pub(crate) use token::token_due;
pub use token::{PutToken, RevokeToken, TokenPut, TokenRevoked};
pub use user::{DeleteUser, PutUser, UserDeleted};

/// What the name of a caller inside a node's own process begins with. Neither a token nor a
/// certificate proves such a name.
pub const EMBEDDED: &str = "embedded:";

/// A kind of thing that rights are about. The order is persisted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Noun {
    /// Leases, by key.
    Lease,
    /// Locks, by key.
    Lock,
    /// Queues, by name.
    Queue,
    /// Processes, by id, and scopes that have grants of them.
    Process,
    /// Sessions, by name.
    Session,
    /// The cluster: status, members, snapshots. Its one key is empty.
    Cluster,
    /// Access control and the audit. Its one key is empty.
    Access,
}

impl Noun {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Lease,
        Self::Lock,
        Self::Queue,
        Self::Process,
        Self::Session,
        Self::Cluster,
        Self::Access,
    ];

    /// The word for scripts and people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lease => "lease",
            Self::Lock => "lock",
            Self::Queue => "queue",
            Self::Process => "process",
            Self::Session => "session",
            Self::Cluster => "cluster",
            Self::Access => "access",
        }
    }
}

impl std::fmt::Display for Noun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How much is allowed; each level holds those before it. The order is persisted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Verb {
    /// Look at it.
    Read,
    /// Use it: claim, renew, release, push, settle, append.
    Write,
    /// Take it from others, or change what it is: revoke, membership, rights.
    Admin,
}

impl Verb {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Admin];

    /// The word for scripts and people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

impl std::fmt::Display for Verb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What one line of a role allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// On which kind of thing; none for all.
    pub noun: Option<Noun>,
    /// On keys that start with this. The cluster and access control have one key, the empty one:
    /// only the empty prefix covers it.
    pub prefix: String,
    /// How much.
    pub verb: Verb,
}

impl Rule {
    /// Everything.
    #[must_use]
    pub fn everything() -> Self {
        Self {
            noun: None,
            prefix: String::new(),
            verb: Verb::Admin,
        }
    }

    /// Whether it allows what is needed.
    #[must_use]
    pub fn covers(&self, need: needs::Need<'_>) -> bool {
        self.noun.is_none_or(|noun| noun == need.noun)
            && self.verb >= need.verb
            && need.key.starts_with(&self.prefix)
    }
}

/// A user: a name that callers can prove to have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The name of the principal.
    pub name: Name,
    /// What it may do: the rules of all these together.
    pub roles: Vec<Name>,
    /// Whether a client certificate of this name is proof.
    pub certificate: bool,
}

/// A role: rules under a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    /// Its name.
    pub name: Name,
    /// What it allows.
    pub rules: Vec<Rule>,
}

/// A token: proof of being a user, for whoever knows its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Its id, which is no secret.
    pub id: Name,
    /// Whose it is.
    pub user: Name,
    /// SHA-256 of the secret. The secret itself is kept nowhere; it is random and long, so that its
    /// hash needs no salt and gives no way to find it.
    pub hash: [u8; 32],
    /// When it was made.
    pub created_at: Timestamp,
    /// When it is proof no longer; none for a token without an end.
    pub expires_at: Option<Timestamp>,
}

impl Token {
    /// Whether it is proof at `now`. The last millisecond is the one before `expires_at`.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }
}

operations! {
    Access {
        0x0701 "access.put_user" [since 2] PutUser => User;
        0x0702 "access.delete_user" [since 2] DeleteUser => UserDeleted;
        0x0703 "access.put_role" [since 2] PutRole => Role;
        0x0704 "access.delete_role" [since 2] DeleteRole => bool;
        0x0705 "access.put_token" [since 2] PutToken => TokenPut;
        0x0706 "access.revoke_token" [since 2] RevokeToken => TokenRevoked;
        0x0707 "access.enable" [since 2] Enable => bool;
        0x0708 "access.disable" [since 2] Disable => bool;
    }
}

pub(crate) fn apply(
    tx: &mut Transaction<'_>,
    ctx: &Context,
    command: &Command,
) -> Result<Response, Failure> {
    let response = match command {
        Command::PutUser(put) => put.apply(tx).map(Response::PutUser),
        Command::DeleteUser(delete) => delete.apply(tx).map(Response::DeleteUser),
        Command::PutRole(put) => put.apply(tx).map(Response::PutRole),
        Command::DeleteRole(delete) => delete.apply(tx).map(Response::DeleteRole),
        Command::PutToken(put) => put.apply(tx, ctx).map(Response::PutToken),
        Command::RevokeToken(revoke) => revoke.apply(tx).map(Response::RevokeToken),
        Command::Enable(enable) => enable.apply(tx, ctx).map(Response::Enable),
        Command::Disable(disable) => disable.apply(tx).map(Response::Disable),
    }?;
    change::finish(tx, ctx)?;
    Ok(response)
}
