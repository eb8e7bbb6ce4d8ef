//! Access control: who there is, what they may do, and new tokens.
//!
//! What changes it is executed as it is ([`Client::execute`]); a token is made here, because its
//! secret stays with whoever asks.

use std::time::Duration;

use quorate_rpc::token::Bearer;
use quorate_statemachine::access::{
    Answer, PutToken, Query, Role, RoleList, Status, StatusOf, TokenPut, TokenView, TokensOf, User,
    UserList,
};
use quorate_statemachine::query::Page;
use quorate_statemachine::{Answer as AnyAnswer, InvalidArgument, Name, Query as AnyQuery};

use crate::client::Client;
use crate::error::ClientError;
use crate::lease::wrong_answer;

impl Client {
    /// Whether access is controlled, and how much there is of it.
    pub async fn access_status(&self) -> Result<Status, ClientError> {
        match self.access_query(Query::Status(StatusOf {})).await? {
            Answer::Status(status) => Ok(status),
            _ => Err(wrong_answer("access_status")),
        }
    }

    /// One page of users.
    pub async fn access_users(&self, list: UserList) -> Result<Page<User>, ClientError> {
        match self.access_query(Query::Users(list)).await? {
            Answer::Users(page) => Ok(page),
            _ => Err(wrong_answer("access_users")),
        }
    }

    /// One page of roles.
    pub async fn access_roles(&self, list: RoleList) -> Result<Page<Role>, ClientError> {
        match self.access_query(Query::Roles(list)).await? {
            Answer::Roles(page) => Ok(page),
            _ => Err(wrong_answer("access_roles")),
        }
    }

    /// The tokens of a user; none if there is no such user.
    pub async fn access_tokens(&self, user: Name) -> Result<Option<Vec<TokenView>>, ClientError> {
        match self.access_query(Query::Tokens(TokensOf { user })).await? {
            Answer::Tokens(tokens) => Ok(tokens),
            _ => Err(wrong_answer("access_tokens")),
        }
    }

    /// Makes a token of a user, without an end if there is no `ttl`. The cluster gets the hash of
    /// its secret only: whoever loses the token cannot get it again.
    pub async fn create_token(
        &self,
        user: Name,
        ttl: Option<Duration>,
    ) -> Result<(Bearer, TokenPut), ClientError> {
        let token = Bearer::mint().map_err(|error| {
            InvalidArgument::new(
                "token",
                "cannot be made",
                "a random secret",
                error.to_string(),
            )
        })?;
        let put = self.put_token(&token, user, ttl).await?;
        Ok((token, put))
    }

    /// The same with a token that was [minted](Bearer::mint) and perhaps kept before: if the
    /// outcome is unknown, whoever has it can still use it or revoke its id.
    pub async fn put_token(
        &self,
        token: &Bearer,
        user: Name,
        ttl: Option<Duration>,
    ) -> Result<TokenPut, ClientError> {
        let put = PutToken {
            id: token.id().clone(),
            user,
            hash: token.hash(),
            ttl_ms: ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
        };
        self.execute(put).await
    }

    async fn access_query(&self, query: Query) -> Result<Answer, ClientError> {
        match self.query(AnyQuery::Access(query)).await?.answer {
            AnyAnswer::Access(answer) => Ok(answer),
            _ => Err(wrong_answer("a query of access control")),
        }
    }
}
