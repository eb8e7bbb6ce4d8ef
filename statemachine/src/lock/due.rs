//! What the sweep does with members whose time is over, and with queues that were left to it.

use super::end::end;
use super::hand_over::{end_overdue_holders, hand_over, lock_row};
use super::row::{member_of, refile, store};
use crate::context::Context;
use crate::id::Name;
use crate::refusal::Broken;
use crate::tables::{MetaRow, lock_key};
use crate::transaction::Transaction;

/// The member's due entry came by: end it, or file it again if it was renewed. True when it ended:
/// the lock is to be handed over when the sweep has ended all that it ends, since another holder
/// may have died too and asked for a delay.
pub(crate) fn member_due(
    tx: &mut Transaction<'_>,
    meta: &mut MetaRow,
    ctx: &Context,
    key: &Name,
    id: [u8; 16],
) -> Result<bool, Broken> {
    let mut member = member_of(tx, key, id)?;
    if member.is_live(ctx.now) {
        refile(tx, key, &mut member)?;
        return Ok(false);
    }
    let mut lock = lock_row(tx, key)?;
    let why = member.overdue();
    end(tx, meta, ctx, &mut lock, &member, why)?;
    store(tx, &lock, ctx.now)?;
    Ok(true)
}

/// The lock may have something to grant, or its delay may be over. It may also be gone by now.
pub(crate) fn hand_over_due(
    tx: &mut Transaction<'_>,
    meta: &mut MetaRow,
    ctx: &Context,
    key: &Name,
) -> Result<(), Broken> {
    match tx.get(&lock_key(key))? {
        Some(mut lock) if ctx.overdue => end_overdue_holders(tx, meta, ctx, &mut lock),
        Some(mut lock) => hand_over(tx, meta, ctx, &mut lock),
        None => Ok(()),
    }
}
