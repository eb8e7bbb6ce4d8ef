//! Rows of access control: who there is, what they may do, and how they prove who they are.

use serde::{Deserialize, Serialize};

use super::{Key, PREFIX_BYTES, Table, split_name};
use crate::access::{Role, Token, User};
use crate::id::Name;
use crate::refusal::Broken;

/// The one row that says whether access is controlled; none while nothing was ever set.
pub struct Access;

/// What the row holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AccessRow {
    /// Whether callers are held to their rights.
    pub enabled: bool,
    /// Log index of the last change to any row of access control.
    pub changed_index: u64,
    /// Rows of [`Users`].
    pub users: u64,
    /// Rows of [`Roles`].
    pub roles: u64,
    /// Rows of [`Tokens`].
    pub tokens: u64,
}

impl Table for Access {
    const TAG: u8 = 0x70;
    const NAME: &'static str = "access";
    type Row = AccessRow;
}

/// Key of the one row.
#[must_use]
pub fn access_key() -> Key<Access> {
    Key::first()
}

/// Users by name.
pub struct Users;

impl Table for Users {
    const TAG: u8 = 0x71;
    const NAME: &'static str = "access_users";
    type Row = User;
}

/// Key of a user.
#[must_use]
pub fn user_key(user: &str) -> Key<Users> {
    Key::first().text(user)
}

/// Roles by name.
pub struct Roles;

impl Table for Roles {
    const TAG: u8 = 0x72;
    const NAME: &'static str = "access_roles";
    type Row = Role;
}

/// Key of a role.
#[must_use]
pub fn role_key(role: &str) -> Key<Roles> {
    Key::first().text(role)
}

/// Tokens by id.
pub struct Tokens;

impl Table for Tokens {
    const TAG: u8 = 0x73;
    const NAME: &'static str = "access_tokens";
    type Row = Token;
}

/// Key of a token.
#[must_use]
pub fn token_key(id: &Name) -> Key<Tokens> {
    Key::first().text(id.as_str())
}

/// Tokens of each user.
pub struct TokensByUser;

impl Table for TokensByUser {
    const TAG: u8 = 0x74;
    const NAME: &'static str = "access_tokens_by_user";
    type Row = ();
}

/// Key of a token at its user.
#[must_use]
pub fn token_of_user_key(user: &Name, id: &Name) -> Key<TokensByUser> {
    tokens_of(user).text(id.as_str())
}

/// What the keys of a user's tokens start with.
#[must_use]
pub fn tokens_of(user: &Name) -> Key<TokensByUser> {
    Key::first().name(user)
}

/// The token that a key of [`TokensByUser`] names.
pub fn token_id_of(key: &[u8]) -> Result<Name, Broken> {
    let own = key.get(PREFIX_BYTES..).and_then(split_name);
    let (_, id) = own.ok_or_else(|| Broken(format!("{} names no token", key.escape_ascii())))?;
    Name::parse_bytes("token", id).map_err(|error| Broken(error.to_string()))
}
