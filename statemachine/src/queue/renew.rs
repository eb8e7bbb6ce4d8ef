//! Renew: keep a claim.

use serde::{Deserialize, Serialize};

use super::due::item_subject;
use super::{Item, ItemClaim, ItemId, row};
use crate::command::Validate;
use crate::context::Context;
use crate::fencing::FencingToken;
use crate::figure::{Figure, Held};
use crate::id::Name;
use crate::refusal::{Broken, Failure, InvalidArgument};
use crate::tables::{DueKind, due_key, item_key};
use crate::transaction::Transaction;

/// Starts the visibility TTL anew. Refuses with `Expired` or `Fenced` when the claim is over, with
/// `NotFound` when the item is gone. A retry renews again. Nobody is woken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renew {
    /// The queue.
    pub queue: Name,
    /// The item.
    pub item_id: ItemId,
    /// The claim.
    pub fencing_token: FencingToken,
    /// The TTL from now on.
    pub ttl_ms: u64,
}

impl Validate for Renew {
    fn validate(&self) -> Result<(), InvalidArgument> {
        InvalidArgument::check_ttl(self.ttl_ms)
    }
}

impl Renew {
    /// Moves the deadline. Out: the due entry stays where it is, the sweep files it again. In: the
    /// entry must move, since it may never be later than the deadline.
    pub(super) fn apply(
        &self,
        tx: &mut Transaction<'_>,
        ctx: &Context,
    ) -> Result<ItemClaim, Failure> {
        let mut item = row::require_claim(tx, ctx, &self.queue, self.item_id, self.fencing_token)?;
        let claim = claim_of(&self.queue, &mut item)?;
        tx.count(Figure::Renewed {
            held: Held::Claim,
            left_ms: claim.expires_at.since(ctx.now),
        });
        claim.ttl_ms = self.ttl_ms;
        claim.expires_at = ctx.now.plus(self.ttl_ms);
        if claim.expires_at < claim.filed_at {
            refile(tx, &self.queue, &mut item)?;
        }
        tx.put(&item_key(&self.queue, self.item_id), &item)?;
        Ok(claim_of(&self.queue, &mut item)?.clone())
    }
}

/// Files the claim's due entry at the true deadline; the caller writes the item.
pub(super) fn refile(
    tx: &mut Transaction<'_>,
    queue: &Name,
    item: &mut Item,
) -> Result<(), Broken> {
    let subject = item_subject(queue, item.item_id);
    let claim = claim_of(queue, item)?;
    tx.delete(&due_key(claim.filed_at, DueKind::QueueClaim, &subject))?;
    claim.filed_at = claim.expires_at;
    tx.put(&due_key(claim.filed_at, DueKind::QueueClaim, &subject), &())
}

fn claim_of<'a>(queue: &Name, item: &'a mut Item) -> Result<&'a mut ItemClaim, Broken> {
    let item_id = item.item_id;
    item.claim.as_mut().ok_or_else(|| {
        Broken(format!(
            "item {} is claimed and has no claim",
            row::item_name(queue, item_id)
        ))
    })
}
