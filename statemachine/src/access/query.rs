//! What can be asked about access control, and how a node finds out who a token's bearer is.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::{Role, Token, User};
use crate::id::Name;
use crate::query::{Page, PageLimit, listed};
use crate::refusal::{Broken, InvalidArgument};
use crate::tables::{
    AccessRow, Key, Roles, TokensByUser, Users, access_key, role_key, token_id_of, token_key,
    token_of_user_key, tokens_of, user_key,
};
use crate::time::Timestamp;
use crate::transaction::{Transaction, read, read_range};
use crate::view::View;

/// Whether access is controlled, and how much there is of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusOf {}

/// Users by name, a page at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserList {
    /// Where to go on.
    pub after: Option<Name>,
    /// Rows at most; 0 for as many as there may be.
    pub limit: u32,
}

/// Roles by name, a page at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleList {
    /// Where to go on.
    pub after: Option<Name>,
    /// Rows at most; 0 for as many as there may be.
    pub limit: u32,
}

/// All tokens of a user, also those that are over and not yet swept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokensOf {
    /// Whose.
    pub user: Name,
}

/// What to read. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// See [`StatusOf`].
    Status(StatusOf),
    /// See [`UserList`].
    Users(UserList),
    /// See [`RoleList`].
    Roles(RoleList),
    /// See [`TokensOf`].
    Tokens(TokensOf),
}

/// Whether access is controlled, and how much there is of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Whether callers are held to their rights.
    pub enabled: bool,
    /// Log index of the last change of rights; 0 if there was none.
    pub changed_index: u64,
    /// Users.
    pub users: u64,
    /// Roles.
    pub roles: u64,
    /// Tokens, also those that are over and not yet swept.
    pub tokens: u64,
}

/// A token without its hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenView {
    /// Its id.
    pub id: Name,
    /// Whose it is.
    pub user: Name,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it is proof no longer; none for a token without an end.
    pub expires_at: Option<Timestamp>,
    /// Whether it is proof now.
    pub live: bool,
}

/// What was read. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Of [`StatusOf`].
    Status(Status),
    /// Of [`UserList`].
    Users(Page<User>),
    /// Of [`RoleList`].
    Roles(Page<Role>),
    /// Of [`TokensOf`]: none if there is no such user.
    Tokens(Option<Vec<TokenView>>),
}

pub(crate) fn validate(query: &Query) -> Result<(), InvalidArgument> {
    match query {
        Query::Status(_) | Query::Users(_) | Query::Roles(_) | Query::Tokens(_) => Ok(()),
    }
}

pub(crate) fn query(view: &dyn View, now: Timestamp, query: &Query) -> Result<Answer, Broken> {
    match query {
        Query::Status(_) => status(view).map(Answer::Status),
        Query::Users(list) => users(view, list).map(Answer::Users),
        Query::Roles(list) => roles(view, list).map(Answer::Roles),
        Query::Tokens(of) => tokens(view, now, &of.user).map(Answer::Tokens),
    }
}

/// The token of this id, if it is live and the secret's hash is its own: proof of being its user.
pub fn authenticate(
    view: &dyn View,
    now: Timestamp,
    id: &Name,
    hash: &[u8; 32],
) -> Result<Option<Token>, Broken> {
    let token = read(view, &token_key(id))?;
    let proof = |token: &Token| same(&token.hash, hash) && token.is_live(now);
    Ok(token.filter(proof))
}

/// A user.
pub fn user(view: &dyn View, name: &str) -> Result<Option<User>, Broken> {
    read(view, &user_key(name))
}

/// Whether access is controlled, and when rights changed last.
pub fn of(view: &dyn View) -> Result<AccessRow, Broken> {
    Ok(read(view, &access_key())?.unwrap_or_default())
}

/// Looks at all bytes, so that the time it takes tells nothing of where they differ.
fn same(one: &[u8; 32], other: &[u8; 32]) -> bool {
    let pairs = one.iter().zip(other);
    pairs.fold(0, |found, (a, b)| found | (a ^ b)) == 0
}

fn status(view: &dyn View) -> Result<Status, Broken> {
    let AccessRow {
        enabled,
        changed_index,
        users,
        roles,
        tokens,
    } = of(view)?;
    Ok(Status {
        enabled,
        changed_index,
        users,
        roles,
        tokens,
    })
}

fn users(view: &dyn View, list: &UserList) -> Result<Page<User>, Broken> {
    let after = list.after.as_ref().map(|name| user_key(name.as_str()));
    let (from, end) = listed(Key::<Users>::first(), after);
    let (mut page, mut rows, mut more) = (PageLimit::new(list.limit), Vec::new(), false);
    read_range::<Users>(view, &from, &end, &mut |_, user| {
        more = page.is_full();
        if more {
            return ControlFlow::Break(());
        }
        page.add(200);
        rows.push(user);
        ControlFlow::Continue(())
    })?;
    let next = rows.last().filter(|_| more);
    let next = next.map(|user: &User| user.name.to_string());
    Ok(Page { rows, next })
}

fn roles(view: &dyn View, list: &RoleList) -> Result<Page<Role>, Broken> {
    let after = list.after.as_ref().map(|name| role_key(name.as_str()));
    let (from, end) = listed(Key::<Roles>::first(), after);
    let (mut page, mut rows, mut more) = (PageLimit::new(list.limit), Vec::new(), false);
    read_range::<Roles>(view, &from, &end, &mut |_, role| {
        more = page.is_full();
        if more {
            return ControlFlow::Break(());
        }
        let prefixes = role.rules.iter().map(|rule| rule.prefix.len() + 16);
        page.add(200 + prefixes.sum::<usize>());
        rows.push(role);
        ControlFlow::Continue(())
    })?;
    let next = rows.last().filter(|_| more);
    let next = next.map(|role: &Role| role.name.to_string());
    Ok(Page { rows, next })
}

fn tokens(view: &dyn View, now: Timestamp, user: &Name) -> Result<Option<Vec<TokenView>>, Broken> {
    if read(view, &user_key(user.as_str()))?.is_none() {
        return Ok(None);
    }
    let mut keys = Vec::new();
    let first = tokens_of(user);
    let tx = Transaction::new(view);
    tx.scan_raw::<TokensByUser>(&first, &first.clone().end(), &mut |key, _| {
        keys.push(key.to_vec());
        ControlFlow::Continue(())
    })?;
    let mut found = Vec::with_capacity(keys.len());
    for key in keys {
        let id = token_id_of(&key)?;
        let token = read(view, &token_key(&id))?.ok_or_else(|| {
            let key = token_of_user_key(user, &id);
            Broken(format!(
                "{} names a token that is not there",
                key.bytes().escape_ascii()
            ))
        })?;
        found.push(TokenView {
            live: token.is_live(now),
            id: token.id,
            user: token.user,
            created_at: token.created_at,
            expires_at: token.expires_at,
        });
    }
    Ok(Some(found))
}
