//! Tokens: put and revoke. Only hashes of secrets come here.

use serde::{Deserialize, Serialize};

use super::{EMBEDDED, Token, change};
use crate::command::Validate;
use crate::context::Context;
use crate::id::Name;
use crate::limits::{TOKEN_TTL_MS_MAX, USER_TOKENS_MAX};
use crate::refusal::{Broken, Failure, InvalidArgument, Refusal, Subject};
use crate::tables::{Due, DueKind, Key, access_key, due_key, token_key, token_of_user_key};
use crate::time::Timestamp;
use crate::transaction::Transaction;

/// Gives a user one more token.
///
/// Promises that whoever knows the secret can prove to be the user, until the token's end. Refuses
/// with `NotFound` when there is no such user, `Conflict` when the id is another token's, and
/// `Exhausted` when the user has too many. A retry changes nothing. Nobody is woken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutToken {
    /// Its id, minted by the caller.
    pub id: Name,
    /// Whose it is.
    pub user: Name,
    /// SHA-256 of the secret.
    pub hash: [u8; 32],
    /// How long it is proof, from the entry's instant; none for ever.
    pub ttl_ms: Option<u64>,
}

/// The answer: when the token ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenPut {
    /// None for a token without an end.
    pub expires_at: Option<Timestamp>,
}

/// Ends a token.
///
/// Promises that it is proof of nothing from here on. Refuses what would leave no administrator. A
/// retry finds none. Nobody is woken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokeToken {
    /// Which.
    pub id: Name,
}

/// The answer to a revocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRevoked {
    /// Whose it was; none if there is no such token.
    pub user: Option<Name>,
}

impl Validate for PutToken {
    fn validate(&self) -> Result<(), InvalidArgument> {
        if let Some(ttl_ms) = self.ttl_ms {
            InvalidArgument::check_count("ttl_ms", ttl_ms, 1, TOKEN_TTL_MS_MAX)?;
        }
        if self.user.as_str().starts_with(EMBEDDED) {
            return Err(InvalidArgument::new(
                "user",
                "cannot be proved by a token",
                format!("names that do not start with {EMBEDDED}"),
                self.user.as_str(),
            ));
        }
        Ok(())
    }
}

impl Validate for RevokeToken {}

impl PutToken {
    pub(super) fn apply(
        &self,
        tx: &mut Transaction<'_>,
        ctx: &Context,
    ) -> Result<TokenPut, Failure> {
        if let Some(token) = tx.get(&token_key(&self.id))? {
            return self.again(&token);
        }
        change::require_user(tx, &self.user)?;
        let tokens = change::token_ids(tx, &self.user)?.len() as u64;
        let what = || format!("tokens of user {}", self.user);
        Refusal::check_room(what, tokens, USER_TOKENS_MAX as u64)?;
        let token = Token {
            id: self.id.clone(),
            user: self.user.clone(),
            hash: self.hash,
            created_at: ctx.now,
            expires_at: self.ttl_ms.map(|ttl_ms| ctx.now.plus(ttl_ms)),
        };
        tx.put(&token_key(&self.id), &token)?;
        tx.put(&token_of_user_key(&self.user, &self.id), &())?;
        if let Some(end) = token.expires_at {
            tx.put(&due_of(end, &self.id), &())?;
        }
        let mut row = change::row(tx)?;
        row.tokens += 1;
        tx.put(&access_key(), &row)?;
        let expires_at = token.expires_at;
        Ok(TokenPut { expires_at })
    }

    fn again(&self, token: &Token) -> Result<TokenPut, Failure> {
        let same = (&token.user, token.hash) == (&self.user, self.hash)
            && token.expires_at.is_some() == self.ttl_ms.is_some();
        if same {
            let expires_at = token.expires_at;
            return Ok(TokenPut { expires_at });
        }
        Err(Failure::Refused(Refusal::Conflict {
            subject: Subject::Token,
            name: self.id.to_string(),
            problem: "there is another token of this id; mint a new one".to_owned(),
        }))
    }
}

impl RevokeToken {
    pub(super) fn apply(&self, tx: &mut Transaction<'_>) -> Result<TokenRevoked, Failure> {
        let Some(token) = tx.get(&token_key(&self.id))? else {
            return Ok(TokenRevoked { user: None });
        };
        remove(tx, &token)?;
        let user = Some(token.user);
        Ok(TokenRevoked { user })
    }
}

fn due_of(end: Timestamp, id: &Name) -> Key<Due> {
    due_key(end, DueKind::Token, id.as_str().as_bytes())
}

/// The sweep came by a token's end.
pub(crate) fn token_due(tx: &mut Transaction<'_>, ctx: &Context, id: &Name) -> Result<(), Broken> {
    match tx.get(&token_key(id))? {
        Some(token) if !token.is_live(ctx.now) => remove(tx, &token),
        _ => Err(Broken(format!("token {id} is due, and not over"))),
    }
}

/// Removes a token that is there.
pub(super) fn remove(tx: &mut Transaction<'_>, token: &Token) -> Result<(), Broken> {
    tx.delete(&token_key(&token.id))?;
    tx.delete(&token_of_user_key(&token.user, &token.id))?;
    if let Some(end) = token.expires_at {
        tx.delete(&due_of(end, &token.id))?;
    }
    let mut row = change::row(tx)?;
    row.tokens -= 1;
    tx.put(&access_key(), &row)
}
