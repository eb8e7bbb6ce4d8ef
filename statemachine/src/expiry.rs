//! The bounded sweep: before each command, what is due ends, in deadline order.
//!
//! Expiry is the effect of an entry, never of a timer, so it happens at the same place of the log
//! on every node. A due entry may be early (its subject was renewed since); then it is filed again
//! at the true deadline. Each entry handled counts, so that the work per log entry is bounded; what
//! is left waits for the next entry or `Tick`. No rule depends on the sweep having come by: a lease
//! whose time is over is over, swept or not.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use crate::context::Context;
use crate::id::Name;
use crate::limits::SWEEP_REMOVALS_MAX;
use crate::refusal::Broken;
use crate::tables::{Due, DueKind, Key, MetaRow, due_key, parse_due_key, read_due_subject};
use crate::time::Timestamp;
use crate::transaction::{Transaction, read_range};
use crate::view::View;
use crate::{access, lease, lock, queue, session};

/// Ends what is due at `ctx.now`, at most `limit` entries of the due index. True when more may be.
pub(crate) fn sweep(
    tx: &mut Transaction<'_>,
    meta: &mut MetaRow,
    ctx: &Context,
    limit: usize,
) -> Result<bool, Broken> {
    let (mut due, mut removals) = (Vec::new(), 0);
    let end = Key::<Due>::first().number(ctx.now.0.saturating_add(1));
    tx.scan(&Key::first(), &end, &mut |key, ()| {
        due.push(key.to_vec());
        removals += usize::from(is_removal(key));
        if due.len() == limit || removals == SWEEP_REMOVALS_MAX {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    let mut locks = BTreeSet::new();
    for key in &due {
        let (at, kind, subject) = parse_due_key(key)
            .ok_or_else(|| Broken(format!("due entry {} has no meaning", key.escape_ascii())))?;
        tx.delete(&due_key(at, kind, subject))?;
        end_one(tx, meta, ctx, kind, subject, &mut locks)?;
    }
    let overdue = due.len() == limit || removals == SWEEP_REMOVALS_MAX;
    let ctx = Context { overdue, ..*ctx };
    for lock in locks {
        lock::hand_over_due(tx, meta, &ctx, &lock)?;
    }
    Ok(overdue)
}

/// Whether it may remove a megabyte.
fn is_removal(key: &[u8]) -> bool {
    let kind = parse_due_key(key).map(|(_, kind, _)| kind);
    matches!(kind, Some(DueKind::SessionBlob | DueKind::SessionGarbage))
}

fn end_one(
    tx: &mut Transaction<'_>,
    meta: &mut MetaRow,
    ctx: &Context,
    kind: DueKind,
    subject: &[u8],
    locks: &mut BTreeSet<Name>,
) -> Result<(), Broken> {
    let subject = read_due_subject(kind, subject)?;
    match kind {
        DueKind::Lease => lease::expire_due(tx, meta, ctx, &subject.name),
        DueKind::LeaseHistory => lease::forget_due(tx, ctx, &subject.name),
        DueKind::QueueClaim => queue::expire_claim_due(tx, ctx, &subject.name, subject.item()?),
        DueKind::QueueDelay => queue::release_delayed_due(tx, ctx, &subject.name, subject.item()?),
        DueKind::QueueDedupe => queue::forget_dedupe_due(tx, ctx, &subject.name, subject.key()?),
        DueKind::QueueIdle => queue::forget_idle_due(tx, meta, ctx, &subject.name),
        DueKind::LockMember => {
            if lock::member_due(tx, meta, ctx, &subject.name, subject.acquisition()?)? {
                locks.insert(subject.name);
            }
            Ok(())
        }
        DueKind::LockHandOver => {
            locks.insert(subject.name);
            Ok(())
        }
        DueKind::SessionBlob
        | DueKind::SessionWork
        | DueKind::SessionGraph
        | DueKind::SessionGarbage => session::end_due(tx, ctx, kind, &subject),
        DueKind::Token => access::token_due(tx, ctx, &subject.name),
    }
}

/// The earliest instant at which something may be due: when the leader's next `Tick` is needed.
pub fn next_due(view: &dyn View) -> Result<Option<Timestamp>, Broken> {
    let mut first = None;
    let (from, to) = (Key::<Due>::first(), Key::<Due>::first().end());
    read_range::<Due>(view, &from, &to, &mut |key, ()| {
        first = parse_due_key(key).map(|(at, _, _)| at);
        ControlFlow::Break(())
    })?;
    Ok(first)
}
