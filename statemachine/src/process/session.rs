//! What a session is tied to: grants of its scopes, and processes that wake it.
//!
//! Both are counted and bounded, because [`super::DetachSession`] undoes all of them in one entry.

use serde::{Deserialize, Serialize};

use super::{Grant, WakeTarget};
use crate::id::Name;
use crate::limits::{SESSION_GRANTS_MAX, SESSION_WAKE_TARGETS_MAX};
use crate::refusal::{Broken, Failure, Refusal};
use crate::tables::{
    grant_key, grant_of_process_key, grant_of_session_key, session_key, wake_target_key,
};
use crate::transaction::Transaction;

/// How much a session is tied to; no row when nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SessionRow {
    /// Grants of its scopes.
    pub grants: u64,
    /// Processes whose events wake it.
    pub wake_targets: u64,
}

fn count(
    tx: &mut Transaction<'_>,
    session: &Name,
    change: impl FnOnce(&mut SessionRow) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let key = session_key(session);
    let mut row = tx.get(&key)?.unwrap_or_default();
    change(&mut row)?;
    if row == SessionRow::default() {
        tx.delete(&key)?;
    } else {
        tx.put(&key, &row)?;
    }
    Ok(())
}

/// Writes a grant and what finds it.
pub(super) fn add_grant(tx: &mut Transaction<'_>, grant: &Grant) -> Result<(), Failure> {
    count(tx, &grant.session, |row| {
        let grants = || format!("grants of session {}", grant.session);
        Refusal::check_room(grants, row.grants, SESSION_GRANTS_MAX)?;
        row.grants += 1;
        Ok(())
    })?;
    tx.put(&grant_key(&grant.scope, &grant.process_id), grant)?;
    tx.put(&grant_of_process_key(grant), &())?;
    tx.put(&grant_of_session_key(grant), &())?;
    Ok(())
}

/// Removes a grant and what found it.
pub(super) fn remove_grant(tx: &mut Transaction<'_>, grant: &Grant) -> Result<(), Failure> {
    let below = || {
        Broken(format!(
            "session {} has fewer grants than rows",
            grant.session
        ))
    };
    count(tx, &grant.session, |row| {
        row.grants = row.grants.checked_sub(1).ok_or_else(below)?;
        Ok(())
    })?;
    tx.delete(&grant_key(&grant.scope, &grant.process_id))?;
    tx.delete(&grant_of_process_key(grant))?;
    tx.delete(&grant_of_session_key(grant))?;
    Ok(())
}

/// Notes that a process wakes a session.
pub(super) fn add_wake_target(
    tx: &mut Transaction<'_>,
    process: &Name,
    target: &WakeTarget,
) -> Result<(), Failure> {
    count(tx, &target.session, |row| {
        let targets = || format!("processes that wake session {}", target.session);
        Refusal::check_room(targets, row.wake_targets, SESSION_WAKE_TARGETS_MAX)?;
        row.wake_targets += 1;
        Ok(())
    })?;
    tx.put(&wake_target_key(&target.session, process), &())?;
    Ok(())
}

/// Notes that a process wakes a session no longer.
pub(super) fn remove_wake_target(
    tx: &mut Transaction<'_>,
    process: &Name,
    session: &Name,
) -> Result<(), Failure> {
    let below = || {
        Broken(format!(
            "session {session} is woken by fewer processes than rows"
        ))
    };
    count(tx, session, |row| {
        row.wake_targets = row.wake_targets.checked_sub(1).ok_or_else(below)?;
        Ok(())
    })?;
    tx.delete(&wake_target_key(session, process))?;
    Ok(())
}
