//! Execution: who may commit to a lane, and claim its work and inputs.
//!
//! The right is a lease like any other, so that it is claimed, renewed, reclaimed, watched and
//! revoked as one. What is done under it names the grant in full; anything else is refused.

use super::{Session, SessionRef, check_name};
use crate::context::Context;
use crate::id::Name;
use crate::lease::{self, Observed};
use crate::refusal::{Failure, InvalidArgument, Refusal, Subject};
use crate::tables::{MetaRow, lease_key};
use crate::transaction::Transaction;

/// The key of a lane's execution lease: `SESSION/LANE/ID`. The id keeps the leases of a deleted
/// session apart from those of a new one of the same name. Refuses names that are longer than
/// commands take ([`crate::limits::SESSION_NAME_BYTES_MAX`]).
pub fn execution_lease(session: &SessionRef, lane: &Name) -> Result<Name, InvalidArgument> {
    let SessionRef { name, id } = session;
    check_name("session", name)?;
    check_name("lane", lane)?;
    Name::parse("execution lease", format!("{name}/{lane}/{id}"))
}

/// `Fenced` or `Expired` unless `execution` is the live grant of the lane's lease.
pub(super) fn require(
    tx: &mut Transaction<'_>,
    ctx: &Context,
    session: &Session,
    lane: &Name,
    execution: &Observed,
) -> Result<(), Failure> {
    let key = execution_lease(&session.reference(), lane)?;
    lease::require_held(tx, ctx, &key, execution).map(drop)
}

/// `Fenced` for who names no grant at all: the live one is named.
pub(super) fn refuse(
    tx: &mut Transaction<'_>,
    ctx: &Context,
    session: &Session,
    lane: &Name,
) -> Result<(), Failure> {
    let key = execution_lease(&session.reference(), lane)?;
    let lease = tx.get(&lease_key(&key))?;
    let live = lease.filter(|lease| lease.is_live(ctx.now));
    Err(Failure::Refused(Refusal::Fenced {
        subject: Subject::Lease,
        name: key.to_string(),
        presented: 0,
        current: live.map(|lease| lease.fencing_token),
    }))
}

/// Gives the lane's lease back, if `execution` is its grant.
pub(super) fn release(
    tx: &mut Transaction<'_>,
    meta: &mut MetaRow,
    ctx: &Context,
    (session, lane): (&Session, &Name),
    execution: &Observed,
) -> Result<(), Failure> {
    let key = execution_lease(&session.reference(), lane)?;
    match lease::require_held(tx, ctx, &key, execution) {
        Ok(lease) => lease::give_back(tx, meta, ctx, &lease).map_err(Failure::from),
        Err(Failure::Refused(_)) => Ok(()),
        Err(broken @ Failure::Broken(_)) => Err(broken),
    }
}
