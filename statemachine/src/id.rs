//! Names and tokens, checked once where they enter.
//!
//! A value of these types cannot be wrong: decoding a command runs the same checks, so what is
//! refused here never reaches the log.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::{LEASE_TOKEN_BYTES_MAX, NAME_BYTES_MAX};
use crate::refusal::InvalidArgument;

/// A name given by a caller: lease key, owner, queue, process, event type or idempotency key.
///
/// UTF-8, 1 to [`NAME_BYTES_MAX`] bytes, no control characters. Rows use a zero byte to end a name
/// inside a key, which is why none may occur in one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// Checks `text`; `field` is what the error calls it.
    pub fn parse(field: &str, text: impl Into<String>) -> Result<Self, InvalidArgument> {
        let text = text.into();
        if text.is_empty() {
            return Err(InvalidArgument::new(
                field,
                "must not be empty",
                format!("1 to {NAME_BYTES_MAX} bytes"),
                "0 bytes",
            ));
        }
        if text.len() > NAME_BYTES_MAX {
            return Err(InvalidArgument::new(
                field,
                "is too long",
                format!("{NAME_BYTES_MAX} bytes"),
                format!("{} bytes", text.len()),
            ));
        }
        if let Some((at, found)) = text.char_indices().find(|(_, c)| c.is_control()) {
            return Err(InvalidArgument::new(
                field,
                "must not hold control characters",
                "printable UTF-8",
                format!("U+{:04X} at byte {at}", u32::from(found)),
            ));
        }
        Ok(Self(text))
    }

    /// Checks raw bytes, as they come from a row or a foreign caller.
    pub fn parse_bytes(field: &str, bytes: &[u8]) -> Result<Self, InvalidArgument> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::parse(field, text),
            Err(error) => Err(InvalidArgument::new(
                field,
                "must be UTF-8",
                "UTF-8",
                format!("invalid from byte {}", error.valid_up_to()),
            )),
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = InvalidArgument;
    fn try_from(text: String) -> Result<Self, InvalidArgument> {
        Self::parse("name", text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Proof of a grant, minted by the caller before it asks. Opaque to the state machine, compared for
/// equality only. A retry with the same token is the same claim.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LeaseToken(String);

impl LeaseToken {
    /// Checks `text`: 1 to [`LEASE_TOKEN_BYTES_MAX`] bytes, no control characters.
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidArgument> {
        let name = Name::parse("lease_token", text)?;
        if name.0.len() > LEASE_TOKEN_BYTES_MAX {
            return Err(InvalidArgument::new(
                "lease_token",
                "is too long",
                format!("{LEASE_TOKEN_BYTES_MAX} bytes"),
                format!("{} bytes", name.0.len()),
            ));
        }
        Ok(Self(name.0))
    }

    /// The token as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for LeaseToken {
    type Error = InvalidArgument;
    fn try_from(text: String) -> Result<Self, InvalidArgument> {
        Self::parse(text)
    }
}

impl From<LeaseToken> for String {
    fn from(token: LeaseToken) -> Self {
        token.0
    }
}

impl fmt::Debug for LeaseToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Who proposed an entry, as its node found out. An owner is what a caller says; this is what it
/// proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Principal<'a> {
    /// The cluster itself. No caller can pass for it.
    #[default]
    Cluster,
    /// Somebody who has not proved who it is.
    Anonymous,
    /// The principal of this name.
    Named(&'a str),
}

impl fmt::Display for Principal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cluster => "the cluster itself",
            Self::Anonymous => "an unknown caller",
            Self::Named(name) => name,
        })
    }
}

/// Who holds or asks: an identity that outlives a restart, and the boot of it that speaks.
///
/// Two incarnations of one owner are different holders: a process that died and came back does not
/// hold what its former self held.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Owner {
    /// Stable identity: host, service, worker name.
    pub owner_id: Name,
    /// Identity of this boot of the owner, usually a fresh UUID. Equal to `owner_id` if unused.
    pub incarnation_id: Name,
    /// Facts by which others can tell whether the owner is alive (host, pid, start time). Opaque
    /// here, and no part of the owner's identity.
    pub liveness: Option<String>,
}

impl Owner {
    /// An owner without liveness facts.
    #[must_use]
    pub fn new(owner_id: Name, incarnation_id: Name) -> Self {
        Self {
            owner_id,
            incarnation_id,
            liveness: None,
        }
    }

    /// The same boot of the same owner, whatever its liveness facts say.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.owner_id == other.owner_id && self.incarnation_id == other.incarnation_id
    }
}
