//! Release: give a grant back.

use serde::{Deserialize, Serialize};

use super::history::{EndReason, end};
use super::{Lease, give_back};
use crate::command::Validate;
use crate::context::Context;
use crate::fencing::FencingToken;
use crate::id::{LeaseToken, Name};
use crate::refusal::Failure;
use crate::tables::{MetaRow, ended_key, lease_key};
use crate::transaction::Transaction;

/// Gives `key` back.
///
/// Promises that this grant is over when it answers. Never refuses: with a token that is not the
/// live grant's it changes nothing and says so ([`Released::NotHeld`]). A retry gets `Released`
/// again while the key's history remembers the grant. Watchers of the key get `LeaseEnded`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The key.
    pub key: Name,
    /// The holder's proof.
    pub lease_token: LeaseToken,
    /// The grant.
    pub fencing_token: FencingToken,
}

/// The answer to a release.
#[allow(
    clippy::large_enum_variant,
    reason = "a reply lives once, on its way out"
)]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Released {
    /// The grant is over because its holder released it, now or by an earlier try.
    Released,
    /// The grant was not live any more: expired, superseded, reclaimed, revoked, or never made.
    NotHeld {
        /// Who holds the key now.
        current: Option<Lease>,
    },
}

impl Validate for Release {}

impl Release {
    pub(super) fn apply(
        &self,
        tx: &mut Transaction<'_>,
        meta: &mut MetaRow,
        ctx: &Context,
    ) -> Result<Released, Failure> {
        let Some(lease) = tx.get(&lease_key(&self.key))? else {
            return self.not_live(tx, None);
        };
        let own =
            lease.fencing_token == self.fencing_token && lease.lease_token == self.lease_token;
        if !own {
            let current = lease.is_live(ctx.now).then_some(lease);
            return self.not_live(tx, current);
        }
        if !lease.is_live(ctx.now) {
            end(tx, meta, ctx, &lease, EndReason::Expired)?;
            return Ok(Released::NotHeld { current: None });
        }
        give_back(tx, meta, ctx, &lease)?;
        Ok(Released::Released)
    }

    fn not_live(
        &self,
        tx: &mut Transaction<'_>,
        current: Option<Lease>,
    ) -> Result<Released, Failure> {
        let ended = tx.get(&ended_key(&self.key, self.fencing_token))?;
        let released_before = ended.is_some_and(|ended| {
            ended.lease_token == self.lease_token && ended.reason == EndReason::Released
        });
        if released_before {
            return Ok(Released::Released);
        }
        Ok(Released::NotHeld { current })
    }
}
