//! Roles: put and delete.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::{Role, change};
use crate::command::Validate;
use crate::id::Name;
use crate::limits::{NAME_BYTES_MAX, ROLE_RULES_MAX, ROLES_MAX};
use crate::refusal::{Failure, InvalidArgument, Refusal, Subject};
use crate::tables::{Key, Users, access_key, role_key};
use crate::transaction::Transaction;

/// Makes a role, or gives it other rules.
///
/// Promises that whoever has the role may do what its rules allow, from here on. Refuses what would
/// leave no administrator. A retry does the same again. Nobody is woken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutRole {
    /// The role as it shall be.
    pub role: Role,
}

/// Deletes a role that no user has; answers whether there was one.
///
/// Refuses with `Conflict` while a user has it: a later role of the same name would give that user
/// rights that nobody meant to give. A retry finds none. Nobody is woken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteRole {
    /// Which.
    pub role: Name,
}

impl Validate for PutRole {
    fn validate(&self) -> Result<(), InvalidArgument> {
        let (count, max) = (self.role.rules.len() as u64, ROLE_RULES_MAX as u64);
        InvalidArgument::check_count("rules", count, 0, max)?;
        let prefixes = self.role.rules.iter().map(|rule| &rule.prefix);
        for prefix in prefixes.filter(|prefix| !prefix.is_empty()) {
            InvalidArgument::check_bytes("prefix", prefix.len(), NAME_BYTES_MAX)?;
            Name::parse("prefix", prefix.as_str())?;
        }
        Ok(())
    }
}

impl Validate for DeleteRole {}

impl PutRole {
    pub(super) fn apply(&self, tx: &mut Transaction<'_>) -> Result<Role, Failure> {
        let key = role_key(self.role.name.as_str());
        if !tx.exists(&key)? {
            let mut row = change::row(tx)?;
            Refusal::check_room(|| "roles".to_owned(), row.roles, ROLES_MAX)?;
            row.roles += 1;
            tx.put(&access_key(), &row)?;
        }
        tx.put(&key, &self.role)?;
        Ok(self.role.clone())
    }
}

impl DeleteRole {
    pub(super) fn apply(&self, tx: &mut Transaction<'_>) -> Result<bool, Failure> {
        let key = role_key(self.role.as_str());
        if !tx.exists(&key)? {
            return Ok(false);
        }
        let mut holder = None;
        let first = Key::<Users>::first();
        tx.scan::<Users>(&first, &first.clone().end(), &mut |_, user| {
            if !user.roles.contains(&self.role) {
                return ControlFlow::Continue(());
            }
            holder = Some(user.name);
            ControlFlow::Break(())
        })?;
        if let Some(user) = holder {
            return Err(Failure::Refused(Refusal::Conflict {
                subject: Subject::Role,
                name: self.role.to_string(),
                problem: format!("user {user} has it; take it from its users first"),
            }));
        }
        tx.delete(&key)?;
        let mut row = change::row(tx)?;
        row.roles -= 1;
        tx.put(&access_key(), &row)?;
        Ok(true)
    }
}
