//! What the sweep does with due leases and old histories.

use super::history::{EndReason, end};
use super::renew::refile;
use crate::context::Context;
use crate::id::Name;
use crate::limits::LEASE_HISTORY_RETENTION_MS;
use crate::refusal::Broken;
use crate::tables::{DueKind, MetaRow, due_key, history_key, lease_key};
use crate::transaction::Transaction;

/// The lease's due entry came by: end it, or file it again if it was renewed.
pub(crate) fn expire_due(
    tx: &mut Transaction<'_>,
    meta: &mut MetaRow,
    ctx: &Context,
    key: &Name,
) -> Result<(), Broken> {
    let row_key = lease_key(key);
    let Some(mut lease) = tx.get(&row_key)? else {
        return Err(Broken(format!("lease {key} has a due entry and no row")));
    };
    if lease.is_live(ctx.now) {
        refile(tx, &mut lease)?;
        return tx.put(&row_key, &lease);
    }
    end(tx, meta, ctx, &lease, EndReason::Expired)
}

/// The history's due entry came by: forget it if the key was idle for the whole retention.
pub(crate) fn forget_due(
    tx: &mut Transaction<'_>,
    ctx: &Context,
    key: &Name,
) -> Result<(), Broken> {
    let row_key = history_key(key);
    let Some(history) = tx.get(&row_key)? else {
        return Err(Broken(format!(
            "the history of {key} has a due entry and no row"
        )));
    };
    let held = tx.exists(&lease_key(key))?;
    let last = history.last_ended_at;
    if !held && ctx.now.since(last) >= LEASE_HISTORY_RETENTION_MS {
        return history.forget(tx, key);
    }
    let from = if held { ctx.now } else { last };
    let at = from.plus(LEASE_HISTORY_RETENTION_MS);
    tx.put(
        &due_key(at, DueKind::LeaseHistory, key.as_str().as_bytes()),
        &(),
    )
}
