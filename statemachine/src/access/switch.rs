//! On and off.

use serde::{Deserialize, Serialize};

use super::change;
use crate::command::Validate;
use crate::context::Context;
use crate::refusal::{Failure, Refusal, Subject};
use crate::tables::access_key;
use crate::transaction::Transaction;

/// Holds callers to their rights from here on; answers whether that is new.
///
/// Refuses with `Conflict` unless an administrator asks, and unless one is there who can come back
/// at any time. A retry finds it on. Nobody is woken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enable {}

/// Lets all do everything again; answers whether that is new. Users, roles and tokens stay.
///
/// Refuses nothing: who may not is denied before. A retry finds it off. Nobody is woken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disable {}

impl Validate for Enable {}
impl Validate for Disable {}

impl Enable {
    pub(super) fn apply(&self, tx: &mut Transaction<'_>, ctx: &Context) -> Result<bool, Failure> {
        let mut row = change::row(tx)?;
        if row.enabled {
            return Ok(false);
        }
        let administrator = match ctx.rights.name() {
            Some(name) => change::is_administrator(tx, name)?,
            None => false,
        };
        if !administrator {
            return Err(Failure::Refused(Refusal::Conflict {
                subject: Subject::User,
                name: ctx.rights.principal().to_string(),
                problem: "only an administrator can switch access control on, so that nobody is \
                          locked out: make a user with a role that has all rights, and come back \
                          with its token or certificate"
                    .to_owned(),
            }));
        }
        row.enabled = true;
        tx.put(&access_key(), &row)?;
        Ok(true)
    }
}

impl Disable {
    pub(super) fn apply(&self, tx: &mut Transaction<'_>) -> Result<bool, Failure> {
        let mut row = change::row(tx)?;
        let was = std::mem::replace(&mut row.enabled, false);
        tx.put(&access_key(), &row)?;
        Ok(was)
    }
}
