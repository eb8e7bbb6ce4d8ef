//! What every change of rights ends with: an administrator is left, and the row tells of it.

use std::ops::ControlFlow;

use super::rights::Rights;
use super::{EMBEDDED, Token, User};
use crate::context::Context;
use crate::id::{Name, Principal};
use crate::refusal::{Broken, Failure, Refusal, Subject};
use crate::tables::{
    AccessRow, Key, Users, access_key, token_id_of, token_key, tokens_of, user_key,
};
use crate::transaction::Transaction;

/// The row of access control, as it is or as it begins.
pub(super) fn row(tx: &mut Transaction<'_>) -> Result<AccessRow, Broken> {
    Ok(tx.get(&access_key())?.unwrap_or_default())
}

/// Refuses what would lock everybody out, and notes when rights changed last.
pub(super) fn finish(tx: &mut Transaction<'_>, ctx: &Context) -> Result<(), Failure> {
    let mut row = row(tx)?;
    if row.enabled && !has_administrator(tx)? {
        return Err(Failure::Refused(Refusal::Conflict {
            subject: Subject::User,
            name: ctx.rights.principal().to_string(),
            problem: "no administrator would be left who can come back at any time; first give \
                      another user a role with all rights, and a certificate or a token without \
                      an end"
                .to_owned(),
        }));
    }
    row.changed_index = ctx.index;
    tx.put(&access_key(), &row)?;
    Ok(())
}

/// The user, or `NotFound`.
pub(super) fn require_user(tx: &mut Transaction<'_>, user: &Name) -> Result<User, Failure> {
    let found = tx.get(&user_key(user.as_str()))?;
    found.ok_or_else(|| not_found(Subject::User, user))
}

pub(super) fn not_found(subject: Subject, name: &Name) -> Failure {
    Failure::Refused(Refusal::NotFound {
        subject,
        name: name.to_string(),
    })
}

/// Ids of all tokens of a user, also of those that are over and not yet swept.
pub(super) fn token_ids(tx: &Transaction<'_>, user: &Name) -> Result<Vec<Name>, Broken> {
    let mut keys = Vec::new();
    let first = tokens_of(user);
    tx.scan_raw(&first, &first.clone().end(), &mut |key, _| {
        keys.push(key.to_vec());
        ControlFlow::Continue(())
    })?;
    keys.iter().map(|key| token_id_of(key)).collect()
}

/// All tokens of a user.
pub(super) fn tokens(tx: &mut Transaction<'_>, user: &Name) -> Result<Vec<Token>, Broken> {
    let mut tokens = Vec::new();
    for id in token_ids(tx, user)? {
        let token = tx.get(&token_key(&id))?;
        let missing = || Broken(format!("token {id} of user {user} is not there"));
        tokens.push(token.ok_or_else(missing)?);
    }
    Ok(tokens)
}

/// Whether somebody may do everything and can come back at any time. Stops at the first.
fn has_administrator(tx: &mut Transaction<'_>) -> Result<bool, Broken> {
    let first = Key::<Users>::first();
    let mut users = Vec::new();
    tx.scan::<Users>(&first, &first.clone().end(), &mut |_, user| {
        users.push(user);
        ControlFlow::Continue(())
    })?;
    for user in users {
        // In this order: the tokens of those who are no administrators are not read.
        if is_administrator(tx, user.name.as_str())? && can_come_back(tx, &user)? {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(super) fn is_administrator(tx: &mut Transaction<'_>, user: &str) -> Result<bool, Broken> {
    let rights = Rights::granted(tx, Principal::Named(user))?;
    Ok(rights.is_administrator())
}

fn can_come_back(tx: &mut Transaction<'_>, user: &User) -> Result<bool, Broken> {
    if user.certificate || user.name.as_str().starts_with(EMBEDDED) {
        return Ok(true);
    }
    let tokens = tokens(tx, &user.name)?;
    Ok(tokens.iter().any(|token| token.expires_at.is_none()))
}
