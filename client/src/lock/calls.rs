//! The calls of a client for locks: reading, watching, and what guards or operators ask for.

use std::time::Duration;

use futures::stream::BoxStream;
use quorate_statemachine::lock::{
    Answer, CancelWait, Find, Found, Get, Kept, List, LockView, Member, Proclaim, Query, Release,
    Released, Renew, Revoke, WaitCancelled, Waiters,
};
use quorate_statemachine::query::Page;
use quorate_statemachine::{Answer as AnyAnswer, FencingToken, Name, Query as AnyQuery};

use super::LockBuilder;
use crate::client::{self, Client};
use crate::error::ClientError;
use crate::lease::wrong_answer;
use crate::transport::{WatchEvent, WatchWhat};

impl Client {
    /// Begins an acquisition of the lock `key`.
    pub fn lock(&self, key: impl Into<String>) -> LockBuilder {
        LockBuilder::new(self.clone(), key.into())
    }

    /// The lock `key` and some of its holders; none if nobody holds it or waits.
    pub async fn lock_get(&self, key: &Name) -> Result<Option<LockView>, ClientError> {
        let query = Query::Get(Get { key: key.clone() });
        match self.lock_query(query, 0).await? {
            Answer::Get(view) => Ok(view),
            _ => Err(wrong_answer("lock.get")),
        }
    }

    /// One page of locks that are held or waited for.
    pub async fn lock_list(&self, list: List) -> Result<Page<LockView>, ClientError> {
        match self.lock_query(Query::List(list), 0).await? {
            Answer::List(page) => Ok(page),
            _ => Err(wrong_answer("lock.list")),
        }
    }

    /// One page of those who wait for a lock, first in line first.
    pub async fn lock_waiters(&self, waiters: Waiters) -> Result<Page<Member>, ClientError> {
        match self.lock_query(Query::Waiters(waiters), 0).await? {
            Answer::Waiters(page) => Ok(page),
            _ => Err(wrong_answer("lock.waiters")),
        }
    }

    /// Where an acquisition stands.
    pub async fn lock_find(&self, key: &Name, id: [u8; 16]) -> Result<Found, ClientError> {
        self.lock_find_at(key, id, 0).await
    }

    pub(crate) async fn lock_find_at(
        &self,
        key: &Name,
        id: [u8; 16],
        min_index: u64,
    ) -> Result<Found, ClientError> {
        let find = Find {
            key: key.clone(),
            id,
        };
        match self.lock_query(Query::Find(find), min_index).await? {
            Answer::Find(found) => Ok(found),
            _ => Err(wrong_answer("lock.find")),
        }
    }

    /// Starts the TTL of a hold that no guard keeps anew; with another TTL if one is given.
    pub async fn lock_renew(
        &self,
        key: &Name,
        id: [u8; 16],
        ttl: Option<Duration>,
    ) -> Result<Kept, ClientError> {
        let renew = Renew {
            key: key.clone(),
            id,
            ttl_ms: ttl.map(client::ttl_ms).transpose()?,
        };
        self.execute(renew).await
    }

    /// Ends an acquisition wherever it stands: it neither holds nor waits any more, nor ever will.
    pub async fn lock_release(&self, key: &Name, id: [u8; 16]) -> Result<Released, ClientError> {
        self.execute(Release {
            key: key.clone(),
            id,
        })
        .await
    }

    /// Ends a wait, and no hold.
    pub async fn lock_cancel_wait(
        &self,
        key: &Name,
        id: [u8; 16],
    ) -> Result<WaitCancelled, ClientError> {
        self.execute(CancelWait {
            key: key.clone(),
            id,
        })
        .await
    }

    /// Ends the holds of `key` whoever has them; `only` the one with this token.
    pub async fn lock_revoke(
        &self,
        key: &Name,
        only: Option<FencingToken>,
        by: impl Into<String>,
    ) -> Result<Vec<Member>, ClientError> {
        let revoke = Revoke {
            key: key.clone(),
            only,
            by: by.into(),
        };
        self.execute(revoke).await
    }

    /// Puts another note on a hold.
    pub async fn lock_proclaim(
        &self,
        key: &Name,
        fencing_token: FencingToken,
        metadata: impl Into<Vec<u8>>,
    ) -> Result<Member, ClientError> {
        let proclaim = Proclaim {
            key: key.clone(),
            fencing_token,
            metadata: metadata.into(),
        };
        self.execute(proclaim).await
    }

    /// Grants, ends and proclamations of locks whose key starts with `prefix`, from now on.
    pub async fn lock_watch(
        &self,
        prefix: impl Into<String>,
    ) -> Result<BoxStream<'static, WatchEvent>, ClientError> {
        self.watch(WatchWhat::LockPrefix(prefix.into()), 0).await
    }

    async fn lock_query(&self, query: Query, min_index: u64) -> Result<Answer, ClientError> {
        let answered = self.query_at(AnyQuery::Lock(query), min_index).await?;
        match answered.answer {
            AnyAnswer::Lock(answer) => Ok(answer),
            _ => Err(wrong_answer("a lock query")),
        }
    }
}
