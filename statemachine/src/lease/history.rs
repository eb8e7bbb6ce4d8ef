//! What became of a key's grants: bounded, kept for a while after the last one ended.
//!
//! Each ended grant has a row of its own, and the key has a small row that names them: whatever
//! ends a grant reads and writes the small one, however long the stories of the others are.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{Lease, fenced};
use crate::context::Context;
use crate::fencing::FencingToken;
use crate::id::{LeaseToken, Name, Owner};
use crate::limits::{LEASE_HISTORY_MAX, LEASE_HISTORY_RETENTION_MS};
use crate::notice::Notice;
use crate::refusal::{Broken, Failure, Refusal, Subject};
use crate::tables::{DueKind, MetaRow, due_key, ended_key, history_key, lease_key};
use crate::time::Timestamp;
use crate::transaction::{Transaction, read};
use crate::view::View;

/// Why a grant ended. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndReason {
    /// Its TTL ran out.
    Expired,
    /// Its holder gave it back.
    Released,
    /// The same owner claimed again and got a fresh grant.
    Superseded,
    /// Another owner took it over by compare-and-set.
    Reclaimed {
        /// Who.
        by: Name,
    },
    /// An operator ended it.
    Revoked {
        /// Who, or why, in the operator's words.
        by: String,
    },
}

impl EndReason {
    /// The word for scripts and people.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Released => "released",
            Self::Superseded => "superseded",
            Self::Reclaimed { .. } => "reclaimed",
            Self::Revoked { .. } => "revoked",
        }
    }
}

/// One grant that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Who held it.
    pub owner: Owner,
    /// The holder's proof.
    pub lease_token: LeaseToken,
    /// The grant's token.
    pub fencing_token: FencingToken,
    /// When it was granted.
    pub granted_at: Timestamp,
    /// When it was last renewed.
    pub renewed_at: Timestamp,
    /// Its TTL.
    pub ttl_ms: u64,
    /// When it was over: for an expiry, its deadline, not the moment the sweep found it.
    pub ended_at: Timestamp,
    /// Log index of the entry that ended it.
    pub ended_index: u64,
    /// Why it was over.
    pub reason: EndReason,
}

/// Names the rows of a key's ended grants.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HistoryRow {
    /// How many grants the key has had.
    pub epoch: u64,
    /// When the last one ended.
    pub last_ended_at: Timestamp,
    /// The grants, oldest first; at most [`LEASE_HISTORY_MAX`].
    pub ended: VecDeque<EndedName>,
}

/// Finds an [`Ended`] by either of its tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedName {
    /// The grant's token: part of the row's key.
    pub fencing_token: FencingToken,
    /// Hash of the holder's proof. Another proof may have it too: the row decides.
    pub lease_token_hash: u32,
}

/// The last ended grants of a key, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct History {
    /// How many grants the key has had.
    pub epoch: u64,
    /// At most [`LEASE_HISTORY_MAX`].
    pub ended: VecDeque<Ended>,
}

/// Ends `lease`: removes its row and its due entry, writes the history, tells the watchers.
pub(super) fn end(
    tx: &mut Transaction<'_>,
    meta: &mut MetaRow,
    ctx: &Context,
    lease: &Lease,
    reason: EndReason,
) -> Result<(), Broken> {
    tx.delete(&lease_key(&lease.key))?;
    tx.delete(&due_key(
        lease.filed_at,
        DueKind::Lease,
        lease.key.as_str().as_bytes(),
    ))?;
    assert!(
        meta.leases > 0,
        "a lease that ends was counted when it was granted"
    );
    meta.leases -= 1;
    tx.notify(Notice::LeaseEnded {
        key: lease.key.clone(),
        owner_id: lease.owner.owner_id.clone(),
        fencing_token: lease.fencing_token,
        reason: reason.clone(),
    });
    let ended_at = match reason {
        EndReason::Expired => lease.expires_at.min(ctx.now),
        _ => ctx.now,
    };
    let ended = Ended {
        owner: lease.owner.clone(),
        lease_token: lease.lease_token.clone(),
        fencing_token: lease.fencing_token,
        granted_at: lease.granted_at,
        renewed_at: lease.renewed_at,
        ttl_ms: lease.ttl_ms,
        ended_at,
        ended_index: ctx.index,
        reason,
    };
    record(tx, ctx, &lease.key, lease.epoch, ended)
}

fn record(
    tx: &mut Transaction<'_>,
    ctx: &Context,
    key: &Name,
    epoch: u64,
    ended: Ended,
) -> Result<(), Broken> {
    let row_key = history_key(key);
    let row = tx.get(&row_key)?;
    if row.is_none() {
        let at = ctx.now.plus(LEASE_HISTORY_RETENTION_MS);
        tx.put(
            &due_key(at, DueKind::LeaseHistory, key.as_str().as_bytes()),
            &(),
        )?;
    }
    let mut history = row.unwrap_or_default();
    history.epoch = epoch;
    history.last_ended_at = ended.ended_at;
    history.ended.push_back(EndedName {
        fencing_token: ended.fencing_token,
        lease_token_hash: hash_of(&ended.lease_token),
    });
    if history.ended.len() > LEASE_HISTORY_MAX
        && let Some(oldest) = history.ended.pop_front()
    {
        tx.delete(&ended_key(key, oldest.fencing_token))?;
    }
    tx.put(&row_key, &history)?;
    tx.put_new(&ended_key(key, ended.fencing_token), &ended)
}

fn hash_of(token: &LeaseToken) -> u32 {
    let hash = xxhash_rust::xxh3::xxh3_64(token.as_str().as_bytes());
    (hash >> 32) as u32
}

impl HistoryRow {
    /// The grant of `key` that was held with `token`, if it is over and known.
    pub(super) fn held_with(
        &self,
        tx: &mut Transaction<'_>,
        key: &Name,
        token: &LeaseToken,
    ) -> Result<Option<Ended>, Broken> {
        let hash = hash_of(token);
        for name in self
            .ended
            .iter()
            .filter(|name| name.lease_token_hash == hash)
        {
            let ended = tx.get(&ended_key(key, name.fencing_token))?;
            if let Some(ended) = ended.filter(|ended| ended.lease_token == *token) {
                return Ok(Some(ended));
            }
        }
        Ok(None)
    }

    /// Forgets the key's grants.
    pub(super) fn forget(&self, tx: &mut Transaction<'_>, key: &Name) -> Result<(), Broken> {
        for name in &self.ended {
            tx.delete(&ended_key(key, name.fencing_token))?;
        }
        tx.delete(&history_key(key))
    }
}

/// The ended grants of `key`, as they are shown.
pub(super) fn story(view: &dyn View, key: &Name) -> Result<History, Broken> {
    let row = read(view, &history_key(key))?.unwrap_or_default();
    let mut ended = VecDeque::with_capacity(row.ended.len());
    for name in &row.ended {
        ended.extend(read(view, &ended_key(key, name.fencing_token))?);
    }
    Ok(History {
        epoch: row.epoch,
        ended,
    })
}

/// What to tell someone who presents a token of a key that has no live lease.
pub(super) fn why_gone(
    tx: &mut Transaction<'_>,
    key: &Name,
    token: FencingToken,
) -> Result<Failure, Broken> {
    let ended = tx.get(&ended_key(key, token))?;
    Ok(match ended {
        Some(ended) if ended.reason == EndReason::Expired => Failure::Refused(Refusal::Expired {
            subject: Subject::Lease,
            name: key.to_string(),
            token,
            expired_at: ended.ended_at,
        }),
        _ => fenced(key, token, None),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::MemoryView;

    fn ended(token: &str) -> Ended {
        let name = |text: &str| Name::parse("name", text).expect("a name");
        Ended {
            owner: Owner::new(name("w"), name("boot")),
            lease_token: LeaseToken::parse(token.to_owned()).expect("a token"),
            fencing_token: 7,
            granted_at: Timestamp(1),
            renewed_at: Timestamp(1),
            ttl_ms: 1,
            ended_at: Timestamp(2),
            ended_index: 8,
            reason: EndReason::Released,
        }
    }

    #[test]
    fn two_lease_tokens_with_one_hash_are_told_apart_by_the_row() {
        let view = MemoryView::default();
        let mut tx = Transaction::new(&view);
        let key = Name::parse("key", "k").expect("a name");
        let (held, asked) = (ended("held"), ended("asked").lease_token);
        tx.put(&ended_key(&key, 7), &held).expect("a row");
        let named_by = |token: &LeaseToken| HistoryRow {
            ended: VecDeque::from([EndedName {
                fencing_token: 7,
                lease_token_hash: hash_of(token),
            }]),
            ..HistoryRow::default()
        };
        let found = named_by(&asked).held_with(&mut tx, &key, &asked);
        assert_eq!(found, Ok(None));
        let found = named_by(&held.lease_token).held_with(&mut tx, &key, &held.lease_token);
        assert_eq!(found, Ok(Some(held)));
    }
}
