//! Users: put and delete.

use serde::{Deserialize, Serialize};

use super::{EMBEDDED, User, change, token};
use crate::command::Validate;
use crate::id::Name;
use crate::limits::{PRINCIPAL_BYTES_MAX, USER_ROLES_MAX, USERS_MAX};
use crate::refusal::{Failure, InvalidArgument, Refusal, Subject};
use crate::tables::{access_key, role_key, user_key};
use crate::transaction::Transaction;

/// Makes a user, or gives it other roles.
///
/// Promises that the user has these roles and no others. Refuses with `NotFound` when a role does
/// not exist, and what would leave no administrator. A retry does the same again. Nobody is woken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutUser {
    /// The user as it shall be.
    pub user: User,
}

/// Deletes a user and its tokens.
///
/// Promises that it may do nothing from here on. Refuses what would leave no administrator. A retry
/// finds none. Nobody is woken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteUser {
    /// Whom.
    pub user: Name,
}

/// The answer to a deletion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserDeleted {
    /// Whether there was such a user.
    pub existed: bool,
    /// Tokens that went with it.
    pub tokens: u64,
}

impl Validate for PutUser {
    fn validate(&self) -> Result<(), InvalidArgument> {
        let User {
            name,
            roles,
            certificate,
        } = &self.user;
        InvalidArgument::check_bytes("user", name.as_str().len(), PRINCIPAL_BYTES_MAX)?;
        let (count, max) = (roles.len() as u64, USER_ROLES_MAX as u64);
        InvalidArgument::check_count("roles", count, 0, max)?;
        if *certificate && name.as_str().starts_with(EMBEDDED) {
            return Err(InvalidArgument::new(
                "certificate",
                "cannot be proof of being inside a node",
                format!("names that do not start with {EMBEDDED}"),
                name.as_str(),
            ));
        }
        Ok(())
    }
}

impl Validate for DeleteUser {}

impl PutUser {
    pub(super) fn apply(&self, tx: &mut Transaction<'_>) -> Result<User, Failure> {
        for role in &self.user.roles {
            if !tx.exists(&role_key(role.as_str()))? {
                return Err(change::not_found(Subject::Role, role));
            }
        }
        let key = user_key(self.user.name.as_str());
        if !tx.exists(&key)? {
            let mut row = change::row(tx)?;
            Refusal::check_room(|| "users".to_owned(), row.users, USERS_MAX)?;
            row.users += 1;
            tx.put(&access_key(), &row)?;
        }
        tx.put(&key, &self.user)?;
        Ok(self.user.clone())
    }
}

impl DeleteUser {
    pub(super) fn apply(&self, tx: &mut Transaction<'_>) -> Result<UserDeleted, Failure> {
        let key = user_key(self.user.as_str());
        if !tx.exists(&key)? {
            let (existed, tokens) = (false, 0);
            return Ok(UserDeleted { existed, tokens });
        }
        let tokens = change::tokens(tx, &self.user)?;
        for token in &tokens {
            token::remove(tx, token)?;
        }
        tx.delete(&key)?;
        let mut row = change::row(tx)?;
        row.users -= 1;
        tx.put(&access_key(), &row)?;
        Ok(UserDeleted {
            existed: true,
            tokens: tokens.len() as u64,
        })
    }
}
